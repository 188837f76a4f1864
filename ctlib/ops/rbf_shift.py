r"""Chang's RBF blend of palette shifts.

The blend of Chang et al. (SIGGRAPH 2015) with a plain shift for each palette color: fast enough for previews and for
the augmentation of palette networks. The full method, which stays in gamut and keeps the order of lightness, is
`ctlib.classical.palette.transfer`.

The gradient is written by hand; there is no second derivative.

Measured in: notebooks/71_ops.
"""

import torch
from torch import Tensor

from ctlib.ops.launch import jit, takes_kernel, tl
from ctlib.ops.palette_lut import block_of, check_colors, in_pieces, launch_blocks
from ctlib.ops.pixels import result_dtype

MAX_PALETTE = 16  # colors; above it the kernel would run out of registers


def rbf_shift(lab: Tensor, palette: Tensor, new_palette: Tensor) -> Tensor:
    r"""Shift colors as a palette is shifted: $f(x) = x + \sum_i w_i(x) (C'_i - C_i)$.

    $w_i(x) = \max(0, \sum_j \lambda_{ij} \phi(\lVert x - C_j \rVert))$, divided by their sum, with
    $\phi(r) = e^{-r^2 / 2 \sigma^2}$, $\sigma$ the mean pairwise distance of the palette and $\Lambda = \Phi^{-1}$: so
    a palette color lands on its new color (Chang et al. 2015). Duplicates share one weight.

    Args:
        lab: `(B, 3, ...)` float CIELAB, natural units.
        palette: `(k, 3)` or `(B, k, 3)` CIELAB, k from 1 to 16. Gets no gradient. On the CPU, a palette costs a GPU no
            wait; its small system of equations is solved where it lies.
        new_palette: the same colors after the edit, `(k, 3)` or `(B, k, 3)`. Differentiable, as `lab` is.

    Returns:
        `(B, 3, ...)` in the dtype and on the device of `lab`, contiguous; not clipped to the gamut. Computed in
        float32 (float64 for float64); below float64, palette colors closer than about a thousandth of the mean
        distance count as duplicates.

    Raises:
        ValueError: wrong shapes, or not float.
    """
    check_colors(lab, "lab")
    for name, colors in (("palette", palette), ("new_palette", new_palette)):
        if not colors.is_floating_point():
            raise ValueError(f"{name}: expected float CIELAB colors, got {colors.dtype}; convert it with .float()")
        if colors.ndim not in (2, 3) or colors.shape[-1] != 3 or not 1 <= colors.shape[-2] <= MAX_PALETTE:
            raise ValueError(
                f"{name}: expected (k, 3) or (B, k, 3) with k from 1 to {MAX_PALETTE}, got {tuple(colors.shape)}"
            )
        if colors.ndim == 3 and colors.shape[0] not in (1, lab.shape[0]):
            raise ValueError(f"{name}: has {colors.shape[0]} palettes for {lab.shape[0]} pictures; give one for each")
    if palette.shape[-2] != new_palette.shape[-2]:
        raise ValueError(
            f"new_palette: has {new_palette.shape[-2]} colors, the palette {palette.shape[-2]}; give one for each"
        )
    if lab.ndim == 2:  # colors without pictures
        palette, new_palette = (
            each[0] if each.ndim == 3 and len(each) == 1 else each for each in (palette, new_palette)
        )
        if palette.ndim == new_palette.ndim == 2:
            return rbf_shift(lab.T[None], palette, new_palette)[0].T.contiguous()
        return rbf_shift(lab[..., None], palette, new_palette)[..., 0]
    working = result_dtype(lab)
    old = palette.detach().double().reshape(-1, *palette.shape[-2:])
    inverse, sharpness = rbf_system(old, 1e-14 if working == torch.float64 else 1e-6)
    moves = new_palette.to(lab.device, torch.float64).reshape(-1, *palette.shape[-2:]) - old.to(lab.device)
    old, inverse, sharpness, moves = (
        each.to(lab.device, working).expand(lab.shape[0], *each.shape[1:]).contiguous()
        for each in (old, inverse, sharpness, moves)
    )
    return _rbf_shift(lab.flatten(2), old, inverse, sharpness, moves).reshape(lab.shape)


