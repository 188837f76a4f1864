"""Colors by correspondence: of itself, of one color, within labels, at other sizes, in batches."""

import pytest
import torch

from ctlib import chroma, color, ops
from ctlib.data import photos
from ctlib.exemplars import matching
from ctlib.exemplars.matching import PLACES, WEIGHED, compared, mutual, weighed
from ctlib.models import style_encoders
from ctlib.segment.guides import guide


@pytest.fixture(scope="module")
def encoder():
    return style_encoders.load("compact")


def picture(name: str, height: int = 96, width: int = 128) -> torch.Tensor:
    return chroma.resize(photos.tensor(name, 160), (height, width)).clamp(0, 1)


def matched(encoder, lightness, reference, *labels, **options) -> torch.Tensor:
    return matching.matched(compared(encoder, lightness, reference), reference, *labels, **options)


def test_a_picture_finds_its_own_colors(encoder):
    rgb = picture("coffee")
    lab = ops.rgb_to_lab(rgb)
    found = chroma.resize(matched(encoder, lab[:, :1], rgb), (96, 128))
    gray = lab[:, 1:].square().mean().sqrt()
    assert (found - lab[:, 1:]).square().mean().sqrt() < 0.25 * gray
    soft = chroma.resize(matched(encoder, lab[:, :1], rgb, temperature=100.0), (96, 128))
    assert (soft - lab[:, 1:].mean((2, 3), keepdim=True)).abs().max() < 1  # all places alike


def test_colors_follow_what_they_belong_to(encoder):
    """A mirrored reference of the other way round is no other reference; a shuffled one would be to statistics, too."""
    lightness, rgb = chroma.lightness(picture("flower")), picture("flower")
    there, mirrored = (matched(encoder, lightness, one) for one in (rgb, rgb.flip(3)))
    own = ops.rgb_to_lab(rgb)[:, 1:]
    small = chroma.resize(own, there.shape[2:])
    assert (mirrored - small).abs().mean() < 0.5 * small.abs().mean() > (there - small).abs().mean()


def test_likeness_is_mutual(encoder):
    coffee, china = picture("coffee"), picture("china", 64, 96)
    there, back = (mutual(compared(encoder, chroma.lightness(a), b)) for a, b in ((coffee, china), (china, coffee)))
    torch.testing.assert_close(there, back, rtol=0, atol=2e-3)
    own = mutual(compared(encoder, chroma.lightness(coffee), coffee))
    assert own.item() == pytest.approx(1, abs=1e-3) and there.shape == (1,) and there < 0.95
    found = compared(encoder, chroma.lightness(coffee), china)
    assert found.places.shape == (1, 24 * 32, 16 * 24) and found.target == (24, 32) and found.reference == (16, 24)
    best = found.places[0].max(1).values.mean(), found.places[0].max(0).values.mean()
    assert there.item() == pytest.approx(min(best).item(), abs=1e-4)


def test_a_reference_is_weighed_by_few_places(encoder):
    coffee, china = chroma.lightness(picture("coffee", 256, 192)), picture("china", 256, 256)
    few = compared(encoder, coffee, china, WEIGHED)
    assert few.places.shape[1] <= WEIGHED and few.places.shape[2] == WEIGHED
    small = chroma.resize(coffee, (288, 224)), china  # about 256 x 256 pixels each
    torch.testing.assert_close(weighed(encoder, coffee, china), mutual(compared(encoder, *small, WEIGHED)))
    assert weighed(encoder, coffee, china) < 0.9 < weighed(encoder, coffee, picture("coffee", 256, 192))


def test_one_color_and_other_sizes(encoder):
    lab = torch.cat([chroma.lightness(picture("china", 64, 80)), torch.full((1, 2, 64, 80), 12.0)], dim=1)
    reference = color.lab_to_rgb(lab).clamp(0, 1)
    wanted = ops.rgb_to_lab(reference)[:, 1:]
    found = matched(encoder, chroma.lightness(picture("coffee", 96, 72)), reference)
    assert found.shape == (1, 2, 24, 18)
    assert wanted.amin() - 0.1 <= found.amin() and found.amax() <= wanted.amax() + 0.1
    large = matched(encoder, torch.full((1, 1, 512, 384), 50.0), reference)
    assert large.shape[2] * large.shape[3] <= PLACES


def test_labels_keep_regions_apart(encoder):
    target, reference = picture("coffee"), picture("china")
    tints = torch.tensor([[30.0, 20.0], [-30.0, -20.0]])
    lab = ops.rgb_to_lab(reference)
    lab[:, :1] = 20 + 0.6 * lab[:, :1]
    lab[0, 1:, :, :64], lab[0, 1:, :, 64:] = tints[0, :, None, None], tints[1, :, None, None]
    reference = color.lab_to_rgb(lab).clamp(0, 1)
    halves = (torch.arange(128) >= 64).long().expand(96, 128)
    found = matched(encoder, chroma.lightness(target), reference, guide((halves, halves), target, reference))
    assert found[0, 0, :, :14].min() > 10 and found[0, 0, :, 18:].max() < -10
    turned = matched(encoder, chroma.lightness(target), reference, guide((1 - halves, halves), target, reference))
    assert turned[0, 0, :, :14].max() < -10 and turned[0, 0, :, 18:].min() > 10


def test_a_batch_is_its_pictures(encoder):
    both = torch.cat([chroma.lightness(picture(name)) for name in ("coffee", "chelsea")])
    references = torch.cat([picture("china"), picture("flower")])
    shared, own = matched(encoder, both, references[:1]), matched(encoder, both, references)
    torch.testing.assert_close(shared[1:], matched(encoder, both[1:], references[:1]), rtol=0, atol=1e-3)
    torch.testing.assert_close(own[1:], matched(encoder, both[1:], references[1:]), rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="temperature: expected a number above 0, got 0"):
        matched(encoder, both, references, temperature=0)
