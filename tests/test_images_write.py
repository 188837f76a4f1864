"""The door for files, outwards; and the ways between arrays and tensors."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from pictures import ALPHA, GRAY, RGB, smooth
from PIL import Image

from ctlib import images
from ctlib.images import ImageWriteError

# ---- writing


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp", ".tif", ".tiff", ".bmp"])
def test_write_and_read_back(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    assert images.write(path, smooth()) == path
    error = np.abs(images.read(path).astype(int) - smooth())
    assert error.mean() < 2 if suffix.lower() in (".jpg", ".jpeg", ".webp") else error.max() == 0
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    with Image.open(path) as image:
        assert not image.info.get("exif") and "icc_profile" not in image.info


def test_write_takes_tensors_and_rounds(tmp_path):
    rgb = torch.from_numpy(RGB.copy()).permute(2, 0, 1) / 255
    for picture in (rgb, rgb[None], rgb.double().requires_grad_()):
        assert np.array_equal(images.read(images.write(tmp_path / "a.png", picture)), RGB)


def test_quality_counts(tmp_path):
    fine = images.write(tmp_path / "a.jpg", RGB, quality=98).stat().st_size
    assert images.write(tmp_path / "b.jpg", RGB, quality=30).stat().st_size < fine / 2
    with pytest.raises(ValueError, match="quality"):
        images.write(tmp_path / "c.jpg", RGB, quality=0)


def test_written_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    assert images.write(tmp_path / "a.png", RGB).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_write_refuses_clearly(tmp_path):
    with pytest.raises(ImageWriteError, match=r"unknown suffix '\.gif'; use one of \.jpg, \.jpeg, \.png"):
        images.write(tmp_path / "a.gif", RGB)
    with pytest.raises(ImageWriteError, match="does not exist; create it first"):
        images.write(tmp_path / "none" / "a.png", RGB)
    with pytest.raises(ImageWriteError, match=r"write it as \.png"):
        images.write(tmp_path / "a.webp", np.zeros((1, 17_000, 3), np.uint8))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageWriteError, match="not written"):
        images.write(tmp_path / "folder.png", RGB)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (RGB.astype(float), "uint8"),
        (GRAY, "shape"),
        (np.dstack([RGB, ALPHA]), "shape"),
        (RGB[:0], "shape"),
        (torch.zeros(3, 4), "shape"),
        (torch.zeros(2, 3, 4, 4), "shape"),
        (torch.zeros(4, 4, 3), "shape"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "float"),
        (torch.full((3, 4, 4), torch.nan), "NaN"),
        (torch.full((3, 4, 4), torch.inf), "NaN or infinite"),
        (torch.full((3, 4, 4), 200.0), "divide by 255"),
        (torch.full((3, 4, 4), -0.2), "clamp"),
        ("a.png", "uint8"),
    ],
)
def test_write_validates_the_picture(tmp_path, picture, message):
    with pytest.raises(ValueError, match=message):
        images.write(tmp_path / "a.png", picture)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = images.write(tmp_path / "a.png", RGB)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(ImageWriteError, match=r"a\.png: not written \(No space left on device\); free some space"):
            images.write(path, 255 - RGB)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    images.write(path, 255 - RGB)
    assert np.array_equal(images.read(path), 255 - RGB)


def test_a_file_size_limit_stops_the_write_cleanly(tmp_path):
    """A real failure of `write(2)`, not a simulated one."""
    script = (
        "import resource, signal, sys, numpy as np; from ctlib import images;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000));"
        "images.write(sys.argv[1], np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "a.bmp"], capture_output=True, text=True)
    assert done.returncode != 0 and "ImageWriteError" in done.stderr and not list(tmp_path.iterdir())


# ---- arrays and tensors


def test_resize_only_shrinks():
    rgb = smooth(300, 400)
    small = images.resize(rgb, 100)
    assert small.shape == (75, 100, 3) and small.dtype == np.uint8
    assert np.abs(small.mean((0, 1)) - rgb.mean((0, 1))).max() < 1
    assert images.resize(rgb.swapaxes(0, 1), 100).shape == (100, 75, 3)
    assert images.resize(rgb, 400) is rgb and images.resize(rgb, 4000) is rgb
    assert images.resize(np.zeros((1, 1000, 3), np.uint8), 10).shape == (1, 10, 3)
    with pytest.raises(ValueError, match="long_side"):
        images.resize(rgb, 0)
    with pytest.raises(ValueError, match="uint8"):
        images.resize(rgb / 255, 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensor_round_trip(dtype):
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    rgb = images.to_tensor(levels, dtype)
    assert rgb.shape == (1, 3, 16, 16) and rgb.dtype == dtype and rgb.is_contiguous()
    assert rgb.min() == 0 and rgb.max() == 1
    error = np.abs(images.to_uint8(rgb).astype(int) - levels).max()
    assert error <= (1 if dtype == torch.bfloat16 else 0)  # whose 8 bits of mantissa cannot tell 254 from 255


def test_to_tensor_keeps_its_hands_off_the_array():
    frozen = RGB.copy()
    frozen.flags.writeable = False
    rgb = images.to_tensor(frozen)
    rgb.zero_()
    assert np.array_equal(frozen, RGB)
    assert np.array_equal(images.to_uint8(images.to_tensor(RGB[:, ::-1])), RGB[:, ::-1])
    with pytest.raises(ValueError, match="float type"):
        images.to_tensor(RGB, torch.uint8)


def test_to_uint8_rounds_and_clamps():
    rgb = torch.tensor([-3.0, 0.49 / 255, 0.51 / 255, 254.6 / 255, 1.5, 0.5]).repeat(3, 1)[:, None]
    before = rgb.clone()
    assert images.to_uint8(rgb)[0, :, 0].tolist() == [0, 0, 1, 255, 255, 128]
    assert torch.equal(rgb, before)
    with pytest.raises(ValueError, match="NaN"):
        images.to_uint8(torch.full((1, 3, 2, 2), torch.nan))
