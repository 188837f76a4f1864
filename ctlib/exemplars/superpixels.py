r"""Colorization by superpixels, a variant after Gupta et al. 2012.

Both pictures are divided into superpixels (SLIC). Each of the target looks for one of the reference that is like it:
the candidates that are nearest in mean lightness and that of its neighbors, of these the nearest in deviation, and of
these in the strength of Gabor waves in eight directions: a cascade, in which each feature halves what is left. Then
superpixels that look alike (k-means of the features) vote: one whose color is off the median of its group takes that
median. The colors are brought to pixels by a guided filter of the lightness, so that they stop at its edges.

What differs from the paper: no SURF descriptors, which scikit-image lacks; eight Gabor waves instead of forty; and a
guided filter where the paper spreads scribbles by optimization (Levin et al. 2004).

Source: Gupta, Chia, Rajan, Ng, Huang, Image Colorization Using Similar Images, ACM Multimedia 2012.
Taught in: notebooks/51_exemplar_colorization.
"""

import numpy as np
import torch
from torch import Tensor

from ctlib import check, chroma, ops
from ctlib.settings import whole

SUPERPIXELS = 400
SIDE = 256  # pixels, about, that the pictures have when they are compared
GROUPS = 12  # of superpixels that vote together
_WAVES = tuple((frequency, turn) for frequency in (0.1, 0.25) for turn in range(4))  # a pixel; of 45 degrees
_OFF = 12.0  # CIELAB units from the median of its group, beyond which a color is overruled


@torch.no_grad()
def superpixel_transfer(
    rgb: Tensor, reference: Tensor, *, superpixels: int = SUPERPIXELS, side: int = SIDE, seed: int = 0
) -> Tensor:
    r"""Color a picture by superpixels of a reference.

    Args:
        rgb: `(B, 3, H, W)` sRGB in [0, 1], of which only L\* counts.
        reference: `(B or 1, 3, H', W')` sRGB in [0, 1], at least 32 pixels a side, in color.
        superpixels: about so many in each.
        side: both are compared at about side x side pixels.
        seed: of the groups that vote.

    Returns:
        `(B, 3, H, W)` sRGB in [0, 1] with the lightness of `rgb`, see `ctlib.chroma.shown`.

    Raises:
        ValueError: wrong input; the message names what and the remedy.
    """
    check.rgb(rgb, "rgb")
    chroma.lender(reference, len(rgb))
    whole("superpixels", superpixels, 2)
    whole("side", side, 32)
    found = []
    for target, lender in zip(rgb.split(1), reference.expand(len(rgb), -1, -1, -1).split(1), strict=True):
        lightness, lab = chroma.lightness(target), ops.rgb_to_lab(lender)
        small, known = (
            chroma.resize(one, chroma.network_size(*one.shape[2:], side, 1))[0].cpu().double().numpy()
            for one in (lightness, lab)
        )
        cells, features = described(small[0], superpixels)
        lent, lenders = described(known[0], superpixels)
        colors = np.stack([mean_of(channel, lent) for channel in known[1:]], axis=1)
        chosen = voted(colors[cascade(features, lenders)], features, seed)
        ab = guided(small[0] / 100, np.moveaxis(chosen[cells], -1, 0))
        found.append(chroma.shown(lightness, torch.from_numpy(ab)[None].to(rgb)))
    return torch.cat(found)


def described(lightness: np.ndarray, superpixels: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Superpixels of L\* `(H, W)`, and what they look like.

    Returns:
        labels `(H, W)`, 0 .. n - 1; features `(n, 3 + waves)`: mean, that of the neighbors, deviation, strength of each
        wave.
    """
    from skimage.filters import gabor_kernel
    from skimage.segmentation import slic

    wanted = min(superpixels, lightness.size)
    found = slic(lightness / 100, wanted, compactness=0.1, start_label=0, channel_axis=None)
    labels = np.unique(found, return_inverse=True)[1].reshape(found.shape)
    mean = mean_of(lightness, labels)
    deviation = np.sqrt(np.maximum(mean_of((lightness - mean[labels]) ** 2, labels), 0))
    flat = lightness - lightness.mean()
    waves = [mean_of(_filtered(flat, gabor_kernel(frequency, turn * np.pi / 4)), labels) for frequency, turn in _WAVES]
    return labels, np.stack([mean, around(mean, labels), deviation, *waves], axis=1)


def mean_of(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean of `(H, W)` in each region, `(n,)`."""
    counts = np.bincount(labels.ravel())
    return np.bincount(labels.ravel(), weights=values.ravel()) / counts


def around(mean: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean over the neighbors of each region, its own where it has none: `(n,)`."""
    sides = [(labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])]
    pairs = np.unique(np.concatenate([np.stack([a.ravel(), b.ravel()], 1) for a, b in sides]), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=len(mean))
    sums = np.bincount(pairs[:, 0], weights=mean[pairs[:, 1]], minlength=len(mean))
    return np.where(counts > 0, sums / np.maximum(counts, 1), mean)


def cascade(asked: np.ndarray, known: np.ndarray) -> np.ndarray:
    """For each of `(n, f)` the most alike of `(m, f)`: lightness, then deviation leave the nearer half; waves choose.

    Where several are equally near, more than half stay.
    """
    scale = known.std(0) + 1e-6
    apart = np.abs(asked[:, None] - known[None]) / scale
    steps = (apart[..., :2].sum(2), apart[..., 2], apart[..., 3:].sum(2))
    left, total = np.ones(steps[0].shape, bool), np.zeros(steps[0].shape)
    for step in steps[:-1]:
        total += step
        limit = np.quantile(np.where(left, step, np.inf), left.mean() / 2, axis=1, method="lower", keepdims=True)
        left &= step <= limit
    return np.where(left, total + steps[-1], np.inf).argmin(1)


def voted(colors: np.ndarray, features: np.ndarray, seed: int) -> np.ndarray:
    """Colors `(n, 2)`, those far from the median of the superpixels that look alike replaced by it."""
    from sklearn.cluster import KMeans

    points = (features / (features.std(0) + 1e-6)).round(3)  # a constant picture has one point
    groups = KMeans(min(GROUPS, len(np.unique(points, axis=0))), n_init=2, random_state=seed).fit_predict(points)
    groups = np.unique(groups, return_inverse=True)[1]
    medians = np.stack([np.median(colors[groups == number], axis=0) for number in range(groups.max() + 1)])[groups]
    off = np.linalg.norm(colors - medians, axis=1) > _OFF
    return np.where(off[:, None], medians, colors)


def guided(guide: np.ndarray, maps: np.ndarray, radius: int = 6, eps: float = 1e-3) -> np.ndarray:
    """The guided filter of He, Sun and Tang for a guide `(H, W)` of one channel: `(C, H, W)` to the same."""
    from scipy.ndimage import uniform_filter

    def box(values: np.ndarray) -> np.ndarray:
        return uniform_filter(values, 2 * radius + 1, mode="reflect")

    mean = box(guide)
    variance = box(guide * guide) - mean * mean
    found = []
    for one in maps:
        level = box(one)
        slope = (box(guide * one) - mean * level) / (variance + eps)
        found.append(box(slope) * guide + box(level - slope * mean))
    return np.stack(found)


def _filtered(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Strength of a wave at each pixel."""
    from scipy.signal import fftconvolve

    margins = [(length // 2, length // 2) for length in kernel.shape]
    return np.abs(fftconvolve(np.pad(values, margins, mode="symmetric"), kernel, mode="valid"))
