"""Soft borders: sums, exactness, the guided filter beside kornia's, edges."""

import pytest
import torch
from flags import flags, noise, quarters

from ctlib.segment import segment, soften
from ctlib.segment.soft import SoftMap


def test_weights_sum_to_one():
    labels = quarters() - 1
    for rgb in (noise(48, 64), flags(), torch.zeros(1, 3, 48, 64)):
        weights = soften(labels, rgb, 5)
        assert weights.shape == (1, 6, 48, 64) and weights.dtype == torch.float32
        assert weights.min() >= 0 and (weights.sum(1) - 1).abs().max() < 1e-5
        assert not weights[:, 3:5].any(), "what no pixel has weighs nothing"
        assert (weights[0, -1][:16, :24] - 1).abs().max() < 1e-5, "label -1 is the last map"


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (5, 40)])
def test_one_region_is_exact(size):
    for number, place in ((0, 0), (1, 1), (-1, 2)):
        weights = soften(torch.full(size, number), noise(*size), 2)
        assert weights[0, place].eq(1).all() and weights.sum() == size[0] * size[1]


def test_two_pixels_and_radius_zero():
    weights = soften(torch.tensor([[0, 1]]), torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2), 2)
    assert weights[0, :2, 0].argmax(0).tolist() == [0, 1] and (weights.sum(1) - 1).abs().max() < 1e-6
    hard = soften(quarters(), noise(48, 64), 4, radius=0)
    assert torch.equal(hard[0, :4], torch.nn.functional.one_hot(quarters(), 4).movedim(-1, 0).float())


def test_guided_filter_equals_kornia():
    """Away from the borders of the picture, where kornia reflects what is cut here."""
    filters = pytest.importorskip("kornia", reason="kornia comes with the extra test").filters
    labels, radius = segment(noise(60, 80), k=3).labels, 4
    rgb = 0.5 * noise(60, 80) + 0.5 * flags(60, 80)
    maps = torch.nn.functional.one_hot(labels, 3).movedim(-1, 0)[None].double()
    expected = filters.guided_blur(rgb.double(), maps, 2 * radius + 1, 1e-3).clamp(min=0)
    expected = expected / expected.sum(1, keepdim=True)
    inner = (..., slice(2 * radius, -2 * radius), slice(2 * radius, -2 * radius))
    found = soften(labels, rgb, 3, radius=radius, eps=1e-3)[:, :3]
    assert (found[inner] - expected[inner]).abs().max() < 1e-4
    assert found[inner].std() > 0.1


def test_soft_borders_follow_the_edge_of_the_picture():
    """The edge is at column 30, the map says 33: two thirds of what the map has wrong is put right."""
    rgb = torch.full((1, 3, 40, 60), 0.2)
    rgb[..., 30:] = 0.8
    labels = (torch.arange(60) >= 33).long().expand(40, 60)
    weights = soften(labels, rgb, 2, radius=8)[0, 1, 20]
    assert weights[29] < 0.05 and weights[30] > 0.5, "the step is where the picture has it"
    steps = weights.diff()
    assert steps.argmax() == 29 and steps.max() > 0.5
    flat = soften(labels, torch.full_like(rgb, 0.5), 2, radius=8)[0, 1, 20]
    assert flat.diff().max() < 0.1, "without an edge the border is a ramp"


def test_soft_borders_of_a_large_picture_are_nearly_those_of_the_small_way():
    rgb, labels = flags(120, 160), quarters(120, 160)
    exact = soften(labels, rgb, 4, radius=8)
    quick = soften(labels, rgb, 4, radius=8, long_side=80)
    assert (exact - quick).abs().mean() < 0.01 and (quick.sum(1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("radius", [0, None])
def test_rows_are_those_of_the_whole(radius):
    rgb, labels = flags(90, 120), quarters(90, 120) - 1
    soft = SoftMap(labels, rgb, 3, radius, long_side=50)
    whole = soften(labels, rgb, 3, radius, long_side=50)
    for top in range(0, 90, 17):
        strip = rgb[:, :, top : top + 17]
        assert soft.weights(strip, top, 90) == pytest.approx(whole[:, :, top : top + 17], abs=1e-5)


def test_a_small_copy_has_the_weights_of_the_picture():
    rgb, labels = flags(90, 120), quarters(90, 120)
    soft = SoftMap(labels, rgb, 4, radius=8)
    small = torch.nn.functional.interpolate(rgb, (45, 60), mode="nearest-exact")
    picked = torch.nn.functional.interpolate(soft.weights(rgb), (45, 60), mode="nearest-exact")
    assert (soft.weights(small) - picked).abs().mean() < 0.01


def test_more_regions_than_memory_holds_are_refused():
    labels, rgb = torch.zeros(2000, 3000).long(), torch.zeros(1, 3, 2000, 3000)
    with pytest.raises(ValueError, match=r"labels: the weights of 300 regions of 2000 x 3000 pixels take 7.2 GB"):
        soften(labels, rgb, 300)


def test_what_soften_refuses():
    rgb = flags()
    with pytest.raises(ValueError, match="labels: expected -1 to 2 for 3 regions, got 0 to 3"):
        soften(quarters(), rgb, 3)
    with pytest.raises(ValueError, match=r"labels: expected whole numbers \(H, W\) and rgb"):
        soften(quarters(48, 63), rgb, 4)
    with pytest.raises(ValueError, match="regions: expected how many there are, a whole number, got '3'"):
        soften(quarters(), rgb, "3")
    with pytest.raises(ValueError, match="labels: the weights of 1099511627776 regions"):
        soften(quarters(), rgb, 1 << 40)
    with pytest.raises(ValueError, match="labels: expected whole numbers"):
        soften(quarters().float(), rgb, 4)
    with pytest.raises(ValueError, match="radius, eps and long_side: expected"):
        soften(quarters(), rgb, 4, eps=0)
    with pytest.raises(ValueError, match="rgb: holds NaN"):
        soften(quarters(), rgb * torch.nan, 4)
