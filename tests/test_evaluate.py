"""ctlib.evaluate: the cases and the loop that judges."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from ctlib import evaluate, images, methods

NAMES = ["chelsea", "coffee"]
METRICS = ["psnr", "edge_ssim", "hellinger", "colorfulness"]


@pytest.fixture(scope="module")
def cases():
    return evaluate.photo_cases(48, seed=1, names=NAMES)


def test_three_kinds_for_each_photograph(cases):
    assert [(case.name, case.kind) for case in cases] == [
        (name, kind) for name in NAMES for kind in ("paired", "same edit", "unpaired")
    ]
    paired, honest, unpaired = cases[:3]
    assert torch.equal(paired.reference, paired.truth) and torch.equal(honest.truth, paired.truth)
    assert unpaired.truth is None and unpaired.reference.shape[1] == 3
    assert not torch.equal(paired.source, paired.truth)


def test_same_edit_means_the_same_edit(cases):
    """The retouched reference of case 0 is photograph 1 with the edit of photograph 0, not its own."""
    honest_of_first, paired_of_second = cases[1], cases[3]
    assert honest_of_first.reference.shape == paired_of_second.truth.shape
    assert not torch.equal(honest_of_first.reference, paired_of_second.truth)


def test_pictures_are_eight_bit_and_repeatable(cases):
    again = evaluate.photo_cases(48, seed=1, names=NAMES)
    other = evaluate.photo_cases(48, seed=2, names=NAMES)
    for one, two, three in zip(cases, again, other, strict=True):
        assert torch.equal(one.reference, two.reference)
        levels = one.reference * 255
        assert (levels - levels.round()).abs().max() < 1e-4
        assert one.kind == "unpaired" or not torch.equal(one.reference, three.reference)


def test_judge_measures_every_method_on_every_case(cases):
    rows = evaluate.judge(["identity", "oracle", "mkl_lab"], cases, METRICS)
    assert len(rows) == 6 + 4 + 6
    oracle = [row for row in rows if row["method"] == "oracle"]
    assert all(row["psnr"] == math.inf for row in oracle)
    assert all("psnr" not in row for row in rows if row["kind"] == "unpaired")
    value = {(row["method"], row["case"], row["kind"]): row for row in rows}
    for name in NAMES:
        kept = value["identity", name, "unpaired"]
        moved = value["mkl_lab", name, "unpaired"]
        assert kept["edge_ssim"] == pytest.approx(1) and moved["hellinger"] < kept["hellinger"]
        assert value["mkl_lab", name, "paired"]["psnr"] > value["identity", name, "paired"]["psnr"]
    assert all(row["seconds"] >= 0 for row in rows)


def test_recolor_is_what_a_user_gets(cases):
    case = cases[2]
    expected = methods.recolor_uint8("mkl_rgb", images.to_uint8(case.source), images.to_uint8(case.reference))
    assert (images.to_uint8(evaluate.recolor("mkl_rgb", case)) == expected).all()


def test_summary_averages_and_keeps_the_order():
    rows = [
        {"kind": "paired", "case": "a", "method": "z", "psnr": 10.0, "lpips": None},
        {"kind": "paired", "case": "b", "method": "z", "psnr": 20.0, "lpips": None},
        {"kind": "paired", "case": "a", "method": "oracle", "psnr": "inf", "lpips": None},
        {"kind": "unpaired", "case": "a", "method": "z", "psnr": 99.0, "lpips": None},
    ]
    table = evaluate.summary(rows, "paired", ["psnr", "lpips"])
    assert [row["method"] for row in table] == ["z", "oracle"]
    assert table[0]["psnr"] == 15 and table[1]["psnr"] == math.inf and math.isnan(table[0]["lpips"])
    with pytest.raises(ValueError, match="no rows of kind 'same edit'"):
        evaluate.summary(rows, "same edit", ["psnr"])


def test_fivek_cases_take_expert_c_for_the_truth(tmp_path, monkeypatch):
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    for folder, level in (("raw", 60), ("c", 180)):
        (tmp_path / "fivek" / folder).mkdir(parents=True)
        for i in (1, 2):
            picture = np.full((12, 16, 3), level + i, np.uint8)
            images.write(tmp_path / "fivek" / folder / f"a000{i}-x.png", picture)
    cases = evaluate.cases_of("fivek", 16)
    assert [(case.name, case.kind) for case in cases[:3]] == [
        ("a0001", "paired"),
        ("a0001", "same edit"),
        ("a0001", "unpaired"),
    ]
    level = [images.to_uint8(part)[0, 0, 0] for part in (cases[1].source, cases[1].truth, cases[1].reference)]
    assert level == [61, 181, 182] and images.to_uint8(cases[2].reference)[0, 0, 0] == 62


def test_unknown_or_missing_dataset_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="unknown dataset 'coco'; known: photos, fivek"):
        evaluate.cases_of("coco", 16)
    with pytest.raises(RuntimeError, match="fivek: no photograph with renditions raw, c"):
        evaluate.cases_of("fivek", 16)


def test_one_photograph_has_no_other_to_refer_to():
    with pytest.raises(ValueError, match="at least two photographs"):
        evaluate.photo_cases(16, names=["chelsea"])


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A red sky over green grass, a reference with both the other way up, and the regions that somebody drew."""
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    noise = np.random.default_rng(0).integers(0, 30, (32, 24, 3))
    for folder, colors in (
        ("input", ((200, 60, 60), (60, 160, 60))),
        ("style", ((60, 90, 200), (200, 200, 60))),
        ("segmentation", ((255, 0, 0), (0, 255, 0))),
    ):
        (tmp_path / "dpst" / folder).mkdir(parents=True)
        for side, order in (("in", (0, 1)), ("tar", (1, 0))):
            if folder == "segmentation" or (side == "in") == (folder == "input"):
                picture = np.repeat(np.array([colors[one] for one in order], np.uint8), 16, 0)[:, None].repeat(24, 1)
                grain = 0 if folder == "segmentation" else noise.astype(np.uint8)
                name = f"{side}01.{'png' if folder == 'segmentation' else 'jpg'}"
                images.write(tmp_path / "dpst" / folder / name, picture + grain)
    return tmp_path / "dpst"


