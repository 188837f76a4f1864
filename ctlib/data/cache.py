"""A cache of pictures at one size as a memory-mapped uint8 array: decoded once, read at the speed of the disk."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from ctlib import images
from ctlib.atomic import replacing
from ctlib.data.registry import DataError

BLOCK = 64  # pictures between two points from which an interrupted build can go on
FITS = ("crop", "squash")


class Cache:
    """Pictures of a finished cache.

    Attributes:
        images: uint8 `(N, H, W, 3)`, memory-mapped, read-only.
        names: file names; sha256: of the source files, for the manifest of a training run.

    An item is `{"name", "image": uint8 (H, W, 3)}`.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            self.index = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
            self.images = np.load(self.folder / "images.npy", mmap_mode="r", allow_pickle=False)
            self.names: list[str] = self.index["names"]
            self.sha256: list[str] = self.index["sha256"]
            fits = self.images.shape == (len(self.names), *self.index["size"], 3) and self.images.dtype == np.uint8
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.folder}: no whole cache here ({error!r}); build it with cache.build") from error
        if not fits:
            raise DataError(f"{self.folder}: images.npy does not fit index.json; build it again with cache.build")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        return {"name": self.names[index], "image": self.images[index]}


def build(
    source: Iterable[str | Path] | object,
    folder: str | Path,
    size: tuple[int, int] = (256, 256),
    *,
    fit: str = "crop",
    progress: bool = False,
) -> Cache:
    """Build the cache, or open it if it is there and fresh.

    Fresh means: the same files in the same order, none changed in size or time, the same picture size and fit.
    Otherwise it is built anew. An interrupted build goes on after its last whole block; until the end the files carry
    other names, so a half-built cache is never taken for a whole one.

    Args:
        source: paths of pictures, or a loader with the attribute `paths`.
        folder: gets `images.npy` and `index.json`; N x H x W x 3 bytes.
        size: `(H, W)` in pixels.
        fit: `"crop"` scales until the picture covers the size and cuts the middle out; `"squash"` changes its shape.
        progress: whether to draw a bar on standard error.

    Raises:
        DataError: pictures that cannot be read (names them all), no pictures, or a full disk.
        ValueError: an unknown fit, a size under 1, or a loader with several files an item (FiveK).

    Taught in: notebooks/01_prepare_data
    """
    if fit not in FITS:
        raise ValueError(f"cache: no fit {fit!r}; known are {', '.join(FITS)}")
    if min(size) < 1:
        raise ValueError(f"cache: size is (H, W) in pixels, got {size}")
    if hasattr(source, "paths_of"):
        kind = type(source).__name__
        raise ValueError(f"cache: {kind} has several files an item; pass those of one, e.g. its paths_of('raw')")
    sources = [Path(path).resolve() for path in getattr(source, "paths", source)]
    folder = Path(folder)
    if not sources:
        raise DataError(f"{folder}: no pictures to cache; pass at least one path")
    if missing := [path for path in sources if not path.is_file()]:
        raise DataError(f"{folder}: {len(missing)} pictures are missing, e.g. {missing[0]}; verify the data set")
    key = fingerprint(sources, size, fit)
    if cached := _fresh(folder, key):
        return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # another program may be building it right now
            if cached := _fresh(folder, key):
                return cached
            _fill(sources, folder, size, fit, key, progress)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{folder}: cannot write the cache ({reason}); make room or check the rights") from error
    return Cache(folder)


