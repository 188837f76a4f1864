r"""Losses of the learned systems, on CIELAB scaled to [-1, 1] (`ctlib.models.histogram_analogy.to_unit`).

Taught in: notebooks/62_ablate_losses.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ctlib import ops


def histogram_loss(result: Tensor, target: Tensor, bins: int = 32, centers: str = "official") -> Tensor:
    r"""Mean squared difference of the soft joint histograms of a and b: :math:`L_{hist}` of Lee et al. 2020.

    Args:
        result, target: `(B, 3, ...)` in [-1, 1]; only a and b are looked at.
        bins: of each axis.
        centers: `"official"`, bins at i/n as in the authors' code, whose weights do not add up to one, or `"unity"`.
    """
    hists = [ops.soft_histogram((unit[:, 1:].float() + 1) / 2, bins, centers=centers) for unit in (result, target)]
    return functional.mse_loss(*hists)


def multi_scale_loss(sides: Sequence[Tensor], target: Tensor, recipe: str = "paper") -> Tensor:
    r"""Squared error of the side outputs against the target scaled to their size: :math:`L_{multi}`.

    Args:
        sides: `(B, 3, h, w)`, coarse to fine. target: `(B, 3, H, W)`.
        recipe: `"paper"` takes the mean over the scales; `"official-history"` their sum, without the coarsest.

    Raises:
        ValueError: an unknown recipe.
    """
    if recipe not in ("paper", "official-history"):
        raise ValueError(f"recipe: expected paper or official-history, got {recipe!r}")
    errors = [
        functional.mse_loss(side, functional.interpolate(target, side.shape[2:], mode="bilinear", align_corners=False))
        for side in sides
    ]
    if recipe == "paper":
        return torch.stack(errors).mean()
    return torch.stack(errors[1:]).sum() + 0 * errors[0]  # with weight 0, as there; several processes need every weight
