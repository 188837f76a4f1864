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

import torch
from torch import Tensor
from torch.nn import functional

from ctlib import chroma, ops
from ctlib.models.features import Pyramid
from ctlib.segment.guides import Guide

LAYERS = ("relu2_1", "relu3_1", "relu4_1")
PLACES = 64 * 64  # of each picture, at most, that are compared
TEMPERATURE = 0.05


@torch.no_grad()
def matched(
    encoder: Pyramid,
    lightness: Tensor,
    reference: Tensor,
    labels: Guide | None = None,
    *,
    temperature: float = TEMPERATURE,
) -> Tensor:
    r"""Colors of a reference, laid out as a target asks for.

    Args:
        encoder: frozen, for sRGB.
        lightness: `(B, 1, H, W)` L\* in [0, 100], sides that 8 divides.
        reference: `(B or 1, 3, h, w)` sRGB in [0, 1], the same, of another size perhaps.
        labels: of one target and its reference, see `ctlib.segment.guides.guide`: places of a label look only at those
            of the same.
        temperature: $\tau$; the smaller, the fewer places are averaged.

    Returns:
        a and b `(B, 2, H / n, W / n)` in CIELAB units, n at least 4.

    Raises:
        ValueError: a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, got {temperature!r}")
    lab = ops.rgb_to_lab(reference)
    sizes = [_size(picture.shape[2:]) for picture in (lightness, lab)]
    colors = _resized(lab[:, 1:], sizes[1]).flatten(2)
    found = []
    for number, target in enumerate(lightness.split(1)):
        row = number if len(lab) > 1 else 0
        likeness = _likeness(encoder, target, lab[row : row + 1, :1], sizes)
        if labels is not None:
            places = (functional.interpolate(one[None].float(), size) for one, size in zip(labels, sizes, strict=False))
            own, other = (one.flatten() for one in places)
            same = own[:, None] == other
            # a label that no place of the small map kept, and what has none, looks everywhere
            free = (own < 0) | ~same.any(1)
            likeness = likeness.masked_fill(~(same | free[:, None]), -math.inf)
        weights = (likeness / temperature).softmax(1)
        found.append((colors[row] @ weights.mT).view(1, 2, *sizes[0]))
    return torch.cat(found)


def _likeness(encoder: Pyramid, target: Tensor, reference: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    """Mean cosine over the layers of all places of a target and all of a reference, `(places, places)`."""
    both = []
    for lightness in (target, reference):
        gray = chroma.join(lightness, lightness.new_zeros(1, 2, 1, 1))
        both.append(encoder(gray, LAYERS))
    total = 0.0
    for layer in LAYERS:
        own, other = (_resized(one[layer], size)[0].flatten(1) for one, size in zip(both, sizes, strict=True))
        # channels on one scale, as a cosine listens to the loud ones
        deviation, mean = torch.std_mean(torch.cat([own, other], dim=1), dim=1, keepdim=True)
        own, other = (functional.normalize((one - mean) / (deviation + 1e-3), dim=0) for one in (own, other))
        total = total + own.mT @ other
    return total / len(LAYERS)


def _size(size: torch.Size) -> tuple[int, int]:
    """Of the grid on which a picture is compared: a quarter of its sides, or less."""
    by = max(4, math.ceil((size[0] * size[1] / PLACES) ** 0.5))
    return tuple(max(1, side // by) for side in size)


def _resized(features: Tensor, size: tuple[int, int]) -> Tensor:
    smaller = features.shape[2] > size[0]
    return functional.interpolate(features, size, mode="bilinear", align_corners=False, antialias=smaller)
