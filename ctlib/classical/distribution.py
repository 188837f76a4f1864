r"""Transfer of whole distributions: histogram matching, IDT with regrain, sliced optimal transport.

All but `regrain` return a color map, a function `(B, 3, ...) -> (B, 3, ...)` of sRGB colors, not clipped: the sequence
of one-dimensional curves found on the two pictures is a function of color and can be applied to any color, or sampled
into a LUT.

Taught in: notebooks/11_distribution_transfer.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ctlib import check
from ctlib.classical.statistics import ColorMap, Space, Weights, clouds, flat_colors, in_pieces, linear, space_of


class Curve(NamedTuple):
    """Piecewise-linear functions on a regular grid, one a row; beyond its ends a curve goes on with slope 1."""

    low: Tensor  # (B, 1) value of the first node
    high: Tensor  # (B, 1) value of the last node
    nodes: Tensor  # (B, K) what each node becomes

    def __call__(self, values: Tensor) -> Tensor:
        """Evaluate at `(B, N)` values."""
        low, high, nodes = (part.to(values) for part in self)
        inside = values.clamp(low, high)
        place = (inside - low) / (high - low).clamp(min=1e-12) * (nodes.shape[1] - 1)
        left = place.detach().long().clamp(max=nodes.shape[1] - 2)
        start, end = nodes.expand(len(values), -1).gather(1, left), nodes.expand(len(values), -1).gather(1, left + 1)
        return torch.lerp(start, end, place - left) + (values - inside)


def histogram_matching(
    source: Tensor, reference: Tensor, *, space: Space = "rgb", weights: Weights | None = None
) -> ColorMap:
    r"""Match the histogram of each channel on its own: :math:`x' = F_r^{-1}(F_s(x))`, empirical CDFs, linear between.

    On the source's own values this is `skimage.exposure.match_histograms`. It ignores that channels depend on each
    other. Differentiable in the colors that the map is given, not in the pictures it was fitted on.

    Args:
        source, reference: `(B, 3, ...)` sRGB in [0, 1].
        space: `"rgb"`, `"lab"` or `"lalphabeta"`.
        weights: optional counts of the colors.

    Raises:
        ValueError: NaN, wrong shapes, or an unknown space.

    Reference: Gonzalez and Woods, *Digital Image Processing*, histogram specification.
    """
    forward, backward, _ = space_of(space)
    source_weights, reference_weights = weights or (None, None)
    have, want = (in_pieces(forward, part) for part in clouds(source, reference))
    tables = []  # one pair of (values, matched values) for each picture and channel
    for i in range(len(have)):
        for c in range(3):
            values, share = _distribution(have[i, c], None if source_weights is None else source_weights[i])
            wanted, wanted_share = _distribution(
                want[i, c], None if reference_weights is None else reference_weights[i]
            )
            tables.append((values, interpolate(share, wanted_share, wanted)))

    def color_map(rgb: Tensor) -> Tensor:
        values = forward(flat_colors(rgb, len(tables) // 3))
        rows = values.reshape(-1, values.shape[2])
        every = tables * (len(rows) // len(tables))
        moved = [interpolate(row, known.to(row), new.to(row)) for row, (known, new) in zip(rows, every, strict=True)]
        return backward(torch.stack(moved).reshape(values.shape)).reshape(rgb.shape)

    return color_map


def _distribution(values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Distinct values in rising order and the share of the picture at or below each."""
    # a table of quantiles carries no gradient: what it was fitted on enters the result as a constant
    known, index, counts = torch.unique(values.detach(), return_inverse=True, return_counts=True)
    if weights is not None:
        counts = torch.zeros_like(known, dtype=torch.float64).index_add_(0, index, weights.to(torch.float64))
    cumulated = counts.to(torch.float64).cumsum(0)
    return known, (cumulated / cumulated[-1]).to(known)


def interpolate(values: Tensor, known: Tensor, new: Tensor) -> Tensor:
    """`numpy.interp` for 1-D tensors: `known` rises, values beyond its ends take the end's `new`."""
    if len(known) == 1:
        return new.expand_as(values) + 0 * values
    right = torch.searchsorted(known, values.detach().contiguous()).clamp(1, len(known) - 1)
    left = right - 1
    share = ((values - known[left]) / (known[right] - known[left]).clamp(min=1e-12)).clamp(0, 1)
    return torch.lerp(new[left], new[right], share.to(new))


def hm_mkl_hm(source: Tensor, reference: Tensor, *, weights: Weights | None = None) -> ColorMap:
    """Histogram matching, Monge-Kantorovich, histogram matching again, all in RGB.

    Args:
        source, reference: `(B, 3, ...)` sRGB in [0, 1].
        weights: optional counts of the colors.

    Raises:
        ValueError: NaN or wrong shapes.

    Reference: the default chain of the package color-matcher.
    """
    first = histogram_matching(source, reference, weights=weights)
    moved = in_pieces(first, clouds(source, reference)[0])
    second = linear(moved, reference, kind="monge_kantorovich", weights=weights)
    third = histogram_matching(in_pieces(second, moved), reference, weights=weights)
    return lambda rgb: third(second(first(rgb)))


