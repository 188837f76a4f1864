"""Histogram matching, IDT, sliced transport, regrain: equal to scikit-image where it has them, else held to laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.exposure import match_histograms

from ctlib.classical import distribution
from ctlib.data import photos


def photo(name, step=8):
    return getattr(data, name)()[::step, ::step].copy()


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255


SOURCE, REFERENCE = tensor(photo("astronaut")), tensor(photo("coffee"))
FITS = {
    "histogram_rgb": distribution.histogram_matching,
    "histogram_lab": lambda s, r, **options: distribution.histogram_matching(s, r, space="lab", **options),
    "hm_mkl_hm": distribution.hm_mkl_hm,
    "idt": lambda s, r, **options: distribution.idt(s, r, iterations=6, **options),
    "sliced": lambda s, r, **options: distribution.sliced_transport(s, r, iterations=4, **options),
}
EACH_FIT = pytest.mark.parametrize("fit", FITS.values(), ids=FITS)


def distance(first, second, directions=64):
    """Sliced Wasserstein-1 distance of two clouds `(1, 3, ...)`, through 200 quantiles of each projection."""
    theta = torch.randn(directions, 3, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    theta = theta / theta.norm(dim=1, keepdim=True)
    levels = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    quantiles = [(theta @ colors.flatten(2)[0]).quantile(levels, dim=1) for colors in (first, second)]
    return (quantiles[0] - quantiles[1]).abs().mean().item()


# ---- histogram matching


def test_histogram_matching_equals_scikit_image():
    found = distribution.histogram_matching(SOURCE, REFERENCE)(SOURCE)
    levels = photo("astronaut").astype(np.float64), photo("coffee").astype(np.float64)
    expected = match_histograms(*levels, channel_axis=-1)
    np.testing.assert_allclose(found[0].permute(1, 2, 0) * 255, expected, rtol=0, atol=1e-9)


def test_histogram_matching_equals_scikit_image_on_8_bits():
    found = distribution.histogram_matching(SOURCE, REFERENCE)(SOURCE)[0].permute(1, 2, 0) * 255
    expected = match_histograms(photo("astronaut"), photo("coffee"), channel_axis=-1)
    # it casts to uint8 by cutting the fraction off; we round
    np.testing.assert_array_equal((found + 1e-9).floor().to(torch.uint8), expected)


def test_each_channel_takes_the_distribution_of_the_reference():
    smooth = tensor(photo("chelsea", 4))  # no color takes a large share, so that every quantile can be met
    result = distribution.histogram_matching(smooth, REFERENCE)(smooth).flatten(2)[0]
    levels = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    wanted = REFERENCE.flatten(2)[0].quantile(levels, dim=1)
    assert (result.quantile(levels, dim=1) - wanted).abs().mean() < 1 / 255


@given(
    st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=8),
    st.lists(st.integers(0, 40), min_size=1, max_size=8, unique=True),
    st.data(),
)
@settings(deadline=None, max_examples=60)
def test_interpolate_is_numpy_interp(values, known, draw):
    known = sorted(known)
    new = draw.draw(st.lists(st.floats(-9, 9, width=32), min_size=len(known), max_size=len(known)))
    tensors = [torch.tensor(part, dtype=torch.float64) for part in (values, [k / 8 for k in known], new)]
    expected = np.interp(*[part.numpy() for part in tensors])
    np.testing.assert_allclose(distribution.interpolate(*tensors), expected, rtol=0, atol=1e-9)


def test_three_steps_match_histograms_and_correlation():
    smooth = tensor(photo("chelsea", 4))
    result = distribution.hm_mkl_hm(smooth, REFERENCE)(smooth)
    single = distribution.histogram_matching(smooth, REFERENCE)(smooth)
    cov = [torch.cov(image.flatten(2)[0]) for image in (result, single, REFERENCE)]
    assert (cov[0] - cov[2]).norm() < 0.7 * (cov[1] - cov[2]).norm()
    # the last step is histogram matching: each channel keeps the reference's distribution
    levels = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    found, wanted = (image.flatten(2)[0].quantile(levels, dim=1) for image in (result, REFERENCE))
    assert (found - wanted).abs().mean() < 2 / 255


# ---- curves


def test_a_curve_is_linear_between_nodes_and_has_slope_one_beyond():
    curve = distribution.Curve(torch.tensor([[0.0]]), torch.tensor([[2.0]]), torch.tensor([[1.0, 5.0, 6.0]]))
    found = curve(torch.tensor([[-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 4.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0, 3.0, 5.0, 5.5, 6.0, 8.0]]))


# ---- iterative distribution transfer


def test_the_projections_are_those_of_the_paper():
    first, *later = distribution.rotations(8, seed=3)
    third = 1 / 3
    expected = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1]] + [[2 * third] * 3 for _ in range(3)]).double()
    expected[3:] -= torch.eye(3)
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(6).double(), rtol=0, atol=1e-7)
    assert len(later) == 7
    for axes in later:
        torch.testing.assert_close(axes @ axes.mT, first @ first.mT, rtol=0, atol=1e-7)  # the first, turned
        assert (axes - first).abs().max() > 0.1


def test_each_iteration_of_idt_brings_the_clouds_closer():
    start = distance(SOURCE, REFERENCE)
    ways = [distance(distribution.idt(SOURCE, REFERENCE, iterations=n)(SOURCE), REFERENCE) for n in (1, 2, 4, 8, 16)]
    for before, after in zip([start, *ways], ways, strict=False):
        assert after < before + 1e-3
    assert ways[-1] < start / 20


def test_each_iteration_of_sliced_transport_brings_the_clouds_closer():
    start = distance(SOURCE, REFERENCE)
    ways = [
        distance(distribution.sliced_transport(SOURCE, REFERENCE, iterations=n)(SOURCE), REFERENCE)
        for n in (1, 2, 4, 8, 12)
    ]
    for before, after in zip([start, *ways], ways, strict=False):
        assert after < before + 1e-3
    assert ways[-1] < start / 20


def test_idt_is_the_composition_of_its_steps(monkeypatch):
    steps = distribution.rotations(3, seed=5)
    whole = distribution.idt(SOURCE, REFERENCE, iterations=3, seed=5)
    colors = torch.rand(1, 3, 100, dtype=torch.float64)  # any colors, not only those of the source
    expected, moving = colors, SOURCE
    for axes in steps:
        monkeypatch.setattr(distribution, "rotations", lambda count, seed, axes=axes: [axes])
        step = distribution.idt(moving, REFERENCE, iterations=1)
        expected, moving = step(expected), step(moving)
    torch.testing.assert_close(whole(colors), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(whole(SOURCE), moving, rtol=0, atol=1e-12)


def test_relaxation_shortens_the_step():
    full, half = (distribution.idt(SOURCE, REFERENCE, iterations=1, relaxation=r)(SOURCE) for r in (1.0, 0.5))
    torch.testing.assert_close(half - SOURCE, (full - SOURCE) / 2, rtol=0, atol=1e-12)


def test_no_iterations_are_refused():
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        distribution.idt(SOURCE, REFERENCE, iterations=0)


# ---- laws of all


@EACH_FIT
def test_the_map_is_a_function_of_color(fit):
    color_map = fit(SOURCE, REFERENCE)
    whole = color_map(SOURCE)
    order = torch.randperm(SOURCE[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled = SOURCE.flatten(2)[..., order]
    torch.testing.assert_close(color_map(shuffled), whole.flatten(2)[..., order])
    torch.testing.assert_close(color_map(SOURCE[..., 3:5, 4:6]), whole[..., 3:5, 4:6])
    new = torch.rand(1, 3, 500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.isfinite(color_map(new)).all() and color_map(new).shape == new.shape
    assert color_map(SOURCE.float()).dtype == torch.float32


@EACH_FIT
def test_a_picture_recolored_by_itself_stays(fit):
    result = fit(SOURCE, SOURCE)(SOURCE)
    assert (result - SOURCE).abs().mean() < 1 / 255
    assert (result - SOURCE).abs().max() < 4 / 255


@EACH_FIT
def test_fitting_twice_gives_the_same_map(fit):
    assert torch.equal(fit(SOURCE, REFERENCE)(SOURCE), fit(SOURCE, REFERENCE)(SOURCE))


@pytest.mark.parametrize("fit", [distribution.idt, distribution.sliced_transport])
def test_the_seed_changes_the_result(fit):
    first, second = (fit(SOURCE, REFERENCE, iterations=2, seed=seed)(SOURCE) for seed in (0, 1))
    assert 1e-4 < (first - second).abs().max() < 0.5


@EACH_FIT
def test_a_batch_is_a_loop(fit):
    sources, references = torch.cat([SOURCE, 1 - SOURCE]), torch.cat([REFERENCE, REFERENCE.flip(1)])
    loop = torch.cat([fit(s[None], r[None])(s[None]) for s, r in zip(sources, references, strict=True)])
    torch.testing.assert_close(fit(sources, references)(sources), loop, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fit", [FITS[name] for name in ("histogram_rgb", "histogram_lab", "hm_mkl_hm", "idt")])
def test_weights_equal_repeated_pixels(fit):
    few, other = SOURCE.flatten(2)[..., ::20], REFERENCE.flatten(2)[..., ::30]
    counts = torch.arange(few.shape[2]) % 3 + 1, torch.arange(other.shape[2]) % 4 + 1
    weighted = fit(few, other, weights=(counts[0][None].double(), counts[1][None].double()))
    plain = fit(few.repeat_interleave(counts[0], dim=2), other.repeat_interleave(counts[1], dim=2))
    torch.testing.assert_close(weighted(few), plain(few), rtol=0, atol=1e-6)


def test_weights_of_sliced_transport_count_pixels():
    few, other = SOURCE.flatten(2)[..., ::20], REFERENCE.flatten(2)[..., ::30]
    counts = torch.arange(few.shape[2]) % 3 + 1, torch.arange(other.shape[2]) % 4 + 1
    repeated = few.repeat_interleave(counts[0], dim=2), other.repeat_interleave(counts[1], dim=2)
    ones = tuple(torch.ones(1, cloud.shape[2]).double() for cloud in repeated)
    weighted = distribution.sliced_transport(few, other, weights=(counts[0][None].double(), counts[1][None].double()))
    plain = distribution.sliced_transport(*repeated, weights=ones)
    # drawn at even steps of the same cumulated share, so the draws agree but for ties
    torch.testing.assert_close(weighted(few), plain(few), rtol=0, atol=1e-3)


def test_sliced_transport_draws_from_a_large_picture():
    whole = distribution.sliced_transport(SOURCE, REFERENCE)(SOURCE)
    drawn = distribution.sliced_transport(SOURCE, REFERENCE, samples=1000)(SOURCE)
    assert 0 < (whole - drawn).abs().mean() < 4 / 255
    assert distance(drawn, REFERENCE) < distance(SOURCE, REFERENCE) / 5


@EACH_FIT
@pytest.mark.parametrize("flat", [0.0, 0.5, 1.0])
def test_flat_pictures(fit, flat):
    one_color = torch.full((1, 3, 2, 3), flat, dtype=torch.float64)
    assert torch.isfinite(fit(one_color, REFERENCE)(one_color)).all()
    result = fit(SOURCE, one_color)(SOURCE)
    assert torch.isfinite(result).all()
    assert (result - flat).abs().mean() < 0.01


@EACH_FIT
def test_wrong_pictures_are_named(fit):
    with pytest.raises(ValueError, match="source: holds NaN"):
        fit(SOURCE * torch.nan, REFERENCE)
    with pytest.raises(ValueError, match="reference: expected 3 color channels"):
        fit(SOURCE, REFERENCE[:, :2])
    with pytest.raises(ValueError, match="reference: the picture is empty"):
        fit(SOURCE, REFERENCE[..., :0])


# ---- regrain


def slopes(image):
    return image.diff(dim=3)[..., :-1, :], image.diff(dim=2)[..., :, :-1]


def test_regrain_of_the_source_itself_returns_it():
    picture = tensor(photo("astronaut", 4))
    torch.testing.assert_close(distribution.regrain(picture, picture), picture, rtol=0, atol=2 / 255)


def test_regrain_keeps_a_constant_shift():
    picture = 0.8 * tensor(photo("astronaut", 4))
    result = distribution.regrain(picture, picture + 0.2)
    torch.testing.assert_close(result, picture + 0.2, rtol=0, atol=2 / 255)


def test_regrain_brings_the_grain_of_the_source_back():
    picture = tensor(photo("coffee", 4))
    noise = 0.1 * torch.rand(picture.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noisy = (0.9 * picture + noise).clamp(0, 1)
    result = distribution.regrain(picture, noisy)
    for wanted, before, after in zip(slopes(picture), slopes(noisy), slopes(result), strict=True):
        assert (after - wanted).abs().mean() < 0.6 * (before - wanted).abs().mean()
    # colors still come from the transfer
    assert (result.mean((2, 3)) - noisy.mean((2, 3))).abs().max() < 0.02


def test_a_smoother_regrain_keeps_more_of_the_gradients():
    picture = tensor(photo("coffee", 4))
    noise = 0.1 * torch.rand(picture.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    faults = [
        (slopes(distribution.regrain(picture, 0.9 * picture + noise, smoothness=s))[0] - slopes(picture)[0])
        .abs()
        .mean()
        for s in (0.2, 1.0, 5.0)
    ]
    assert faults[0] > faults[1] > faults[2]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (41, 50), (43, 97)])
def test_regrain_takes_any_size(size):
    generator = torch.Generator().manual_seed(0)
    source, transferred = (torch.rand(2, 3, *size, generator=generator) for _ in range(2))
    result = distribution.regrain(source, transferred)
    assert result.shape == source.shape and torch.isfinite(result).all()
    single = torch.cat([distribution.regrain(s[None], t[None]) for s, t in zip(source, transferred, strict=True)])
    torch.testing.assert_close(result, single)


def test_regrain_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="source and transferred: shapes differ"):
        distribution.regrain(SOURCE, SOURCE[..., :-1])
    with pytest.raises(ValueError, match=r"transferred: expected sRGB in \[0, 1\]"):
        distribution.regrain(SOURCE, SOURCE + 1)
    with pytest.raises(ValueError, match="source: holds NaN"):
        distribution.regrain(SOURCE * torch.nan, SOURCE)


def test_regrain_as_published_changes_a_transfer_that_changes_nothing():
    source = photos.tensor("astronaut", 128)
    mended, published = (distribution.regrain(source, source, as_published=way) for way in (False, True))
    assert (mended - source).abs().max() < 1e-5 < 0.05 < (published - source).abs().max()
