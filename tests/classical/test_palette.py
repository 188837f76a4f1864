"""Chang et al. 2015: the golden numbers, the paper's design goals as laws, and pictures at their limits."""

import numpy as np
import pytest
import torch

from ctlib import color
from ctlib.classical import palette as chang

GENERATOR = torch.Generator().manual_seed(0)
# the palette of the golden values
LAB = torch.tensor(
    [[20, 10, -30], [45, 40, 20], [60, -30, 30], [75, 5, 60], [90, 0, 5]], dtype=torch.float64
)  # fmt: skip
VARIANTS = pytest.mark.parametrize("variant", list(chang.VARIANTS))


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def point(*lab: float) -> torch.Tensor:
    return vector(*lab)[None, :, None]


def random_rgb(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=GENERATOR)


def edit(index: int, *change: float) -> torch.Tensor:
    new = LAB.clone()
    new[index] += vector(*change)
    return new


def picture(height: int = 40, width: int = 50) -> np.ndarray:
    """Five flat colors with noise, in unequal shares."""
    rng = np.random.default_rng(0)
    base = np.array([[25, 30, 60], [180, 60, 50], [70, 140, 60], [220, 190, 90], [240, 240, 230]])
    chosen = rng.choice(5, size=(height, width), p=[0.4, 0.25, 0.15, 0.12, 0.08])
    return (base[chosen] + rng.normal(0, 5, (height, width, 3))).clip(0, 255).astype(np.uint8)


def as_rgb(image: np.ndarray, dtype=torch.float64) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].to(dtype) / 255


# golden values


def test_order_of_lightness():
    assert chang.order_luminance([20, 80, 60, 75, 90], 1).tolist() == [20, 80, 80, 80, 90]
    assert chang.order_luminance([20, 45, 60, 30, 90], 3).tolist() == [20, 30, 30, 30, 90]


def test_curve_of_lightness():
    curve = chang.luminance_curve([20, 45, 60, 75, 90], [20, 80, 80, 80, 90])
    torch.testing.assert_close(curve(vector(10, 32.5, 95, 0, 100)), vector(10, 50, 95, 0, 100))
    doubled = chang.luminance_curve([20, 45, 45, 60, 75, 90], [20, 80, 80, 80, 80, 90])
    grid = torch.linspace(0, 100, 101, dtype=torch.float64)
    torch.testing.assert_close(doubled(grid), curve(grid))
    assert (curve(grid).diff() >= 0).all()


def test_weights():
    raw = chang.rbf_weights(point(50, 0, 0), LAB, variant="bz")[0, :, 0]  # bz takes the paper's kernel without clamp
    torch.testing.assert_close(raw, vector(0.349243, 0.269015, 0.396576, -0.168469, 0.296244), atol=1e-6, rtol=0)
    clamped = chang.rbf_weights(point(50, 0, 0), LAB)[0, :, 0]
    torch.testing.assert_close(clamped, vector(0.266379, 0.205186, 0.302481, 0, 0.225954), atol=1e-6, rtol=0)
    raw = chang.rbf_weights(point(10, 60, 60), LAB, variant="bz")[0, :, 0]
    torch.testing.assert_close(raw, vector(-0.170747, 1.015097, 0.075066, 0.096458, -0.463068), atol=1e-6, rtol=0)
    clamped = chang.rbf_weights(point(10, 60, 60), LAB)[0, :, 0]
    torch.testing.assert_close(clamped, vector(0, 0.855452, 0.063260, 0.081288, 0), atol=1e-6, rtol=0)


# laws


@VARIANTS
def test_weights_are_one_hot_at_the_palette(variant):
    weights = chang.rbf_weights(LAB.T[None], LAB, variant=variant)[0]
    torch.testing.assert_close(weights, torch.eye(5, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("variant", ["paper", "demo"])
def test_weights_are_shares_even_far_from_a_tight_palette(variant):
    tight = LAB[:1] + 0.01 * torch.randn(4, 3, dtype=torch.float64, generator=GENERATOR)
    for colors in (LAB, tight, LAB[:1]):
        weights = chang.rbf_weights(color.rgb_to_lab(random_rgb(1, 3, 300)), colors, variant=variant)
        assert weights.min() >= 0
        torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))


@pytest.mark.parametrize("variant", ["paper", "demo"])
@pytest.mark.parametrize("change", [(0, -35, 0), (0, 20, 15), (15, -20, 10), (-10, 5, 30)])
@pytest.mark.parametrize("index", [1, 2, 3])
def test_palette_colors_land_on_their_new_colors(variant, change, index):
    change = vector(*change)
    room = color.gamut_boundary(LAB[None, index], change[None]) - LAB[index]
    new = edit(index, *(change * min(1, 0.9 * room.norm() / change.norm())))
    after = chang.transfer(LAB, new, variant=variant, nodes=None)(color.lab_to_rgb(LAB.T[None]))
    expected = new.clone()
    expected[:, 0] = chang.order_luminance(new[:, 0], index, LAB[:, 0], variant=variant)
    others = torch.arange(5) != index
    torch.testing.assert_close(color.rgb_to_lab(after)[0].T[index], new[index], atol=2e-3, rtol=0)
    torch.testing.assert_close(color.rgb_to_lab(after)[0].T[others, 0], expected[others, 0], atol=2e-3, rtol=0)


