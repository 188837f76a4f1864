r"""Hints for colorizers, as data: colors at places of a picture, or of the picture as a whole.

Local hints are a map of a and b, zero where nothing is known, and a mask that says where something is. They come from
a person (`from_points`) or, in training, from the picture that was made gray (`simulate`). Global hints are a vector
of 316 numbers: a histogram over the 313 bins of `ctlib.ops.AB_BINS`, whether it is given, the mean saturation, and
whether that is given (`global_hints`).

Source: Zhang, Zhu, Isola, Geng, Lin, Yu, Efros, Real-Time User-Guided Image Colorization with Learned Deep Priors,
SIGGRAPH 2017; numbers of the simulated hints as in the authors' PyTorch re-implementation.
Taught in: notebooks/42_user_guided_colorization.
"""

import itertools
import math
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ctlib import check, color, ops
from ctlib.settings import whole

LAWS = ("normal", "uniform")
LARGEST = 9  # pixels of a simulated patch's side
GLOBAL = 316  # 313 bins, whether they are given, saturation, whether it is given
_REACH = 110  # of a and b
_SCALES = 4  # of `spread`, each half of the one before


class Hints(NamedTuple):
    """Colors at places: `ab (B, 2, H, W)` in CIELAB units, zero elsewhere; `mask (B, 1, H, W)`, 1 where they stand."""

    ab: Tensor
    mask: Tensor


def none_like(lightness: Tensor) -> Hints:
    """No hint for pictures `(B, 1, H, W)`."""
    return Hints(lightness.new_zeros(len(lightness), 2, *lightness.shape[2:]), torch.zeros_like(lightness))


def simulate(
    ab: Tensor, seeds: Sequence[int], p: float = 1 / 8, *, law: str = "normal", everything: float = 0.0
) -> Hints:
    r"""What a user might have pointed at: a few patches, each in the mean color of its place.

    Their number is geometric, $P(N = n) = (1 - p)^n p$, with mean $1 / p - 1$: 7, and none in one picture of eight. A
    patch is a square of 1 to 9 pixels, all equally likely. Its upper left corner is normal about the middle,
    $\mathcal N(\frac{H - P + 1}{2}, (\frac{H - P + 1}{4})^2)$, moved into the picture and rounded down. Later patches
    cover earlier ones.

    Args:
        ab: `(B, 2, H, W)` the true colors, CIELAB units.
        seeds: one a picture; its hints depend on nothing else (and on the size).
        p: 1 gives none.
        law: of the places: `"normal"`, or `"uniform"` over the picture.
        everything: share of the pictures of which all of `ab` is shown, so that who gives all colors gets them back.
            The paper's is said to be 0.01 (unverified); the re-implementation has none.

    Returns:
        `Hints` in the dtype of `ab`.

    Raises:
        ValueError: a wrong shape, p outside (0, 1], an unknown law, or not one seed a picture.
    """
    _check(ab, seeds, law)
    if not 0 < p <= 1:
        raise ValueError(f"p: expected a number above 0, at most 1, got {p!r}; 1 gives no hints")
    if not 0 <= everything <= 1:
        raise ValueError(f"everything: expected a share from 0 to 1, got {everything!r}")
    boxes = []
    for seed in seeds:
        draws = np.random.default_rng(int(seed))
        if draws.random() < everything:
            boxes.append(None)
            continue
        own = []
        while draws.random() < 1 - p:
            own.append(_place(draws, int(draws.integers(1, LARGEST + 1)), ab.shape[2:], law))
        boxes.append(own)
    return _paint(ab, boxes)


def fixed(ab: Tensor, count: int, seeds: Sequence[int], patch: int | None = 6, *, law: str = "normal") -> Hints:
    """As `simulate`, with a fixed number of patches of one size: what colorizers with hints are measured with.

    Hints of fewer patches are the first of those of more: a curve over the count has no noise of the place in it.

    Args:
        count: of the patches. patch: side in pixels; None for one of 1 to 9 each, as `simulate` has them.

    Raises:
        ValueError: as `simulate`; a count below 0 or a patch below 1.
    """
    _check(ab, seeds, law)
    for name, value, least in (("count", count, 0), ("patch", 1 if patch is None else patch, 1)):
        whole(name, value, least)
    boxes = []
    for seed in seeds:
        draws = np.random.default_rng(int(seed))
        sides = (patch or int(draws.integers(1, LARGEST + 1)) for _ in range(count))
        boxes.append([_place(draws, side, ab.shape[2:], law) for side in sides])
    return _paint(ab, boxes)


