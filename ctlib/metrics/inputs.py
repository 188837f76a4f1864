"""The one door of all metrics: pictures are checked here and leave as float64 on the CPU."""

import torch
from torch import Tensor

from ctlib import check
from ctlib.color import rgb_to_lab


def picture(image: Tensor, name: str = "image") -> Tensor:
    """Checked `(B, 3, H, W)` sRGB, detached, float64, on the CPU, exactly within [0, 1].

    Raises:
        ValueError: naming the picture, what is wrong with it and the remedy.
    """
    return check.rgb(image, name).detach().cpu().to(torch.float64).clamp(0, 1)


def pair(result: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Two checked pictures of one shape, for metrics that compare pixel with pixel."""
    result, truth = picture(result, "result"), picture(truth, "truth")
    check.same_shape(result, truth, "result and truth")
    return result, truth


def batches(result: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Two checked batches of equal length whose pictures may differ in size, for metrics that compare distributions."""
    result, reference = picture(result, "result"), picture(reference, "reference")
    if len(result) != len(reference):
        raise ValueError(f"result and reference: {len(result)} and {len(reference)} pictures; give one for one")
    return result, reference


def lab_pair(result: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """`pair` in CIELAB, natural units."""
    return tuple(rgb_to_lab(image) for image in pair(result, truth))
