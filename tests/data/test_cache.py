"""The uint8 cache: right pixels, reuse, staleness, interruption, broken pictures."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from ctlib import images
from ctlib.data import cache, fivek
from ctlib.data.registry import DataError


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(10):
        Image.fromarray(rng.integers(0, 256, (12 + n, 16, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    return sorted(folder.glob("*.png"))


@pytest.fixture
def count_reads(monkeypatch):
    reads, read = [], images.read
    monkeypatch.setattr(images, "read", lambda path, **options: (reads.append(path.name), read(path, **options))[1])
    return reads


def test_keeps_what_is_in_memory(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    names = [f"{n}.png" for n in range(5)]
    kept = cache.keep(pictures, names, tmp_path / "cache")
    np.testing.assert_array_equal(kept.images, pictures)
    assert kept.names == names and len(set(kept.sha256)) == 5 and kept.index["size"] == [8, 6]
    written = (tmp_path / "cache" / "images.npy").stat().st_mtime_ns
    assert cache.keep(pictures, names, tmp_path / "cache").sha256 == kept.sha256
    assert (tmp_path / "cache" / "images.npy").stat().st_mtime_ns == written, "the same pictures are not written again"
    other = cache.keep(255 - pictures, names, tmp_path / "cache")
    np.testing.assert_array_equal(other.images, 255 - pictures)
    for wrong in (pictures.astype(float), pictures[0], pictures[:3]):
        with pytest.raises(ValueError, match=r"cache: expected uint8 \(N, H, W, 3\) and N names"):
            cache.keep(wrong, names, tmp_path / "wrong")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the cache"):
        cache.keep(pictures, names, tmp_path / "file")


def test_holds_the_pictures(pictures, tmp_path):
    built = cache.build(pictures, tmp_path / "cache", (12, 16))
    assert built.images.shape == (10, 12, 16, 3) and built.images.dtype == np.uint8
    assert built.names == [path.name for path in pictures] and len(built) == 10
    np.testing.assert_array_equal(built.images[0], images.read(pictures[0]))  # same size: copied exactly
    item = built[3]
    assert item["name"] == "3.png"
    np.testing.assert_array_equal(item["image"], cache.resize(images.read(pictures[3]), (12, 16)))
    assert len(set(built.sha256)) == 10 and all(len(digest) == 64 for digest in built.sha256)
    assert sorted(os.listdir(tmp_path / "cache")) == ["images.npy", "index.json", "lock"]
    with pytest.raises(ValueError):
        built.images[0, 0, 0] = 0  # read-only


def test_takes_a_loader(pictures, tmp_path):
    class Loader:
        paths = pictures[:3]

    assert cache.build(Loader(), tmp_path / "cache", (4, 4)).names == ["0.png", "1.png", "2.png"]


def test_a_loader_of_several_files_an_item_is_told_what_to_pass(pictures, tmp_path):
    for rendition in ("raw", "c"):
        (tmp_path / "fivek" / rendition).mkdir(parents=True)
        (tmp_path / "fivek" / rendition / "a0001-x.png").write_bytes(pictures[0].read_bytes())
    data = fivek.FiveK(tmp_path / "fivek", ("raw", "c"))
    with pytest.raises(ValueError, match=r"cache: FiveK has several files an item; .*paths_of\('raw'\)"):
        cache.build(data, tmp_path / "cache", (4, 4))
    assert not (tmp_path / "cache").exists()
    assert cache.build(data.paths_of("c"), tmp_path / "cache", (4, 4)).names == ["a0001-x.png"]


def test_fresh_cache_is_reused(pictures, tmp_path, count_reads):
    cache.build(pictures, tmp_path / "cache", (8, 8))
    assert len(count_reads) == 10
    cache.build(pictures, tmp_path / "cache", (8, 8))
    assert len(count_reads) == 10


@pytest.mark.parametrize("change", ["size", "fit", "fewer", "order", "time", "content"])
def test_stale_cache_is_rebuilt(pictures, tmp_path, change, count_reads):
    cache.build(pictures, tmp_path / "cache", (8, 8))
    size, fit = (8, 8), "crop"
    if change == "size":
        size = (8, 10)
    elif change == "fit":
        fit = "squash"
    elif change == "fewer":
        pictures = pictures[:-1]
    elif change == "order":
        pictures = pictures[::-1]
    elif change == "time":
        os.utime(pictures[0], ns=(1, 1))
    else:
        Image.new("RGB", (16, 12), (255, 0, 0)).save(pictures[0])
    built = cache.build(pictures, tmp_path / "cache", size, fit=fit)
    assert len(count_reads) == 10 + len(pictures)
    assert built.images.shape == (len(pictures), *size, 3)
    if change == "content":
        assert (built.images[0] == (255, 0, 0)).all()


def test_interrupted_build_is_no_cache_and_goes_on(pictures, tmp_path, monkeypatch, count_reads):
    monkeypatch.setattr(cache, "BLOCK", 3)
    decode = cache._decode

    def power_cut(path, size, fit):
        if path.name == "7.png":
            raise KeyboardInterrupt
        return decode(path, size, fit)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_decode", power_cut)
        with pytest.raises(KeyboardInterrupt):
            cache.build(pictures, tmp_path / "cache", (8, 8))
    with pytest.raises(DataError, match="no whole cache"):
        cache.Cache(tmp_path / "cache")
    count_reads.clear()
    built = cache.build(pictures, tmp_path / "cache", (8, 8))
    assert count_reads and not {"0.png", "5.png"} & set(count_reads)  # the two whole blocks were kept
    fresh = cache.build(pictures, tmp_path / "other", (8, 8))
    np.testing.assert_array_equal(built.images, fresh.images)
    assert built.sha256 == fresh.sha256


def test_leftover_of_another_build_is_not_used(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "BLOCK", 3)
    folder = tmp_path / "cache"
    cache.build(pictures, folder, (8, 8))
    (folder / "images.npy").rename(folder / "images.npy.part")
    (folder / "index.part").write_text("another key\n" + "0" * 64 + "\n")
    assert cache.build(pictures, folder, (6, 6)).images.shape == (10, 6, 6, 3)


def test_two_builders_at_once_decode_each_picture_once(pictures, tmp_path, count_reads):
    with ThreadPoolExecutor() as pool:
        built = list(pool.map(lambda _: cache.build(pictures, tmp_path / "cache", (8, 8)), range(2)))
    assert sorted(count_reads) == sorted(path.name for path in pictures)
    np.testing.assert_array_equal(built[0].images, built[1].images)


def test_broken_pictures_are_all_named(pictures, tmp_path):
    pictures[2].write_bytes(b"not a picture")
    pictures[5].write_bytes(pictures[5].read_bytes()[:60])
    with pytest.raises(DataError, match=r"2 pictures cannot be read: .*2\.png.*5\.png") as caught:
        cache.build(pictures, tmp_path / "cache", (8, 8))
    assert "leave them out" in str(caught.value)
    assert os.listdir(tmp_path / "cache") == ["lock"]


def test_missing_and_no_pictures(pictures, tmp_path):
    pictures[4].unlink()
    with pytest.raises(DataError, match=r"1 pictures are missing, e\.g\. .*4\.png"):
        cache.build(pictures, tmp_path / "cache", (8, 8))
    with pytest.raises(DataError, match="no pictures to cache"):
        cache.build([], tmp_path / "cache", (8, 8))


def test_damaged_cache_is_rebuilt(pictures, tmp_path):
    folder = tmp_path / "cache"
    whole = np.array(cache.build(pictures, folder, (8, 8)).images)
    (folder / "images.npy").write_bytes((folder / "images.npy").read_bytes()[:100])
    np.testing.assert_array_equal(cache.build(pictures, folder, (8, 8)).images, whole)


def test_full_disk(pictures, tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_reserve", full)
    with pytest.raises(DataError, match=r"No space left on device.*make room"):
        cache.build(pictures, tmp_path / "cache", (8, 8))


def test_too_little_room_is_said_first(pictures, tmp_path):
    with pytest.raises(DataError, match="make room"):
        cache.build(pictures, tmp_path / "cache", (10**6, 10**6))


def test_bad_arguments(pictures, tmp_path):
    with pytest.raises(ValueError, match="known are crop, squash"):
        cache.build(pictures, tmp_path / "cache", fit="stretch")
    with pytest.raises(ValueError, match=r"size is \(H, W\)"):
        cache.build(pictures, tmp_path / "cache", (0, 8))


def test_crop_keeps_shapes_and_takes_the_middle():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 255
    assert (cache.resize(image, (10, 10)) == 255).all()
    assert cache.resize(image, (5, 5), "squash")[:, 0].max() == 0
