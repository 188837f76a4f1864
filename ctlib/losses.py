r"""Losses of the learned systems: on CIELAB scaled to [-1, 1] (`ctlib.models.histogram_analogy.to_unit`), on a and b.

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


def hinted_huber_loss(
    result: Tensor, target: Tensor, mask: Tensor, *, weight: float = 10.0, delta: float = 1 / 110, scale: float = 110.0
) -> Tensor:
    r"""Huber loss of a and b in which places with a hint count more: :math:`L_c` of Xu et al. 2020.

    $$L_c = \mathcal L_h((1 + \lambda M) \odot ab, (1 + \lambda M) \odot \widehat{ab}), \quad
    \mathcal L_h(u, v) = \begin{cases} \tfrac12 (u - v)^2 & |u - v| < \delta \\
    \delta (|u - v| - \tfrac12 \delta) & \text{else} \end{cases}$$

    The weight stands inside: where the loss is quadratic, an error at a hint counts :math:`(1 + \lambda)^2` times,
    where it is linear :math:`1 + \lambda` times: 121 and 11. Which :math:`\delta` the paper has is not known.

    Args:
        result, target: `(B, 2, H, W)` a and b in CIELAB units.
        mask: `(B, 1, H, W)`, 1 where there is a hint, else 0.
        weight: :math:`\lambda`.
        delta: where the loss becomes linear, of a and b divided by `scale`. The default is 1 CIELAB unit; with 1 it is
            the square but for hints, which is how the student has it.
        scale: what a and b are divided by first, CIELAB units.

    Returns:
        The mean over all pixels and both channels.
    """
    weights = (1 + weight * mask.float()) / scale
    return functional.huber_loss(weights * result.float(), weights * target.float(), delta=delta)
