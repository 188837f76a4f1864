"""Soft borders: what a hard label map becomes when it follows the edges of its picture."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ctlib import check
from ctlib.segment.regions import resized

_MOST = 2 << 30  # bytes of weights, or of what they are computed from
_SILENT = 1e-4  # a map below it, whatever the color, is zero


def soften(
    labels: Tensor, rgb: Tensor, regions: int, radius: int | None = None, eps: float = 1e-3, long_side: int = 512
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
        ValueError: shapes that do not fit, labels that are out of range, a bad picture, radius or eps, or more regions
            than 2 GB hold the weights of; for those see `SoftMap`.
    """
    check.rgb(rgb, "rgb")
    if isinstance(regions, bool) or not isinstance(regions, int) or regions < 0:
        raise ValueError(f"regions: expected how many there are, a whole number, got {regions!r}")
    afford(regions + 1, rgb.shape[2:])
    soft = SoftMap(labels, rgb, regions, radius, eps, long_side)
    return soft.weights(rgb)


class SoftMap:
    """The weights of `soften` for some rows of the picture at a time, and for copies of it of other sizes.

    Args:
        labels, rgb, regions, radius, eps, long_side: as in `soften`; the colors are taken as checked, which takes its
            time in a large picture.
    """

    def __init__(
        self,
        labels: Tensor,
        rgb: Tensor,
        regions: int,
        radius: int | None = None,
        eps: float = 1e-3,
        long_side: int = 512,
    ):
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
        labels, self.count = torch.where(labels < 0, regions, labels).to(rgb.device), regions + 1
        self.affine: dict[int, tuple[int, int, Tensor]] = {}  # of a region: first and last row with any, (1, 4, h, w)
        present = torch.bincount(labels.flatten(), minlength=self.count).nonzero().flatten().tolist()
        if len(present) == 1 or radius == 0:
            self.hard = labels
            return
        scale = min(1.0, long_side / max(labels.shape))
        size = [max(1, round(side * scale)) for side in labels.shape]
        afford(len(present), size, maps=4)
        guide = _Guide(_shrunk(rgb.detach().float(), size), max(1, round(radius * scale)), eps)
        self.mean = guide.center
        for region in present:  # one at a time: R maps of products would be the largest thing in memory
            affine = guide.affine(_shrunk((labels == region)[None, None].float(), size))
            heard = (affine.abs().amax((0, 1, 3)) > _SILENT).nonzero()
            self.affine[region] = int(heard[0]), int(heard[-1]), affine

    def weights(self, rgb: Tensor, top: int = 0, height: int | None = None) -> Tensor:
        """Weights at some rows of the picture, or of a copy of it.

        Args:
            rgb: `(1, 3, h, W)` sRGB in [0, 1], the rows.
            top: the first of them.
            height: of the copy; all rows are given by default.

        Returns:
            `(1, R + 1, h, W)` float32.
        """
        (rows, width), bottom = rgb.shape[2:], top + rgb.shape[2]
        size = (rows if height is None else height, width)
        weights = torch.zeros(1, self.count, rows, width, device=rgb.device)
        if not self.affine:
            labels = self.hard if self.hard.shape == size else resized(self.hard, size)
            return weights.scatter_(1, labels[None, None, top:bottom].to(rgb.device), 1)
        centered = rgb.detach().float() - self.mean
        for region, (first, last, affine) in self.affine.items():
            low, high = _between(affine.shape[2], top, bottom, size[0])
            if first <= high and low <= last:
                slope, offset = grown(affine, top, bottom, size).split([3, 1], dim=1)
                weights[:, region] = (slope * centered).sum(1) + offset[:, 0]
        # the filter is linear, so before the clamp the sum was 1, and after it is no less
        weights.clamp_(min=0)
        return weights.div_(weights.sum(1, keepdim=True))


