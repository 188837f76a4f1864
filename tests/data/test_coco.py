"""COCO: pictures, categories, outlines and run-length masks."""

import json

import numpy as np
import pytest
from layouts import picture
from pycocotools import mask as outlines

from ctlib import evaluate_colorization, evaluate_exemplars
from ctlib.data import coco, photos
from ctlib.data.registry import DataError


@pytest.fixture
def common(tmp_path):
    picture(tmp_path / "val2017" / "000000000025.jpg")
    picture(tmp_path / "val2017" / "000000000009.jpg")
    picture(tmp_path / "val2017" / "000000000030.jpg", gray=True)
    annotations = [
        {"id": 1, "image_id": 25, "category_id": 25, "area": 96, "bbox": [0, 0, 8, 12], "iscrowd": 0,
         "segmentation": [[0, 0, 8, 0, 8, 12, 0, 12]]},
        {"id": 2, "image_id": 25, "category_id": 24, "area": 4, "bbox": [2, 2, 2, 2], "iscrowd": 0,
         "segmentation": [[2, 2, 4, 2, 4, 4, 2, 4]]},
        {"id": 3, "image_id": 30, "category_id": 1, "area": 12, "bbox": [0, 0, 1, 12], "iscrowd": 1,
         "segmentation": {"size": [12, 16], "counts": [0, 12, 180]}},
    ]  # fmt: skip
    record = {
        "info": {},
        "licenses": [{"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"}],
        "images": [
            {"id": n, "width": 16, "height": 12, "file_name": f"{n:012d}.jpg", "license": 4} for n in (25, 9, 30)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}, {"id": 24, "name": "zebra"}, {"id": 25, "name": "giraffe"}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(record))
    return tmp_path


def test_coco_official_layout(common):
    data = coco.Coco(common)
    assert [entry["id"] for entry in data.records] == [9, 25, 30]
    item = data[1]
    assert item["categories"] == ["giraffe", "zebra"] and item["license"] == "Attribution License"
    assert item["image"].shape == (12, 16, 3)
    assert item["labels"][6, 6] == 25 and item["labels"][3, 3] == 24 and item["labels"][6, 12] == 0  # small one on top
    assert data[0]["labels"].max() == 0 and data[0]["categories"] == []  # no annotation at all
    assert np.array_equal(np.argwhere(data[2]["labels"] == 1), [[row, 0] for row in range(12)])  # runs go down


def test_coco_by_category(common):
    assert [entry["id"] for entry in coco.Coco(common, categories=["zebra"]).records] == [25]
    assert [entry["id"] for entry in coco.Coco(common, categories=[1, "giraffe"]).records] == [25, 30]
    for one in ("giraffe", 25, "25"):
        assert [entry["id"] for entry in coco.Coco(common, categories=one).records] == [25]
    with pytest.raises(ValueError, match="no category 'surfboard'; known are person 1, zebra 24, giraffe 25"):
        coco.Coco(common, categories=["surfboard"])


def test_coco_gray(common):
    assert [entry["id"] for entry in coco.Coco(common, drop_gray=True).records] == [9, 25]
    speck = np.full((600, 800, 3), 128, np.uint8)
    assert coco.is_gray(speck)
    speck[200:300, 200:300] = (255, 0, 0)
    assert not coco.is_gray(speck)


def test_coco_missing_and_broken(common):
    with pytest.raises(DataError, match=r"instances_train2017\.json is missing; run `ctlib data fetch coco`"):
        coco.Coco(common, "train2017")
    (common / "val2017" / "000000000009.jpg").unlink()
    with pytest.raises(DataError, match=r"000000000009\.jpg is missing"):
        coco.Coco(common)[0]
    for text in ("{", "[]", '{"images": [], "categories": []}'):
        (common / "annotations" / "instances_val2017.json").write_text(text)
        with pytest.raises(DataError, match="not a COCO annotation file"):
            coco.Coco(common)