def test_drawn_regions_find_their_partners(drawn):
    ((case, labels),) = evaluate.labelled_cases("dpst", 24)
    assert [tuple(one.shape) for one in labels] == [tuple(rgb.shape[2:]) for rgb in (case.source, case.reference)]
    assert labels[0][0, 0] == labels[1][-1, 0] != labels[0][-1, 0] == labels[1][0, 0]
    assert set(evaluate.fingerprints([case])) == {"in01/source", "in01/reference"}
    (drawn / "segmentation" / "tar01.png").unlink()
    with pytest.raises(RuntimeError, match=r"dpst: tar01\.png is missing"):
        evaluate.labelled_cases("dpst", 24)


def test_judge_regions_tells_what_regions_are_worth(drawn):
    rows = evaluate.judge_regions(["identity", "mkl_lab"], evaluate.labelled_cases("dpst", 24))
    value = {(row["method"], row["kind"]): row for row in rows}
    assert len(rows) == 4 and all(set(evaluate.REGIONAL) <= set(row) for row in rows)
    assert value["identity", "whole"]["regions_ab"] == value["identity", "regions"]["regions_ab"]
    assert value["mkl_lab", "regions"]["regions_ab"] < 0.7 * value["mkl_lab", "whole"]["regions_ab"]


def test_streets_at_dusk_go_with_streets_by_day(tmp_path, monkeypatch):
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    for name, level in (("0001TP_008550", 40), ("Seq05VD_f00000", 200)):
        for folder in ("images", "labels"):
            (tmp_path / "camvid" / folder / "test").mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(level).integers(0, 30, (24, 32, 3), dtype=np.uint8)
        images.write(tmp_path / "camvid" / "images" / "test" / f"{name}.jpg", noise + np.uint8(level))
        labels = np.repeat(np.array([0, 3, 11], np.uint8), 8)[:, None].repeat(32, 1)  # sky, road, unlabelled
        Image.fromarray(labels).save(tmp_path / "camvid" / "labels" / "test" / f"{name}.png")
    ((case, maps),) = evaluate.labelled_cases("camvid", 16)
    assert case.name == "0001TP_008550" and case.source.mean() < case.reference.mean()
    assert all(one.unique().tolist() == [-1, 0, 1] for one in maps), "what has no label has no partner"
    with pytest.raises(ValueError, match="unknown dataset 'ade'; with regions that people drew: dpst, camvid, coco"):
        evaluate.labelled_cases("ade")


def test_pictures_of_the_same_things_go_together(tmp_path, monkeypatch):
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    root = tmp_path / "coco"
    shown = {"a": (1, 7, 0), "b": (1, 9, 0), "c": (9, 1, 7), "d": (1, 9, 2), "gray": (1, 7, 9)}
    for number, (name, labels) in enumerate(shown.items()):
        for folder in ("images", "masks"):
            (root / folder / "val").mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 200, (24, 30, 3), dtype=np.uint8)
        noise = noise[..., :1].repeat(3, 2) if name == "gray" else noise
        images.write(root / "images" / "val" / f"{name}.png", noise)
        (root / "images" / "val" / f"{name}.png").rename(root / "images" / "val" / f"{name}.jpg")
        Image.fromarray(np.repeat(np.array(labels, np.uint8), 10)[None].repeat(24, 0)).save(
            root / "masks" / "val" / f"{name}.png"
        )
    with pytest.raises(RuntimeError, match=r"semantic_classes\.json is missing"):
        evaluate.labelled_cases("coco", 30)
    (root / "semantic_classes.json").write_text('{"1": "person", "2": "dog", "7": "train", "9": "boat"}')
    found = evaluate.labelled_cases("coco", 30)
    assert [case.name for case, _ in found] == ["a", "b"]  # a with c, which both show 1 and 7; b with d
    (case, (own, other)), _ = found
    assert own.shape == case.source.shape[2:] and own[0, 0] == other[0, 15] >= 0 and own[0, 15] == other[0, 25] >= 0
    assert own[0, 25] == -1, "what has no label has no partner"
    (root / "semantic_classes.json").write_text("[1, 2]")
    with pytest.raises(RuntimeError, match="does not name category ids"):
        evaluate.labelled_cases("coco", 30)