def rbf_system(palette: Tensor, rtol: float = 1e-14) -> tuple[Tensor, Tensor]:
    r"""$\Lambda = \Phi^{+}$ and $1 / 2 \sigma^2$ of palettes.

    Args:
        palette: `(P, k, 3)` float64 CIELAB.
        rtol: eigenvalues of Phi below this share of the largest count as 0, which is how duplicates share a weight.

    Returns:
        `(P, k, k)` and `(P,)`, float64.
    """
    k = palette.shape[1]
    squared = (palette[:, :, None] - palette[:, None]).square().sum(3)
    width = squared.sqrt().sum((1, 2)) / max(1, k * (k - 1))
    width = torch.where(width > 0, width, 1.0)  # a single color, however often
    sharpness = 0.5 / width.square()
    return torch.linalg.pinv(torch.exp(-sharpness[:, None, None] * squared), rtol=rtol), sharpness


def blend_weights(squared: Tensor, inverse: Tensor, sharpness: Tensor | float) -> Tensor:
    """Squared distances `(..., k, N)` to Chang's weights `(..., k, N)`: not negative, sum 1.

    The nearest color's distance is taken off: a common factor that the division cancels, without which all kernels
    underflow far from the palette.
    """
    weights = inverse @ torch.exp(-sharpness * (squared - squared.amin(dim=-2, keepdim=True)))
    weights = weights.clamp(min=0)
    return weights / weights.sum(dim=-2, keepdim=True)


# reference


def _square_distance(colors: Tensor, palette: Tensor) -> Tensor:
    """`(b, 3, n)` and `(b, k, 3)` to `(b, k, n)`."""
    return sum((palette[:, :, channel, None] - colors[:, None, channel]).square() for channel in range(3))


def _shift(colors: Tensor, palette: Tensor, inverse: Tensor, sharpness: Tensor, moves: Tensor) -> Tensor:
    colors = colors.to(palette.dtype)
    with torch.autocast(colors.device.type, enabled=False):
        weights = blend_weights(_square_distance(colors, palette), inverse, sharpness[:, None, None])
        return colors + moves.mT @ weights


