"""Hints: their laws, what a seed fixes, what a person may give, and the 316 numbers of a whole picture."""

import math
import warnings

import numpy as np
import pytest
import torch

from ctlib import color, hints, ops
from ctlib.data import photos
from ctlib.hints import Hints, checked, fixed, from_points, global_hints, resized, simulate, without
from ctlib.images import to_tensor
from ctlib.models.zhang2017 import Zhang2017


def colors(batch: int = 2, height: int = 40, width: int = 48, seed: int = 0) -> torch.Tensor:
    return 100 * torch.rand(batch, 2, height, width, generator=torch.Generator().manual_seed(seed)) - 50


@pytest.fixture
def placed(monkeypatch):
    """What patches are drawn: a list of `(top, bottom, left, right)`, filled while hints are made."""
    found, place = [], hints._place

    def spy(*args):
        found.append(place(*args))
        return found[-1]

    monkeypatch.setattr(hints, "_place", spy)
    return found


def test_the_number_of_hints_is_geometric(placed):
    ab, counts = colors(1, 10, 10), []
    for seed in range(1000):
        placed.clear()
        simulate(ab, [seed])
        counts.append(len(placed))
    counts = np.array(counts)
    spread = math.sqrt(0.875) / 0.125  # of a geometric law with p = 1/8
    assert counts.mean() == pytest.approx(7, abs=4 * spread / math.sqrt(len(counts)))
    for n in (0, 1, 5):
        share = 0.875**n * 0.125
        error = math.sqrt(share * (1 - share) / len(counts))
        assert (counts == n).mean() == pytest.approx(share, abs=4 * error)
    placed.clear()
    simulate(ab, [3], p=1.0)
    assert not placed


def test_the_law_of_sizes_and_places(placed):
    ab = colors(1, 60, 90)
    for seed in range(600):
        simulate(ab, [seed])
    boxes = np.array(placed)
    height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    assert (height == width).all() and set(height) == set(range(1, 10))
    assert np.bincount(height)[1:] == pytest.approx(len(boxes) / 9, rel=0.2)
    assert boxes.min() >= 0 and boxes[:, 1].max() <= 60 and boxes[:, 3].max() <= 90
    for first, side, total in ((0, height, 60), (2, width, 90)):
        room = total - side + 1
        unit = (boxes[:, first] + 0.5 - room / 2) / (room / 4)
        inside = (boxes[:, first] > 0) & (boxes[:, first] < total - side)
        assert unit.mean() == pytest.approx(0, abs=0.1)
        assert (abs(unit[inside]) < 1).mean() * inside.mean() == pytest.approx(0.6827, abs=0.04)
        assert inside.mean() == pytest.approx(0.9545, abs=0.03)  # within two deviations


def test_a_uniform_law_reaches_the_corners(placed):
    ab = colors(1, 60, 60)
    fixed(ab, 3000, [0], 1, law="uniform")
    boxes = np.array(placed)
    histogram = np.histogram2d(boxes[:, 0], boxes[:, 2], bins=4, range=[[0, 60], [0, 60]])[0]
    assert histogram.ravel() == pytest.approx(3000 / 16, rel=0.35)


def test_a_patch_has_the_mean_of_its_place_and_later_ones_cover(monkeypatch):
    ab = colors(1, 12, 12)
    boxes = [(0, 4, 0, 4), (2, 6, 3, 7)]
    left = list(boxes)
    monkeypatch.setattr(hints, "_place", lambda *_: left.pop(0))
    found = fixed(ab, 2, [0])
    first, second = (ab[0, :, top:bottom, first:last].mean((1, 2)) for top, bottom, first, last in boxes)
    torch.testing.assert_close(found.ab[0, :, 0, 0], first)
    torch.testing.assert_close(found.ab[0, :, 3, 3], second)  # of both patches
    torch.testing.assert_close(found.ab[0, :, 5, 6], second)
    assert found.mask.sum() == 16 + 16 - 2 * 1 and set(found.mask.unique().tolist()) == {0.0, 1.0}
    assert (found.ab * (1 - found.mask)).abs().max() == 0


def test_hints_are_a_function_of_the_seed_alone():
    ab = colors(3)
    together = simulate(ab, [5, 6, 2**62])
    for row, seed in enumerate((5, 6, 2**62)):
        alone = simulate(ab[row : row + 1], [seed])
        assert torch.equal(together.ab[row], alone.ab[0]) and torch.equal(together.mask[row], alone.mask[0])
    assert not torch.equal(together.mask[0], together.mask[1])
    few, many = (fixed(ab, count, [1, 2, 3]) for count in (3, 8))
    assert ((few.mask - many.mask) <= 0).all() and many.mask.sum() > few.mask.sum()
    assert torch.equal(together.ab, simulate(ab, torch.tensor([5, 6, 2**62]).tolist()).ab)


