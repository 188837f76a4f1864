r"""Which picture should lend its colors? The closest palette of a pool, as exemplar colorization picks its references.

A picture becomes a `Signature`: a weighted palette and a histogram of a* and b*. Two distances compare signatures, and
`rank` sorts a pool by one of them. The rule of a student who rebuilt exemplar colorization, "images of the same class
with the closest palette", is `rank` with `classes`.

Taught in: notebooks/04_find_references.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ctlib import check
from ctlib.color import rgb_to_lab
from ctlib.distinct import distinct
from ctlib.metrics.palettes import palette_emd

Kind = Literal["palette_emd", "ab_hellinger"]
KINDS = ("palette_emd", "ab_hellinger")
#: by which a reference is chosen, see `picks`; only the last two know nothing of the colors that are looked for
RULES = ("nearest of the class", "nearest of all", "any of the class", "any of all")
_STEP, _REACH = 10.0, 110.0  # Zhang et al. 2016: ab grid of step 10 from -110 to 110; 313 of its cells are ever used
_SAMPLES = 20_000


@dataclass(frozen=True, eq=False)
class Signature:
    """The colors of a picture in a few numbers.

    Attributes:
        palette: `(k, 3)` float64 Lab, from dark to light; fewer than k for a picture of fewer colors.
        weights: `(k,)` float64, the share of the picture that each color stands for, sums to 1.
        histogram: `(23, 23)` float64, share of the pixels nearest to each grid point (a, b) = -110, -100 .. 110.
    """

    palette: np.ndarray
    weights: np.ndarray
    histogram: np.ndarray

    def same_as(self, other: "Signature") -> bool:
        """Whether both come from one picture, or from exact copies."""
        mine, theirs = vars(self).values(), vars(other).values()
        return all(np.array_equal(one, two) for one, two in zip(mine, theirs, strict=True))


def signature(image: np.ndarray | Tensor, k: int = 5, seed: int = 0) -> Signature:
    """Palette (k-means in CIELAB, on 20,000 pixels drawn at random) and ab histogram (of all pixels) of a picture.

    Args:
        image: `(H, W, 3)` uint8 sRGB, or `(1, 3, H, W)` float sRGB in [0, 1], which is rounded to 8 bits.
        k: colors of the palette.
        seed: of the draw and of k-means.

    Raises:
        ValueError: a malformed picture, or k below 1.
    """
    if k < 1:
        raise ValueError(f"k: expected at least 1 color, got {k}")
    _, rgb, counts = distinct(_levels(image))
    lab, counts = rgb_to_lab(rgb)[0].T.numpy(), counts[0].numpy()
    palette, weights = _k_means(lab, counts, k, seed)
    return Signature(palette, weights, _ab_histogram(lab, counts))


def _levels(image: np.ndarray | Tensor) -> np.ndarray:
    if not isinstance(image, Tensor):
        return np.asarray(image)  # `distinct` checks it
    if len(check.rgb(image)) != 1:
        raise ValueError(f"image: a signature is of one picture, got a batch of {len(image)}")
    return (image[0].detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).contiguous().numpy()


def _k_means(lab: np.ndarray, counts: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.cluster import KMeans  # a second to import

    if counts.sum() > _SAMPLES:
        counts = np.random.default_rng(seed).multinomial(_SAMPLES, counts / counts.sum())
        lab, counts = lab[counts > 0], counts[counts > 0]
    model = KMeans(min(k, len(lab)), n_init=4, random_state=seed).fit(lab, sample_weight=counts)
    weights = np.bincount(model.labels_, weights=counts, minlength=len(model.cluster_centers_)) / counts.sum()
    order = np.argsort(model.cluster_centers_[:, 0], kind="stable")
    order = order[weights[order] > 0]
    return model.cluster_centers_[order], weights[order]


def _ab_histogram(lab: np.ndarray, counts: np.ndarray) -> np.ndarray:
    side = int(2 * _REACH / _STEP) + 1
    cells = np.clip(np.rint((lab[:, 1:] + _REACH) / _STEP).astype(int), 0, side - 1)
    flat = np.bincount(cells[:, 0] * side + cells[:, 1], weights=counts, minlength=side**2)
    return flat.reshape(side, side) / counts.sum()


def distance(first: Signature, second: Signature, kind: Kind = "palette_emd") -> float:
    r"""Distance of two signatures.

    Args:
        first, second: from `signature`.
        kind: `"palette_emd"`, the earth mover's distance of the weighted palettes in Lab units, or `"ab_hellinger"`,
            $\sqrt{1 - \sum\sqrt{pq}}$ of the ab histograms, in [0, 1], which does not see lightness.

    Raises:
        ValueError: unknown kind.
    """
    if kind == "palette_emd":
        return palette_emd(first.palette, first.weights, second.palette, second.weights).item()
    if kind == "ab_hellinger":
        return float(np.sqrt(((np.sqrt(first.histogram) - np.sqrt(second.histogram)) ** 2).sum() / 2))
    raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")


def distances(signatures: Sequence[Signature], kind: Kind = "palette_emd") -> np.ndarray:
    """All distances of a pool: `(N, N)` float64, symmetric, zero on the diagonal. About 2 ms a pair for palettes.

    Raises:
        ValueError: unknown kind.
    """
    table = np.zeros((len(signatures), len(signatures)))
    for row, column in zip(*np.triu_indices(len(signatures), 1), strict=True):
        table[row, column] = table[column, row] = distance(signatures[row], signatures[column], kind)
    return table


def rank(
    query: Signature,
    pool: Sequence[Signature],
    kind: Kind = "palette_emd",
    exclude_self: bool = True,
    *,
    classes: Sequence[Hashable] | None = None,
    own: Hashable = None,
) -> np.ndarray:
    """The pool from the closest to the farthest, all of it or one class.

    Args:
        query: of the picture that looks for a reference.
        pool: signatures to choose from, made with the same k and seed.
        kind: as in `distance`.
        exclude_self: leave out the query and its exact copies.
        classes: what each picture of the pool shows, in a word, say; with it only pictures of the class `own` stay.
        own: class of the query; no other picture may have it, and then the answer is empty.

    Returns:
        indices into `pool`, int64; of equal distances the earlier one comes first.

    Raises:
        ValueError: unknown kind, or not as many classes as pictures.
    """
    _check_classes(classes, len(pool))
    chosen = [
        index
        for index, other in enumerate(pool)
        if not (exclude_self and query.same_as(other)) and (classes is None or classes[index] == own)
    ]
    # rounded, since equal palettes may differ in the solver's last digits
    far = np.round([distance(query, pool[index], kind) for index in chosen], 9)
    return np.asarray(chosen, dtype=np.int64)[np.argsort(far, kind="stable")]


def picks(table: np.ndarray, classes: Sequence[Hashable], seed: int = 0) -> dict[str, np.ndarray]:
    """A reference for each picture of a pool by each of the `RULES`.

    Args:
        table: of `distances`, `(N, N)`.
        classes: what each picture shows.
        seed: of the draws of `any`.

    Returns:
        rule to `(N,)` int64, indices into the pool; -1 where there is no other picture, or none of the class.

    Raises:
        ValueError: not as many classes as pictures.
    """
    _check_classes(classes, len(table))
    draws, chosen = np.random.default_rng(seed), {rule: np.full(len(table), -1) for rule in RULES}
    for index, own in enumerate(classes):
        others = np.array([other for other in range(len(table)) if other != index], dtype=np.int64)
        alike = others[[classes[other] == own for other in others]] if len(others) else others
        for some, place in ((alike, "of the class"), (others, "of all")):
            if len(some):
                chosen[f"nearest {place}"][index] = some[np.argmin(np.round(table[index, some], 9))]
                chosen[f"any {place}"][index] = draws.choice(some)
    return chosen


def _check_classes(classes: Sequence[Hashable] | None, count: int) -> None:
    if classes is not None and len(classes) != count:
        raise ValueError(f"classes: expected one for each of {count} pictures, got {len(classes)}")
