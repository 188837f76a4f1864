"""FiveK: layouts, pairs, conversion."""

import numpy as np
import pytest
from layouts import picture, sample
from PIL import Image

from ctlib.data import fivek, splits
from ctlib.data.registry import DataError


@pytest.fixture
def five(tmp_path):
    for rendition in fivek.RENDITIONS:
        for name in ("a0001-jmac_DSC1459", "a0002-dgw_005", "a0003-NKIM_MG_8178"):
            picture(tmp_path / rendition / f"{name}.jpg")
    (tmp_path / "segs").mkdir()
    np.save(tmp_path / "segs" / "a0002-dgw_005.npy", np.ones((12, 16), np.uint8))
    return tmp_path


def test_fivek_official_layout(five):
    data = fivek.FiveK(five)
    assert len(data) == 3 and data.ids == ["a0001", "a0002", "a0003"]
    item = data[1]
    assert item["id"] == "a0002" and item["name"] == "a0002-dgw_005"
    assert all(item[rendition].shape == (12, 16, 3) for rendition in fivek.RENDITIONS)
    assert item["labels"].sum() == 192 and "labels" not in data[0]
    assert [path.parent.name for path in data.paths_of("c")] == ["c"] * 3
    with pytest.raises(ValueError, match="no rendition 'e' here; loaded are raw, c"):
        fivek.FiveK(five, ("raw", "c")).paths_of("e")


def test_fivek_every_ordered_pair(five):
    data = fivek.FiveK(five)
    pairs = list(data.pairs())
    assert len(pairs) == len(set(pairs)) == 3 * 30
    assert {(source, reference) for _, source, reference in pairs} >= {("raw", "c"), ("c", "raw"), ("a", "e")}
    assert len(list(data.pairs(splits.every_fifth(data.ids)["val"]))) == 30
    pair = data.pair("a0003", "raw", "e")
    assert pair["source"].shape == pair["reference"].shape == (12, 16, 3)


def test_fivek_missing_rendition(five):
    (five / "b" / "a0002-dgw_005.jpg").unlink()
    assert fivek.FiveK(five).ids == ["a0001", "a0003"]
    assert len(fivek.FiveK(five, ("raw", "c"))) == 3
    with pytest.raises(DataError, match=r"fivek: no photograph with renditions raw, c .*csail.mit.edu.*CTLIB_DATA"):
        fivek.FiveK(five / "nowhere", ("raw", "c"))
    with pytest.raises(ValueError, match="no rendition 'f'"):
        fivek.FiveK(five, ("raw", "f"))


def test_fivek_sizes_must_agree(five):
    picture(five / "c" / "a0001-jmac_DSC1459.jpg", (12, 16))
    with pytest.raises(DataError, match="a0001: raw is 16x12, c 12x16"):
        fivek.FiveK(five).pair("a0001", "raw", "c")


def test_fivek_convert(tmp_path):
    picture(tmp_path / "tiff16_c" / "a0001-x.tif", (64, 48))
    picture(tmp_path / "tiff16_c" / "a0002-y.tif", (20, 10))
    written = fivek.convert(tmp_path / "tiff16_c", tmp_path / "fivek" / "c", long_side=32, progress=False)
    assert [Image.open(path).size for path in written] == [(32, 24), (20, 10)]
    times = [path.stat().st_mtime_ns for path in written]
    again = fivek.convert(tmp_path / "tiff16_c", tmp_path / "fivek" / "c", long_side=32, progress=False)
    assert [path.stat().st_mtime_ns for path in again] == times
    with pytest.raises(DataError, match="no files"):
        fivek.convert(tmp_path / "nowhere", tmp_path / "fivek" / "d", progress=False)


def test_real_fivek():
    data = fivek.FiveK(sample("fivek"), ("raw", "c"))
    pair = data.pair(data.ids[0], "raw", "c")
    assert pair["source"].shape == pair["reference"].shape and (pair["source"] != pair["reference"]).any()
    assert len(data) >= 15