def test_a_whole_new_palette_is_reached():
    new = chang.palette_from_rgb([[0.2, 0.05, 0.1], [0.2, 0.4, 0.5], [0.6, 0.5, 0.9], [0.6, 0.9, 0.7], [1, 0.9, 0.95]])
    assert (new[:, 0].diff() > 0).all()
    for variant in ("paper", "demo"):
        after = chang.transfer(LAB, new, variant=variant, nodes=None)(color.lab_to_rgb(LAB.T[None]))
        torch.testing.assert_close(color.rgb_to_lab(after)[0].T, new, atol=2e-3, rtol=0)


@VARIANTS
@pytest.mark.parametrize("change", [(0, -60, 20), (0, 30, 60), (0, 3, -80), (0, 0.4, 0.2)])
def test_a_single_transfer_stays_in_gamut(variant, change):
    spec = chang.VARIANTS[variant]
    inside = random_rgb(1, 3, 3000)
    lab = color.rgb_to_lab(inside)
    new = LAB[1] + vector(*change)
    moved = chang.single_transfer(lab, LAB[1], new, variant=variant)
    if vector(*change).abs().max() <= spec.small:  # the demo merely shifts
        torch.testing.assert_close(moved, lab + vector(*change)[:, None])
        return
    slack = spec.tolerance + 1e-3
    outside = ~color.in_gamut(moved, slack)[0]
    assert outside.double().mean() < 0.02
    # those few lie in a dent of the solid, which is not quite star-shaped: farther on, the path is in gamut again
    path = torch.linspace(1, 60, 3000, dtype=torch.float64)
    ahead = lab[..., outside, None] + (moved - lab)[..., outside, None] * path
    assert color.in_gamut(ahead, slack)[0].any(dim=1).all()
    if spec.curve:
        torch.testing.assert_close(moved[:, 0], lab[:, 0])


@VARIANTS
def test_no_change_is_the_identity(variant):
    lab = color.rgb_to_lab(random_rgb(2, 3, 5, 4))
    torch.testing.assert_close(chang.single_transfer(lab, LAB[2], LAB[2], variant=variant), lab)
    rgb = random_rgb(2, 3, 5, 4)
    assert torch.equal(chang.transfer(LAB, LAB.clone(), variant=variant)(rgb), rgb)


def test_small_steps_of_the_picture_and_of_the_palette_make_small_steps():
    rgb = random_rgb(1, 3, 500) * 0.9 + 0.05
    before = chang.transfer(LAB, edit(1, 0, -40, 10), nodes=None)(rgb)
    assert (chang.transfer(LAB, edit(1, 0, -40.01, 10), nodes=None)(rgb) - before).abs().max() < 5e-3
    assert (chang.transfer(LAB, edit(1, 0, -40, 10), nodes=None)(rgb + 1e-5) - before).abs().max() < 5e-3


@VARIANTS
def test_order_of_the_palette_and_batches_do_not_matter(variant):
    rgb, shuffled = random_rgb(2, 3, 4, 6), torch.tensor([3, 0, 4, 2, 1])
    new = edit(1, 10, -30, 10)
    out = chang.transfer(LAB, new, variant=variant, nodes=None)(rgb)
    torch.testing.assert_close(chang.transfer(LAB[shuffled], new[shuffled], variant=variant, nodes=None)(rgb), out)
    alone = chang.transfer(LAB, new, variant=variant, nodes=None)(rgb[1:])
    torch.testing.assert_close(alone, out[1:])
    assert chang.transfer(LAB, new, variant=variant)(rgb.float()).dtype == torch.float32


def test_lightness_order_of_several_edits():
    ordered = chang.order_luminance([90, 80, 60, 40, 10], [0, 1, 2, 3, 4])
    torch.testing.assert_close(ordered, torch.full((5,), 56.0, dtype=torch.float64))
    assert chang.order_luminance([20, 70, 60, 50, 90], [1, 3]).tolist() == [20, 60, 60, 60, 90]
    assert chang.order_luminance([20, 80, 60, 75, 90], 1, variant="bz").tolist() == [20, 80, 60, 75, 90]