def keep(pictures: np.ndarray, names: list[str], folder: str | Path) -> Cache:
    """A cache of pictures that are in memory already, as those of ArtBench's batches.

    Args:
        pictures: uint8 `(N, H, W, 3)`. names: one a picture.
        folder: gets `images.npy` and `index.json`; what is there is kept if it holds the same pictures.

    Raises:
        ValueError: another type or shape, or not one name a picture. DataError: it cannot be written.
    """
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or len(names) != len(pictures):
        raise ValueError(
            f"cache: expected uint8 (N, H, W, 3) and N names, got {pictures.dtype} {pictures.shape}, {len(names)} names"
        )
    folder, digests = Path(folder), [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures]
    key = hashlib.sha256(json.dumps([list(pictures.shape[1:3]), names, digests]).encode()).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            if cached := _fresh(folder, key):
                return cached
            (folder / "index.json").unlink(missing_ok=True)  # as in `build`
            with replacing(folder / "images.npy") as temporary, open(temporary, "wb") as file:
                np.save(file, pictures)
            index = {"key": key, "size": list(pictures.shape[1:3]), "names": names, "sha256": digests}
            with replacing(folder / "index.json") as temporary:
                temporary.write_text(json.dumps(index), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{folder}: cannot write the cache ({reason}); make room or check the rights") from error
    return Cache(folder)


def _fresh(folder: Path, key: str) -> Cache | None:
    """The cache that lies there, if it is whole and not stale."""
    try:
        cached = Cache(folder)
    except DataError:
        return None
    return cached if cached.index.get("key") == key else None


def fingerprint(sources: list[Path], size: tuple[int, int], fit: str) -> str:
    """SHA-256 over everything that makes a cache stale: paths, file sizes, times, picture size, fit."""
    digest = hashlib.sha256(json.dumps([list(size), fit]).encode())
    for path in sources:
        state = path.stat()
        digest.update(f"{path}|{state.st_size}|{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _fill(sources: list[Path], folder: Path, size: tuple[int, int], fit: str, key: str, progress: bool) -> None:
    from tqdm import tqdm

    pixels, log = folder / "images.npy.part", folder / "index.part"
    done = _resume(log, pixels, key)
    shape = (len(sources), *size, 3)
    if not done:
        need, free = int(np.prod(shape)), shutil.disk_usage(folder).free
        if need > free:
            raise DataError(f"{folder}: the cache needs {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make room")
        log.write_text(key + "\n")
    array = np.lib.format.open_memmap(pixels, mode="r+" if done else "w+", dtype=np.uint8, shape=shape)
    _reserve(pixels)
    broken: list[str] = []
    bar = tqdm(total=len(sources), initial=len(done), disable=not progress)
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar:
        for start in range(len(done), len(sources), BLOCK):
            block = sources[start : start + BLOCK]
            for row, result in enumerate(pool.map(lambda path: _decode(path, size, fit), block), start):
                if isinstance(result, str):
                    broken.append(result)
                else:
                    array[row], digest = result
                    done.append(digest)
            bar.update(len(block))
            if not broken:  # the log may only name rows whose pixels are on the disk
                array.flush()
                with open(log, "a") as file:
                    file.write("".join(digest + "\n" for digest in done[start:]))
    del array
    if broken:
        pixels.unlink()
        log.unlink()
        few = "; ".join(broken[:10]) + (" ..." if len(broken) > 10 else "")
        raise DataError(f"{folder}: {len(broken)} pictures cannot be read: {few}; replace them or leave them out")
    index = {"key": key, "size": list(size), "fit": fit, "names": [path.name for path in sources], "sha256": done}
    temporary = folder / "index.json.part"
    temporary.write_text(json.dumps(index), encoding="utf-8")
    (folder / "index.json").unlink(missing_ok=True)  # no moment at which an old index stands beside new pixels
    os.replace(pixels, folder / "images.npy")
    os.replace(temporary, folder / "index.json")
    log.unlink()


def _reserve(path: Path) -> None:
    """Claim the file's blocks now: a full disk is an error here, but kills the process inside a memory map."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def _resume(log: Path, pixels: Path, key: str) -> list[str]:
    """Hashes of the pictures that an interrupted build of the same cache has finished."""
    if not (log.exists() and pixels.exists()):
        return []
    first, *digests = log.read_text().split("\n")[:-1]  # a last line without an end was not finished
    return digests if first == key else []


def _decode(path: Path, size: tuple[int, int], fit: str) -> tuple[np.ndarray, str] | str:
    """Pixels and SHA-256 of one file, or what is wrong with it."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return resize(images.read(path), size, fit), digest
    except images.ImageReadError as error:
        return str(error)


def resize(image: np.ndarray, size: tuple[int, int], fit: str = "crop") -> np.ndarray:
    """Scale uint8 `(h, w, 3)` to `(H, W, 3)` with Lanczos in encoded sRGB, up or down; see `build` for `fit`."""
    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1])
    crop_h, crop_w = (size[0] * scale, size[1] * scale) if fit == "crop" else (height, width)
    top, left = (height - crop_h) / 2, (width - crop_w) / 2
    box = (left, top, left + crop_w, top + crop_h)
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box))
