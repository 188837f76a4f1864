"""Color joined with the lightness of another picture, at any size."""

import pytest
import torch

from ctlib import chroma, color
from ctlib.data import photos


@pytest.fixture(scope="module")
def rgb():
    return photos.tensor("chelsea", 200)


def test_a_picture_is_its_lightness_and_its_color(rgb):
    lab = color.rgb_to_lab(rgb)
    assert torch.allclose(chroma.lightness(rgb), lab[:, :1], atol=1e-3)
    assert torch.allclose(chroma.join(lab[:, :1], lab[:, 1:]), rgb, atol=1e-4)


def test_color_at_an_eighth_of_the_size_keeps_every_detail_of_lightness(rgb):
    lab = color.rgb_to_lab(rgb)
    small = chroma.resize(lab[:, 1:], (rgb.shape[2] // 8, rgb.shape[3] // 8))
    result = color.rgb_to_lab(chroma.join(lab[:, :1], small))
    shown = color.in_gamut(torch.cat([lab[:, :1], chroma.resize(small, rgb.shape[2:])], dim=1))
    assert shown.float().mean() > 0.95
    assert (result[:, 0] - lab[:, 0])[shown].abs().max() < 0.05


def test_what_cannot_be_shown_becomes_paler_and_keeps_its_lightness(rgb):
    lab = color.rgb_to_lab(rgb.double())
    wild = torch.cat([lab[:, :1], 4 * lab[:, 1:]], dim=1)
    beyond = ~color.in_gamut(wild)[0]
    assert beyond.float().mean() > 0.1
    found = color.rgb_to_lab(chroma.shown(wild[:, :1], wild[:, 1:]))
    assert (found[:, 0] - lab[:, 0]).abs().max() < 0.01
    torch.testing.assert_close(found[0, :, ~beyond], wild[0, :, ~beyond], rtol=0, atol=0.02)
    own, asked = found[0, 1:, beyond], wild[0, 1:, beyond]
    assert (own.norm(dim=0) < asked.norm(dim=0) + 0.05).all()
    vivid = own.norm(dim=0) > 5
    assert torch.nn.functional.cosine_similarity(own, asked, dim=0)[vivid].min() > 0.999
    assert ((color.rgb_to_lab(chroma.join(wild[:, :1], wild[:, 1:]))[:, 0] - lab[:, 0]).abs() > 1).any()
    torch.testing.assert_close(chroma.shown(lab[:, :1], lab[:, 1:]), rgb.double(), rtol=0, atol=1e-4)


def test_who_can_lend_colors(rgb):
    assert chroma.lender(rgb) is rgb
    pale = chroma.join(chroma.lightness(rgb), torch.full((1, 2, 1, 1), 4.0))
    for one, message in (
        (rgb[..., :31, :], r"reference: expected at least 32 x 32 pixels, got \(31, 200\)"),
        (pale, "reference: is gray and has no color to lend; choose a picture in color"),
        (torch.cat([rgb, pale]), "reference: is gray"),
        (2 * rgb, r"reference: expected sRGB in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            chroma.lender(one)
    assert chroma.lender(pale[..., :1, :1], len(pale), lenient=True).shape == (1, 3, 1, 1)
    for one, count, message in ((2 * rgb, 1, "expected sRGB"), (pale, 2, "expected 1 or 2 pictures|1 pictures")):
        with pytest.raises(ValueError, match=message):
            chroma.lender(one.expand(3, -1, -1, -1), count, lenient=True)


def test_no_color_at_all_is_gray(rgb):
    gray = chroma.colorize(lambda lightness: lightness.new_zeros(len(lightness), 2, 4, 4), rgb)
    assert (gray.amax(1) - gray.amin(1)).max() < 1e-3
    assert torch.allclose(chroma.lightness(gray), chroma.lightness(rgb), atol=0.02)


@pytest.mark.parametrize("size", [(37, 61), (300, 90)])
def test_the_network_sees_about_the_size_asked_for(size):
    seen = []

    def predict(lightness):
        seen.append(tuple(lightness.shape))
        return lightness.expand(-1, 2, -1, -1) * 0

    out = chroma.colorize(predict, torch.rand(2, 3, *size), 64, multiple=16)
    assert out.shape == (2, 3, *size)
    ((count, channels, height, width),) = seen
    assert (count, channels) == (2, 1)
    assert height % 16 == width % 16 == 0
    assert 0.5 * 64**2 <= height * width <= 1.5 * 64**2


def test_best_of_both_takes_color_here_and_lightness_there(rgb):
    tinted = (rgb * torch.tensor([1.0, 0.8, 0.6]).view(1, 3, 1, 1)).clamp(0, 1)
    result = color.rgb_to_lab(chroma.best_of_both(tinted[:, :, ::2, ::2], rgb))
    assert (result[:, 0] - color.rgb_to_lab(rgb)[:, 0]).abs().mean() < 0.5
    # the tint is in all of it, so the means of a and b are those of the prediction
    wanted = color.rgb_to_lab(tinted)[:, 1:].mean((2, 3))
    assert torch.allclose(result[:, 1:].mean((2, 3)), wanted, atol=1.5)


def test_bad_input_is_named(rgb):
    with pytest.raises(ValueError, match="divide by 255"):
        chroma.colorize(lambda lightness: lightness, rgb * 255)
    for side in (4, True, "256", 256.0):
        with pytest.raises(ValueError, match="side: expected a whole number of at least 8"):
            chroma.colorize(lambda lightness: lightness, rgb, side)
