"""Measures of a result: against the truth, the source, the reference, or alone.

All take sRGB `(B, 3, H, W)` in [0, 1], check it, and return float64 `(B,)` on the CPU. `METRICS` lists them with unit
and direction, `evaluate` computes a whole row.
"""

from ctlib.metrics.distribution import (
    chi_square,
    colorfulness,
    colorfulness_abs,
    emd,
    hellinger,
    hellinger_ab,
    histogram,
    histogram_intersection,
    sliced_wasserstein,
)
from ctlib.metrics.fidelity import (
    ab_rmse,
    cie76,
    ciede2000,
    ciede2000_p95,
    edge_ssim,
    gradient_correlation,
    psnr,
    psnr_lab_official,
    psnr_missing_root,
    ssim,
    ssim_gray,
    ssim_l,
    ssim_uniform,
)
from ctlib.metrics.palettes import palette_distance, palette_emd
from ctlib.metrics.perceptual import MissingWeights, lpips
from ctlib.metrics.table import METRICS, Metric, evaluate

__all__ = [
    "METRICS",
    "Metric",
    "MissingWeights",
    "ab_rmse",
    "chi_square",
    "cie76",
    "ciede2000",
    "ciede2000_p95",
    "colorfulness",
    "colorfulness_abs",
    "edge_ssim",
    "emd",
    "evaluate",
    "gradient_correlation",
    "hellinger",
    "hellinger_ab",
    "histogram",
    "histogram_intersection",
    "lpips",
    "palette_distance",
    "palette_emd",
    "psnr",
    "psnr_lab_official",
    "psnr_missing_root",
    "sliced_wasserstein",
    "ssim",
    "ssim_gray",
    "ssim_l",
    "ssim_uniform",
]
