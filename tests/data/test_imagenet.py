"""ImageNet: folders, flat samples, the class index."""

import os

import pytest
from layouts import picture, sample

from ctlib.data import imagenet
from ctlib.data.registry import DataError


def test_imagenet_folders(tmp_path):
    picture(tmp_path / "val" / "n01443537" / "ILSVRC2012_val_00000236.JPEG")
    picture(tmp_path / "val" / "n01440764" / "ILSVRC2012_val_00000293.JPEG")
    (tmp_path / "val" / "n01440764" / "notes.txt").write_text("no picture")
    data = imagenet.ImageNet(tmp_path)
    assert len(data) == 2
    item = data[0]
    assert item["wnid"] == "n01440764" and item["image"].shape == (12, 16, 3)
    assert item["class_index"] is None  # two classes of a thousand do not tell the index
    (tmp_path / "index.csv").write_text("file,wnid,class_index\nx,n01440764,0\ny,n01443537,1\n")
    assert [item["class_index"] for item in map(imagenet.ImageNet(tmp_path).__getitem__, (0, 1))] == [0, 1]


def test_imagenet_flat_sample(tmp_path):
    picture(tmp_path / "images" / "n01443537_goldfish.jpg")
    data = imagenet.ImageNet(tmp_path)
    assert data[0]["wnid"] == "n01443537" and data[0]["name"] == "n01443537_goldfish"
    with pytest.raises(DataError, match=r"imagenet: no pictures in .*; log in at https://www.image-net.org"):
        imagenet.ImageNet(tmp_path / "nowhere")


def test_imagenet_index_needs_all_thousand(tmp_path):
    first = picture(tmp_path / "val" / "n00000000" / "x.JPEG")
    for n in range(1, 1000):
        folder = tmp_path / "val" / f"n{n:08d}"
        folder.mkdir()
        os.link(first, folder / "x.JPEG")
    assert imagenet.ImageNet(tmp_path)[999]["class_index"] == 999


def test_real_imagenet():
    item = imagenet.ImageNet(sample("imagenet_samples"))[0]
    assert item["class_index"] == 0 and item["wnid"] == "n01440764" and min(item["image"].shape[:2]) >= 200
