r"""Differentiable histograms of one, two or three channels, of a whole picture or of each of its regions.

With $n$ bins and a kernel $\varphi_i$ around each centre,

$$H_{ij} = \frac1{|\Omega|} \sum_{p \in \Omega} \varphi_i(v_p) \, \varphi_j(w_p).$$

The `official` centres are those of the training code of Histogram Analogy (Lee et al. 2020): at $i/n$, under
triangles of slope $n - 1$, so that the weights of a value do not sum to 1: inside to 1.0625 at a centre, at $v = 1$ to
0.031 (both for $n = 32$). The `unity` centres, at $i/(n-1)$, share out every value in [0, 1] exactly.

A kernel reaches only a few bins, so a pixel touches a few cells, its "taps", and nothing of size pixels x bins is ever
made. Let $u$ be the value in units of the spacing of the centres. Each axis then has a window of `taps` neighbouring
bins, which starts at $\lfloor u + shift \rfloor$ and is moved inside the histogram where it would stick out:

* triangle, unity: half as wide as one spacing, hence the two centres around $u$;
* triangle, official: half as wide as $n/(n-1)$, a little more than one spacing, so that a value on centre $i$ gives
  $1/n$ to both neighbours, too. An open interval of width $2n/(n-1) \le 3$ holds at most three centres, the nearest one
  and its two neighbours (two bins have no third);
* Gaussian: cut to zero beyond 4 sigma, which takes $2 \lfloor 4 \sigma + 1/2 \rfloor + 1$.
"""

import math
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from ctlib.ops.launch import jit, takes_kernel, tl, triton, wrap_triton

# Pixels a step of the reference: its temporaries stay in the cache, whatever the size of the picture.
_STEP = 1 << 16
# Fixed point: a weight of 1 is 2**32. Its error is below that of float32, and 2**31 pixels fit into int64.
_ONE = float(1 << 32)
_BLOCK = 1024


def soft_histogram(
    values: Tensor,
    bins: int,
    *,
    kernel: str = "triangular",
    centers: str = "official",
    sigma: float = 1.0,
    labels: Tensor | None = None,
    num_labels: int | None = None,
    deterministic: bool = False,
) -> Tensor:
    r"""Mean over the pixels of the product of the channels' kernel weights.

    Args:
        values: `(B, D, ...)` float, D = 1, 2 or 3 channels in [0, 1], each an axis of the histogram. A value outside
            gets what the formula gives it: less and less, then nothing.
        bins: per axis, at least 2.
        kernel: `"triangular"`, $\max(0, 1 - (n-1)\,|v - c_i|)$, or `"gaussian"`, the normal density over the bins,
            cut to zero beyond 4 sigma: a value far from 0 and 1 shares out 1, one at the end half of it.
        centers: `"official"`, $c_i = i/n$, or `"unity"`, $c_i = i/(n-1)$.
        sigma: of the Gaussian, in spacings of the centres.
        labels: `(B, ...)` whole numbers, the region of each pixel. Pixels whose label is not in [0, num_labels), such
            as -1 or 255, count nowhere.
        num_labels: number of regions; goes with `labels`.
        deterministic: add in whole numbers, so that the result is the same to the last bit in whatever order the
            pixels come or the GPU adds. Otherwise the last digits may vary from run to run on a GPU.

    Returns:
        `(B, n, ...)` with D axes of n bins, in the order of the channels: `[b, i, j]` is bin i of the first channel and
        bin j of the second. With labels `(B, num_labels, n, ...)`; a region without pixels is all zeros. float32, or
        float64 for float64. Differentiable once in `values`, with gradient 0 at the kinks of a triangle. A NaN among
        the values shows as NaN in the histogram (not with `deterministic`, where its pixel adds nothing).

    Raises:
        ValueError: wrong shape, type, or name of a kernel or of centres; labels without their number.

    Source: Lee et al., Deep Color Transfer using Histogram Analogy, The Visual Computer 36, 2020; the loss is that of
        its training code.

    Example:
        >>> soft_histogram(torch.tensor([[[0.0, 0.5, 0.5, 1.0]]]), 3, centers="unity").tolist()
        [[0.25, 0.5, 0.25]]
    """
    if values.ndim < 2 or values.shape[1] not in (1, 2, 3) or not values.is_floating_point():
        raise ValueError(
            f"values: expected float (B, D, ...) with D = 1, 2 or 3 channels in [0, 1], got {values.dtype} "
            f"{tuple(values.shape)}; select the channels, e.g. lab_scaled[:, 1:]"
        )
    if bins < 2:
        raise ValueError(f"bins: expected at least 2, got {bins}")
    if kernel not in ("triangular", "gaussian"):
        raise ValueError(f'kernel: expected "triangular" or "gaussian", got {kernel!r}')
    if centers not in ("official", "unity"):
        raise ValueError(f'centers: expected "official" or "unity", got {centers!r}')
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma: expected a positive number of bin spacings, got {sigma}")
    check_labels(values, labels, num_labels)
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()

    batch, axes = values.shape[:2]
    hist, _ = torch.ops.ctlib.soft_histogram(
        values.reshape(batch, axes, -1) if values.numel() else values.new_empty(batch, axes, 0),
        None if labels is None else labels[..., None].flatten(1),
        1 if labels is None else num_labels,
        bins,
        kernel,
        centers,
        float(sigma),
        deterministic,
    )
    return hist.reshape(batch, *(() if labels is None else (num_labels,)), *(bins,) * axes)


