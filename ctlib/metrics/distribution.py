r"""Does a result have the colors of a reference? Histograms and distributions, which need no common pixels or size.

Every function takes sRGB `(B, 3, H, W)` in [0, 1], checks it, computes in float64 on the CPU and returns `(B,)`.
Binning decides these numbers, so it is always named:

* `"rgb"`: three 1-D histograms of 256 bins, one for each 8-bit level of R, G and B; the mean of the three is returned.
* `"ab"`: one joint 64 x 64 histogram of a* and b* over their range in sRGB, as in Histogram Analogy (Lee et al. 2020).
* `"lab"`: one joint 16 x 16 x 16 histogram over L* in [0, 100], a* and b* in [-110, 110].

Taught in: notebooks/11_distribution_transfer.
"""

from typing import Literal

import torch
from torch import Tensor

from ctlib.color import A_RANGE, B_RANGE, rgb_to_lab
from ctlib.metrics.inputs import batches, picture

Bins = Literal["rgb", "ab", "lab"]
_GRIDS = {"ab": (64, (A_RANGE, B_RANGE)), "lab": (16, ((0.0, 100.0), (-110.0, 110.0), (-110.0, 110.0)))}


def histogram(image: Tensor, bins: Bins = "rgb") -> Tensor:
    """Normalized color histograms.

    Args:
        image: `(B, 3, H, W)` sRGB in [0, 1].
        bins: `"rgb"`, `"ab"` or `"lab"`, see the head of this file.

    Returns:
        `(B, C, N)` float64, each row sums to 1: `(B, 3, 256)` for `"rgb"`, `(B, 1, 4096)` for the joint ones, where
        the first axis of the grid (L*, else a*) varies slowest.

    Raises:
        ValueError: a bad picture or an unknown binning.
    """
    return _histogram(picture(image), bins)


def _histogram(rgb: Tensor, bins: Bins) -> Tensor:
    if bins == "rgb":
        cells, count = (rgb.flatten(2) * 255).round().long(), 256
    elif bins in _GRIDS:
        side, ranges = _GRIDS[bins]
        cells, count = torch.zeros(len(rgb), 1, rgb[0, 0].numel(), dtype=torch.long), side ** len(ranges)
        channels = rgb_to_lab(rgb).flatten(2)[:, -len(ranges) :]
        for values, (low, high) in zip(channels.unbind(1), ranges, strict=True):
            step = ((values - low) / (high - low) * side).floor().long().clamp(0, side - 1)
            cells = cells * side + step[:, None]
    else:
        raise ValueError(f"bins: expected one of rgb, {', '.join(_GRIDS)}, got {bins!r}")
    rows = [torch.bincount(row, minlength=count) for row in cells.flatten(0, 1)]
    return torch.stack(rows).view(*cells.shape[:2], count).to(torch.float64) / cells.shape[2]


