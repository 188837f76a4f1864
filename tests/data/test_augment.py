"""Augmentation: what each change must keep, what it must change, and that it repeats."""

import pytest
import torch
from safetensors.torch import save_file

from ctlib import color, metrics, paths
from ctlib.checkpoints import CheckpointError
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


KNOBS = {"exposure": 0, "temperature": 1, "tint": 2, "contrast": 3, "gamma": 4, "saturation": 5}
KNOBS |= {"shadows_a": 6, "shadows_b": 7, "highlights_a": 8, "highlights_b": 9, "lut_0": 10, "lut_1": 11, "lut_2": 12}


def edited(rgb: torch.Tensor, luts: torch.Tensor | None = None, **knobs: float) -> torch.Tensor:
    """`rgb` retouched by some knobs, the others at zero."""
    values = torch.zeros(len(rgb), augment.KNOBS)
    for name, value in knobs.items():
        values[:, KNOBS[name]] = value
    return augment.retouch_by(rgb, values, luts)


def moves(rgb: torch.Tensor, luts: torch.Tensor | None = None, **knobs: float) -> tuple[float, float, float, float]:
    """Mean change of L, a, b and of the chroma."""
    before, after = color.rgb_to_lab(rgb), color.rgb_to_lab(edited(rgb, luts, **knobs))
    chroma = (after[:, 1:].norm(dim=1) - before[:, 1:].norm(dim=1)).mean().item()
    return *(after - before).mean((0, 2, 3)).tolist(), chroma


def test_knobs_at_zero_change_nothing():
    rgb = noise(2, 3, 32, 32)
    assert (edited(rgb) - rgb).abs().max() * 255 < 1e-6
    assert (edited(rgb.float()) - rgb.float()).abs().max() * 255 < 0.005
    assert torch.equal(edited(rgb), edited(rgb, torch.rand(3, 3, 5, 5, 5)))  # tables, too, wait for their knobs
    assert len(KNOBS) == augment.KNOBS


@pytest.mark.parametrize("size", [0.5, 1.5])
def test_each_knob_moves_what_it_is_for(size):
    rgb = photos.tensor("coffee", 64)
    up = {name: moves(rgb, **{name: size}) for name in KNOBS}
    down = {name: moves(rgb, **{name: -size}) for name in KNOBS}
    for name, part in {"exposure": 0, "gamma": 0, "temperature": 2, "saturation": 3, "tint": 1}.items():
        assert up[name][part] > 0.5 * size and down[name][part] < -0.5 * size, name
    assert up["temperature"][1] > 0 > down["temperature"][1]  # orange against blue: a goes with b
    assert abs(up["gamma"][1]) < 0.1 and abs(up["saturation"][0]) < size and abs(up["tint"][0]) < 2 * size
    for name, part in {"shadows_a": 1, "shadows_b": 2, "highlights_a": 1, "highlights_b": 2}.items():
        assert up[name][part] > 0.2 * size and down[name][part] < -0.2 * size
        assert abs(up[name][0]) < 0.1 and abs(up[name][3 - part]) < 0.1
    for name in ("lut_0", "lut_1", "lut_2"):
        assert max(map(abs, up[name] + down[name])) < 0.01


def grays(*levels: float) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.float64).expand(1, 3, 1, -1)


def test_contrast_is_an_s_and_gamma_a_power():
    lab = torch.zeros(1, 3, 1, 5, dtype=torch.float64)
    lab[0, 0, 0] = torch.tensor([25.0, 50, 75, 100, 0])
    rgb = color.lab_to_rgb(lab)
    before = color.rgb_to_lab(rgb)[0, 0, 0]
    more, less = (color.rgb_to_lab(edited(rgb, contrast=value))[0, 0, 0] for value in (1.0, -1.0))
    assert more[0] < before[0] - 2 < less[0] - 4 and more[2] > before[2] + 2 > less[2] + 4
    assert torch.stack([more, less])[:, [1, 3, 4]] == pytest.approx(before[[1, 3, 4]].expand(2, -1), abs=0.01)
    lighter = color.rgb_to_lab(edited(rgb, gamma=4.0))[0, 0, 0]
    assert lighter[:4].tolist() == pytest.approx([50, 50**0.5 * 10, 75**0.5 * 10, 100], abs=0.05)


@pytest.mark.parametrize("contrast", [-9.0, 9.0])
def test_the_tone_curve_always_rises(contrast):
    rgb = grays(*torch.linspace(0, 1, 200).tolist())
    assert (edited(rgb, contrast=contrast).diff(dim=3) > -1e-6).all()
    assert (edited(rgb, contrast=contrast, gamma=2.0).diff(dim=3) > -1e-6).all()


def test_exposure_is_a_power_of_two_in_linear_light():
    rgb = grays(0.1, 0.4, 0.6)
    lin_rgb = color.srgb_to_linear(edited(rgb, exposure=1.5)) / color.srgb_to_linear(rgb)
    assert lin_rgb == pytest.approx(torch.full_like(rgb, 2**0.6), abs=0.01)


