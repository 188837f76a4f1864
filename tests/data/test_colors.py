"""How often colors occur and what they weigh, by hand and by law."""

import numpy as np
import pytest
import torch

from ctlib import ops
from ctlib.data import cache, colors, photos
from ctlib.data.pairs import Photos

BINS = 313


def place(a: int, b: int) -> int:
    return int((ops.AB_BINS - torch.tensor([float(a), float(b)])).abs().sum(1).argmin())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Photos:
    files = [photos.path(name) for name in ("coffee", "china", "flower")]
    return Photos(cache.build(files, tmp_path_factory.mktemp("cache"), (40, 40)))


def test_the_table_of_bins():
    """Bins for each a of the specification; they add up to 313."""
    counts = [5, 8, 10, 12, 14, 15, 16, 16, 17, 18, 18, 18, 19, 20, 19, 20, 20, 19, 19, 10]
    found = [int((ops.AB_BINS[:, 0] == a).sum()) for a in range(-90, 101, 10)]
    assert found == counts and sum(counts) == BINS == len(ops.AB_BINS)
    ends = {-90: (50, 90), -40: (-40, 100), 0: (-70, 100), 60: (-110, 80), 100: (-90, 0)}
    for a, (low, high) in ends.items():
        column = ops.AB_BINS[ops.AB_BINS[:, 0] == a, 1]
        assert column.min() == low and column.max() == high and len(column) == (high - low) / 10 + 1


def test_a_prior_is_a_histogram_of_nearest_bins(dataset):
    found = colors.prior(dataset, batch=2)
    rgb = torch.stack([dataset[n, 0]["rgb"][::4, ::4] for n in range(3)]).permute(0, 3, 1, 2) / 255
    ab = ops.rgb_to_lab(rgb)[:, 1:].transpose(0, 1).flatten(1).T
    by_hand = torch.cdist(ab, ops.AB_BINS).argmin(1).bincount(minlength=BINS).double()
    torch.testing.assert_close(found, by_hand / by_hand.sum(), atol=1.01 / len(ab), rtol=0)
    assert found.dtype == torch.float64 and found.sum().item() == pytest.approx(1)
    assert torch.equal(found, colors.prior(dataset, batch=3))
    torch.testing.assert_close(colors.prior(dataset, limit=2), colors.prior(Two(dataset), every=4))
    assert torch.equal(colors.prior(dataset, limit=50), found)


class Two:
    """The pictures that a limit of two picks out of three."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return 2

    def __getitem__(self, place):
        return self.dataset[(0, 1)[place[0]], place[1]]


def test_smoothing_is_a_gaussian_of_five_units():
    one = torch.zeros(BINS, dtype=torch.float64)
    one[place(0, 0)] = 1
    found = colors.smoothed(one)
    near, diagonal, far = (found[place(*at)] / found[place(0, 0)] for at in ((10, 0), (-10, 10), (0, 20)))
    assert near.item() == pytest.approx(np.exp(-2)) and diagonal.item() == pytest.approx(np.exp(-4))
    assert far.item() == pytest.approx(np.exp(-8)) and found.sum().item() == pytest.approx(1)
    assert torch.equal(colors.smoothed(one, 0), one)
    edge = torch.zeros(BINS)
    edge[place(100, 0)] = 1  # half of what it gives away would fall outside of the 313
    assert colors.smoothed(edge).sum().item() == pytest.approx(1) and colors.smoothed(edge).dtype == torch.float32


def test_weights_have_the_mean_one_over_the_prior(dataset):
    prior = colors.smoothed(colors.prior(dataset))
    for support in colors.SUPPORTS:
        for lam in (0.1, 0.5, 1.0):
            weights = colors.rebalanced(prior, lam, support=support)
            assert (prior * weights).sum().item() == pytest.approx(1) and (weights > 0).all()
            assert (weights[prior.argsort()].diff() <= 1e-12).all()  # the rarer, the heavier
    torch.testing.assert_close(colors.rebalanced(prior, 1.0), torch.ones_like(prior))
    by_hand = 1 / (0.5 * prior + 0.5 / BINS)
    torch.testing.assert_close(colors.rebalanced(prior), by_hand / (prior * by_hand).sum())
    plain = 1 / prior
    torch.testing.assert_close(colors.rebalanced(prior, 0), plain / (prior * plain).sum())


def test_the_released_code_spreads_over_the_bins_that_occur():
    prior = torch.zeros(BINS, dtype=torch.float64)
    prior[:4] = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64)
    by_hand = 1 / (0.5 * prior[:4] + 0.5 / 4)
    scale = (prior[:4] * by_hand).sum()
    found = colors.rebalanced(prior, support="seen")
    torch.testing.assert_close(found[:4], by_hand / scale)
    torch.testing.assert_close(found[4:], torch.full((BINS - 4,), 8.0, dtype=torch.float64) / scale)
    paper = colors.rebalanced(prior)
    assert paper[3] / paper[0] > found[3] / found[0]  # a uniform part on 313 bins evens out less on four


def test_pictures_without_color():
    ab = torch.zeros(3, 2, 4, 4)
    ab[1, 0, 2, 2], ab[2, 1, 0, 0] = 5.01, -4.99
    assert colors.is_gray(ab).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: colors.prior([]), "dataset: holds no pictures"),
        (lambda: colors.prior([1], every=0), "every: expected a whole number of at least 1"),
        (lambda: colors.prior([1], limit=0), "limit: expected a whole number"),
        (lambda: colors.smoothed(torch.ones(312)), "prior: expected 313 shares"),
        (lambda: colors.smoothed(torch.ones(BINS), -1), "sigma: expected a number from 0 on"),
        (lambda: colors.rebalanced(-torch.ones(BINS)), "prior: expected 313 shares"),
        (lambda: colors.rebalanced(torch.ones(BINS), 2), "lam: expected a share from 0 to 1, got 2"),
        (
            lambda: colors.rebalanced(torch.eye(BINS)[0], 0),
            "lam: with 0, colors that never occur would weigh infinitely",
        ),
        (lambda: colors.rebalanced(torch.ones(BINS), support="some"), "support: expected one of all, seen"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
