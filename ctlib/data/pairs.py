r"""Training pairs for color transfer, made on the device from 8-bit pictures: source, target, and reference pixels.

A pair is a function of one picture and one seed, and of nothing else: the same seed gives the same pair before and
after a restart, and but for rounding in any batch, on any number of processes.

Taught in: notebooks/20_train_histogram_analogy.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ctlib import ops
from ctlib.classical.distribution import spread
from ctlib.data import augment, splits
from ctlib.data.cache import Cache
from ctlib.data.registry import DataError

DRAWS = 15  # uniform numbers that a pair takes
PARTS = ("all", "train", "val", "test")
KINDS = ("retouch", "hue", "identity", "palette")


class Pair(NamedTuple):
    """CIELAB in natural units; `reference` holds the pixels whose histogram is the condition."""

    source: Tensor  # (B, 3, H, W)
    target: Tensor  # (B, 3, H, W)
    reference: Tensor  # (B, 3, H, W) or (B, 3, N)


class Photos:
    """Single photographs, of which `photo_pairs` makes pairs. Gray pictures are left out: they teach no color.

    Args:
        caches: one or several, of one picture size.
        part: `"train"`, `"val"` or `"test"`, by the hash of the picture's file, so that two copies of one picture are
            in one part; or `"all"`.
        fractions: of the parts, see `ctlib.data.splits.split`.

    Item `(index, seed)`: `{"rgb": uint8 (H, W, 3), "seed": seed}`.

    Raises:
        ValueError: an unknown part. DataError: caches of several sizes, or gray pictures only.
    """

    def __init__(self, *caches: Cache, part: str = "all", fractions: Mapping[str, float] | None = None):
        if part not in PARTS:
            raise ValueError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
        self.caches = caches
        if len({cache.images.shape[1:] for cache in caches}) != 1:
            raise DataError("pairs: the caches hold pictures of different sizes; build them with one size")
        self.places = [
            (number, row)
            for number, cache in enumerate(caches)
            for row in range(len(cache))
            if _is_colored(cache.images[row])
        ]
        if not self.places and any(map(len, caches)):
            raise DataError(f"pairs: all {sum(map(len, caches))} pictures are gray, which teaches no color; add others")
        if part != "all":
            divided = splits.split(dict.fromkeys(one for cache in caches for one in cache.sha256), fractions)
            mine = set(divided.get(part, ()))
            self.places = [(number, row) for number, row in self.places if caches[number].sha256[row] in mine]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index, seed = place
        number, row = self.places[index]
        return {"rgb": torch.from_numpy(self.caches[number].images[row].copy()), "seed": seed}

    @property
    def manifest(self) -> dict[str, str]:
        """Cache, row and file name to SHA-256 of every photograph, for the model card; names may repeat in a set."""
        places = [(self.caches[number], row) for number, row in self.places]
        return {f"{cache.folder.name}/{row:05d} {cache.names[row]}": cache.sha256[row] for cache, row in places}


class Renditions:
    """Several renditions of the same photographs, as FiveK has them: any ordered pair of two, equal ones included.

    Args:
        caches: one a rendition, the same photographs in the same order.

    Item `(index, seed)`: `{"rgb", "other": uint8 (H, W, 3), "seed": seed}`; both renditions are drawn independently, so
    that with six of them a sixth of all pairs are identity pairs (as in the authors' code).
    """

    def __init__(self, *caches: Cache):
        if len({(len(cache), cache.images.shape[1:]) for cache in caches}) != 1:
            raise DataError("pairs: each rendition needs the same photographs at one size; build the caches anew")
        self.caches = caches

    def __len__(self) -> int:
        return len(self.caches[0])

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index, seed = place
        pair = torch.randint(len(self.caches), (2,), generator=torch.Generator().manual_seed(seed))
        rgb, other = (torch.from_numpy(self.caches[number].images[index].copy()) for number in pair)
        return {"rgb": rgb, "other": other, "seed": seed}

    @property
    def manifest(self) -> dict[str, str]:
        """Cache and file name to SHA-256, for the model card."""
        return {
            f"{cache.folder.name}/{name}": digest
            for cache in self.caches
            for name, digest in zip(cache.names, cache.sha256, strict=True)
        }


def _is_colored(rgb: np.ndarray) -> bool:
    """Whether the channels of a `(H, W, 3)` uint8 picture differ by more than two levels on average."""
    levels = rgb[::4, ::4].astype(np.int16)
    return bool((levels.max(2) - levels.min(2)).mean() > 2)


def draw(seeds: Sequence[int], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """What each pair draws: uniform `(B, DRAWS)` and normal `(B, 2, augment.KNOBS)` numbers."""
    uniform, normal = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(int(seed))
        uniform.append(torch.rand(DRAWS, generator=generator))
        normal.append(torch.randn(2, augment.KNOBS, generator=generator))
    return torch.stack(uniform).to(device), torch.stack(normal).to(device)


def photo_pairs(
    rgb: Tensor,
    seeds: Sequence[int],
    side: int,
    *,
    shares: Sequence[float] = (0.55, 0.2, 0.1, 0.15),
    luts: Tensor | None = None,
) -> Pair:
    """Pairs from single photographs.

    A random square of 60 to 100 % of the picture, perhaps mirrored, is scaled to `side`. Then, by kind:
    *retouch*: two retouchings of it; *hue*: two changes of its average hue and saturation that keep L* (the published
    augmentation); *identity*: source and target are one retouching; *palette*: a retouch pair whose reference pixels
    are replaced by the nearest of 3 to 8 colors of the target, so that their histogram is that of a palette image.

    Args:
        rgb: `(B, H, W, 3)` uint8 sRGB. seeds: one a picture.
        side: pixels of the squares.
        shares: of the four kinds, adding up to 1.
        luts: basis tables of the FiveK 3D-LUT model, see `augment.retouch_by`.
    """
    uniform, normal = draw(seeds, rgb.device)
    picture = crop(rgb, uniform, side)
    kind = torch.bucketize(uniform[:, 4].contiguous(), torch.tensor(shares, device=rgb.device).cumsum(0)[:-1])
    strength = (0.3 + 1.2 * uniform[:, 5:7])[..., None]  # from hardly visible to strong
    plain = uniform[:, 7] < 0.25  # a quarter of the sources are the photograph as it is
    strength = torch.cat([torch.where(plain[:, None, None], 0, strength[:, :1]), strength[:, 1:]], dim=1)
    normal = normal * strength
    normal[..., 10:] *= (uniform[:, 13:15] < 0.4)[..., None]  # two of five go through the 3D LUT
    first, second = normal.unbind(1)
    second = torch.where((kind == 2)[:, None], first, second)
    source, target = (ops.rgb_to_lab(augment.retouch_by(picture, knobs, luts)) for knobs in (first, second))

    hues = [ops.shift_hue(picture, uniform[:, n], (1.2 * uniform[:, n + 1]).clamp(min=0.3)) for n in (8, 10)]
    hue = (kind == 1)[:, None, None, None]
    source, target = torch.where(hue, hues[0], source), torch.where(hue, hues[1], target)
    reference = target.flatten(2)
    painted = (kind == 3).nonzero().flatten().tolist()
    if painted:
        reference = reference.clone()
        for row in painted:
            reference[row] = as_palette(reference[row], 3 + int(uniform[row, 12] * 6))
    return Pair(source, target, reference)


def rendition_pairs(rgb: Tensor, other: Tensor, seeds: Sequence[int], side: int, *, hue: bool = True) -> Pair:
    """Pairs of two renditions of a photograph, cropped alike.

    Args:
        rgb, other: `(B, H, W, 3)` uint8 sRGB, source and target. seeds: one a picture.
        side: pixels of the squares.
        hue: give each side its own change of average hue and saturation that keeps L*, as the authors' code does, but
            to two equal renditions the same one: an identity pair shall stay one.
    """
    uniform, _ = draw(seeds, rgb.device)
    same = (rgb == other).flatten(1).all(1)
    uniform[same, 10:12] = uniform[same, 8:10]
    pair = [crop(picture, uniform, side) for picture in (rgb, other)]
    if hue:
        labs = [
            ops.shift_hue(picture, uniform[:, n], (1.2 * uniform[:, n + 1]).clamp(min=0.3))
            for picture, n in zip(pair, (8, 10), strict=True)
        ]
    else:
        labs = [ops.rgb_to_lab(picture) for picture in pair]
    return Pair(*labs, labs[1].flatten(2))


def as_palette(lab: Tensor, k: int) -> Tensor:
    """Replace each of `(3, N)` colors by the mean of its cluster, see `cluster`."""
    centers = cluster(lab, k)
    return centers[:, torch.cdist(lab.T, centers.T).argmin(1)]


def cluster(lab: Tensor, k: int, samples: int = 1024, rounds: int = 6) -> Tensor:
    """Centers `(3, k)` of `(3, N)` colors: k-means on a sample of them, from evenly spaced colors by lightness."""
    sample = lab[:, spread(lab.shape[1], samples).to(lab.device)]
    order = sample[0].argsort()
    centers = sample[:, order[((torch.arange(k) + 0.5) / k * len(order)).long()]].clone()
    for _ in range(rounds):
        nearest = torch.cdist(sample.T, centers.T).argmin(1)
        counts = torch.zeros(k, device=lab.device).index_add_(0, nearest, torch.ones_like(sample[0]))
        sums = torch.zeros(3, k, device=lab.device).index_add_(1, nearest, sample)
        centers = torch.where(counts > 0, sums / counts.clamp(min=1), centers)
    return centers


def crop(rgb: Tensor, uniform: Tensor, side: int) -> Tensor:
    """A random square of each `(B, H, W, 3)` uint8 picture, `(B, 3, side, side)` in [0, 1]."""
    picture = rgb.permute(0, 3, 1, 2).float() / 255
    scale = 0.6 + 0.4 * uniform[:, 0]
    middle = (2 * uniform[:, 1:3] - 1) * (1 - scale)[:, None]
    mirror = torch.where(uniform[:, 3] < 0.5, -1.0, 1.0)
    theta = torch.zeros(len(rgb), 2, 3, device=rgb.device)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * mirror, scale, middle
    grid = functional.affine_grid(theta, [len(rgb), 3, side, side], align_corners=False)
    return functional.grid_sample(picture, grid, padding_mode="border", align_corners=False).clamp(0, 1)