def rotations(count: int, seed: int = 0) -> list[Tensor]:
    """The projections of IDT, `count` matrices `(6, 3)` float64.

    The first holds the RGB axes and the three permutations of (2/3, 2/3, -1/3); each later one is the first, turned
    by a random orthogonal matrix (Pitié et al. 2005; six axes as in the author's code).
    """
    third = 1 / 3
    axes = torch.cat([torch.eye(3), torch.full((3, 3), 2 * third) - torch.eye(3)]).double()
    generator = torch.Generator().manual_seed(seed)
    turns = [torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q for _ in range(count - 1)]
    return [axes, *(axes @ turn for turn in turns)]


def idt(
    source: Tensor,
    reference: Tensor,
    *,
    iterations: int = 20,
    bins: int = 300,
    relaxation: float = 1.0,
    seed: int = 0,
    weights: Weights | None = None,
) -> ColorMap:
    r"""Iterative distribution transfer in RGB: rotate, match the marginals, rotate back, repeat.

    :math:`x \leftarrow x + \rho\, R_k^{+}\,(T_k(R_k x) - R_k x)` with :math:`T_k` the one-dimensional matching of each
    projection on `bins` bins between the joint minimum and maximum.

    Args:
        source, reference: `(B, 3, ...)` sRGB in [0, 1].
        iterations: number of projections, >= 1.
        bins: of the one-dimensional histograms.
        relaxation: step :math:`\rho` in (0, 1].
        seed: of the random rotations.
        weights: optional counts of the colors.

    Raises:
        ValueError: NaN, wrong shapes, or an option out of range.

    Reference: Pitié, Kokaram, Dahyot, *N-dimensional probability density function transfer*, 2005.
    """
    _at_least(1, iterations=iterations, bins=bins)
    if not 0 < relaxation <= 1:
        raise ValueError(f"relaxation: expected a step in (0, 1], got {relaxation}")
    source_weights, reference_weights = weights or (None, None)
    moving, target = clouds(source, reference)
    steps: list[_Step] = []
    for axes in rotations(iterations, seed):
        curves = []
        for axis in axes:
            projected = torch.einsum("c,bcn->bn", axis.to(moving), moving)
            wanted = torch.einsum("c,bcn->bn", axis.to(target), target)
            curves.append(_match_binned(projected, wanted, source_weights, reference_weights, bins))
        steps.append(_Step(axes, relaxation * torch.linalg.pinv(axes), curves))
        moving = steps[-1](moving)
    return _replay(steps, fitted=len(moving))


class _Step(NamedTuple):
    """One projection and the way back: every color moves by what the curves change along the axes."""

    axes: Tensor  # (P, 3)
    back: Tensor  # (3, P)
    curves: list[Curve]  # P of them

    def __call__(self, colors: Tensor) -> Tensor:
        """Move `(B, 3, N)` colors; axis by axis, since P copies of a large picture would not fit."""
        total = torch.zeros_like(colors)
        for axis, way, curve in zip(self.axes.to(colors), self.back.T.to(colors), self.curves, strict=True):
            projected = torch.einsum("c,bcn->bn", axis, colors)
            total = total + (curve(projected) - projected)[:, None] * way[:, None]
        return colors + total


def _replay(steps: list[_Step], fitted: int) -> ColorMap:
    """The color map that repeats the steps found on the fitted pictures."""

    def color_map(rgb: Tensor) -> Tensor:
        colors = flat_colors(rgb, fitted)
        for step in steps:
            colors = step(colors)
        return colors.reshape(rgb.shape)

    return color_map


def _at_least(least: int, **options: int) -> None:
    for name, value in options.items():
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")


def _match_binned(
    values: Tensor, wanted: Tensor, weights: Tensor | None, wanted_weights: Tensor | None, bins: int
) -> Curve:
    """The curve that matches `(B, N)` values to `(B, M)` wanted ones through histograms on a common range."""
    low = torch.minimum(values.amin(dim=1, keepdim=True), wanted.amin(dim=1, keepdim=True)).detach()
    high = torch.maximum(values.amax(dim=1, keepdim=True), wanted.amax(dim=1, keepdim=True)).detach()
    have, want = (
        _cumulated(part, share, low, high, bins) for part, share in ((values, weights), (wanted, wanted_weights))
    )
    grid = torch.linspace(0, 1, bins + 1).to(have)
    nodes = torch.stack([interpolate(h, w, grid) for h, w in zip(have, want, strict=True)])
    return Curve(low, high, low + (high - low) * nodes.to(low))