def _shift_grad(
    colors: Tensor, grad: Tensor, palette: Tensor, inverse: Tensor, sharpness: Tensor, moves: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Gradients to colors `(b, 3, n)` and moves `(b, k, 3)`.

    With $u = \Lambda \phi$, $w = u^+ / \sum u^+$ and $h_i = g \cdot (C'_i - C_i)$: the gradient to $u_i$ is
    $(h_i - \sum_l w_l h_l) / \sum u^+$ where $u_i > 0$. Let $q_j = \phi_j \sum_i \lambda_{ij} \bar u_i$. A common
    factor of the kernels changes no weight, so $\sum_j q_j = 0$, and the gradient to x is $g + 2 s \sum_j q_j C_j$.
    """
    colors, grad, s = colors.to(palette.dtype), grad.to(palette.dtype), sharpness[:, None, None]
    squared = _square_distance(colors, palette)
    phi = torch.exp(-s * (squared - squared.amin(dim=1, keepdim=True)))
    with torch.autocast(colors.device.type, enabled=False):
        raw = inverse @ phi
        total = raw.clamp(min=0).sum(1, keepdim=True)
        weights = raw.clamp(min=0) / total
        gain = moves @ grad
        gain = torch.where(raw > 0, (gain - (weights * gain).sum(1, keepdim=True)) / total, 0)
        return grad + 2 * s * (palette.mT @ (phi * (inverse.mT @ gain))), weights @ grad.mT


# kernels


@jit
def _weigh(L, a, b, palette, inverse, sharpness, K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr):
    """Raw weights `(KP, BLOCK)` and the least square distance `(BLOCK,)`; the kernels are computed one at a time."""
    nearest = tl.full((BLOCK,), float("inf"), tl.float32)
    for j in tl.static_range(K):
        nearest = tl.minimum(nearest, _apart(L, a, b, palette + 3 * j))
    row = tl.arange(0, KP)
    raw = tl.zeros((KP, BLOCK), tl.float32)
    for j in tl.static_range(K):
        phi = tl.exp2((nearest - _apart(L, a, b, palette + 3 * j)) * (sharpness * 1.4426950408889634))
        raw += tl.load(inverse + row * K + j, mask=row < K, other=0)[:, None] * phi[None, :]
    return raw, nearest


@jit
def _apart(L, a, b, color):
    L -= tl.load(color)
    a -= tl.load(color + 1)
    b -= tl.load(color + 2)
    return L * L + a * a + b * b


@jit
def _shift_kernel(
    lab, palette, inverse, sharpness, moves, out, size, blocks,
    K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    picture, base, inside = block_of(blocks, size, BLOCK)
    L = tl.load(lab + base, mask=inside, other=0).to(tl.float32)
    a = tl.load(lab + base + size, mask=inside, other=0).to(tl.float32)
    b = tl.load(lab + base + size + size, mask=inside, other=0).to(tl.float32)
    s = tl.load(sharpness + picture)
    raw, _ = _weigh(L, a, b, palette + picture * K * 3, inverse + picture * K * K, s, K, KP, BLOCK)
    weights = tl.maximum(raw, 0.0)
    share = 1 / tl.sum(weights, axis=0)
    row = tl.arange(0, KP)
    move = moves + picture * K * 3 + row * 3
    L += share * tl.sum(weights * tl.load(move, mask=row < K, other=0)[:, None], axis=0)
    a += share * tl.sum(weights * tl.load(move + 1, mask=row < K, other=0)[:, None], axis=0)
    b += share * tl.sum(weights * tl.load(move + 2, mask=row < K, other=0)[:, None], axis=0)
    tl.store(out + base, L, mask=inside)
    tl.store(out + base + size, a, mask=inside)
    tl.store(out + base + size + size, b, mask=inside)


@jit
def _shift_grad_kernel(
    lab, grad, palette, inverse, sharpness, moves, out, parts, size, blocks,
    K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    picture, base, inside = block_of(blocks, size, BLOCK)
    L = tl.load(lab + base, mask=inside, other=0).to(tl.float32)
    a = tl.load(lab + base + size, mask=inside, other=0).to(tl.float32)
    b = tl.load(lab + base + size + size, mask=inside, other=0).to(tl.float32)
    gL = tl.load(grad + base, mask=inside, other=0).to(tl.float32)
    ga = tl.load(grad + base + size, mask=inside, other=0).to(tl.float32)
    gb = tl.load(grad + base + size + size, mask=inside, other=0).to(tl.float32)
    s = tl.load(sharpness + picture)
    palette += picture * K * 3
    inverse += picture * K * K
    raw, nearest = _weigh(L, a, b, palette, inverse, s, K, KP, BLOCK)
    share = 1 / tl.sum(tl.maximum(raw, 0.0), axis=0)
    weights = tl.maximum(raw, 0.0) * share[None, :]
    row = tl.arange(0, KP)
    move = moves + picture * K * 3 + row * 3
    gain = tl.load(move, mask=row < K, other=0)[:, None] * gL[None, :]
    gain += tl.load(move + 1, mask=row < K, other=0)[:, None] * ga[None, :]
    gain += tl.load(move + 2, mask=row < K, other=0)[:, None] * gb[None, :]
    gain = tl.where(raw > 0, (gain - tl.sum(weights * gain, axis=0)[None, :]) * share[None, :], 0.0)

    part = parts + tl.program_id(0).to(tl.int64) * K * 3 + row * 3
    tl.store(part, tl.sum(weights * gL[None, :], axis=1), mask=row < K)
    tl.store(part + 1, tl.sum(weights * ga[None, :], axis=1), mask=row < K)
    tl.store(part + 2, tl.sum(weights * gb[None, :], axis=1), mask=row < K)

    for j in tl.static_range(K):
        phi = tl.exp2((nearest - _apart(L, a, b, palette + 3 * j)) * (s * 1.4426950408889634))
        column = tl.load(inverse + row * K + j, mask=row < K, other=0)
        pull = 2 * s * phi * tl.sum(gain * column[:, None], axis=0)
        gL += pull * tl.load(palette + 3 * j)
        ga += pull * tl.load(palette + 3 * j + 1)
        gb += pull * tl.load(palette + 3 * j + 2)
    tl.store(out + base, gL, mask=inside)
    tl.store(out + base + size, ga, mask=inside)
    tl.store(out + base + size + size, gb, mask=inside)


# registration


@torch.library.triton_op("ctlib::rbf_shift", mutates_args=())
def _rbf_shift(lab: Tensor, palette: Tensor, inverse: Tensor, sharpness: Tensor, moves: Tensor) -> Tensor:
    """`(B, 3, M)`, `(B, k, 3)`, `(B, k, k)`, `(B,)` and `(B, k, 3)`, all but `lab` in the working dtype."""
    lab, system = lab.detach(), [each.detach() for each in (palette, inverse, sharpness, moves)]
    out = torch.empty_like(lab, memory_format=torch.contiguous_format)
    if takes_kernel(lab):
        launch_blocks(_shift_kernel, lab, lab.contiguous(), *system, out, **_sizes(palette))
        return out

    def work(pictures: slice, columns: slice) -> None:
        part = pictures, slice(None), columns
        out[part] = _shift(lab[part], *(each[pictures] for each in system))

    list(in_pieces(work, lab))
    return out


@torch.library.triton_op("ctlib::rbf_shift_grad", mutates_args=())
def _rbf_shift_grad(
    lab: Tensor, grad: Tensor, palette: Tensor, inverse: Tensor, sharpness: Tensor, moves: Tensor
) -> tuple[Tensor, Tensor]:
    lab, system = lab.detach(), [each.detach() for each in (palette, inverse, sharpness, moves)]
    out = torch.empty_like(lab, memory_format=torch.contiguous_format)
    if takes_kernel(lab):
        sizes = _sizes(palette)
        parts = moves.new_empty(len(lab), -(-lab.shape[2] // sizes["block"]), *moves.shape[1:])
        launch_blocks(_shift_grad_kernel, lab, lab.contiguous(), grad.contiguous(), *system, out, parts, **sizes)
        return out, parts.sum(1)
    to_moves = torch.zeros_like(moves)

    def work(pictures: slice, columns: slice) -> Tensor:
        part = pictures, slice(None), columns
        out[part], to_moves = _shift_grad(lab[part], grad[part], *(each[pictures] for each in system))
        return to_moves

    for pictures, share in in_pieces(work, lab):
        to_moves[pictures] += share
    return out, to_moves


def _sizes(palette: Tensor) -> dict[str, int]:
    """Constants of the kernels of a palette; with 512 pixels a thread reads 16 bytes, with 16 colors it cannot."""
    rows = 1 << (palette.shape[1] - 1).bit_length()
    return {"K": palette.shape[1], "KP": rows, "block": 512 if rows <= 8 else 256}


def _rbf_setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _rbf_backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None, Tensor]:
    lab, *system = ctx.saved_tensors
    to_lab, to_moves = _rbf_shift_grad(lab, grad, *system)
    return to_lab, None, None, None, to_moves


_rbf_shift.register_autograd(_rbf_backward, setup_context=_rbf_setup)
