r"""Reinhard's swatches: statistics per cluster of colors instead of one set for the whole picture.

`swatch_seed` repeats a published student notebook with its faults, because the book takes it apart; `swatch` is what it
should have been.

Taught in: notebooks/10_statistics_transfer.
"""

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from torch import Tensor

from ctlib import color
from ctlib.classical.statistics import ColorMap, Weights, clouds, flat_colors, in_pieces, moments

_SAMPLES = 20_000  # colors that k-means sees; more change the centers by less than a gray level
_FLOOR = 2.0  # CIELAB units: a flatter cluster counts as this spread, or its noise would be blown up


def _labs(source: Tensor, reference: Tensor) -> list[Tensor]:
    """CIELAB clouds of the source and the reference."""
    return [in_pieces(color.rgb_to_lab, part) for part in clouds(source, reference)]


def clusters(lab: Tensor, weights: Tensor | None, k: int, seed: int = 0) -> Tensor:
    """k-means in CIELAB: `(3, N)` colors and `(N,)` counts or `None` to `(k, 3)` centers, sorted by lightness.

    A picture with fewer than `k` colors gives as many centers as it has colors.
    """
    generator = torch.Generator().manual_seed(seed)
    lab = lab.detach()
    if lab.shape[1] > _SAMPLES:
        if weights is None:
            drawn = torch.randint(lab.shape[1], (_SAMPLES,), generator=generator)
        else:
            drawn = torch.multinomial(weights.cpu().float(), _SAMPLES, replacement=True, generator=generator)
        lab, weights = lab[:, drawn], None
    points = lab.T.double().cpu().numpy()
    k = min(k, len(torch.unique(lab.T.round(decimals=3), dim=0)))
    counts = None if weights is None else weights.double().cpu().numpy()
    centers = KMeans(k, n_init=4, random_state=seed).fit(points, sample_weight=counts).cluster_centers_
    return torch.from_numpy(centers[centers[:, 0].argsort()]).to(lab)


def swatch(source: Tensor, reference: Tensor, *, k: int = 4, seed: int = 0, weights: Weights | None = None) -> ColorMap:
    r"""Reinhard per cluster, in CIELAB: :math:`x' = \sum_j w_j [\sigma_{r,j}(x - \mu_{s,j})/\sigma_{s,j} + \mu_{r,j}]`.

    Clusters of both pictures are paired one to one (least total distance, each picture centered on its own mean); the
    weights are :math:`w_j \propto \exp(-d_j^2 / 2)` of the Mahalanobis distance :math:`d_j` to source cluster `j`.

    Args:
        source, reference: `(B, 3, ...)` sRGB in [0, 1].
        k: clusters per picture, 1..16; fewer where a picture has fewer colors.
        seed: of k-means.
        weights: optional counts of the colors.

    Raises:
        ValueError: NaN, wrong shapes, or `k` out of range.
    """
    if not 1 <= k <= 16:
        raise ValueError(f"k: expected 1..16 clusters, got {k}")
    source_weights, reference_weights = weights or (None, None)
    source_lab, reference_lab = _labs(source, reference)
    pairs = []
    for index in range(len(source_lab)):
        parts = []
        for lab, counts in ((source_lab[index], source_weights), (reference_lab[index], reference_weights)):
            counts = None if counts is None else counts[index]
            parts.append(_cluster_statistics(lab, counts, clusters(lab, counts, k, seed)))
        pairs.append(_match(*parts))

    def color_map(rgb: Tensor) -> Tensor:
        lab = color.rgb_to_lab(flat_colors(rgb, len(pairs)))
        out = []
        for index, one in enumerate(lab):
            mean, whiten, ratio, new_mean = (part.to(one) for part in pairs[index % len(pairs)])
            apart = one - mean[:, :, None]  # (k, 3, N)
            weight = torch.softmax(-0.5 * (whiten @ apart).square().sum(dim=1, keepdim=True), dim=0)
            out.append((weight * (apart * ratio[:, :, None] + new_mean[:, :, None])).sum(dim=0))
        return color.lab_to_rgb(torch.stack(out), clip=False).reshape(rgb.shape)

    return color_map


