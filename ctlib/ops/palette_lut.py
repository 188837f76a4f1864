r"""Trilinear look-up in a 3-D table: what `ctlib.lut.apply` runs on.

The gradients, to the table and to the colors, are written by hand; there is no second derivative.

Measured in: notebooks/71_ops.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ctlib.distinct import in_threads
from ctlib.ops.launch import jit, takes_kernel, tl, wrap_triton
from ctlib.ops.pixels import result_dtype

_PIECE = 1 << 14  # colors treated at once on the CPU: their eight corners stay in the processor's cache
_BLOCK = 256  # pixels a program of the look-up


def lookup(lut: Tensor, rgb: Tensor, deterministic: bool = False) -> Tensor:
    """Look colors up in a 3-D table, trilinearly. Differentiable in the table and in the colors.

    Args:
        lut: `(3, N, N, N)` float, N from 2 to 256, indexed `[channel, red, green, blue]`; node i is i / (N - 1).
        rgb: `(B, 3, ...)` float sRGB. Values outside [0, 1] take the color of the nearest face and get no gradient;
            at 0 and at 1 themselves the gradient is that of the last cell. NaN gives NaN.
        deterministic: also on a GPU the gradient to the table is the same, to the bit, in every run: summed in whole
            numbers, about 9 digits below the largest gradient. Sums on the CPU always are, and so are they all under
            `torch.use_deterministic_algorithms`.

    Returns:
        `(B, 3, ...)` in the dtype and on the device of `rgb`, contiguous. Computed in float32 (float64 for float64).

    Raises:
        ValueError: `lut` or `rgb` has the wrong shape or is not float.
    """
    nodes = lut.shape[1] if lut.ndim == 4 else 0
    if not 2 <= nodes <= 256 or lut.shape[0] != 3 or lut.shape[2] != nodes or lut.shape[3] != nodes:
        raise ValueError(f"lut: expected shape (3, N, N, N) with N from 2 to 256, got {tuple(lut.shape)}")
    if not lut.is_floating_point():
        raise ValueError(f"lut: expected a float table, got {lut.dtype}; convert it with .float()")
    check_colors(rgb, "rgb")
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    lut = lut.to(rgb.device, result_dtype(rgb))
    if rgb.ndim == 2:  # colors without pictures
        return _lookup(lut, rgb.T[None], deterministic)[0].T.contiguous()
    return _lookup(lut, rgb.flatten(2), deterministic).reshape(rgb.shape)


def check_colors(colors: Tensor, name: str) -> None:
    if not colors.is_floating_point():
        raise ValueError(f"{name}: expected a float tensor, got {colors.dtype}; see ctlib.images.to_tensor")
    if colors.ndim < 2 or colors.shape[1] != 3:
        raise ValueError(f"{name}: expected 3 color channels on axis 1, (B, 3, ...), got shape {tuple(colors.shape)}")


# reference


def _is_plain_cpu(x: Tensor) -> bool:
    """Not on a GPU, and not while something traces, which pieces would only confuse."""
    return x.is_cpu and type(x) is Tensor


def in_pieces(work: Callable, colors: Tensor) -> Iterator:
    """Call `work(pictures, columns)` for each piece of `(B, 3, M)`; yields the pictures, a slice, and what it returned.

    On a GPU, and while tracing, everything is one piece.
    """
    batch, _, size = colors.shape
    if not _is_plain_cpu(colors):
        yield slice(None), work(slice(None), slice(None))
        return
    places = [(slice(i, i + 1), slice(j, j + _PIECE)) for i in range(batch) for j in range(0, size, _PIECE)]
    for place, result in zip(places, in_threads(lambda place: work(*place), places), strict=True):
        yield place[0], result


def _joined(colors: Tensor) -> Tensor:
    """`(b, 3, n)` to `(3, b * n)`; a view for a single picture."""
    return colors.transpose(0, 1).flatten(1)


def _cell(nodes: int, colors: Tensor) -> tuple[Tensor, Tensor]:
    """`(3, n)` colors to the index of their cell's first corner `(n,)` int32 and the place within it `(3, n)`."""
    place = colors.clamp(0, 1) * (nodes - 1)
    cell = place.nan_to_num(0).floor_().clamp_(max=nodes - 2)  # white belongs to the last cell, not to one beyond it
    red, green, blue = cell.int()
    return (red * nodes + green) * nodes + blue, place - cell


