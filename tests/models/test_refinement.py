"""The colorization sub-net: Zhang 2017 to the layer but for the head of bins, and what it begins from."""

import pytest
import torch

from ctlib import hints
from ctlib.checkpoints import CheckpointError
from ctlib.data import photos
from ctlib.models.refinement import Refinement
from ctlib.models.zhang2017 import Zhang2017

SMALL = {"width": 0.06, "init": "he"}


def pair(**options) -> tuple[Refinement, Zhang2017]:
    torch.manual_seed(0)
    other = Zhang2017(**SMALL, mask_cent=0)
    torch.manual_seed(1)
    return Refinement(**SMALL | options).eval(), other.eval()


def levels(*shape: int) -> torch.Tensor:
    return 100 * torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_parameters_of_the_spec():
    with torch.device("meta"):
        own, whole = Refinement(), Zhang2017()
    assert sum(weight.numel() for weight in own.parameters()) == 34_051_074
    names = {name for name in whole.state_dict() if not name.startswith("model_class")}
    assert set(own.state_dict()) == names
    assert own.model1[0].weight.shape == (64, 4, 3, 3) and own.model_out[0].weight.shape == (2, 128, 1, 1)


@torch.no_grad()
def test_it_computes_what_zhang2017_does():
    own, other = pair()
    own.begin_from(other)
    lightness = levels(2, 1, 24, 32)
    given = hints.fixed(levels(2, 2, 24, 32) - 50, 4, [0, 1])
    for some in (None, given):
        ab, nothing = own(lightness, some)
        assert nothing is None and torch.equal(ab, other(lightness, some)[0])
    odd = levels(1, 1, 21, 30)
    assert torch.equal(own.ab(odd), other.ab(odd))
    picture = photos.tensor("coffee", 60)
    assert torch.equal(own.colorize(picture, side=32), other.colorize(picture, side=32))


def test_the_first_four_blocks_alone():
    own, other = pair()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    own.begin_from(other, blocks=4)
    for name, value in own.state_dict().items():
        number = name.split(".")[0].removeprefix("model")
        taken = number.isdigit() and int(number) <= 4
        assert torch.equal(value, other.state_dict()[name] if taken else before[name]), name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda own, other: own.begin_from(other, 5), "blocks: expected 4, .*got 5"),
        (lambda own, _: own.begin_from(Zhang2017("global", **SMALL)), "begin: expected a network with local hints"),
        (lambda own, _: own.begin_from(Zhang2017(width=0.1)), "begin: expected .* of the same width"),
        (lambda own, _: own.begin_from(Zhang2017(**SMALL)), "mask_cent: 0, but the weights were trained with 0.5"),
        (lambda own, _: own.suggest(levels(1, 1, 8, 8)), "suggest: this network has no head of bins"),
        (lambda own, _: own(levels(1, 1, 12, 16)), "lightness: 8 must divide its sides"),
        (lambda *_: Refinement(mask_cent=0.2), "mask_cent: 0 for"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message):
        call(*pair())


def test_weights_come_back(tmp_path):
    own, other = pair(mask_cent=0.5)
    own.save_pretrained(tmp_path / "own", dtype=torch.float32)
    again = Refinement.from_pretrained(tmp_path / "own")
    assert again.mask_cent == 0.5 and torch.equal(again.ab(levels(1, 1, 16, 16)), own.ab(levels(1, 1, 16, 16)))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match="no configuration of Refinement"):
        Refinement.from_pretrained(tmp_path / "other")
