r"""Turn the hue and scale the saturation of a picture, then put its lightness back: a new palette for a known picture.

PaletteNet makes its training pairs this way (equation 10: turn the hue in HSV, restore L\*), and so does Histogram
Analogy ("average hue and saturation"). The result stays in CIELAB, for colors may lie outside sRGB, where leaving would
clip them. Out of the functions of `ctlib.color` the chain RGB, HSV, RGB, Lab writes some fifty pictures to memory; here
it reads one and writes one.

Measured in: notebooks/71_ops. Sources: Cho et al., *PaletteNet*, 2017; Lee et al., *Deep Color Transfer using Histogram
Analogy*, 2020.
"""

import torch
from torch import Tensor

from ctlib.ops.lab import lab_from_linear, lab_of, linear_kernel_of, linear_table
from ctlib.ops.launch import compilable, jit, takes_kernel, tl
from ctlib.ops.pixels import dense, fill, launch_pixels, like, load, place, result_dtype, store


def shift_hue(rgb: Tensor, shift: Tensor | float, saturation: Tensor | float = 1.0) -> Tensor:
    r"""Hue and saturation change that keeps L\*, in one pass. Augmentation: it has no gradient.

    Args:
        rgb: `(B, 3, ...)` float32, bfloat16 or float64 sRGB in [0, 1], or uint8 levels; channels first or last.
        shift: turns of the hue in HSV, 1 = full circle; one value or `(B,)`, one a picture.
        saturation: factor >= 0 of the saturation in HSV, which is held below 1; one value or `(B,)`.

    Returns:
        `(B, 3, ...)` **CIELAB**, float32 (float64 for float64), laid out as `rgb`: the L of the input, a and b of the
        changed picture.

    Raises:
        ValueError: wrong dtype or shape, an argument that requires a gradient, not one value a picture, or a number
            below 0 for the saturation.

    Example:
        >>> red = torch.tensor([[1.0, 0, 0]])
        >>> shift_hue(red, 1 / 3).round().tolist()  # the a and b of green, as light as red
        [[53.0, -86.0, 83.0]]
    """
    if rgb.dtype not in (torch.uint8, torch.float32, torch.bfloat16, torch.float64):
        raise ValueError(f"rgb: expected uint8, float32, bfloat16 or float64, got {rgb.dtype}; convert it first")
    if rgb.ndim < 2 or rgb.shape[1] != 3:
        raise ValueError(f"rgb: expected 3 color channels on axis 1, (B, 3, ...), got shape {tuple(rgb.shape)}")
    for name, given in (("rgb", rgb), ("shift", shift), ("saturation", saturation)):
        if isinstance(given, Tensor) and given.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name}: shift_hue is augmentation and has no gradient; pass {name}.detach()")
    if not isinstance(saturation, Tensor) and saturation < 0:
        raise ValueError(f"saturation: expected a factor of at least 0, got {saturation}")
    return _shift_hue(rgb, _one_a_picture(shift, rgb, "shift"), _one_a_picture(saturation, rgb, "saturation"))


def _one_a_picture(value: Tensor | float, rgb: Tensor, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.full((len(rgb),), float(value), dtype=result_dtype(rgb), device=rgb.device)
    if value.numel() not in (1, len(rgb)):
        raise ValueError(f"{name}: expected one value or {len(rgb)}, one a picture, got {value.numel()}")
    return value.detach().to(rgb.device, result_dtype(rgb)).flatten().expand(len(rgb)).contiguous()


@compilable
def _planes(red, green, blue, shift, saturation, out_l, out_a, out_b) -> None:
    if red.dtype == torch.uint8:
        red, green, blue = red * (1 / 255), green * (1 / 255), blue * (1 / 255)
    red, green, blue = (plane.to(out_l.dtype) for plane in (red, green, blue))
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    safe = torch.where(chroma > 0, chroma, 1.0)
    # sixths of the circle, counted from red
    other = torch.where(green == value, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    turned = torch.where(red == value, (green - blue) / safe, other) + 6 * shift
    chroma = torch.minimum(chroma * saturation, value)
    changed = [value - chroma * _weight(turned + start) for start in (5, 3, 1)]
    out_l.copy_(lab_of(red, green, blue)[0])
    _, a, b = lab_of(*changed)
    out_a.copy_(a)
    out_b.copy_(b)


def _weight(k: Tensor) -> Tensor:
    """How much of the chroma a channel lacks, k sixths of the circle away from where it lacks none."""
    k = k - 6 * torch.floor(k * (1 / 6))
    return torch.minimum(k, 4 - k).clamp(0, 1)


@jit
def _weight_kernel(k):
    k -= 6 * tl.floor(k * (1 / 6))
    return tl.minimum(tl.maximum(tl.minimum(k, 4 - k), 0.0), 1.0)


@jit
def _kernel(rgb, table, shift, saturation, out, plane, bound, blocks, INTERLEAVED: tl.constexpr, BLOCK: tl.constexpr):
    offset, step, index, picture = place(plane, blocks, INTERLEAVED, BLOCK)
    red, green, blue = load(rgb, offset, step, index, bound, INTERLEAVED)
    if rgb.dtype.element_ty == tl.uint8:
        lin_red = tl.load(table + red.to(tl.int32))
        lin_green = tl.load(table + green.to(tl.int32))
        lin_blue = tl.load(table + blue.to(tl.int32))
        red, green, blue = red.to(tl.float32) / 255, green.to(tl.float32) / 255, blue.to(tl.float32) / 255
    else:
        red, green, blue = red.to(tl.float32), green.to(tl.float32), blue.to(tl.float32)
        lin_red, lin_green, lin_blue = linear_kernel_of(red), linear_kernel_of(green), linear_kernel_of(blue)
    lightness, _, _ = lab_from_linear(lin_red, lin_green, lin_blue)
    value = tl.maximum(tl.maximum(red, green), blue) + 0 * (red + green + blue)  # a maximum alone hides a NaN
    chroma = value - tl.minimum(tl.minimum(red, green), blue)
    safe = tl.where(chroma > 0, chroma, 1.0)
    other = tl.where(green == value, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    turned = tl.where(red == value, (green - blue) / safe, other) + 6 * tl.load(shift + picture)
    chroma = tl.minimum(chroma * tl.load(saturation + picture), value)
    red = linear_kernel_of(value - chroma * _weight_kernel(turned + 5))
    green = linear_kernel_of(value - chroma * _weight_kernel(turned + 3))
    blue = linear_kernel_of(value - chroma * _weight_kernel(turned + 1))
    _, a, b = lab_from_linear(red, green, blue)
    store(out, offset, step, index, bound, lightness, a, b, INTERLEAVED)


@torch.library.triton_op("ctlib::shift_hue", mutates_args=())
def _shift_hue(rgb: Tensor, shift: Tensor, saturation: Tensor) -> Tensor:
    rgb = dense(rgb)
    out = like(rgb)
    if takes_kernel(rgb):
        launch_pixels(_kernel, rgb, linear_table(rgb), shift, saturation, out, apart=True)
    else:
        fill(_planes, (rgb,), out, settings=(shift, saturation))
    return out
