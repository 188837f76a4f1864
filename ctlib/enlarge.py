r"""What was done to a small picture, done to a large one: 12 megapixels for the price of one.

A network that looks at a whole picture cannot be fed a large one in pieces: its norms take the mean over all pixels. So
it works on a small copy, and what it changed there is split in two:

- *by color*: a table of colors, fitted on the small picture, holds what happens to each color wherever it stands. It is
  looked up with the colors of the large picture, so grain and fine detail get what their own color asks for;
- *by place*: what the table does not say, averaged over small squares and enlarged. That part is smooth.

Where a picture has regions, each has a table of its own, and they are mixed by weights that follow the edges of the
large picture.

Enlarging the change itself instead, as one does for a mask, gives a speck the change of its surroundings. A finer table
is no nearer: few colors of the small picture lie at each of its nodes.

Measured in: benchmarks/bench_any_size.py.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from ctlib import check, ops, regionwise
from ctlib.classical.distribution import spread
from ctlib.classical.statistics import ColorMap
from ctlib.ops.palette_lut import lookup
from ctlib.segment.soft import grown

Weights = Callable[[Tensor, int, int], Tensor]  # see `ctlib.regionwise.Partners.weights`

NODES = 9  # of the table, an axis
SQUARE = 8  # pixels of the small picture, over which the rest is averaged
_SAMPLES = 1 << 17  # pixels of the small picture that the table is fitted on
_STIFFNESS = 1e-2  # of the table, see `fit`
_PIECE = 1 << 18  # pixels of the large picture treated at once


@torch.no_grad()
def enlarge(
    source: Tensor,
    small: Tensor,
    result: Tensor,
    maps: Sequence[ColorMap | None] = (),
    weights: Weights | None = None,
    *,
    piece: int = _PIECE,
) -> Tensor:
    """Do to a picture what was done to a small copy of it. Not differentiable.

    Beside the pictures it takes the memory of a strip's work and of fitting the table, about 100 MB together.

    Args:
        source: `(B, 3, H, W)` sRGB in [0, 1].
        small: `(B, 3, h, w)` sRGB in [0, 1]: the source with fewer pixels, rather picked than averaged.
        result: `(B, 3, h, w)` CIELAB in natural units, in the dtype and on the device of `small`: what that became.
        maps: what is known of it, a function of sRGB colors, in [0, 1] both ways: it is done as it is, and only what
            goes beyond is estimated. Or none, or R that `weights` mix.
        weights: where R regions are, one picture, then: a function of rows of the source or of `small`, `(1, 3, n, W)`,
            of the number of the first of them and of the height of the whole. It gives `(1, R, n, W)`, adding up to 1
            in each pixel.
        piece: pixels treated at once, at least a row of each picture; the result does not depend on it.

    Returns:
        `(B, 3, H, W)` sRGB in [0, 1], in the dtype and on the device of `source`. A change that is a function of color
        in the span of the table comes out as such.

    Raises:
        ValueError: wrong input.
    """
    check.rgb(source, "source")
    check.rgb(small, "small")
    check.colors(result, "result")
    check.same_shape(result, small, "result and small")
    if len(source) != len(small):
        raise ValueError(f"source and small: one small picture a source, got {len(source)} and {len(small)}")
    if piece < 1:
        raise ValueError(f"piece: expected at least 1 pixel, got {piece}")
    shares = None if weights is None else weights(small, 0, small.shape[2])
    known = _known(maps, small, shares)
    change = result - ops.rgb_to_lab(known)
    tables = [fit(*pair) for pair in zip(known, change, strict=True)]
    if shares is not None:
        tables = [fit(known[0], change[0], weights=one) if one.sum() > NODES**3 else tables[0] for one in shares[0]]
    rest = _pooled(change - _by_color(tables, known, shares))

    size, out = source.shape[2:], torch.empty_like(source, memory_format=torch.contiguous_format)
    rows = max(1, piece // (len(source) * size[1]))
    for top in range(0, size[0], rows):
        strip = source[:, :, top : top + rows]
        bottom = top + strip.shape[2]
        shares = None if weights is None else weights(strip, top, size[0]).to(small)
        known = _known(maps, strip.to(small), shares)
        lab = ops.rgb_to_lab(known).add_(_by_color(tables, known, shares)).add_(grown(rest, top, bottom, size))
        out[:, :, top:bottom] = ops.lab_to_rgb(lab, out=lab)
    return out


def fit(
    colors: Tensor,
    values: Tensor,
    nodes: int = NODES,
    stiffness: float = _STIFFNESS,
    weights: Tensor | None = None,
) -> Tensor:
    r"""Table whose trilinear look-up of colors comes nearest to the values given for them.

    Least squares: :math:`\min_t \frac{1}{M} \lVert A t - v\rVert^2 + \frac{\lambda}{N^3} \lVert D t\rVert^2` with the
    shares :math:`A` of the nodes in the look-up and the differences :math:`D` of neighboring nodes. The second term
    fills nodes that no color is near with what their neighbors hold, so a color that only the large picture has gets
    what the nearest known ones get. Solved exactly, in double precision on the CPU, where sums come in one order.

    Args:
        colors: `(3, ...)` sRGB in [0, 1].
        values: `(3, ...)`, anything, one for each color.
        nodes: N, 2 to 16: the equations take 8 N^6 bytes.
        stiffness: lambda, above 0.
        weights: `(...)`, what each color counts, 0 or more and not all 0; M is their sum. 1 by default.

    Returns:
        `(3, N, N, N)` in the dtype and on the device of `values`, see `ctlib.ops.palette_lut.lookup`.
    """
    places = spread(colors[0].numel(), _SAMPLES).to(colors.device)
    place, wanted = (x.flatten(1)[:, places].double().cpu() for x in (colors, values))
    counts = torch.ones(len(places)).double() if weights is None else weights.flatten()[places].double().cpu()
    if not counts.all():
        place, wanted, counts = place[:, counts > 0], wanted[:, counts > 0], counts[counts > 0]
    place = place.clamp(0, 1) * (nodes - 1)
    cell = place.floor().clamp(max=nodes - 2)  # white belongs to the last cell
    ends = torch.tensor(list(product((0, 1), repeat=3)))  # of a cell
    stride = torch.tensor([nodes * nodes, nodes, 1])
    share = (1 - (ends[:, :, None] - (place - cell)).abs()).prod(1)  # (8, M)
    corner = (ends @ stride)[:, None] + stride @ cell.long()

    count = nodes**3
    equations, right = torch.zeros(count * count, dtype=torch.float64), []
    for own, weight in zip(corner, counts * share, strict=True):
        equations += torch.bincount((own * count + corner).flatten(), (weight * share).flatten(), count * count)
    for channel in counts * wanted:
        right.append(torch.bincount(corner.flatten(), (share * channel).flatten(), count))
    equations = equations.view(count, count) + stiffness * counts.sum() / count * _differences(nodes)
    table = torch.cholesky_solve(torch.stack(right, 1), torch.linalg.cholesky(equations))
    return table.T.reshape(3, nodes, nodes, nodes).to(values)


def _differences(nodes: int) -> Tensor:
    """Matrix of the sum of squared differences of neighbors in a table, `(N^3, N^3)` float64."""
    eye = torch.eye(nodes, dtype=torch.float64)
    apart = eye.diff(dim=0)
    line = apart.T @ apart
    axes = ((line, eye, eye), (eye, line, eye), (eye, eye, line))
    return sum(torch.kron(torch.kron(red, green), blue) for red, green, blue in axes)


def _known(maps: Sequence[ColorMap | None], rgb: Tensor, weights: Tensor | None) -> Tensor:
    if not maps:
        return rgb
    return maps[0](rgb) if weights is None else regionwise.mix(maps, rgb, weights)


def _by_color(tables: list[Tensor], rgb: Tensor, weights: Tensor | None) -> Tensor:
    """What the tables say: one a picture, or one a region of a single one."""
    if weights is not None:
        return regionwise.mix([partial(lookup, table) for table in tables], rgb, weights)
    return torch.cat([lookup(*pair) for pair in zip(tables, rgb.split(1), strict=True)])


def _pooled(maps: Tensor) -> Tensor:
    return functional.interpolate(maps, [-(-side // SQUARE) for side in maps.shape[2:]], mode="area")