def from_points(
    points: Iterable[tuple], size: tuple[int, int], radius: int = 3, *, lightness: Tensor | None = None
) -> Hints:
    r"""Hints of a person: colors at points.

    Args:
        points: `(x, y, color)`: column and row in pixels from the upper left corner, and `"#rrggbb"` or `(a, b)` in
            CIELAB units. Later points cover earlier ones.
        size: `(H, W)` of the picture.
        radius: a hint is a square of `2 * radius + 1` pixels about its point, cut at the border.
        lightness: `(1, 1, H, W)` L\* of the picture. With it, a color that sRGB cannot show at the lightness of its
            place becomes the nearest that it can, with a warning.

    Returns:
        `Hints` of one picture, float32.

    Raises:
        ValueError: a point outside of the picture, or something else than a color; the message names the point.
    """
    height, width = size
    whole("radius", radius, 0)
    if lightness is not None and lightness.shape != (1, 1, height, width):
        raise ValueError(f"lightness: expected {(1, 1, height, width)}, got {tuple(lightness.shape)}")
    hints = Hints(torch.zeros(1, 2, height, width), torch.zeros(1, 1, height, width))
    for number, point in enumerate(points, 1):
        try:
            x, y, wanted = point
            column, row = math.floor(x), math.floor(y)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"point {number}: expected (x, y, color), got {point!r}") from error
        if not (0 <= column < width and 0 <= row < height):
            raise ValueError(f"point {number}: ({x}, {y}) lies outside of the picture, {width} wide and {height} high")
        rows, columns = (slice(max(0, at - radius), at + radius + 1) for at in (row, column))
        ab = _ab_of(wanted, number)
        if lightness is not None:
            level = lightness[0, 0, rows, columns].double().mean()
            ab = _shown(ab, level, number)
        hints.ab[0, :, rows, columns] = ab.float()[:, None, None]
        hints.mask[0, 0, rows, columns] = 1
    return hints


def checked(hints: Hints) -> Hints:
    """Return hints that somebody made if they can be ones.

    Raises:
        ValueError: values that are not finite, a or b beyond 110, or a mask of others than 0 and 1.
    """
    ab, mask = hints
    if not (ab.isfinite().all() and mask.isfinite().all()):
        raise ValueError("hints: values that are not finite; clean them with torch.nan_to_num")
    if ab.abs().max() > _REACH:
        raise ValueError(f"hints: a and b lie within +-{_REACH}, got {ab.abs().max():.4g}; give CIELAB units")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("hints: a mask is 1 where a hint stands and 0 elsewhere")
    return hints


