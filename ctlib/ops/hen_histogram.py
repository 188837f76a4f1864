r"""The histogram tensor that the encoding network (HEN) of Histogram Analogy reads, of a picture or of its regions.

Nine planes of 64 x 64 (or another number of bins): the joint histogram of a and b, then the eight bins of the L
histogram, each as a constant plane.
"""

import torch
from torch import Tensor

from ctlib.color import A_RANGE, B_RANGE
from ctlib.ops.launch import jit, takes_kernel, tl, triton, wrap_triton
from ctlib.ops.soft_histogram import check_labels, pieces

BINS = (8, 16, 32, 64, 128)  # of a and of b: powers of two, which HEN halves down to 4
_L = 8  # bins of L; a region has `bins * bins` counters of b and a, then these
_BLOCK = 1024


def hen_histogram(
    lab: Tensor,
    *,
    bins: int = 64,
    mask: Tensor | None = None,
    labels: Tensor | None = None,
    num_labels: int | None = None,
) -> Tensor:
    r"""Histogram tensor of the Histogram Encoding Network.

    With $L' = L/100$ and $a'$, $b'$ scaled from the extremes of the sRGB cube to [0, 1], plane 0 is the hard joint
    histogram of $b'$ (rows) and $a'$ (columns), and plane $1 + k$ holds everywhere the share of pixels in bin $k$ of
    eight of $L'$. Both histograms sum to 1. A color on or beyond the border counts in the border bin, so that no pixel
    is lost to rounding; NaN counts in bin 0. Counts are exact, hence the same on every device, in any order of the
    pixels.

    Args:
        lab: `(B, 3, ...)` float, CIELAB in natural units.
        bins: number of bins of a and of b: 8, 16, 32, 64 or 128. L keeps its eight.
        mask: `(B, ...)` bool, pixels that count. It picks all three channels; the original code drops masked pixels
            from each channel on its own, which can pair the a of one pixel with the b of another.
        labels: `(B, ...)` whole numbers, the region of each pixel; those not in [0, num_labels) count nowhere.
        num_labels: number of regions; goes with `labels`.

    Returns:
        `(B, 9, bins, bins)`, or with labels `(B, num_labels, 9, bins, bins)`; float32, or float64 for float64. Where
        no pixel counts it is all zeros. Not differentiable (a hard histogram is constant almost everywhere); for a
        loss take `ctlib.ops.soft_histogram`.

    Raises:
        ValueError: wrong shape, type or number of bins, mask and labels together, or labels without their number.

    Source: Lee et al., Deep Color Transfer using Histogram Analogy, The Visual Computer 36, 2020, and
        its authors' code.

    Example:
        >>> tensor = hen_histogram(torch.tensor([100.0, 0.0, 0.0]).view(1, 3, 1, 1))
        >>> tensor[0, 0].nonzero().tolist(), tensor[0, 1:, 0, 0].tolist()
        ([[34, 29]], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    """
    if lab.ndim < 2 or lab.shape[1] != 3 or not lab.is_floating_point():
        raise ValueError(f"lab: expected float CIELAB (B, 3, ...), got {lab.dtype} {tuple(lab.shape)}; see rgb_to_lab")
    if not isinstance(bins, int) or bins not in BINS:  # 64.0 is in BINS
        raise ValueError(f"bins: expected one of {', '.join(map(str, BINS))}, got {bins!r}")
    check_labels(lab, labels, num_labels)
    by_label = labels is not None
    if mask is not None:
        if by_label:
            raise ValueError("mask, labels: give one of them; to leave pixels out, give them the label -1")
        if mask.dtype != torch.bool or mask.shape != (lab.shape[0], *lab.shape[2:]):
            expected = (lab.shape[0], *lab.shape[2:])
            raise ValueError(f"mask: expected bool {expected}, got {mask.dtype} {tuple(mask.shape)}; use mask > 0.5")
        labels = (~mask).to(torch.uint8)  # 0 counts, 1 is no region
    batch, regions = lab.shape[0], num_labels if by_label else 1
    counts = torch.ops.ctlib.hen_counts(
        lab.detach().reshape(batch, 3, -1) if lab.numel() else lab.new_empty(batch, 3, 0),
        None if labels is None else labels[..., None].flatten(1),
        regions,
        bins,
    )
    dtype = torch.float64 if lab.dtype == torch.float64 else torch.float32
    shares = counts.to(dtype) / counts[..., -_L:].sum(-1, keepdim=True).clamp(min=1)  # each pixel has one bin of L
    ab = shares[..., :-_L].reshape(batch, regions, 1, bins, bins)
    lightness = shares[..., -_L:, None, None].expand(batch, regions, _L, bins, bins)
    tensor = torch.cat((ab, lightness), dim=2)
    return tensor if by_label else tensor.squeeze(1)


def _bin(channel: Tensor, low: float, high: float, bins: int) -> Tensor:
    scaled = (channel - low) / (high - low) * bins
    return torch.where(scaled > 0, scaled, 0).clamp(max=bins - 1).long()  # NaN is not > 0


