r"""Color spaces: sRGB, linear light, XYZ, CIELAB (D65, 2 degrees), l-alpha-beta and HSV, and the sRGB gamut.

Every function takes and returns `(B, 3, ...)` float tensors (channels on axis 1, any trailing axes), keeps dtype and
device, is differentiable, and has finite gradients at black and at white. The constants are those of scikit-image, so
that numbers in the book can be checked against it.

Taught in: notebooks/02_color_spaces.
"""

import torch
from torch import Tensor

# sRGB primaries and D65 white to XYZ, as in scikit-image; the inverse is computed, never typed from a table.
_XYZ_FROM_RGB = torch.tensor(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]],
    dtype=torch.float64,
)
_RGB_FROM_XYZ = torch.linalg.inv(_XYZ_FROM_RGB)
_WHITE = (0.95047, 1.0, 1.08883)

# Reinhard et al. 2001: RGB to cone responses, and the decorrelating axes of Ruderman et al. 1998.
_LMS_FROM_RGB = torch.tensor(
    [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]], dtype=torch.float64
)
_RGB_FROM_LMS = torch.linalg.inv(_LMS_FROM_RGB)
_LAB_FROM_LOGLMS = torch.diag(torch.tensor([3.0, 6.0, 2.0], dtype=torch.float64).rsqrt()) @ torch.tensor(
    [[1.0, 1.0, 1.0], [1.0, 1.0, -2.0], [1.0, -1.0, 0.0]], dtype=torch.float64
)
_LOGLMS_FROM_LAB = torch.linalg.inv(_LAB_FROM_LOGLMS)

#: Extremes of a* and b* over the sRGB cube; Histogram Analogy scales Lab by them to [0, 1].
A_RANGE = (-86.1830297444, 98.2330538631)
B_RANGE = (-107.857300207, 94.4781222765)


def _mix(matrix: Tensor, channels: Tensor) -> Tensor:
    """Apply a 3x3 matrix on axis 1. Three scaled sums are faster on CPU than einsum and allocate less."""
    if not channels.is_floating_point():
        raise ValueError(f"expected float colors, got {channels.dtype}; see ctlib.images.to_tensor")
    if channels.ndim < 2 or channels.shape[1] != 3:
        raise ValueError(f"expected 3 color channels on axis 1, (B, 3, ...), got shape {tuple(channels.shape)}")
    rows = matrix.tolist()
    first, second, third = channels.unbind(1)
    return torch.stack([row[0] * first + row[1] * second + row[2] * third for row in rows], dim=1)


def srgb_to_linear(rgb: Tensor) -> Tensor:
    """Undo the sRGB transfer curve (IEC 61966-2-1): `(B, 3, ...)` in [0, 1] to linear light in [0, 1]."""
    # clamp keeps the unused branch of `where` away from powers of negative numbers, whose gradient is NaN
    curved = ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(rgb > 0.04045, curved, rgb / 12.92)


def linear_to_srgb(lin_rgb: Tensor) -> Tensor:
    """Apply the sRGB transfer curve: linear light to encoded values; out-of-range input stays out of range."""
    curved = 1.055 * lin_rgb.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(lin_rgb > 0.0031308, curved, lin_rgb * 12.92)


def linear_to_xyz(lin_rgb: Tensor) -> Tensor:
    """Linear sRGB to CIE XYZ, Y of white = 1."""
    return _mix(_XYZ_FROM_RGB, lin_rgb)


def xyz_to_linear(xyz: Tensor) -> Tensor:
    """CIE XYZ to linear sRGB, not clipped: values outside [0, 1] are out of gamut."""
    return _mix(_RGB_FROM_XYZ, xyz)


def xyz_to_lab(xyz: Tensor) -> Tensor:
    """CIE XYZ to CIELAB under D65: L in [0, 100], a and b about [-110, 110]."""
    x, y, z = (_lab_curve(channel / white) for channel, white in zip(xyz.unbind(1), _WHITE, strict=True))
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_xyz(lab: Tensor) -> Tensor:
    """CIELAB to CIE XYZ under D65."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    z = (y - b / 200).clamp(min=0)  # as scikit-image: no light of negative blue
    return torch.stack([w * _lab_curve_inverse(f) for f, w in zip((y + a / 500, y, z), _WHITE, strict=True)], dim=1)


def _lab_curve(t: Tensor) -> Tensor:
    return torch.where(t > 0.008856, t.clamp(min=0.008856) ** (1 / 3), 7.787 * t + 16 / 116)


def _lab_curve_inverse(f: Tensor) -> Tensor:
    return torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB to CIELAB (D65).

    Args:
        rgb: `(B, 3, ...)` float, sRGB in [0, 1].

    Returns:
        `(B, 3, ...)`: L in [0, 100], a in [-86.2, 98.3], b in [-107.9, 94.5]. Equals scikit-image to 1e-4.

    Example:
        >>> rgb_to_lab(torch.ones(1, 3, 1, 1)).round(decimals=2).abs().flatten().tolist()
        [100.0, 0.0, 0.0]
    """
    return xyz_to_lab(linear_to_xyz(srgb_to_linear(rgb)))


