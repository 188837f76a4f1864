"""Batches, dtypes and options that do not fit a method: one sentence, or the plain answer."""

import pytest
import torch

from ctlib import methods
from ctlib.methods import METHODS


@pytest.mark.parametrize("name", [name for name, one in METHODS.items() if one.family not in ("palette", "learned")])
def test_batches_are_broadcast_or_refused_in_one_sentence(name):
    one, two = torch.rand(1, 3, 9, 8), torch.rand(2, 3, 9, 8)
    if METHODS[name].fit is not METHODS["identity"].fit:
        with pytest.raises(ValueError, match="one reference a source, got 2 and 1"):
            methods.fit(name, two, one)
        with pytest.raises(ValueError, match="fitted on 2 pictures, got a batch of 1"):
            methods.fit(name, two, two)(one)
    assert methods.fit(name, one, one)(two).shape == two.shape


def test_a_reference_and_a_palette_exclude_each_other():
    picture = torch.rand(1, 3, 9, 8)
    with pytest.raises(ValueError, match="not both"):
        methods.recolor("chang", picture, picture, palette=["#204060"])


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("idt", {"bins": 0}, "bins: expected at least 1"),
        ("idt", {"relaxation": 5.0}, r"relaxation: expected a step in \(0, 1\]"),
        ("sliced_ot", {"directions": 0}, "directions: expected at least 1"),
        ("sliced_ot", {"levels": 1}, "levels: expected at least 2"),
    ],
)
def test_options_out_of_range_are_named(name, options, says):
    with pytest.raises(ValueError, match=says):
        methods.recolor(name, torch.rand(1, 3, 9, 8), torch.rand(1, 3, 9, 8), **options)


def test_dtypes_may_differ_between_source_and_reference():
    source, reference = torch.rand(1, 3, 9, 8, dtype=torch.float64), torch.rand(1, 3, 9, 8)
    for name in METHODS:
        assert torch.isfinite(methods.recolor(name, source, reference)).all(), name
