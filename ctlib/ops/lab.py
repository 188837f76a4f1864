r"""sRGB to CIELAB and back, at the speed of memory: the numbers of `ctlib.color`, in one pass.

`ctlib.color` holds the definition, a chain of small steps that is easy to read and touches memory at each of them. Here
the chain is one function of three planes. On a GPU it is one Triton kernel; on the CPU it is plain torch in which
square roots and short polynomials take the place of powers, so that `torch.compile` makes one vectorized loop of it.
Both directions have their gradient written by hand: only the input is kept for it.

Measured in: notebooks/71_ops. Source: IEC 61966-2-1 (sRGB) and CIE 15 (CIELAB, D65), constants as in scikit-image.
"""

from functools import cache

import torch
from torch import Tensor

from ctlib import color
from ctlib.ops.launch import compilable, jit, takes_kernel, tl
from ctlib.ops.pixels import (
    as_laid_out,
    dense,
    fill,
    interleaved,
    launch_pixels,
    like,
    load,
    place,
    result_dtype,
    store,
)

_FLOATS = (torch.float32, torch.bfloat16, torch.float64)


def rgb_to_lab(rgb: Tensor, *, out: Tensor | None = None) -> Tensor:
    """sRGB to CIELAB (D65); differentiable once, in reverse mode.

    Args:
        rgb: `(B, 3, ...)`, channels first or last in memory. float32, bfloat16 or float64 sRGB in [0, 1]; or uint8
            sRGB levels 0 to 255, for which no gradient exists. Float values up to 1.25 follow the formula, to
            0.002 (a network may overshoot); larger ones are taken as 1.25.
        out: tensor to write to, contiguous or channels last, with the shape of `rgb` and the dtype of the result; it
            may be `rgb` itself, but not overlap it in part. Not differentiable. A fresh result of 12 megapixels costs
            more than the arithmetic: the system must find it 144 MB.

    Returns:
        `(B, 3, ...)` float32 (float64 for float64), laid out as `rgb`: L in [0, 100], a in [-86.2, 98.3], b in
        [-107.9, 94.5]. Within 3e-4 of float64.

    Raises:
        ValueError: wrong dtype or shape, an `out` that does not fit, or `out` where a gradient is wanted.

    Example:
        >>> rgb_to_lab(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).round(decimals=2).abs().flatten().tolist()
        [100.0, 0.0, 0.0]
    """
    _check(rgb, "rgb", (*_FLOATS, torch.uint8))
    if out is None:
        return _rgb_to_lab(rgb)
    _check_out(rgb, out)
    _rgb_to_lab_out(rgb, out)
    return out


def lab_to_rgb(lab: Tensor, *, clip: bool = True, out: Tensor | None = None) -> Tensor:
    """CIELAB (D65) to sRGB; differentiable once, in reverse mode.

    Args:
        lab: `(B, 3, ...)` float32, bfloat16 or float64 in natural units, channels first or last in memory.
        clip: clamp to [0, 1], where the gradient is then 0; with `False`, colors outside the gamut keep their
            out-of-range values, which takes a little longer.
        out: as in `rgb_to_lab`.

    Returns:
        `(B, 3, ...)` float32 (float64 for float64), laid out as `lab`.

    Raises:
        ValueError: as `rgb_to_lab`.
    """
    _check(lab, "lab", _FLOATS)
    if out is None:
        return _lab_to_rgb(lab, clip)
    _check_out(lab, out)
    _lab_to_rgb_out(lab, out, clip)
    return out


def _check(x: Tensor, name: str, dtypes: tuple[torch.dtype, ...]) -> None:
    if x.dtype not in dtypes:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name}: expected {known}, got {x.dtype}; convert it, e.g. with .float()")
    if x.ndim < 2 or x.shape[1] != 3:
        raise ValueError(f"{name}: expected 3 color channels on axis 1, (B, 3, ...), got shape {tuple(x.shape)}")


