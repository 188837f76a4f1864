"""The distinct colors of an 8-bit picture.

A 12-megapixel photograph holds a few hundred thousand different colors. A global method is a function of color, so it
can be fitted on the distinct colors (with their counts) and evaluated on them alone, exactly and in double precision;
what is left per pixel is one look-up. This is how every global method here handles a picture of any size.
"""

import numpy as np
import torch
from torch import Tensor

_CODES = 1 << 24
_SMALL = 1 << 20  # pixels; below it sorting beats tables with a place for each of 16.7 million colors


def _pack(image: np.ndarray) -> np.ndarray:
    """`(H, W, 3)` uint8 to `(H * W,)` int32 codes `r << 16 | g << 8 | b`."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an 8-bit picture (H, W, 3), got {image.dtype} {image.shape}")
    if image.size == 0:
        raise ValueError(f"the picture is empty, its shape is {image.shape}")
    padded = np.zeros((image.shape[0] * image.shape[1], 4), np.uint8)
    padded[:, 2::-1] = image.reshape(-1, 3)
    return padded.view("<i4").ravel()


def distinct(image: np.ndarray) -> tuple[np.ndarray, Tensor, Tensor]:
    """Distinct colors of an 8-bit picture.

    Args:
        image: `(H, W, 3)` uint8 sRGB.

    Returns:
        codes `(N,)` int32, rising; their colors `(1, 3, N)` float64 in [0, 1]; their pixel counts `(1, N)` float64.

    Raises:
        ValueError: wrong type or shape, or an empty picture.
    """
    packed = _pack(image)
    if len(packed) < _SMALL:
        codes, counts = np.unique(packed, return_counts=True)
    else:
        # torch counts int32 as it is; numpy would first copy the codes to int64
        table = torch.bincount(torch.from_numpy(packed), minlength=_CODES).numpy()
        codes = np.flatnonzero(table != 0).astype(np.int32)  # several times faster than flatnonzero of the counts
        counts = table[codes]
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
    packed = _pack(image)
    if len(packed) < _SMALL:
        return levels.T[np.searchsorted(codes, packed)].reshape(image.shape)
    table = np.zeros((_CODES, 4), np.uint8)
    table[codes, :3] = levels.T
    painted = torch.from_numpy(table.view("<i4").ravel()).index_select(0, torch.from_numpy(packed))
    return np.ascontiguousarray(painted.numpy().view(np.uint8).reshape(*image.shape[:2], 4)[..., :3])
