"""Region by region: sky towards sky, grass towards grass, mixed where regions meet.

    labels = match(segment(source), segment(reference), source, reference)
    result = methods.recolor("mkl_lab", source, reference, labels=labels)

What has no partner is recolored as without regions: the whole source towards the whole reference.

Taught in: notebooks/05_segment_regions.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ctlib import check, metrics
from ctlib.classical.statistics import ColorMap
from ctlib.segment.regions import resized
from ctlib.segment.soft import SoftMap, afford

Fit = Callable[[Tensor, Tensor], ColorMap]  # two lists of colors (1, 3, N), (1, 3, M) to a function of color

_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_SPECK = 1e-3  # share of a picture below which a region says nothing of its colors, as in `ctlib.segment.drop_small`
_FAINT = 1e-3  # of a pixel's largest weight; less is none: else each region would be computed for nearly all pixels


@dataclass(frozen=True, eq=False)
class Partners:
    """Which pixels go with which.

    Attributes:
        source, reference: `(H, W)`, `(H', W')` int64, partners numbered 0 .. R - 1, -1 where there is none.
        count: R.
        soft: where the source's regions are, with soft borders.
    """

    source: Tensor
    reference: Tensor
    count: int
    soft: SoftMap

    @property
    def whole(self) -> bool:
        """Whether one region covers both pictures, or none is shared: nothing to tell apart."""
        if not self.count:
            return True
        return self.count == 1 and bool((self.source == 0).all()) and bool((self.reference == 0).all())

    def weights(self, rgb: Tensor, top: int = 0, height: int | None = None) -> Tensor:
        """`(1, R + 1, h, W)` float32, adding up to 1 in each pixel; the last map is for what has no partner.

        Args:
            rgb: `(1, 3, h, W)` sRGB in [0, 1]: the source, or rows of it or of a copy of another size.
            top: the first of the rows.
            height: of the picture that they belong to; by default it is given whole.

        Raises:
            ValueError: so many regions that the weights take more than 2 GB.
        """
        afford(self.count + 1, rgb.shape[2:])
        weights = self.soft.weights(rgb, top, height)
        faint = _FAINT * weights.amax(1)
        for weight in weights.unbind(1):
            weight.masked_fill_(weight < faint, 0)
        return weights.div_(weights.sum(1, keepdim=True))

    def blend(self, fit: Fit, source: Tensor, reference: Tensor):
        """Fit a color map for each pair of partners, and mix what they make of the source.

        Args:
            fit: two lists of colors `(1, 3, N)`, `(1, 3, M)` to a function of color.
            source, reference: `(1, 3, H, W)`, `(1, 3, H', W')` sRGB in [0, 1].

        Returns:
            `(1, 3, H, W)`.

        Raises:
            ValueError: so many regions that the weights take more than 2 GB.
        """
        return mix(self.maps(fit, source, reference), source, self.weights(source))

    def maps(self, fit: Fit, source: Tensor, reference: Tensor) -> Iterator[ColorMap | None]:
        """The color maps that `blend` mixes, the last for what has no partner; `None` if all have one."""
        colors, wanted = source.flatten(2), reference.flatten(2)
        for number in range(self.count + 1):
            if number == self.count and (self.source >= 0).all():
                yield None
            elif number < self.count:
                own = [side.flatten() == number for side in (self.source, self.reference)]
                yield fit(colors[:, :, own[0]], wanted[:, :, own[1]])
            else:
                yield fit(colors, wanted)


def mix(maps: Iterable[ColorMap | None], colors: Tensor, weights: Tensor) -> Tensor:
    """What several color maps make of a picture, each where it has a weight.

    Args:
        maps: R functions of color; `None` for one that has no weight anywhere.
        colors: `(1, 3, H, W)` in the space that the maps expect.
        weights: `(1, R, H, W)`, adding up to 1 in each pixel.

    Returns:
        `(1, 3, H, W)`.
    """
    flat, result = colors.flatten(2), torch.zeros_like(colors).flatten(2)
    for color_map, weight in zip(maps, weights[0].flatten(1).to(colors), strict=True):
        heard = weight.nonzero().flatten()
        if len(heard) == len(weight):
            result += weight * color_map(flat)
        elif len(heard):
            result.index_add_(2, heard, weight[heard] * color_map(flat[:, :, heard]))
    return result.view(colors.shape)


def partners(
    labels: tuple[Tensor, Tensor], source: Tensor, reference: Tensor, *, radius: int | None = None
) -> Partners:
    """From two label maps with shared numbers to `Partners` with soft borders.

    Args:
        labels: of source and reference, `(H, W)` whole numbers; the same number means partners, a negative one or one
            that the other map lacks means none, and so does one that covers less than 0.1 % of either picture, with a
            warning. A map of another size than its picture is scaled to it, with a warning.
        source, reference: `(1, 3, H, W)` sRGB in [0, 1].
        radius: of the borders, see `ctlib.segment.soften`.

    Raises:
        ValueError: a batch of several pictures, maps that are none, or so many regions that 2 GB are too few.
    """
    if not isinstance(labels, tuple | list) or len(labels) != 2:
        found = f"{len(labels)}" if isinstance(labels, tuple | list) else type(labels).__name__
        raise ValueError(f"labels: expected two maps, of source and reference, got {found}; see ctlib.segment.match")
    maps = []
    for number, (one, picture, name) in enumerate(
        zip(labels, (source, reference), ("source", "reference"), strict=True)
    ):
        check.rgb(picture, name)
        if len(picture) != 1:
            raise ValueError(
                f"labels: regions belong to one picture, got a batch of {len(picture)}; take them one by one"
            )
        if not isinstance(one, Tensor) or one.ndim != 2 or one.dtype not in _WHOLE or not one.numel():
            found = f"{one.dtype} {tuple(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
            raise ValueError(f"labels[{number}]: expected whole numbers (H, W), got {found}; see ctlib.segment.given")
        size = tuple(picture.shape[2:])
        if tuple(one.shape) != size:
            warnings.warn(
                f"labels: {name}'s map of {tuple(one.shape)} is scaled to {size}, nearest neighbor", stacklevel=3
            )
            one = resized(one, size)
        maps.append(one.long().to(source.device))
    every, shared = _shared(*maps), _shared(*maps, least=_SPECK)
    if len(shared) < len(every):
        specks = f"{len(every) - len(shared)} of {len(every)} shared labels cover less than {_SPECK:.1%} of a picture"
        warnings.warn(f"labels: {specks}, too little to take colors from, and have no partner", stacklevel=3)
    if not shared:
        warnings.warn("labels: source and reference share none, so the whole pictures are used", stacklevel=3)
    renumbered = [torch.full_like(one, -1) for one in maps]
    for number, label in enumerate(shared):
        for old, new in zip(maps, renumbered, strict=True):
            new[old == label] = number
    return Partners(*renumbered, len(shared), SoftMap(renumbered[0], source.float(), len(shared), radius))


def _shared(first: Tensor, second: Tensor, least: float = 0.0) -> list[int]:
    """Labels that have at least this share of both maps; negative ones mean none."""
    both = []
    for one in (first, second):
        labels, counts = _counted(one)
        both.append(set(labels[counts >= least * one.numel()].tolist()))
    return sorted(label for label in both[0] & both[1] if label >= 0)


def _counted(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers in a map, and how many pixels have each; small numbers without sorting twelve million."""
    labels = labels.long()
    low, high = (int(end) for end in labels.aminmax())
    if high - low > 1 << 16:
        return labels.unique(return_counts=True)
    counts = torch.bincount((labels - low).flatten())
    present = counts.nonzero().flatten()
    return present + low, counts[present]


def distance(result: Tensor, reference: Tensor, labels: tuple[Tensor, Tensor]) -> float:
    """How far the colors of regions are from those of their partners.

    Args:
        result, reference: `(1, 3, H, W)`, `(1, 3, H', W')` sRGB in [0, 1].
        labels: label maps of these sizes, see `partners`.

    Returns:
        Mean over partners of `ctlib.metrics.hellinger_ab`, weighted by the regions' areas in the result; 0 to 1.

    Raises:
        ValueError: no label is shared, or a map of another size.
    """
    for one, rgb, name in zip(labels, (result, reference), ("result", "reference"), strict=True):
        if tuple(one.shape) != tuple(rgb.shape[2:]):
            raise ValueError(f"labels: {name} is {tuple(rgb.shape[2:])}, its map {tuple(one.shape)}; scale it first")
    total = area = 0.0
    for label in _shared(*labels):
        own, wanted = (rgb[:, :, one == label][..., None] for rgb, one in zip((result, reference), labels, strict=True))
        total += own.shape[2] * metrics.hellinger_ab(own, wanted).item()
        area += own.shape[2]
    if not area:
        raise ValueError("labels: source and reference share none")
    return total / area
