"""Losses: the soft histogram of the spec, worked out the long way, and the scales of each recipe."""

import pytest
import torch
from torch.nn import functional

from ctlib import ops
from ctlib.losses import hinted_huber_loss, histogram_loss, multi_scale_loss

CENTERS = ("official", "unity")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """In [-1, 1], as the network has it."""
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 1


def shares(value: float, centers: str) -> torch.Tensor:
    """What one value gives to each of the 32 bins."""
    return ops.soft_histogram(torch.tensor([[[value]]], dtype=torch.float64), 32, centers=centers)[0]


def one_color(a: float, b: float) -> torch.Tensor:
    """A picture whose a and b, scaled to [0, 1], are these."""
    return torch.tensor([0.0, 2 * a - 1, 2 * b - 1]).view(1, 3, 1, 1).expand(1, 3, 4, 4)


def test_official_weights_of_the_spec():
    found = [shares(value, "official").sum().item() for value in (0, 16 / 32, 0.99, 1)]
    assert found == pytest.approx([1.03125, 1.0625, 0.341, 0.031], abs=5e-4)
    assert shares(16 / 32, "official")[15:18].tolist() == pytest.approx([1 / 32, 1, 1 / 32])


def test_unity_shares_out_every_value():
    for value in (0, 0.0001, 16 / 32, 16 / 31, 0.7, 0.99, 1):
        found = shares(value, "unity")
        assert found.sum().item() == pytest.approx(1, abs=1e-12) and found.min() >= 0
    assert shares(16 / 31, "unity")[16].item() == pytest.approx(1)


@pytest.mark.parametrize("centers", CENTERS)
def test_histogram_loss_is_the_formula(centers):
    result, target = noise(2, 3, 9, 7), noise(2, 3, 9, 7, seed=1)
    middles = torch.arange(32) / (32 if centers == "official" else 31)
    tables = []
    for unit in (result, target):
        a, b = ((1 - 31 * (unit[:, n].flatten(1)[..., None] / 2 + 0.5 - middles).abs()).clamp(min=0) for n in (1, 2))
        tables.append(torch.einsum("bpi,bpj->bij", a, b) / 63)
    expected = (tables[0] - tables[1]).square().mean().item()
    assert histogram_loss(result, target, centers=centers).item() == pytest.approx(expected, rel=1e-4)


def test_histogram_loss_of_two_colors():
    """The largest there is: with whole shares in two cells 2 / 32^2, which is why its weight hardly matters."""
    one, other = one_color(4 / 31, 20 / 31), one_color(20 / 31, 4 / 31)
    assert histogram_loss(one, other, centers="unity").item() == pytest.approx(2 / 1024, rel=1e-5)
    one, other = one_color(4 / 32, 20 / 32), one_color(20 / 32, 4 / 32)
    squares = (1 + 2 / 32**2) ** 2  # of what lies in three bins of a times three of b
    assert histogram_loss(one, other).item() == pytest.approx(2 * squares / 1024, rel=1e-5)
    assert histogram_loss(one, other, bins=16).item() > 2 * histogram_loss(one, other).item()


@pytest.mark.parametrize("centers", CENTERS)
def test_histogram_loss_sees_a_and_b_wherever_they_are(centers):
    result = noise(2, 3, 8, 8)
    mixed = result.flatten(2)[..., torch.randperm(64, generator=torch.Generator().manual_seed(2))]
    mixed[:, 0] = 0.3
    assert histogram_loss(result, result, centers=centers) == 0
    assert histogram_loss(result, mixed, centers=centers) < 1e-12
    assert histogram_loss(result, 0.9 * result, centers=centers) > 1e-7


@pytest.mark.parametrize("centers", CENTERS)
def test_histogram_loss_has_a_gradient(centers):
    result = (1.2 * noise(2, 3, 8, 8)).requires_grad_()  # a network's output may leave [-1, 1]
    histogram_loss(result, noise(2, 3, 8, 8, seed=1), centers=centers).backward()
    assert result.grad.isfinite().all() and not result.grad[:, 0].any()
    assert (result.grad[:, 1:] != 0).float().mean() > 0.5


