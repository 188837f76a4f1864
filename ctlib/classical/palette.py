r"""Palette-based photo recoloring (Chang, Fried, Liu, DiVerdi, Finkelstein; SIGGRAPH 2015).

A picture is summed up by a few colors (`extract`); edit them, and the picture follows (`transfer`). Three variants:
`paper` (our reading of the paper), `demo` (as the authors' web demo computes) and `bz` (b-z's JavaScript remake). All
run through the same code; what they differ in is one table, `VARIANTS`.

Taught in: notebooks/12_palette_recoloring.
"""

import math
from collections.abc import Callable, Sequence

import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from ctlib import check, color, lut
from ctlib.classical.extraction import (
    VARIANTS,
    Variant,
    as_palette,
    bin_colors,
    extract,
    extract_uint8,
    from_hex,
    palette_from_rgb,
    to_hex,
    to_rgb,
    variant_of,
)
from ctlib.color import gamut_boundary, in_gamut
from ctlib.ops.rbf_shift import blend_weights

__all__ = [
    "VARIANTS", "Variant", "as_palette", "bin_colors", "extract", "extract_uint8", "from_hex", "luminance_curve",
    "order_luminance", "palette_from_rgb", "rbf_weights", "single_transfer", "to_hex", "to_rgb", "transfer",
]  # fmt: skip

_CHUNK = 1 << 16  # colors treated at once, to bound memory


def order_luminance(lightness, edited: int | Sequence[int], original=None, *, variant: str = "paper") -> Tensor:
    r"""Keep a palette dark-to-light after an edit: edited colors stand, the others make way.

    One edit: every lighter color is raised to it, every darker one lowered. Several at once (a whole new palette): the
    edited lightnesses are first brought into order among themselves with the least squared change (isotonic
    regression), once; then the others make way. `demo` makes way smoothly: a neighbor at distance x of a color moved
    by d moves by $\ln(e^{\lambda x} + e^{\lambda d} - 1) / \lambda - x$, $\lambda = 0.2 \ln 2$.

    Args:
        lightness: `(k,)` after the edit, the unedited ones rising.
        edited: position(s) that were edited.
        original: `(k,)` before the edit; only `demo` needs it.
        variant: `bz` does not order.

    Returns:
        `(k,)` float64, rising.
    """
    order = variant_of(variant).order
    result = torch.as_tensor(lightness, dtype=torch.float64).clone()
    edited = sorted({edited} if isinstance(edited, int) else {int(i) for i in edited})
    if edited and not 0 <= edited[0] <= edited[-1] < len(result):
        raise ValueError(f"edited: positions must lie in 0..{len(result) - 1}, got {edited}")
    if order is None or not edited:
        return result
    result[edited] = torch.from_numpy(isotonic_regression(result[edited].numpy()).x)
    others = [(i, j, 1 if j > i else -1) for i in edited for j in range(len(result)) if j not in edited]
    if order == "smooth":
        if original is None:
            raise ValueError("original: the smooth order of `demo` needs the lightness before the edit")
        start, rate = torch.as_tensor(original, dtype=torch.float64), 0.2 * math.log(2)
        for i, j, side in others:
            distance, moved = side * (start[j] - start[i]), side * (result[i] - start[i])
            if moved > 0:
                shift = torch.log(torch.exp(rate * distance) + torch.exp(rate * moved) - 1) / rate - distance
                result[j] = side * max(side * result[j], side * start[j] + shift)
    for i, j, side in others:
        result[j] = side * max(side * result[j], side * result[i])
    return result.clamp(0, 100)


def luminance_curve(lightness, new_lightness) -> Callable[[Tensor], Tensor]:
    """Piecewise-linear curve through (0, 0), the palette's (old, new) lightnesses and (100, 100).

    Colors of one lightness are merged to their mean; a palette color at 0 or 100 replaces that end.

    Returns:
        A function of lightness tensors of any shape.
    """
    old = torch.as_tensor(lightness, dtype=torch.float64)
    new = torch.as_tensor(new_lightness, dtype=torch.float64)
    knots, place = torch.unique((old * 1e9).round() / 1e9, return_inverse=True)
    values = torch.bincount(place, new) / torch.bincount(place)
    below, above = torch.zeros(int(knots[0] > 0)), torch.full((int(knots[-1] < 100),), 100.0)
    knots, values = torch.cat([below, knots, above]), torch.cat([below, values, above])

    def curve(L: Tensor) -> Tensor:
        x, y = knots.to(L), values.to(L)
        right = torch.searchsorted(x, L.contiguous()).clamp(1, len(x) - 1)
        share = (L - x[right - 1]) / (x[right] - x[right - 1])
        return y[right - 1] + share * (y[right] - y[right - 1])

    return curve


