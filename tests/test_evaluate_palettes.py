"""Cases for palette methods, worked out on pictures whose palettes are known."""

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from ctlib import color, evaluate_palettes, images
from ctlib.classical.extraction import from_hex
from ctlib.data import photos
from ctlib.evaluate_palettes import (
    COLUMNS,
    areas,
    cases,
    judge,
    lightness_kept,
    measure,
    response,
    stripes,
    summary,
    turn,
)
from ctlib.models.palettenet import PaletteNet

BLOCKS = ["#402010", "#806040", "#c0a080"]


def blocks(*shares: int) -> np.ndarray:
    """Three colors in columns, so many columns each."""
    rgb = [list(bytes.fromhex(one[1:])) for one in BLOCKS]
    return np.repeat(np.array(rgb, np.uint8), shares, axis=0)[None].repeat(20, 0)


@pytest.fixture(scope="module")
def two():
    return {name: images.resize(photos.load(name), 64) for name in ("coffee", "flower")}


def test_areas_are_shares_of_the_pixels():
    palette, shares = areas(blocks(6, 12, 2), 3)
    assert torch.allclose(palette, from_hex(BLOCKS), atol=1e-6)
    assert shares.tolist() == pytest.approx([0.3, 0.6, 0.1])
    palette, shares = areas(blocks(6, 12, 2), 6)  # each color comes twice, and has half of its share
    assert palette.shape == (6, 3) and shares.tolist() == pytest.approx([0.15, 0.15, 0.3, 0.3, 0.05, 0.05])


def test_the_kinds_of_cases(two):
    found = cases(two, 4)
    assert [(case.name, case.kind) for case in found] == [(n, k) for n in two for k in ("hue", "other", "report")]
    assert torch.equal(found[1].palette, areas(two["flower"], 4)[0]) and torch.equal(
        found[4].palette, areas(two["coffee"], 4)[0]
    )
    assert (
        torch.equal(found[2].palette, from_hex(evaluate_palettes.REPORT)) and found[2].truth is found[1].truth is None
    )
    six = cases(two, 6)[2].palette
    assert six.shape == (6, 3) and len(set(map(tuple, six.tolist()))) == 4
    hue = found[0]
    light = [color.rgb_to_lab(picture.double())[:, 0] for picture in (hue.source, hue.truth)]
    assert (light[0] - light[1]).abs().median() < 0.3 and (hue.source - hue.truth).abs().mean() > 0.05
    with pytest.raises(ValueError, match="two are needed"):
        cases({"coffee": two["coffee"]})


def test_turning_back_is_where_it_began():
    source = images.to_tensor(blocks(5, 5, 5))
    palette = from_hex(BLOCKS)
    there, wanted = turn(source, palette, 0.25)
    assert torch.allclose(wanted[:, 0], palette[:, 0], atol=0.5)
    found = areas(images.to_uint8(there), 3)[0]
    assert (found - wanted).norm(dim=1).max() < 4  # the palette is that of the turned picture
    back, again = turn(there, wanted, 0.75)
    assert (back - source).abs().max() < 0.03 and (again - palette).norm(dim=1).max() < 4


def test_what_is_measured(two):
    case = cases(two, 4)[0]
    own = measure(case.truth, case)
    nothing = measure(case.source, case)
    assert tuple(own) == COLUMNS == tuple(nothing)
    assert own["ab_rmse"] == 0 < nothing["ab_rmse"] and own["palette_distance"] < nothing["palette_distance"]
    assert nothing["ssim_l"] == nothing["ssim_gray"] == nothing["gradient_correlation"] == pytest.approx(1)
    block = evaluate_palettes.Case("", "other", images.to_tensor(blocks(6, 12, 2)), *[from_hex(BLOCKS)] * 2, None, None)
    found = measure(block.source, block)
    assert found["palette_distance"] < 1e-3 and "ab_rmse" not in found and found["palette_emd"] > 1  # areas differ
    same = block._replace(shares=torch.tensor([0.3, 0.6, 0.1]))
    assert measure(block.source, same)["palette_emd"] < 1e-3