def _cumulated(values: Tensor, weights: Tensor | None, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """Cumulated histogram at the `bins + 1` bin edges, `(B, bins + 1)` from 0 to 1, strictly rising."""
    index = ((values - low) / (high - low).clamp(min=1e-12) * bins).long().clamp(0, bins - 1)
    counts = torch.zeros(len(values), bins, dtype=torch.float64, device=values.device)
    ones = torch.ones_like(values, dtype=torch.float64) if weights is None else weights.to(torch.float64)
    counts.scatter_add_(1, index, ones.expand_as(index))
    share = counts / counts.sum(dim=1, keepdim=True) + 1e-6  # an empty bin must not make the inverse jump
    edges = functional.pad(share.cumsum(1), (1, 0))
    return edges / edges[:, -1:]


def sliced_transport(
    source: Tensor,
    reference: Tensor,
    *,
    iterations: int = 12,
    directions: int = 16,
    levels: int = 256,
    samples: int = 16_384,
    seed: int = 0,
    weights: Weights | None = None,
) -> ColorMap:
    r"""Sliced optimal transport in RGB: follow the mean of many one-dimensional transports.

    Each iteration draws `directions` unit vectors :math:`\theta` and moves every color by
    :math:`3\,\mathrm{mean}_\theta\,[Q_r(F_s(\theta \cdot x)) - \theta \cdot x]\,\theta`; the 3 undoes the average of
    projecting on random directions of three-dimensional space.

    Args:
        source, reference: `(B, 3, ...)` sRGB in [0, 1].
        iterations, directions: steps, and directions a step.
        levels: nodes of each one-dimensional transport.
        samples: colors it is fitted on, drawn with the seed from a larger picture.
        seed: of the directions and the draw.
        weights: optional counts of the colors.

    Raises:
        ValueError: NaN or wrong shapes.

    Reference: Rabin, Peyré, Delon, Bernot 2011; Bonneel, Rabin, Peyré, Pfister 2015.
    """
    _at_least(1, iterations=iterations, directions=directions, samples=samples)
    _at_least(2, levels=levels)
    # two generators: whether and how colors are drawn must not change the directions
    generator, draw = (torch.Generator().manual_seed(one) for one in (seed, seed + 1))
    source_weights, reference_weights = weights or (None, None)
    moving, target = clouds(source, reference)
    moving = _draw(moving, source_weights, samples, draw)
    target = _draw(target, reference_weights, samples, draw)
    steps: list[_Step] = []
    for _ in range(iterations):
        thetas = functional.normalize(torch.randn(directions, 3, generator=generator, dtype=torch.float64), dim=1)
        projections = (torch.einsum("tc,bcn->tbn", thetas.to(part), part) for part in (moving, target))
        curves = [match_sorted(*pair, levels) for pair in zip(*projections, strict=True)]
        steps.append(_Step(thetas, thetas.T * (3 / directions), curves))
        moving = steps[-1](moving)
    return _replay(steps, fitted=len(moving))


def _draw(colors: Tensor, weights: Tensor | None, samples: int, generator: torch.Generator) -> Tensor:
    """Draw `samples` colors with replacement, in proportion to their counts; small clouds without counts stay whole."""
    if weights is None:
        if colors.shape[2] <= samples:
            return colors
        return colors[:, :, torch.randint(colors.shape[2], (samples,), generator=generator)]
    # positions of evenly spaced shares on the cumulated counts: a draw of the least variance
    share = (torch.arange(samples) + torch.rand(1, generator=generator)).double() / samples
    cumulated = weights.cpu().double().cumsum(1)
    index = torch.searchsorted(cumulated / cumulated[:, -1:], share.expand(len(weights), -1).contiguous())
    index = index.clamp(max=colors.shape[2] - 1).to(colors.device)
    return colors.gather(2, index[:, None].expand(-1, 3, -1))


def spread(count: int, samples: int) -> Tensor:
    """Places of at most `samples` of `count` pixels: steps of the golden ratio, since equal ones meet few columns."""
    if count <= samples:
        return torch.arange(count)
    return (torch.arange(samples, dtype=torch.float64) * 0.6180339887498949 % 1 * count).long()


def match_sorted(values: Tensor, wanted: Tensor, levels: int) -> Curve:
    """The curve that takes the quantiles of `(B, N)` values to those of `(B, M)` wanted ones."""
    have, want = (part.detach().contiguous().sort(dim=1).values for part in (values, wanted))
    low, high = have[:, :1], have[:, -1:]
    nodes = []
    for h, w in zip(have, want, strict=True):
        grid = torch.linspace(0, 1, levels).to(h) * (h[-1] - h[0]) + h[0]
        # the middle of the run of equal values, so that a spike of one color goes to the middle of its share
        # what rounding has parted belongs together: else half of a flat sky may fall on either side of its own node
        slack = (h[-1] - h[0]) * torch.finfo(h.dtype).eps * 16
        rank = (torch.searchsorted(h, grid - slack) + torch.searchsorted(h, grid + slack, right=True)) / (2 * len(h))
        nodes.append(interpolate(rank.to(w), (torch.arange(len(w)).to(w) + 0.5) / len(w), w))
    return Curve(low, high, torch.stack(nodes))


def regrain(source: Tensor, transferred: Tensor, *, smoothness: float = 1.0, as_published: bool = False) -> Tensor:
    r"""Give a transferred picture the grain of its source.

    Finds :math:`J` that minimizes :math:`\iint \phi\,\lVert\nabla J - \nabla I\rVert^2 + \psi\,\lVert J - t(I)\rVert^2`
    by Jacobi sweeps from coarse to fine: gradients come from the source :math:`I`, colors from the transfer
    :math:`t(I)`. Not a function of color: it looks at neighbors.

    The author's code hands the coarse solution itself up to the next finer level, blurred as it is, and four sweeps
    at full size cannot mend that: a transfer that changes nothing comes back changed. Here each level hands up what
    it changed.

    Args:
        source, transferred: `(B, 3, H, W)` sRGB in [0, 1], of one shape.
        smoothness: :math:`s` of :math:`\phi`; larger keeps more of the source's gradients.
        as_published: hand up the blurred solution, as the author's code does.

    Returns:
        `(B, 3, H, W)`, not clipped.

    Raises:
        ValueError: wrong range, shapes that differ, NaN.

    Reference: Pitié, Kokaram, Dahyot, *Towards automated colour grading*, CVMP 2005; weights as in the author's code.
    """
    if not smoothness > 0:
        raise ValueError(f"smoothness: expected a number above 0, got {smoothness}")
    check.same_shape(check.rgb(source, "source"), check.rgb(transferred, "transferred"), "source and transferred")
    sweeps = (4, 16, 32, 64, 64, 64)
    pyramid = [(source, transferred)]
    while len(pyramid) < len(sweeps) and min(pyramid[-1][0].shape[-2:]) // 2 > 20:
        half = [size // 2 for size in pyramid[-1][0].shape[-2:]]
        pyramid.append(tuple(_resize(image, half) for image in pyramid[-1]))
    result = pyramid[-1][1].clone()
    for level in reversed(range(len(pyramid))):
        image, target = pyramid[level]
        if level + 1 < len(pyramid):
            coarse_target = pyramid.pop()[1]
            size = image.shape[-2:]
            result = _resize(result, size) if as_published else _resize(result - coarse_target, size).add_(target)
        result = _jacobi(image, target, result, sweeps[level], level, smoothness)
    return result


def _resize(image: Tensor, size) -> Tensor:
    return functional.interpolate(image, size=tuple(size), mode="bilinear", align_corners=False)


def _jacobi(image: Tensor, target: Tensor, result: Tensor, sweeps: int, level: int, smoothness: float) -> Tensor:
    """Sweep one level of the pyramid, in place. Channels go one by one: at 12 megapixels each temporary is 48 MB."""
    neighbors = [(0, 1), (0, -1), (1, 0), (-1, 0)]
    slope = torch.zeros_like(image[:, :1])
    for one in image.split(1, dim=1):
        for ahead, behind in (neighbors[:2], neighbors[2:]):
            slope += (_shift(one, *ahead) - _shift(one, *behind)).square_()
    slope = slope.sqrt_()
    psi = (256 * slope / 5).clamp_(max=1)
    phi = 30 * 2.0**-level / (1 + 10 * slope / smoothness)
    del slope
    couplings = [_shift(phi, *step).add_(phi).div_(2) for step in neighbors]
    del phi
    total = psi + sum(couplings)
    for weight in (psi, *couplings):
        weight /= total
    del total
    for c in range(3):
        one, old = image[:, c : c + 1], result[:, c : c + 1]
        fixed = psi * target[:, c : c + 1]
        for step, coupling in zip(neighbors, couplings, strict=True):
            fixed += (one - _shift(one, *step)).mul_(coupling)
        for _ in range(sweeps):
            new = fixed.clone()
            for step, coupling in zip(neighbors, couplings, strict=True):
                new += _shift(old, *step).mul_(coupling)
            old = new.mul_(0.8).add_(old, alpha=0.2)
        result[:, c : c + 1] = old
    return result


def _shift(image: Tensor, down: int, right: int) -> Tensor:
    """Each pixel's neighbor; at the border the pixel itself."""
    height, width = image.shape[-2:]
    rows = (torch.arange(height, device=image.device) + down).clamp(0, height - 1)
    columns = (torch.arange(width, device=image.device) + right).clamp(0, width - 1)
    return image.index_select(-2, rows) if down else image.index_select(-1, columns)