def single_transfer(lab: Tensor, old: Tensor, new: Tensor, *, variant: str = "paper") -> Tensor:
    r"""Move colors as one palette color moves from C to C', and stay in gamut.

    Every color x moves parallel to C' - C, or towards a point $x_b$ of the gamut boundary where that would leave the
    gamut, by $\lVert C'-C \rVert \min(1, \lVert x_b-x \rVert / \lVert C_b-C \rVert)$. `paper` and `bz` work in the ab
    plane of each color's own lightness; `demo` in all three dimensions. Where C' is itself out of gamut at the color's
    lightness, $x_b$ is the last color in gamut on the way from x to C'.

    Args:
        lab: `(B, 3, ...)` CIELAB.
        old: `(3,)` C.
        new: `(3,)` C'. If it equals C the result is `lab`.

    Returns:
        `(B, 3, ...)`.
    """
    spec = variant_of(variant)
    search = {"iterations": spec.halvings, "tolerance": spec.tolerance}
    column = (1, 3) + (1,) * (lab.ndim - 2)
    old, new = (end.to(lab).reshape(column).expand_as(lab) for end in (old, new))
    if spec.curve:  # lightness has its own curve: project C and C' on the plane of x
        old, new = (torch.cat([lab[:, :1], end[:, 1:]], dim=1) for end in (old, new))
    move = new - old
    target = lab + move
    if move.abs().max() <= spec.small:
        return target

    def pick(where: Tensor, yes: Tensor, no: Tensor) -> Tensor:
        return torch.where(where[:, None], yes, no)

    fits, new_fits = in_gamut(target, spec.tolerance), in_gamut(new, spec.tolerance)
    start = pick(fits, target, pick(new_fits, new, lab))
    toward = pick(fits, move, pick(new_fits, target, new) - start)
    edge = gamut_boundary(start, toward, **search)
    far = gamut_boundary(new, move, **search)
    step = edge - lab
    room = torch.maximum(step.norm(dim=1, keepdim=True), (far - old).norm(dim=1, keepdim=True))
    return lab + step * (move.norm(dim=1, keepdim=True) / room.clamp(min=1e-12))


def rbf_weights(lab: Tensor, palette: Tensor, *, variant: str = "paper", used: Tensor | None = None) -> Tensor:
    r"""How much each palette color concerns each color: Gaussian interpolation of "1 here, 0 at the others".

    $w_i(x) = \sum_j \lambda_{ij} \phi(\lVert x - C_j \rVert)$, $\Lambda = \Phi^{-1}$; the width of $\phi$ is the mean
    pairwise distance of the palette. Then negative weights become 0 and the rest is divided by its sum (not for `bz`).
    Duplicate palette colors share one weight: $\Phi$ is singular then and its pseudo-inverse is taken.

    Args:
        lab: `(B, 3, ...)` CIELAB.
        palette: `(k, 3)` CIELAB.
        used: `(k,)` bool; the colors that take part, the width being still that of the whole palette.

    Returns:
        `(B, k, ...)` float64 (`used.sum()` channels if given).
    """
    spec = variant_of(variant)
    palette = as_palette(palette).to(lab.device)
    centers = palette if used is None else palette[used.to(lab.device)]
    first, second = torch.triu_indices(len(palette), len(palette), offset=1)
    between = _square_distance(palette, palette.T[None], spec)[0, first, second].sqrt()
    width = between.mean() if between.any() else torch.ones((), dtype=torch.float64, device=lab.device)
    sharpness = spec.sharpness / width**2

    phi = torch.exp(-sharpness * _square_distance(centers, centers.T[None], spec)[0])
    inverse, failed = torch.linalg.inv_ex(phi)
    if spec.blend or failed or not torch.isfinite(inverse).all():
        inverse = torch.linalg.pinv(phi, rtol=1e-14)
    squared = _square_distance(centers, lab.double().reshape(lab.shape[0], 3, -1), spec)
    weights = blend_weights(squared, inverse, sharpness) if spec.blend else inverse @ torch.exp(-sharpness * squared)
    return weights.reshape(lab.shape[0], len(centers), *lab.shape[2:])


