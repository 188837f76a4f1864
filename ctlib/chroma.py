r"""Color on its own: a picture's lightness is kept, and a network says only what a and b shall be.

A colorizer sees a small picture. Its a and b are enlarged, for the eye resolves color less finely than lightness, and
are joined with the lightness of the large picture, so that no detail is lost at any size. (DeOldify, DDColor and the
demo of Zhang et al. 2016 do likewise.)

Taught in: notebooks/41_classification_colorization.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ctlib import check, color, ops, settings

LEAST = 32  # pixels a side of a picture that lends its colors
PALE = 5.0  # |a| and |b| below which a picture is gray


class NotFollowed(UserWarning):
    """A reference looks unlike a picture, so the picture is colored without it."""


Predict = Callable[[Tensor], Tensor]  # L* (B, 1, h, w) in [0, 100] to ab (B, 2, h', w') in CIELAB units


def lightness(rgb: Tensor) -> Tensor:
    """L* of sRGB pictures: `(B, 3, H, W)` in [0, 1] to `(B, 1, H, W)` in [0, 100]. Color, if any, is dropped."""
    return ops.rgb_to_lab(rgb)[:, :1]


def join(lightness: Tensor, ab: Tensor) -> Tensor:
    """Put lightness and color together.

    Args:
        lightness: `(B, 1, H, W)` L* in [0, 100].
        ab: `(B, 2, h, w)` CIELAB units; enlarged or reduced bilinearly to H x W.

    Returns:
        `(B, 3, H, W)` sRGB in [0, 1]. What a screen cannot show is clipped, and there alone L* changes.
    """
    return ops.lab_to_rgb(torch.cat([lightness, resize(ab, lightness.shape[2:])], dim=1)).clamp(0, 1)


def shown(lightness: Tensor, ab: Tensor) -> Tensor:
    """As `join`, but L* stays as it is everywhere: a color that sRGB cannot show becomes paler until it can.

    Args:
        lightness: `(B, 1, H, W)` L* in [0, 100].
        ab: `(B, 2, h, w)` CIELAB units; enlarged or reduced bilinearly to H x W.

    Returns:
        `(B, 3, H, W)` sRGB in [0, 1].
    """
    lab = torch.cat([lightness, resize(ab, lightness.shape[2:])], dim=1).movedim(1, -1)
    beyond = ~color.in_gamut(lab.movedim(-1, 1))
    if beyond.any():
        colors = lab[beyond].mT[None]
        gray = torch.cat([colors[:, :1], torch.zeros_like(colors[:, 1:])], dim=1)
        lab = lab.clone()
        lab[beyond] = color.gamut_boundary(gray, colors - gray)[0].mT
    return ops.lab_to_rgb(lab.movedim(-1, 1).contiguous()).clamp(0, 1)


def lender(reference: Tensor, count: int | None = None, *, lenient: bool = False) -> Tensor:
    """Return `reference` if it is a batch of sRGB pictures that have colors to lend.

    Args:
        reference: `(B, 3, H, W)`.
        count: of the pictures that it is for: one reference for all, or as many as there are.
        lenient: take it if it is small or gray, too: for a method that recolors, gray is an answer.

    Raises:
        ValueError: no sRGB pictures, less than 32 pixels a side, |a| and |b| below 5 at every pixel of one, or another
            number of them.
    """
    check.rgb(reference, "reference")
    if not lenient and min(reference.shape[2:]) < LEAST:
        raise ValueError(
            f"reference: expected at least {LEAST} x {LEAST} pixels, got {tuple(reference.shape[2:])}; "
            "so few colors say little, take a larger picture"
        )
    if not lenient and (ops.rgb_to_lab(reference)[:, 1:].abs().flatten(1).amax(1) < PALE).any():
        raise ValueError("reference: is gray and has no color to lend; choose a picture in color")
    if count is not None and len(reference) not in (1, count):
        raise ValueError(f"reference: expected 1 or {count} pictures, got {len(reference)}")
    return reference


def best_of_both(rgb: Tensor, source: Tensor) -> Tensor:
    """Color of a prediction with the lightness of the picture that was to be colored.

    The loss study's post-process ("best of both"), at the size of the picture instead of the network's.

    Args:
        rgb: `(B, 3, h, w)` sRGB in [0, 1], the prediction.
        source: `(B, 3, H, W)` sRGB in [0, 1]; its color, if any, is dropped.
    """
    return shown(lightness(source), ops.rgb_to_lab(rgb)[:, 1:])


def colorize(predict: Predict, rgb: Tensor, side: int = 256, *, multiple: int = 8) -> Tensor:
    """Color a picture of any size.

    Args:
        predict: the network, on whatever device.
        rgb: `(B, 3, H, W)` sRGB in [0, 1]; only its lightness is looked at.
        side: the network sees about side x side pixels. What it says depends on it: 256 is what most were trained for.
        multiple: sides of what the network sees are multiples of this.

    Returns:
        `(B, 3, H, W)` sRGB in [0, 1], with the lightness of `rgb`; see `shown`.

    Raises:
        ValueError: no sRGB picture, or a side below `multiple`.
    """
    check.rgb(rgb, "rgb")
    settings.whole("side", side, multiple)
    whole = lightness(rgb)
    small = resize(whole, network_size(*rgb.shape[2:], side, multiple))
    return shown(whole, predict(small).to(whole))


def network_size(height: int, width: int, side: int, multiple: int = 8) -> tuple[int, int]:
    """Height and width, of nearly the same shape, with about side x side pixels, that `multiple` divides."""
    scale = side / (height * width) ** 0.5
    return tuple(max(1, round(length * scale / multiple)) * multiple for length in (height, width))


def resize(channels: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear; where it makes a picture smaller, over all of its pixels."""
    if channels.shape[2:] == torch.Size(size):
        return channels
    smaller = channels.shape[2] > size[0] or channels.shape[3] > size[1]
    return functional.interpolate(channels, size, mode="bilinear", align_corners=False, antialias=smaller)