def test_the_demo_makes_way_smoothly():
    start = vector(20, 45, 60, 75, 90)
    moved = chang.order_luminance([20, 80, 60, 75, 90], 1, start, variant="demo")
    rate = 0.2 * np.log(2)
    expected = [start[j] + np.log(np.exp(rate * (start[j] - 45)) + np.exp(rate * 35) - 1) / rate - (start[j] - 45)
                for j in (2, 3)]  # fmt: skip
    torch.testing.assert_close(moved[2:4], torch.stack(expected))
    assert moved[0] == 20 and (moved.diff() >= 0).all()
    with pytest.raises(ValueError, match="original"):
        chang.order_luminance([20, 80, 60, 75, 90], 1, variant="demo")


def test_bz_leaves_unedited_colors_out_of_the_sum():
    out = chang.transfer(LAB, edit(1, 0, -30, 0), variant="bz")(color.lab_to_rgb(LAB.T[None]))
    lightness = color.rgb_to_lab(out)[0, 0]
    torch.testing.assert_close(lightness[1], LAB[1, 0], atol=1e-3, rtol=0)
    assert (lightness[[2, 3, 4]] < LAB[[2, 3, 4], 0] - 1).all()  # far from the edited color the picture darkens


# duplicates


@VARIANTS
def test_duplicate_colors_share_their_weight(variant):
    doubled = torch.cat([LAB, LAB[1:2]])
    weights = chang.rbf_weights(LAB.T[None], doubled, variant=variant)[0]
    assert torch.isfinite(weights).all()
    torch.testing.assert_close(weights[1] + weights[5], torch.eye(5, dtype=torch.float64)[1], atol=1e-6, rtol=0)
    out = chang.transfer(doubled, doubled + vector(0, 5, 5), variant=variant)(random_rgb(1, 3, 8, 8))
    assert torch.isfinite(out).all()


def test_doubling_a_color_changes_nothing():
    rgb, new = random_rgb(1, 3, 200), edit(1, 5, -30, 0)
    once = chang.transfer(LAB, new, nodes=None)(rgb)
    twice = chang.transfer(torch.cat([LAB, LAB[1:2]]), torch.cat([new, new[1:2]]), nodes=None)(rgb)
    assert torch.isfinite(twice).all()
    landed = chang.transfer(torch.cat([LAB, LAB[1:2]]), torch.cat([new, new[1:2]]), nodes=None)
    after = color.rgb_to_lab(landed(color.lab_to_rgb(LAB.T[None])))[0].T[1]
    torch.testing.assert_close(after, new[1], atol=2e-3, rtol=0)
    assert (once - twice).abs().mean() < 0.05  # only the mean distance, so the width of the kernel, differs


# extraction


