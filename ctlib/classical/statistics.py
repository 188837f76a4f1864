r"""Transfer by first and second moments: Reinhard, the linear maps, Monge-Kantorovich.

Every function here is fitted on two pictures and returns a *color map*, a function `(B, 3, ...) -> (B, 3, ...)` of sRGB
colors. It is not clipped: values outside [0, 1] say how far the method leaves the gamut.

Taught in: notebooks/10_statistics_transfer.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ctlib import check, color

ColorMap = Callable[[Tensor], Tensor]
Weights = tuple[Tensor | None, Tensor | None]
Space = Literal["rgb", "lab", "lalphabeta"]
Linear = Literal["independent", "cholesky", "square_root", "monge_kantorovich", "xiao_ma"]

#: name: (from sRGB, to sRGB, size of one unit); the size sets what counts as "no spread" in that space
SPACES: dict[str, tuple[ColorMap, ColorMap, float]] = {
    "rgb": (lambda rgb: rgb, lambda rgb: rgb, 1.0),
    "lab": (color.rgb_to_lab, lambda lab: color.lab_to_rgb(lab, clip=False), 100.0),
    "lalphabeta": (color.rgb_to_lalphabeta, lambda lab: color.lalphabeta_to_rgb(lab, clip=False), 1.0),
}


def space_of(name: str) -> tuple[ColorMap, ColorMap, float]:
    """Look a color space up. Raises `ValueError` that lists the known ones."""
    if name not in SPACES:
        raise ValueError(f"unknown color space {name!r}; known: {', '.join(SPACES)}")
    return SPACES[name]


def cloud(image: Tensor, name: str) -> Tensor:
    """`(B, 3, ...)` sRGB to the cloud of its colors `(B, 3, N)`, checked to be finite and not empty."""
    if check.colors(image, name).numel() == 0:
        raise ValueError(f"{name}: the picture is empty, its shape is {tuple(image.shape)}")
    return image.reshape(*image.shape[:2], -1)


def clouds(source: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Both clouds of a fit, one reference a source.

    Raises:
        ValueError: NaN, wrong shapes, an empty picture, or batches of two lengths.
    """
    if source.ndim and reference.ndim and len(source) != len(reference):
        raise ValueError(f"source and reference: one reference a source, got {len(source)} and {len(reference)}")
    return cloud(source, "source"), cloud(reference, "reference")


def flat_colors(rgb: Tensor, fitted: int) -> Tensor:
    """Colors `(B, 3, ...)` given to a map, as `(B, 3, N)`.

    Raises:
        ValueError: the map was fitted on several pictures and the batch is of another length.
    """
    if fitted not in (1, len(rgb)):
        raise ValueError(f"rgb: the map was fitted on {fitted} pictures, got a batch of {len(rgb)}")
    return rgb.reshape(*rgb.shape[:2], -1)


def in_pieces(function: ColorMap, colors: Tensor, size: int = 1 << 18) -> Tensor:
    """Evaluate a function of color on `(B, 3, N)` piece by piece, so that its temporaries stay small."""
    return torch.cat([function(part) for part in colors.split(size, dim=2)], dim=2)


def moments(colors: Tensor, weights: Tensor | None = None, forward: ColorMap | None = None) -> tuple[Tensor, Tensor]:
    """Mean `(B, 3, 1)` and population covariance `(B, 3, 3)` of a cloud.

    Both are float64: in float32 the covariance of a picture of few colors is indefinite by rounding. Large clouds are
    taken in pieces, whose moments are merged (Chan, Golub, LeVeque 1979).

    Args:
        colors: `(B, 3, N)`.
        weights: `(B, N)` counts of each color; `None` counts each once.
        forward: conversion to the space in which the moments are taken.
    """
    weights = torch.ones_like(colors[:, 0]) if weights is None else weights
    mean = scatter = total = torch.zeros(1, 1, 1, dtype=torch.float64, device=colors.device)
    for part, share in zip(colors.split(1 << 18, dim=2), weights.split(1 << 18, dim=1), strict=True):
        values, share = (part if forward is None else forward(part)).double(), share.double()[:, None]
        count = share.sum(dim=2, keepdim=True)
        center = (values * share).sum(dim=2, keepdim=True) / count.clamp(min=1e-12)
        apart, centered = center - mean, values - center
        grown = total + count
        scatter = scatter + (centered * share) @ centered.mT + apart @ apart.mT * (total * count / grown)
        mean, total = mean + apart * (count / grown), grown
    return mean, scatter / total


