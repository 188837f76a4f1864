"""Which labels guide a normalization, and what is said where none does."""

import warnings

import pytest
import torch

from ctlib import ops
from ctlib.segment.guides import guide


def picture(height: int, width: int) -> torch.Tensor:
    return torch.zeros(1, 3, height, width)


def strips(height: int, width: int, areas: dict[int, int], rest: int = -1) -> torch.Tensor:
    """Labels with so many pixels each, in order, and `rest` elsewhere."""
    flat = torch.full((height * width,), rest)
    start = 0
    for label, area in areas.items():
        flat[start : start + area] = label
        start += area
    return flat.view(height, width)


def test_valid_labels_by_the_spec():
    """More than 10 pixels in each, and less than 100 times as many in one as in the other."""
    first = strips(100, 100, {3: 11, 5: 10, 7: 1200, 9: 1199, 11: 400})
    second = strips(60, 60, {3: 11, 5: 500, 7: 12, 9: 12, 13: 400})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = guide((first, second), picture(100, 100), picture(60, 60))
    assert found.count == 2 and found.source.shape == (1, 100, 100) and found.reference.shape == (1, 60, 60)
    for number, label in enumerate((3, 9)):
        assert torch.equal(found.source[0] == number, first == label)
        assert torch.equal(found.reference[0] == number, second == label)
    assert set(found.source.unique().tolist()) == {-1, 0, 1}


def test_the_same_labels_as_the_op_counts_by_itself():
    """`ctlib.ops.adain` holds the same law; renumbering changes nothing."""
    generator = torch.Generator().manual_seed(0)
    content, style = (torch.rand(1, 4, 16, 16, generator=generator) for _ in range(2))
    maps = [strips(64, 64, {0: 2000, 2: 10, 3: 1500, 5: 12}), strips(64, 64, {0: 30, 2: 2000, 3: 900, 5: 1199})]
    found = guide(maps, picture(64, 64), picture(64, 64))
    own = ops.adain(content, style, found.source, found.reference, num_labels=found.count)
    assert torch.equal(own, ops.adain(content, style, maps[0][None], maps[1][None]))


def test_another_size_is_scaled_and_said():
    maps = strips(16, 16, {0: 128, 1: 128}), strips(32, 32, {0: 512, 1: 512})
    with pytest.warns(UserWarning, match=r"labels: source's map of \(16, 16\) is scaled to \(32, 32\)"):
        found = guide(maps, picture(32, 32), picture(32, 32))
    assert torch.equal(found.source, found.reference)


@pytest.mark.parametrize("second", [{1: 400}, {0: 5}, {0: 4}])
def test_no_shared_label_is_said(second):
    maps = strips(32, 32, {0: 1000}), strips(32, 32, second, rest=-2)
    with pytest.warns(UserWarning, match="labels: source and reference share none .* the whole pictures are used"):
        assert guide(maps, picture(32, 32), picture(32, 32)) is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2, 8, 8, dtype=torch.int64), "labels: expected two maps"),
        ((torch.zeros(8, 8), torch.zeros(8, 8)), r"labels\[0\]: expected whole numbers \(H, W\), got torch.float32"),
        ((strips(8, 8, {}), None), r"labels\[1\]: expected whole numbers \(H, W\), got NoneType"),
        ((strips(8, 8, {}), strips(8, 8, {})[None]), r"labels\[1\]: expected"),
    ],
)
def test_what_is_no_pair_of_maps_is_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        guide(labels, picture(8, 8), picture(8, 8))


def test_several_pictures_are_refused():
    with pytest.raises(ValueError, match="labels: regions belong to one picture, reference is a batch of 2"):
        guide((strips(8, 8, {}), strips(8, 8, {})), picture(8, 8), picture(8, 8).expand(2, -1, -1, -1))
