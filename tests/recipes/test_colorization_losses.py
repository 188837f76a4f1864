"""The loss study's grid: one training a combination and seed, kept; rows before and after best of both; spreads."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ctlib import paths
from ctlib.evaluate_colorization import Case
from ctlib.recipes import colorization_losses, resnet_colorizer
from ctlib.recipes.colorization_losses import POSTS, compare, moved, over_seeds

pytest.importorskip("torchvision")


@pytest.fixture
def options(caches):
    folder = paths.data_dir() / "pictures"
    folder.mkdir(parents=True)
    for number in range(3):
        rgb = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(folder / f"{number}.png")
    return {"sets": ["pictures"], "part": "all", "size": 40, "side": 32, "batch": 2, "steps": 1}


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    pictures = torch.rand(3, 1, 3, 32, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [Case("one", "a", pictures[0], ""), Case("one", "b", pictures[1], ""), Case("two", "c", pictures[2], "")]


def test_every_combination_is_trained_once_and_judged(caches, options, cases, monkeypatch):
    trained, run = [], resnet_colorizer.run

    def counted(folder, **chosen):
        trained.append((chosen["output"], chosen["loss"], chosen["encoder"], chosen["seed"]))
        return run(folder, **chosen)

    monkeypatch.setattr(resnet_colorizer, "run", counted)
    lines = []
    large = [case._replace(truth=case.truth.repeat(1, 1, 2, 2)) for case in cases[:2]]

    def place(**chosen):
        return caches / f"{chosen['output']}-{chosen['seed']}"

    rows = compare(
        options,
        cases,
        place,
        full=large,
        combos=["rgb_l2", "lab_l2"],
        encoders=["frozen-random"],
        seeds=(0, 1),
        wanted=["psnr", "colorfulness"],
        also={"zero": lambda result, truth: torch.zeros(1)},
        told=lines.append,
    )
    assert len(trained) == len(lines) == 4 and len(set(trained)) == 4
    assert [row["method"] for row in rows[:6]] == ["gray", "truth"] * 3 and len(rows) == 6 + 2 * (4 + 2) + 4
    assert [row["post"] for row in rows[:6]] == [POSTS[0]] * 4 + [POSTS[2]] * 2
    own = rows[6:]
    assert {(row["combo"], row["post"]) for row in own} == {
        ("rgb_l2", POSTS[0]), ("rgb_l2", POSTS[1]), ("rgb_l2", POSTS[2]), ("lab_l2", POSTS[1]), ("lab_l2", POSTS[2])
    }  # fmt: skip
    assert all(row["zero"] == 0 and row["psnr"] > 0 and row["encoder"] == "frozen-random" for row in own)
    assert {row["case"] for row in own} == {"one", "two"} and {row["seed"] for row in own} == {0, 1}


def test_spreads_are_those_of_the_seeds():
    rows = [
        {"case": case, "method": "m", "post": POSTS[0], "seed": seed, "psnr": value}
        for case, seed, value in (("one", 0, 10.0), ("two", 0, 20.0), ("one", 1, 14.0), ("two", 1, 20.0))
    ]
    (row,) = over_seeds(rows, ["psnr"])
    assert row["psnr"] == 16 and row["seeds"] == 2 and row["psnr_spread"] == pytest.approx(2**0.5)
    (gray,) = over_seeds([{"case": "one", "method": "gray", "post": POSTS[0], "psnr": 3.0}], ["psnr"])
    assert gray["psnr"] == 3 and math.isnan(gray["psnr_spread"])


def test_what_each_choice_moves():
    """Worked out by hand: the output moves 4, the loss 1, the encoder 10, a seed 0.5, the lightness of RGB 7."""
    rows = [{"case": "one", "method": "gray", "post": POSTS[0], "psnr": 3.0}]
    for output, loss, encoder, seed, post in itertools.product(("rgb", "lab"), "xy", "fg", (0, 1), POSTS):
        if post != POSTS[0] or output == "rgb":
            value = 4 * (output == "lab") + (loss == "y") + 10 * (encoder == "g") + 0.5 * seed - 7 * (post == POSTS[0])
            value += 100 * (post == POSTS[2])
            rows.append({"case": "one", "combo": f"{output}_{loss}", "encoder": encoder, "seed": seed, "post": post})
            rows[-1]["psnr"] = 20.0 + value
    found = {row["method"]: row["psnr"] for row in moved(rows, ["psnr"])}
    assert found == pytest.approx({"output": 4, "loss": 1, "encoder": 10, "seed": 0.5, "lightness": 7})
    named = {"f": "squeezenet-frozen-random", "g": "squeezenet-frozen"}
    known = [row | {"encoder": named[row["encoder"]]} for row in rows if "encoder" in row]
    assert {row["method"]: row["psnr"] for row in moved(known, ["psnr"])} == pytest.approx(found | {"knowledge": 10})
    only = [row for row in rows if row.get("combo", "").startswith("lab")]
    assert "lightness" not in {row["method"] for row in moved(only, ["psnr"])}


def test_an_unknown_combination_is_refused(options, cases):
    for name in ("combos", "encoders", "seeds"):
        with pytest.raises(ValueError, match=f"{name}: name at least one"):
            compare(options, cases, lambda **_: None, **{name: []})
    with pytest.raises(ValueError, match=r"combos: expected some of rgb_l2.*got 'xyz_l2'"):
        compare(options, cases, lambda **_: None, combos=["xyz_l2"])
    assert set(colorization_losses.COMBOS) == {
        f"{output}_{loss}" for output in ("rgb", "lab") for loss in ("l2", "lpips_squeeze", "compact")
    }


def test_leaders_are_those_that_chance_cannot_tell_apart():
    moves = {"output": {"psnr": 1.1}, "loss": {"psnr": 1.13}, "encoder": {"psnr": 0.4}}
    assert colorization_losses.leaders(moves, "psnr", 0.1, 2) == "loss (1.13) and output (1.10)"
    assert colorization_losses.leaders(moves, "psnr", 0.01, 1) == "loss (1.1)"