def test_judging_by_name_and_the_summary(two):
    given = cases(two, 4)
    recolors = {name: evaluate_palettes.recolor_by(name) for name in ("identity", "reinhard_lab", "chang")}
    rows = judge({"oracle": None} | recolors, given)
    assert len(rows) == 2 * (4 + 3 + 3)
    table = {row["method"]: row for row in summary(rows, "hue")}
    assert list(table) == ["oracle", "identity", "reinhard_lab", "chang"] and "ab_rmse" in table["chang"]
    assert table["chang"]["palette_distance"] < table["identity"]["palette_distance"]
    assert "ab_rmse" not in summary(rows, "report")[0]
    mean = sum(row["ssim_l"] for row in rows if row["method"] == "chang" and row["kind"] == "report") / 2
    assert summary(rows, "report")[-1]["ssim_l"] == pytest.approx(mean)
    with pytest.raises(ValueError, match="no rows of kind 'none'"):
        summary(rows, "none")


@pytest.mark.parametrize("name", ["chang", "chang_demo", "chang_bz"])
def test_who_recolors_from_palette_to_palette_is_given_both(two, name):
    for case in cases(two, 6):
        same = evaluate_palettes.recolor_by(name)(case.source, case.own, case.own)
        assert torch.equal(same, case.source)  # what it would have extracted itself is not asked
    assert not torch.equal(evaluate_palettes.recolor_by(name)(case.source, case.palette, case.own), case.source)


def test_a_picture_of_few_colors_is_a_case_like_any_other(two):
    pictures = {"three colors": blocks(6, 12, 2), "one gray": np.full((20, 20, 3), 128, np.uint8)}
    recolors = {name: evaluate_palettes.recolor_by(name) for name in ("chang", "chang_demo", "chang_bz", "palettenet")}
    rows = judge(recolors, cases(pictures, 6))
    assert len(rows) == 2 * 3 * 4
    assert all(
        np.isfinite(row["palette_distance"]) and np.isfinite(row["palette_emd"]) for row in rows if "kind" in row
    )
    table = {row["method"]: row for row in summary([row for row in rows if row["case"] == "three colors"], "hue")}
    assert table["chang"]["ab_rmse"] < 5


def test_stripes_show_the_palette():
    picture = stripes(from_hex(BLOCKS))
    assert picture.shape == (1, 3, 16, 48) and picture.dtype == torch.float32
    assert torch.allclose(areas(images.to_uint8(picture), 3)[0], from_hex(BLOCKS), atol=1e-6)


def test_the_response():
    source, palette = images.to_tensor(blocks(5, 5, 5)), from_hex(BLOCKS)
    turned = iter(turn(source, palette, shift)[0] for shift in (1 / 3, 2 / 3))
    right = response(lambda picture, wish, own: next(turned), source, palette)
    assert right["response"] == pytest.approx(1) and right["ab_rmse"] == pytest.approx(0, abs=1e-4)
    deaf = response(lambda picture, wish, own: picture, source, palette)
    assert deaf["response"] == pytest.approx(0, abs=1e-6) and deaf["ab_rmse"] > 5
    with pytest.raises(ValueError, match=r"source: a gray picture looks the same in all hues.*give one in color"):
        response(lambda picture, wish, own: picture, torch.full((1, 3, 8, 8), 0.5), palette)


@pytest.mark.filterwarnings("ignore:.*negative Z")
def test_lightness_is_kept_where_a_screen_can_show_the_color():
    torch.manual_seed(0)
    network = PaletteNet(3, "film", "tiny").eval()
    source = images.to_tensor(images.resize(photos.load("coffee"), 64))[:, :, :32, :64]
    found = lightness_kept(network, source, from_hex(BLOCKS))
    assert 0 < found["change"] < 0.5 and 0 < found["outside"] < 1
    asked = network.transfer(color.rgb_to_lab(source), from_hex(BLOCKS).T[None].float())
    peer = rgb2lab(lab2rgb(asked[0].detach().permute(1, 2, 0).double().numpy()))[..., 0]  # its L* after clipping
    moved = np.abs(peer - color.rgb_to_lab(source.double())[0, 0].numpy()) > 0.1
    assert moved.mean() <= found["outside"] + 1e-9