def _cluster_statistics(lab: Tensor, weights: Tensor | None, centers: Tensor) -> tuple[Tensor, Tensor]:
    """True mean `(k, 3)` and covariance `(k, 3, 3)` of the colors nearest to each center."""
    label = torch.cdist(lab.T.contiguous(), centers).argmin(dim=1)
    means, covariances = [], []
    for j in range(len(centers)):
        member = label == j
        mean, cov = moments(lab[None, :, member], None if weights is None else weights[None, member])
        means.append(mean[0, :, 0])
        covariances.append(cov[0])
    return torch.stack(means), torch.stack(covariances)


def _match(source: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pair clusters by least total distance; those left over by the smaller set pair with the nearest.

    Returns:
        For each source cluster its mean `(k, 3)`, the matrix `(k, 3, 3)` that makes it white (its norm is Mahalanobis'
        distance), the ratio of spreads `(k, 3)` and the partner's mean `(k, 3)`.
    """
    (mean, covariance), (new_mean, new_covariance) = source, reference
    cost = torch.cdist(mean - mean.mean(dim=0), new_mean - new_mean.mean(dim=0))
    partner = cost.argmin(dim=1)
    rows, columns = linear_sum_assignment(cost.detach().cpu().numpy())
    partner[rows] = torch.from_numpy(columns).to(partner)
    whiten = torch.linalg.inv(torch.linalg.cholesky(covariance + _FLOOR**2 * torch.eye(3).to(covariance)))
    new_spread, spread = (
        part.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt().clamp(min=_FLOOR) for part in (new_covariance, covariance)
    )
    return mean, whiten, new_spread[partner] / spread, new_mean[partner]


def swatch_seed(source: Tensor, reference: Tensor, *, seed: int = 0, weights: Weights | None = None) -> ColorMap:
    r"""The two-cluster notebook of the mood-transfer seed, faults included; for comparison only.

    Three things go wrong in it. The spread of a cluster is measured on the code book, where all its pixels have one
    color, so it is the floor of 7. The distance that weighs the two results is taken channel by channel, so L, a and b
    are mixed with different weights. Last, the result is stretched to the whole CIELAB range whatever its contrast.

    Args:
        source, reference: `(B, 3, ...)` sRGB in [0, 1].
        seed: of k-means.
        weights: optional counts of the colors.

    Reference: SaadManzur/ImageColorization, the notebook of its README's mood-transfer section.
    """
    source_weights, reference_weights = weights or (None, None)
    source_lab, reference_lab = _labs(source, reference)
    mean, cov = moments(source_lab, source_weights)
    spread = cov.diagonal(dim1=1, dim2=2).clamp(min=1e-8).sqrt()[..., None]
    centers = [
        clusters(lab, None if reference_weights is None else reference_weights[i], 2, seed)
        for i, lab in enumerate(reference_lab)
    ]
    floor = 7.0

    def blend(lab: Tensor) -> Tensor:
        out = []
        for index, one in enumerate(lab):
            index %= len(centers)
            center = centers[index][:, :, None].to(one)  # (k, 3, 1)
            shifted = (one - mean[index].to(one)) * floor / spread[index].to(one) + center
            weight = 1 / ((one - center).abs() / floor).clamp(min=1e-6)
            out.append((weight * shifted).sum(dim=0) / weight.sum(dim=0))
        return torch.stack(out)

    reached = blend(source_lab)
    low, high = reached.amin(dim=2, keepdim=True), reached.amax(dim=2, keepdim=True)
    bottom, top = torch.tensor([[0.0], [-128.0], [-128.0]]), torch.tensor([[100.0], [127.0], [127.0]])

    def color_map(rgb: Tensor) -> Tensor:
        lab = blend(color.rgb_to_lab(flat_colors(rgb, len(centers))))
        share = (lab - low.to(lab)) / (high - low).clamp(min=1e-6).to(lab)
        return color.lab_to_rgb(share * (top - bottom).to(lab) + bottom.to(lab), clip=False).reshape(rgb.shape)

    return color_map
