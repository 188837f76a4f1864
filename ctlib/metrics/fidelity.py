r"""How far a result is from a known truth, pixel by pixel: PSNR, SSIM, structure of L*, color difference.

Every function takes sRGB `(B, 3, H, W)` in [0, 1], checks it, computes in float64 on the CPU and returns `(B,)`: one
number a picture, to be averaged last. They are measures, not losses: no gradient flows. Published values are mostly of
8-bit files; round with `ctlib.images.to_uint8` first to compare with them.

Taught in: notebooks/70_compare.
"""

from collections.abc import Callable

import numpy as np
import torch
from skimage.color import deltaE_ciede2000
from skimage.filters import sobel, sobel_h, sobel_v
from skimage.metrics import structural_similarity
from torch import Tensor

from ctlib.color import A_RANGE, B_RANGE
from ctlib.metrics.inputs import lab_pair, pair

# Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5, population covariance, K1 = 0.01, K2 = 0.03.
_WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
# pixels at a time: CIEDE2000 keeps some twenty intermediate arrays, 12 megapixels at once would take gigabytes
_SLICE = 500_000
_WINDOW = {"wang": 11, "uniform": 7}


def _mse(first: Tensor, second: Tensor) -> Tensor:
    return ((first - second) ** 2).flatten(1).mean(1)


def _per_picture(function: Callable, first: Tensor, second: Tensor) -> Tensor:
    """Apply a numpy function of two `(H, W, 3)` arrays to each pair of a batch."""
    layout = zip(first.movedim(1, -1).numpy(), second.movedim(1, -1).numpy(), strict=True)
    return torch.tensor([float(function(one, other)) for one, other in layout], dtype=torch.float64)


def psnr(result: Tensor, truth: Tensor) -> Tensor:
    r"""Peak signal-to-noise ratio, $10\log_{10}(1/\mathrm{MSE})$ over all pixels and channels of sRGB, peak 1.

    Args:
        result, truth: `(B, 3, H, W)` sRGB in [0, 1], same shape.

    Returns:
        `(B,)` in dB, higher is better; `inf` for identical pictures (keep them out of means).

    Raises:
        ValueError: wrong type, shape or range, NaN, or two shapes.

    Example:
        >>> psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.1)).round(decimals=3).tolist()
        [20.0]
    """
    return -10 * torch.log10(_mse(*pair(result, truth)))


def psnr_lab_official(result: Tensor, truth: Tensor) -> Tensor:
    r"""PSNR as the official test code of Deep Color Transfer using Histogram Analogy has it (Lee et al. 2020).

    $10\log_{10}(1/\mathrm{MSE})$ on Lab scaled to [-1, 1] by the extremes of a* and b* over sRGB. Data of range 2 would
    need $10\log_{10}(4/\mathrm{MSE})$: the value is 6.02 dB below the standard definition, and no RGB PSNR. Only for
    comparison with that paper. Same arguments, unit and errors as `psnr`.
    """
    spans = ((0.0, 100.0), A_RANGE, B_RANGE)
    scale = torch.tensor([2 / (high - low) for low, high in spans], dtype=torch.float64)[:, None, None]
    first, second = lab_pair(result, truth)
    return -10 * torch.log10(_mse(first * scale, second * scale))  # the offset of the scaling cancels


def psnr_missing_root(result: Tensor, truth: Tensor) -> Tensor:
    r"""PSNR as the "Image Colorization and Mood Transfer" project computed it: $20\log_{10}(2/\mathrm{MSE})$.

    Its pictures lie in [-1, 1], so the peak is 2, but the square root of the MSE is missing. The true value follows
    exactly: $\mathrm{PSNR} = \frac12\mathrm{PSNR}_{reported} + 3.0103$. Only for comparison with that report. Same
    arguments, unit and errors as `psnr`.
    """
    return 20 * torch.log10(2 / (4 * _mse(*pair(result, truth))))


