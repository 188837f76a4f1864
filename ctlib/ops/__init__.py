"""Color arithmetic at the speed of memory: each op a reference in plain torch, a Triton kernel, and a gradient by hand.

All are registered under `torch.ops.ctlib`, and work eagerly and within `torch.compile(fullgraph=True)`.

Measured in: notebooks/71_ops.
"""

from ctlib.ops.ab_bins import AB_BINS, annealed_mean, dense_bins, encode_ab
from ctlib.ops.hen_histogram import hen_histogram
from ctlib.ops.lab import lab_to_rgb, rgb_to_lab
from ctlib.ops.launch import compile_cpu
from ctlib.ops.palette_lut import lookup
from ctlib.ops.rbf_shift import rbf_shift
from ctlib.ops.regional import adain, regional_affine, regional_stats
from ctlib.ops.shift_hue import shift_hue
from ctlib.ops.soft_histogram import soft_histogram

__all__ = [
    "AB_BINS", "adain", "annealed_mean", "compile_cpu", "dense_bins", "encode_ab", "hen_histogram", "lab_to_rgb",
    "lookup", "rbf_shift", "regional_affine", "regional_stats", "rgb_to_lab", "shift_hue", "soft_histogram",
]  # fmt: skip
