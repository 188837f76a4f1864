r"""Coarse colors by correspondence: each place of a target takes the colors of places of a reference that look alike.

AdaIN hands over means and deviations, so it knows which colors a reference has, but not what they belong to. Here deep
features of both pictures, gray, are compared place by place, and the colors are averaged with weights that fall with
the unlikeness:

$$ab(p) = \sum_q \operatorname{softmax}_q\big(\langle f_p, f_q \rangle / \tau\big)\, ab_q$$

It is what exemplar colorization before and after Xu et al. 2020 does (He et al. 2018), with the frozen encoder of the
transfer sub-net and without any training. Source of the idea: He, Chen, Liao, Sander, Yuan, Deep Exemplar-Based
Colorization, ACM Transactions on Graphics 2018; features, scales and temperature are ours.

Taught in: notebooks/51_exemplar_colorization.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ctlib import chroma, ops
from ctlib.models.features import Pyramid
from ctlib.segment.guides import Guide

SCALES = (2, 3, 4)  # of the encoder, as far as it has them
PLACES = 64 * 64  # of each picture, at most, whose colors are looked for
WEIGHED = 32 * 32  # that say whether a reference fits
LOOK = 256  # pixels a side, about, of what is weighed, whatever the networks see: likeness rises with the size
TEMPERATURE = 0.05


class Likeness(NamedTuple):
    """Of the places of targets and of their references: `(B, places, places)`, mean cosines; the grids' sizes."""

    places: Tensor
    target: tuple[int, int]
    reference: tuple[int, int]


@torch.no_grad()
def compared(encoder: Pyramid, lightness: Tensor, reference: Tensor, places: int = PLACES) -> Likeness:
    r"""How much each place of a target looks like each of a reference, both of them gray.

    Args:
        encoder: frozen, for sRGB.
        lightness: `(B, 1, H, W)` L\* in [0, 100], sides that 8 divides.
        reference: `(B or 1, 3, h, w)` sRGB in [0, 1], the same, of another size perhaps.
        places: of each picture, at most.

    Returns:
        Mean over `SCALES` of the features' cosines, on grids of a quarter of the sides or less.
    """
    other = chroma.lightness(reference).expand(len(lightness), -1, -1, -1)
    sizes = _size(lightness.shape[2:], places), _size(other.shape[2:], places)
    found = [_cosines(encoder, *pair, sizes) for pair in zip(lightness.split(1), other.split(1), strict=True)]
    return Likeness(torch.stack(found), *sizes)


@torch.no_grad()
def mutual(likeness: Likeness) -> Tensor:
    """How well both pictures find themselves in each other: `(B,)`, at most 1.

    The mean over a picture's places of its best cosine, of whichever picture it is lower. A reference that holds what
    the target shows and much else finds itself less, as one that holds nothing of it does.
    """
    return torch.minimum(*(likeness.places.amax(axis).mean(1) for axis in (1, 2)))


@torch.no_grad()
def weighed(encoder: Pyramid, lightness: Tensor, reference: Tensor) -> Tensor:
    """`mutual` of few places, `(B,)`, of targets and references as `compared` takes them, but of any size."""
    lightness, reference = (
        chroma.resize(one, chroma.network_size(*one.shape[2:], LOOK, 16)) for one in (lightness, reference)
    )
    return mutual(compared(encoder, lightness, reference.clamp(0, 1), WEIGHED))


@torch.no_grad()
def matched(
    likeness: Likeness, reference: Tensor, labels: Guide | None = None, *, temperature: float = TEMPERATURE
) -> Tensor:
    r"""Colors of a reference, laid out as a target asks for.

    Args:
        likeness: of `compared`.
        reference: `(B or 1, 3, h, w)` sRGB in [0, 1].
        labels: of one target and its reference, see `ctlib.segment.guides.guide`: places of a label look only at those
            of the same.
        temperature: $\tau$; the smaller, the fewer places are averaged.

    Returns:
        a and b `(B, 2, H / n, W / n)` in CIELAB units, n at least 4.

    Raises:
        ValueError: a temperature that is not above 0.
    """
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, got {temperature!r}")
    places = likeness.places
    if labels is not None:
        maps = ((labels.source, likeness.target), (labels.reference, likeness.reference))
        own, other = (functional.interpolate(one[None].float(), size).flatten() for one, size in maps)
        same = own[:, None] == other
        # what has no label, or one that no place of the small map kept, looks everywhere
        free = (own < 0) | ~same.any(1)
        places = places.masked_fill(~(same | free[:, None]), -math.inf)
    colors = chroma.resize(ops.rgb_to_lab(reference)[:, 1:], likeness.reference).flatten(2)
    return (colors @ (places / temperature).softmax(2).mT).view(len(places), 2, *likeness.target)


def _cosines(encoder: Pyramid, target: Tensor, reference: Tensor, sizes: tuple[tuple[int, int], ...]) -> Tensor:
    """Of one target and one reference, `(places, places)`."""
    layers = [f"relu{scale}_1" for scale in SCALES if scale <= len(encoder.counts)]
    both = []
    for lightness in (target, reference):
        gray = chroma.join(lightness, lightness.new_zeros(1, 2, 1, 1))
        both.append(encoder(gray, layers))
    total = 0.0
    for layer in layers:
        own, other = (chroma.resize(one[layer], size)[0].flatten(1) for one, size in zip(both, sizes, strict=True))
        # channels on one scale, as a cosine listens to the loud ones
        deviation, mean = torch.std_mean(torch.cat([own, other], dim=1), dim=1, keepdim=True)
        own, other = (functional.normalize((one - mean) / (deviation + 1e-3), dim=0) for one in (own, other))
        total = total + own.mT @ other
    return total / len(layers)


def _size(size: torch.Size, places: int) -> tuple[int, int]:
    """Of the grid on which a picture is compared: a quarter of its sides, or less."""
    by = max(4, math.ceil((size[0] * size[1] / places) ** 0.5))
    return tuple(max(1, side // by) for side in size)
