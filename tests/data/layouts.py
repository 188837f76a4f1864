"""What the tests of the loaders share: small files of official layouts, and the samples of $CTLIB_DATA if present."""

import zlib

import numpy as np
import pytest
from PIL import Image

from ctlib import paths


def picture(path, size=(16, 12), gray=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(zlib.crc32(f"{path.parent.name}/{path.name}".encode()))  # whatever ran before
    pixels = draws.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if gray:
        pixels[:] = pixels[..., :1]
    Image.fromarray(pixels).save(path)
    return path


def labels(path, ids, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(ids, np.uint8))
    if palette:
        image = image.convert("P")
        image.putdata(np.asarray(ids, np.uint8).ravel().tolist())
        image.putpalette([255 - n % 256 for n in range(768)])
    image.save(path)


def sample(name):
    folder = paths.data_dir() / name
    if not (folder / "index.csv").exists():
        pytest.skip(f"set CTLIB_DATA to a folder with the {name} sample")
    return folder
