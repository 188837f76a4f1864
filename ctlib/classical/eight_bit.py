r"""Reinhard's transfer for 8-bit pictures, straight over the pixels: no table of colors, no float picture.

`methods.recolor_uint8` works on the distinct colors of a picture in double precision, which suits every method. For
this one, plain arithmetic on the pixels is faster still once it is compiled, and then `recolor_uint8` takes it; see
`ctlib.ops.compile_cpu`.

Measured in: notebooks/71_ops.
"""

import numpy as np
import torch
from torch import Tensor

from ctlib.ops.lab import encoded_of, lab_of, linear_rgb_of
from ctlib.ops.launch import compilable

_STRIP = 1 << 18  # pixels treated at once: what they need stays in the processor's cache


def reinhard_lab(source: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Give each CIELAB channel of the source the mean and the standard deviation of the reference's.

    Args:
        source, reference: `(H, W, 3)` uint8 sRGB.

    Returns:
        `(H, W, 3)` uint8: that of `statistics.reinhard(space="lab")`, but for a level where rounding is undecided.

    Raises:
        ValueError: not an 8-bit color picture, or an empty one.
    """
    mean, deviation = _moments_of(source, "source")
    new_mean, new_deviation = _moments_of(reference, "reference")
    scale = new_deviation / (deviation.square() + 0.01**2).sqrt()  # as `statistics`: what does not vary stays flat
    settings = torch.cat([scale, mean, new_mean]).float()
    result = np.empty(source.shape, np.uint8)
    for strip, out in zip(_strips(source), _strips(result), strict=True):
        painted = torch.empty(3, strip.shape[1], dtype=torch.uint8)
        _repaint(*_planes(strip), settings, *painted)
        out.copy_(painted)
    return result


def _strips(image: np.ndarray) -> tuple[Tensor, ...]:
    """The picture as views `(3, N)` of some pixels each."""
    return torch.from_numpy(np.ascontiguousarray(image)).reshape(-1, 3).T.split(_STRIP, dim=1)


def _planes(strip: Tensor) -> list[Tensor]:
    """A channel at a time: torch transposes `(N, 3)` seven times more slowly."""
    return [channel.contiguous() for channel in strip]


def _moments_of(image: np.ndarray, name: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the CIELAB channels, each `(3,)` float64."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"{name}: expected an 8-bit picture (H, W, 3) with pixels, got {image.dtype} {image.shape}")
    # sums about the middle of the picture: about a far point, a flat sky loses its small variance to rounding
    few = torch.from_numpy(np.ascontiguousarray(image.reshape(-1, 3)[:: max(1, image.size // 3000)]))
    pivot = torch.stack(lab_of(*few.T)).median(dim=1).values
    sums, part = torch.zeros(6, dtype=torch.float64), torch.empty(6)
    for strip in _strips(image):
        _sums(*_planes(strip), pivot, part)
        sums += part
    mean, square = sums.reshape(2, 3) / (image.size // 3)
    return mean + pivot.double(), (square - mean.square()).clamp(min=0).sqrt()


@compilable
def _sums(red, green, blue, pivot, out) -> None:
    """Sums, and sums of squares, about a color."""
    for place, channel in enumerate(lab_of(red, green, blue)):
        channel = channel - pivot[place]
        out[place].copy_(channel.sum())
        out[place + 3].copy_((channel * channel).sum())


@compilable
def _repaint(red, green, blue, settings, out_red, out_green, out_blue) -> None:
    lightness, a, b = lab_of(red, green, blue)
    lightness = (lightness - settings[3]) * settings[0] + settings[6]
    a, b = (a - settings[4]) * settings[1] + settings[7], (b - settings[5]) * settings[2] + settings[8]
    for out, value in zip((out_red, out_green, out_blue), linear_rgb_of(lightness, a, b), strict=True):
        out.copy_((encoded_of(value, True) * 255 + 0.5).to(torch.uint8))