def encode_rle(mask):
    """COCO's string encoding, the inverse of `decode_rle`, written from the format's description."""
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
    runs = np.diff(np.concatenate([[0], edges])).tolist()
    if flat[0] == 1:
        runs = [0, *[run for run in runs if run]]
    text = ""
    for n, run in enumerate(runs):
        value = run - runs[n - 2] if n > 2 else run
        while True:
            bits, value = value & 0x1F, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            text += chr(48 + (bits | (0x20 if more else 0)))
            if not more:
                break
    return runs, text


@pytest.mark.parametrize("seed", range(5))
def test_run_length_masks(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((37, 53)) < (0.5 if seed else 0.01)
    runs, text = encode_rle(mask)
    assert np.array_equal(coco.decode_rle({"size": [37, 53], "counts": runs}), mask)
    assert np.array_equal(coco.decode_rle({"size": [37, 53], "counts": text}), mask)
    assert np.array_equal(outlines.decode({"size": [37, 53], "counts": text}), mask)  # the peer


def test_outlines_are_pycocotools():
    draws = np.random.default_rng(0)
    polygon = (draws.random(14) * 50).tolist()
    labels = coco.label_map([{"id": 1, "category_id": 7, "area": 1, "segmentation": [polygon]}], 50, 60)
    (peer,) = outlines.frPyObjects([polygon], 50, 60)
    assert labels.shape == (50, 60) and np.array_equal(labels, 7 * outlines.decode(peer))


def test_categories_reach_trainings_and_tables(common, monkeypatch, tmp_path):
    """By the name of a set: `coco/PART:CATEGORIES`."""
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "coco").symlink_to(common)
    assert list(photos.files("coco/val2017:giraffe,zebra")) == ["000000000025.jpg"]
    assert list(photos.files("coco/val2017:24")) == ["000000000025.jpg"]
    assert len(photos.files("coco/val2017")) == 3
    assert [case.name for case in evaluate_colorization.cases("coco/val2017:25", part="all")] == ["000000000025"]
    assert evaluate_exemplars.classes_of("coco/val2017:25")["000000000025"] == {"zebra", "giraffe"}
    with pytest.raises(ValueError, match="no category 'cow'"):
        photos.files("coco/val2017:cow")
    with pytest.raises(DataError, match="categories are known of COCO's parts"):
        photos.files("scenes256:cow")


def test_run_length_that_does_not_fill():
    with pytest.raises(ValueError, match="covers 5 of 12 pixels"):
        coco.decode_rle({"size": [3, 4], "counts": [2, 3]})


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"size": [12, 16], "counts": [2, 3]}, "a run-length mask covers 5 of 192 pixels"),
        ({"size": [12, 16], "counts": [-8, 200]}, "a run-length mask has a run under 0"),
        ({"size": [12, 16], "counts": "04"}, "a run-length mask covers 4 of 192"),
        ({"size": [12, 16], "counts": None}, "NoneType"),
        ({"size": [12, 16]}, "it has no 'counts'"),
        ({"counts": [192]}, "it has no 'size'"),
        ({"size": [16, 12], "counts": [192]}, "its mask is 12x16, the picture 16x12"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "its mask is 1000000000x1000000000, the picture 16x12"),
        ([[0, 0, 8, 0, 8, 12, 0]], "number of coordinates"),
        ([[0, 0, 8, 0, 8, float("nan")]], "one far outside of the picture"),
        ([[0, 0, 1e9, 0, 1e9, 12]], "one far outside of the picture"),
        ([["a"] * 6], "could not convert"),
        (7, "not iterable"),
    ],
)
def test_a_broken_object_is_named(common, shape, reason):
    path = common / "annotations" / "instances_val2017.json"
    record = json.loads(path.read_text())
    record["annotations"][0]["segmentation"] = shape
    path.write_text(json.dumps(record))
    data = coco.Coco(common)
    with pytest.raises(DataError, match=rf"coco: annotation 1 of picture 25 is broken \(.*{reason}.*ctlib data fetch"):
        data[1]
    assert data[2]["labels"].max() == 1  # the others are still good
