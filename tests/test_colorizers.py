"""Colorizers by name, one picture or a folder of them."""

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ctlib import chroma, cli, color, colorizers, images
from ctlib.data import photos


class Sepia:
    """A network that finds everything brown, unless it is told otherwise."""

    def colorize(self, rgb, side=256, hints=None):
        ab = torch.tensor([10.0, 30.0])
        if hints is not None:  # the mean of what it is told
            ab = (hints.ab * hints.mask).sum((0, 2, 3)) / hints.mask.sum()
        return chroma.colorize(lambda lightness: ab.view(1, 2, 1, 1).expand(len(rgb), -1, 4, 4), rgb, side)


@pytest.fixture(autouse=True)
def sepia(monkeypatch):
    known = dict(colorizers.COLORIZERS, sepia=colorizers.Colorizer("sepia", "toy.Sepia", "brown", ("hints",)))
    monkeypatch.setattr(colorizers, "COLORIZERS", known)
    true = colorizers._network
    monkeypatch.setattr(colorizers, "_network", lambda *names: Sepia() if names[0] == "toy.Sepia" else true(*names))


@pytest.fixture
def folder(tmp_path):
    """A gray scan, a picture in color, gray with alpha, 16 bits, one pixel, a broken file, a text, a name twice."""
    source = tmp_path / "scans"
    (source / "older").mkdir(parents=True)
    ramp = np.linspace(0, 255, 40 * 50).reshape(40, 50)
    Image.fromarray(ramp.astype(np.uint8)).save(source / "gray.png")
    images.write(source / "color.jpg", photos.load("chelsea", 60))
    Image.fromarray(np.stack([ramp, np.full_like(ramp, 255)], 2).astype(np.uint8), "LA").save(source / "alpha.png")
    Image.fromarray((ramp * 257).astype(np.uint16)).save(source / "older" / "deep.png")
    Image.new("L", (1, 1), 77).save(source / "one.png")
    (source / "broken.jpg").write_bytes((source / "color.jpg").read_bytes()[:300])
    (source / "notes.txt").write_text("not a picture")
    Image.fromarray(ramp.astype(np.uint8)).save(source / "gray.tif")
    return source


def test_a_folder_is_colored_at_full_size_and_what_is_broken_is_listed(folder, tmp_path):
    out = tmp_path / "out"
    report = colorizers.colorize_files("sepia", folder, out)
    names = {path.relative_to(out).as_posix() for path in report.written}
    assert names == {"alpha.png", "color.png", "gray.png.png", "gray.tif.png", "older/deep.png", "one.png"}
    assert [path.name for path in report.skipped] == ["broken.jpg"] and [p.name for p in report.in_color] == [
        "color.jpg"
    ]
    assert "skipped" in str(report) and "broken.jpg" in str(report) and "color dropped" in str(report)
    for name, source in (("color.png", "color.jpg"), ("older/deep.png", "older/deep.png"), ("one.png", "one.png")):
        result, before = images.read(out / name), images.read(folder / source)
        assert result.shape == before.shape
        lab = color.rgb_to_lab(images.to_tensor(result))
        # in the dark and in the light brown cannot be shown, and L* gives way a little
        assert (lab[:, :1] - chroma.lightness(images.to_tensor(before))).abs().median() < 0.5
        assert (lab[:, 2] > lab[:, 1]).float().mean() > 0.9
    again = colorizers.colorize_files("sepia", folder, folder / "inside")
    assert len(again.written) == len(colorizers.colorize_files("sepia", folder, folder / "inside").written)


def test_hints_and_options_reach_the_network_that_takes_them():
    rgb = photos.tensor("chelsea", 40)
    told = color.rgb_to_lab(colorizers.colorize("sepia", rgb, hints=[(3, 4, (-20.0, -20.0))]))
    assert told[:, 2].mean() < -10
    with pytest.raises(ValueError, match=r"point 1: \(99, 4\) lies outside"):
        colorizers.colorize("sepia", rgb, hints=[(99, 4, "#102030")])
    with pytest.raises(ValueError, match="points belong to one picture, got 2"):
        colorizers.colorize("sepia", rgb.repeat(2, 1, 1, 1), hints=[(3, 4, "#102030")])
    with pytest.raises(ValueError, match="sepia has no option 'temperature'; it takes hints"):
        colorizers.colorize("sepia", rgb, temperature=0.3)
    with pytest.raises(ValueError, match="gray has no option 'hints'; it takes none"):
        colorizers.colorize("gray", rgb, hints=[])


def test_bad_input_ends_before_anything_is_written(folder, tmp_path):
    out = tmp_path / "out"
    for source, output, said in (
        (tmp_path / "nowhere", out, "no such file or folder"),
        (folder, folder, "would take the place"),
        (folder, folder / "gray.png", "is a file; a folder"),
        (folder / "gray.png", tmp_path / "a.xyz", "unknown suffix"),
        (folder / "broken.jpg", tmp_path / "a.png", "broken.jpg"),
        (folder / "older" / "none", out, "no such file"),
    ):
        with pytest.raises((ValueError, OSError), match=said):
            colorizers.colorize_files("gray", source, output)
    with pytest.raises(ValueError, match=r"hints: points belong to one picture, and .*scans is a folder"):
        colorizers.colorize_files("sepia", folder, out, hints=[(0, 0, "#804020")])
    with pytest.raises(ValueError, match="unknown colorizer 'x'; known: gray"):
        colorizers.colorize_files("x", folder / "gray.png", tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        colorizers.colorize_files("gray", tmp_path / "empty", out)
    assert not out.exists() and not (tmp_path / "a.png").exists()


def test_the_command_says_by_its_exit_code_that_it_skipped_a_file(folder, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(cli.app, ["colorize", *map(str, arguments)])

    done = run(folder, "-o", tmp_path / "out", "-m", "sepia")
    assert done.exit_code == 1 and "broken.jpg" in done.output and "6 colored, 1 skipped" in done.output
    (folder / "broken.jpg").unlink()
    assert run(folder, "-o", tmp_path / "out", "-m", "gray").exit_code == 0
    hinted = run(folder / "gray.png", "-o", tmp_path / "a.png", "-m", "sepia", "--hint", "40,20,#804020")
    assert hinted.exit_code == 0 and hinted.output.strip() == str(tmp_path / "a.png")
    wrong = run(folder / "gray.png", "-o", tmp_path / "b.png", "-m", "sepia", "--hint", "red")
    assert wrong.exit_code == 1 and "expected x,y,#rrggbb" in wrong.output and not (tmp_path / "b.png").exists()


def test_a_color_that_cannot_be_shown_is_said_in_one_line(folder, tmp_path):
    words = ["colorize", folder / "gray.png", "-o", tmp_path / "a.png", "-m", "sepia", "--hint", "40,20,#0000ff"]
    done = CliRunner().invoke(cli.app, [*map(str, words)])
    (said,) = done.stderr.splitlines()
    assert done.exit_code == 0 and said.startswith("ctlib: point 1: sRGB cannot show") and "took the nearest" in said


def test_too_little_memory_ends_in_one_line_that_says_what_to_do(folder, tmp_path, monkeypatch):
    def starve(self, rgb, side=256, hints=None):
        return torch.empty(2**60)

    monkeypatch.setattr(Sepia, "colorize", starve)
    words = ["colorize", folder / "gray.png", "-o", tmp_path / "a.png", "-m", "sepia"]
    done = CliRunner().invoke(cli.app, [*map(str, words)])
    assert done.exit_code == 1 and not (tmp_path / "a.png").exists()
    assert done.stderr == "ctlib: there is not enough memory; take a smaller picture, side or batch\n"