def test_split_toning_parts_shadows_and_highlights():
    rgb = grays(0, 0.2, 0.8, 1)
    _, a, b = color.rgb_to_lab(edited(rgb, shadows_b=-2.0, highlights_b=2.0))[0, :, 0]
    assert b[1] < -1 and b[2] > 1 and a.abs().max() < 0.1
    assert b[[0, 3]].abs().max() < 0.02  # black and white stay neutral
    for name in ("shadows_a", "shadows_b", "highlights_a", "highlights_b"):
        assert edited(rgb, **{name: 5.0})[..., [0, 3]] == pytest.approx(rgb[..., [0, 3]], abs=1e-3)


def test_knobs_are_one_row_a_picture():
    rgb, knobs = noise(), torch.randn(4, augment.KNOBS, generator=seeded())
    luts = torch.rand(3, 3, 5, 5, 5, generator=seeded())
    batch = augment.retouch_by(rgb, knobs, luts)
    loop = torch.cat([augment.retouch_by(rgb[i : i + 1], knobs[i : i + 1], luts) for i in range(4)])
    assert batch == pytest.approx(loop, abs=1e-9)
    assert torch.equal(augment.retouch(rgb, seeded(5), 0.7), augment.retouch_by(rgb, drawn(5) * 0.7))


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(4, augment.KNOBS, generator=seeded(seed))


def identity_table(nodes: int) -> torch.Tensor:
    axis = torch.linspace(0, 1, nodes)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))


def test_identity_tables_do_nothing():
    mean = augment._LUT_WEIGHTS[0][0]
    luts = torch.zeros(3, 3, 9, 9, 9)
    luts[0] = identity_table(9) / mean  # at its mean weight the identity
    rgb = noise(2, 3, 16, 16)
    assert edited(rgb, luts, lut_1=1.0) == pytest.approx(rgb, abs=1e-6)
    assert edited(rgb.float(), luts, lut_1=1.0) == pytest.approx(rgb.float(), abs=2e-5)
    stronger = edited(rgb, luts, lut_0=1.0)  # a weight a little above it is a little more light
    assert stronger == pytest.approx((rgb * (1 + augment._LUT_WEIGHTS[1][0] / mean)).clamp(max=1), abs=1e-6)


def test_tables_move_only_the_pictures_whose_knobs_ask_for_it():
    rgb, knobs = noise(2, 3, 8, 8), torch.zeros(2, augment.KNOBS)
    knobs[1, 12] = 0.5
    result = augment.retouch_by(rgb, knobs, torch.rand(3, 3, 5, 5, 5, generator=seeded()))
    assert result[0] == pytest.approx(rgb[0], abs=1e-6)
    assert (result[1] - rgb[1]).abs().mean() > 0.05 and result.min() >= 0 and result.max() <= 1


def test_axes_of_the_tables_in_the_file(tmp_path):
    red, green, blue = identity_table(5)
    stored = torch.stack([red, 2 * green, 3 * blue]).permute(0, 3, 2, 1).contiguous()  # channel, blue, green, red
    path = tmp_path / "luts.safetensors"
    save_file({f"lut{number}": (number + 1) * stored for number in range(3)}, path)
    luts = augment.fivek_luts(path)
    assert luts.shape == (3, 3, 5, 5, 5) and luts.is_contiguous()
    assert torch.equal(luts[1], 2 * torch.stack([red, 2 * green, 3 * blue]))
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors: there are no weights"):
        augment.fivek_luts(tmp_path / "nowhere.safetensors")


def test_real_tables_are_the_right_way_round():
    path = paths.data_dir() / "weights" / "fivek_3dlut_paired_srgb.safetensors"
    if not path.exists():
        pytest.skip("set CTLIB_DATA to a folder with weights/fivek_3dlut_paired_srgb.safetensors")
    luts = augment.fivek_luts(path)
    assert luts.shape == (3, 3, 33, 33, 33)
    for table in luts[:2]:  # each channel rises along its own axis most; the third table is nearly one of grays
        rises = torch.tensor([[channel.diff(dim=axis).mean() for axis in range(3)] for channel in table])
        first, second = rises.topk(2).values.unbind(1)
        assert rises.argmax(1).tolist() == [0, 1, 2] and (first > 1.9 * second).all()
    mixed = torch.einsum("t,tcxyz->cxyz", torch.tensor(augment._LUT_WEIGHTS[0]), luts)
    assert (mixed - identity_table(33)).abs().mean() < 0.1
    gray = edited(grays(*torch.linspace(0, 1, 33).tolist()), luts, lut_1=1e-6)
    assert (gray.amax(1) - gray.amin(1)).max() < 0.03 and (gray[0, 1, 0].diff() >= -1e-6).all()


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
