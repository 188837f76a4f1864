"""Mean and variance of image regions, an affine map per region, and AdaIN made of the two.

A region is the set of pixels that carry one label. Both primitives read a picture once, whatever the number of labels:
a tile of it stays in registers while a loop visits the labels that occur there, which are few, because label maps are
piecewise constant. Counts, means and squared deviations of the tiles are merged by the formula of Chan, Golub and
LeVeque (1979), always in the same order: results repeat bit by bit.

The kernels read contiguous `(B, C, H, W)`; other layouts, channels_last too, are copied first.
"""

import torch
from torch import Tensor

from ctlib.ops.launch import jit, takes_kernel, tl, triton, wrap_triton

_TILE = 4096  # elements that a program holds in registers: channels x pixels
_PROGRAMS = 2048  # enough to keep any GPU busy; more only make more partial results
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def regional_stats(x: Tensor, labels: Tensor | None = None, num_labels: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Number of positions, mean and sample variance of every region and channel. Differentiable in `x`.

    Args:
        x: `(B, C, ...)` float, any range.
        labels: `(B, ...)` whole numbers; a position whose label is outside `[0, num_labels)` belongs to no region.
            `None`: one region, the whole picture.
        num_labels: R.

    Returns:
        `count (B, R)` int64; `mean` and `var`, `(B, R, C)`, float32, or float64 for float64. The variance divides by
        n - 1 and is 0 where n < 2; the mean of an empty region is 0.

    Raises:
        ValueError: shapes that do not fit, or a wrong dtype.

    Example:
        >>> count, mean, var = regional_stats(torch.tensor([[[1.0, 3.0, 9.0]]]), torch.tensor([[0, 0, 1]]), 2)
        >>> count.tolist(), mean.flatten().tolist(), var.flatten().tolist()
        ([[2, 1]], [2.0, 9.0], [2.0, 0.0])
    """
    flat, labels = _arguments(x, labels, num_labels, "x", "labels")
    mean, var, count = torch.ops.ctlib.regional_stats(flat, labels, num_labels)
    return count, mean, var


def regional_affine(
    x: Tensor, scale: Tensor, shift: Tensor, labels: Tensor | None = None, center: Tensor | None = None
) -> Tensor:
    """`(x - center) * scale + shift`, with the three of each position's region; elsewhere `x`.

    Differentiable in `x`, `scale`, `shift` and `center`. With the mean as center, a flat region keeps its precision.

    Args:
        x: `(B, C, ...)` float.
        scale: `(B, R, C)` float.
        shift: `(B, R, C)` float.
        labels: `(B, ...)` whole numbers, as in `regional_stats`. `None`: one region, the whole picture.
        center: `(B, R, C)` float; `None`: 0.

    Returns:
        Shape and dtype of `x`, contiguous.

    Raises:
        ValueError: shapes that do not fit, or a wrong dtype.
    """
    if scale.ndim != 3:
        raise ValueError(f"scale: expected shape (B, R, C), got {tuple(scale.shape)}; add the missing axes with [None]")
    flat, labels = _arguments(x, labels, scale.shape[1], "x", "labels")
    expected = (flat.shape[0], scale.shape[1], flat.shape[1])
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    center = torch.zeros_like(scale) if center is None else center
    for name, value in (("scale", scale), ("shift", shift), ("center", center)):
        if tuple(value.shape) != expected or not value.is_floating_point():
            raise ValueError(
                f"{name}: expected float (B, R, C) = {expected}, got {value.dtype} {tuple(value.shape)}; use expand"
            )
    center, scale, shift = center.to(dtype), scale.to(dtype), shift.to(dtype)
    return torch.ops.ctlib.regional_affine(flat, labels, center, scale, shift, True).reshape(x.shape)


def adain(
    content: Tensor,
    style: Tensor,
    content_labels: Tensor | None = None,
    style_labels: Tensor | None = None,
    *,
    num_labels: int | None = None,
    alpha: float = 1.0,
    eps: float = 1e-5,
) -> Tensor:
    """Give the content's features the mean and standard deviation of the style's, label by label.

    `alpha * (sigma_s * (x - mu_c) / sigma_c + mu_s) + (1 - alpha) * x`, `sigma = sqrt(var + eps)` with the sample
    variance on both sides (Huang and Belongie 2017, eq. 8; eps inside the root and label maps as in the code of Xu et
    al. 2020). A label takes part if each of the maps, at its full size, has more than 10 pixels of it, neither has 100
    times as many as the other, and both keep a position of it after nearest-neighbor resizing to the size of the
    features. Every other position keeps the content. Differentiable in `content` and `style`.

    Args:
        content: `(B, C, H, W)` float features, any range.
        style: `(B or 1, C, h, w)`; its size may differ.
        content_labels: `(B, H', W')` whole numbers, of any size; those outside `[0, num_labels)` name no region.
        style_labels: `(B or 1, h', w')`. Both maps or none; none means one region, the whole picture.
        num_labels: how many labels there are. `None` takes the largest of both maps plus one, which waits for the GPU
            and cannot be traced by `torch.compile(fullgraph=True)`.
        alpha: 1 for the full effect, 0 for none.
        eps: added to the variances.

    Returns:
        Shape and dtype of `content`, contiguous.

    Raises:
        ValueError: shapes that do not fit, a wrong dtype, one map without the other, or `eps` not above 0.
    """
    for name, value in (("content", content), ("style", style)):
        if value.ndim != 4 or not value.is_floating_point():
            raise ValueError(
                f"{name}: expected float (B, C, H, W), got {value.dtype} {tuple(value.shape)}; "
                "add the batch axis with [None]"
            )
    if style.shape[1] != content.shape[1] or style.shape[0] not in (1, content.shape[0]):
        raise ValueError(
            f"style: expected batch 1 or {content.shape[0]} and {content.shape[1]} channels, got {tuple(style.shape)}; "
            "take both from the same layer"
        )
    if not eps > 0:
        raise ValueError(f"eps: expected a number above 0, got {eps}; the usual one is 1e-5")
    if (content_labels is None) != (style_labels is None):
        raise ValueError("style_labels: one label map came without the other; give content_labels and style_labels")

    usable = True
    if content_labels is None:
        num_labels = 1
    else:
        for name, labels, features in (
            ("content_labels", content_labels, content),
            ("style_labels", style_labels, style),
        ):
            if labels.ndim != 3 or labels.shape[0] != features.shape[0] or labels.dtype not in _INTEGERS:
                raise ValueError(
                    f"{name}: expected whole numbers (B, H, W) with B = {features.shape[0]}, "
                    f"got {labels.dtype} {tuple(labels.shape)}; use .long() and [None]"
                )
        if num_labels is None:
            num_labels = 1 + max((int(m.max()) for m in (content_labels, style_labels) if m.numel()), default=0)
            num_labels = max(num_labels, 1)
        target, reference = _pixels(content_labels, num_labels), _pixels(style_labels, num_labels)
        usable = (target > 10) & (reference > 10) & (target < 100 * reference) & (reference < 100 * target)
        content_labels = _nearest(content_labels, content.shape[-2:])
        style_labels = _nearest(style_labels, style.shape[-2:])

    count, mean, var = regional_stats(content, content_labels, num_labels)
    style_count, style_mean, style_var = regional_stats(style.to(content.dtype), style_labels, num_labels)
    usable = (usable & (count > 0) & (style_count > 0))[..., None]
    scale = torch.where(usable, alpha * ((style_var + eps) / (var + eps)).sqrt() + (1 - alpha), 1.0)
    shift = torch.where(usable, torch.lerp(mean, style_mean.expand_as(mean), alpha), 0.0)
    center = torch.where(usable, mean, 0.0)  # 0, 1, 0 give x back to the last bit
    return regional_affine(content, scale, shift, content_labels, center)


def _pixels(labels: Tensor, num_labels: int) -> Tensor:
    """`(B, R)` pixels of each label. Plain torch would count with atomics, thousands of them on one address."""
    return regional_stats(labels[:, None].to(torch.float32), labels, num_labels)[0]


def _nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Label map at another size: output row i shows input row floor(i * H / h), as `interpolate(mode="nearest")`."""
    rows, columns = (
        torch.arange(new, device=labels.device) * old // max(new, 1)
        for old, new in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]


def _arguments(
    x: Tensor, labels: Tensor | None, num_labels: int, x_name: str, labels_name: str
) -> tuple[Tensor, Tensor | None]:
    """Checked `x (B, C, N)` and `labels (B, N)`."""
    if x.ndim < 3 or not x.is_floating_point():
        raise ValueError(
            f"{x_name}: expected float (B, C, ...), got {x.dtype} {tuple(x.shape)}; use .float(), or [None] for axes"
        )
    if num_labels < 1:
        raise ValueError(f"num_labels: expected at least 1, got {num_labels}; it is the largest label plus one")
    flat = x.reshape(x.shape[0], x.shape[1], x.shape[2:].numel())
    if labels is None:
        if num_labels != 1:
            raise ValueError(f"{labels_name}: num_labels is {num_labels} without a label map; give one, or 1 label")
        return flat, None
    if labels.dtype not in _INTEGERS or labels.shape != x.shape[:1] + x.shape[2:]:
        raise ValueError(
            f"{labels_name}: expected whole numbers {tuple(x.shape[:1] + x.shape[2:])}, got {labels.dtype} "
            f"{tuple(labels.shape)}; resize the map with nearest neighbor and use .long()"
        )
    if labels.device != x.device:
        raise ValueError(f"{labels_name}: on {labels.device} while {x_name} is on {x.device}; use .to({x_name}.device)")
    return flat, labels.reshape(flat.shape[0], flat.shape[2])


# Reference. Region R gathers what belongs to no region, and is dropped.


def _inside(labels: Tensor, regions: int) -> Tensor:
    labels = labels.long()  # first: 256 regions are more than a byte can count
    return torch.where((labels >= 0) & (labels < regions), labels, regions)[:, None]


def _sums(values: Tensor, index: Tensor, regions: int) -> Tensor:
    """Sum of `(B, c, N)` by region `(B, 1, N)`: `(B, R, c)`, added up in float64, where long sums do not drift."""
    total = values.new_zeros((*values.shape[:2], regions + 1), dtype=torch.float64)
    return total.scatter_add(2, index.expand(values.shape), values.double())[..., :regions].mT


def _spread(values: Tensor, index: Tensor, channels: int, outside: float) -> Tensor:
    """`(B, R, C)` back to positions, `(B, C, N)`."""
    rows = torch.nn.functional.pad(values.mT, (0, 1), value=outside)
    return rows.gather(2, index.expand(-1, channels, -1))


def _stats_reference(x: Tensor, labels: Tensor | None, regions: int) -> tuple[Tensor, Tensor, Tensor]:
    wide = x if x.dtype == torch.float64 else x.float()
    if labels is None:
        n = x.shape[2]
        count = torch.full((x.shape[0], 1), n, dtype=torch.int64, device=x.device)
        mean = wide.sum(2, keepdim=True) / max(n, 1)
        squares = (wide - mean).square_().sum(2, keepdim=True)
        return mean.mT.contiguous(), (squares / max(n - 1, 1)).mT.contiguous(), count
    index = _inside(labels, regions)
    count = _sums(torch.ones_like(labels, dtype=wide.dtype)[:, None], index, regions)
    mean = _sums(wide, index, regions) / count.clamp(min=1)
    deviation = wide - _spread(mean, index, x.shape[1], 0.0)
    var = _sums(deviation.square(), index, regions) / (count - 1).clamp(min=1)
    return mean.to(wide.dtype).contiguous(), var.to(wide.dtype).contiguous(), count[..., 0].long()


def _affine_reference(
    x: Tensor, labels: Tensor | None, center: Tensor, scale: Tensor, shift: Tensor, keep: bool
) -> Tensor:
    wide = x.to(scale.dtype)
    if labels is None:
        y = (wide - center.mT).mul_(scale.mT).add_(shift.mT)  # in place: memory is what takes the time
    else:
        index = _inside(labels, scale.shape[1])
        center, shift = (_spread(value, index, x.shape[1], 0.0) for value in (center, shift))
        y = (wide - center) * _spread(scale, index, x.shape[1], float(keep)) + shift
        if not keep:  # a NaN outside all regions would stay one
            y = torch.where(index == scale.shape[1], 0, y)
    return y.to(x.dtype).contiguous()


def _affine_backward_reference(
    grad: Tensor, x: Tensor, labels: Tensor | None, center: Tensor, scale: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    wide, wide_grad = x.to(scale.dtype), grad.to(scale.dtype)
    if labels is None:
        to_scale = (wide_grad * (wide - center.mT)).sum(2, keepdim=True).mT
        to_shift = wide_grad.sum(2, keepdim=True).mT
        to_x = wide_grad * scale.mT
    else:
        index, regions, channels = _inside(labels, scale.shape[1]), scale.shape[1], x.shape[1]
        to_scale = _sums(wide_grad * (wide - _spread(center, index, channels, 0.0)), index, regions)
        to_shift = _sums(wide_grad, index, regions)
        to_x = wide_grad * _spread(scale, index, channels, float(keep))
    small = [value.to(scale.dtype).contiguous() for value in (to_scale, to_shift)]
    return to_x.to(x.dtype).contiguous(), *small


# Kernels. A program owns some channels and a stretch of pixels of one image, and walks it tile by tile.


@jit
def _tile(x_ptr, labels_ptr, b, c, tile, N, C, R, LABELS: tl.constexpr, PIXELS: tl.constexpr):
    """Offsets and mask of a tile `(channels, pixels)`, the pixels' labels (-1: none), and the range of these."""
    p = tile * PIXELS + tl.arange(0, PIXELS)
    at = (b * C + c)[:, None] * N + p[None, :]
    inside = (c < C)[:, None] & (p < N)[None, :]
    if LABELS:
        label = tl.load(labels_ptr + b * N + p, mask=p < N, other=0).to(tl.int64)
        label = tl.where((p < N) & (label >= 0) & (label < R), label, -1).to(tl.int32)
        low = tl.min(tl.where(label < 0, R, label), 0)
        high = tl.max(label, 0)
    else:
        label = tl.where(p < N, 0, -1)
        low = 0
        high = 0
    return at, inside, label, low, high


@jit
def _stats_kernel(
    x_ptr, labels_ptr, count_ptr, mean_ptr, square_ptr, N, C, R, splits, tiles,
    LABELS: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(C, CHANNELS)
    c = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    part = program // blocks  # image and stretch
    slot = part * R * C + c
    for r in range(R):
        tl.store(count_ptr + slot + r * C, tl.zeros([CHANNELS], tl.int32), mask=c < C)
        tl.store(mean_ptr + slot + r * C, tl.zeros([CHANNELS], tl.float32), mask=c < C)
        tl.store(square_ptr + slot + r * C, tl.zeros([CHANNELS], tl.float32), mask=c < C)
    tl.debug_barrier()
    for step in range(tiles):
        at, inside, label, low, high = _tile(
            x_ptr, labels_ptr, part // splits, c, part % splits * tiles + step, N, C, R, LABELS, PIXELS
        )
        x = tl.load(x_ptr + at, mask=inside, other=0).to(tl.float32)
        for r in range(low, high + 1):
            own = label == r
            n = tl.sum(own.to(tl.int32), 0)
            if n > 0:
                mean = tl.sum(tl.where(own[None, :], x, 0.0), 1) / n
                deviation = tl.where(own[None, :], x - mean[:, None], 0.0)
                square = tl.sum(deviation * deviation, 1)
                old = tl.load(count_ptr + slot + r * C, mask=c < C, other=0)
                old_mean = tl.load(mean_ptr + slot + r * C, mask=c < C, other=0)
                old_square = tl.load(square_ptr + slot + r * C, mask=c < C, other=0)
                tl.debug_barrier()  # several threads read what one of them writes
                step_mean = mean - old_mean
                share = n / (old + n).to(tl.float32)
                tl.store(count_ptr + slot + r * C, old + n, mask=c < C)
                tl.store(mean_ptr + slot + r * C, old_mean + step_mean * share, mask=c < C)
                square += old_square + step_mean * step_mean * old * share
                tl.store(square_ptr + slot + r * C, square, mask=c < C)
                tl.debug_barrier()


@jit
def _merge_kernel(
    count_ptr, mean_ptr, square_ptr, out_count_ptr, out_mean_ptr, out_var_ptr, size, C, RC, splits, BLOCK: tl.constexpr
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    n = tl.zeros([BLOCK], tl.int64)
    mean = tl.zeros([BLOCK], tl.float32)
    square = tl.zeros([BLOCK], tl.float32)
    for split in range(splits):
        at = (i // RC * splits + split) * RC + i % RC
        more = tl.load(count_ptr + at, mask=inside, other=0)
        step_mean = tl.load(mean_ptr + at, mask=inside, other=0) - mean
        share = more / tl.maximum(n + more, 1).to(tl.float32)
        mean += step_mean * share
        square += tl.load(square_ptr + at, mask=inside, other=0) + step_mean * step_mean * n.to(tl.float32) * share
        n += more
    tl.store(out_count_ptr + i // C, n, mask=inside & (i % C == 0))
    tl.store(out_mean_ptr + i, mean, mask=inside)
    tl.store(out_var_ptr + i, square / tl.maximum(n - 1, 1).to(tl.float32), mask=inside)


@jit
def _affine_kernel(
    x_ptr, labels_ptr, center_ptr, scale_ptr, shift_ptr, y_ptr, N, C, R, splits,
    KEEP: tl.constexpr, LABELS: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(C, CHANNELS)
    c = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    part = program // blocks
    b = part // splits
    at, inside, label, _, _ = _tile(x_ptr, labels_ptr, b, c, part % splits, N, C, R, LABELS, PIXELS)
    x = tl.load(x_ptr + at, mask=inside, other=0).to(tl.float32)
    if LABELS:  # neighbors mostly share a label, so that a warp fetches one number
        region = (b * R + label)[None, :] * C + c[:, None]
        own = inside & (label >= 0)[None, :]
    else:
        region = (b * C + c)[:, None]
        own = (c < C)[:, None]
    center = tl.load(center_ptr + region, mask=own, other=0)
    scale = tl.load(scale_ptr + region, mask=own, other=1 if KEEP else 0)
    shift = tl.load(shift_ptr + region, mask=own, other=0)
    y = (x - center) * scale + shift
    if not KEEP:  # a NaN outside all regions would stay one
        y = tl.where(own, y, 0.0)
    tl.store(y_ptr + at, y, mask=inside)


@jit
def _affine_backward_kernel(
    grad_ptr, x_ptr, labels_ptr, center_ptr, scale_ptr, to_x_ptr, to_scale_ptr, to_shift_ptr, N, C, R, splits, tiles,
    KEEP: tl.constexpr, LABELS: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(C, CHANNELS)
    c = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    part = program // blocks
    b = part // splits
    slot = part * R * C + c
    for r in range(R):
        tl.store(to_scale_ptr + slot + r * C, tl.zeros([CHANNELS], tl.float32), mask=c < C)
        tl.store(to_shift_ptr + slot + r * C, tl.zeros([CHANNELS], tl.float32), mask=c < C)
    tl.debug_barrier()
    for step in range(tiles):
        at, inside, label, low, high = _tile(
            x_ptr, labels_ptr, b, c, part % splits * tiles + step, N, C, R, LABELS, PIXELS
        )
        grad = tl.load(grad_ptr + at, mask=inside, other=0).to(tl.float32)
        x = tl.load(x_ptr + at, mask=inside, other=0).to(tl.float32)
        to_x = grad if KEEP else tl.zeros_like(grad)
        for r in range(low, high + 1):
            own = (label == r)[None, :]
            center = tl.load(center_ptr + (b * R + r) * C + c, mask=c < C, other=0)
            scale = tl.load(scale_ptr + (b * R + r) * C + c, mask=c < C, other=0)
            to_x = tl.where(own, grad * scale[:, None], to_x)
            mine = tl.where(own, grad, 0.0)
            to_shift = tl.sum(mine, 1) + tl.load(to_shift_ptr + slot + r * C, mask=c < C, other=0)
            to_scale = tl.sum(tl.where(own, mine * (x - center[:, None]), 0.0), 1)
            to_scale += tl.load(to_scale_ptr + slot + r * C, mask=c < C, other=0)
            tl.debug_barrier()
            tl.store(to_shift_ptr + slot + r * C, to_shift, mask=c < C)
            tl.store(to_scale_ptr + slot + r * C, to_scale, mask=c < C)
            tl.debug_barrier()
        tl.store(to_x_ptr + at, to_x, mask=inside)


def _geometry(x: Tensor, tile: int = _TILE, apart: bool = False) -> tuple[int, int, int, int, int]:
    """Programs, stretches an image, tiles a stretch, and channels and pixels a tile; `apart`: one tile a stretch."""
    batch, channels, size = (int(n) for n in x.shape)
    pixels = min(triton.next_power_of_2(size), tile // min(4, triton.next_power_of_2(channels)))
    block = min(triton.next_power_of_2(channels), tile // pixels)
    rows, tiles = batch * triton.cdiv(channels, block), triton.cdiv(size, pixels)
    each = 1 if apart else triton.cdiv(tiles, min(tiles, triton.cdiv(_PROGRAMS, rows)))
    splits = triton.cdiv(tiles, each)
    return rows * splits, splits, each, block, pixels


@torch.library.triton_op("ctlib::regional_stats", mutates_args=())
def _stats(x: Tensor, labels: Tensor | None, regions: int) -> tuple[Tensor, Tensor, Tensor]:
    if not takes_kernel(x) or x.numel() == 0:
        return _stats_reference(x, labels, regions)
    batch, channels, size = x.shape
    x, labels = x.contiguous(), None if labels is None else labels.contiguous()
    programs, splits, tiles, block, pixels = _geometry(x)
    parts = (batch * splits, regions, channels)
    counts = torch.empty(parts, dtype=torch.int32, device=x.device)
    means, squares = (torch.empty(parts, dtype=torch.float32, device=x.device) for _ in range(2))
    count = torch.empty((batch, regions), dtype=torch.int64, device=x.device)
    mean, var = (torch.empty((batch, regions, channels), dtype=torch.float32, device=x.device) for _ in range(2))
    with torch.cuda.device_of(x):
        wrap_triton(_stats_kernel)[(programs,)](
            x, x if labels is None else labels, counts, means, squares, size, channels, regions, splits, tiles,
            LABELS=labels is not None, CHANNELS=block, PIXELS=pixels, num_warps=8,
        )  # fmt: skip
        wrap_triton(_merge_kernel)[(triton.cdiv(mean.numel(), 256),)](
            counts, means, squares, count, mean, var, mean.numel(), channels, regions * channels, splits, BLOCK=256
        )
    return mean, var, count  # opcheck sums the outputs up, and needs a float first


def _stats_context(ctx, inputs, output) -> None:
    x, labels, _ = inputs
    mean, _, count = output
    ctx.mark_non_differentiable(count)
    ctx.save_for_backward(x, labels, count, mean)


def _stats_gradient(ctx, to_mean: Tensor, to_var: Tensor, _):
    """d mean / dx = 1 / n and d var / dx = 2 (x - mean) / (n - 1) inside the region: an affine map again."""
    x, labels, count, mean = ctx.saved_tensors
    count = count[..., None].to(mean.dtype)
    scale = 2 * to_var / (count - 1).clamp(min=1)
    return torch.ops.ctlib.regional_affine(x, labels, mean, scale, to_mean / count.clamp(min=1), False), None, None


@torch.library.triton_op("ctlib::regional_affine", mutates_args=())
def _affine(x: Tensor, labels: Tensor | None, center: Tensor, scale: Tensor, shift: Tensor, keep: bool) -> Tensor:
    if not takes_kernel(x) or x.numel() == 0:
        return _affine_reference(x, labels, center, scale, shift, keep)
    _, channels, size = x.shape
    x, labels = x.contiguous(), None if labels is None else labels.contiguous()
    programs, splits, _, block, pixels = _geometry(x, apart=True)
    y = torch.empty_like(x)
    with torch.cuda.device_of(x):
        wrap_triton(_affine_kernel)[(programs,)](
            x, x if labels is None else labels, center.contiguous(), scale.contiguous(), shift.contiguous(), y,
            size, channels, scale.shape[1], splits,
            KEEP=keep, LABELS=labels is not None, CHANNELS=block, PIXELS=pixels, num_warps=8,
        )  # fmt: skip
    return y


@torch.library.triton_op("ctlib::regional_affine_backward", mutates_args=())
def _affine_backward(
    grad: Tensor, x: Tensor, labels: Tensor | None, center: Tensor, scale: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if not takes_kernel(x) or x.numel() == 0:
        return _affine_backward_reference(grad, x, labels, center, scale, keep)
    batch, channels, size = x.shape
    grad, x, labels = grad.contiguous(), x.contiguous(), None if labels is None else labels.contiguous()
    programs, splits, tiles, block, pixels = _geometry(x, _TILE // 2)  # it holds two pictures
    regions = scale.shape[1]
    sums = torch.empty((2, batch, splits, regions, channels), dtype=torch.float32, device=x.device)
    to_x = torch.empty_like(x)
    with torch.cuda.device_of(x):
        wrap_triton(_affine_backward_kernel)[(programs,)](
            grad, x, x if labels is None else labels, center.contiguous(), scale.contiguous(),
            to_x, sums[0], sums[1], size, channels, regions, splits, tiles,
            KEEP=keep, LABELS=labels is not None, CHANNELS=block, PIXELS=pixels, num_warps=8,
        )  # fmt: skip
    return to_x, sums[0].sum(1), sums[1].sum(1)


def _affine_context(ctx, inputs, output) -> None:
    x, labels, center, scale, _, ctx.keep = inputs
    ctx.save_for_backward(x, labels, center, scale)


def _affine_gradient(ctx, grad: Tensor):
    x, labels, center, scale = ctx.saved_tensors
    to_x, to_scale, to_shift = torch.ops.ctlib.regional_affine_backward(grad, x, labels, center, scale, ctx.keep)
    return to_x, None, -scale * to_shift, to_scale, to_shift, None


_stats.register_autograd(_stats_gradient, setup_context=_stats_context)
_affine.register_autograd(_affine_gradient, setup_context=_affine_context)
