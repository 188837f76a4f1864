"""BSDS500: segmentations by several people."""

import numpy as np
import pytest
from layouts import labels, picture, sample
from scipy.io import savemat

from ctlib.data import bsds
from ctlib.data.registry import DataError


def truth(path, people, shape=(12, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.empty((1, people), dtype=object)
    for n in range(people):
        cells[0, n] = {"Segmentation": np.full(shape, n + 1, np.uint16), "Boundaries": np.zeros(shape, np.uint8)}
    savemat(path, {"groundTruth": cells})


def test_bsds_official_layout(tmp_path):
    picture(tmp_path / "images" / "train" / "100075.jpg")
    (tmp_path / "images" / "train" / "Thumbs.db").write_bytes(b"x")
    truth(tmp_path / "groundTruth" / "train" / "100075.mat", 5)
    data = bsds.Bsds(tmp_path)
    assert len(data) == 1
    item = data[0]
    assert item["name"] == "100075" and len(item["segments"]) == 5
    assert item["segments"][4].dtype == np.uint16 and (item["segments"][4] == 5).all()


def test_bsds_one_segmentation_and_errors(tmp_path):
    picture(tmp_path / "images" / "val" / "1.jpg")
    with pytest.raises(DataError, match=r"groundTruth/val/1\.mat is missing; run `ctlib data fetch bsds500`"):
        bsds.Bsds(tmp_path, "val")[0]
    truth(tmp_path / "groundTruth" / "val" / "1.mat", 1, (12, 15))
    with pytest.raises(DataError, match="1: a segmentation has another size"):
        bsds.Bsds(tmp_path, "val")[0]
    (tmp_path / "groundTruth" / "val" / "1.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(DataError, match="not a BSDS ground truth"):
        bsds.Bsds(tmp_path, "val")[0]
    labels(tmp_path / "segments" / "val" / "1.png", np.full((12, 16), 7))
    assert (bsds.Bsds(tmp_path, "val")[0]["segments"][0] == 7).all()
    with pytest.raises(DataError, match="no files"):
        bsds.Bsds(tmp_path, "test")


def test_real_bsds():
    item = bsds.Bsds(sample("bsds500"), "test")[0]
    assert item["segments"][0].shape == item["image"].shape[:2] and len(np.unique(item["segments"][0])) > 1
