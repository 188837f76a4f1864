r"""Reinhard on a and b: mean and deviation of the reference's colors, the target's lightness.

$$ab' = (ab - \mu_t) \, \sigma_r / \sigma_t + \mu_r$$

A gray target has no deviation to scale; it comes out in one tint, the reference's mean. That is what the method has to
say of it, so it belongs behind something that colors first.

Source: Reinhard, Ashikhmin, Gooch, Shirley, Color Transfer between Images, 2001, here without lightness and in CIELAB.
Taught in: notebooks/51_exemplar_colorization.
"""

import torch
from torch import Tensor

from ctlib import check, chroma, ops
from ctlib.classical.statistics import clouds, moments, transport_matrix

_FLAT = 1e-2  # CIELAB units of deviation that count as none


@torch.no_grad()
def reinhard_ab(rgb: Tensor, reference: Tensor) -> Tensor:
    r"""Give pictures the mean and deviation of a reference's a and b.

    Args:
        rgb: `(B, 3, H, W)` sRGB in [0, 1], colored, or gray.
        reference: `(B or 1, 3, H', W')` sRGB in [0, 1], at least 32 pixels a side, in color.

    Returns:
        `(B, 3, H, W)` sRGB in [0, 1] with the lightness of `rgb`, see `ctlib.chroma.shown`.

    Raises:
        ValueError: wrong input; the message names what and the remedy.
    """
    check.rgb(rgb, "rgb")
    chroma.lender(reference, len(rgb))
    given = reference.expand(len(rgb), -1, -1, -1)
    own, wanted = (moments(cloud, None, ops.rgb_to_lab) for cloud in clouds(rgb, given))
    (mean, cov), (reference_mean, reference_cov) = own, wanted
    matrix = transport_matrix(cov, reference_cov, "independent", _FLAT**2)
    lab = ops.rgb_to_lab(rgb)
    moved = matrix.to(lab) @ (lab.flatten(2) - mean.to(lab)) + reference_mean.to(lab)
    return chroma.shown(lab[:, :1], moved[:, 1:].view_as(lab[:, 1:]))