def test_a_fixed_number_of_patches_of_any_size(placed):
    ab = colors(1, 60, 90)
    many = fixed(ab, 900, [0], None, law="uniform")
    boxes = np.array(placed)
    sides = boxes[:, 1] - boxes[:, 0]
    assert len(boxes) == 900 and set(sides) == set(range(1, 10))
    assert np.bincount(sides)[1:] == pytest.approx(100, rel=0.4)
    few = fixed(ab, 30, [0], None, law="uniform")
    assert (few.mask <= many.mask).all()


def test_a_share_of_the_pictures_can_show_everything():
    ab = colors(1).expand(400, -1, -1, -1)
    whole = simulate(ab, range(400), everything=0.2).mask.flatten(1).all(1)
    assert whole.float().mean().item() == pytest.approx(0.2, abs=0.07)
    assert not simulate(ab, range(400)).mask.flatten(1).all(1).any()
    shown = simulate(ab, range(400), everything=1.0)
    assert torch.equal(shown.ab, ab) and shown.mask.all()


def test_pictures_smaller_than_a_patch():
    for size in ((1, 1), (3, 20), (9, 2)):
        found = fixed(colors(1, *size), 5, [0], 6)
        assert found.mask.any() and found.ab.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate(colors()[:, :1], [1, 2]), r"ab: expected float \(B, 2, H, W\)"),
        (lambda: simulate(colors(), [1]), "seeds: expected one a picture, got 1 for 2"),
        (lambda: simulate(colors(), [1, 2], p=0), "p: expected a number above 0, at most 1, got 0"),
        (lambda: simulate(colors(), [1, 2], everything=1.5), "everything: expected a share"),
        (lambda: simulate(colors(), [1, 2], law="poisson"), "law: expected one of normal, uniform"),
        (lambda: fixed(colors(), -1, [1, 2]), "count: expected a whole number of at least 0"),
        (lambda: fixed(colors(), 1, [1, 2], 0), "patch: expected a whole number of at least 1"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Hints of a person


def test_points_become_squares():
    found = from_points([(10, 5, "#ff0000"), (0, 0, (20.0, -30.0)), (11, 5, (1, 2))], (20, 30), radius=2)
    assert found.ab.shape == (1, 2, 20, 30) and found.mask.shape == (1, 1, 20, 30)
    red = color.rgb_to_lab(torch.tensor([[1.0, 0, 0]]))[0, 1:]
    torch.testing.assert_close(found.ab[0, :, 4, 8], red)
    torch.testing.assert_close(found.ab[0, :, 4, 9], torch.tensor([1.0, 2.0]))  # later points cover earlier ones
    assert found.ab[0, :, 2, 2].tolist() == [20, -30]
    assert found.mask.sum() == 25 + 5 + 9  # the second is cut at both borders, the third covers all but a column
    assert from_points([], (4, 5)).mask.sum() == 0
    assert from_points([(29, 19, "102030")], (20, 30), 0).mask.sum() == 1


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ((30, 5, "#ff0000"), r"point 1: \(30, 5\) lies outside of the picture, 30 wide and 20 high"),
        ((5, -1, "#ff0000"), r"point 1: \(5, -1\) lies outside"),
        ((5, 1, "red"), "point 1: 'red' is no color; write #rrggbb"),
        ((5, 1, (200, 0)), r"point 1: expected #rrggbb or \(a, b\) within"),
        ((5, 1, (1, 2, 3)), "point 1: expected #rrggbb"),
        ((5, 1, (float("nan"), 2)), "point 1: expected #rrggbb"),
        ((5, 1), r"point 1: expected \(x, y, color\), got"),
        (("left", 1, "#ff0000"), r"point 1: expected \(x, y, color\)"),
        ((float("inf"), 1, "#ff0000"), r"point 1: expected \(x, y, color\)"),
    ],
)
def test_points_that_are_none_are_named(point, message):
    with pytest.raises(ValueError, match=message):
        from_points([point], (20, 30))


