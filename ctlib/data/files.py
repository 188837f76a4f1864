"""What the loaders share: find files or say what is missing, read a label map with its ids."""

from pathlib import Path

import numpy as np
from PIL import Image

from ctlib.data import registry


def find(dataset: str, folder: Path, pattern: str) -> list[Path]:
    """Sorted files that match, at least one.

    Raises:
        DataError: none; names the folder and the remedy.
    """
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not found:
        raise registry.get(dataset).error(f"no files {pattern} in {folder}")
    return found


def need(dataset: str, path: Path) -> Path:
    """Return `path` if it exists.

    Raises:
        DataError: it does not; names it and the remedy.
    """
    if not path.exists():
        raise registry.get(dataset).error(f"{path} is missing")
    return path


def choose(dataset: str, what: str, value: str, known: tuple[str, ...]) -> str:
    """Return `value` if it is one of `known`.

    Raises:
        ValueError: it is not; lists the known ones.
    """
    if value not in known:
        raise ValueError(f"{dataset}: no {what} {value!r}; known are {', '.join(known)}")
    return value


def read_labels(dataset: str, path: Path) -> np.ndarray:
    """Read a label map `(H, W)`, uint8 or uint16: the ids as stored, never turned into colors.

    A palette PNG gives its indices. `ctlib.images.read` would give the palette's colors.

    Raises:
        DataError: missing, not an image, or an image with several channels.
    """
    need(dataset, path)
    try:
        with Image.open(path) as file:
            file.load()
            mode, labels = file.mode, np.asarray(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise registry.get(dataset).error(f"{path} is not a readable label map ({error})") from error
    if mode not in ("L", "P", "1", "I", "I;16", "I;16B"):
        raise registry.get(dataset).error(f"{path} holds {mode} colors, not label ids")
    return labels.astype(np.uint16 if mode.startswith("I") else np.uint8)