def _corner(nodes: int, number: int) -> int:
    """Offset of corner `red << 2 | green << 1 | blue` in the table."""
    return ((number >> 2) * nodes + (number >> 1 & 1)) * nodes + (number & 1)


def _mix(values: list[Tensor], *shares: Tensor) -> Tensor:
    """Linear interpolation of 2^d values by d shares, that of the last axis first."""
    for share in reversed(shares):
        values = [torch.lerp(low, high, share) for low, high in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def _look_up(table: Tensor, nodes: int, colors: Tensor) -> Tensor:
    """`(3, N^3)` table and `(b, 3, n)` colors to `(b, 3, n)`; `grid_sample` would drop the gradient at 0 and 1."""
    shape, colors = colors.shape, _joined(colors).to(table.dtype)
    corner, (red, green, blue) = _cell(nodes, colors)
    on_blue = [
        torch.lerp(*(table.index_select(1, corner + _corner(nodes, number + end)) for end in (0, 1)), blue)
        for number in (0, 2, 4, 6)
    ]
    return _mix(on_blue, red, green).reshape(3, shape[0], shape[2]).transpose(0, 1)


def _grad_rgb(table: Tensor, nodes: int, colors: Tensor, grad: Tensor) -> Tensor:
    """Gradient to the colors: how fast the mix of the corners, seen along `grad`, changes on each axis."""
    shape, colors = colors.shape, _joined(colors).to(table.dtype)
    corner, (red, green, blue) = _cell(nodes, colors)
    grad = _joined(grad).to(table.dtype) * (nodes - 1)
    v = [(table.index_select(1, corner + _corner(nodes, number)) * grad).sum(0) for number in range(8)]
    by_red = _mix([v[i + 4] - v[i] for i in (0, 1, 2, 3)], green, blue)
    by_green = _mix([v[i + 2] - v[i] for i in (0, 1, 4, 5)], red, blue)
    by_blue = _mix([v[i + 1] - v[i] for i in (0, 2, 4, 6)], red, green)
    grad = torch.stack([by_red, by_green, by_blue]) * (colors == colors.clamp(0, 1))
    return grad.reshape(3, shape[0], shape[2]).transpose(0, 1)


def _grad_lut(nodes: int, colors: Tensor, grad: Tensor, sums: Tensor) -> Tensor:
    """Add the gradient to the table, `(3, N^3)` float64: each corner gets its weight's share."""
    grad = _joined(grad).double()
    corner, (red, green, blue) = _cell(nodes, _joined(colors).to(result_dtype(colors)))
    for number in range(8):
        weight = red if number & 4 else 1 - red
        weight = weight * (green if number & 2 else 1 - green) * (blue if number & 1 else 1 - blue)
        place = corner + _corner(nodes, number)
        for channel in range(3):
            sums[channel].index_add_(0, place, grad[channel] * weight)
    return sums


# kernels


@jit
def _axis(value, nodes):
    """The cell of a value on its axis, and the place within it; NaN lies in the first cell and stays NaN."""
    place = tl.minimum(tl.maximum(value, 0.0), 1.0) * (nodes - 1)
    cell = tl.minimum(tl.floor(place), (nodes - 2).to(tl.float32))
    cell = tl.where(value == value, cell, 0.0)
    return cell.to(tl.int32), tl.where(value == value, place - cell, value)


@jit
def _colors(rgb, base, plane, inside, nodes):
    """Corner and place of a block of colors."""
    red = tl.load(rgb + base, mask=inside, other=0).to(tl.float32)
    green = tl.load(rgb + base + plane, mask=inside, other=0).to(tl.float32)
    blue = tl.load(rgb + base + plane + plane, mask=inside, other=0).to(tl.float32)
    i, u = _axis(red, nodes)
    j, v = _axis(green, nodes)
    k, w = _axis(blue, nodes)
    return (i * nodes + j) * nodes + k, u, v, w, red, green, blue


@jit
def block_of(blocks, size, BLOCK: tl.constexpr):
    """Offset of this program's first channel, and which of its pixels exist. 64 bits: a batch may pass 2^31 values."""
    program = tl.program_id(0).to(tl.int64)
    pixel = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    return program // blocks, (program // blocks) * 3 * size + pixel, pixel < size


@jit
def _look_up_kernel(table, rgb, out, size, blocks, nodes, BLOCK: tl.constexpr):
    _, base, inside = block_of(blocks, size, BLOCK)
    corner, u, v, w, _, _, _ = _colors(rgb, base, size, inside, nodes)
    channel = tl.arange(0, 4)[None, :]
    mixed = tl.zeros((BLOCK, 4), tl.float32)
    for number in tl.static_range(8):
        weight = (u if number & 4 else 1 - u) * (v if number & 2 else 1 - v) * (w if number & 1 else 1 - w)
        place = corner + ((number >> 2) * nodes + (number >> 1 & 1)) * nodes + (number & 1)
        mixed += weight[:, None] * tl.load(table + place[:, None] * 4 + channel)  # one load of 16 bytes
    tl.store(out + base[:, None] + channel.to(tl.int64) * size, mixed, mask=inside[:, None] & (channel < 3))


@jit
def _grad_rgb_kernel(table, rgb, grad, out, size, blocks, nodes, BLOCK: tl.constexpr):
    _, base, inside = block_of(blocks, size, BLOCK)
    corner, u, v, w, red, green, blue = _colors(rgb, base, size, inside, nodes)
    channel = tl.arange(0, 4)[None, :]
    real = inside[:, None] & (channel < 3)
    slope = tl.load(grad + base[:, None] + channel.to(tl.int64) * size, mask=real, other=0).to(tl.float32) * (nodes - 1)
    by_red = tl.zeros((BLOCK,), tl.float32)
    by_green = tl.zeros((BLOCK,), tl.float32)
    by_blue = tl.zeros((BLOCK,), tl.float32)
    for number in tl.static_range(8):
        place = corner + ((number >> 2) * nodes + (number >> 1 & 1)) * nodes + (number & 1)
        along = tl.sum(tl.load(table + place[:, None] * 4 + channel) * slope, axis=1)
        x = u if number & 4 else 1 - u
        y = v if number & 2 else 1 - v
        z = w if number & 1 else 1 - w
        by_red += along * y * z if number & 4 else -along * y * z
        by_green += along * x * z if number & 2 else -along * x * z
        by_blue += along * x * y if number & 1 else -along * x * y
    tl.store(out + base, tl.where((red >= 0) & (red <= 1), by_red, 0.0), mask=inside)
    tl.store(out + base + size, tl.where((green >= 0) & (green <= 1), by_green, 0.0), mask=inside)
    tl.store(out + base + size + size, tl.where((blue >= 0) & (blue <= 1), by_blue, 0.0), mask=inside)


@jit
def _grad_lut_kernel(
    rgb, grad, sums, scale, size, blocks, nodes, copies, FIXED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    _, base, inside = block_of(blocks, size, BLOCK)
    corner, u, v, w, _, _, _ = _colors(rgb, base, size, inside, nodes)
    channel = tl.arange(0, 4)[None, :]
    real = inside[:, None] & (channel < 3)
    share = tl.load(grad + base[:, None] + channel.to(tl.int64) * size, mask=real, other=0).to(tl.float32)
    if FIXED:
        share *= tl.load(scale)
    sums += (tl.program_id(0) % copies).to(tl.int64) * nodes * nodes * nodes * 4
    for number in tl.static_range(8):
        weight = (u if number & 4 else 1 - u) * (v if number & 2 else 1 - v) * (w if number & 1 else 1 - w)
        place = corner + ((number >> 2) * nodes + (number >> 1 & 1)) * nodes + (number & 1)
        value = weight[:, None] * share
        if FIXED:
            value = tl.floor(value + 0.5).to(tl.int64)
        tl.atomic_add(sums + place[:, None] * 4 + channel, value, mask=real, sem="relaxed")


# registration


def _packed(lut: Tensor) -> Tensor:
    """`(3, N, N, N)` to `(N^3, 4)`: a color lies in 16 bytes that one load takes."""
    return torch.nn.functional.pad(lut.reshape(3, -1).T, (0, 1)).contiguous()


def launch_blocks(kernel, colors: Tensor, *arguments, block: int = _BLOCK, **constants) -> None:
    """Start a kernel on colors `(B, 3, M)`, a block of one picture a program."""
    blocks = -(-colors.shape[2] // block)
    if colors.shape[0] * blocks:
        with torch.cuda.device_of(colors):
            wrap_triton(kernel)[(colors.shape[0] * blocks,)](
                *arguments, size=colors.shape[2], blocks=blocks, BLOCK=block, **constants
            )


@torch.library.triton_op("ctlib::lut_lookup", mutates_args=())
def _lookup(lut: Tensor, rgb: Tensor, deterministic: bool) -> Tensor:
    """`(3, N, N, N)` in the working dtype and `(B, 3, M)` to `(B, 3, M)`; `deterministic` is for the gradient."""
    lut, rgb, nodes = lut.detach(), rgb.detach(), lut.shape[1]
    out = torch.empty_like(rgb, memory_format=torch.contiguous_format)
    if takes_kernel(rgb):
        launch_blocks(_look_up_kernel, rgb, _packed(lut), rgb.contiguous(), out, nodes=nodes)
        return out

    def work(pictures: slice, columns: slice) -> None:
        out[pictures, :, columns] = _look_up(lut.reshape(3, -1), nodes, rgb[pictures, :, columns])

    list(in_pieces(work, rgb))
    return out


@torch.library.triton_op("ctlib::lut_lookup_grad_rgb", mutates_args=())
def _lookup_grad_rgb(lut: Tensor, rgb: Tensor, grad: Tensor) -> Tensor:
    lut, rgb, nodes = lut.detach(), rgb.detach(), lut.shape[1]
    out = torch.empty_like(rgb, memory_format=torch.contiguous_format)
    if takes_kernel(rgb):
        launch_blocks(_grad_rgb_kernel, rgb, _packed(lut), rgb.contiguous(), grad.contiguous(), out, nodes=nodes)
        return out

    def work(pictures: slice, columns: slice) -> None:
        part = pictures, slice(None), columns
        out[part] = _grad_rgb(lut.reshape(3, -1), nodes, rgb[part], grad[part])

    list(in_pieces(work, rgb))
    return out


@torch.library.triton_op("ctlib::lut_lookup_grad_lut", mutates_args=())
def _lookup_grad_lut(rgb: Tensor, grad: Tensor, nodes: int, deterministic: bool) -> Tensor:
    rgb = rgb.detach()
    if takes_kernel(rgb):
        copies = max(1, min(32, (1 << 20) // nodes**3))  # where many pixels are alike, their additions would queue
        sums = rgb.new_zeros(copies, nodes**3, 4, dtype=torch.int64 if deterministic else torch.float32)
        scale = rgb.new_ones(1, dtype=torch.float32)
        if deterministic and grad.numel():  # 2^33 pixels of the largest gradient still fit into 63 bits
            largest = grad.abs().amax().float().reshape(1)
            scale = torch.where(largest == 0, 1.0, 2.0**30 / largest)
        launch_blocks(
            _grad_lut_kernel, rgb, rgb.contiguous(), grad.contiguous(), sums, scale,
            nodes=nodes, copies=copies, FIXED=deterministic,
        )  # fmt: skip
        total = sums.sum(0)[:, :3].T
        total = (total.double() / scale.double()).float() if deterministic else total
        return total.contiguous().reshape(3, nodes, nodes, nodes)

    def part(columns: slice) -> Tensor:
        sums = rgb.new_zeros(3, nodes**3, dtype=torch.float64)
        colors, slope = rgb[..., columns], grad[..., columns]
        if not _is_plain_cpu(rgb):
            return _grad_lut(nodes, colors, slope, sums)
        for picture in range(len(rgb)):
            for piece in zip(
                colors[picture, None].split(_PIECE, 2), slope[picture, None].split(_PIECE, 2), strict=True
            ):
                _grad_lut(nodes, *piece, sums)
        return sums

    # four sums, whatever the number of threads, so that the result does not depend on it
    quarter = -(-rgb.shape[2] // 4) if _is_plain_cpu(rgb) and rgb.shape[2] > _PIECE else 0
    columns = [slice(i * quarter, (i + 1) * quarter) for i in range(4)] if quarter else [slice(None)]
    return sum(in_threads(part, columns)).to(result_dtype(rgb)).reshape(3, nodes, nodes, nodes)


def _lookup_setup(ctx, inputs, output) -> None:
    lut, rgb, ctx.deterministic = inputs
    ctx.save_for_backward(lut, rgb)


def _lookup_backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    lut, rgb = ctx.saved_tensors
    to_lut, to_rgb, _ = ctx.needs_input_grad
    return (
        _lookup_grad_lut(rgb, grad, lut.shape[1], ctx.deterministic) if to_lut else None,
        _lookup_grad_rgb(lut, rgb, grad) if to_rgb else None,
        None,
    )


_lookup.register_autograd(_lookup_backward, setup_context=_lookup_setup)
