"""Judging colorizers: the pictures, the baselines, the means."""

import hashlib
import math

import numpy as np
import pytest
import torch

from ctlib import chroma, color, images
from ctlib import evaluate_colorization as judged
from ctlib.data import splits
from ctlib.data.registry import DataError


@pytest.fixture(scope="module")
def bundled():
    return judged.cases(long_side=64, limit=3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Forty pictures in color and two gray ones."""
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    (tmp_path / "mine" / "images").mkdir(parents=True)
    for number in range(42):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        noise = noise[..., :1].repeat(3, 2) if number >= 40 else noise
        images.write(tmp_path / "mine" / "images" / f"{number:02d}.png", noise)
    return tmp_path / "mine" / "images"


def test_pictures_come_in_parts_that_share_none(folder):
    parts = {part: judged.cases(["mine"], part=part) for part in splits.FRACTIONS}
    names = {part: {case.name for case in cases} for part, cases in parts.items()}
    assert sum(map(len, names.values())) == 40 == len(set().union(*names.values()))
    for case in parts["test"]:
        assert case.sha256 == hashlib.sha256((folder / f"{case.name}.png").read_bytes()).hexdigest()
        assert splits.place(case.sha256) >= 0.9
    assert len(judged.cases(["mine"], part="all", limit=5)) == 5


def test_what_a_training_sees_is_not_judged(folder):
    from ctlib.data import cache, pairs

    kept = cache.build(sorted(folder.glob("*.png")), folder.parent / "cache", (12, 12))
    trained = {kept.sha256[row] for _, row in pairs.Photos(kept, part="train").places}
    assert len(trained) > 20
    assert not trained & {case.sha256 for case in judged.cases(["mine"])}


def test_the_gray_copy_and_the_truth_stand_in_every_table(bundled):
    rows = judged.judge({}, bundled)
    assert [row["method"] for row in rows[:2]] == ["gray", "truth"]
    gray, truth = judged.summary(rows)
    assert truth["psnr"] == math.inf and truth["ab_rmse"] == 0
    # gray to 8 bits: the last level may differ in a channel
    assert gray["colorfulness"] < 0.5 < truth["colorfulness"]
    assert gray["psnr"] == pytest.approx(gray["psnr_missing_root"] / 2 + 10 * math.log10(2), abs=1e-6)


def test_the_gray_copy_keeps_lightness(bundled):
    for case in bundled:
        gray = judged.gray(case.truth)
        assert (gray.amax(1) - gray.amin(1)).max() < 1e-3
        assert torch.allclose(chroma.lightness(gray), chroma.lightness(case.truth), atol=0.02)


def test_a_better_color_is_a_better_number(bundled):
    def half(rgb):
        lab = color.rgb_to_lab(rgb)
        return chroma.join(lab[:, :1], lab[:, 1:] / 2)

    gray, found, _ = judged.summary(judged.judge({"half": half}, bundled))
    assert found["method"] == "half"
    assert found["psnr"] > gray["psnr"] + 3 and found["ab_rmse"] == pytest.approx(gray["ab_rmse"] / 2, rel=0.1)


def test_other_measures_and_single_sets(bundled):
    rows = judged.judge({}, bundled, wanted=["psnr"], also={"far": lambda result, truth: (result - truth).abs().max()})
    assert set(rows[0]) == {"set", "case", "method", "psnr", "far"}
    assert judged.summary(rows, "photos") == judged.summary(rows)
    read = [row | {"psnr": None} if row["method"] == "truth" else row for row in rows]  # as JSON has it
    assert [math.isnan(row["psnr"]) for row in judged.summary(read)] == [False, True]
    with pytest.raises(ValueError, match="no rows of a set 'moon'"):
        judged.summary(rows, "moon")


def test_more_hints_are_nearer_for_a_network_that_repeats_what_it_is_told(bundled):
    class Repeats(torch.nn.Linear):
        """Paints its hints where they are, and gray elsewhere; its weights say on which device."""

        def ab(self, lightness, given):
            return given.ab * given.mask

    rows = judged.by_hints(Repeats(1, 1), bundled, (0, 5, 400), seeds=2)
    assert len(rows) == len(bundled) * (1 + 2 + 2)
    for way in ("psnr", "psnr_alone", "psnr_spread"):
        mean = {n: np.mean([row[way] for row in rows if row["count"] == n]) for n in (0, 5, 400)}
        assert mean[0] < mean[5] < mean[400]
    gray = judged.summary(judged.judge({}, bundled, wanted=["psnr"]))[0]["psnr"]
    assert mean[0] == pytest.approx(gray, abs=0.7)  # at another size
    assert all(row["psnr"] == row["psnr_alone"] == row["psnr_spread"] for row in rows if not row["count"])
    # it knows nothing but the hints, so beside them it says as little as gray does
    assert all(row["psnr"] == pytest.approx(row["psnr_spread"], abs=0.5) for row in rows)
    assert rows == judged.by_hints(Repeats(1, 1), bundled, (0, 5, 400), seeds=2)


def test_bad_input_is_named(bundled, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="part: expected one of all, train, val, test"):
        judged.cases(part="dev")
    with pytest.raises(ValueError, match="limit: expected a whole number of at least 1, got 0"):
        judged.cases(limit=0)
    with pytest.raises(ValueError, match="counts: name at least one number of hints"):
        judged.by_hints(None, bundled, [])
    with pytest.raises(ValueError, match="seeds: expected a whole number of at least 1, got 0"):
        judged.by_hints(None, bundled, [0, 5], seeds=0)
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"nowhere: no pictures in .* set CTLIB_DATA"):
        judged.cases(["nowhere"])
    with pytest.raises(ValueError, match="'gray' is a baseline"):
        judged.judge({"gray": judged.gray}, bundled)
    with pytest.raises(ValueError, match="shrinks and truth: shapes differ"):
        judged.judge({"shrinks": lambda rgb: rgb[..., ::2]}, bundled)


def test_any_folder_is_judged_and_what_cannot_be_is_listed(folder):
    (folder / "deep").mkdir()
    images.write(folder / "deep" / "a.png", np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8))
    images.write(folder / "dot.png", np.full((1, 1, 3), (200, 30, 30), np.uint8))
    images.write(folder / "long.png", np.random.default_rng(2).integers(0, 256, (20, 700, 3), np.uint8))
    (folder / "broken.jpg").write_bytes(b"half")
    rows, skipped = judged.evaluate_files(folder, ["gray", "unet"], wanted=["psnr", "ssim"])
    assert len(rows) == 3 * 41 and {row["method"] for row in rows} == {"gray", "unet", "truth"}
    assert {row["set"] for row in rows} == {"images"} and rows[-1]["case"] == "deep/a.png"
    reasons = {path.name: reason for path, reason in skipped.items()}
    assert sorted(reasons) == ["40.png", "41.png", "broken.jpg", "dot.png", "long.png"]
    assert "gray" in reasons["40.png"] and "less than 11 pixels" in reasons["dot.png"]
    with pytest.raises(ValueError, match="exemplar takes its colors from a reference"):
        judged.evaluate_files(folder, "exemplar")
    with pytest.raises(ValueError, match="unknown colorizer 'x'"):
        judged.evaluate_files(folder, "x")
    with pytest.raises(ValueError, match="no such folder"):
        judged.evaluate_files(folder / "nowhere")
    (folder / "none").mkdir()
    with pytest.raises(ValueError, match="holds no photograph in color"):
        judged.evaluate_files(folder / "none")
