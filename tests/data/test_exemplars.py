"""Pictures with a reference each: another one, a near one, by the seed alone."""

import numpy as np
import pytest
import torch

from ctlib import color
from ctlib.data.exemplars import Exemplars, histograms, nearest
from ctlib.data.registry import DataError


class Tinted:
    """Pictures of three tints, four of each: 0 to 3 reddish, 4 to 7 greenish, 8 to 11 bluish."""

    manifest = {"a": "b"}  # noqa: RUF012

    def __init__(self, count: int = 12):
        draws = np.random.default_rng(0)
        tints = np.repeat([[40.0, 20.0], [-40.0, 30.0], [10.0, -50.0]], 4, axis=0)[:count]
        self.rgb = []
        for tint in tints:
            lab = np.concatenate(
                [draws.uniform(40, 60, (1, 16, 16)), tint[:, None, None] + draws.normal(0, 3, (2, 16, 16))]
            )
            rgb = color.lab_to_rgb(torch.from_numpy(lab)[None])[0]
            self.rgb.append((255 * rgb).round().byte().movedim(0, -1))

    def __len__(self):
        return len(self.rgb)

    def __getitem__(self, place):
        return {"rgb": self.rgb[place[0]], "seed": place[1]}


def other(dataset: Exemplars, index: int, seed: int) -> int:
    item = dataset[index, seed]
    assert torch.equal(item["rgb"], dataset.photos.rgb[index]) and item["seed"] == seed
    return next(n for n, rgb in enumerate(dataset.photos.rgb) if torch.equal(rgb, item["other"]))


def test_any_other_picture():
    dataset = Exemplars(Tinted())
    drawn = [other(dataset, 5, seed) for seed in range(200)]
    assert set(drawn) == set(range(12)) - {5}
    assert drawn == [other(dataset, 5, seed) for seed in range(200)]
    assert len(dataset) == 12 and dataset.manifest == {"a": "b"} and dataset.near == 0


def test_the_nearest_by_their_colors():
    dataset = Exemplars(Tinted(), near=3)
    for index in range(12):
        first = index // 4 * 4
        assert {other(dataset, index, seed) for seed in range(40)} == set(range(first, first + 4)) - {index}
    assert Exemplars(Tinted(3), near=8).near == 2


def test_shares_of_own_and_of_stray_references():
    dataset = Exemplars(Tinted(), near=3, own=0.25, stray=0.25)
    drawn = [other(dataset, 5, seed) for seed in range(400)]
    assert drawn.count(5) == pytest.approx(100, abs=40)
    assert sum(n not in (4, 5, 6, 7) for n in drawn) == pytest.approx(400 * 0.25 * 8 / 11, abs=35)
    assert set(drawn) == set(range(12))
    assert {other(Exemplars(Tinted(), own=1.0), 5, seed) for seed in range(9)} == {5}
    with pytest.raises(ValueError, match=r"own, stray: shares of all pictures, together at most 1, got 0.7 and 0.4"):
        Exemplars(Tinted(), own=0.7, stray=0.4)


def test_distance_by_hand():
    rows = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 0.5, 0.5], [0.4, 0.6, 0]])
    apart = (rows[:, None].sqrt() - rows[None].sqrt()).square().sum(2) + 9 * torch.eye(4)
    assert torch.equal(nearest(rows, 3), apart.argsort(1)[:, :3])
    found = histograms(Tinted())
    assert found.shape == (12, 313)
    torch.testing.assert_close(found.sum(1), torch.ones(12))


def test_one_picture_has_no_reference():
    with pytest.raises(DataError, match="a reference is another picture, and there are 1; add pictures"):
        Exemplars(Tinted(1))
    with pytest.raises(ValueError, match="near: expected a whole number of at least 0"):
        Exemplars(Tinted(), near=-1)
