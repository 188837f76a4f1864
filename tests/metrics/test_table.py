"""Every metric of the table: laws, what is refused; then distributions, colorfulness and palettes by golden values."""

import math

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab

from ctlib import metrics
from ctlib.metrics import METRICS, evaluate

PAIRED = ["psnr", "psnr_lab_official", "psnr_missing_root", "ssim", "ssim_uniform", "ssim_gray", "ssim_l", "edge_ssim",
          "gradient_correlation", "ab_rmse", "cie76", "ciede2000", "ciede2000_p95"]  # fmt: skip
FREE = ["histogram_intersection", "hellinger", "hellinger_ab", "chi_square", "emd", "sliced_wasserstein"]
HIGHER = {"ssim", "ssim_uniform", "ssim_gray", "ssim_l", "edge_ssim", "gradient_correlation", "histogram_intersection"}


def batch(*pictures: np.ndarray) -> torch.Tensor:
    """uint8 pictures to `(B, 3, H, W)` float64."""
    return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).double() / 255


def test_golden_histogram_distances_of_one_channel(golden):
    first, second = (picture[:, :1].repeat(1, 3, 1, 1) for picture in golden)
    assert metrics.hellinger(first, second).item() == pytest.approx(0.674763, abs=1e-6)
    assert metrics.emd(first, second).item() == pytest.approx(0.950684, abs=1e-6)
    overlap = (metrics.histogram(first) * metrics.histogram(second)).sqrt().sum(2)
    assert overlap[0].tolist() == pytest.approx([0.544695] * 3, abs=1e-6)
    assert -math.log(overlap[0, 0]) == pytest.approx(0.607530, abs=2e-6)


