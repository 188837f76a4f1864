r"""Welsh, Ashikhmin, Mueller 2002: each pixel takes the color of one like it in the reference.

Like means: near in lightness, and near in the deviation of lightness around, one half each. The reference's lightness
is first brought to the target's mean and deviation, so that dark pictures learn from bright ones. Compared is not with
every pixel but with some 200, one from each cell of a grid, at a random place in it.

The paper works in l alpha beta; here it is CIELAB, as in all of this book's colorizers, whose lightness is kept.

Source: Welsh, Ashikhmin, Mueller, Transferring Color to Greyscale Images, SIGGRAPH 2002; section 2, the global
procedure.
Taught in: notebooks/51_exemplar_colorization.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ctlib import check, chroma, ops
from ctlib.settings import share, whole

SAMPLES = 225  # a grid of 15 x 15
WINDOW = 5  # pixels a side, that a deviation is taken over
_PIECE = 1 << 16  # pixels compared at once


@torch.no_grad()
def welsh(
    rgb: Tensor,
    reference: Tensor,
    *,
    samples: int = SAMPLES,
    window: int = WINDOW,
    texture: float = 0.5,
    seed: int = 0,
) -> Tensor:
    r"""Color pictures by the lightness and texture of a reference's pixels.

    Args:
        rgb: `(B, 3, H, W)` sRGB in [0, 1], of which only L\* counts.
        reference: `(B or 1, 3, H', W')` sRGB in [0, 1], at least 32 pixels a side, in color.
        samples: pixels of the reference to choose from; rounded down to a square number.
        window: pixels a side, an odd number, that a deviation of lightness is taken over.
        texture: how much deviation counts beside lightness, 0 to below 1.
        seed: of the places of the samples.

    Returns:
        `(B, 3, H, W)` sRGB in [0, 1] with the lightness of `rgb`, see `ctlib.chroma.shown`.

    Raises:
        ValueError: wrong input; the message names what and the remedy.
    """
    check.rgb(rgb, "rgb")
    chroma.lender(reference, len(rgb))
    whole("samples", samples, 1)
    if not whole("window", window, 1) % 2:
        raise ValueError(f"window: expected an odd number of pixels, got {window}")
    texture = share("texture", texture)
    weights = torch.tensor([1 - texture, texture]).sqrt().to(rgb)
    found = []
    for target, lender in zip(rgb.split(1), reference.expand(len(rgb), -1, -1, -1).split(1), strict=True):
        lab = ops.rgb_to_lab(lender)
        lightness = chroma.lightness(target)
        rows, columns = (place.to(rgb.device) for place in jittered(lender.shape[2:], samples, seed))
        known = described(toward(lab[:, :1], lightness), window)[0][:, rows, columns].mT * weights
        colors = lab[0, 1:, rows, columns]
        asked = described(lightness, window)[0].flatten(1).mT * weights
        nearest = torch.cat([torch.cdist(part, known).argmin(1) for part in asked.split(_PIECE)])
        found.append(chroma.shown(lightness, colors[:, nearest].view(1, 2, *lightness.shape[2:])))
    return torch.cat(found)


def toward(lightness: Tensor, other: Tensor) -> Tensor:
    """Lightness `(1, 1, h, w)` with the mean and deviation of another's; a flat one only with its mean."""
    spread = lightness.std(correction=0)
    factor = other.std(correction=0) / spread if spread > 1e-3 else 1.0
    return (lightness - lightness.mean()) * factor + other.mean()


def described(lightness: Tensor, window: int) -> Tensor:
    """Lightness, and its deviation in a window around each pixel, reflected at the border: `(1, 2, H, W)`."""
    half = window // 2
    padded = lightness.double()
    for axis, length in ((3, lightness.shape[3]), (2, lightness.shape[2])):
        room = half if length > half else 0  # what is smaller than the window is repeated at its border
        pad = (half, half, 0, 0) if axis == 3 else (0, 0, half, half)
        padded = functional.pad(padded, pad, mode="reflect" if room else "replicate")
    mean = functional.avg_pool2d(padded, window, 1)
    variance = functional.avg_pool2d(padded.square(), window, 1) - mean.square()
    return torch.cat([lightness, variance.clamp(min=0).sqrt().to(lightness)], dim=1)


def jittered(size: tuple[int, int], samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of one random pixel in each cell of a square grid, `(n,)` each."""
    side = max(1, int(samples**0.5))
    draws = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    places = [
        np.minimum(((cells + draws.random(cells.shape)) * length / side).astype(int), length - 1).ravel()
        for cells, length in ((rows, size[0]), (columns, size[1]))
    ]
    return torch.from_numpy(places[0]), torch.from_numpy(places[1])
