"""The photographs that come with the installed packages, so that the quick profile needs no download; other folders.

Files, authors and licenses stand in the table `photos` of `data/registry.toml`.

Taught in: notebooks/01_prepare_data.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import Tensor

from ctlib import images, paths
from ctlib.data import coco, registry
from ctlib.data.registry import IMAGES, DataError


def names() -> tuple[str, ...]:
    """Names of the bundled photographs, each scene once."""
    return tuple(sorted(item["name"] for item in registry.get("photos").items if not item.get("twin_of")))


def path(name: str) -> Path:
    """File of a bundled photograph.

    Raises:
        ValueError: unknown name; the message lists the known ones.
        DataError: the package that brings it is not installed, or no longer brings it.
    """
    items = {item["name"]: item for item in registry.get("photos").items}
    if name not in items:
        raise ValueError(f"unknown photograph {name!r}; known: {', '.join(items)}")
    return registry.package_file(items[name])


def load(name: str, long_side: int | None = None) -> np.ndarray:
    """A bundled photograph as `(H, W, 3)` uint8 sRGB, scaled down to `long_side` pixels if given."""
    picture = images.read(path(name))
    return picture if long_side is None else images.resize(picture, long_side)


def tensor(name: str, long_side: int | None = None) -> Tensor:
    """A bundled photograph as a `(1, 3, H, W)` float32 tensor in [0, 1]."""
    return images.to_tensor(load(name, long_side))


def manifest(wanted: Iterable[str]) -> dict[str, str]:
    """sha256 of the file of each named photograph, for the result file."""
    return {name: hashlib.sha256(path(name).read_bytes()).hexdigest() for name in wanted}


def files(folder: str = "photos") -> dict[str, Path]:
    """Pictures by name: the bundled photographs, or those of a folder in `$CTLIB_DATA` (its `images` if there is one).

    Args:
        folder: `"photos"`, a folder, or for the official layout of COCO its part, if need be with categories by name or
            number: `"coco/val2017:giraffe,zebra"`.

    Raises:
        DataError: the folder is missing or holds no picture. ValueError: an unknown category.
    """
    if folder == "photos":
        return {name: path(name) for name in names()}
    if ":" in folder:
        part, _, categories = folder.partition(":")
        if not part.startswith("coco/"):
            raise DataError(f"{folder}: categories are known of COCO's parts, as in coco/val2017:zebra")
        found = coco.Coco(split=part.removeprefix("coco/"), categories=categories.split(",")).paths
        if not found:
            raise DataError(f"{folder}: no picture of {part} shows any of these")
        return {path.name: path for path in found}
    place = paths.data_dir() / folder
    place = place / "images" if (place / "images").is_dir() else place
    found = sorted(file for file in place.rglob("*") if file.suffix.lower() in IMAGES)
    if not found:
        raise DataError(f"{folder}: no pictures in {place}; set CTLIB_DATA to the folder that holds {folder}/")
    return {file.relative_to(place).as_posix(): file for file in found}


def shown(folder: str, count: int, long_side: int) -> dict[str, np.ndarray]:
    """Pictures for a gallery, taken evenly from `files`, by their names without suffix: `(H, W, 3)` uint8 sRGB."""
    found = list(files(folder).items())
    count = min(count, len(found))
    chosen = [found[number * len(found) // count] for number in range(count)]
    return {name.rpartition(".")[0] or name: images.resize(images.read(file), long_side) for name, file in chosen}