def check_labels(pixels: Tensor, labels: Tensor | None, num_labels: int | None) -> None:
    """Check a label map `(B, ...)` against its picture `(B, C, ...)`.

    Raises:
        ValueError: labels without number or the reverse, of another shape, or not whole numbers.
    """
    if (labels is None) != (num_labels is None):
        raise ValueError("labels, num_labels: give both, or neither for the whole picture")
    if labels is None:
        return
    if num_labels < 1:
        raise ValueError(f"num_labels: expected at least 1, got {num_labels}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels: expected whole numbers, got {labels.dtype}; use labels.long(), or (~mask).long() for a mask"
        )
    shape = (pixels.shape[0], *pixels.shape[2:])
    if labels.shape != shape:
        raise ValueError(f"labels: expected the shape {tuple(shape)} of the pixels, got {tuple(labels.shape)}")


class _Window(NamedTuple):
    """The taps of a pixel on each axis; see the top of this file."""

    bins: int
    taps: int
    span: int  # from values to units of the spacing of the centres
    shift: float
    slope: float  # of the triangle; 1 / sigma of the Gaussian
    gaussian: bool

    @classmethod
    def of(cls, bins: int, kernel: str, centers: str, sigma: float) -> "_Window":
        span = bins if centers == "official" else bins - 1
        if kernel == "gaussian":
            reach = math.floor(4 * sigma + 0.5)
            return cls(bins, min(2 * reach + 1, bins), span, 0.5 - reach, 1 / sigma, True)
        if centers == "official":
            return cls(bins, min(3, bins), span, -0.5, (bins - 1) / bins, False)
        return cls(bins, 2, span, 0.0, 1.0, False)

    def place(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """First bin of the window of each value, and the distance of the value from its centre, in spacings."""
        u = values * self.span
        first = u + self.shift
        # NaN, too, is given a place inside the histogram, since it is not > 0
        first = torch.where(first > 0, first, 0).clamp(max=self.bins - self.taps).floor()
        return first.long(), u - first

    def weight(self, distance: Tensor) -> Tensor:
        if self.gaussian:
            z = distance * self.slope
            return torch.where(z.abs() > 4, 0, torch.exp(-0.5 * z * z) * (self.slope / math.sqrt(2 * math.pi)))
        return (1 - self.slope * distance.abs()).clamp(min=0)

    def derivative(self, distance: Tensor) -> Tensor:
        """Of the weight by the value."""
        weight = self.weight(distance)
        if self.gaussian:
            return torch.where(weight > 0, -self.span * self.slope**2 * distance * weight, 0)
        return torch.where(weight > 0, -self.span * self.slope * distance.sign(), 0)

    def steps(self, axes: int) -> list[tuple[tuple[int, ...], int]]:
        """The taps of a pixel: the step on each axis from its first bin, and the way in cells."""
        return [
            (steps, sum(step * self.bins**place for place, step in enumerate(reversed(steps))))
            for steps in product(range(self.taps), repeat=axes)
        ]


# The reference.


def pieces(values: Tensor) -> list[tuple[int, int]]:
    """Ranges of pixels to treat at a time; all at once where a compiler traces, since their number is then unknown."""
    batch, _, pixels = values.shape
    if type(values) is not Tensor:
        return [(0, pixels)]
    step = max(1, _STEP // max(batch, 1))
    return [(start, min(start + step, pixels)) for start in range(0, pixels, step)]


def _place(values: Tensor, labels: Tensor | None, regions: int, window: _Window):
    """Where a piece `(B, D, P)` goes.

    Returns:
        For each of the B*P pixels: its region among those of the batch, whether it counts (None: all do), the cell of
        its first tap, and on each axis the distance from that cell's centre.
    """
    batch, axes, pixels = values.shape
    region = torch.arange(batch, device=values.device)[:, None].expand(batch, pixels) * regions
    inside = None
    if labels is not None:
        label = labels.long()
        inside = (label >= 0) & (label < regions)
        region = region + torch.where(inside, label, 0)
        inside = inside.flatten()
    cell = region = region.flatten()
    distances = []
    for axis in range(axes):
        first, distance = window.place(values[:, axis].flatten())
        cell = cell * window.bins + first
        distances.append(distance)
    return region, inside, cell, distances


def _reference(values: Tensor, labels: Tensor | None, regions: int, window: _Window, deterministic: bool):
    batch, axes, _ = values.shape
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    # In float32 the sum over a large blank picture would stall: 4e6 + 0.3 is 4e6 or 4e6 + 0.5.
    total = torch.zeros(
        batch * regions * window.bins**axes,
        device=values.device,
        dtype=torch.int64 if deterministic else torch.float64,
    )
    counts = torch.zeros(batch * regions, device=values.device, dtype=torch.int64)
    for start, stop in pieces(values):
        label = None if labels is None else labels[:, start:stop]
        region, inside, cell, distances = _place(values[..., start:stop].to(dtype), label, regions, window)
        counts.index_add_(0, region, torch.ones_like(region) if inside is None else inside.long())
        weights = [[window.weight(distance - step) for step in range(window.taps)] for distance in distances]
        weights[0] = [weight.double() for weight in weights[0]]
        for steps, offset in window.steps(axes):
            weight = math.prod((weights[a][steps[a]] for a in range(1, axes)), start=weights[0][steps[0]])
            if inside is not None:
                weight = torch.where(inside, weight, 0)
            total[offset:].index_add_(0, cell, (weight.nan_to_num(0) * _ONE).long() if deterministic else weight)
    return _mean(total.view(batch, regions, window.bins**axes), counts.view(batch, regions), dtype)


def _mean(total: Tensor, counts: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    divisor = counts.clamp(min=1).double()[..., None] * (1.0 if total.is_floating_point() else _ONE)
    return (total.double() / divisor).to(dtype), counts


def _reference_backward(grad: Tensor, values: Tensor, labels: Tensor | None, regions: int, window: _Window) -> Tensor:
    batch, axes, _ = values.shape
    table = grad.flatten()
    grad_values = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    for start, stop in pieces(values):
        label = None if labels is None else labels[:, start:stop]
        _, inside, cell, distances = _place(values[..., start:stop].to(grad.dtype), label, regions, window)
        weights = [[window.weight(distance - step) for step in range(window.taps)] for distance in distances]
        slopes = [[window.derivative(distance - step) for step in range(window.taps)] for distance in distances]
        sums = [torch.zeros_like(distance) for distance in distances]
        for steps, offset in window.steps(axes):
            part = table[offset:].index_select(0, cell)
            for axis in range(axes):
                others = (weights[a][steps[a]] for a in range(axes) if a != axis)
                sums[axis].addcmul_(part, math.prod(others, start=slopes[axis][steps[axis]]))
        for axis in range(axes):
            by_axis = sums[axis] if inside is None else torch.where(inside, sums[axis], 0)
            grad_values[:, axis, start:stop] = by_axis.view(batch, stop - start)
    return grad_values


# The kernels: a program treats a block of pixels of one picture.


@jit
def _axis(plane, exists, shift, SPAN: tl.constexpr, LAST: tl.constexpr):
    """Distances of a block of values from the first centre of their windows, and the bin of that centre."""
    u = tl.load(plane, mask=exists, other=0.0).to(tl.float32) * SPAN
    first = u + shift
    first = tl.where(first > 0.0, first, 0.0)  # NaN, too, is given a place inside the histogram
    first = tl.floor(tl.where(first > LAST, LAST * 1.0, first))
    return u - first, first.to(tl.int32)


@jit
def _pixels(
    values,
    labels,
    here,
    picture,
    pixels,
    regions,
    shift,
    LABELS: tl.constexpr,
    AXES: tl.constexpr,
    BINS: tl.constexpr,
    TAPS: tl.constexpr,
    SPAN: tl.constexpr,
):
    """Which pixels count, the region of each, the cell of its first tap, and its distances from that cell's centres."""
    exists = here < pixels  # the only mask of the loads: with that of the labels they would not be 16 bytes wide
    valid = exists
    region = tl.zeros_like(here).to(tl.int32)
    if LABELS:
        label = tl.load(labels + picture * pixels + here, mask=exists, other=0)
        valid = exists & (label >= 0) & (label < regions)
        region = tl.where(valid, label, 0).to(tl.int32)
    plane = values + picture * AXES * pixels + here
    x, first = _axis(plane, exists, shift, SPAN, BINS - TAPS)
    cell = region * BINS + first
    y = x
    z = x
    if AXES > 1:
        y, first = _axis(plane + pixels, exists, shift, SPAN, BINS - TAPS)
        cell = cell * BINS + first
    if AXES > 2:
        z, first = _axis(plane + pixels + pixels, exists, shift, SPAN, BINS - TAPS)
        cell = cell * BINS + first
    return valid, region, cell, x, y, z


@jit
def _tap_weight(distance, slope, GAUSSIAN: tl.constexpr):
    if GAUSSIAN:
        z = distance * slope
        weight = tl.exp2(-0.7213475204444817 * z * z) * (slope * 0.3989422804014327)
        weight = tl.where(tl.abs(z) > 4.0, 0.0, weight)
    else:
        weight = 1.0 - slope * tl.abs(distance)
        weight = tl.where(weight < 0.0, 0.0, weight)
    return weight


@jit
def _tap_derivative(distance, weight, slope, GAUSSIAN: tl.constexpr):
    if GAUSSIAN:
        derivative = -slope * slope * distance * weight
    else:
        derivative = tl.where(distance > 0.0, -slope, tl.where(distance < 0.0, slope, 0.0))
    return tl.where(weight > 0.0, derivative, 0.0)


@jit
def _scatter_kernel(
    values,
    labels,
    total,
    counts,
    pixels,
    regions,
    copies,
    shift,
    slope,
    LABELS: tl.constexpr,
    AXES: tl.constexpr,
    BINS: tl.constexpr,
    TAPS: tl.constexpr,
    SPAN: tl.constexpr,
    GAUSSIAN: tl.constexpr,
    FIXED: tl.constexpr,
    REGIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    block = tl.program_id(0).to(tl.int64)
    picture = tl.program_id(1).to(tl.int64)
    here = block * BLOCK + tl.arange(0, BLOCK)
    valid, region, cell, x, y, z = _pixels(
        values, labels, here, picture, pixels, regions, shift, LABELS, AXES, BINS, TAPS, SPAN
    )
    if LABELS:
        slot = tl.arange(0, REGIONS)
        found = tl.histogram(tl.where(valid, region, regions), REGIONS).to(tl.int64)
        tl.atomic_add(counts + picture * regions + slot, found, mask=(slot < regions) & (found > 0))

    # Neighbouring pixels look alike: they go to different copies, or they would queue for the same address.
    size = regions * BINS**AXES
    total += picture * size
    stride = tl.num_programs(1).to(tl.int64) * size
    spread = total + (here + here // 4) % copies * stride + cell
    # A block of one color, as in a blank picture or a sky, is added up first and sends one number.
    low = tl.min(tl.where(valid, cell, size), 0)
    high = tl.max(tl.where(valid, cell, -1), 0)
    alone = total + block % copies * stride + low
    for tap in range(TAPS**AXES):
        step = tap // TAPS ** (AXES - 1)
        offset = step
        weight = _tap_weight(x - step, slope, GAUSSIAN)
        if AXES > 1:
            step = tap // TAPS ** (AXES - 2) % TAPS
            offset = offset * BINS + step
            weight *= _tap_weight(y - step, slope, GAUSSIAN)
        if AXES > 2:
            step = tap % TAPS
            offset = offset * BINS + step
            weight *= _tap_weight(z - step, slope, GAUSSIAN)
        weight = tl.where(valid, weight, 0.0)
        if FIXED:
            weight = (tl.where(weight == weight, weight, 0.0) * 4294967296.0).to(tl.int64)
        if low == high:
            tl.atomic_add(alone + offset, tl.sum(weight, 0))
        else:
            tl.atomic_add(spread + offset, weight, mask=weight != 0)


@jit
def _gather_kernel(
    grad,
    values,
    labels,
    grad_values,
    pixels,
    regions,
    shift,
    slope,
    LABELS: tl.constexpr,
    AXES: tl.constexpr,
    BINS: tl.constexpr,
    TAPS: tl.constexpr,
    SPAN: tl.constexpr,
    GAUSSIAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    picture = tl.program_id(1).to(tl.int64)
    here = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid, _, cell, x, y, z = _pixels(
        values, labels, here, picture, pixels, regions, shift, LABELS, AXES, BINS, TAPS, SPAN
    )
    table = grad + picture * regions * BINS**AXES + cell
    by_x = tl.zeros_like(x)
    by_y = by_x
    by_z = by_x
    for tap in range(TAPS**AXES):
        step = tap // TAPS ** (AXES - 1)
        offset = step
        x_weight = _tap_weight(x - step, slope, GAUSSIAN)
        x_slope = _tap_derivative(x - step, x_weight, slope, GAUSSIAN)
        if AXES > 1:
            step = tap // TAPS ** (AXES - 2) % TAPS
            offset = offset * BINS + step
            y_weight = _tap_weight(y - step, slope, GAUSSIAN)
            y_slope = _tap_derivative(y - step, y_weight, slope, GAUSSIAN)
        if AXES > 2:
            step = tap % TAPS
            offset = offset * BINS + step
            z_weight = _tap_weight(z - step, slope, GAUSSIAN)
            z_slope = _tap_derivative(z - step, z_weight, slope, GAUSSIAN)
        part = tl.load(table + offset, mask=valid, other=0.0)
        if AXES == 1:
            by_x += part * x_slope
        elif AXES == 2:
            by_x += part * x_slope * y_weight
            by_y += part * x_weight * y_slope
        else:
            by_x += part * x_slope * y_weight * z_weight
            by_y += part * x_weight * y_slope * z_weight
            by_z += part * x_weight * y_weight * z_slope
    out = grad_values + picture * AXES * pixels + here
    written = here < pixels
    tl.store(out, tl.where(valid, by_x * SPAN, 0.0), mask=written)
    if AXES > 1:
        tl.store(out + pixels, tl.where(valid, by_y * SPAN, 0.0), mask=written)
    if AXES > 2:
        tl.store(out + pixels + pixels, tl.where(valid, by_z * SPAN, 0.0), mask=written)


# The ops.


@torch.library.triton_op("ctlib::soft_histogram", mutates_args=())
def _op(
    values: Tensor,
    labels: Tensor | None,
    regions: int,
    bins: int,
    kernel: str,
    centers: str,
    sigma: float,
    deterministic: bool,
) -> tuple[Tensor, Tensor]:
    """`(B, D, P)` to the histogram `(B, regions, bins**D)` and the number of pixels `(B, regions)`."""
    window = _Window.of(bins, kernel, centers, sigma)
    if not takes_kernel(values):
        return _reference(values, labels, regions, window, deterministic)
    batch, axes, pixels = values.shape
    size = batch * regions * bins**axes
    copies = max(1, min(64, (1 << 22) // max(size, 1)))  # within 32 MB: what the cache of a large GPU holds
    total = values.new_zeros((copies, size), dtype=torch.int64 if deterministic else torch.float32)
    counts = values.new_full((batch, regions), pixels if labels is None else 0, dtype=torch.int64)
    if values.numel() > 0:
        with torch.cuda.device_of(values):
            wrap_triton(_scatter_kernel)[(triton.cdiv(pixels, _BLOCK), batch)](
                values.contiguous(),
                values if labels is None else labels.contiguous(),
                total,
                counts,
                pixels,
                regions,
                copies,
                window.shift,
                window.slope,
                FIXED=deterministic,
                REGIONS=max(128, triton.next_power_of_2(regions + 1)),
                **_constants(labels, axes, window),
            )
    total = total.sum(0, dtype=total.dtype if deterministic else torch.float64)
    return _mean(total.view(batch, regions, bins**axes), counts, torch.float32)


def _constants(labels: Tensor | None, axes: int, window: _Window) -> dict:
    return {
        "LABELS": labels is not None,
        "AXES": axes,
        "BINS": window.bins,
        "TAPS": window.taps,
        "SPAN": window.span,
        "GAUSSIAN": window.gaussian,
        "BLOCK": _BLOCK,
    }


@torch.library.triton_op("ctlib::soft_histogram_backward", mutates_args=())
def _op_backward(
    grad: Tensor,
    values: Tensor,
    labels: Tensor | None,
    regions: int,
    bins: int,
    kernel: str,
    centers: str,
    sigma: float,
) -> Tensor:
    """Gradient for the values, from that of the sums over the pixels."""
    window = _Window.of(bins, kernel, centers, sigma)
    if not takes_kernel(values):
        return _reference_backward(grad, values, labels, regions, window)
    batch, axes, pixels = values.shape
    grad_values = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    if values.numel() > 0:
        with torch.cuda.device_of(values):
            wrap_triton(_gather_kernel)[(triton.cdiv(pixels, _BLOCK), batch)](
                grad.contiguous(),
                values.contiguous(),
                values if labels is None else labels.contiguous(),
                grad_values,
                pixels,
                regions,
                window.shift,
                window.slope,
                **_constants(labels, axes, window),
            )
    return grad_values


def _setup_context(ctx, inputs, output):
    values, labels, *ctx.settings, _ = inputs
    ctx.save_for_backward(values, labels, output[1])


def _backward(ctx, grad, _):
    values, labels, counts = ctx.saved_tensors
    grad = grad / counts.clamp(min=1)[..., None]
    return torch.ops.ctlib.soft_histogram_backward(grad, values, labels, *ctx.settings), *(None,) * 7


_op.register_autograd(_backward, setup_context=_setup_context)
