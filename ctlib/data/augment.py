r"""Pairs with a known answer: hue shifts, hue and saturation changes, retouching.

Each function takes `(B, 3, H, W)` sRGB in [0, 1] and per-picture parameters `(B,)`, and runs on any device. Where L* is
put back, the result is returned in CIELAB: leaving it there loses nothing, while showing it in sRGB clips what falls
outside the gamut. These are the definitions; `ctlib.ops.shift_hue` does the same in one pass, for training.

Taught in: notebooks/03_augment_pairs.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from ctlib import check, checkpoints, color, ops


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


#: what one retouching draws: exposure, temperature, tint, contrast, gamma, saturation; a and b of the toned shadows and
#: highlights; three weights of the 3D-LUT model
KNOBS = 13


def retouch(rgb: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Retouch like a photographer, at random, see `retouch_by`.

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
    return retouch_by(rgb, torch.randn(len(rgb), KNOBS, generator=generator) * strength)


def retouch_by(rgb: Tensor, knobs: Tensor, luts: Tensor | None = None) -> Tensor:
    r"""Exposure and white balance in linear light, then a tone curve, saturation and split toning in CIELAB.

    The tone curve is a power $L^{2^{-g/4}}$ followed by an S (contrast). Split toning adds one color to shadows and
    another to highlights. With `luts`, the picture first goes through the 3D-LUT model that Zeng et al. (TPAMI 2020)
    trained on FiveK's expert C, with weights drawn around those that its classifier chooses on average.

    Args:
        rgb: `(B, 3, H, W)` sRGB in [0, 1].
        knobs: `(B, KNOBS)`, standard normal for a visible edit, zeros for none.
        luts: `(3, 3, N, N, N)` basis tables, see `fivek_luts`; without them the last three knobs do nothing.

    Returns:
        `(B, 3, H, W)` sRGB in [0, 1].
    """
    knobs = knobs.to(rgb)
    exposure, temperature, tint, contrast, gamma, saturation = knobs[:, :6, None, None].unbind(1)
    if luts is not None:
        rgb = _looked_up(rgb, knobs[:, 10:], luts.to(rgb))
    gains = torch.stack([0.25 * temperature, -0.10 * tint, -0.25 * temperature], dim=1)
    lin_rgb = color.srgb_to_linear(rgb) * torch.exp2(0.4 * exposure[:, None] + gains)
    lab = color.rgb_to_lab(color.linear_to_srgb(lin_rgb).clamp(0, 1))
    lightness = (lab[:, :1] / 100).clamp(1e-6, 1) ** torch.exp2(-0.25 * gamma[:, None])
    bend = (0.35 * contrast[:, None]).clamp(-0.9, 0.9)  # below 1 in size the curve still rises everywhere
    lightness = lightness + bend * lightness * (1 - lightness) * (2 * lightness - 1)
    shadows, highlights = knobs[:, 6:8, None, None], knobs[:, 8:10, None, None]
    tone = 2.5 * (shadows * (1 - lightness) ** 2 + highlights * lightness**2)
    tone = tone * 4 * lightness * (1 - lightness)  # black and white stay neutral
    ab = lab[:, 1:] * torch.exp2(0.35 * saturation[:, None]) + tone
    return color.lab_to_rgb(torch.cat([100 * lightness, ab], dim=1))


def fivek_luts(path: Path) -> Tensor:
    """Basis tables `(3, 3, 33, 33, 33)` of the 3D-LUT model, indexed `[table, channel, red, green, blue]`.

    Args:
        path: `weights/fivek_3dlut_paired_srgb.safetensors`, whose tables have the axes channel, blue, green, red.

    Raises:
        CheckpointError: missing or damaged.
    """
    weights = checkpoints.load_weights(path)
    return torch.stack([weights[f"lut{number}"].permute(0, 3, 2, 1).contiguous() for number in range(3)])


#: mean and spread of what the model's classifier answers to 80 photographs of BSDS500
_LUT_WEIGHTS = ((1.48, 0.54, -1.26), (0.20, 0.80, 0.17))


def _looked_up(rgb: Tensor, knobs: Tensor, luts: Tensor) -> Tensor:
    """The tables mixed with perturbed weights; a picture whose knobs are all zero stays as it is."""
    mean, spread = (torch.tensor(values).to(rgb) for values in _LUT_WEIGHTS)
    tables = torch.einsum("bt,tcxyz->bcxyz", mean + spread * knobs, luts)
    out = torch.cat([ops.lookup(table, one[None]) for table, one in zip(tables, rgb, strict=True)])
    return torch.where((knobs != 0).any(1)[:, None, None, None], out, rgb).clamp(0, 1)