def test_histogram_loss_computes_in_full_precision():
    result, target = noise(1, 3, 8, 8).bfloat16(), noise(1, 3, 8, 8, seed=1)
    assert histogram_loss(result, target) == histogram_loss(result.float(), target)


def test_histogram_loss_knows_its_centers():
    with pytest.raises(ValueError, match='centers: expected "official" or "unity", got \'middle\''):
        histogram_loss(noise(1, 3, 4, 4), noise(1, 3, 4, 4), centers="middle")


def test_scales_of_each_recipe():
    target = noise(2, 3, 64, 64)
    sides = [noise(2, 3, side, side, seed=side) for side in (4, 8, 16, 32)]
    errors = [
        functional.mse_loss(side, functional.interpolate(target, side.shape[2:], mode="bilinear")).item()
        for side in sides
    ]
    assert len({round(error, 4) for error in errors}) == 4
    assert multi_scale_loss(sides, target).item() == pytest.approx(sum(errors) / 4, rel=1e-5)
    assert multi_scale_loss(sides, target, "official-history").item() == pytest.approx(sum(errors[1:]), rel=1e-5)


def test_scales_of_perfect_sides_cost_nothing():
    target = noise(1, 3, 60, 52)
    sides = [functional.interpolate(target, size, mode="bilinear") for size in ((4, 3), (8, 7), (16, 14), (30, 26))]
    for recipe in ("paper", "official-history"):
        assert multi_scale_loss(sides, target, recipe) == 0
    sides[2] = sides[2] + 0.5
    assert multi_scale_loss(sides, target).item() == pytest.approx(0.25 / 4)


def error(size: float, hinted: bool, **options) -> float:
    """Loss of one pixel that is off by so much, in CIELAB units."""
    target = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    mask = torch.full((1, 1, 1, 1), float(hinted), dtype=torch.float64)
    return hinted_huber_loss(target + size, target, mask, **options).item()


def test_a_hint_weighs_121_times_where_the_loss_is_quadratic_and_11_where_it_is_linear():
    small, large = 1e-3, 1e6
    assert error(small, True) / error(small, False) == pytest.approx(121, rel=1e-3)
    assert error(large, True) / error(large, False) == pytest.approx(11, rel=1e-3)
    assert error(small, True, weight=2.0) / error(small, False) == pytest.approx(9, rel=1e-3)


def test_the_weight_stands_inside_by_hand():
    """Of a and b divided by 110 with delta 1/110: an error of 0.5 units is quadratic, at a hint 5.5 units, linear."""
    unit = 1 / 110
    assert error(0.5, False) == pytest.approx(0.5 * (0.5 * unit) ** 2, rel=1e-5)
    assert error(0.5, True) == pytest.approx(unit * (5.5 * unit - 0.5 * unit), rel=1e-5)
    assert error(60.0, False) == pytest.approx(unit * (60 * unit - 0.5 * unit), rel=1e-5)
    # the student's delta of 1: the square, but for hints
    assert error(60.0, False, delta=1.0) == pytest.approx(0.5 * (60 * unit) ** 2, rel=1e-5)
    assert error(60.0, True, delta=1.0) == pytest.approx(11 * 60 * unit - 0.5, rel=1e-5)
    assert error(60.0, True, delta=1.0, scale=1.0) == pytest.approx(659.5, rel=1e-5)


def test_the_hinted_loss_is_a_mean_with_a_gradient():
    result, target = noise(2, 2, 6, 5).requires_grad_(), noise(2, 2, 6, 5, seed=1)
    mask = (noise(2, 1, 6, 5, seed=2) > 0.5).float()
    loss = hinted_huber_loss(result, target, mask, delta=1.0, scale=1.0)
    weights = 1 + 10 * mask
    each = weights * (result - target).abs()
    each = torch.where(each < 1, each.square() / 2, each - 0.5)
    torch.testing.assert_close(loss, each.mean())
    loss.backward()
    assert result.grad.isfinite().all() and (result.grad != 0).any()
