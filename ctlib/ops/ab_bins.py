"""Colors as a distribution over 313 bins of the ab plane, there and back (Zhang, Isola and Efros 2016).

`encode_ab` finds the k nearest bins of a color without measuring the distance to all 313: the plane is cut into cells
of 5 x 5, and a table made once holds the few bins that can be among the k nearest of any point of a cell.
`annealed_mean` reads the logits once and keeps a running maximum, sum and weighted sums (Milakov and Gimelshein 2018),
so that nothing of the size of the logits is made on the way; its gradient reads them once more.
"""

import math
from functools import cache

import torch
from torch import Tensor

from ctlib.ops.launch import jit, takes_kernel, tl, triton, wrap_triton

# The published list: for a = -90, -80 .. 100 the bins are b = first, first + 10 .. last. No rule gives it.
_FIRST = (50, 20, 0, -20, -30, -40, -50, -50, -60, -70, -80, -80, -90, -100, -100, -110, -110, -110, -110, -90)
_LAST = (90, 90, 90, 90, 100, 100, 100, 100, 100, 100, 90, 90, 90, 90, 80, 80, 80, 70, 70, 0)

#: The 313 bin centers `(a, b)`, float32 `(313, 2)`, by rising a, then rising b; multiples of 10.
AB_BINS = torch.tensor(
    [
        (10.0 * row - 90, float(b))
        for row, (first, last) in enumerate(zip(_FIRST, _LAST, strict=True))
        for b in range(first, last + 1, 10)
    ]
)
_BINS = 313
_REACH = 130  # the cells cover [-130, 130] squared: every value of 8-bit Lab, and more than sRGB
_CELL = 5
_SIDE = 2 * _REACH // _CELL
_CHUNK = 16384  # pixels that the CPU treats at a time


def encode_ab(ab: Tensor, k: int = 5, sigma: float = 5.0) -> tuple[Tensor, Tensor]:
    """The k nearest bins of every color, with Gaussian weights (Zhang et al. 2016, section 2.2). No gradient: a target.

    Args:
        ab: `(B, 2, H, W)` float, CIELAB units. Values beyond +-130, far outside of sRGB, are moved to that border
            first; NaN gives NaN weights (and the bins of 0, 0).
        k: how many bins; the paper says 5, its published training layer takes 10.
        sigma: of the Gaussian, in CIELAB units.

    Returns:
        `index (B, k, H, W)` int64, nearest first, and of equally near ones the lower first (distances are float32);
        `weight (B, k, H, W)` float32, `exp(-d^2 / (2 sigma^2))` over its sum.

    Raises:
        ValueError: a wrong shape or dtype, k outside 1 .. 313, sigma not above 0.

    Example:
        >>> index, weight = encode_ab(torch.tensor([40.0, -30.0]).view(1, 2, 1, 1), k=1)
        >>> AB_BINS[index.item()].tolist(), weight.item()
        ([40.0, -30.0], 1.0)
    """
    if ab.ndim != 4 or ab.shape[1] != 2 or not ab.is_floating_point():
        raise ValueError(f"ab: expected float (B, 2, H, W), got {ab.dtype} {tuple(ab.shape)}; drop L with lab[:, 1:]")
    if not 1 <= k <= _BINS:
        raise ValueError(f"k: expected 1 to {_BINS} bins, got {k}; the paper takes 5")
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma: expected a finite number above 0, got {sigma}; the paper takes 5")
    return torch.ops.ctlib.encode_ab(ab.detach(), k, float(sigma))


def dense_bins(index: Tensor, weight: Tensor) -> Tensor:
    """Planes of all bins from what `encode_ab` returns: `(B, 313, H, W)`, dtype of `weight`, zero elsewhere.

    Raises:
        ValueError: shapes that differ.
    """
    if index.shape != weight.shape or index.ndim != 4:
        raise ValueError(
            f"index, weight: expected one shape (B, k, H, W), got {tuple(index.shape)} and {tuple(weight.shape)}; "
            "give both as encode_ab returns them"
        )
    planes = weight.new_zeros((index.shape[0], _BINS, *index.shape[2:]))
    return planes.scatter(1, index, weight)