def _check_out(x: Tensor, out: Tensor) -> None:
    dtype = result_dtype(x)
    if out.shape != x.shape or out.dtype != dtype or out.device != x.device:
        raise ValueError(
            f"out: expected {dtype} {tuple(x.shape)} on {x.device}, got {out.dtype} {tuple(out.shape)} on "
            f"{out.device}; make it with torch.empty_like(input, dtype={dtype})"
        )
    if not (out.is_contiguous() or interleaved(out)):
        raise ValueError(f"out: expected a contiguous or channels_last tensor, got strides {out.stride()}")
    if torch.is_grad_enabled() and (x.requires_grad or out.requires_grad):
        raise ValueError("out: no gradient passes through out; leave it away, or call under torch.no_grad()")


# --- reference: functions of planes; numbers are written out, as a name would become an input of the compiled code ----


def _power(t: Tensor, exponent: float, fast) -> Tensor:
    """A power by `fast`, a polynomial in the root, where a compiler makes one loop of its steps; else as it is."""
    eager = type(t) is Tensor and not torch.compiler.is_compiling()
    return t**exponent if eager or t.dtype == torch.float64 else fast(t)


def _octic(u: Tensor, c0, c1, c2, c3, c4, c5, c6, c7, c8) -> Tensor:
    """Polynomial of degree 8 in pairs (Estrin), which a processor computes side by side, where Horner has it wait."""
    u2 = u * u
    u4 = u2 * u2
    low = (c1 * u + c0) + (c3 * u + c2) * u2
    high = (c5 * u + c4) + (c7 * u + c6) * u2
    return low + (high + c8 * u4) * u4


# minimax coefficients; errors are those in float32


def _fast_0_4(t: Tensor) -> Tensor:
    """t^0.4 for t in [0.09, 1.25], to 6e-7: a polynomial in the square root."""
    return _octic(
        torch.sqrt(t) - 0.71, 0.7603377700, 0.8567162156, -0.1206277162, 0.0681959018, -0.0539358445, 0.0428993516,
        -0.0316173695, 0.0821518824, -0.1217066124,
    )  # fmt: skip


def _fast_1_3(t: Tensor) -> Tensor:
    """t^(1/3) for t in [0.0088, 1.26], to 6e-7: a polynomial in the fourth root."""
    return _octic(
        torch.sqrt(torch.sqrt(t)) - 0.683, 0.6014889479, 1.1742103100, 0.2865170240, -0.0932982191, 0.0574864373,
        -0.0424632207, 0.0314036869, -0.0567370839, 0.0824725181,
    )  # fmt: skip


def _fast_5_12(t: Tensor) -> Tensor:
    """t^(5/12) for t in [0.0031, 1], to 1e-6: a polynomial in the fourth root."""
    return _octic(
        torch.sqrt(torch.sqrt(t)) - 0.618, 0.4483813941, 1.2092269659, 0.6521955132, -0.1173283607, 0.0644255877,
        -0.0456084199, 0.0277583748, -0.0645878688, 0.1168256030,
    )  # fmt: skip


def linear_of(c: Tensor) -> Tensor:
    """Undo the sRGB curve."""
    if c.dtype == torch.uint8:
        c = c.to(torch.float32) * (1 / 255)
    c = c.to(result_dtype(c))
    t = (c.clamp(0.04045, 1.25) + 0.055) * (1 / 1.055)
    return torch.where(c > 0.04045, t * t * _power(t, 0.4, _fast_0_4), c * (1 / 12.92))


def _linear_slope(c: Tensor) -> Tensor:
    t = (c.clamp(0.04045, 1.25) + 0.055) * (1 / 1.055)
    return torch.where(c > 0.04045, (2.4 / 1.055) * t * _power(t, 0.4, _fast_0_4), 1 / 12.92) * (c <= 1.25)


def _curve(t: Tensor) -> Tensor:
    return torch.where(t > 0.008856, _power(t.clamp(min=0.008856), 1 / 3, _fast_1_3), 7.787 * t + 16 / 116)


def _curve_slope(t: Tensor) -> Tensor:
    root = _power(t.clamp(min=0.008856), 1 / 3, _fast_1_3)
    return torch.where(t > 0.008856, 1 / (3 * root * root), 7.787)


