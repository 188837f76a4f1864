"""Three ways to color without learning: their laws, values by hand, and what they refuse."""

import numpy as np
import pytest
import torch
from scipy.ndimage import generic_filter

from ctlib import chroma, color, metrics
from ctlib.data import photos
from ctlib.exemplars import superpixels
from ctlib.exemplars.moments import reinhard_ab
from ctlib.exemplars.superpixels import superpixel_transfer
from ctlib.exemplars.welsh import described, jittered, toward, welsh

EVERY = {"welsh": welsh, "reinhard_ab": reinhard_ab, "superpixel_transfer": superpixel_transfer}


def ab(rgb: torch.Tensor) -> torch.Tensor:
    return color.rgb_to_lab(rgb.double())[:, 1:]


def gray(rgb: torch.Tensor) -> torch.Tensor:
    return chroma.join(chroma.lightness(rgb), 0 * rgb[:, :2])


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    return photos.tensor("coffee", 120), photos.tensor("china", 100)


@pytest.mark.parametrize("name", EVERY)
def test_lightness_stays_and_nothing_is_random(name, pictures):
    rgb, reference = pictures
    found = EVERY[name](rgb, reference)
    assert found.shape == rgb.shape and found.dtype == rgb.dtype and found.min() >= 0 and found.max() <= 1
    lightness = [color.rgb_to_lab(one.double())[:, 0] for one in (found, rgb)]
    assert (lightness[0] - lightness[1]).abs().max() < 0.02
    assert torch.equal(found, EVERY[name](rgb, reference))


@pytest.mark.parametrize("name", ["welsh", "superpixel_transfer"])
def test_the_picture_itself_is_a_good_reference(name, pictures):
    """Of its own colors a gray copy gets back more than nothing, and more than of another picture's."""
    rgb, reference = pictures
    own, other = (metrics.psnr(EVERY[name](gray(rgb), one), rgb).item() for one in (rgb, reference))
    assert own > metrics.psnr(gray(rgb), rgb).item() + 3 and own > other + 3


@pytest.mark.parametrize("name", EVERY)
def test_one_color_everywhere_gives_that_color(name):
    rgb = photos.tensor("coffee", 80)
    lightness = 30 + 40 * torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    reference = chroma.join(lightness, torch.tensor([20.0, -15.0]).view(1, 2, 1, 1))
    found = ab(EVERY[name](gray(rgb), reference))
    middle = (chroma.lightness(rgb) > 40) & (chroma.lightness(rgb) < 70)  # where sRGB can show it
    for channel, wanted in zip(found[0], (20.0, -15.0), strict=True):
        assert (channel[middle[0, 0]] - wanted).abs().max() < 0.5


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_black_and_white_targets(name, value, pictures):
    found = EVERY[name](torch.full((1, 3, 40, 33), value), pictures[1])
    assert found.isfinite().all() and (found - found[..., :1, :1]).abs().max() < 0.3


@pytest.mark.parametrize("name", EVERY)
def test_small_targets(name, pictures):
    for size in ((1, 1), (3, 2)):
        assert EVERY[name](torch.rand(1, 3, *size), pictures[1]).shape[2:] == size


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (torch.rand(1, 3, 20, 64), "reference: expected at least 32 x 32"),
        (torch.full((1, 3, 64, 64), 0.5), "reference: is gray"),
        (255 * torch.rand(1, 3, 64, 64), "reference: expected sRGB"),
        (torch.rand(3, 3, 64, 64), "reference.*got.* 3"),
    ],
)
def test_bad_references_are_one_clear_line(name, reference, message):
    with pytest.raises(ValueError, match=message):
        EVERY[name](torch.rand(1, 3, 40, 40), reference)


def test_moments_of_the_reference(pictures):
    """Checked where sRGB can show what comes out: dull colors on both sides."""
    rgb, reference = (chroma.join(40 + 0.2 * chroma.lightness(one), 0.2 * ab(one).float()) for one in pictures)
    found = ab(reinhard_ab(rgb, reference)).flatten(2)
    torch.testing.assert_close(found.mean(2), ab(reference).flatten(2).mean(2), rtol=0, atol=0.02)
    torch.testing.assert_close(found.std(2), ab(reference).flatten(2).std(2), rtol=0.01, atol=0.02)
    torch.testing.assert_close(reinhard_ab(rgb, rgb), rgb, rtol=0, atol=1e-4)


def test_deviation_in_a_window():
    lightness = 100 * torch.rand(1, 1, 9, 12, generator=torch.Generator().manual_seed(0))
    found = described(lightness, 5)
    assert torch.equal(found[:, :1], lightness)
    peer = generic_filter(lightness[0, 0].double().numpy(), np.std, size=5, mode="mirror")
    np.testing.assert_allclose(found[0, 1].numpy(), peer, atol=1e-3)


