"""The bundled photographs: they load, they have the size asked for, and they are the files that the registry names."""

import numpy as np
import pytest
import torch

from ctlib import images
from ctlib.data import photos, registry
from ctlib.data.registry import DataError


@pytest.mark.parametrize("name", photos.names())
def test_every_photograph_loads(name):
    picture = photos.load(name)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert min(picture.shape[:2]) >= 300
    assert (picture.std(axis=(0, 1)) > 10).all()  # a picture, not a blank


def test_names_are_sorted_scenes_without_twins():
    names = photos.names()
    assert list(names) == sorted(set(names)) and len(names) >= 8
    items = registry.get("photos").items
    twins = {item["name"] for item in items if item.get("twin_of")}
    assert "motorcycle_right" in twins and not twins & set(names)
    assert twins | set(names) == {item["name"] for item in items}
    assert photos.load("motorcycle_right").shape == photos.load("motorcycle").shape  # a twin loads by its name


@pytest.mark.parametrize("long_side", [1, 64, 200])
def test_long_side_is_the_longer_side(long_side):
    for name in ("coffee", "grace_hopper"):  # landscape and portrait
        whole, small = photos.load(name), photos.load(name, long_side)
        assert max(small.shape[:2]) == long_side
        shape = np.array(whole.shape[:2]) * long_side / max(whole.shape[:2])
        assert np.abs(np.array(small.shape[:2]) - shape).max() <= 1
    assert np.array_equal(photos.load("coffee", 100_000), photos.load("coffee"))  # never scaled up


def test_tensor_is_the_same_picture():
    tensor = photos.tensor("china", 64)
    assert tensor.shape == (1, 3, 43, 64) and tensor.dtype == torch.float32
    assert tensor.min() >= 0 and tensor.max() <= 1
    levels = (tensor[0].movedim(0, -1) * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(levels, photos.load("china", 64))


def test_unknown_name_lists_the_known():
    for call in (photos.path, photos.load, photos.tensor, lambda name: photos.manifest([name])):
        with pytest.raises(ValueError, match=r"unknown photograph 'lena'; known: .*astronaut.*rocket"):
            call("lena")


def test_manifest_is_stable_and_what_the_registry_says():
    wanted = ("rocket", "china")
    manifest = photos.manifest(wanted)
    assert tuple(manifest) == wanted and manifest == photos.manifest(iter(wanted))
    recorded = {item["name"]: item["sha256"] for item in registry.get("photos").items}
    assert photos.manifest(recorded) == recorded


def test_pictures_of_a_folder_and_some_to_show(tmp_path, monkeypatch):
    assert list(photos.files()) == list(photos.names()) == list(photos.shown("photos", 99, 32))
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    for name in ("paintings/images/a/1.png", "paintings/images/2.JPG", "flat/3.png", "flat/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        images.write(tmp_path / name, photos.load("coffee", 40))
    (tmp_path / "paintings" / "images" / "index.csv").touch()
    assert list(photos.files("paintings")) == ["2.JPG", "a/1.png"] and list(photos.files("flat")) == ["3.png", "4.png"]
    found = photos.shown("paintings", 2, 24)
    assert list(found) == ["2", "a/1"] and all(max(picture.shape) == 24 for picture in found.values())
    assert list(photos.shown("flat", 1, 24)) == ["3"] and list(photos.shown("flat", 5, 24)) == ["3", "4"]
    assert list(photos.shown("photos", 4, 24)) == list(photos.names())[::2]
    with pytest.raises(
        DataError, match=r"nowhere: no pictures in .*; set CTLIB_DATA to the folder that holds nowhere/"
    ):
        photos.files("nowhere")