def _white_share(red: Tensor, green: Tensor, blue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Linear RGB to XYZ, each as a share of the white's."""
    return (
        (0.412453 / 0.95047) * red + (0.357580 / 0.95047) * green + (0.180423 / 0.95047) * blue,
        0.212671 * red + 0.715160 * green + 0.072169 * blue,
        (0.019334 / 1.08883) * red + (0.119193 / 1.08883) * green + (0.950227 / 1.08883) * blue,
    )


def lab_of(red: Tensor, green: Tensor, blue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Planes of sRGB to planes of CIELAB."""
    x, y, z = (_curve(t) for t in _white_share(linear_of(red), linear_of(green), linear_of(blue)))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@compilable
def _forward(red, green, blue, out_l, out_a, out_b) -> None:
    for out, value in zip((out_l, out_a, out_b), lab_of(red, green, blue), strict=True):
        out.copy_(value)


@compilable
def _forward_backward(grad_l, grad_a, grad_b, red, green, blue, out_red, out_green, out_blue) -> None:
    c = [plane.to(result_dtype(plane)) for plane in (red, green, blue)]
    tx, ty, tz = _white_share(*(linear_of(plane) for plane in c))
    x = 500 * grad_a * _curve_slope(tx)
    y = (116 * grad_l - 500 * grad_a + 200 * grad_b) * _curve_slope(ty)
    z = -200 * grad_b * _curve_slope(tz)
    out_red.copy_(_linear_slope(c[0]) * ((0.412453 / 0.95047) * x + 0.212671 * y + (0.019334 / 1.08883) * z))
    out_green.copy_(_linear_slope(c[1]) * ((0.357580 / 0.95047) * x + 0.715160 * y + (0.119193 / 1.08883) * z))
    out_blue.copy_(_linear_slope(c[2]) * ((0.180423 / 0.95047) * x + 0.072169 * y + (0.950227 / 1.08883) * z))


def _uncurve(f: Tensor) -> Tensor:
    return torch.where(f > 0.2068966, f * f * f, (f - 16 / 116) * (1 / 7.787))


def _uncurve_slope(f: Tensor) -> Tensor:
    return torch.where(f > 0.2068966, 3 * f * f, 1 / 7.787)


def linear_rgb_of(lightness: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Planes of CIELAB to linear light, not clipped."""
    y = (lightness + 16) * (1 / 116)
    x, y, z = _uncurve(y + a * (1 / 500)), _uncurve(y), _uncurve((y - b * (1 / 200)).clamp(min=0))
    return (
        3.079980302271805 * x - 1.537151516271318 * y - 0.5428213080224701 * z,
        -0.9212477523232383 * x + 1.8759900014898907 * y + 0.04524733951446599 * z,
        0.052890461098811827 * x - 0.20404133836651123 * y + 1.1512320119619401 * z,
    )


def encoded_of(t: Tensor, clip: bool) -> Tensor:
    """Apply the sRGB curve."""
    if clip:
        t = t.clamp(0, 1)
    bounded = t.clamp(min=0.0031308)
    root = _power(bounded, 5 / 12, _fast_5_12) if clip else bounded ** (5 / 12)
    return torch.where(t > 0.0031308, 1.055 * root - 0.055, 12.92 * t)


def _encoded_slope(t: Tensor, clip: bool) -> Tensor:
    slope = torch.where(t > 0.0031308, (1.055 * 5 / 12) * t.clamp(min=0.0031308) ** (-7 / 12), 12.92)
    return slope * ((t >= 0) & (t <= 1)) if clip else slope


@compilable
def _inverse(lightness, a, b, out_red, out_green, out_blue, clip: bool) -> None:
    c = [plane.to(result_dtype(plane)) for plane in (lightness, a, b)]
    for out, value in zip((out_red, out_green, out_blue), linear_rgb_of(*c), strict=True):
        out.copy_(encoded_of(value, clip))


@compilable
def _inverse_backward(grad_red, grad_green, grad_blue, lightness, a, b, out_l, out_a, out_b, clip: bool) -> None:
    lightness, a, b = (plane.to(result_dtype(plane)) for plane in (lightness, a, b))
    red, green, blue = (
        grad * _encoded_slope(value, clip)
        for grad, value in zip((grad_red, grad_green, grad_blue), linear_rgb_of(lightness, a, b), strict=True)
    )
    fy = (lightness + 16) * (1 / 116)
    fz = fy - b * (1 / 200)
    x = 3.079980302271805 * red - 0.9212477523232383 * green + 0.052890461098811827 * blue
    y = -1.537151516271318 * red + 1.8759900014898907 * green - 0.20404133836651123 * blue
    z = -0.5428213080224701 * red + 0.04524733951446599 * green + 1.1512320119619401 * blue
    x = x * _uncurve_slope(fy + a * (1 / 500))
    z = z * _uncurve_slope(fz.clamp(min=0)) * (fz >= 0)
    out_l.copy_((x + y * _uncurve_slope(fy) + z) * (1 / 116))
    out_a.copy_(x * (1 / 500))
    out_b.copy_(z * (-1 / 200))


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def power(t, exponent: tl.constexpr):
    return tl.exp2(exponent * tl.log2(t))


@jit
def linear_kernel_of(c):
    t = (tl.minimum(tl.maximum(c, 0.04045), 1.25) + 0.055) * (1 / 1.055)
    return tl.where(c > 0.04045, power(t, 2.4), c * (1 / 12.92))


@jit
def _linear_slope_kernel(c):
    t = (tl.minimum(tl.maximum(c, 0.04045), 1.25) + 0.055) * (1 / 1.055)
    return tl.where(c > 1.25, 0.0, tl.where(c > 0.04045, (2.4 / 1.055) * power(t, 1.4), 1 / 12.92))


@jit
def _curve_kernel(t):
    return tl.where(t > 0.008856, power(tl.maximum(t, 0.008856), 1 / 3), 7.787 * t + 16 / 116)


@jit
def _curve_slope_kernel(t):
    return tl.where(t > 0.008856, power(tl.maximum(t, 0.008856), -2 / 3) * (1 / 3), 7.787)


@jit
def _white_share_kernel(red, green, blue):
    x = (0.412453 / 0.95047) * red + (0.357580 / 0.95047) * green + (0.180423 / 0.95047) * blue
    y = 0.212671 * red + 0.715160 * green + 0.072169 * blue
    z = (0.019334 / 1.08883) * red + (0.119193 / 1.08883) * green + (0.950227 / 1.08883) * blue
    return x, y, z


@jit
def lab_from_linear(red, green, blue):
    x, y, z = _white_share_kernel(red, green, blue)
    x, y, z = _curve_kernel(x), _curve_kernel(y), _curve_kernel(z)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@jit
def _uncurve_kernel(f):
    return tl.where(f > 0.2068966, f * f * f, (f - 16 / 116) * (1 / 7.787))


@jit
def _uncurve_slope_kernel(f):
    return tl.where(f > 0.2068966, 3 * f * f, 1 / 7.787)


@jit
def linear_rgb_kernel_of(lightness, a, b):
    y = (lightness + 16) * (1 / 116)
    x = _uncurve_kernel(y + a * (1 / 500))
    z = y - b * (1 / 200)
    z = _uncurve_kernel(tl.where(z < 0, 0.0, z))
    y = _uncurve_kernel(y)
    red = 3.079980302271805 * x - 1.537151516271318 * y - 0.5428213080224701 * z
    green = -0.9212477523232383 * x + 1.8759900014898907 * y + 0.04524733951446599 * z
    blue = 0.052890461098811827 * x - 0.20404133836651123 * y + 1.1512320119619401 * z
    return red, green, blue


@jit
def encoded_kernel_of(t, CLIP: tl.constexpr):
    if CLIP:
        t = tl.where(t < 0, 0.0, tl.where(t > 1, 1.0, t))  # unlike tl.maximum this leaves a NaN
    return tl.where(t > 0.0031308, 1.055 * power(tl.maximum(t, 0.0031308), 5 / 12) - 0.055, 12.92 * t)


@jit
def _encoded_slope_kernel(t, CLIP: tl.constexpr):
    slope = tl.where(t > 0.0031308, (1.055 * 5 / 12) * power(tl.maximum(t, 0.0031308), -7 / 12), 12.92)
    if CLIP:
        slope = tl.where((t >= 0) & (t <= 1), slope, 0.0)
    return slope


@jit
def load_linear(rgb, table, offset, step, index, bound, INTERLEAVED: tl.constexpr):
    """Linear light of sRGB pixels; of 8 bits through a table."""
    red, green, blue = load(rgb, offset, step, index, bound, INTERLEAVED)
    if rgb.dtype.element_ty == tl.uint8:
        red = tl.load(table + red.to(tl.int32))
        green = tl.load(table + green.to(tl.int32))
        blue = tl.load(table + blue.to(tl.int32))
    else:
        red = linear_kernel_of(red.to(tl.float32))
        green = linear_kernel_of(green.to(tl.float32))
        blue = linear_kernel_of(blue.to(tl.float32))
    return red, green, blue


@jit
def _forward_kernel(rgb, table, lab, plane, bound, blocks, INTERLEAVED: tl.constexpr, BLOCK: tl.constexpr):
    offset, step, index, _ = place(plane, blocks, INTERLEAVED, BLOCK)
    red, green, blue = load_linear(rgb, table, offset, step, index, bound, INTERLEAVED)
    lightness, a, b = lab_from_linear(red, green, blue)
    store(lab, offset, step, index, bound, lightness, a, b, INTERLEAVED)


@jit
def _forward_backward_kernel(grad, rgb, out, plane, bound, blocks, INTERLEAVED: tl.constexpr, BLOCK: tl.constexpr):
    offset, step, index, _ = place(plane, blocks, INTERLEAVED, BLOCK)
    grad_l, grad_a, grad_b = load(grad, offset, step, index, bound, INTERLEAVED)
    red, green, blue = load(rgb, offset, step, index, bound, INTERLEAVED)
    red, green, blue = red.to(tl.float32), green.to(tl.float32), blue.to(tl.float32)
    tx, ty, tz = _white_share_kernel(linear_kernel_of(red), linear_kernel_of(green), linear_kernel_of(blue))
    x = 500 * grad_a * _curve_slope_kernel(tx)
    y = (116 * grad_l - 500 * grad_a + 200 * grad_b) * _curve_slope_kernel(ty)
    z = -200 * grad_b * _curve_slope_kernel(tz)
    red = _linear_slope_kernel(red) * ((0.412453 / 0.95047) * x + 0.212671 * y + (0.019334 / 1.08883) * z)
    green = _linear_slope_kernel(green) * ((0.357580 / 0.95047) * x + 0.715160 * y + (0.119193 / 1.08883) * z)
    blue = _linear_slope_kernel(blue) * ((0.180423 / 0.95047) * x + 0.072169 * y + (0.950227 / 1.08883) * z)
    store(out, offset, step, index, bound, red, green, blue, INTERLEAVED)


@jit
def _inverse_kernel(lab, rgb, plane, bound, blocks, CLIP: tl.constexpr, INTERLEAVED: tl.constexpr, BLOCK: tl.constexpr):
    offset, step, index, _ = place(plane, blocks, INTERLEAVED, BLOCK)
    lightness, a, b = load(lab, offset, step, index, bound, INTERLEAVED)
    red, green, blue = linear_rgb_kernel_of(lightness.to(tl.float32), a.to(tl.float32), b.to(tl.float32))
    red, green, blue = encoded_kernel_of(red, CLIP), encoded_kernel_of(green, CLIP), encoded_kernel_of(blue, CLIP)
    store(rgb, offset, step, index, bound, red, green, blue, INTERLEAVED)


@jit
def _inverse_backward_kernel(
    grad, lab, out, plane, bound, blocks, CLIP: tl.constexpr, INTERLEAVED: tl.constexpr, BLOCK: tl.constexpr
):
    offset, step, index, _ = place(plane, blocks, INTERLEAVED, BLOCK)
    lightness, a, b = load(lab, offset, step, index, bound, INTERLEAVED)
    lightness, a, b = lightness.to(tl.float32), a.to(tl.float32), b.to(tl.float32)
    red, green, blue = linear_rgb_kernel_of(lightness, a, b)
    grad_red, grad_green, grad_blue = load(grad, offset, step, index, bound, INTERLEAVED)
    red = grad_red * _encoded_slope_kernel(red, CLIP)
    green = grad_green * _encoded_slope_kernel(green, CLIP)
    blue = grad_blue * _encoded_slope_kernel(blue, CLIP)
    fy = (lightness + 16) * (1 / 116)
    fz = fy - b * (1 / 200)
    x = 3.079980302271805 * red - 0.9212477523232383 * green + 0.052890461098811827 * blue
    y = -1.537151516271318 * red + 1.8759900014898907 * green - 0.20404133836651123 * blue
    z = -0.5428213080224701 * red + 0.04524733951446599 * green + 1.1512320119619401 * blue
    x = x * _uncurve_slope_kernel(fy + a * (1 / 500))
    y = y * _uncurve_slope_kernel(fy)
    z = tl.where(fz >= 0, z * _uncurve_slope_kernel(tl.maximum(fz, 0.0)), 0.0)
    store(out, offset, step, index, bound, (x + y + z) * (1 / 116), x * (1 / 500), z * (-1 / 200), INTERLEAVED)


def linear_table(rgb: Tensor) -> Tensor:
    """Linear light of the 256 levels of an 8-bit channel, float32; for other pictures any pointer will do."""
    if rgb.dtype != torch.uint8:
        return rgb
    # a trace computes it anew: a cached table would be foreign to it, and a traced one must not enter the cache
    return _cached_table(rgb.device) if type(rgb) is Tensor else _table(rgb.device)


def _table(device: torch.device) -> Tensor:
    return color.srgb_to_linear(torch.arange(256, dtype=torch.float32, device=device) * (1 / 255))


@cache
def _cached_table(device: torch.device) -> Tensor:
    """Copied from the CPU, which waits for the copy: other streams may use it at once."""
    return _table(torch.device("cpu")).to(device)


# --- operators --------------------------------------------------------------------------------------------------------


def _run_forward(rgb: Tensor, out: Tensor) -> None:
    if takes_kernel(rgb):
        launch_pixels(_forward_kernel, rgb, linear_table(rgb), out)
    else:
        fill(_forward, (rgb,), out)


def _run_inverse(lab: Tensor, out: Tensor, clip: bool) -> None:
    if takes_kernel(lab):
        launch_pixels(_inverse_kernel, lab, out, CLIP=clip)
    else:
        fill(_inverse, (lab,), out, clip)


@torch.library.triton_op("ctlib::rgb_to_lab", mutates_args=())
def _rgb_to_lab(rgb: Tensor) -> Tensor:
    rgb = dense(rgb)
    out = like(rgb)
    _run_forward(rgb, out)
    return out


@torch.library.triton_op("ctlib::rgb_to_lab_out", mutates_args={"out"})
def _rgb_to_lab_out(rgb: Tensor, out: Tensor) -> None:
    _run_forward(as_laid_out(rgb, out), out)


@torch.library.triton_op("ctlib::rgb_to_lab_backward", mutates_args=())
def _rgb_to_lab_backward(grad: Tensor, rgb: Tensor) -> Tensor:
    rgb = dense(rgb)
    grad = as_laid_out(grad, rgb)
    out = like(rgb, rgb.dtype)
    if takes_kernel(rgb):
        launch_pixels(_forward_backward_kernel, grad, rgb, out)
    else:
        fill(_forward_backward, (grad, rgb), out)
    return out


@torch.library.triton_op("ctlib::lab_to_rgb", mutates_args=())
def _lab_to_rgb(lab: Tensor, clip: bool) -> Tensor:
    lab = dense(lab)
    out = like(lab)
    _run_inverse(lab, out, clip)
    return out


@torch.library.triton_op("ctlib::lab_to_rgb_out", mutates_args={"out"})
def _lab_to_rgb_out(lab: Tensor, out: Tensor, clip: bool) -> None:
    _run_inverse(as_laid_out(lab, out), out, clip)


@torch.library.triton_op("ctlib::lab_to_rgb_backward", mutates_args=())
def _lab_to_rgb_backward(grad: Tensor, lab: Tensor, clip: bool) -> Tensor:
    lab = dense(lab)
    grad = as_laid_out(grad, lab)
    out = like(lab, lab.dtype)
    if takes_kernel(lab):
        launch_pixels(_inverse_backward_kernel, grad, lab, out, CLIP=clip)
    else:
        fill(_inverse_backward, (grad, lab), out, clip)
    return out


def _keep_rgb(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0])


def _keep_lab(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.clip = inputs[1]


_rgb_to_lab.register_autograd(lambda ctx, grad: _rgb_to_lab_backward(grad, *ctx.saved_tensors), setup_context=_keep_rgb)
_lab_to_rgb.register_autograd(
    lambda ctx, grad: (_lab_to_rgb_backward(grad, *ctx.saved_tensors, ctx.clip), None), setup_context=_keep_lab
)
