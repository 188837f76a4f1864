"""The distinct colors of an 8-bit picture.

A 12-megapixel photograph holds a few hundred thousand different colors. A global method is a function of color, so it
can be fitted on the distinct colors (with their counts) and evaluated on them alone, exactly and in double precision;
what is left per pixel is one look-up. This is how every global method here handles a picture of any size.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

_CODES = 1 << 24
_SMALL = 1 << 20  # pixels; below it sorting beats tables with a place for each of 16.7 million colors
_PIECE = 1 << 16  # pixels packed at once: they stay in the processor's cache
_WORKERS = 4  # threads at most, as each counts into 64 MB of its own


def _pixels(image: np.ndarray) -> np.ndarray:
    """Check a picture and return its bytes, `(3 * H * W,)`."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an 8-bit picture (H, W, 3), got {image.dtype} {image.shape}")
    if image.size == 0:
        raise ValueError(f"the picture is empty, its shape is {image.shape}")
    return np.ascontiguousarray(image).reshape(-1)


def _pack(pixels: np.ndarray, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Pixels `start` to `stop`, 3 bytes each, to int32 codes `r << 16 | g << 8 | b`.

    Reads four bytes at every third and drops the one too many: four times as fast as copying bytes to their places.
    Only the last pixel has no byte behind it.
    """
    end = len(pixels) // 3
    stop = end if stop is None else min(stop, end)
    codes = np.empty(stop - start, np.int32)
    inner = stop - start - (stop == end)
    np.right_shift(np.ndarray((inner,), ">u4", pixels.data, 3 * start, (3,)), 8, out=codes[:inner].view(np.uint32))
    codes[inner:] = int.from_bytes(pixels[-3:].tobytes(), "big")
    return codes


def in_threads(function: Callable, arguments: Sequence) -> Iterator:
    """`map` on as many threads as PyTorch uses, up to four; results come in order.

    NumPy and PyTorch let other Python threads run while they compute. Many small jobs on a few threads of our own do
    better here than parallel loops inside each operation: those wait for the slowest core after every single one.
    """
    workers = min(torch.get_num_threads(), _WORKERS, len(arguments))
    if workers < 2:
        yield from map(function, arguments)
        return
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run(argument):
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):  # a thread begins without them
            return function(argument)

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(run, arguments)


def tally(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the colors of an 8-bit picture.

    Args:
        image: `(H, W, 3)` uint8 sRGB.

    Returns:
        codes `r << 16 | g << 8 | b`, `(N,)` int32, rising; their pixel counts, `(N,)` int64.

    Raises:
        ValueError: wrong type or shape, or an empty picture.
    """
    pixels = _pixels(image)
    size = len(pixels) // 3
    if size < _SMALL:
        return np.unique(_pack(pixels), return_counts=True)
    workers = min(torch.get_num_threads(), _WORKERS)
    one = torch.ones(1, dtype=torch.int32).expand(_PIECE)
    span = _CODES // 64

    def count(worker: int) -> np.ndarray:
        table = np.zeros(_CODES, np.int32)
        for start in range(worker * _PIECE, size, workers * _PIECE):
            codes = torch.from_numpy(_pack(pixels, start, start + _PIECE))
            torch.from_numpy(table).index_add_(0, codes, one[: len(codes)])
        return table

    tables = list(in_threads(count, range(workers)))

    def gather(start: int) -> tuple[np.ndarray, np.ndarray]:
        counts = sum((table[start : start + span] for table in tables[1:]), tables[0][start : start + span])
        occupied = np.flatnonzero(counts != 0)  # several times faster than flatnonzero of the counts
        return (occupied + start).astype(np.int32), counts[occupied].astype(np.int64)

    codes, counts = zip(*in_threads(gather, range(0, _CODES, span)), strict=True)
    return np.concatenate(codes), np.concatenate(counts)


def distinct(image: np.ndarray) -> tuple[np.ndarray, Tensor, Tensor]:
    """Distinct colors of an 8-bit picture.

    Args:
        image: `(H, W, 3)` uint8 sRGB.

    Returns:
        codes `(N,)` int32, rising; their colors `(1, 3, N)` float64 in [0, 1]; their pixel counts `(1, N)` float64.

    Raises:
        ValueError: wrong type or shape, or an empty picture.
    """
    codes, counts = tally(image)
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255]) / 255
    return codes, torch.from_numpy(colors)[None], torch.from_numpy(counts.astype(np.float64))[None]


def repaint(image: np.ndarray, codes: np.ndarray, colors: Tensor) -> np.ndarray:
    """Give each pixel the new color of its old one.

    Args:
        image: `(H, W, 3)` uint8, the picture that `codes` came from.
        codes: `(N,)` as returned by `distinct`.
        colors: `(1, 3, N)` float sRGB, the color that each code becomes; clamped to [0, 1] and rounded.

    Returns:
        `(H, W, 3)` uint8.
    """
    levels = (colors[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    packed = _pack(_pixels(image))
    if len(packed) < _SMALL:
        return levels.T[np.searchsorted(codes, packed)].reshape(image.shape)
    table = np.zeros((_CODES, 4), np.uint8)
    table[codes, :3] = levels.T
    painted = torch.from_numpy(table.view("<i4").ravel()).index_select(0, torch.from_numpy(packed))
    return np.ascontiguousarray(painted.numpy().view(np.uint8).reshape(*image.shape[:2], 4)[..., :3])
