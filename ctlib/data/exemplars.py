"""Training pictures with a reference each: any other picture, or one of those whose colors are nearest.

Nearest is by the Hellinger distance of the histograms over 313 bins of a and b, `ctlib.hints.global_hints`, a rule that
does for thousands of pictures; palettes and their earth mover's distance, `ctlib.data.references`, take 2 ms a pair.
"""

import numpy as np
import torch
from torch import Tensor

from ctlib import hints, ops
from ctlib.data.pairs import Photos
from ctlib.data.registry import DataError
from ctlib.settings import number, whole

_AT_ONCE = 16  # pictures


class Exemplars:
    """Photographs with references drawn among them.

    Args:
        photos: to draw from.
        near: 0 takes any other picture for a reference, k one of the k nearest ones.
        own: share of the pictures that are their own reference, which is where a reference says most.
        stray: share that gets any other picture whatever `near` says, so that a network sees bad references, too.

    Item `(index, seed)`: `{"rgb", "other": uint8 (H, W, 3), "seed": seed}`; which one is a function of the seed.

    Raises:
        ValueError: near is no whole number, or a share is none. DataError: fewer than two photographs.
    """

    def __init__(self, photos: Photos, near: int = 0, own: float = 0.0, stray: float = 0.0):
        if len(photos) < 2:
            raise DataError(f"exemplars: a reference is another picture, and there are {len(photos)}; add pictures")
        self.photos, self.near = photos, min(whole("near", near, 0), len(photos) - 1)
        self.own, self.stray = number("own", own, 1), number("stray", stray, 1)
        if self.own + self.stray > 1:
            raise ValueError(f"own, stray: shares of all pictures, together at most 1, got {own!r} and {stray!r}")
        self.table = nearest(histograms(photos), self.near) if self.near else None

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index, seed = place
        draws = np.random.default_rng((int(seed), 313))
        kind = draws.random() if self.own or self.stray else 1.0
        if kind < self.own:
            other = index
        elif self.table is None or kind < self.own + self.stray:
            other = int(draws.integers(len(self.photos) - 1))
            other += other >= index
        else:
            other = int(self.table[index, draws.integers(self.near)])
        return self.photos[index, seed] | {"other": self.photos[other, seed]["rgb"]}

    @property
    def manifest(self) -> dict[str, str]:
        """That of the photographs."""
        return self.photos.manifest


def histograms(photos: Photos) -> Tensor:
    """Of a and b over 313 bins: `(N, 313)`, each adding up to 1."""
    found = []
    for start in range(0, len(photos), _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, len(photos)))
        rgb = torch.stack([photos[number, 0]["rgb"] for number in numbers]).permute(0, 3, 1, 2).float() / 255
        found.append(hints.global_hints(rgb, saturation=False)[:, : len(ops.AB_BINS)])
    return torch.cat(found)


def nearest(histograms: Tensor, count: int) -> Tensor:
    """Of each of `(N, bins)` the nearest others, `(N, count)` int64, from the nearest on."""
    roots = histograms.double().sqrt()
    likeness = roots @ roots.mT
    likeness.fill_diagonal_(-1)
    return (-likeness.round(decimals=9)).argsort(dim=1, stable=True)[:, :count]