def lab_to_rgb(lab: Tensor, clip: bool = True) -> Tensor:
    """CIELAB to sRGB.

    Args:
        lab: `(B, 3, ...)` float in natural units.
        clip: clamp to [0, 1]; with `False`, colors outside the gamut keep their out-of-range values.
    """
    rgb = linear_to_srgb(xyz_to_linear(lab_to_xyz(lab)))
    return rgb.clamp(0, 1) if clip else rgb


def rgb_to_lalphabeta(rgb: Tensor, linear: bool = False) -> Tensor:
    """RGB to the decorrelated log-cone space of Reinhard et al. 2001 (base-10 logarithms).

    Args:
        rgb: `(B, 3, ...)` in [0, 1]. Values below 1/255 (in linear light: what that level stands for) are raised to
            it: black has no logarithm.
        linear: undo the sRGB curve first. The paper's matrix is meant for device RGB; most code feeds encoded values.
    """
    values = srgb_to_linear(rgb) if linear else rgb
    floor = 1 / 255 / 12.92 if linear else 1 / 255
    return _mix(_LAB_FROM_LOGLMS, _mix(_LMS_FROM_RGB, values.clamp(min=floor)).log10())


def lalphabeta_to_rgb(lab: Tensor, clip: bool = True, linear: bool = False) -> Tensor:
    """Inverse of `rgb_to_lalphabeta`, by exact inverse matrices; the printed ones miss the identity by up to 0.0143."""
    # 10**6 is far beyond any display; without the bound an extreme transfer overflows to inf, and inf - inf is NaN
    rgb = _mix(_RGB_FROM_LMS, 10 ** _mix(_LOGLMS_FROM_LAB, lab).clamp(max=6.0))
    rgb = linear_to_srgb(rgb) if linear else rgb
    return rgb.clamp(0, 1) if clip else rgb


def rgb_to_hsv(rgb: Tensor) -> Tensor:
    """RGB to hue, saturation, value (Smith 1978), each in [0, 1]; the hue of a gray is 0."""
    value, arg = rgb.max(dim=1)
    chroma = value - rgb.min(dim=1).values
    red, green, blue = rgb.unbind(1)
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    sectors = torch.stack([(green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe])
    hue = sectors.gather(0, arg[None])[0] / 6 % 1
    # a remainder of a tiny negative number rounds up to exactly 1
    hue = torch.where((chroma == 0) | (hue >= 1), torch.zeros_like(hue), hue)
    saturation = torch.where(chroma > 0, chroma / torch.where(value > 0, value, torch.ones_like(value)), chroma)
    return torch.stack([hue, saturation, value], dim=1)


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Hue, saturation, value in [0, 1] to RGB in [0, 1]; hue wraps around."""
    hue, saturation, value = hsv.unbind(1)

    def channel(offset: float) -> Tensor:
        k = (offset + hue * 6) % 6
        return value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], dim=1)


def in_gamut(lab: Tensor, tolerance: float = 1e-4) -> Tensor:
    """Which colors sRGB can show.

    Args:
        lab: `(B, 3, ...)` CIELAB.
        tolerance: slack on the encoded channels, in units of [0, 1]; without any, rounding would exclude white. Chang's
            demo uses 0.5/255.

    Returns:
        `(B, ...)` bool.
    """
    # the bounds go to linear light, not the colors to the curve, whose powers take most of the time
    low, high = srgb_to_linear(torch.tensor([-tolerance, 1 + tolerance], dtype=torch.float64)).tolist()
    lin_rgb = xyz_to_linear(lab_to_xyz(lab))
    return ((lin_rgb >= low) & (lin_rgb <= high)).all(dim=1)


def gamut_boundary(
    lab: Tensor, direction: Tensor, *, reach: float = 300.0, iterations: int = 20, tolerance: float = 1e-4
) -> Tensor:
    """Last color in gamut on a ray, by bisection (the boundary search of Chang et al. 2015).

    Args:
        lab: `(B, 3, ...)` start of the ray. A start out of gamut is its own boundary.
        direction: `(B, 3, ...)` of any length; where it is zero the start is returned.
        reach: how far to look, in CIELAB units; 300 passes every point of the gamut.
        iterations: halvings; 20 leave an error of `reach / 2**20`.
        tolerance: slack of the gamut test, see `in_gamut`.

    Returns:
        `(B, 3, ...)`. The ray is assumed to leave the gamut once, which holds but for slight dents of the sRGB solid.
    """
    length = direction.norm(dim=1, keepdim=True)
    unit = direction / length.clamp(min=1e-12)
    low = torch.zeros_like(length)
    high = torch.full_like(length, reach)
    for _ in range(iterations):
        middle = (low + high) / 2
        inside = in_gamut(lab + middle * unit, tolerance)[:, None]
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    moves = (length > 1e-12) & in_gamut(lab, tolerance)[:, None]
    return torch.where(moves, lab + low * unit, lab)
