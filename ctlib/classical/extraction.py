r"""The palette of a picture: extraction, conversion, and the table of variants (Chang et al. 2015).

A palette is a `(k, 3)` float64 CIELAB tensor on the CPU, dark to light.

Taught in: notebooks/12_palette_recoloring.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ctlib import check, color
from ctlib.distinct import in_threads, tally

SIGMA_A = 80.0  # CIELAB; how far a seed keeps others away
_CHUNK = 30_000  # values treated at once: fits the cache, and PyTorch leaves so few to one thread


@dataclass(frozen=True)
class Variant:
    """What implementations of Chang et al. disagree on."""

    lattice: bool = False  # bins: nearest point of a lattice that includes 0 and 255, instead of floor(value / width)
    bin_mean: bool = True  # a bin's color: mean CIELAB of its pixels, or the bin's center
    black: str = "locked"  # extra center of k-means: "locked" or "free" and dropped; "kept": fixed and the first seed
    lloyd: int = 200  # iterations; stops earlier when nothing changes
    cie94: bool = False  # distance between colors: CIE94, or Euclidean in CIELAB
    sharpness: float = 0.5  # kernel exp(-sharpness * distance^2 / mean pairwise distance^2)
    blend: bool = True  # clamp negative weights, normalize; if not: raw weights, and only edited colors in the sum
    order: str | None = "hard"  # lightness order of an edited palette: "hard" max/min, "smooth", or not enforced
    curve: bool = True  # lightness by the piecewise-linear curve; if not, moved with a and b
    nodes: int | None = 13  # look-up table; None: every color is computed
    halvings: int = 20  # of the search for the gamut boundary
    tolerance: float = 1e-4  # of the gamut test, in units of [0, 1]
    small: float = 0.0  # changes up to this, in CIELAB, are plain shifts


VARIANTS = {
    "paper": Variant(),
    "demo": Variant(
        lattice=True, black="free", lloyd=20, cie94=True, sharpness=5.0, order="smooth", curve=False,
        halvings=15, tolerance=0.5 / 255, small=0.5,
    ),
    "bz": Variant(bin_mean=False, black="kept", blend=False, order=None, nodes=None, tolerance=0.5 / 255),
}  # fmt: skip


def variant_of(name: str) -> Variant:
    """Look a variant up. Raises `ValueError` that lists the known ones."""
    if name not in VARIANTS:
        raise ValueError(f"variant: unknown {name!r}; choose one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


def palette_from_rgb(rgb) -> Tensor:
    """`(k, 3)` sRGB colors in [0, 1] to a `(k, 3)` float64 CIELAB palette."""
    values = torch.as_tensor(rgb, dtype=torch.float64)
    if values.ndim != 2 or values.shape[1] != 3 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"rgb: expected (k, 3) colors in [0, 1], got shape {tuple(values.shape)}; divide by 255?")
    return color.rgb_to_lab(values)


def from_hex(colors: Sequence[str]) -> Tensor:
    """Hex colors such as `["#aabbcc"]` to a `(k, 3)` CIELAB palette."""
    colors = [colors] if isinstance(colors, str) else list(colors)
    for text in colors:
        if not isinstance(text, str) or not re.fullmatch("#?[0-9a-fA-F]{6}", text):
            raise ValueError(f"hex color: expected six digits such as '#aabbcc', got {text!r}")
    return palette_from_rgb(torch.tensor([list(bytes.fromhex(text[-6:])) for text in colors]).reshape(-1, 3) / 255.0)


def to_rgb(palette) -> Tensor:
    """`(k, 3)` palette to `(k, 3)` sRGB in [0, 1], clipped."""
    return color.lab_to_rgb(as_palette(palette))


def to_hex(palette) -> list[str]:
    """Palette to hex colors, rounded to 8 bits."""
    return ["#" + bytes(row).hex() for row in (to_rgb(palette) * 255).round().to(torch.uint8).tolist()]


def as_palette(colors, name: str = "palette") -> Tensor:
    """`(k, 3)` CIELAB numbers or a sequence of hex colors, as a float64 tensor on the CPU.

    Raises:
        ValueError: no colors, wrong shape, not finite, or lightness outside [0, 100].
    """
    if isinstance(colors, str) or (isinstance(colors, Sequence) and len(colors) and isinstance(colors[0], str)):
        return from_hex(colors)
    try:
        values = torch.as_tensor(colors, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:  # torch's words name no argument
        raise ValueError(
            f"{name}: expected CIELAB colors (k, 3) or a list of hex colors such as '#aabbcc', got {colors!r:.80}"
        ) from error
    if values.numel() == 0:
        raise ValueError(f"{name}: is empty; give at least one color")
    if values.ndim != 2 or values.shape[1] != 3:
        raise ValueError(f"{name}: expected finite CIELAB colors (k, 3), got shape {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError(f"{name}: expected finite CIELAB colors, got some that are NaN or infinite")
    if values[:, 0].min() < -1e-3 or values[:, 0].max() > 100 + 1e-3:
        raise ValueError(f"{name}: lightness must lie in [0, 100]; convert sRGB with palette_from_rgb")
    return values


def extract(
    image: Tensor, k: int = 5, *, weights: Tensor | None = None, variant: str = "paper", bins: int = 16,
    return_shares: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    r"""A picture's palette: weighted k-means over color bins, with seeds that keep each other at a distance.

    The heaviest bin becomes a seed, then all weights shrink by $1 - \exp(-d^2 / \sigma_a^2)$; k times. An extra center
    at black draws the dark pixels to itself, so that shadows do not pull the palette down. No randomness.

    Args:
        image: `(1, 3, ...)` float sRGB in [0, 1].
        k: number of colors, 1 to 12; the authors offer 3 to 7.
        weights: `(1, N)` pixel counts, if `image` holds N distinct colors (see `ctlib.distinct`).
        variant: `paper`, `demo` or `bz`. `bz` returns k + 1 colors: it keeps its fixed black, (8, 8, 8).
        bins: an axis, in RGB.
        return_shares: also return the share of pixels nearest to each color, `(k,)`, sum 1.

    Returns:
        `(k, 3)` float64 CIELAB, dark to light.

    Raises:
        ValueError: k out of range or more than the picture has colors (occupied bins), or a bad image.
    """
    return _cluster(*bin_colors(image, weights, variant=variant, bins=bins), k, variant_of(variant), return_shares)


def _cluster(
    colors: Tensor, counts: Tensor, k: int, spec: Variant, return_shares: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """Seeds and weighted k-means over bins, `(N, 3)` CIELAB with `(N,)` counts; see `extract`."""
    if not isinstance(k, int) or not 1 <= k <= 12:
        raise ValueError(f"k: expected a whole number of colors from 1 to 12, got {k!r}")
    if k > len(colors):
        raise ValueError(f"k: the picture has only {len(colors)} distinct colors; ask for k <= {len(colors)}, not {k}")

    kept = spec.black == "kept"
    black = palette_from_rgb(torch.full((1, 3), 8 / 255 if kept else 0.0, dtype=torch.float64))
    left = counts.clone()
    seeds = [black[0]] if kept else []  # which also keeps the other seeds away
    while True:
        if seeds:
            left *= -torch.expm1(-(colors - seeds[-1]).square().sum(1) / SIGMA_A**2)
        if len(seeds) == k + kept:
            break
        seeds.append(colors[left.argmax()])
    # black comes last: where a seed lies on it, the bin goes to the seed
    centers = torch.cat([torch.stack(seeds[kept:]), black])
    moving = k if spec.black != "free" else k + 1
    before = None
    for _ in range(spec.lloyd):
        nearest = (colors[:, None] - centers).square().sum(2).argmin(1)
        if before is not None and torch.equal(nearest, before):
            break
        before = nearest
        mass = torch.bincount(nearest, counts, minlength=k + 1)
        sums = torch.stack([torch.bincount(nearest, counts * channel, minlength=k + 1) for channel in colors.T], dim=1)
        occupied = mass[:moving] > 0
        centers[:moving][occupied] = sums[:moving][occupied] / mass[:moving][occupied, None]

    palette = centers if kept else centers[:k]
    palette = palette[palette[:, 0].argsort(stable=True)]
    if not return_shares:
        return palette
    nearest = (colors[:, None] - palette).square().sum(2).argmin(1)
    return palette, torch.bincount(nearest, counts, minlength=len(palette)) / counts.sum()


def extract_uint8(
    image: np.ndarray, k: int = 5, variant: str = "paper", *, bins: int = 16, return_shares: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """`extract` for an 8-bit picture `(H, W, 3)`: the same palette, quickly, from its distinct colors."""
    spec = variant_of(variant)
    return _cluster(*_bin_levels(image, spec, bins), k, spec, return_shares)


def bin_colors(
    image: Tensor, weights: Tensor | None = None, *, variant: str = "paper", bins: int = 16
) -> tuple[Tensor, Tensor]:
    """Occupied color bins of a picture: their CIELAB colors `(N, 3)` and pixel counts `(N,)`, both float64."""
    spec = variant_of(variant)
    check.colors(image, "image")
    if image.shape[0] != 1 or image.numel() == 0:
        raise ValueError(f"image: expected one picture (1, 3, ...) with pixels, got shape {tuple(image.shape)}")
    if image.min() < -1e-6 or image.max() > 1 + 1e-6:
        raise ValueError("image: expected sRGB in [0, 1]; divide by 255, or clamp it first")
    rgb = image.detach()[0].reshape(3, -1).cpu()
    counts = torch.ones(1) if weights is None else weights.detach().reshape(-1).to("cpu", torch.float64)
    if weights is not None and (len(counts) != rgb.shape[1] or not (counts >= 0).all() or not counts.sum() > 0):
        raise ValueError(f"weights: expected {rgb.shape[1]} pixel counts, none negative, not all 0")

    step = _CHUNK // 3  # colors

    def add(start: int) -> Tensor:
        piece = rgb[:, start : start + step].double()
        amount = counts[start : start + step] if weights is not None else counts.double().expand(piece.shape[1])
        red, green, blue = _cell(piece, spec, bins)
        return _sums((red * bins + green) * bins + blue, color.rgb_to_lab(piece[None])[0], amount, bins)

    return _means(sum(in_threads(add, range(0, rgb.shape[1], step))), spec, bins)


def _bin_levels(image: np.ndarray, spec: Variant, bins: int) -> tuple[Tensor, Tensor]:
    """`bin_colors` of an 8-bit picture, in double precision too: sRGB to XYZ is a sum of tables over the levels."""
    codes, counts = tally(image)
    codes, counts = torch.from_numpy(codes), torch.from_numpy(counts)
    levels = torch.arange(256, dtype=torch.float64) / 255
    light = color.srgb_to_linear(levels).expand(3, 3, 256) * torch.eye(3, dtype=torch.float64)[..., None]
    red, green, blue = color.linear_to_xyz(light)  # the share of each channel, (3, 256)
    red_green = (red[:, :, None] + green[:, None]).reshape(3, -1)
    cell = _cell(levels, spec, bins)
    cell_red_green = ((cell[:, None] * bins + cell) * bins).reshape(-1)

    def add(start: int) -> Tensor:
        piece = codes[start : start + _CHUNK]
        high, low = piece >> 8, piece & 255
        shares = zip(red_green, blue, strict=True)
        xyz = torch.stack([table.index_select(0, high) + rest.index_select(0, low) for table, rest in shares])
        place = cell_red_green.index_select(0, high) + cell.index_select(0, low)
        return _sums(place, color.xyz_to_lab(xyz[None])[0], counts[start : start + _CHUNK].double(), bins)

    return _means(sum(in_threads(add, range(0, len(codes), _CHUNK))), spec, bins)


def _cell(rgb: Tensor, spec: Variant, bins: int) -> Tensor:
    """The bin along its axis of each sRGB value, int64."""
    # 1e-4 undoes the rounding of a float32 picture: 16 / 255 * 255 must not fall into the bin below
    place = (rgb * (bins - 1)).round() if spec.lattice else ((rgb * 255 + 1e-4) * bins / 256).floor()
    return place.long().clamp(0, bins - 1)


def _sums(place: Tensor, lab: Tensor, amount: Tensor, bins: int) -> Tensor:
    """Sums of L, a, b and of the counts over the pixels of each bin, `(4, bins^3)` float64."""
    rows = [*(channel * amount for channel in lab), amount]
    return torch.stack([torch.bincount(place, row, minlength=bins**3) for row in rows])


def _means(sums: Tensor, spec: Variant, bins: int) -> tuple[Tensor, Tensor]:
    """The occupied bins' colors `(N, 3)` and pixel counts `(N,)`."""
    code = sums[3].nonzero().ravel()
    if spec.bin_mean:
        return (sums[:3, code] / sums[3, code]).T, sums[3, code]
    cells = torch.stack([code // bins**2, code // bins % bins, code % bins], dim=1)
    return palette_from_rgb((cells + 0.5) * (256 / bins) / 255), sums[3, code]