def annealed_mean(logits: Tensor, temperature: float = 0.38) -> Tensor:
    """Expected bin center under `softmax(logits / temperature)` (Zhang et al. 2016, eq. 5). Differentiable in `logits`.

    Args:
        logits: `(B, 313, H, W)` float, in the order of `AB_BINS`; -inf rules a bin out. Sums are float32, or float64
            for float64. Other layouts than contiguous are copied first on a GPU.
        temperature: T; towards 0 the mode, 1 the mean.

    Returns:
        `(B, 2, H, W)`, CIELAB units, dtype of `logits`. NaN where every logit is -inf.

    Raises:
        ValueError: a wrong shape or dtype, or a temperature not above 0.

    Example:
        >>> annealed_mean(torch.zeros(1, 313, 1, 1)).flatten().round(decimals=2).tolist()
        [15.69, 6.68]
    """
    if logits.ndim != 4 or logits.shape[1] != _BINS or not logits.is_floating_point():
        raise ValueError(
            f"logits: expected float (B, {_BINS}, H, W), got {logits.dtype} {tuple(logits.shape)}; "
            "put the bins on axis 1, e.g. with movedim"
        )
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature: expected a finite number above 0, got {temperature}; the paper takes 0.38")
    ab, _ = torch.ops.ctlib.annealed_mean(logits.flatten(2), _bins(logits), float(temperature))
    return ab.to(logits.dtype).unflatten(2, logits.shape[2:])


# Encoding


