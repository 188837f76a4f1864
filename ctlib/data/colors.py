r"""How often each of 313 colors occurs in a collection of pictures, and how much each is to count in a training.

Photographs are mostly gray, so a network that is paid for each pixel alike paints gray. Zhang et al. (2016) give rare
colors more weight: with the share $\tilde p$ of each bin, smoothed in the plane of a and b,

$$w \propto \Big((1 - \lambda)\, \tilde p + \frac{\lambda}{Q}\Big)^{-1}, \qquad \sum_q \tilde p_q w_q = 1$$

The released code differs in one point (`support="seen"`): the uniform part is spread over the bins that occur at all.
How the authors smoothed is not published; here it is a Gaussian on the grid of all bins, of which those outside of the
313 are dropped.

Source: Zhang, Isola, Efros, Colorful Image Colorization, ECCV 2016, section 2.2, equation 4.
Taught in: notebooks/41_classification_colorization.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import default_collate

from ctlib import ops
from ctlib.settings import whole

BINS = len(ops.AB_BINS)
SUPPORTS = ("all", "seen")
GRAY = 5.0  # a picture whose a and b stay within this teaches no color
_SIDE = 23  # bins along a and along b, -110, -100 .. 110


@torch.no_grad()
def prior(dataset, *, every: int = 4, limit: int | None = None, batch: int = 32) -> Tensor:
    """Share of each bin among the pixels of a collection, not smoothed. Read batch by batch.

    Args:
        dataset: items by `(index, seed)` with `"rgb"`: uint8 `(H, W, 3)`, as `ctlib.data.pairs.Photos`.
        every: step between the pixels that are counted, as in the targets of a training.
        limit: look at this many pictures at most, spread evenly.

    Returns:
        `(313,)` float64, adds up to 1, in the order of `ctlib.ops.AB_BINS`.

    Raises:
        ValueError: no pictures, or an option below 1.
    """
    for name, value in (("every", every), ("limit", 1 if limit is None else limit), ("batch", batch)):
        whole(name, value, 1)
    if not len(dataset):
        raise ValueError("dataset: holds no pictures, so there are no colors to count")
    count = min(len(dataset), limit or len(dataset))
    chosen = [number * len(dataset) // count for number in range(count)]
    found = torch.zeros(BINS, dtype=torch.float64)
    for first in range(0, count, batch):
        rgb = default_collate([dataset[number, 0]["rgb"][::every, ::every] for number in chosen[first : first + batch]])
        ab = ops.rgb_to_lab(rgb.permute(0, 3, 1, 2).float() / 255)[:, 1:]
        found += ops.encode_ab(ab, k=1)[0].flatten().bincount(minlength=BINS)
    return found / found.sum()


def smoothed(prior: Tensor, sigma: float = 5.0) -> Tensor:
    """Shares blurred in the plane of a and b, then made to add up to 1 again.

    Args:
        prior: `(313,)`, at least 0. sigma: of the Gaussian, in CIELAB units; bins are 10 apart. 0 leaves it as it is.

    Raises:
        ValueError: not 313 shares that are at least 0, or a negative sigma.
    """
    _check(prior)
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"sigma: expected a number from 0 on, got {sigma!r}")
    if not sigma:
        return prior / prior.sum()
    place = ((ops.AB_BINS + 110) / 10).long()
    plane = torch.zeros(_SIDE, _SIDE, dtype=torch.float64)
    plane[place[:, 0], place[:, 1]] = prior.double()
    distance = 10.0 * torch.arange(-_SIDE + 1, _SIDE, dtype=torch.float64)
    line = (-(distance**2) / (2 * sigma**2)).exp()
    kernel = (line / line.sum())[None, None, :, None]
    blurred = functional.conv2d(plane[None, None], kernel, padding=(_SIDE - 1, 0))
    blurred = functional.conv2d(blurred, kernel.mT, padding=(0, _SIDE - 1))[0, 0]
    found = blurred[place[:, 0], place[:, 1]]
    return (found / found.sum()).to(prior)


def rebalanced(prior: Tensor, lam: float = 0.5, *, support: str = "all") -> Tensor:
    r"""Weight of each bin in the loss.

    Args:
        prior: `(313,)` shares, smoothed or not.
        lam: $\lambda$, share of the uniform part. 1 weighs all alike; 0 by the inverse of the share alone.
        support: `"all"`, the paper's; or `"seen"`, the released code's: the uniform part lies on the bins whose share
            is not 0. The others get the weight of a share of 0, which the code leaves undefined.

    Returns:
        `(313,)`, so that the mean over the prior is 1.

    Raises:
        ValueError: an option out of its range, or lam=0 with a bin that never occurs.
    """
    _check(prior)
    if support not in SUPPORTS:
        raise ValueError(f"support: expected one of {', '.join(SUPPORTS)}, got {support!r}")
    if isinstance(lam, bool) or not isinstance(lam, int | float) or not 0 <= lam <= 1:
        raise ValueError(f"lam: expected a share from 0 to 1, got {lam!r}")
    share = prior / prior.sum()
    if lam == 0 and (share == 0).any():
        raise ValueError("lam: with 0, colors that never occur would weigh infinitely; take more, or smooth the prior")
    bins = BINS if support == "all" else int((share > 0).sum())
    weights = 1 / ((1 - lam) * share + lam / bins)
    return weights / (share * weights).sum()


def is_gray(ab: Tensor) -> Tensor:
    """Which pictures `(B, 2, H, W)` have a and b within 5 of 0 everywhere: `(B,)` bool."""
    return ab.abs().flatten(1).amax(1) <= GRAY


def _check(prior: Tensor) -> None:
    if prior.shape != (BINS,) or not prior.is_floating_point() or not (prior >= 0).all() or not prior.sum() > 0:
        raise ValueError(f"prior: expected {BINS} shares of at least 0, see ctlib.data.colors.prior")
