"""Augmentation: what each change must keep, what it must change, and that it repeats."""

import pytest
import torch

from ctlib import color, metrics
from ctlib.data import augment, photos

SHIFTS = (0.1, 1 / 3, 0.5, 0.77)
CHANGES = {
    "naive": lambda rgb: augment.shift_hue_naive(rgb, 0.3),
    "kept": lambda rgb: augment.shift_hue(rgb, 0.3),
    "hue_saturation": lambda rgb: augment.shift_hue_saturation(rgb, 0.3, 0.7),
    "retouch": lambda rgb: augment.retouch(rgb, seeded()),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*(shape or (4, 3, 9, 7)), dtype=torch.float64, generator=seeded(seed))


def lightness(rgb: torch.Tensor) -> torch.Tensor:
    return color.rgb_to_lab(rgb)[:, :1]


@pytest.mark.parametrize("shift", SHIFTS)
def test_lightness_is_kept_before_clipping(shift):
    rgb = noise()
    for lab in (augment.shift_hue(rgb, shift), augment.shift_hue_saturation(rgb, shift, 1.2)):
        assert (lab[:, :1] - lightness(rgb)).abs().max() <= 1e-6
        assert (color.lab_to_rgb(lab, clip=False) - rgb).abs().max() > 0.1  # something did change
        assert (lightness(color.lab_to_rgb(lab, clip=False)) - lightness(rgb)).abs().max() < 0.05  # the curve's knee
    assert (lightness(augment.shift_hue_naive(rgb, shift)) - lightness(rgb)).abs().mean() > 3


def test_lightness_of_a_photograph_is_kept_where_srgb_can_show_it():
    rgb = photos.tensor("coffee", 64).double()
    lab = augment.shift_hue(rgb, 1 / 3)
    shown = color.in_gamut(lab)
    off = (lightness(color.lab_to_rgb(lab)) - lightness(rgb)).abs()[:, 0]
    assert 0.05 < shown.double().mean() < 0.95
    assert off[shown].max() < 0.05 < off[~shown].max()


@pytest.mark.parametrize("shift", [0.0, 1.0, -1.0, 3.0])
def test_whole_turns_change_nothing(shift):
    rgb = noise()
    assert augment.shift_hue_naive(rgb, shift) == pytest.approx(rgb, abs=1e-12)
    assert augment.shift_hue(rgb, shift) == pytest.approx(color.rgb_to_lab(rgb), abs=1e-9)
    assert augment.shift_hue_saturation(rgb, shift, 1.0) == pytest.approx(color.rgb_to_lab(rgb), abs=1e-9)


def test_turns_of_primaries_and_their_sum():
    red = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    assert augment.shift_hue_naive(red, 1 / 3).flatten().tolist() == pytest.approx([0, 1, 0])
    assert augment.shift_hue_naive(red, 2 / 3).flatten().tolist() == pytest.approx([0, 0, 1])
    rgb = noise()
    twice = augment.shift_hue_naive(augment.shift_hue_naive(rgb, 0.2), 0.5)
    assert twice == pytest.approx(augment.shift_hue_naive(rgb, 0.7), abs=1e-9)


def test_parameters_are_one_a_picture():
    rgb = noise()
    shift, factor = torch.tensor([0.0, 0.2, 0.5, 0.9]), torch.tensor([1.0, 0.3, 1.2, 0.0])
    batch = augment.shift_hue_saturation(rgb, shift, factor)
    loop = torch.cat([augment.shift_hue_saturation(rgb[i : i + 1], shift[i], factor[i]) for i in range(4)])
    assert batch == pytest.approx(loop, abs=1e-12)
    assert batch[:1] == pytest.approx(color.rgb_to_lab(rgb[:1]), abs=1e-9)
    for change in (augment.shift_hue, augment.shift_hue_naive):
        loop = torch.cat([change(rgb[i : i + 1], shift[i]) for i in range(4)])
        assert change(rgb, shift) == pytest.approx(loop, abs=1e-12)
        assert change(rgb, 0.2) == pytest.approx(change(rgb, torch.full((4,), 0.2, dtype=torch.float64)), abs=1e-12)


def test_factor_zero_gives_grays_of_the_same_lightness():
    rgb = noise()
    assert augment.change_hsv(rgb, 0.4, 0.0).std(dim=1).max() < 1e-12
    lab = augment.shift_hue_saturation(rgb, 0.4, 0.0)
    assert lab[:, 1:].abs().max() < 0.02  # the white of the matrix is the white point's to 4 digits
    assert torch.equal(lab[:, :1], lightness(rgb))


def test_grays_stay_and_never_clip():
    gray = torch.linspace(0, 1, 256, dtype=torch.float64).reshape(1, 1, 16, 16).expand(3, 3, 16, 16)
    lab = augment.shift_hue_saturation(gray, torch.tensor(SHIFTS[:3]), 1.2)
    assert lab == pytest.approx(color.rgb_to_lab(gray), abs=1e-9)
    assert augment.clip_rate(lab).tolist() == [0, 0, 0]