@cache
def _candidates(k: int, device: torch.device) -> Tensor:
    """Bins that can be among the k nearest of a point, int32 `(cells, M)`, rising, -1 where there are fewer.

    Sufficient: leave a bin out only if its least distance to the cell exceeds the k-th smallest of all bins' greatest
    distances; then k bins are nearer from anywhere in the cell. Whole numbers, so nothing is lost by rounding. An entry
    packs index, a / 10 and b / 10 into 9 + 5 + 5 bits: one fetch a bin.
    """
    edge = torch.arange(-_REACH, _REACH, _CELL)
    corner = torch.cartesian_prod(edge, edge)[:, None]
    bins = AB_BINS.long()
    least = torch.maximum(corner - bins, bins - corner - _CELL).clamp(min=0).square().sum(-1)
    most = torch.maximum((corner - bins).abs(), (corner + _CELL - bins).abs()).square().sum(-1)
    possible = least <= most.topk(k, largest=False).values[:, -1:]
    packed = torch.arange(_BINS) | (bins[:, 0] // 10 + 16) << 9 | (bins[:, 1] // 10 + 16) << 14
    count = int(possible.sum(1).max())
    first = possible.to(torch.int8).sort(dim=1, descending=True, stable=True)
    chosen = torch.where(first.values[:, :count] > 0, packed[first.indices[:, :count]], -1)
    return chosen.to(torch.int32).to(device)


def _encode_reference(ab: Tensor, table: Tensor, k: int, sigma: float) -> tuple[Tensor, Tensor]:
    """`(n, 2)` to two of `(n, k)`."""
    ab = ab.float()
    known = (ab == ab).all(1, keepdim=True)
    ab = torch.where(known, ab, 0.0).clamp(-_REACH, _REACH)
    cell = ((ab + _REACH) / _CELL).long().clamp(max=_SIDE - 1)
    entry = table[cell[:, 0] * _SIDE + cell[:, 1]]
    da = (ab[:, :1] - ((entry >> 9 & 31) * 10 - 160)).abs()
    db = (ab[:, 1:] - ((entry >> 14) * 10 - 160)).abs()
    # the larger first: bins that mirror each other at a diagonal then tie exactly, here and in the kernel
    square = torch.maximum(da, db).square() + torch.minimum(da, db).square()
    square = torch.where(entry < 0, torch.inf, square)
    # floats that are not negative rise as their bits do: one whole number holds the distance and, below it, the index
    key = square.view(torch.int32).long() << 9 | entry & 511
    key = key.topk(k, dim=1, largest=False).values
    square = (key >> 9).int().view(torch.float32)
    weight = ((square[:, :1] - square) / (2 * sigma**2)).exp()
    return key & 511, torch.where(known, weight / weight.sum(1, keepdim=True), torch.nan)


@jit
def _encode_kernel(
    ab_ptr, table_ptr, index_ptr, weight_ptr, N, rate, blocks, K: tl.constexpr, M: tl.constexpr, BLOCK: tl.constexpr
):
    """One pass over the candidates a result: the least `(distance, index)` that is greater than the one before."""
    program = tl.program_id(0).to(tl.int64)
    b = program // blocks
    p = program % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = p < N
    a_value = tl.load(ab_ptr + 2 * b * N + p, mask=inside, other=0).to(tl.float32)
    b_value = tl.load(ab_ptr + (2 * b + 1) * N + p, mask=inside, other=0).to(tl.float32)
    known = (a_value == a_value) & (b_value == b_value)
    a_value = tl.where(known, tl.minimum(tl.maximum(a_value, -130.0), 130.0), 0.0)
    b_value = tl.where(known, tl.minimum(tl.maximum(b_value, -130.0), 130.0), 0.0)
    row = tl.minimum(((a_value + 130.0) * 0.2).to(tl.int32), 51)
    column = tl.minimum(((b_value + 130.0) * 0.2).to(tl.int32), 51)
    cell = table_ptr + (row * 52 + column) * M
    last = tl.full([BLOCK], -1.0, tl.float32)
    last_index = tl.full([BLOCK], -1, tl.int32)
    nearest = tl.zeros([BLOCK], tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for j in range(K):
        best = tl.full([BLOCK], float("inf"), tl.float32)
        best_index = tl.zeros([BLOCK], tl.int32)
        for m in range(M):
            entry = tl.load(cell + m)
            index = entry & 511
            da = tl.abs(a_value - (((entry >> 9) & 31) * 10 - 160).to(tl.float32))
            db = tl.abs(b_value - ((entry >> 14) * 10 - 160).to(tl.float32))
            high = tl.maximum(da, db)
            low = tl.minimum(da, db)
            square = high * high + low * low
            later = (square > last) | ((square == last) & (index > last_index))
            better = (entry >= 0) & later & (square < best)  # rising index: the lower of two equals came first
            best = tl.where(better, square, best)
            best_index = tl.where(better, index, best_index)
        last = best
        last_index = best_index
        nearest = best if j == 0 else nearest
        weight = tl.exp2((nearest - best) * rate)
        total += weight
        at = (b * K + j) * N + p
        tl.store(index_ptr + at, best_index.to(tl.int64), mask=inside)
        tl.store(weight_ptr + at, weight, mask=inside)
    total = tl.where(known, total, float("nan"))
    for j in range(K):  # each thread takes back what it wrote
        at = (b * K + j) * N + p
        tl.store(weight_ptr + at, tl.load(weight_ptr + at, mask=inside, other=0) / total, mask=inside)


# opaque to torch.compile, unlike the other ops: its table is made once, which tracing would not see
@torch.library.custom_op("ctlib::encode_ab", mutates_args=())
def _encode(ab: Tensor, k: int, sigma: float) -> tuple[Tensor, Tensor]:
    index, weight = _encode_fake(ab, k, sigma)
    if ab.numel() == 0:
        return index, weight
    table = _candidates(k, ab.device)
    size = ab.shape[2] * ab.shape[3]
    if takes_kernel(ab):
        blocks = triton.cdiv(size, 256)
        with torch.cuda.device_of(ab):
            _encode_kernel[(ab.shape[0] * blocks,)](
                ab.contiguous(), table, index, weight, size, math.log2(math.e) / (2 * sigma**2), blocks,
                K=k, M=table.shape[1], BLOCK=256,
            )  # fmt: skip
        return index, weight
    for image, image_index, image_weight in zip(
        ab.flatten(2).mT, index.flatten(2).mT, weight.flatten(2).mT, strict=True
    ):
        for start in range(0, size, _CHUNK):  # pixels x M and a few of its kind
            part = slice(start, start + _CHUNK)
            image_index[part], image_weight[part] = _encode_reference(image[part], table, k, sigma)
    return index, weight


@_encode.register_fake
def _encode_fake(ab: Tensor, k: int, sigma: float) -> tuple[Tensor, Tensor]:
    shape = (ab.shape[0], k, ab.shape[2], ab.shape[3])
    return (
        torch.empty(shape, dtype=torch.int64, device=ab.device),
        torch.empty(shape, dtype=torch.float32, device=ab.device),
    )


# Decoding. `(B, 313, N)` to ab `(B, 2, N)` and, for the gradient, the greatest logit and the sum `(B, 2, N)`.


def _bins(logits: Tensor) -> Tensor:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    if torch.compiler.is_compiling():
        return AB_BINS.to(logits.device, dtype)
    return _bins_on(logits.device, dtype)


@cache
def _bins_on(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The bin centers, copied once: a copy a call would stop the CPU until the GPU has caught up."""
    with torch.inference_mode(False):  # whoever asks first
        return AB_BINS.to(device, dtype)


def _mean_reference(logits: Tensor, bins: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    wide = logits.to(bins.dtype)
    top = wide.amax(1, keepdim=True)
    rise = ((wide - top) / temperature).exp()
    total = rise.sum(1, keepdim=True)
    with torch.autocast(logits.device.type, enabled=False):
        return torch.matmul(bins.mT, rise) / total, torch.cat([top, total], 1)


def _mean_backward_reference(
    grad: Tensor, logits: Tensor, bins: Tensor, ab: Tensor, norm: Tensor, temperature: float
) -> Tensor:
    """`dL/dz_q = p_q / T * (c_q - ab) . dL/dab`."""
    p = ((logits.to(bins.dtype) - norm[:, :1]) / temperature).exp() / norm[:, 1:]
    with torch.autocast(logits.device.type, enabled=False):
        pull = torch.matmul(bins, grad) - (grad * ab).sum(1, keepdim=True)
    return (p * pull / temperature).to(logits.dtype)


def _chunks(x: Tensor) -> list[slice]:
    """Stretches of pixels whose logits fit the cache of a CPU core; all pixels at once while tracing."""
    if type(x) is not Tensor or x.device.type != "cpu":
        return [slice(None)]
    return [slice(start, start + _CHUNK // 16) for start in range(0, x.shape[2], _CHUNK // 16)]


@jit
def _mean_kernel(
    logits_ptr, bins_ptr, ab_ptr, norm_ptr, N, rate, blocks, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Every cell of a tile `(ROWS, pixels)` keeps the running sums of each ROWS-th bin; they meet at the end."""
    program = tl.program_id(0).to(tl.int64)
    b = program // blocks
    p = program % blocks * BLOCK + tl.arange(0, BLOCK)
    row = tl.arange(0, ROWS)
    tile = row[:, None] * N + p[None, :]
    logits_ptr += b * 313 * N
    # the least float, not -inf: the difference of two -inf is NaN
    top = tl.full([ROWS, BLOCK], -3.4028234e38, tl.float32)
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    a_sum = tl.zeros([ROWS, BLOCK], tl.float32)
    b_sum = tl.zeros([ROWS, BLOCK], tl.float32)
    for first in range(0, 313, ROWS):
        q = first + row
        inside = (q < 313)[:, None] & (p < N)[None, :]
        z = tl.load(logits_ptr + tile, mask=inside, other=-float("inf")).to(tl.float32)
        a = tl.load(bins_ptr + 2 * q, mask=q < 313, other=0)[:, None]
        b_ = tl.load(bins_ptr + 2 * q + 1, mask=q < 313, other=0)[:, None]
        # one power instead of two: either the old sums or the new term keep their size
        small = tl.exp2(-tl.abs(z - top) * rate)
        higher = z > top
        old = tl.where(higher, small, 1.0)
        new = tl.where(higher, 1.0, small)
        top = tl.where(higher, z, top)
        total = total * old + new
        a_sum = a_sum * old + new * a
        b_sum = b_sum * old + new * b_
        logits_ptr += ROWS * N
    peak = tl.max(top, 0)
    share = tl.exp2((top - peak[None, :]) * rate)
    whole = tl.sum(total * share, 0)
    out = 2 * b * N + p
    tl.store(ab_ptr + out, tl.sum(a_sum * share, 0) / whole, mask=p < N)
    tl.store(ab_ptr + out + N, tl.sum(b_sum * share, 0) / whole, mask=p < N)
    tl.store(norm_ptr + out, peak, mask=p < N)
    tl.store(norm_ptr + out + N, whole, mask=p < N)


@jit
def _mean_backward_kernel(
    grad_ptr, logits_ptr, bins_ptr, ab_ptr, norm_ptr, out_ptr, N, rate, inverse, blocks,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    b = program // blocks
    p = program % blocks * BLOCK + tl.arange(0, BLOCK)
    row = tl.arange(0, ROWS)
    tile = row[:, None] * N + p[None, :]
    logits_ptr += b * 313 * N
    out_ptr += b * 313 * N
    plane = 2 * b * N + p
    a_grad = tl.load(grad_ptr + plane, mask=p < N, other=0)
    b_grad = tl.load(grad_ptr + plane + N, mask=p < N, other=0)
    a_mean = tl.load(ab_ptr + plane, mask=p < N, other=0)
    b_mean = tl.load(ab_ptr + plane + N, mask=p < N, other=0)
    top = tl.load(norm_ptr + plane, mask=p < N, other=0)[None, :]
    share = inverse / tl.load(norm_ptr + plane + N, mask=p < N, other=1)
    a_grad = (a_grad * share)[None, :]
    b_grad = (b_grad * share)[None, :]
    for first in range(0, 313, ROWS):
        q = first + row
        inside = (q < 313)[:, None] & (p < N)[None, :]
        z = tl.load(logits_ptr + tile, mask=inside, other=0).to(tl.float32)
        a = tl.load(bins_ptr + 2 * q, mask=q < 313, other=0)[:, None] - a_mean[None, :]
        b_ = tl.load(bins_ptr + 2 * q + 1, mask=q < 313, other=0)[:, None] - b_mean[None, :]
        tl.store(out_ptr + tile, tl.exp2((z - top) * rate) * (a * a_grad + b_ * b_grad), mask=inside)
        logits_ptr += ROWS * N
        out_ptr += ROWS * N


@torch.library.triton_op("ctlib::annealed_mean", mutates_args=())
def _mean(logits: Tensor, bins: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    batch, _, size = logits.shape
    ab, norm = (torch.empty((batch, 2, size), dtype=bins.dtype, device=logits.device) for _ in range(2))
    if takes_kernel(logits) and logits.numel():
        blocks = triton.cdiv(int(size), 128)
        with torch.cuda.device_of(logits):
            wrap_triton(_mean_kernel)[(batch * blocks,)](
                logits.contiguous(), bins, ab, norm, size, math.log2(math.e) / temperature, blocks,
                ROWS=16 if logits.dtype == torch.float32 else 8, BLOCK=128,
            )  # fmt: skip
        return ab, norm
    for part in _chunks(logits):
        ab[..., part], norm[..., part] = _mean_reference(logits[..., part], bins, temperature)
    return ab, norm


@torch.library.triton_op("ctlib::annealed_mean_backward", mutates_args=())
def _mean_backward(grad: Tensor, logits: Tensor, bins: Tensor, ab: Tensor, norm: Tensor, temperature: float) -> Tensor:
    batch, _, size = logits.shape
    out = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    if takes_kernel(logits) and logits.numel():
        blocks = triton.cdiv(int(size), 128)
        with torch.cuda.device_of(logits):
            wrap_triton(_mean_backward_kernel)[(batch * blocks,)](
                grad.contiguous(), logits.contiguous(), bins, ab, norm, out,
                size, math.log2(math.e) / temperature, 1 / temperature, blocks,
                ROWS=16, BLOCK=128,
            )  # fmt: skip
        return out
    for part in _chunks(logits):
        out[..., part] = _mean_backward_reference(
            grad[..., part], logits[..., part], bins, ab[..., part], norm[..., part], temperature
        )
    return out


def _mean_context(ctx, inputs, output) -> None:
    logits, bins, ctx.temperature = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(logits, bins, *output)


def _mean_gradient(ctx, grad: Tensor, _):
    return torch.ops.ctlib.annealed_mean_backward(grad, *ctx.saved_tensors, ctx.temperature), None, None


_mean.register_autograd(_mean_gradient, setup_context=_mean_context)
