"""Soft borders: what a hard label map becomes when it follows the edges of its picture."""

import torch
from torch import Tensor
from torch.nn import functional

from ctlib import check


def soften(
    labels: Tensor, rgb: Tensor, regions: int, radius: int | None = None, eps: float = 1e-3, long_side: int = 1024
) -> Tensor:
    r"""Weights of the regions at each pixel, by the guided filter of He, Sun and Tang (ECCV 2010, TPAMI 2013).

    The map of each region, 1 inside and 0 outside, is filtered with the three colors of the picture as guide: in each
    window it becomes the affine function of the color that fits it best,
    :math:`a = (\Sigma + \epsilon I)^{-1} \mathrm{cov}(I, p),\ b = \bar p - a^\top \bar I`, and the results of all
    windows that see a pixel are averaged. Windows are cut at the border of the picture. Negative weights become 0, and
    the sum at each pixel is made 1. Further than two radii from a border, weights are 0 and 1
    up to rounding.

    Args:
        labels: `(H, W)` int64, -1 for what has no partner.
        rgb: `(1, 3, H, W)` sRGB in [0, 1].
        regions: R; labels lie in -1 .. R - 1.
        radius: of the windows, which are 2 radius + 1 wide. Default: 2 % of the long side, at least 1. 0: hard.
        eps: variance of the guide, below which a window counts as flat and the map is blurred in it.
        long_side: in a larger picture the affine functions are found in one shrunk to it, by averaging, and scaled up
            (He and Sun 2015, arXiv:1505.00996); the weights still follow each pixel's own color.

    Returns:
        `(1, R + 1, H, W)` float32, sums to 1 over axis 1; the last map is that of label -1.

    Raises:
        ValueError: shapes that do not fit, labels that are out of range, a bad picture, radius or eps.
    """
    check.rgb(rgb, "rgb")
    if labels.ndim != 2 or labels.is_floating_point() or tuple(rgb.shape) != (1, 3, *labels.shape):
        raise ValueError(
            f"labels: expected whole numbers (H, W) and rgb (1, 3, H, W), got {labels.dtype} {tuple(labels.shape)} "
            f"and {tuple(rgb.shape)}; see ctlib.segment.given"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < -1 or high >= regions:
        raise ValueError(f"labels: expected -1 to {regions - 1} for {regions} regions, got {low} to {high}")
    radius = max(1, round(0.02 * max(labels.shape))) if radius is None else radius
    if radius < 0 or not eps > 0 or long_side < 1:
        found = f"{radius}, {eps} and {long_side}"
        raise ValueError(f"radius, eps and long_side: expected at least 0, more than 0 and at least 1, got {found}")
    weights = torch.zeros(1, regions + 1, *labels.shape, device=rgb.device)
    labels = torch.where(labels < 0, regions, labels).to(rgb.device)
    present = torch.unique(labels).tolist()
    if len(present) == 1 or radius == 0:
        return weights.scatter_(1, labels[None, None], 1)
    guide = _Guide(rgb.detach().float(), radius, eps, min(1.0, long_side / max(labels.shape)))
    for region in present:  # one at a time: R maps of products would be the largest thing in memory
        weights[:, region] = guide.filter((labels == region)[None, None].float())[:, 0].clamp_(min=0)
    # the filter is linear, so before the clamp the sum was 1, and after it is no less
    return weights.div_(weights.sum(1, keepdim=True))


class _Guide:
    """What the guided filter computes once for all maps of a picture."""

    def __init__(self, rgb: Tensor, radius: int, eps: float, scale: float):
        self.rgb = rgb - rgb.mean((2, 3), keepdim=True)  # centered: float32 products lose less
        self.size = [max(1, round(side * scale)) for side in rgb.shape[2:]]
        self.radius = max(1, round(radius * scale))
        self.small = self.shrink(self.rgb)
        self.mean = self.box(self.small)
        red, green, blue = self.small.unbind(1)
        products = torch.stack([red * red, red * green, red * blue, green * green, green * blue, blue * blue], 1)
        rr, rg, rb, gg, gb, bb = self.box(products).unbind(1)
        square = torch.stack([rr, rg, rb, rg, gg, gb, rb, gb, bb], -1).unflatten(-1, (3, 3))
        mean = self.mean.movedim(1, -1)
        cov = square - mean[..., None] * mean[..., None, :] + eps * torch.eye(3, device=rgb.device)
        self.inverse = torch.linalg.inv(cov)

    def shrink(self, maps: Tensor) -> Tensor:
        return maps if list(maps.shape[2:]) == self.size else functional.interpolate(maps, self.size, mode="area")

    def box(self, maps: Tensor) -> Tensor:
        """Mean over windows cut at the border, from running sums, which float32 would spoil."""
        for axis in (2, 3):
            place = torch.arange(maps.shape[axis], device=maps.device)
            start, stop = (place - self.radius).clamp(min=0), (place + self.radius + 1).clamp(max=len(place))
            sums = functional.pad(maps.double().cumsum(axis), (0, 0, 1, 0) if axis == 2 else (1, 0))
            count = (stop - start)[:, None] if axis == 2 else stop - start
            maps = ((sums.index_select(axis, stop) - sums.index_select(axis, start)) / count).float()
        return maps

    def filter(self, target: Tensor) -> Tensor:
        """Filter `(1, 1, H, W)`."""
        target = self.shrink(target)
        mean = self.box(target)
        cov = (self.box(self.small * target) - self.mean * mean).movedim(1, -1)
        slope = (self.inverse @ cov[..., None])[..., 0].movedim(-1, 1)
        offset = mean - (slope * self.mean).sum(1, keepdim=True)
        slope, offset = (self.grow(self.box(maps)) for maps in (slope, offset))
        return (slope * self.rgb).sum(1, keepdim=True) + offset

    def grow(self, maps: Tensor) -> Tensor:
        size = self.rgb.shape[2:]
        return maps if maps.shape[2:] == size else functional.interpolate(maps, size, mode="bilinear")