def test_a_color_that_the_lightness_cannot_show_becomes_the_nearest():
    dark = torch.full((1, 1, 8, 8), 20.0)
    with pytest.warns(UserWarning, match=r"point 1: sRGB cannot show a = 80, b = 67 at L\* = 20; took the nearest"):
        found = from_points([(4, 4, "#ff0000")], (8, 8), lightness=dark)
    ab = found.ab[0, :, 4, 4].double()
    assert color.in_gamut(torch.cat([torch.tensor([20.0]).double(), ab])[None], 0.5 / 255).item()
    line = torch.arange(-110.0, 110, 0.5, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    grid = grid[color.in_gamut(torch.cat([torch.full((len(grid), 1), 20.0), grid], dim=1), 0.5 / 255)]
    red = color.rgb_to_lab(torch.tensor([[1.0, 0, 0]], dtype=torch.float64))[0, 1:]
    best = (grid - red).norm(dim=1).min().item()
    assert (ab - red).norm().item() <= best + 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = from_points([(4, 4, (30, 20))], (8, 8), lightness=torch.full((1, 1, 8, 8), 53.0))
        assert kept.ab[0, :, 4, 4].tolist() == [30, 20]
    with pytest.warns(UserWarning, match=r"took the nearest, a = 1, b = 0"):
        assert from_points([(4, 4, (30, 20))], (8, 8), lightness=torch.zeros(1, 1, 8, 8)).ab.abs().max() < 2
    with pytest.raises(ValueError, match=r"lightness: expected \(1, 1, 8, 8\), got \(1, 1, 4, 8\)"):
        from_points([], (8, 8), lightness=torch.zeros(1, 1, 4, 8))


def test_no_hint_is_lost_between_sizes():
    wanted = from_points([(x, y, (10, -20)) for x, y in ((0, 0), (101, 7), (313, 399))], (400, 314), radius=0)
    for size in ((24, 16), (400, 200), (33, 314), (800, 700)):
        found = resized(wanted, size)
        assert found.ab.shape == (1, 2, *size) and found.mask.shape == (1, 1, *size)
        given = found.mask[0, 0].bool()
        assert given.sum() >= 3 and set(found.mask.unique().tolist()) == {0.0, 1.0}
        torch.testing.assert_close(found.ab[0][:, given].mean(1), torch.tensor([10.0, -20.0]))
        assert found.ab[0][:, ~given].abs().max() == 0
    assert resized(wanted, (400, 314)) is wanted
    two = Hints(torch.tensor([[[[10.0, 0, 20, 0]], [[0, 0, 0, 0]]]]), torch.tensor([[[[1.0, 0, 1, 0]]]]))
    assert resized(two, (1, 2)).ab[0, 0, 0].tolist() == [10, 20] and resized(two, (1, 1)).ab[0, 0, 0].tolist() == [15]
    with pytest.raises(ValueError, match="hints: expected"):
        resized(Hints(two.ab, two.ab), (1, 1))


# Hints of a whole picture


def test_global_hints_by_hand():
    rgb = to_tensor(photos.load("flower", 64))[..., :40, :64]
    found = global_hints(rgb)
    ab = torch.nn.functional.avg_pool2d(ops.rgb_to_lab(rgb)[:, 1:], 4)[0].flatten(1).T
    nearest = torch.cdist(ab, ops.AB_BINS).argmin(1).bincount(minlength=313) / len(ab)
    torch.testing.assert_close(found[0, :313], nearest, atol=1.01 / len(ab), rtol=0)  # a tie may fall either way
    assert found.shape == (1, 316) and found[0, :313].sum().item() == pytest.approx(1, abs=1e-5)
    assert found[0, 313] == 1 == found[0, 315]
    assert found[0, 314].item() == pytest.approx(color.rgb_to_hsv(rgb)[:, 1].mean().item())

    gray = global_hints(torch.full((1, 3, 8, 8), 0.5))
    assert gray[0, :313].argmax() == int((ops.AB_BINS == 0).all(1).nonzero()) and gray[0, 314] == 0
    plain = global_hints(ab=ops.rgb_to_lab(rgb)[:, 1:])
    assert torch.equal(plain[:, :314], found[:, :314]) and plain[0, 314:].tolist() == [0, 0]
    assert global_hints(rgb, histogram=False)[0, :314].abs().max() == 0
    assert global_hints(rgb, saturation=False)[0, 314:].abs().max() == 0
    some = without(found.expand(2, -1), torch.tensor([True, False]), torch.tensor([False, True]))
    assert torch.equal(some[0, :314], found[0, :314]) and some[0, 314:].abs().max() == 0
    assert torch.equal(some[1, 314:], found[0, 314:]) and some[1, :314].abs().max() == 0
    assert global_hints(torch.rand(1, 3, 2, 3)).shape == (1, 316)
    with pytest.raises(ValueError, match="rgb, ab: give one of the two"):
        global_hints()
    with pytest.raises(ValueError, match="ab: expected float"):
        global_hints(ab=torch.zeros(1, 3, 4, 4))


def directly(lightness, ab, told, reach, tone, doubt):
    """`spread` by its formula, every pixel of a hint beside every pixel."""
    height, width = ab.shape[2:]
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double()
    shown = told.mask[0, 0].flatten() > 0
    level = lightness[0, 0].flatten().double()
    far = torch.cdist(places, places[shown]) ** 2 / (2 * reach**2 * height * width)
    weights = sum(8.0 ** (number - 3) * torch.exp(-far * 4**number) for number in range(4))
    weights = weights * torch.exp(-((level[:, None] - level[shown]) ** 2) / (2 * tone**2))
    colors = told.ab[0].flatten(1)[:, shown].double() @ weights.mT
    return ((doubt * ab[0].flatten(1) + colors) / (doubt + weights.sum(1))).view_as(ab)


def test_hints_that_somebody_made_are_checked():
    good = Hints(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
    assert checked(good) is good
    for place, value, message in (
        (0, math.nan, "values that are not finite"),
        (0, 1e4, r"a and b lie within \+-110, got 1e\+04"),
        (1, 7.0, "a mask is 1 where a hint stands"),
        (1, math.inf, "values that are not finite"),
    ):
        bad = Hints(*(part.clone() for part in good))
        bad[place][0, 0, 1, 2] = value
        with pytest.raises(ValueError, match=message):
            checked(bad)
        with pytest.raises(ValueError, match=message):
            Zhang2017(width=0.06).colorize(torch.rand(1, 3, 4, 4), hints=bad, side=32)


@pytest.mark.parametrize("count", [1, 12])
def test_spread_is_its_formula(count):
    draws = torch.Generator().manual_seed(count)
    smooth = torch.nn.functional.interpolate(100 * torch.rand(1, 1, 4, 5, generator=draws), (60, 72), mode="bilinear")
    ab, told = colors(1, 60, 72), fixed(colors(1, 60, 72, 1), count, [0])
    for reach, tone, doubt in ((0.4, 6.0, 0.04), (0.16, 15.0, 1.0), (0.4, 6.0, 5.0)):
        found = hints.spread(smooth, ab, told, reach=reach, tone=tone, doubt=doubt)
        wanted = directly(smooth, ab, told, reach, tone, doubt)
        assert (found - wanted).abs().max() < 0.03 * (wanted - ab).abs().max()


def test_a_hint_tints_what_is_as_light_and_near():
    lightness = torch.full((1, 1, 64, 96), 80.0)
    lightness[..., :32, :] = 20
    told = from_points([(20, 50, (40.0, 10.0))], (64, 96))
    found = hints.spread(lightness, torch.zeros(1, 2, 64, 96), told)
    assert found[0, :, 50, 20].tolist() == pytest.approx([40, 10], rel=0.05)
    near, there, far = (found[0, 0, 50, column].item() for column in (10, 45, 90))
    assert 40 > near > there > 35 > 15 > far
    assert found[0, :, :32].abs().max() < 0.5


def test_without_hints_spread_changes_nothing():
    ab = colors(2)
    assert torch.equal(hints.spread(torch.rand(2, 1, 40, 48), ab, hints.none_like(ab[:, :1])), ab)
    one = fixed(colors(2, seed=1), 3, [0, 1])
    one.mask[1] = 0
    assert torch.equal(hints.spread(torch.rand(2, 1, 40, 48), ab, one)[1], ab[1])


def test_spread_names_what_is_wrong():
    ab = colors(1)
    with pytest.raises(ValueError, match=r"lightness, ab, hints: expected .* got \(1, 1, 40, 40\)"):
        hints.spread(torch.zeros(1, 1, 40, 40), ab, fixed(ab, 1, [0]))
    told = fixed(ab, 1, [0])
    with pytest.raises(ValueError, match="lightness, ab, hints: expected"):
        hints.spread(torch.zeros(1, 1, 40, 48), ab, told._replace(mask=told.mask.expand(1, 2, -1, -1)))
    for name, value in (("tone", 0), ("reach", 0.01), ("doubt", math.inf)):
        with pytest.raises(ValueError, match=f"{name}: expected a finite number of at least .*, got {value}"):
            hints.spread(torch.zeros(1, 1, 40, 48), ab, told, **{name: value})


def test_spread_takes_thin_pictures_white_ones_and_batches():
    for size in ((1, 40), (40, 1), (1, 1), (3, 50)):
        ab = colors(2, *size)
        told = fixed(ab, 2, [0, 1])
        white = torch.full((2, 1, *size), 100.5)
        both = hints.spread(white, 0 * ab, told)
        assert both.isfinite().all() and both.abs().max() <= ab.abs().max() + 1e-3
        one = hints.spread(white[1:], 0 * ab[1:], hints.Hints(told.ab[1:], told.mask[1:]))
        torch.testing.assert_close(both[1:], one)
