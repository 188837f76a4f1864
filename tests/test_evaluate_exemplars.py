"""Judging colorizers that look at a reference: which references, the rows, the means."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ctlib import chroma, images, metrics
from ctlib import evaluate_exemplars as judged
from ctlib.data import camvid, splits
from ctlib.data.registry import DataError
from ctlib.exemplars.chain import Exemplar
from ctlib.models.stylization import scaled

TINTS = {"red": (200, 60, 50), "blue": (50, 70, 200), "green": (60, 180, 60)}


@pytest.fixture(scope="module")
def bundled():
    return judged.cases(long_side=64, limit=3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Thirty pictures of each of three tints, with an index that calls a tint a category."""
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    (tmp_path / "mine" / "images").mkdir(parents=True)
    lines = ["file,category"]
    for row, (name, tint) in enumerate(TINTS.items()):
        for number in range(30):
            draws = np.random.default_rng((row, number))
            picture = np.clip(np.array(tint) + draws.integers(-40, 41, (12, 16, 3)), 0, 255).astype(np.uint8)
            images.write(tmp_path / "mine" / "images" / f"{name}{number:02d}.png", picture)
            lines.append(f"images/{name}{number:02d}.png,{name}")
    (tmp_path / "mine" / "index.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "mine"


@pytest.fixture
def streets(tmp_path, monkeypatch):
    """Four frames of one film and three of another."""
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    for kind in ("images", "labels"):
        (tmp_path / "camvid" / kind / "test").mkdir(parents=True)
    for film, count in (("Seq05VD", 4), ("0001TP", 3)):
        for number in range(count):
            draws = np.random.default_rng((count, number))
            name = f"{film}_{number}.png"
            images.write(tmp_path / "camvid/images/test" / name, draws.integers(0, 256, (36, 48, 3), np.uint8))
            labels = np.full((36, 48), camvid.UNLABELLED, np.uint8)
            labels[:18] = camvid.CLASSES.index("Sky")
            Image.fromarray(labels).save(tmp_path / "camvid/labels/test" / name)


def tint(name):
    return name.rstrip("0123456789")


def test_nearest_is_of_the_same_class_and_unrelated_of_another(folder):
    cases = judged.cases(["mine"], limit=6)
    assert len(cases) == 6 and len({case.name for case in cases}) == 6
    for case in cases:
        found = case.references
        assert tuple(found) == judged.KINDS and found["self"] == case.truth
        assert tint(found["nearest"].name) == tint(case.name) != tint(found["unrelated"].name)
        assert found["nearest"].sha256 != case.truth.sha256


def test_references_are_held_back_too(folder):
    for case in judged.cases(["mine"]):
        assert splits.place(case.truth.sha256) >= 0.9
        assert all(splits.place(one.sha256) >= 0.8 for one in case.references.values())
    only = judged.cases(["mine"], pool=())
    assert all(splits.place(one.sha256) >= 0.9 for case in only for one in case.references.values())


def test_nearest_has_the_closest_palette(folder):
    from ctlib.data import references

    cases = judged.cases(["mine"], part="all")
    own = {case.name: references.signature(case.truth.rgb) for case in cases}
    case = cases[0]
    mine = {
        name: references.distance(own[case.name], one) for name, one in own.items() if tint(name) == tint(case.name)
    }
    del mine[case.name]
    assert case.references["nearest"].name == min(mine, key=mine.get)


def test_without_classes_all_others_are_asked(folder, bundled):
    (folder / "index.csv").unlink()
    assert judged.classes_of("mine") == judged.classes_of("photos") == {}
    for case in [*judged.cases(["mine"], limit=3), *bundled]:
        names = {kind: one.name for kind, one in case.references.items()}
        assert len(set(names.values())) == 3 and names["self"] == case.name


def test_classes_are_read_from_the_index(folder):
    assert judged.classes_of("mine")["red03"] == {"red"}
    (folder / "index.csv").write_text("file,detection_classes\nimages/red03.png,person|dog\nimages/red04.png,\n")
    assert judged.classes_of("mine") == {"red03": {"person", "dog"}, "red04": frozenset()}
    (folder / "index.csv").write_text("name,category\nred03,red\n")
    with pytest.raises(DataError, match=r"mine: .* has no column `file`"):
        judged.classes_of("mine")


def test_streets_have_labels_and_references_from_other_films(streets):
    cases = judged.street_cases(48, limit=2)
    assert [case.name for case in cases] == ["Seq05VD_0", "Seq05VD_2"]
    for case in cases:
        assert case.references["self"] == case.truth
        assert {case.references[kind].name.split("_")[0] for kind in ("nearest", "unrelated")} == {"0001TP"}
        assert case.truth.labels.unique().tolist() == [-1, 0] and case.truth.labels.shape == case.truth.rgb.shape[2:]
    assert len(judged.street_cases(48, limit=None)) == 4
    with pytest.raises(DataError, match="references come from other films"):
        judged.street_cases(48, sequences=("Seq05VD", "0001TP"))


def test_pictures_of_coco_have_their_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    (tmp_path / "coco/images/val").mkdir(parents=True)
    (tmp_path / "coco/masks/val").mkdir(parents=True)
    for number in range(4):
        draws = np.random.default_rng(number)
        labels = np.zeros((24, 32), np.uint8)
        labels[:12] = 7 + number
        images.write(tmp_path / f"coco/images/val/{number}.jpg", draws.integers(0, 256, (48, 64, 3), np.uint8))
        if number < 3:
            Image.fromarray(labels).save(tmp_path / f"coco/masks/val/{number}.png")
    (tmp_path / "coco/semantic_classes.json").write_text('{"7": "sky", "8": "sea", "9": "sand"}')
    cases = judged.cases(["coco"], 64, part="all", labels=True)
    assert [case.name for case in cases] == ["0", "1", "2"]
    for case in cases:
        assert case.truth.labels.unique().tolist() == [-1, 7 + int(case.name)]
        assert case.truth.labels.shape == case.truth.rgb.shape[2:] and (case.truth.labels[25:] == -1).all()
        assert case.references["nearest"].labels is not None
    assert judged.cases(["coco"], 64, part="all")[0].truth.labels is None
    with pytest.raises(DataError, match="labels: photos has no label maps; take coco, or street_cases"):
        judged.cases(["photos"], 64, labels=True)


def test_rows_tell_method_and_kind(bundled):
    def lent(rgb, reference):
        ab = reference.mean((2, 3), keepdim=True).expand_as(rgb)
        return chroma.best_of_both(ab, rgb)

    rows = judged.judge({"same": lambda rgb: rgb}, {"lent": lent}, bundled, wanted=["psnr"])
    assert len(rows) == len(bundled) * (3 + 3) and set(rows[0]) == {"set", "case", "method", "kind", "psnr"}
    told = [(row["method"], row["kind"]) for row in rows[:6]]
    assert told == [("gray", "none"), ("same", "none"), ("truth", "none"), *[("lent", kind) for kind in judged.KINDS]]
    means = {(row["method"], row["kind"]): row["psnr"] for row in judged.summary(rows)}
    assert means["same", "none"] == means["truth", "none"] == math.inf
    assert means["lent", "self"] > means["lent", "unrelated"]
    assert judged.summary(rows, "photos") == judged.summary(rows)
    assert {row["kind"] for row in judged.judge({}, {"lent": lent}, bundled, kinds=["self"])} == {"none", "self"}


def test_guided_methods_are_given_both_maps(streets):
    seen = []

    def guided(rgb, reference, labels):
        seen.append([tuple(one.shape) for one in labels])
        return rgb

    rows = judged.judge({}, {}, judged.street_cases(48, limit=1), guided={"guided": guided}, kinds=["nearest"])
    assert seen == [[(36, 48), (36, 48)]] and rows[-1]["method"] == "guided"


def test_gain_compares_the_same_pictures():
    def row(case, method, psnr):
        return {"set": "mine", "case": case, "method": method, "kind": "none", "psnr": psnr}

    rows = [row("a", "x", 20), row("b", "x", 24), row("a", "y", 19), row("b", "y", 25), row("c", "y", 90)]
    rows += [row("c", "x", 93)]
    found = judged.gain(rows, ("x", "none"), ("y", "none"))
    error, wins = pytest.approx(2 / 3**0.5), pytest.approx(2 / 3)
    assert found == {"mean": 1, "error": error, "clear": False, "wins": wins, "count": 3}
    assert judged.gain([*rows[:2], row("a", "y", 19), row("b", "y", 22.9)], ("x", "none"), ("y", "none"))["clear"]
    assert math.isnan(judged.gain(rows[:1] + rows[2:3], ("x", "none"), ("y", "none"))["error"])
    with pytest.raises(ValueError, match="no picture in common"):
        judged.gain(rows, ("x", "none"), ("z", "none"))


def test_bad_input_is_named(bundled, folder):
    same = {"same": lambda rgb, reference: rgb}
    with pytest.raises(ValueError, match="'gray' comes twice, or is a baseline"):
        judged.judge({}, {"gray": lambda rgb, reference: rgb}, bundled)
    with pytest.raises(ValueError, match="'same' comes twice"):
        judged.judge({"same": lambda rgb: rgb}, same, bundled)
    with pytest.raises(ValueError, match="kinds: expected some of nearest, unrelated, self, got 'best'"):
        judged.judge({}, same, bundled, kinds=["best"])
    with pytest.raises(ValueError, match="shrinks and truth: shapes differ"):
        judged.judge({}, {"shrinks": lambda rgb, reference: rgb[..., ::2]}, bundled)
    with pytest.raises(ValueError, match="astronaut or its reference has no labels"):
        judged.judge({}, {}, bundled, guided={"guided": lambda rgb, reference, labels: rgb})
    with pytest.raises(ValueError, match="part: expected one of"):
        judged.cases(["mine"], part="dev")
    for limit in (0, -1):
        with pytest.raises(ValueError, match="limit: expected a whole number of at least 1"):
            judged.cases(["mine"], limit=limit)
    chain = Exemplar.from_pretrained("stylization-compact", "refinement-quarter")
    with pytest.raises(ValueError, match="draws: expected a whole number of at least 1"):
        judged.by_samples(chain, bundled, [10], draws=0)
    with pytest.raises(ValueError, match="no rows of a set 'moon'"):
        judged.summary(judged.judge({}, same, bundled[:1]), "moon")
    for path in list((folder / "images").glob("*.png"))[1:]:
        path.unlink()
    with pytest.raises(DataError, match="mine: a reference is another picture, and there are 1"):
        judged.cases(["mine"], part="all")


def test_copies_of_a_picture_lend_it_nothing(folder):
    kept = sorted((folder / "images").glob("*.png"))
    for path in kept[1:]:
        path.unlink()
    (folder / "images" / "copy.png").write_bytes(kept[0].read_bytes())
    with pytest.raises(DataError, match="another picture"):
        judged.cases(["mine"], part="all")


def test_a_copy_in_the_set_moves_no_case(folder):
    before = judged.cases(["mine"], part="all", limit=90)
    (folder / "images" / "aaa.png").write_bytes((folder / "images" / "red05.png").read_bytes())
    after = judged.cases(["mine"], part="all")
    assert len(before) == len(after) == 90
    assert {case.truth.sha256 for case in before} == {case.truth.sha256 for case in after}
    for case in after:
        assert case.references["self"] is case.truth


def test_the_same_cases_every_time(folder):
    first, again = judged.cases(["mine"], limit=4), judged.cases(["mine"], limit=4)
    for one, two in zip(first, again, strict=True):
        assert [p.name for p in one.references.values()] == [p.name for p in two.references.values()]
        assert torch.equal(one.truth.rgb, two.truth.rgb)


def test_samples_are_counted_and_drawn(bundled):
    chain = Exemplar.from_pretrained("stylization-compact", "refinement-quarter")
    rows = judged.by_samples(chain, bundled[:2], [0, 5, "all"], draws=2, side=64)
    assert [row["samples"] for row in rows[:5]] == ["coarse", "0", "5", "5", "all"] and len(rows) == 2 * 2 * 5
    found = {(row["case"], row["kind"], row["samples"], row["draw"]): row["psnr"] for row in rows}
    for case in bundled[:2]:
        assert found[case.name, "nearest", "0", 0] == found[case.name, "self", "0", 0]  # no sample of either
        for kind in ("nearest", "self"):
            truth, lender = (scaled(one.rgb, 64) for one in (case.truth, case.references[kind]))
            for draw in range(2):
                made = images.to_uint8(chain.colorize(truth, lender, samples=5, seed=draw, side=64))
                peer = metrics.psnr(images.to_tensor(made), truth).item()
                assert found[case.name, kind, "5", draw] == pytest.approx(peer, abs=0.01)
            assert found[case.name, kind, "5", 0] != found[case.name, kind, "5", 1]


def test_a_gain_in_words_and_a_record_in_parts():
    rows = [
        {"set": "s", "case": case, "method": method, "kind": "self", "psnr": value}
        for case, method, value in (("a", "m", 3.0), ("a", "n", 1.0), ("b", "m", 5.0), ("b", "n", 1.0))
    ]
    assert judged.told(rows, ("m", "self"), ("n", "self")) == "+3.00 ± 1.00"
    assert judged.told(rows, ("n", "self"), ("m", "self"), digits=1) == "-3.0 ± 1.0"
    every = [row | {"kind": kind} for row in rows for kind in judged.KINDS]
    alone = [row | {"kind": judged.NONE} for row in rows if row["method"] == "n"]
    kinds = ("the nearest", "an unrelated one", "the photograph itself")
    words = ", ".join(f"+3.00 ± 1.00 after {kind}" for kind in kinds)
    assert judged.told_by_kind(every, "m", "n") == words
    assert judged.told_by_kind([row for row in every if row["method"] == "m"] + alone, "m", "n") == words
    road, thing = rows[0] | {"set": "camvid"}, rows[0] | {"set": "coco, labelled"}
    found = judged.parts({"rows": [*rows, road, thing], "parameters": {"sets": ["s"]}})
    assert found == {"photographs": rows, "roads": [road], "objects": [thing]}


def test_followed_references_are_counted(bundled):
    chain = Exemplar.from_pretrained("stylization-compact", "refinement-quarter")
    found = judged.followed(chain, bundled)
    assert set(judged.followed(chain, bundled, None).values()) == {len(bundled)}
    assert found["self"] == len(bundled) >= found["nearest"] >= found["unrelated"] >= 0


def test_lines_of_a_chapter():
    rows = [
        {"set": "s", "case": "a", "method": method, "kind": kind, "psnr": value, "ssim": 0.5}
        for method, kind, value in (
            ("m", "nearest", 1.0),
            ("m", "self", 2.0),
            ("m", "unrelated", 3.0),
            ("g", "none", 4.0),
        )
    ]
    table = pd.DataFrame(judged.summary(rows)).set_index(["method", "kind"])
    assert judged.line(table, "m", ["psnr"]) == {"method": "m", "psnr": 1.0, "psnr, self": 2.0, "psnr, unrelated": 3.0}
    assert judged.line(table, "g", ["psnr", "ssim"]) == {"method": "g", "psnr": 4.0, "ssim": 0.5}
    assert "roads: m, nearest" in judged.named(rows, "roads: ") and judged.named(rows)["g, none"]["psnr"] == 4