def _square_distance(centers: Tensor, lab: Tensor, spec: Variant) -> Tensor:
    """`(k, 3)` and `(B, 3, N)` to `(B, k, N)`; CIE94 takes its chroma from the palette color: it is not symmetric."""
    apart = (centers[:, :, None] - lab[:, None]).square()
    if not spec.cie94:
        return apart.sum(2)
    chroma = centers[:, 1:].norm(dim=1)[:, None]
    dchroma = (chroma - lab[:, 1:].norm(dim=1)[:, None]).square()
    dhue = (apart[:, :, 1:].sum(2) - dchroma).clamp(min=0)
    return apart[:, :, 0] + dchroma / (1 + 0.045 * chroma) ** 2 + dhue / (1 + 0.015 * chroma) ** 2


def transfer(palette, new_palette, *, variant: str = "paper", nodes: int | str | None = "default") -> lut.ColorMap:
    """Recolor by editing a palette.

    First the palette is put dark to light and its new lightnesses in order (`order_luminance`), then lightness follows
    the curve, and a and b the blend of the single transfers, each at the lightness that the color will have: so
    palette colors land on their new colors, and a single edit stays in gamut wherever the color itself fits there.
    `bz` sums the raw weights of the edited colors alone, so colors that no edit concerns lose lightness and chroma.

    Args:
        palette: `(k, 3)` CIELAB, or hex colors; see `extract`.
        new_palette: the same colors after the edit, in the same order.
        variant: `paper`, `demo` or `bz`.
        nodes: of the look-up table; `None` computes every color; by default 13, and none for `bz`.

    Returns:
        Color map `(B, 3, ...)` sRGB to sRGB, not clipped. The identity if nothing was edited.

    Raises:
        ValueError: an empty or bad palette, or two of different size.
    """
    spec = variant_of(variant)
    old, new = as_palette(palette), as_palette(new_palette, "new_palette")
    if old.shape != new.shape:
        raise ValueError(f"new_palette: has {len(new)} colors, the palette {len(old)}; give one for each")
    dark_to_light = old[:, 0].argsort(stable=True)
    old, new = old[dark_to_light], new[dark_to_light].clone()
    edited = (new - old).abs().amax(1) > 1e-9
    if not edited.any():
        return lambda rgb: check.colors(rgb, "rgb").clone()
    new[:, 0] = order_luminance(new[:, 0], edited.nonzero().ravel().tolist(), old[:, 0], variant=variant)
    edited |= (new - old).abs().amax(1) > 1e-9  # those that made way
    curve = luminance_curve(old[:, 0], new[:, 0]) if spec.curve else lambda lightness: lightness

    def recolor(rgb: Tensor) -> Tensor:
        lab = color.rgb_to_lab(rgb.double())
        lit = torch.cat([curve(lab[:, :1]), lab[:, 1:]], dim=1)
        weights = rbf_weights(lab, old, variant=variant, used=None if spec.blend else edited)
        weights = weights[:, edited] if spec.blend else weights
        moved = [single_transfer(lit, old[i], new[i], variant=variant) for i in edited.nonzero().ravel()]
        result = sum(weight[:, None] * each for weight, each in zip(weights.unbind(1), moved, strict=True))
        if spec.blend:  # unedited colors stay in the sum, as identities
            result = result + (1 - weights.sum(1, keepdim=True)) * lit
        return color.lab_to_rgb(result, clip=False)

    def exact(rgb: Tensor) -> Tensor:
        flat = check.colors(rgb, "rgb").transpose(0, 1).reshape(1, 3, -1)
        out = torch.cat([recolor(piece) for piece in flat.split(_CHUNK, dim=2)], dim=2)
        return out.reshape(3, rgb.shape[0], *rgb.shape[2:]).transpose(0, 1).to(rgb)

    nodes = spec.nodes if nodes == "default" else nodes
    return exact if nodes is None else lut.as_map(lut.sample(exact, nodes))