@VARIANTS
@pytest.mark.parametrize("k", range(1, 13))
def test_every_size_of_palette(variant, k):
    image = picture()
    colors, shares = chang.extract(as_rgb(image), k, variant=variant, return_shares=True)
    assert colors.shape == (k + (variant == "bz"), 3) and colors.dtype == torch.float64
    assert (colors[:, 0].diff() >= 0).all()
    torch.testing.assert_close(shares.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert torch.equal(colors, chang.extract(as_rgb(image), k, variant=variant))  # deterministic


def test_the_palette_finds_the_colors_of_the_picture():
    expected = chang.palette_from_rgb(
        torch.tensor([[25, 30, 60], [180, 60, 50], [70, 140, 60], [220, 190, 90], [240, 240, 230]]) / 255.0
    )
    expected = expected[expected[:, 0].argsort()]
    for variant in ("paper", "demo", "bz"):
        colors = chang.extract(as_rgb(picture()), 5, variant=variant)
        distance = torch.cdist(expected, colors).amin(1)
        assert distance.max() < 6, f"{variant}: {distance.tolist()}"


@VARIANTS
def test_distinct_colors_with_counts_give_the_palette_of_the_picture(variant):
    image = picture()
    whole = chang.extract(as_rgb(image), 5, variant=variant)
    torch.testing.assert_close(chang.extract_uint8(image, 5, variant), whole)
    torch.testing.assert_close(
        chang.extract(as_rgb(image, torch.float32), 5, variant=variant), whole, atol=1e-3, rtol=0
    )
    mirrored = np.ascontiguousarray(image[::-1, ::-1])
    torch.testing.assert_close(chang.extract_uint8(mirrored, 5, variant), whole)


@VARIANTS
def test_a_large_picture_has_the_palette_of_its_pixels_to_the_last_digits(variant):
    """Counted in tables and summed in pieces, the bins keep the mean of their pixels: 1e-9 is far below 0.01 Lab."""
    image = picture(1100, 1000)
    image[:300, :300] = np.random.default_rng(1).integers(0, 256, (300, 300, 3))
    fast = chang.extract_uint8(image, 5, variant)
    torch.testing.assert_close(fast, chang.extract(as_rgb(image), 5, variant=variant), atol=1e-9, rtol=0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if before == 1 else 1)
        assert torch.equal(chang.extract_uint8(image, 5, variant), fast)
    finally:
        torch.set_num_threads(before)


def test_bins_of_the_variants():
    gray = torch.arange(256, dtype=torch.float32).expand(1, 3, 256) / 255
    _, counts = chang.bin_colors(gray)
    assert counts.tolist() == [16.0] * 16  # floor(v / 16)
    _, counts = chang.bin_colors(gray, variant="demo")
    assert counts.tolist() == [9.0] + [17.0] * 14 + [9.0]  # round(v / 17)
    colors, _ = chang.bin_colors(gray[..., 16:17], variant="bz")
    torch.testing.assert_close(colors, chang.palette_from_rgb(torch.full((1, 3), 24 / 255)))  # the center of 16..31


def test_black_draws_the_shadows():
    image = np.full((10, 10, 3), 6, np.uint8)
    image[:4] = (200, 60, 60)
    colors = chang.extract_uint8(image, 2, "paper")
    torch.testing.assert_close(colors[1], chang.palette_from_rgb([[200 / 255, 60 / 255, 60 / 255]])[0])
    kept = chang.extract_uint8(image, 1, "bz")
    torch.testing.assert_close(kept[0], chang.palette_from_rgb([[8 / 255] * 3])[0])


@VARIANTS
@pytest.mark.parametrize("level", [0, 1, 128, 255])
@pytest.mark.parametrize("side", [1, 6])
def test_constant_pictures(variant, level, side):
    image = np.full((side, side, 3), level, np.uint8)
    colors = chang.extract_uint8(image, 1, variant)
    if variant != "bz":
        torch.testing.assert_close(chang.to_rgb(colors)[0], torch.full((3,), level / 255, dtype=torch.float64))
    new = chang.from_hex(["#3366aa"] * len(colors))
    out = chang.transfer(colors, new, variant=variant)(as_rgb(image))
    assert torch.isfinite(out).all()
    with pytest.raises(ValueError, match="only 1 distinct"):
        chang.extract_uint8(image, 2, variant)


# bad input


def test_bad_pictures_and_sizes():
    rgb = as_rgb(picture(8, 8))
    for k in (0, 13, 2.5, "5"):
        with pytest.raises(ValueError, match="1 to 12"):
            chang.extract(rgb, k)
    for bad, says in [(rgb * 255, "divide by 255"), (rgb[:, :2], "3 color channels"), (rgb * np.nan, "NaN"),
                      (rgb[:, :, :0], "with pixels"), (rgb.repeat(2, 1, 1, 1), "one picture")]:  # fmt: skip
        with pytest.raises(ValueError, match=says):
            chang.extract(bad)
    for weights in (torch.ones(3), -torch.ones(64), torch.zeros(64)):
        with pytest.raises(ValueError, match="pixel counts"):
            chang.extract(rgb, weights=weights)
    with pytest.raises(ValueError, match="choose one of paper, demo, bz"):
        chang.extract(rgb, variant="chang")


def test_bad_palettes():
    for bad, says in [([], "empty"), (torch.zeros(0, 3), "empty"), (torch.zeros(3), "CIELAB"),
                      (LAB * np.nan, "CIELAB"), (LAB * 2, "lightness"), (["#12"], "six digits")]:  # fmt: skip
        with pytest.raises(ValueError, match=says):
            chang.transfer(bad, LAB)
    for nothing in (None, {"#aabbcc"}, [[50, 0, 0], [50, 0]], [[50, 0, 0], "#aabbcc"], np.array(["#aabbcc"])):
        with pytest.raises(
            ValueError, match=r"^palette: expected CIELAB colors \(k, 3\) or a list of hex colors .*got"
        ):
            chang.as_palette(nothing)
    with pytest.raises(ValueError, match=r"^hex color: expected six digits .* got \[50, 0, 0\]"):
        chang.as_palette(["#aabbcc", [50, 0, 0]])
    with pytest.raises(ValueError, match="has 4 colors, the palette 5"):
        chang.transfer(LAB, LAB[:4])
    with pytest.raises(ValueError, match="edited"):
        chang.order_luminance([20, 30], 2)


def test_hex_colors():
    names = ["#000000", "#aabbcc", "#ffffff"]
    assert chang.to_hex(chang.from_hex(names)) == names
    torch.testing.assert_close(chang.from_hex("AABBCC"), chang.from_hex(["#aabbcc"]))
    out = chang.transfer(names, ["#000000", "#ccbbaa", "#ffffff"], nodes=None)(chang.to_rgb(["#aabbcc"]).T[None])
    torch.testing.assert_close(out[0].T, chang.to_rgb(["#ccbbaa"]), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="divide by 255"):
        chang.palette_from_rgb([[170, 187, 204]])
