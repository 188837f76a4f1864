"""Splits: stable, disjoint, complete, near their shares."""

import pytest

from ctlib.data import splits

IDS = [f"a{n:04d}" for n in range(1, 5001)]


def test_disjoint_complete_and_near_the_shares():
    parts = splits.split(IDS)
    assert sorted(key for ids in parts.values() for key in ids) == IDS
    for name, share in splits.FRACTIONS.items():
        assert abs(len(parts[name]) / len(IDS) - share) < 0.02


def test_stable_when_ids_come_and_go_and_in_any_order():
    few, many = splits.split(IDS[:100]), splits.split(IDS)
    for name, ids in few.items():
        assert set(ids) <= set(many[name])
    shuffled = splits.split(IDS[::-1])
    assert {name: sorted(ids) for name, ids in shuffled.items()} == many


def test_the_same_on_every_machine():
    """Python's own hash differs from run to run; these numbers must never change."""
    assert splits.place("a0001") == 0.10122810034875529
    assert splits.place("a0002") == 0.8593893985527232
    assert splits.split(IDS[:20])["test"] == ["a0014", "a0015", "a0019"]


def test_seed_changes_the_split():
    assert splits.split(IDS, seed=1) != splits.split(IDS, seed=0)


@pytest.mark.parametrize("fractions", [{"train": 0.5}, {"train": 1.5, "val": -0.5}, {}])
def test_bad_shares(fractions):
    with pytest.raises(ValueError, match="add up to 1"):
        splits.split(IDS, fractions)


def test_id_twice():
    with pytest.raises(ValueError, match="'a0001' comes twice"):
        splits.split(["a0001", "a0001"])


def test_share_of_zero_and_thirds():
    parts = splits.split(IDS, {"train": 1 / 3, "val": 1 / 3, "test": 1 / 3, "none": 0.0})
    assert parts["none"] == [] and sum(map(len, parts.values())) == len(IDS)


def test_every_fifth_holds_out_a_thousand_of_fivek():
    parts = splits.every_fifth(reversed(IDS))
    assert len(parts["val"]) == 1000 and len(parts["train"]) == 4000
    assert parts["val"][:2] == ["a0001", "a0006"]
    assert not set(parts["val"]) & set(parts["train"])


def test_first_thousand_of_imagenet():
    names = [f"ILSVRC2012_val_{n:08d}" for n in range(1, 3001)]
    assert splits.first_thousand(names) == names[:1000]