def test_clip_rate_counts_what_srgb_cannot_show():
    lab = torch.zeros(2, 3, 1, 4, dtype=torch.float64)
    lab[:, 0] = 50
    lab[1, 1, 0, :3] = 200  # three of four far outside
    assert augment.clip_rate(lab).tolist() == [0, 0.75]
    assert augment.clip_rate(color.rgb_to_lab(photos.tensor("flower", 64))).item() == 0
    assert augment.clip_rate(augment.shift_hue(photos.tensor("coffee", 64), 1 / 3)).item() > 0.3


def test_draws_follow_the_authors_law():
    shift, factor = augment.draw_hue_saturation(200_000, seeded())
    assert shift.shape == factor.shape == (200_000,)
    assert shift.min() >= 0 and shift.max() < 1 and shift.mean() == pytest.approx(0.5, abs=0.005)
    assert factor.min() == pytest.approx(0.3) and factor.max() < 1.2
    assert (factor <= 0.3).double().mean() == pytest.approx(0.3 / 1.2, abs=0.005)  # all that U(0, 1.2) puts below
    assert factor.mean() == pytest.approx(0.3 * 0.25 + (1.2**2 - 0.3**2) / 2.4, abs=0.005)


def test_the_seed_decides():
    rgb = noise()
    for draw in (lambda g: torch.stack(augment.draw_hue_saturation(9, g)), lambda g: augment.retouch(rgb, g)):
        assert torch.equal(draw(seeded(3)), draw(seeded(3)))
        assert not torch.equal(draw(seeded(3)), draw(seeded(4)))


def test_one_seed_is_one_edit_on_any_picture():
    first, second = noise(1, 3, 6, 5), noise(1, 3, 8, 11, seed=1)
    second[:, :, 0, :5] = first[:, :, 0]  # the same five colors in both
    one, other = augment.retouch(first, seeded(7)), augment.retouch(second, seeded(7))
    assert one[:, :, 0] == pytest.approx(other[:, :, 0, :5], abs=1e-12)
    pair = augment.retouch(first.repeat(2, 1, 1, 1), seeded(7))  # but each picture of a batch gets its own
    assert (pair[0] - pair[1]).abs().max() > 0.01


def test_retouching_grows_with_strength():
    rgb = photos.tensor("china", 96)
    assert augment.retouch(rgb, seeded(), strength=0.0) == pytest.approx(rgb, abs=1e-5)
    for seed in range(5):
        results = [augment.retouch(rgb, seeded(seed), strength) for strength in (0.25, 0.5, 1.0, 2.0)]
        change = torch.cat([metrics.ciede2000(result, rgb) for result in results])
        assert (change.diff() > 0).all() and change[0] > 0.5
        assert all(result.shape == rgb.shape and result.dtype == rgb.dtype for result in results)


@pytest.mark.parametrize("strength", [0.0, 1.0, 4.0])
def test_results_are_pictures(strength):
    for rgb in (noise(), torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1), noise(2, 3, 1, 1).float()):
        for result in (augment.retouch(rgb, seeded(), strength), augment.shift_hue_naive(rgb, strength / 3)):
            assert torch.isfinite(result).all() and result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_gradients_are_finite(change):
    rgb = noise(2, 3, 4, 4)
    rgb[0, :, 0, 0], rgb[0, :, 0, 1], rgb[0, :, 0, 2] = 0.0, 1.0, 0.5  # black, white and gray have no hue
    rgb.requires_grad_()
    change(rgb).sum().backward()
    assert torch.isfinite(rgb.grad).all() and rgb.grad.abs().max() > 0


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(
    ("rgb", "message"),
    [
        (torch.rand(3, 4, 4), "expected"),
        (torch.rand(2, 1, 4, 4), "3 color channels"),
        (torch.rand(1, 3, 0, 4), "empty"),
        (torch.rand(1, 3, 4, 4) * 255, "divide by 255"),
        (torch.full((1, 3, 2, 2), torch.nan), "NaN"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "float tensor"),
    ],
)
def test_bad_pictures_are_one_clear_error(change, rgb, message):
    with pytest.raises(ValueError, match=message):
        change(rgb)


def test_parameters_must_fit_the_batch():
    with pytest.raises(ValueError, match="shift: expected one value or 4, one a picture, got 3"):
        augment.shift_hue(noise(), torch.rand(3))
    with pytest.raises(ValueError, match="factor: expected one value or 4"):
        augment.shift_hue_saturation(noise(), 0.1, torch.rand(2))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda rgb: augment.shift_hue(rgb, float("nan")), "shift: must be finite"),
        (lambda rgb: augment.shift_hue_saturation(rgb, 0.1, -1.0), "factor: a saturation cannot be scaled below 0"),
        (lambda rgb: augment.retouch(rgb, torch.Generator(), strength=float("nan")), "strength: must be finite"),
        (lambda rgb: augment.with_lightness_of(rgb, rgb[..., :2]), "shapes differ"),
        (lambda rgb: augment.clip_rate(rgb * float("nan")), "holds NaN"),
    ],
)
def test_bad_parameters_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call(torch.rand(1, 3, 4, 4))