def _reference(lab: Tensor, labels: Tensor | None, regions: int, bins: int) -> Tensor:
    batch, size = lab.shape[0], bins * bins + _L
    counts = torch.zeros(batch * regions * size, dtype=torch.int64, device=lab.device)
    for start, stop in pieces(lab):
        lightness, a, b = lab[..., start:stop].to(torch.promote_types(lab.dtype, torch.float32)).unbind(1)
        region = torch.arange(batch, device=lab.device)[:, None] * regions
        one = torch.ones_like(a, dtype=torch.int64)
        if labels is not None:
            label = labels[:, start:stop].long()
            inside = (label >= 0) & (label < regions)
            region, one = region + torch.where(inside, label, 0), inside.long()
        place = region * size
        ab = place + _bin(b, *B_RANGE, bins) * bins + _bin(a, *A_RANGE, bins)
        counts.index_add_(0, ab.flatten(), one.flatten())
        counts.index_add_(0, (place + bins * bins + _bin(lightness, 0, 100, _L)).flatten(), one.flatten())
    return counts.view(batch, regions, size)


@jit
def _block_bin(plane, exists, low, width, BINS: tl.constexpr):
    # divided as the reference divides: a product with 1 / width moves colors at the edge of a bin
    scaled = tl.div_rn(tl.load(plane, mask=exists, other=0.0).to(tl.float32) - low, width) * BINS
    scaled = tl.where(scaled > 0.0, scaled, 0.0)
    return tl.where(scaled > BINS - 1, BINS - 1.0, scaled).to(tl.int32)


@jit
def _kernel(
    lab,
    labels,
    counts,
    pixels,
    regions,
    copies,
    a_low,
    a_width,
    b_low,
    b_width,
    LABELS: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    block = tl.program_id(0).to(tl.int64)
    picture = tl.program_id(1).to(tl.int64)
    here = block * BLOCK + tl.arange(0, BLOCK)
    exists = here < pixels
    valid = exists
    region = tl.zeros_like(here).to(tl.int32)
    if LABELS:
        label = tl.load(labels + picture * pixels + here, mask=exists, other=0)
        valid = exists & (label >= 0) & (label < regions)
        region = tl.where(valid, label, 0).to(tl.int32)
    plane = lab + picture * 3 * pixels + here
    lightness = _block_bin(plane, exists, 0.0, 100.0, 8)
    a = _block_bin(plane + pixels, exists, a_low, a_width, BINS)
    b = _block_bin(plane + pixels + pixels, exists, b_low, b_width, BINS)

    # Neighbouring pixels look alike: they go to different copies, or they would queue for the same address.
    cells = BINS * BINS
    size = regions * (cells + 8)
    stride = tl.num_programs(1).to(tl.int64) * size
    counts += picture * size
    spread = counts + (here + here // 4) % copies * stride
    color = tl.where(valid, (region * cells + b * BINS + a) * 8 + lightness, 0)
    ab = region * (cells + 8) + b * BINS + a
    lightness = region * (cells + 8) + cells + lightness
    first = tl.max(color, 0)
    # A block of one color, as in a blank picture or a sky, is added up first and sends two numbers.
    if tl.min(tl.where(valid, color, first), 0) == first:
        found = tl.sum(valid.to(tl.int32), 0)
        alone = counts + block % copies * stride
        tl.atomic_add(alone + tl.max(tl.where(valid, ab, 0), 0), found)
        tl.atomic_add(alone + tl.max(tl.where(valid, lightness, 0), 0), found)
    else:
        one = tl.full((BLOCK,), 1, tl.int32)
        tl.atomic_add(spread + ab, one, mask=valid)
        tl.atomic_add(spread + lightness, one, mask=valid)


@torch.library.triton_op("ctlib::hen_counts", mutates_args=())
def _op(lab: Tensor, labels: Tensor | None, regions: int, bins: int) -> Tensor:
    """`(B, 3, P)` to int64 `(B, regions, bins * bins + 8)`: pixels in each bin of b and a, then in each of L."""
    if not takes_kernel(lab):
        return _reference(lab, labels, regions, bins)
    batch, _, pixels = lab.shape
    size = batch * regions * (bins * bins + _L)
    copies = max(1, min(64, (1 << 22) // max(size, 1)))
    counts = lab.new_zeros((copies, size), dtype=torch.int32)
    if lab.numel() > 0:
        with torch.cuda.device_of(lab):
            wrap_triton(_kernel)[(triton.cdiv(pixels, _BLOCK), batch)](
                lab.contiguous(),
                lab if labels is None else labels.contiguous(),
                counts,
                pixels,
                regions,
                copies,
                A_RANGE[0],
                A_RANGE[1] - A_RANGE[0],
                B_RANGE[0],
                B_RANGE[1] - B_RANGE[0],
                LABELS=labels is not None,
                BINS=bins,
                BLOCK=_BLOCK,
            )
    return counts.sum(0).view(batch, regions, bins * bins + _L)
