"""The `ctlib` command, as a photographer types it."""

import importlib
import subprocess
import sys

import graph
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from ctlib import cli, images, lut, methods
from ctlib.cli import OF_NOTEBOOKS, RECIPES, app
from ctlib.recipes.histogram_analogy import options_of
from ctlib.settings import Settings


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    for name, tint in (("photo.jpg", (40, 90, 160)), ("mood.png", (200, 120, 60))):
        values = np.clip(generator.normal(tint, 30, (40, 60, 3)), 0, 255).astype(np.uint8)
        images.write(tmp_path / name, values)
    return tmp_path


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_recolor_writes_what_the_library_computes(photos):
    out = photos / "out.png"
    done = run("recolor", photos / "photo.jpg", "-r", photos / "mood.png", "-m", "mkl_lab", "-o", out)
    assert done.exit_code == 0, done.output
    source, reference = images.read(photos / "photo.jpg"), images.read(photos / "mood.png")
    assert (images.read(out) == methods.recolor_uint8("mkl_lab", source, reference)).all()


def test_recolor_by_every_method(photos):
    done = run("recolor", photos / "photo.jpg", "-r", photos / "mood.png", "-m", "all", "-o", photos / "all")
    assert done.exit_code == 0, done.output
    assert {path.name for path in (photos / "all").iterdir()} == {f"photo-{name}.png" for name in methods.METHODS}


def test_recolor_to_a_palette(photos):
    out = photos / "out.png"
    done = run("recolor", photos / "photo.jpg", "-p", "#203040, #a04030, #f0e0c0", "-m", "chang", "-o", out)
    assert done.exit_code == 0 and images.read(out).shape == (40, 60, 3)


def test_lut_reproduces_the_method(photos):
    cube = photos / "mood.cube"
    done = run("lut", photos / "photo.jpg", "-r", photos / "mood.png", "-m", "mkl_rgb", "-o", cube)
    assert done.exit_code == 0, done.output
    source, reference = images.read(photos / "photo.jpg"), images.read(photos / "mood.png")
    expected = methods.recolor_uint8("mkl_rgb", source, reference).astype(int)
    table = lut.load_cube(cube)
    assert table.shape == (3, 33, 33, 33)
    assert abs(images.to_uint8(lut.apply(table, images.to_tensor(source))) - expected).mean() < 1


def test_palette_prints_hex_colors_dark_to_light(photos):
    words = run("palette", photos / "photo.jpg", "-k", "4").output.split()
    assert len(words) == 4 and all(len(word) == 7 and word[0] == "#" for word in words)


def test_methods_and_datasets_are_listed():
    listed = run("methods").output
    assert all(name in listed for name in methods.METHODS)
    assert "fivek" in run("data", "list").output


def test_verify_reports_and_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    done = run("data", "verify", "camvid")
    assert done.exit_code == 1 and "camvid" in done.output and "ctlib:" not in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["recolor", "none.jpg", "-r", "mood.png", "-o", "out.png"], "none.jpg"),
        (["recolor", "photo.jpg", "-r", "mood.png", "-m", "magic", "-o", "out.png"], "unknown method 'magic'; known:"),
        (["recolor", "photo.jpg", "-o", "out.png"], "give a reference picture or a palette"),
        (["recolor", "photo.jpg", "-p", "", "-m", "chang", "-o", "out.png"], "empty"),
        (["recolor", "photo.jpg", "-p", "#12345", "-m", "chang", "-o", "out.png"], "#12345"),
        (["recolor", "photo.jpg", "-p", "#123456", "-m", "idt", "-o", "out.png"], "takes a reference picture"),
        (["recolor", "photo.jpg", "-r", "mood.png", "-o", "no/out.png"], "no"),
        (["recolor", "photo.jpg", "-r", "mood.png", "-o", "out.xyz"], ".xyz"),
        (["lut", "photo.jpg", "-r", "mood.png", "-m", "idt_regrain", "-o", "out.cube"], "no LUT can hold"),
        (["data", "verify", "nothing"], "nothing"),
    ],
)
def test_mistakes_cost_one_line(photos, words, says):
    command = [sys.executable, "-m", "ctlib.cli", *words]
    done = subprocess.run(command, cwd=photos, capture_output=True, text=True, timeout=120)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert lines[0].startswith("ctlib: ") and says in lines[0]
    assert {path.name for path in photos.iterdir()} == {"photo.jpg", "mood.png"}


TRAINED_BY = {
    "20_train_histogram_analogy": "histogram_analogy",
    "30_train_palettenet": "palettenet",
    "31_adversarial_palettenet": "palettenet",
    "41_classification_colorization": "zhang2016",
    "42_user_guided_colorization": "zhang2017",
}
PROFILES = [path for path in sorted((graph.ROOT / "notebooks/profiles").glob("*/*.yml")) if path.stem in TRAINED_BY]


def options(recipe: str) -> set[str]:
    return {*options_of(importlib.import_module(f"ctlib.recipes.{recipe}").run), *Settings.__dataclass_fields__}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_profiles_of_notebooks_that_train_are_taken_by_the_command(path):
    assert set(yaml.safe_load(path.read_text())) - options(TRAINED_BY[path.stem]) <= OF_NOTEBOOKS


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_option_of_a_training_is_left_out(recipe):
    assert not options(recipe) & OF_NOTEBOOKS


def test_every_recipe_can_be_run():
    for name in cli.RECIPES:
        assert callable(importlib.import_module(f"ctlib.recipes.{name}").run)
    done = run("train", "magic", "folder")
    assert done.exit_code == 1 and "unknown recipe 'magic'; known: histogram_analogy" in done.output
    assert all(name in done.output for name in ("stylization", "stylization_once", "refinement", "exemplar"))