class _Guide:
    """What the guided filter computes once for all maps of a picture."""

    def __init__(self, rgb: Tensor, radius: int, eps: float):
        self.center = rgb.mean((2, 3), keepdim=True)
        self.rgb, self.radius = rgb - self.center, radius  # centered: float32 products lose less
        self.mean = self.box(self.rgb)
        red, green, blue = self.rgb.unbind(1)
        products = torch.stack([red * red, red * green, red * blue, green * green, green * blue, blue * blue], 1)
        rr, rg, rb, gg, gb, bb = self.box(products).unbind(1)
        square = torch.stack([rr, rg, rb, rg, gg, gb, rb, gb, bb], -1).unflatten(-1, (3, 3))
        mean = self.mean.movedim(1, -1)
        cov = square - mean[..., None] * mean[..., None, :] + eps * torch.eye(3, device=rgb.device)
        self.inverse = torch.linalg.inv(cov)

    def box(self, maps: Tensor) -> Tensor:
        """Mean over windows cut at the border, from running sums, which float32 would spoil."""
        for axis in (2, 3):
            place = torch.arange(maps.shape[axis], device=maps.device)
            start, stop = (place - self.radius).clamp(min=0), (place + self.radius + 1).clamp(max=len(place))
            sums = functional.pad(maps.double().cumsum(axis), (0, 0, 1, 0) if axis == 2 else (1, 0))
            count = (stop - start)[:, None] if axis == 2 else stop - start
            maps = ((sums.index_select(axis, stop) - sums.index_select(axis, start)) / count).float()
        return maps

    def affine(self, target: Tensor) -> Tensor:
        """Slopes by red, green, blue and offset of the filter of `(1, 1, h, w)`: `(1, 4, h, w)`."""
        mean = self.box(target)
        cov = (self.box(self.rgb * target) - self.mean * mean).movedim(1, -1)
        slope = (self.inverse @ cov[..., None])[..., 0].movedim(-1, 1)
        return self.box(torch.cat([slope, mean - (slope * self.mean).sum(1, keepdim=True)], dim=1))


def grown(maps: Tensor, top: int, bottom: int, size: Sequence[int]) -> Tensor:
    """Rows `top` to `bottom` of `(B, C, h, w)` maps enlarged bilinearly to a size: `(B, C, bottom - top, W)`."""
    height, (tall, wide) = maps.shape[2], size
    if (height, maps.shape[3]) == (tall, wide):
        return maps[:, :, top:bottom]
    place = ((torch.arange(top, bottom, dtype=torch.float64) + 0.5) * height / tall - 0.5).clamp(0, height - 1)
    above = place.long()
    below = (above + 1).clamp(max=height - 1)
    first, last = _between(height, top, bottom, tall)
    near = functional.interpolate(maps[:, :, first : last + 1], (last + 1 - first, wide), mode="bilinear")
    share = (place - above).to(near)[:, None]
    above, below = ((row - first).to(near.device) for row in (above, below))
    return torch.lerp(near.index_select(2, above), near.index_select(2, below), share)


def _between(height: int, top: int, bottom: int, tall: int) -> tuple[int, int]:
    """First and last of `height` rows that rows `top` to `bottom` of `tall` ones lie between."""
    first, last = (min(max((row + 0.5) * height / tall - 0.5, 0.0), height - 1.0) for row in (top, bottom - 1))
    return int(first), min(int(last) + 1, height - 1)


def _shrunk(maps: Tensor, size: Sequence[int]) -> Tensor:
    return maps if list(maps.shape[2:]) == list(size) else functional.interpolate(maps, size, mode="area")


def afford(regions: int, size: Sequence[int], maps: int = 1) -> None:
    """Raise `ValueError` if float32 maps, so many a region, take more than 2 GB."""
    height, width = size
    if (need := 4 * maps * regions * height * width) > _MOST:
        raise ValueError(
            f"labels: the weights of {regions - 1} regions of {height} x {width} pixels take {need / 1e9:.1f} GB, more "
            f"than {_MOST / 1e9:.1f}; merge labels, or join the small ones with ctlib.segment.drop_small"
        )
