"""All metrics by name: what each is compared with, its unit, which direction is better, and one call for a whole row.

The grouping by what a result is compared with (truth, source, reference, nothing) is ColorTransferLib's.

Taught in: notebooks/70_compare.
"""

import functools
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ctlib.metrics import distribution, fidelity, palettes, perceptual


@dataclass(frozen=True)
class Metric:
    """One line of the table.

    Attributes:
        name: key in `METRICS` and in result files.
        function: two batches of pictures (one if it compares with nothing; two palettes for `"palette"`) to numbers.
        unit: `"dB"`, `"Delta E"`, ..., or `""` for a bare number.
        better: the direction to wish for.
        compares: what the result is held against. `"palette"` marks the two functions on palettes, not pictures.
        says: what the number tells, in one line.
    """

    name: str
    function: Callable[..., Tensor]
    unit: str
    better: Literal["higher", "lower", "neither"]
    compares: Literal["truth", "source", "reference", "nothing", "palette"]
    says: str


_ROWS = [
    Metric("psnr", fidelity.psnr, "dB", "higher", "truth", "closeness to the truth in sRGB, peak 1"),
    Metric("ssim", fidelity.ssim, "", "higher", "truth", "likeness of local structure in sRGB, setting of Wang 2004"),
    Metric("cie76", fidelity.cie76, "ΔE76", "lower", "truth", "mean Euclidean color difference in CIELAB"),
    Metric("ciede2000", fidelity.ciede2000, "ΔE00", "lower", "truth", "mean color difference as people see it"),
    Metric("ciede2000_p95", fidelity.ciede2000_p95, "ΔE00", "lower", "truth", "95th percentile of that difference"),
    Metric("lpips", perceptual.lpips, "", "lower", "truth", "distance of deep features (AlexNet, version 0.1)"),
    Metric("ssim_uniform", fidelity.ssim_uniform, "", "higher", "truth", "SSIM in scikit-image's default setting"),
    Metric("ab_rmse", fidelity.ab_rmse, "Lab units", "lower", "truth", "root mean square error of a* and b*"),
    Metric("psnr_lab_official", fidelity.psnr_lab_official, "dB", "higher", "truth",
           "PSNR on scaled Lab as Histogram Analogy's code has it, 6.02 dB low"),
    Metric("psnr_missing_root", fidelity.psnr_missing_root, "dB", "higher", "truth",
           "PSNR without the root of the MSE, as one colorization project reported it"),
    Metric("ssim_source", fidelity.ssim, "", "higher", "source", "structure of the source kept, color included"),
    Metric("ssim_gray", fidelity.ssim_gray, "", "higher", "source",
           "structure of the 8-bit gray picture kept, as the ArtBench report measured it"),
    Metric("ssim_l", fidelity.ssim_l, "", "higher", "source", "structure of the source's L* kept"),
    Metric("edge_ssim", fidelity.edge_ssim, "", "higher", "source", "Sobel edges of the source's L* kept"),
    Metric("gradient_correlation", fidelity.gradient_correlation, "", "higher", "source",
           "gradients of the source's L* kept, up to contrast"),
    Metric("histogram_intersection", distribution.histogram_intersection, "", "higher", "reference",
           "shared part of the RGB histograms, 256 bins a channel"),
    Metric("hellinger", distribution.hellinger, "", "lower", "reference",
           "distance of the RGB histograms, 256 bins a channel"),
    Metric("hellinger_ab", distribution.hellinger_ab, "", "lower", "reference",
           "distance of the joint a*b* histograms, 64 x 64 bins"),
    Metric("chi_square", distribution.chi_square, "", "lower", "reference",
           "chi-square distance of the RGB histograms, 256 bins a channel"),
    Metric("emd", distribution.emd, "levels", "lower", "reference", "how far RGB values must move, mean of channels"),
    Metric("sliced_wasserstein", distribution.sliced_wasserstein, "Lab units", "lower", "reference",
           "how far Lab colors must move, over 32 random directions"),
    Metric("colorfulness", distribution.colorfulness, "", "neither", "nothing", "Hasler and Süsstrunk 2003, signed"),
    Metric("colorfulness_abs", distribution.colorfulness_abs, "", "neither", "nothing",
           "the same of absolute values, as colorization papers print it"),
    Metric("palette_distance", palettes.palette_distance, "ΔE00", "lower", "palette",
           "mean color difference of matched palette colors"),
    Metric("palette_emd", palettes.palette_emd, "Lab units", "lower", "palette",
           "how far palette areas must move in Lab"),
]  # fmt: skip

#: Every metric by name.
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ROWS}


def evaluate(
    result: Tensor,
    source: Tensor | None = None,
    reference: Tensor | None = None,
    truth: Tensor | None = None,
    metrics: Iterable[str] | None = None,
    download: bool = False,
) -> dict[str, float]:
    """Every metric that the given pictures allow, averaged over the batch.

    Args:
        result: `(B, 3, H, W)` sRGB in [0, 1].
        source, truth: of the same shape. reference: `(B, 3, h, w)`, any size.
        metrics: names from `METRICS`, all by default. Those whose picture is not given are left out of the answer.
        download: whether LPIPS may fetch its trunk (233 MB for AlexNet) if it is not in torch's cache.

    Returns:
        name to value, in the order of `METRICS` or of `metrics`. `lpips` is NaN, an honest blank, where its weights are
        missing; a warning says so once.

    Raises:
        ValueError: a bad picture, an unknown metric, or one that compares palettes.

    Example:
        >>> import torch
        >>> gray = torch.full((1, 3, 16, 16), 0.5)
        >>> evaluate(gray, truth=gray, metrics=["ssim", "ciede2000", "colorfulness"])
        {'ssim': 1.0, 'ciede2000': 0.0, 'colorfulness': 0.0}
    """
    others = {"source": source, "reference": reference, "truth": truth}
    given = {name for name, image in others.items() if image is not None} | {"nothing"}
    if metrics is None:
        names = [metric.name for metric in METRICS.values() if metric.compares != "palette"]
    else:
        names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in names:
        if name not in METRICS:
            raise ValueError(f"metrics: {name!r} is unknown; choose from {', '.join(METRICS)}")
        if METRICS[name].compares == "palette":
            raise ValueError(f"metrics: {name} compares palettes; call ctlib.metrics.{name} with them")
    return {name: _value(METRICS[name], result, others, download) for name in names if METRICS[name].compares in given}


def _value(metric: Metric, result: Tensor, others: dict[str, Tensor | None], download: bool) -> float:
    pictures = (result,) if metric.compares == "nothing" else (result, others[metric.compares])
    try:
        options = {"download": download} if metric.name == "lpips" else {}
        return metric.function(*pictures, **options).mean().item()
    except perceptual.MissingWeights as error:
        _warn_once(f"{error}. Its column stays blank.")
        return math.nan


@functools.cache
def _warn_once(text: str) -> None:
    warnings.warn(text, stacklevel=4)