def reinhard(source: Tensor, reference: Tensor, *, space: Space = "lab", weights: Weights | None = None) -> ColorMap:
    r"""Match mean and standard deviation of each channel: :math:`x' = (x - \mu_s)\,\sigma_r / \sigma_s + \mu_r`.

    Args:
        source, reference: `(B, 3, ...)` sRGB in [0, 1]; the trailing axes may differ.
        space: `"lalphabeta"` is the paper's; `"lab"` is what many libraries do under its name; `"rgb"` is plain
            mean-std matching. They are three different methods.
        weights: optional counts `((B, N) or None, (B, M) or None)` of the colors.

    Raises:
        ValueError: NaN, wrong shapes, or an unknown space.

    Reference: Reinhard, Ashikhmin, Gooch, Shirley, *Color transfer between images*, 2001.
    """
    return linear(source, reference, kind="independent", space=space, weights=weights)


def linear(
    source: Tensor,
    reference: Tensor,
    *,
    kind: Linear = "monge_kantorovich",
    space: Space = "rgb",
    weights: Weights | None = None,
) -> ColorMap:
    r"""The affine map :math:`x' = T (x - \mu_s) + \mu_r` that gives the source the reference's mean and covariance.

    Args:
        source, reference: `(B, 3, ...)` sRGB in [0, 1].
        kind: which of the infinitely many :math:`T`, see `transport_matrix`.
        space: where the moments are taken.
        weights: optional counts of the colors.

    Raises:
        ValueError: NaN, wrong shapes, an unknown space or kind.

    Reference: Pitié and Kokaram, *The linear Monge-Kantorovitch linear colour mapping*, 2007.
    """
    forward, backward, unit = space_of(space)
    source_weights, reference_weights = weights or (None, None)
    source_cloud, reference_cloud = clouds(source, reference)
    source_mean, source_cov = moments(source_cloud, source_weights, forward)
    reference_mean, reference_cov = moments(reference_cloud, reference_weights, forward)
    matrix = transport_matrix(source_cov, reference_cov, kind, epsilon=(1e-4 * unit) ** 2)

    def color_map(rgb: Tensor) -> Tensor:
        values = forward(flat_colors(rgb, len(matrix)))
        moved = matrix.to(values) @ (values - source_mean.to(values)) + reference_mean.to(values)
        return backward(moved).reshape(rgb.shape)

    return color_map


def transport_matrix(source_cov: Tensor, reference_cov: Tensor, kind: Linear, epsilon: float = 0.0) -> Tensor:
    r"""A matrix with :math:`T \Sigma_s T^\top = \Sigma_r`.

    Args:
        source_cov, reference_cov: `(B, 3, 3)` covariances.
        kind: `"independent"` scales each channel (the exception: it matches variances only); `"cholesky"` depends on
            the order of the channels; `"square_root"` does not; `"monge_kantorovich"` is symmetric and moves colors
            least; `"xiao_ma"` pairs the principal axes.
        epsilon: variance added to the source's diagonal, so that a flat picture has an inverse.

    Returns:
        `(B, 3, 3)`.
    """
    if kind == "independent":
        variances = (reference_cov.diagonal(dim1=1, dim2=2), source_cov.diagonal(dim1=1, dim2=2) + epsilon)
        return torch.diag_embed((variances[0].clamp(min=0) / variances[1]).sqrt())
    source_cov = source_cov + epsilon * torch.eye(3).to(source_cov)
    if kind == "cholesky":
        # a flat reference has no Cholesky factor without the same small term
        factor = torch.linalg.cholesky(reference_cov + epsilon * torch.eye(3).to(reference_cov))
        return torch.linalg.solve_triangular(torch.linalg.cholesky(source_cov), factor, upper=False, left=False)
    if kind == "square_root":
        return _power(reference_cov, 0.5) @ _power(source_cov, -0.5)
    if kind == "monge_kantorovich":
        root, inverse = _power(source_cov, 0.5), _power(source_cov, -0.5)
        return inverse @ _power(root @ reference_cov @ root, 0.5) @ inverse
    if kind == "xiao_ma":
        (source_values, source_axes), (values, axes) = torch.linalg.eigh(source_cov), torch.linalg.eigh(reference_cov)
        # an eigenvector's sign is arbitrary: turn each axis towards its partner, or colors come out negated
        axes = axes * torch.where((axes * source_axes).sum(dim=1, keepdim=True) < 0, -1.0, 1.0).to(axes)
        scale = (values.clamp(min=0) / source_values).sqrt()
        return axes @ torch.diag_embed(scale) @ source_axes.mT
    raise ValueError(f"unknown linear map {kind!r}; known: {', '.join(Linear.__args__)}")


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Power of a symmetric positive semi-definite matrix; eigenvalues below zero are rounding and count as zero."""
    values, axes = torch.linalg.eigh(matrix)
    return axes @ torch.diag_embed(values.clamp(min=0) ** exponent) @ axes.mT
