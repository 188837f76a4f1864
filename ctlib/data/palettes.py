r"""Training pairs for palette networks: two hues of a photograph that keep its L\*, each with its palette.

A palette has its colors dark to light. Turning the hue keeps L\*, so that order holds for all variants of a photograph,
and the colors of two variants correspond one by one.
"""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctlib import color, ops
from ctlib.atomic import replacing
from ctlib.classical.extraction import bin_colors, extract_uint8
from ctlib.data import pairs
from ctlib.data.cache import Cache
from ctlib.data.registry import DataError

METHODS = ("chang", "kmeans")
PLAIN = 0.25  # share of the sources that are the photograph as it is: what a trained network will be given


class PalettePair(NamedTuple):
    """CIELAB in natural units; palettes `(B, 3, k)`, dark to light."""

    source: Tensor  # (B, 3, H, W)
    target: Tensor  # (B, 3, H, W)
    own: Tensor  # palette of the source
    palette: Tensor  # palette of the target


class PalettePhotos(pairs.Photos):
    """Single photographs with their palettes. Gray pictures are left out: they teach no color.

    Args:
        caches: one or several, of one picture size.
        colors: of a palette, 1 to 12.
        method: how it is found, see `palette_of`.
        part, fractions: of `ctlib.data.pairs.Photos`.

    Item `(index, seed)`: `{"rgb": uint8 (H, W, 3), "palette": float32 (colors, 3) CIELAB, "seed": seed}`.

    Raises:
        ValueError: an unknown method or part, or not 1 to 12 colors. DataError: caches of several sizes.
    """

    def __init__(
        self,
        *caches: Cache,
        colors: int = 6,
        method: str = "chang",
        part: str = "all",
        fractions: Mapping[str, float] | None = None,
    ):
        _check(colors, method)
        super().__init__(*caches, part=part, fractions=fractions)
        self.kind = f"{method}-{colors}"
        self.palettes = [palettes(cache, colors, method) for cache in caches]

    def __getitem__(self, place: tuple[int, int]) -> dict:
        number, row = self.places[place[0]]
        return super().__getitem__(place) | {"palette": torch.from_numpy(self.palettes[number][row].copy())}

    @property
    def manifest(self) -> dict[str, str]:
        """As that of `Photos`, and which palettes these are."""
        return {"palettes": self.kind} | super().manifest


def palette_of(image: np.ndarray, colors: int, method: str = "chang") -> Tensor:
    """The palette of a picture that may have fewer colors than asked for: some then come several times.

    Args:
        image: uint8 `(H, W, 3)` sRGB.
        colors: 1 to 12.
        method: `"chang"`, bins and seeds of `ctlib.classical.extraction`, in which black draws the shadows to itself;
            `"kmeans"`, plain k-means in CIELAB on 4,096 pixels, see `ctlib.data.pairs.cluster`. Neither is random.

    Returns:
        `(colors, 3)` float64 CIELAB, dark to light.

    Raises:
        ValueError: an unknown method, or not 1 to 12 colors.
    """
    _check(colors, method)
    pixels = torch.from_numpy(np.array(image)).reshape(-1, 3).T
    if method == "kmeans":
        found = pairs.cluster(ops.rgb_to_lab(pixels[None])[0], colors, 4096, 20).T.double()
    else:
        try:
            found = extract_uint8(image, colors)
        except ValueError:
            found = extract_uint8(image, len(bin_colors(pixels[None] / 255)[0]))
    found = found[found[:, 0].argsort(stable=True)]
    return found[torch.arange(colors) * len(found) // colors]


def palettes(cache: Cache, colors: int, method: str = "chang") -> np.ndarray:
    """Palettes of all pictures of a cache, `(N, colors, 3)` float32: found once, and kept in the folder of the cache.

    Raises:
        DataError: they cannot be written there.
    """
    path = cache.folder / f"palettes-{method}-{colors}.npz"
    key = hashlib.sha256(f"{cache.index.get('key')} {cache.sha256}".encode()).hexdigest()
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) == key and file["palettes"].shape == (len(cache), colors, 3):
                return file["palettes"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # missing, stale or damaged: find them anew
    with ThreadPoolExecutor(cpu_count()) as pool:
        rows = pool.map(lambda image: palette_of(image, colors, method).numpy(), cache.images)
        found = np.stack(list(rows)).astype(np.float32)
    try:
        with replacing(path) as temporary:
            np.savez(temporary, key=key, palettes=found)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot keep the palettes ({reason}); make room or check the rights") from error
    return found


def hue_pairs(
    rgb: Tensor,
    palette: Tensor,
    seeds: Sequence[int],
    side: int,
    *,
    crop: float = 0.0,
    saturation: bool = False,
) -> PalettePair:
    r"""Two variants of each photograph: hues turned by angles of their own, L\* put back, palettes turned alike.

    One source in four is the photograph as it is. What lies outside sRGB stays there: targets are not clipped.

    Args:
        rgb: `(B, H, W, 3)` uint8 sRGB. palette: `(B, k, 3)` CIELAB. seeds: one a picture; a pair depends on nothing
            else, see `ctlib.data.pairs`.
        side: pixels of the squares, each mirrored or not.
        crop: 0 takes the whole picture, whose palette it is; 1 a random square of 60 to 100 % of it.
        saturation: change that too, as Histogram Analogy does (a factor max(U(0, 1.2), 0.3)); PaletteNet does not.

    Source: Cho et al. 2017; equation 10 of the ArtBench report.
    """
    uniform, _ = pairs.draw(seeds, rgb.device)
    uniform[:, 0] = 1 - crop * (1 - uniform[:, 0])
    picture = pairs.crop(rgb, uniform, side)
    lab = palette.transpose(1, 2).contiguous()
    colors = color.lab_to_rgb(lab)  # clipped: a mean of colors that sRGB shows is hardly ever one that it does not
    plain = uniform[:, 7] < PLAIN
    found = []
    for column in (8, 10):
        shift, factor = uniform[:, column], torch.ones_like(uniform[:, column])
        if saturation:
            factor = (1.2 * uniform[:, column + 1]).clamp(min=0.3)
        if column == 8:
            shift, factor = torch.where(plain, 0.0, shift), torch.where(plain, 1.0, factor)
        turned = ops.shift_hue(colors, shift, factor)
        found += [ops.shift_hue(picture, shift, factor), torch.cat([lab[:, :1], turned[:, 1:]], dim=1)]
    source, own, target, wanted = found
    return PalettePair(source, target, own, wanted)


def _check(colors: int, method: str) -> None:
    if type(colors) is not int or not 1 <= colors <= 12:
        raise ValueError(f"colors: expected a whole number from 1 to 12, got {colors!r}")
    if method not in METHODS:
        raise ValueError(f"palettes: expected one of {', '.join(METHODS)}, got {method!r}")
