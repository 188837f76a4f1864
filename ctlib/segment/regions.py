"""Label maps: what they are, how pictures of labels become them, and how small regions go."""

import operator
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageColor
from scipy.sparse import csr_array
from scipy.spatial import KDTree
from torch import Tensor

from ctlib import images
from ctlib.distinct import tally

UNLABELED = "unlabeled"  #: name of what a network could not name; it never has a partner
_RARE = 0.001  # share below which a color of a label picture is taken for a stray, if most of the colors are
# where there are strays, a color is a label if together with what is this near, in 8-bit levels, it has this share and
# keeps this distance from every more frequent label: the ringing of a JPEG stays below
_SPREAD, _STANDS, _APART = 8, 0.005, 64
_CANDIDATES = 256  # colors that may be labels then, the most frequent ones


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of one picture.

    Attributes:
        labels: `(H, W)` int64; each of 0 .. R - 1 occurs.
        names: R names, one a label, or None.

    Raises:
        ValueError: labels or names that are not as described.
    """

    labels: Tensor
    names: tuple[str, ...] | None = None

    def __post_init__(self):
        _check(self.labels)
        if self.labels.max() >= self.labels.numel() or not torch.bincount(self.labels.flatten()).all():
            raise ValueError("labels: expected every number from 0 to the largest, some do not occur; see given")
        if self.names is not None and len(self.names) != self.count:
            raise ValueError(f"names: expected one for each of {self.count} labels, got {len(self.names)}")

    @property
    def count(self) -> int:
        """R."""
        return int(self.labels.max()) + 1


def numbered(labels: Tensor, names: Mapping[int, str] | Sequence[str] | None = None) -> Regions:
    """Regions of a map of any whole numbers, renumbered from 0 in their order; `names` go by the old numbers."""
    present, labels = torch.unique(labels, return_inverse=True)
    return Regions(labels, None if names is None else tuple(names[number] for number in present.tolist()))


def resized(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """`(h, w)` to `(H, W)` by the nearest neighbor: anything else invents labels at the borders."""
    rows, columns = (
        (2 * torch.arange(new, device=labels.device) + 1) * old // (2 * new)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows][:, columns]


def given(
    labels: Tensor | np.ndarray | str | os.PathLike,
    size: tuple[int, int] | None = None,
    *,
    colors: np.ndarray | Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Regions:
    """Regions from a label map that was made elsewhere.

    Two maps are comparable by their names: those given, else the number in the map, or the color as `#rrggbb`.

    Args:
        labels: `(H, W)` whole numbers from 0, or a picture whose colors are labels: `(H, W, 3)` uint8, or a file.
        size: `(H, W)` of the picture; a map of another size is scaled to it by the nearest neighbor, with a warning.
        colors: of the labels, `(R, 3)` uint8 or names like `"#ff0000"`; each pixel takes the nearest one in sRGB.
            Without it they are looked up, see `label_colors`. Where one of two pictures went through JPEG, give both
            the same: `colors=label_colors(first, second)`.
        names: of the whole numbers 0, 1, ...; `UNLABELED` for one that means nothing.

    Raises:
        ValueError: labels that are no whole numbers, negative ones, another shape, a photograph, unknown colors, or
            fewer names than numbers.
        ImageReadError: a file that cannot be read.
    """
    array = _array(labels)
    if size is not None:
        size = _size(size)
    if names is not None and (array.ndim == 3 or array.max() >= len(names)):
        raise ValueError(f"names: expected one for each number in the map, got {len(names)}")
    if array.ndim == 3:
        palette = label_colors(array) if colors is None else _palette(colors)
        array, names = _nearest(array, palette), [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette.tolist()]
    elif colors is not None:
        raise ValueError("colors: expected a picture of labels to go with them, got whole numbers; leave them out")
    elif array.min() < 0:
        raise ValueError(f"labels: expected whole numbers from 0, got {array.min()}; give it a number of its own")
    elif array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"labels: expected numbers that fit int64, got {array.max()}; number them anew")
    whole = torch.from_numpy(array.astype(np.int64))
    if size is not None and tuple(size) != tuple(whole.shape):
        was = f"{whole.shape[0]} x {whole.shape[1]}"
        warnings.warn(f"labels: a map of {was} is scaled to {size[0]} x {size[1]}, nearest neighbor", stacklevel=2)
        whole = resized(whole, size)
    return numbered(whole, names if names is not None else {n: str(n) for n in torch.unique(whole).tolist()})


def label_colors(*pictures: Tensor | np.ndarray | str | os.PathLike) -> np.ndarray:
    """The colors that stand for labels in one or more label pictures, `(R, 3)` uint8.

    These are all colors, unless more than half of those of a picture hold less than 0.1 % of it each: then it was
    compressed, smoothed or scaled, and its borders have strays. In that case a color is a label if it holds 0.5 % (on
    average over the pictures, and with all within 8 levels) and is 64 levels away from each more frequent label; a
    warning says how many are.

    Raises:
        ValueError: another shape or type, or colors of which no few make up half of the picture: a photograph.
        ImageReadError: a file that cannot be read.
    """
    shares: dict[int, float] = {}
    worn = False
    for picture in pictures:
        array = _array(picture)
        if array.ndim != 3:
            raise ValueError(f"labels: expected a picture of labels, uint8 (H, W, 3), got shape {array.shape}")
        codes, counts = tally(array)
        worn |= bool((counts < _RARE * counts.sum()).mean() > 0.5)
        for code, share in zip(codes.tolist(), (counts / counts.sum() / len(pictures)).tolist(), strict=True):
            shares[code] = shares.get(code, 0) + share
    if not worn:
        return _unpacked(np.array(sorted(shares), np.int32))
    codes = np.array(sorted(shares, key=lambda code: -shares[code]), np.int32)
    colors, share = _unpacked(codes).astype(float), np.array([shares[code] for code in codes.tolist()])
    near = KDTree(colors).query_ball_point(colors[:_CANDIDATES], _SPREAD)
    stand: list[int] = []
    for candidate, around in enumerate(near):
        apart = np.linalg.norm(colors[stand] - colors[candidate], axis=1) >= _APART
        if share[around].sum() >= _STANDS and apart.all():
            stand.append(candidate)
    if sum(share[near[candidate]].sum() for candidate in stand) < 0.5:
        raise ValueError(f"labels: {len(shares)} colors, and no few make up half: a photograph? Or pass colors=...")
    warnings.warn(
        f"labels: {len(shares)} colors, most of them rare: a compressed or smoothed picture of {len(stand)} labels? "
        "A PNG as drawn, or colors=..., leaves no doubt",
        stacklevel=3,
    )
    return _unpacked(codes[stand])


def drop_small(labels: Tensor | Regions, share: float = 0.001) -> Tensor | Regions:
    """Give each region that is too small to have statistics to the one that surrounds it most.

    A region is all pixels of one label. The large ones stay; a small one goes to the large one with which it shares
    most of its border, those that touch none follow once their neighbors are given away. If all are small, the largest
    (of equals the first) takes everything.

    Args:
        labels: `(H, W)` int64 from 0, which keeps its numbers, or `Regions`, which are numbered anew.
        share: of the pixels of the picture, below which a region is small.

    Raises:
        ValueError: labels or a share that are not as described.
    """
    if isinstance(labels, Regions):
        return numbered(drop_small(labels.labels, share), labels.names)
    _check(labels)
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected 0 to 1, got {share}")
    present, local = torch.unique(labels, return_inverse=True)
    local = local.cpu().numpy()
    areas = np.bincount(local.ravel())
    large = areas >= share * areas.sum()
    if not large.any():
        large[areas.argmax()] = True
    owner = np.where(large, np.arange(len(areas)), -1 if large.sum() > 1 else large.argmax())
    borders = _borders(local, len(areas)) if (owner < 0).any() else None
    while len(loose := np.flatnonzero(owner < 0)):
        taken = np.flatnonzero(owner >= 0)
        owned = csr_array((np.ones(len(taken), np.int64), (taken, owner[taken])), shape=borders.shape)
        shared = borders[loose] @ owned
        touches = shared.max(axis=1).toarray().ravel() > 0
        owner[loose[touches]] = shared.argmax(axis=1).ravel()[touches]
    return present[torch.from_numpy(owner[local]).to(present.device)]


def _borders(local: np.ndarray, count: int) -> csr_array:
    """How many pairs of neighbors, left-right and up-down, each two labels have: `(R, R)`, symmetric."""
    pairs = [np.stack([local[:, 1:], local[:, :-1]]), np.stack([local[1:], local[:-1]])]
    first, second = np.concatenate([pair.reshape(2, -1) for pair in pairs], axis=1)
    differ = first != second
    table = csr_array((np.ones(differ.sum(), np.int64), (first[differ], second[differ])), shape=(count, count))
    return csr_array(table + table.T)


def _check(labels: Tensor) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 2 or labels.numel() == 0:
        found = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f"labels: expected an int64 tensor (H, W), got {found}; see ctlib.segment.given")
    if labels.min() < 0:
        raise ValueError(f"labels: expected numbers from 0, got {int(labels.min())}; give it a number of its own")


def _size(size: Sequence[int]) -> tuple[int, int]:
    try:
        height, width = (operator.index(side) for side in size)
    except (TypeError, ValueError):
        height = width = 0
    if height < 1 or width < 1:
        raise ValueError(f"size: expected (H, W) of the picture, whole numbers of at least 1, got {size!r}")
    return height, width


def _array(labels: Tensor | np.ndarray | str | os.PathLike) -> np.ndarray:
    """`(H, W)` whole numbers or `(H, W, 3)` uint8 from whatever was given."""
    if isinstance(labels, str | os.PathLike):
        picture = images.read(labels)
        with Image.open(labels) as header:
            if header.mode.startswith("I"):  # rounding to 8 bits would join labels
                raise ValueError(f"{labels}: a map of 16-bit labels; pass its numbers as an array (H, W)")
        return picture
    if isinstance(labels, Tensor):
        floats, labels = labels.is_floating_point(), labels.detach().cpu()
        array = labels.float().numpy() if floats else labels.numpy()
    else:
        array = np.asarray(labels)
    picture = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not picture and (array.ndim != 2 or array.dtype.kind not in "iub"):
        raise ValueError(
            f"labels: expected whole numbers (H, W) or an 8-bit picture (H, W, 3), got {array.dtype} {array.shape}"
            + ("; round them and convert to int64" if array.dtype.kind == "f" else "")
        )
    if array.size == 0:
        raise ValueError(f"labels: the map is empty, its shape is {array.shape}")
    return array


def _palette(colors: np.ndarray | Sequence[str]) -> np.ndarray:
    try:
        if not isinstance(colors, np.ndarray):
            colors = np.array([ImageColor.getrgb(color)[:3] for color in colors], np.uint8)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f'colors: expected names like "#ff0000" or uint8 (R, 3), got {colors!r}') from error
    if colors.dtype != np.uint8 or colors.ndim != 2 or colors.shape[1] != 3 or len(colors) == 0:
        raise ValueError(f"colors: expected uint8 (R, 3), got {colors.dtype} {colors.shape}")
    return colors


def _nearest(picture: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Index of the nearest color of the palette, in sRGB, `(H, W)`; of equals the first."""
    codes, _ = tally(picture)
    far = ((_unpacked(codes)[:, None].astype(np.int32) - palette.astype(np.int32)) ** 2).sum(2)
    pixels = picture.astype(np.int32)
    return far.argmin(1)[np.searchsorted(codes, pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2])]


def _unpacked(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)


def disk(size: tuple[int, int], x: float, y: float, radius: float) -> Tensor:
    """A map `(H, W)` int64 that is 1 in a disk and 0 elsewhere; center and radius in widths of the picture."""
    height, width = size
    down, across = torch.arange(height)[:, None] / width - y, torch.arange(width) / width - x
    return (torch.hypot(down, across) < radius).long()
