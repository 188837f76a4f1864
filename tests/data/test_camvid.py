"""CamVid: lists, label maps, bad input."""

import numpy as np
import pytest
from layouts import labels, picture, sample
from PIL import Image

from ctlib.data import camvid, files, splits
from ctlib.data.registry import DataError


@pytest.fixture
def cam(tmp_path):
    names = {
        "train": ["0016E5_07959", "0006R0_f00930"],
        "val": ["0016E5_08000"],
        "test": ["Seq05VD_f00000", "0001TP_008550"],
    }
    for split, stems in names.items():
        lines = []
        for stem in stems:
            picture(tmp_path / split / f"{stem}.png")
            labels(tmp_path / f"{split}annot" / f"{stem}.png", np.arange(192).reshape(12, 16) % 12)
            lines.append(f"/SegNet/CamVid/{split}/{stem}.png /SegNet/CamVid/{split}annot/{stem}.png\n")
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    return tmp_path


def test_camvid_official_layout(cam):
    data = camvid.CamVid(cam, "train")
    assert len(data) == 2
    item = data[0]
    assert item["name"] == "0016E5_07959" and item["sequence"] == "0016E5"
    assert item["image"].shape == (12, 16, 3) and item["labels"].shape == (12, 16)
    assert np.array_equal(np.unique(item["labels"]), np.arange(12))
    assert len(camvid.CLASSES) == len(camvid.PALETTE) == 12 and camvid.CLASSES[camvid.UNLABELLED] == "Unlabelled"


def test_camvid_unseen_streets(cam):
    honest = camvid.CamVid(cam, "test", splits.CAMVID_UNSEEN)
    assert [path.stem for path in honest.paths] == ["Seq05VD_f00000"]
    with pytest.raises(DataError, match="no frame of Seq05VD in val"):
        camvid.CamVid(cam, "val", splits.CAMVID_UNSEEN)


def test_camvid_bad_input(cam):
    with pytest.raises(ValueError, match="no split 'dev'; known are train, val, test"):
        camvid.CamVid(cam, "dev")
    (cam / "trainannot" / "0016E5_07959.png").unlink()
    with pytest.raises(DataError, match=r"trainannot/0016E5_07959\.png is missing; run `ctlib data fetch camvid`"):
        camvid.CamVid(cam)[0]
    labels(cam / "valannot" / "0016E5_08000.png", np.full((12, 16), 255))
    with pytest.raises(DataError, match="an id over 11"):
        camvid.CamVid(cam, "val")[0]
    (cam / "val.txt").write_text("one_word_only\n")
    with pytest.raises(DataError, match="line 1: expected 'image labels'"):
        camvid.CamVid(cam, "val")
    (cam / "val.txt").write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        camvid.CamVid(cam, "val")
    (cam / "val.txt").unlink()
    with pytest.raises(DataError, match=r"val\.txt is missing"):
        camvid.CamVid(cam, "val")


def test_label_maps_keep_ids(tmp_path):
    ids = np.arange(12).reshape(3, 4)
    labels(tmp_path / "p.png", ids, palette=True)
    assert np.array_equal(files.read_labels("camvid", tmp_path / "p.png"), ids)
    Image.fromarray(np.full((3, 4), 300, np.uint16)).save(tmp_path / "deep.png")
    assert files.read_labels("camvid", tmp_path / "deep.png").max() == 300
    picture(tmp_path / "rgb.png")
    with pytest.raises(DataError, match="holds RGB colors, not label ids"):
        files.read_labels("camvid", tmp_path / "rgb.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match="not a readable label map"):
        files.read_labels("camvid", tmp_path / "broken.png")


def test_real_camvid():
    data = camvid.CamVid(sample("camvid"), "val")
    assert len(data) == 101 and set(camvid.sequence(path) for path in data.paths) == {"0016E5"}
    item = data[0]
    assert item["image"].shape == (360, 480, 3) and item["labels"].max() <= 11
