r"""Pairs with a known answer: hue shifts, hue and saturation changes, retouching.

Each function takes `(B, 3, H, W)` sRGB in [0, 1] and per-picture parameters `(B,)`, and runs on any device. Where L* is
put back, the result is returned in CIELAB: leaving it there loses nothing, while showing it in sRGB clips what falls
outside the gamut. These are the definitions; `ctlib.ops.shift_hue` does the same in one pass, for training.

Taught in: notebooks/03_augment_pairs.
"""

import math

import torch
from torch import Tensor

from ctlib import check, color


def _per_picture(value: Tensor | float, rgb: Tensor, name: str) -> Tensor:
    """A parameter as `(B, 1, 1)`, one value a picture."""
    value = torch.as_tensor(value, dtype=rgb.dtype, device=rgb.device).flatten()
    if not torch.isfinite(value).all():
        raise ValueError(f"{name}: must be finite, got {value.tolist()}")
    if len(value) not in (1, len(rgb)):
        raise ValueError(f"{name}: expected one value or {len(rgb)}, one a picture, got {len(value)}")
    return value.expand(len(rgb))[:, None, None]


def shift_hue_naive(rgb: Tensor, shift: Tensor | float) -> Tensor:
    """Turn the hue in HSV and stop there, as many recipes do: lightness changes with it.

    Args:
        rgb: `(B, 3, H, W)` sRGB in [0, 1].
        shift: turns, 1 = full circle; one value or `(B,)`.

    Returns:
        `(B, 3, H, W)` sRGB.
    """
    return change_hsv(rgb, shift, 1.0)


def shift_hue(rgb: Tensor, shift: Tensor | float) -> Tensor:
    """Turn the hue in HSV and put the original L* back (PaletteNet 2017; equation 10 of the ArtBench report).

    Args:
        rgb: `(B, 3, H, W)` sRGB in [0, 1].
        shift: turns, 1 = full circle; one value or `(B,)`.

    Returns:
        `(B, 3, H, W)` **CIELAB**; `color.in_gamut` tells what sRGB cannot show of it.
    """
    return with_lightness_of(rgb, change_hsv(rgb, shift, 1.0))


def shift_hue_saturation(rgb: Tensor, shift: Tensor | float, factor: Tensor | float) -> Tensor:
    """Histogram Analogy's average hue and saturation change: turn hue, scale saturation, put L* back.

    Args:
        rgb: `(B, 3, H, W)` sRGB in [0, 1].
        shift: turns; the authors' code draws U(0, 1).
        factor: of the saturation, >= 0; the authors' code draws max(U(0, 1.2), 0.3).

    Returns:
        `(B, 3, H, W)` **CIELAB**.
    """
    return with_lightness_of(rgb, change_hsv(rgb, shift, factor))


def change_hsv(rgb: Tensor, shift: Tensor | float, factor: Tensor | float) -> Tensor:
    """Turn the hue by `shift` and scale the saturation by `factor` in HSV; `(B, 3, H, W)` sRGB in and out."""
    hue, saturation, value = color.rgb_to_hsv(check.rgb(rgb, "rgb")).unbind(1)
    hue = hue + _per_picture(shift, rgb, "shift")
    factor = _per_picture(factor, rgb, "factor")
    if (factor < 0).any():
        raise ValueError(f"factor: a saturation cannot be scaled below 0, got {factor.flatten().tolist()}")
    saturation = (saturation * factor).clamp(max=1)
    return color.hsv_to_rgb(torch.stack([hue % 1, saturation, value], dim=1))


def with_lightness_of(rgb: Tensor, changed: Tensor) -> Tensor:
    """CIELAB of `changed` with the L* of `rgb`, both `(B, 3, H, W)` sRGB."""
    check.same_shape(rgb, changed, "rgb and changed")
    return torch.cat([color.rgb_to_lab(rgb)[:, :1], color.rgb_to_lab(changed)[:, 1:]], dim=1)


def draw_hue_saturation(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The authors' law for `shift_hue_saturation`: U(0, 1) and max(U(0, 1.2), 0.3), each `(count,)`."""
    return torch.rand(count, generator=generator), (1.2 * torch.rand(count, generator=generator)).clamp(min=0.3)


def clip_rate(lab: Tensor) -> Tensor:
    """Share of pixels `(B,)` that sRGB cannot show, beyond half a gray level."""
    return (~color.in_gamut(check.colors(lab, "lab"), tolerance=0.5 / 255)).flatten(1).double().mean(dim=1)


def retouch(rgb: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Retouch like a photographer, at random: exposure and white balance in linear light, contrast, saturation.

    Args:
        rgb: `(B, 3, H, W)` sRGB in [0, 1].
        generator: seeded; the same seed gives the same retouching for a batch of the same size.
        strength: 0 changes nothing, 1 is a visible edit.

    Returns:
        `(B, 3, H, W)` sRGB in [0, 1]: with the source it makes a pair whose answer is known.
    """
    check.rgb(rgb, "rgb")
    if not math.isfinite(strength):
        raise ValueError(f"strength: must be finite, got {strength}")
    draw = torch.randn(len(rgb), 5, generator=generator).to(rgb) * strength
    exposure, temperature, tint, contrast, saturation = draw[:, :, None, None].unbind(1)
    gains = torch.stack([0.25 * temperature, -0.10 * tint, -0.25 * temperature], dim=1)
    lin_rgb = color.srgb_to_linear(rgb) * torch.exp2(0.4 * exposure[:, None] + gains)
    lab = color.rgb_to_lab(color.linear_to_srgb(lin_rgb).clamp(0, 1))
    lightness = lab[:, :1] / 100
    bend = (0.35 * contrast[:, None]).clamp(-0.9, 0.9)  # below 1 in size the curve still rises everywhere
    lightness = lightness + bend * lightness * (1 - lightness) * (2 * lightness - 1)
    return color.lab_to_rgb(torch.cat([100 * lightness, lab[:, 1:] * torch.exp2(0.35 * saturation[:, None])], dim=1))
