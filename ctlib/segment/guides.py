"""Label maps of a picture and its reference as label-guided normalization takes them: which labels count.

A label is valid if more than 10 pixels of each picture carry it and neither has a hundred times as many as the other.
Everything else keeps the content's features: it belongs to no region.

Source: the code of Xu et al. 2020 (and of photo style transfer before it), see `ctlib.ops.adain`.
Taught in: notebooks/50_train_transfer_subnet, label maps at work in notebooks/51_exemplar_colorization.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from ctlib.segment.regions import resized

FEW, RATIO = 10, 100
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Guide(NamedTuple):
    """Maps of picture and reference, `(1, H, W)` and `(1, h, w)` int64: valid labels 0 .. count - 1, all others -1."""

    source: Tensor
    reference: Tensor
    count: int

    def to(self, device: torch.device | str) -> "Guide":
        return Guide(self.source.to(device), self.reference.to(device), self.count)


def guide(labels: tuple[Tensor, Tensor], source: Tensor, reference: Tensor) -> Guide | None:
    """Maps as a network takes them, or None, with a warning, where no label is valid: then all of it is one region.

    Args:
        labels: of source and reference, `(H, W)` whole numbers; the same number means the same thing, a negative one
            nothing. A map of another size than its picture is scaled to it, with a warning.
        source, reference: `(1, C, H, W)`, `(1, C, H', W')`: of the pictures only the size counts.

    Raises:
        ValueError: a batch of several pictures, or maps that are none.
    """
    if not isinstance(labels, tuple | list) or len(labels) != 2:
        found = len(labels) if isinstance(labels, tuple | list) else type(labels).__name__
        raise ValueError(f"labels: expected two maps, of source and reference, got {found}")
    maps = []
    for number, (one, picture) in enumerate(zip(labels, (source, reference), strict=True)):
        name = ("source", "reference")[number]
        if len(picture) != 1:
            raise ValueError(
                f"labels: regions belong to one picture, {name} is a batch of {len(picture)}; take them one by one"
            )
        if not isinstance(one, Tensor) or one.ndim != 2 or not one.numel() or one.dtype not in _WHOLE:
            found = f"{one.dtype} {tuple(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
            raise ValueError(f"labels[{number}]: expected whole numbers (H, W), got {found}; see ctlib.segment.given")
        size = tuple(picture.shape[2:])
        if tuple(one.shape) != size:
            was = tuple(one.shape)
            warnings.warn(f"labels: {name}'s map of {was} is scaled to {size}, nearest neighbor", stacklevel=1)
            one = resized(one, size)
        maps.append(one.long())
    valid = _valid(*maps)
    if not valid:
        warnings.warn(
            f"labels: source and reference share none with more than {FEW} pixels in each and less than {RATIO} times "
            "as many in one as in the other, so the whole pictures are used",
            stacklevel=1,  # the caller's frame is often one of torch's
        )
        return None
    numbered = [torch.full_like(one, -1) for one in maps]
    for number, label in enumerate(valid):
        for old, new in zip(maps, numbered, strict=True):
            new[old == label] = number
    return Guide(numbered[0][None], numbered[1][None], len(valid))


def _valid(first: Tensor, second: Tensor) -> list[int]:
    areas = []
    for one in (first, second):
        labels, counts = one.unique(return_counts=True)
        areas.append(dict(zip(labels.tolist(), counts.tolist(), strict=True)))
    found = []
    for label in sorted(areas[0].keys() & areas[1].keys()):
        few, many = sorted((areas[0][label], areas[1][label]))
        if label >= 0 and few > FEW and many < RATIO * few:
            found.append(label)
    return found
