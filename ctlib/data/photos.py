"""The photographs that come with the installed packages: the quick profile needs no download.

Taught in: notebooks/01_prepare_data.
"""

import hashlib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from torch import Tensor

from ctlib import images

#: name: (package, file in it); licences and authors stand in data/registry.toml
_FILES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
}


def names() -> tuple[str, ...]:
    """Names of the bundled photographs."""
    return tuple(_FILES)


def path(name: str) -> Path:
    """File of a bundled photograph.

    Raises:
        ValueError: unknown name; the message lists the known ones.
        FileNotFoundError: the package that brings it is not installed, or no longer brings it.
    """
    if name not in _FILES:
        raise ValueError(f"unknown photograph {name!r}; known: {', '.join(_FILES)}")
    package, file = _FILES[name]
    spec = find_spec(package)
    found = Path(spec.origin).parent / file if spec and spec.origin else None
    if found is None or not found.exists():
        raise FileNotFoundError(f"photograph {name}: {package} does not bring {file}; install requirements.lock")
    return found


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