def resized(hints: Hints, size: tuple[int, int]) -> Hints:
    """Hints of a picture for a copy of another size: a pixel that covers any hint carries the mean of those.

    Raises:
        ValueError: shapes that are not those of `Hints`.
    """
    ab, mask = hints
    if ab.ndim != 4 or ab.shape[1] != 2 or mask.shape != (len(ab), 1, *ab.shape[2:]):
        raise ValueError(
            f"hints: expected (B, 2, H, W) and (B, 1, H, W), got {tuple(ab.shape)} and {tuple(mask.shape)}"
        )
    if ab.shape[2:] == torch.Size(size):
        return hints
    # enlarged first to a multiple of the new size, so that no small hint falls between two pixels
    factors = [-(-old // new) for old, new in zip(ab.shape[2:], size, strict=True)]
    both = torch.cat([ab * mask, mask], dim=1)
    both = functional.interpolate(both, [new * factor for new, factor in zip(size, factors, strict=True)])
    both = functional.avg_pool2d(both, factors)
    share = both[:, 2:]
    return Hints(torch.where(share > 0, both[:, :2] / share.clamp(min=1e-12), 0.0), (share > 0).to(ab))


def spread(
    lightness: Tensor, ab: Tensor, hints: Hints, *, reach: float = 0.4, tone: float = 6.0, doubt: float = 0.04
) -> Tensor:
    r"""Let hints prevail: around them, where the picture is as light as there, their colors outvote a network's.

    $$ab'(p) = \frac{d\, ab(p) + \sum_h w_h(p)\, ab_h}{d + \sum_h w_h(p)}, \quad
    w_h(p) = e^{-(L_p - L_h)^2 / 2 \tau^2} \sum_{n=0}^{3} 8^{n-3} e^{-\lVert p - h \rVert^2 / 2 (\sigma / 2^n)^2}$$

    The sums run over all pixels $h$ of hints. From $\sigma / 8$ on, weights fall about as the cube of the distance, so
    that near hints outvote far ones, and where none is near, far ones speak (Shepard 1968). Hints nearer to each
    other than $\sigma / 8$, on what is equally light, are averaged. Sums are taken on a bilateral grid (Chen, Paris,
    Durand 2007): their cost does not depend on the number of hints, and they are right to some percent. Without hints
    nothing changes. The idea is that of colorization by optimization (Levin et al. 2004), with a network's guess for
    what no hint speaks of. The defaults were chosen on photographs of the part that validates.

    Args:
        lightness: `(B, 1, H, W)` L* in [0, 100].
        ab: `(B, 2, H, W)` CIELAB units, what the network makes of it.
        hints: of that size.
        reach: $\sigma$ as a share of the square root of the picture's area, at least 0.05.
        tone: $\tau$ in units of L*, at least 0.5.
        doubt: $d$, above 0, how loud the network is, where each pixel of a hint has about 1 at its own place.

    Returns:
        `(B, 2, H, W)` CIELAB units, the dtype of `ab`.

    Raises:
        ValueError: shapes that do not fit, or a parameter out of its range.
    """
    single = (len(ab), 1, *ab.shape[2:])
    fits = ab.ndim == 4 and ab.shape[1] == 2 and hints.ab.shape == ab.shape
    if not fits or not lightness.shape == hints.mask.shape == single:
        shapes = ", ".join(str(tuple(one.shape)) for one in (lightness, ab, *hints))
        raise ValueError(f"lightness, ab, hints: expected (B, 1, H, W), (B, 2, H, W) and hints like them, got {shapes}")
    for name, value, least in (("reach", reach, 0.05), ("tone", tone, 0.5), ("doubt", doubt, 1e-9)):
        if not least <= value < math.inf:
            raise ValueError(f"{name}: expected a finite number of at least {least}, got {value!r}")
    if not hints.mask.any():
        return ab
    scales = [reach * math.prod(ab.shape[2:]) ** 0.5 / 2**number for number in range(_SCALES)]
    ends = [100, *(max(1, side - 1) for side in ab.shape[2:])]  # of levels, rows and columns
    counts = [math.ceil(3 * end / finest) for end, finest in zip(ends, (tone, scales[-1], scales[-1]), strict=True)]
    levels, rows, columns = (end / count for end, count in zip(ends, counts, strict=True))  # how far nodes are apart
    at = [lightness.clamp(0, 100), *torch.meshgrid(*map(torch.arange, ab.shape[2:]), indexing="ij")]
    at = torch.stack([axis.to(ab.device).expand(single)[:, 0] for axis in at], dim=-1).float()
    at = at / at.new_tensor([levels, rows, columns])  # places on the grid, (B, H, W, 3)
    grid = _splat(torch.cat([hints.ab * hints.mask, hints.mask], dim=1).float(), at, counts)
    grid = torch.einsum("bclyx,lm->bcmyx", grid, _gauss(counts[0], levels, tone).to(grid))
    total = 0.0
    for number, scale in enumerate(scales, 1 - _SCALES):
        down, across = (
            _gauss(count, gap, scale).to(grid) for count, gap in zip(counts[1:], (rows, columns), strict=True)
        )
        total = total + 8.0**number * (down @ grid @ across)
    at = 2 * (at / at.new_tensor(counts)).flip(-1)[:, None] - 1
    found = functional.grid_sample(total, at, padding_mode="border", align_corners=True)[:, :, 0]
    return ab + ((found[:, :2] - found[:, 2:] * ab) / (found[:, 2:] + doubt)).to(ab)


def _splat(told: Tensor, at: Tensor, counts: Sequence[int]) -> Tensor:
    """Pixels `(B, C, H, W)` onto a grid `(B, C, *counts + 1)`, each shared by the eight nodes about its place `at`."""
    sizes = [count + 1 for count in counts]
    grid = told.new_zeros(*told.shape[:2], math.prod(sizes))
    for row, pixel in enumerate(told.flatten(2)):
        some = pixel[-1].nonzero()[:, 0]
        place = at[row].flatten(0, 1)[some]
        low = place.floor().clamp(max=torch.tensor(counts, device=at.device) - 1)
        share = place - low
        for corner in itertools.product((0, 1), repeat=3):
            node = [(low[:, axis] + step).long() for axis, step in enumerate(corner)]
            weight = math.prod(share[:, axis] if step else 1 - share[:, axis] for axis, step in enumerate(corner))
            grid[row].index_add_(1, (node[0] * sizes[1] + node[1]) * sizes[2] + node[2], pixel[:, some] * weight)
    return grid.unflatten(2, sizes)


def _gauss(count: int, gap: float, deviation: float) -> Tensor:
    """Weights of nodes for each other; that pixels are shared among them is a blur already, of a triangle each way."""
    nodes = gap * torch.arange(count + 1)
    return torch.exp(-((nodes[:, None] - nodes) ** 2) / (2 * (deviation**2 - gap**2 / 3)))


def global_hints(
    rgb: Tensor | None = None, *, ab: Tensor | None = None, histogram: bool = True, saturation: bool = True
) -> Tensor:
    """What is known of a picture as a whole: 316 numbers.

    a and b are averaged over squares of 4 x 4 pixels, each square goes to the nearest of 313 bins. The authors take
    pictures of 256 x 256; give that size for networks with their weights.

    Args:
        rgb: `(B, 3, H, W)` sRGB in [0, 1]: of the picture itself, in training, or of any other whose colors are wanted.
        ab: `(B, 2, H, W)` CIELAB units, instead: then there is no saturation.
        histogram, saturation: whether each is given; else it is zero, and so is its indicator.

    Returns:
        `(B, 316)` float32: histogram (adds up to 1), 1; mean HSV saturation in [0, 1], 1.

    Raises:
        ValueError: not one of `rgb` and `ab`, or wrong ones.
    """
    if (rgb is None) == (ab is None):
        raise ValueError("rgb, ab: give one of the two; for no hint at all take histogram=False, saturation=False")
    if rgb is not None:
        check.rgb(rgb, "rgb")
        ab = ops.rgb_to_lab(rgb)[:, 1:]
    if ab.ndim != 4 or ab.shape[1] != 2 or not ab.is_floating_point():
        raise ValueError(f"ab: expected float (B, 2, H, W), got {ab.dtype} {tuple(ab.shape)}")
    found = ab.new_zeros(len(ab), GLOBAL, dtype=torch.float32)
    bins = len(ops.AB_BINS)
    if histogram:
        squares = functional.avg_pool2d(ab.float(), [min(4, side) for side in ab.shape[2:]])
        index = ops.encode_ab(squares, k=1)[0].flatten(1)
        ones = torch.full_like(index, 1 / index.shape[1], dtype=torch.float32)
        found[:, :bins] = found.new_zeros(len(ab), bins).scatter_add_(1, index, ones)
        found[:, bins] = 1
    if saturation and rgb is not None:
        found[:, bins + 1] = color.rgb_to_hsv(rgb.float())[:, 1].flatten(1).mean(1)
        found[:, bins + 2] = 1
    return found


def without(vector: Tensor, histogram: Tensor, saturation: Tensor) -> Tensor:
    """Global hints `(B, 316)` of which only some are given: `histogram` and `saturation` are `(B,)` bool."""
    parts = [histogram[:, None].expand(-1, 314), saturation[:, None].expand(-1, 2)]
    return vector * torch.cat(parts, dim=1).to(vector)


def _check(ab: Tensor, seeds: Sequence[int], law: str) -> None:
    if ab.ndim != 4 or ab.shape[1] != 2 or not ab.is_floating_point() or 0 in ab.shape:
        raise ValueError(f"ab: expected float (B, 2, H, W), got {ab.dtype} {tuple(ab.shape)}")
    if law not in LAWS:
        raise ValueError(f"law: expected one of {', '.join(LAWS)}, got {law!r}")
    if len(seeds) != len(ab):
        raise ValueError(f"seeds: expected one a picture, got {len(seeds)} for {len(ab)}")


def _place(draws: np.random.Generator, patch: int, size: Sequence[int], law: str) -> tuple[int, int, int, int]:
    """A patch's rows and columns: `(top, bottom, left, right)`."""
    ends = []
    for side in size:
        length = min(patch, side)
        room = side - length + 1  # places that the corner can be at
        corner = draws.normal(room / 2, room / 4) if law == "normal" else draws.random() * room
        first = int(np.clip(corner, 0, room - 1))
        ends += [first, first + length]
    return tuple(ends)


@torch.no_grad()
def _paint(ab: Tensor, boxes: list) -> Hints:
    hints = Hints(torch.zeros_like(ab), torch.zeros_like(ab[:, :1]))
    for row, own in enumerate(boxes):
        if own is None:
            hints.ab[row], hints.mask[row] = ab[row], 1
            continue
        for top, bottom, left, right in own:
            patch = ab[row, :, top:bottom, left:right]
            hints.ab[row, :, top:bottom, left:right] = patch.mean((1, 2), keepdim=True)
            hints.mask[row, :, top:bottom, left:right] = 1
    return hints


def _ab_of(wanted, number: int) -> Tensor:
    """`(2,)` float64 of a color as a person writes it."""
    if isinstance(wanted, str):
        if not re.fullmatch(r"#?[0-9a-fA-F]{6}", wanted):
            raise ValueError(f"point {number}: {wanted!r} is no color; write #rrggbb, e.g. #c04020")
        rgb = [int(wanted.lstrip("#")[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        return color.rgb_to_lab(torch.tensor(rgb, dtype=torch.float64)[None])[0, 1:]
    try:
        ab = torch.as_tensor(wanted, dtype=torch.float64).flatten()
        fine = ab.shape == (2,) and bool((ab.abs() <= _REACH).all())
    except (TypeError, ValueError, RuntimeError):
        fine = False
    if not fine:
        raise ValueError(f"point {number}: expected #rrggbb or (a, b) within +-{_REACH}, got {wanted!r}")
    return ab


def _shown(ab: Tensor, level: Tensor, number: int) -> Tensor:
    """The color itself, or the nearest that sRGB can show at a lightness, found on a grid and on a finer one."""

    def fits(ab: Tensor) -> Tensor:
        return color.in_gamut(torch.cat([level.expand(len(ab), 1), ab], dim=1), 0.5 / 255)

    if fits(ab[None]).item():
        return ab
    found = torch.zeros(2, dtype=torch.float64)  # gray, which every lightness has
    for reach, step in ((_REACH, 1.0), (1.0, 0.05)):
        line = torch.arange(-reach, reach + step / 2, step, dtype=torch.float64)
        grid = torch.cartesian_prod(line, line) + (found if step < 1 else 0)
        grid = torch.cat([found[None], grid])
        distance = torch.where(fits(grid), (grid - ab).norm(dim=1), torch.inf)
        distance[0] = (found - ab).norm()
        found = grid[distance.argmin()]
    warnings.warn(
        f"point {number}: sRGB cannot show a = {ab[0]:.0f}, b = {ab[1]:.0f} at L* = {level:.0f}; took the nearest, "
        f"a = {found[0]:.0f}, b = {found[1]:.0f}",
        stacklevel=3,
    )
    return found
