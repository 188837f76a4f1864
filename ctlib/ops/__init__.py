"""Color arithmetic at the speed of memory: each op a reference in plain torch, a Triton kernel, and a gradient by hand.

All are registered under `torch.ops.ctlib`, and work eagerly and within `torch.compile(fullgraph=True)`.

Measured in: notebooks/71_ops.
"""

from ctlib.ops.lab import lab_to_rgb, rgb_to_lab
from ctlib.ops.launch import compile_cpu
from ctlib.ops.shift_hue import shift_hue

__all__ = ["compile_cpu", "lab_to_rgb", "rgb_to_lab", "shift_hue"]
