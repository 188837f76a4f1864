"""Partners by name and by looks, on pictures made and real."""

import csv
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from flags import flags, noise, quarters

from ctlib import images
from ctlib.segment import UNLABELED, Regions, drop_small, given, match
from ctlib.segment.partners import statistics


def test_partners_by_name():
    source = Regions(torch.tensor([[0, 1, 2, 3]]), ("tree", "sky", "car", UNLABELED))
    reference = Regions(torch.tensor([[0, 1, 2]]), (UNLABELED, "sky", "tree"))
    first, second = match(source, reference, noise(1, 4), noise(1, 3))
    assert first.tolist() == [[0, 1, -1, -1]] and second.tolist() == [[-1, 1, 0]]


def test_partners_by_statistics_are_a_permutation():
    rgb = flags()
    mirrored = rgb.flip(3)
    order = torch.tensor([2, 0, 3, 1])
    first, second = match(Regions(quarters()), Regions(order[quarters()]), rgb, mirrored)
    assert torch.equal(first, quarters())
    assert torch.equal(second, quarters().flip(1))


def test_partners_by_statistics_where_one_side_has_no_names():
    named = Regions(quarters(), ("a", "b", "c", "d"))
    first, second = match(named, Regions(quarters()), flags(), flags())
    assert torch.equal(first, second) and torch.equal(first, quarters())


def test_fewer_regions_there_leave_some_without_a_partner():
    halves = Regions((quarters() > 1).long())
    first, second = match(Regions(quarters()), halves, flags(), flags(), limit=100)
    assert sorted(first.unique().tolist()) == [-1, 0, 1] and sorted(second.unique().tolist()) == [0, 1]


def test_the_limit_parts_what_is_unlike():
    far = 1 - flags()
    with pytest.warns(UserWarning, match="no region has a partner, so the global path is used everywhere"):
        first, second = match(Regions(quarters()), Regions(quarters()), flags(), far, limit=0.01)
    assert first.unique().tolist() == second.unique().tolist() == [-1]
    other = Regions(torch.tensor([[0]]), ("sea",))
    with pytest.warns(UserWarning, match="global path"):
        first, second = match(Regions(torch.tensor([[0]]), ("sky",)), other, noise(1, 1), noise(1, 1))
    assert first.item() == second.item() == -1


def test_statistics_by_hand():
    labels = torch.zeros(4, 8, dtype=torch.long)
    labels[3:] = 1
    rgb = torch.zeros(1, 3, 4, 8)
    rgb[:, :, :, ::2] = 1
    upper, lower = statistics(Regions(labels), rgb)
    assert upper[0].item() == pytest.approx(1) and lower[0].item() == pytest.approx(1)  # L 50 on average
    assert upper[1:3].abs().max() < 0.01
    assert upper[3].item() == pytest.approx((24 / 23) ** 0.5 * 50 / 24, rel=1e-4)
    ends = 100 * 2 / 8  # central differences see nothing of these stripes, those at the ends do
    assert upper[6].item() == pytest.approx(np.log1p(ends), rel=1e-4)
    assert upper[7].item() == pytest.approx(4 * 0.75**0.5) and lower[7].item() == pytest.approx(2)
    assert upper[8].item() == pytest.approx(2 / 3) and lower[8].item() == pytest.approx(2)


def test_partners_of_hostile_pictures():
    one = Regions(torch.tensor([[0]]))
    first, second = match(
        one, Regions(torch.zeros(1, 9, dtype=torch.long)), noise(1, 1), torch.zeros(1, 3, 1, 9), limit=9
    )
    assert first.tolist() == [[0]] and second.unique().tolist() == [0]
    with pytest.raises(ValueError, match="source_rgb: holds NaN"):
        match(one, one, noise(1, 1) * torch.nan, noise(1, 1))
    with pytest.raises(ValueError, match=r"reference_rgb: expected one picture of the map's size \(1, 1\)"):
        match(one, one, noise(1, 1), noise(1, 2))
    with pytest.raises(ValueError, match="limit: expected at least 0, got -1"):
        match(one, one, noise(1, 1), noise(1, 1), limit=-1)


def test_drawn_regions_of_real_pairs_find_their_partners():
    """Deep Photo Style Transfer without the names: statistics find most of the partners that people drew."""
    folder = Path(os.environ.get("CTLIB_DATA") or "nowhere") / "dpst"
    if not (folder / "index.csv").is_file():
        pytest.skip("needs label maps drawn by people: set CTLIB_DATA to the folder that holds dpst")
    right = pairs = 0
    with open(folder / "index.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows[:20]:
        source_rgb, reference_rgb = (images.to_tensor(images.read(folder / row[key])) for key in ("input", "style"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sides = [
                drop_small(given(folder / row[key], tuple(rgb.shape[2:])), 0.002)
                for key, rgb in (("input_seg", source_rgb), ("style_seg", reference_rgb))
            ]
            truth = match(*sides, source_rgb, reference_rgb)
            nameless = [Regions(side.labels) for side in sides]
            found = match(*nameless, source_rgb, reference_rgb, limit=100)
        for number in range(int(found[0].max()) + 1):
            named = [there[here == number][0].item() for there, here in zip(truth, found, strict=True)]
            right, pairs = right + (named[0] == named[1] >= 0), pairs + 1
    assert pairs > 40 and right > 0.7 * pairs