def _histograms(result: Tensor, reference: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    return tuple(_histogram(image, bins) for image in batches(result, reference))


def histogram_intersection(result: Tensor, reference: Tensor, bins: Bins = "rgb") -> Tensor:
    r"""Shared part of two color histograms, $\sum_i \min(p_i, q_i)$ (Swain and Ballard 1991).

    Args:
        result, reference: `(B, 3, H, W)` sRGB in [0, 1]; sizes may differ.
        bins: `"rgb"` (default), `"ab"` or `"lab"`, see the head of this file.

    Returns:
        `(B,)` in [0, 1], higher is better. One minus it is half the L1 distance.

    Raises:
        ValueError: wrong type, shape or range, NaN, batches of two lengths, or an unknown binning.
    """
    p, q = _histograms(result, reference, bins)
    return torch.minimum(p, q).sum(2).mean(1)


def hellinger(result: Tensor, reference: Tensor, bins: Bins = "rgb") -> Tensor:
    r"""Hellinger distance of color histograms, $\sqrt{1 - \sum_i\sqrt{p_i q_i}}$.

    This is what OpenCV calls `HISTCMP_BHATTACHARYYA`. Arguments and errors as `histogram_intersection`.

    Returns:
        `(B,)` in [0, 1], lower is better.
    """
    p, q = _histograms(result, reference, bins)
    return (((p.sqrt() - q.sqrt()) ** 2).sum(2) / 2).sqrt().mean(1)  # equal in value, exactly 0 for equal histograms


def chi_square(result: Tensor, reference: Tensor, bins: Bins = "rgb") -> Tensor:
    r"""Symmetric chi-square distance of color histograms, $\frac12\sum_i (p_i - q_i)^2 / (p_i + q_i)$.

    Arguments and errors as `histogram_intersection`.

    Returns:
        `(B,)` in [0, 1], lower is better.
    """
    p, q = _histograms(result, reference, bins)
    return ((p - q) ** 2 / (p + q).clamp(min=1e-300)).sum(2).mean(1) / 2


def emd(result: Tensor, reference: Tensor) -> Tensor:
    r"""Earth mover's distance of the histograms of R, G and B: mean of $\sum_i|P_i - Q_i|$, P and Q cumulated.

    Args:
        result, reference: `(B, 3, H, W)` sRGB in [0, 1]; sizes may differ.

    Returns:
        `(B,)` in 8-bit levels, 0..255, lower is better.

    Raises:
        ValueError: wrong type, shape or range, NaN, or batches of two lengths.
    """
    p, q = _histograms(result, reference, "rgb")
    return (p - q).cumsum(2).abs().sum(2).mean(1)


def hellinger_ab(result: Tensor, reference: Tensor) -> Tensor:
    """`hellinger` of the joint 64 x 64 histogram of a* and b*: colors without their lightness."""
    return hellinger(result, reference, bins="ab")


def sliced_wasserstein(
    result: Tensor, reference: Tensor, directions: int = 32, pixels: int = 16_384, seed: int = 0
) -> Tensor:
    r"""Sliced 2-Wasserstein distance of the color distributions in CIELAB (Rabin et al. 2011).

    $\sqrt{\frac1K\sum_k \int_0^1 (F_k^{-1} - G_k^{-1})^2}$ over K random directions, where $F_k$ and $G_k$ are the
    distributions of the projected pixels: the average over directions of the cost of moving one onto the other.

    Args:
        result, reference: `(B, 3, H, W)` sRGB in [0, 1]; sizes may differ, then quantiles are compared.
        directions: K.
        pixels: at most this many pixels of each picture enter, drawn at random.
        seed: of directions and draw; pictures of one size are drawn at the same places.

    Returns:
        `(B,)` in Lab units, lower is better.

    Raises:
        ValueError: wrong type, shape or range, NaN, batches of two lengths, or counts below 1.
    """
    if directions < 1 or pixels < 1:
        raise ValueError(f"directions and pixels: expected at least 1, got {directions} and {pixels}")
    axes = torch.randn(directions, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    axes = axes / axes.norm(dim=1, keepdim=True)
    first, second = (
        (axes @ rgb_to_lab(_draw(image.flatten(2), pixels, seed))).sort(dim=2).values
        for image in batches(result, reference)
    )
    count = max(first.shape[2], second.shape[2])
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    first, second = (values[:, :, (middles * values.shape[2]).long()] for values in (first, second))
    return ((first - second) ** 2).mean((1, 2)).sqrt()


def _draw(colors: Tensor, count: int, seed: int) -> Tensor:
    """At most `count` columns of `(B, 3, N)`, without repetition, in a fixed random order of the seed."""
    if colors.shape[2] <= count:
        return colors
    return colors[:, :, torch.randperm(colors.shape[2], generator=torch.Generator().manual_seed(seed))[:count]]


def _colorfulness(image: Tensor, absolute: bool) -> Tensor:
    red, green, blue = (picture(image).flatten(2) * 255).unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1)
    if absolute:
        opponents = opponents.abs()
    return opponents.std(2, correction=0).norm(dim=1) + 0.3 * opponents.mean(2).norm(dim=1)


def colorfulness(image: Tensor) -> Tensor:
    r"""Colorfulness of Hasler and Süsstrunk 2003 with signed opponent channels, as published.

    $M = \sqrt{\sigma_{rg}^2 + \sigma_{yb}^2} + 0.3\sqrt{\mu_{rg}^2 + \mu_{yb}^2}$ with $rg = R - G$,
    $yb = \frac12(R + G) - B$ on the 0..255 scale.

    Args:
        image: `(B, 3, H, W)` sRGB in [0, 1].

    Returns:
        `(B,)`, 0 for gray, about 15 slightly, 60 quite, above 100 extremely colorful; neither direction is better.

    Raises:
        ValueError: wrong type, shape or range, or NaN.
    """
    return _colorfulness(image, absolute=False)


def colorfulness_abs(image: Tensor) -> Tensor:
    """Colorfulness as the scripts of the colorization literature have it (DDColor, CT2): of |rg| and |yb|.

    Lower than `colorfulness` wherever opposed hues meet: half red, half cyan gives 85.5 instead of 285.1. Published CF
    numbers of colorization are of this kind. Arguments, unit and errors as `colorfulness`.
    """
    return _colorfulness(image, absolute=True)