def test_lightness_is_brought_to_the_targets():
    one, other = (100 * torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    found = toward(one, 0.3 * other)
    assert found.mean().item() == pytest.approx(0.3 * other.mean().item(), rel=1e-4)
    assert found.std().item() == pytest.approx(0.3 * other.std().item(), rel=1e-4)
    assert torch.equal(toward(torch.full((1, 1, 4, 4), 20.0), other), torch.full((1, 1, 4, 4), other.mean().item()))


def test_one_sample_in_each_cell():
    rows, columns = jittered((30, 45), 230, 0)
    assert len(rows) == 225
    cells = (rows // 2) * 15 + columns // 3
    assert torch.equal(cells.sort().values, torch.arange(225))
    assert not torch.equal(rows, jittered((30, 45), 230, 1)[0])


def test_welsh_by_hand():
    """Each pixel takes the color of the sample that is nearest in lightness and deviation."""
    rgb, reference = photos.tensor("coffee", 48), photos.tensor("china", 64)
    found = ab(welsh(gray(rgb), reference, samples=9, texture=0.3, seed=2))
    rows, columns = jittered(reference.shape[2:], 9, 2)
    lab, lightness = color.rgb_to_lab(reference), chroma.lightness(rgb)
    known = described(toward(lab[:, :1], lightness), 5)[0, :, rows, columns]
    asked = described(lightness, 5)[0]
    for row, column in ((3, 4), (20, 30), (31, 47)):
        apart = (asked[:, row, column, None] - known) ** 2 * torch.tensor([[0.7], [0.3]])
        wanted = lab[0, 1:, rows, columns][:, apart.sum(0).argmin()]
        got = found[0, :, row, column]
        # what sRGB cannot show at this lightness has become paler
        assert (got - wanted).norm() < 1 or (
            got.norm() < wanted.norm() and (got / got.norm() - wanted / wanted.norm()).norm() < 0.1
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: welsh(one, one, samples=0), "samples: expected a whole number of at least 1"),
        (lambda one: welsh(one, one, window=4), "window: expected an odd number"),
        (lambda one: welsh(one, one, texture=1.0), "texture: expected a share"),
        (lambda one: superpixel_transfer(one, one, superpixels=1), "superpixels: expected a whole number"),
        (lambda one: superpixel_transfer(one, one, side=8), "side: expected a whole number of at least 32"),
    ],
)
def test_bad_options_are_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(1, 3, 40, 40))


def test_neighbors_of_regions():
    labels = np.array([[0, 0, 1], [0, 2, 1], [3, 3, 3]])
    mean = np.array([10.0, 20.0, 40.0, 80.0])
    expected = [(20 + 40 + 80) / 3, (10 + 40 + 80) / 3, (10 + 20 + 80) / 3, (10 + 20 + 40) / 3]
    np.testing.assert_allclose(superpixels.around(mean, labels), expected)
    np.testing.assert_allclose(superpixels.around(mean[:1], np.zeros((2, 2), int)), [10.0])
    np.testing.assert_allclose(superpixels.mean_of(np.arange(9.0).reshape(3, 3), labels), [4 / 3, 3.5, 4.0, 7.0])


def test_the_cascade_halves_candidates():
    """Lightness keeps two of four, deviation one of these, though another is nearer in waves."""
    known = np.array([[0.0, 0, 9, 5], [1, 1, 1, 9], [5, 5, 1, 0], [9, 9, 1, 0]])
    assert superpixels.cascade(np.array([[0.4, 0.4, 1.0, 0.0]]), known).tolist() == [1]
    assert superpixels.cascade(known, known).tolist() == [0, 1, 2, 3]


def test_a_guided_filter_keeps_what_follows_the_guide():
    guide = np.repeat(np.linspace(0, 1, 40)[None], 30, axis=0)
    found = superpixels.guided(guide, np.stack([np.full_like(guide, 7.0), 30 * guide]), eps=1e-6)
    np.testing.assert_allclose(found[0], 7.0, atol=1e-9)
    np.testing.assert_allclose(found[1], 30 * guide, atol=0.1)


def test_colors_off_their_group_are_overruled():
    features = np.concatenate([np.zeros((20, 3)), np.full((20, 3), 50.0)]) + np.arange(40)[:, None] * 1e-3
    colors = np.concatenate([np.full((20, 2), 10.0), np.full((20, 2), -10.0)])
    colors[3] = 80.0
    colors[5] = 13.0
    monkey, superpixels.GROUPS = superpixels.GROUPS, 2
    try:
        found = superpixels.voted(colors, features, 0)
    finally:
        superpixels.GROUPS = monkey
    assert found[3].tolist() == [10, 10] and found[5].tolist() == [13, 13] and (found[20:] == -10).all()