def _ssim(first: Tensor, second: Tensor, window: str = "wang") -> Tensor:
    """Mean SSIM of `(B, C, H, W)` batches in [0, 1], channels averaged."""
    side = _WINDOW[window]
    if min(first.shape[2:]) < side:
        raise ValueError(
            f"result and truth: SSIM looks through a window of {side} x {side} pixels, "
            f"the pictures have {tuple(first.shape[2:])}; enlarge them or leave SSIM out"
        )
    settings = _WANG if window == "wang" else {"win_size": side, "data_range": 1.0}
    return _per_picture(lambda a, b: structural_similarity(a, b, channel_axis=-1, **settings), first, second)


def ssim(result: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity in the setting of Wang et al. 2004, on sRGB, mean over channels.

    Gaussian window of 11 x 11 pixels, sigma 1.5, population covariance, K1 = 0.01, K2 = 0.03, range 1, a border of 5
    pixels left out; computed by scikit-image.

    Args:
        result, truth: `(B, 3, H, W)` sRGB in [0, 1], same shape, at least 11 x 11.

    Returns:
        `(B,)` in [-1, 1], higher is better, 1 for identical pictures.

    Raises:
        ValueError: wrong type, shape or range, NaN, two shapes, or pictures smaller than the window.
    """
    return _ssim(*pair(result, truth))


def ssim_uniform(result: Tensor, truth: Tensor) -> Tensor:
    """SSIM in scikit-image's default setting: uniform window of 7 x 7, sample covariance, a border of 3 left out.

    The other convention in print; the same pair can read 0.869 here and 0.829 in `ssim`. Arguments, range and errors
    as `ssim`, at least 7 x 7 pixels.
    """
    return _ssim(*pair(result, truth), window="uniform")


def ssim_gray(result: Tensor, truth: Tensor) -> Tensor:
    r"""`ssim_uniform` of gray values of 8 bits, $0.299 R + 0.587 G + 0.114 B$: the protocol of the ArtBench report.

    There the truth is the picture before it was recolored, so that nothing scores as high as doing nothing. Only for
    comparison with that report; `ssim_l` asks the same of L*. Arguments, range and errors as `ssim_uniform`.
    """
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]
    gray = [((image * weights).sum(1, keepdim=True) * 255).round() / 255 for image in pair(result, truth)]
    return _ssim(*gray, window="uniform")


def _lightness(result: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """L* / 100 of both pictures, `(B, 1, H, W)` in [0, 1]."""
    first, second = lab_pair(result, truth)
    return first[:, :1] / 100, second[:, :1] / 100


def ssim_l(result: Tensor, truth: Tensor) -> Tensor:
    """SSIM (Wang) of L* / 100: is the structure kept, whatever the color? Arguments, range and errors as `ssim`."""
    return _ssim(*_lightness(result, truth))


def edge_ssim(result: Tensor, truth: Tensor) -> Tensor:
    r"""SSIM (Wang) of the Sobel edge maps of L*: `ssim_edge_sobel`, content structure without a network.

    The map is $\sqrt{(g_x^2 + g_y^2)/2}$ of L* / 100 as scikit-image's `sobel` gives it, in [0, 1], range 1. Style
    transfer papers take edge maps of HED or LDC networks instead: their numbers are not comparable. Arguments, range
    and errors as `ssim`.
    """
    edges = [
        torch.stack([torch.from_numpy(sobel(one[0].numpy())) for one in lightness])[:, None]
        for lightness in _lightness(result, truth)
    ]
    return _ssim(*edges)


def gradient_correlation(result: Tensor, truth: Tensor) -> Tensor:
    """Pearson correlation of the Sobel derivatives of L*, both directions together.

    Blind to any change of brightness and to any positive change of contrast; inverting the picture gives -1. Two flat
    pictures agree (1), a flat one and another do not correlate (0).

    Args:
        result, truth: `(B, 3, H, W)` sRGB in [0, 1], same shape.

    Returns:
        `(B,)` in [-1, 1], higher is better.

    Raises:
        ValueError: wrong type, shape or range, NaN, or two shapes.
    """

    def correlation(first: np.ndarray, second: np.ndarray) -> float:
        one, other = (np.stack([sobel_h(image[..., 0]), sobel_v(image[..., 0])]) for image in (first, second))
        one, other = one - one.mean(), other - other.mean()
        sizes = np.linalg.norm(one), np.linalg.norm(other)
        flat = [size < 1e-9 * one.size**0.5 for size in sizes]
        return float(all(flat)) if any(flat) else np.clip((one * other).sum() / (sizes[0] * sizes[1]), -1, 1)

    return _per_picture(correlation, *_lightness(result, truth))


def ab_rmse(result: Tensor, truth: Tensor) -> Tensor:
    r"""Root of the mean squared difference of a* and b*, $\sqrt{\overline{(\Delta a^2 + \Delta b^2)/2}}$: blind to L*.

    Args:
        result, truth: `(B, 3, H, W)` sRGB in [0, 1], same shape.

    Returns:
        `(B,)` in CIELAB units, lower is better.

    Raises:
        ValueError: wrong type, shape or range, NaN, or two shapes.

    Example:
        >>> gray = torch.full((1, 3, 2, 2), 0.2, dtype=torch.float64)
        >>> ab_rmse(gray, 2 * gray).round(decimals=6).abs().tolist()
        [0.0]
    """
    first, second = lab_pair(result, truth)
    return _mse(first[:, 1:], second[:, 1:]).sqrt()


def ciede2000_lab(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """CIEDE2000 of two Lab arrays that broadcast, `(..., 3)` to `(...)`, through scikit-image (kL = kC = kH = 1)."""
    return deltaE_ciede2000(first, second)


def _difference(first: Tensor, second: Tensor, formula: Callable, percentile: float | None) -> Tensor:
    def reduce(one: np.ndarray, other: np.ndarray) -> float:
        one, other = one.reshape(-1, 3), other.reshape(-1, 3)
        slices = [slice(start, start + _SLICE) for start in range(0, len(one), _SLICE)]
        values = np.concatenate([formula(one[part], other[part]) for part in slices])
        return values.mean() if percentile is None else np.percentile(values, percentile)

    if percentile is not None and not 0 <= percentile <= 100:
        raise ValueError(f"percentile: expected a number from 0 to 100 or None for the mean, got {percentile}")
    return _per_picture(reduce, first, second)


def cie76(result: Tensor, truth: Tensor, percentile: float | None = None) -> Tensor:
    r"""Color difference $\Delta E^*_{ab}$ (CIE 1976), the Euclidean distance in CIELAB.

    Args:
        result, truth: `(B, 3, H, W)` sRGB in [0, 1], same shape.
        percentile: of the pixels' differences, e.g. 95; `None` gives their mean.

    Returns:
        `(B,)` in units of Delta E, lower is better, about 2.3 is just noticeable.

    Raises:
        ValueError: wrong type, shape or range, NaN, two shapes, or a percentile outside [0, 100].
    """
    return _difference(*lab_pair(result, truth), lambda a, b: np.linalg.norm(a - b, axis=-1), percentile)


def ciede2000(result: Tensor, truth: Tensor, percentile: float | None = None) -> Tensor:
    r"""Color difference $\Delta E_{00}$ (CIEDE2000), nearer to what people see than `cie76`; through scikit-image.

    Checked against the test pairs of Sharma, Wu and Dalal 2005. Arguments, unit and errors as `cie76`; about 1 is just
    noticeable.
    """
    return _difference(*lab_pair(result, truth), ciede2000_lab, percentile)


def ciede2000_p95(result: Tensor, truth: Tensor) -> Tensor:
    """The 95th percentile of `ciede2000`: how bad is it where it is bad?"""
    return ciede2000(result, truth, percentile=95)