def test_golden_colorfulness(golden):
    assert metrics.colorfulness(golden[0]).item() == pytest.approx(104.498804, abs=1e-6)
    assert metrics.colorfulness_abs(golden[0]).item() == pytest.approx(85.940890, abs=1e-6)
    red = np.zeros((4, 4, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    cyan = 255 - red
    halves = np.concatenate([red, cyan])
    gray = np.full_like(red, 90)
    assert metrics.colorfulness(batch(red, gray)).tolist() == pytest.approx([85.5296, 0], abs=1e-4)
    assert metrics.colorfulness_abs(batch(red, gray)).tolist() == pytest.approx([85.5296, 0], abs=1e-4)
    assert metrics.colorfulness(batch(halves)).item() == pytest.approx(285.0987, abs=1e-4)
    assert metrics.colorfulness_abs(batch(halves)).item() == pytest.approx(85.5296, abs=1e-4)


@pytest.mark.parametrize("name", PAIRED + FREE)
def test_laws(pair, name):
    function = getattr(metrics, name)
    first, second = pair
    value = function(first, second)
    assert value.dtype == torch.float64 and value.shape == (2,) and torch.isfinite(value).all()
    torch.testing.assert_close(function(second, first), value, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(function(first[1:], second[1:]), value[1:], rtol=1e-9, atol=1e-9)  # batches do not mix
    same = function(first, first)
    if name.startswith("psnr"):
        assert (same == math.inf).all() and (value > 0).all()
    elif name in HIGHER:
        torch.testing.assert_close(same, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-9)
        assert (value < 0.999).all() and (value >= -1).all()
    else:
        assert same.tolist() == [0, 0] and (value > 0).all()
    if name in {"hellinger", "hellinger_ab", "chi_square", "histogram_intersection"}:
        assert (value <= 1).all()


@pytest.mark.parametrize("name", [*PAIRED, *FREE, "colorfulness", "colorfulness_abs"])
def test_float32_is_as_good_and_no_gradient_is_kept(pair, name):
    function = getattr(metrics, name)
    inputs = pair[:1] if name.startswith("colorfulness") else pair
    value = function(*(image.float().requires_grad_() for image in inputs))
    assert not value.requires_grad
    # a float32 value may sit on the other side of a bin's border
    loose = 2e-2 if name in FREE else 1e-4
    torch.testing.assert_close(value, function(*inputs), rtol=loose, atol=loose)


@pytest.mark.parametrize("name", [*PAIRED, *FREE, "colorfulness", "colorfulness_abs", "lpips"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda image: image * 255, "divide by 255"),
        (lambda image: image * 2 - 1, r"\[0, 1\]"),
        (lambda image: torch.where(image > 0.5, torch.nan, image), "NaN"),
        (lambda image: image[0], r"\(B, 3, H, W\)|color channels"),
        (lambda image: (image * 255).to(torch.uint8), "float tensor"),
        (lambda image: image.movedim(1, -1), "color channels"),
        (lambda image: image.numpy(), "torch tensor"),
    ],
)
def test_bad_pictures_are_refused(pair, name, spoil, message):
    bad = spoil(pair[0])
    function = METRICS[name].function
    with pytest.raises(ValueError, match=message):
        function(bad) if METRICS[name].compares == "nothing" else function(bad, pair[1])


def test_two_shapes_are_refused(pair):
    for name in [*PAIRED, "lpips"]:
        with pytest.raises(ValueError, match="shapes differ"):
            getattr(metrics, name)(pair[0], pair[1][:, :, :-1])
    for name in FREE:
        with pytest.raises(ValueError, match="2 and 1 pictures"):
            getattr(metrics, name)(pair[0], pair[1][:1])


def test_pictures_of_one_pixel():
    dark, light = torch.full((1, 3, 1, 1), 0.25), torch.full((1, 3, 1, 1), 0.75)
    assert metrics.psnr(dark, light).item() == pytest.approx(20 * math.log10(2))
    assert metrics.ciede2000(dark, light).item() > 10
    assert metrics.histogram_intersection(dark, light).item() == 0 and metrics.hellinger(dark, light).item() == 1
    assert metrics.gradient_correlation(dark, light).item() == 1
    with pytest.raises(ValueError, match="11 x 11"):
        metrics.ssim(dark, light)
    with pytest.raises(ValueError, match="7 x 7"):
        metrics.ssim_uniform(dark, light)
    with pytest.raises(ValueError, match="32 x 32"):
        metrics.lpips(dark, light)


def test_joint_histograms_have_the_cells_of_histogram_analogy():
    colors = {(255, 0, 0): (57, 55), (0, 255, 0): (0, 60), (0, 0, 255): (57, 0), (255, 255, 255): (29, 34)}
    for color, (a, b) in colors.items():
        counts = metrics.histogram(batch(np.full((2, 2, 3), color, np.uint8)), "ab")
        assert counts.shape == (1, 1, 4096) and counts[0, 0, a * 64 + b] == 1
    assert metrics.histogram(torch.rand(2, 3, 5, 5), "lab").sum(2).flatten().tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="rgb, ab, lab"):
        metrics.histogram(torch.rand(1, 3, 5, 5), "hsv")


def test_distributions_do_not_see_places_or_sizes(pair):
    first, second = pair
    mirrored, doubled = first.flip(3), first.repeat(1, 1, 2, 1)
    for name in FREE:
        function = getattr(metrics, name)
        for other in (mirrored, doubled):
            torch.testing.assert_close(function(other, second), function(first, second), rtol=1e-6, atol=1e-9)
    assert metrics.sliced_wasserstein(doubled, first).tolist() == pytest.approx([0, 0], abs=1e-9)


def test_emd_counts_levels():
    gray = np.full((3, 3, 3), 100, np.uint8)
    assert metrics.emd(batch(gray), batch(gray + 7)).item() == pytest.approx(7)


def test_sliced_wasserstein_of_a_shift_is_known(pair):
    # of two flat pictures a direction sees the projected step; the mean square over directions is |step|^2 / 3
    gray = [torch.full((1, 3, 8, 8), level, dtype=torch.float64) for level in (0.3, 0.5)]
    step = rgb2lab(np.full((1, 1, 3), 0.5))[0, 0, 0] - rgb2lab(np.full((1, 1, 3), 0.3))[0, 0, 0]
    value = metrics.sliced_wasserstein(*gray, directions=20_000).item()
    assert value == pytest.approx(step / math.sqrt(3), rel=0.02)
    assert torch.equal(metrics.sliced_wasserstein(*pair), metrics.sliced_wasserstein(*pair))
    sampled = metrics.sliced_wasserstein(*pair, pixels=800)
    torch.testing.assert_close(sampled, metrics.sliced_wasserstein(*pair), rtol=0.15, atol=0.5)
    with pytest.raises(ValueError, match="at least 1"):
        metrics.sliced_wasserstein(*pair, directions=0)


def test_palette_distances():
    palette = torch.tensor([[20.0, 0, 0], [50, 40, 10], [80, -20, 30]])
    shuffled = palette[[2, 0, 1]]
    assert metrics.palette_distance(palette, shuffled).item() == 0
    # matching in the given order pays twice; the best match keeps the common color
    line, moved = torch.tensor([[50.0, 0, 0], [60, 0, 0]]), torch.tensor([[60.0, 0, 0], [70, 0, 0]])
    expected = deltaE_ciede2000(np.array(line), np.array(moved)).mean()
    assert metrics.palette_distance(line, moved).item() <= expected
    assert metrics.palette_distance(line, moved[[1, 0]]) == metrics.palette_distance(line, moved)
    weights = torch.tensor([0.5, 0.3, 0.2])
    assert metrics.palette_emd(palette, weights, shuffled, weights[[2, 0, 1]]).item() == pytest.approx(0, abs=1e-9)
    assert metrics.palette_emd(palette, None, palette + torch.tensor([3.0, 4, 0]), None).item() == pytest.approx(5)
    black, white = torch.tensor([[0.0, 0, 0]]), torch.tensor([[0.0, 0, 0], [100, 0, 0]])
    assert metrics.palette_emd(black, None, white, torch.tensor([3, 1])).item() == pytest.approx(25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.palette_distance(torch.zeros(0, 3), torch.zeros(0, 3)), "empty"),
        (lambda: metrics.palette_distance(torch.zeros(2, 3), torch.zeros(3, 3)), "2 and 3 colors"),
        (lambda: metrics.palette_distance(torch.zeros(2, 4), torch.zeros(2, 4)), r"\(k, 3\)"),
        (lambda: metrics.palette_distance(torch.full((1, 3), torch.nan), torch.zeros(1, 3)), "NaN"),
        (lambda: metrics.palette_emd(torch.zeros(2, 3), torch.ones(3), torch.zeros(1, 3), None), "one weight for each"),
        (lambda: metrics.palette_emd(torch.zeros(2, 3), torch.zeros(2), torch.zeros(1, 3), None), "not all zero"),
    ],
)
def test_bad_palettes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_table_is_complete():
    assert {metric.name for metric in METRICS.values()} == set(METRICS)
    assert set(PAIRED + FREE) <= set(METRICS)
    for metric in METRICS.values():
        assert metric.better in {"higher", "lower", "neither"} and metric.says
        assert metric.compares in {"truth", "source", "reference", "nothing", "palette"}
    better = {name: METRICS[name].better for name in PAIRED + FREE}
    assert better == {n: "higher" if n in HIGHER or n.startswith("psnr") else "lower" for n in PAIRED + FREE}


def test_evaluate_computes_what_the_pictures_allow(pair):
    result, truth = pair
    wanted = ["psnr", "ssim_source", "emd", "colorfulness"]
    row = evaluate(result, source=truth, reference=truth[:, :, :-5], truth=truth, metrics=wanted)
    assert list(row) == wanted
    assert row["psnr"] == pytest.approx(metrics.psnr(result, truth).mean().item())
    assert row["emd"] == pytest.approx(metrics.emd(result, truth[:, :, :-5]).mean().item())
    assert list(evaluate(result, metrics=wanted)) == ["colorfulness"]
    everything = evaluate(result, source=truth, reference=truth)
    assert set(everything) == {name for name, m in METRICS.items() if m.compares in {"source", "reference", "nothing"}}
    with pytest.raises(ValueError, match="'niqe' is unknown; choose from psnr"):
        evaluate(result, metrics=["niqe"])
    with pytest.raises(ValueError, match="compares palettes"):
        evaluate(result, metrics=["palette_emd"])
