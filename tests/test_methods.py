"""Every method behind its one call: on pictures that try to break it, on real ones, against other people's numbers."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage import color as peer
from skimage import data
from skimage.metrics import structural_similarity

from ctlib import images, methods, paths
from ctlib.classical import palette as palettes
from ctlib.classical.statistics import in_pieces
from ctlib.color import rgb_to_lab
from ctlib.data.palettes import palette_of
from ctlib.distinct import distinct, repaint
from ctlib.methods import METHODS

EVERY = pytest.mark.parametrize("name", METHODS)
GLOBAL = [name for name, method in METHODS.items() if method.fit and method.finish is None]
LEARNED = [name for name, method in METHODS.items() if method.family == "learned"]
PALETTENETS = [name for name, method in METHODS.items() if method.colors]
#: what these do depends on draws or on bins that a rounding error can tip; the others are exact
ROUGH = {"swatch", "swatch_seed", "idt", "idt_regrain", "sliced_ot"}


def tensor(image, dtype=torch.float64):
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(dtype) / 255


def photo(name, step=8):
    return getattr(data, name)()[::step, ::step].copy()


def flat(level, *size):
    return torch.full((1, 3, *size), level)


SOURCE, REFERENCE = photo("astronaut"), photo("coffee")
GENERATOR = torch.Generator().manual_seed(0)
CORNERS = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).T[None]
PICTURES = {
    "black": flat(0.0, 5, 4),
    "gray": flat(0.5, 3, 3),
    "white": flat(1.0, 2, 6),
    "one pixel": torch.tensor([0.2, 0.9, 0.4]).reshape(1, 3, 1, 1),
    "one row": torch.rand(1, 3, 1, 9, generator=GENERATOR),
    "one column": torch.rand(1, 3, 7, 1, generator=GENERATOR),
    "two colors": torch.stack([flat(0.1, 4, 4), flat(0.9, 4, 4)], dim=-1).flatten(3),
    "primaries": CORNERS.reshape(1, 3, 2, 4),
    "red": torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4),
    "gray ramp": torch.linspace(0, 1, 30).reshape(1, 1, 5, 6).expand(1, 3, 5, 6),
    "noise": torch.rand(1, 3, 12, 10, generator=GENERATOR),
    "nearly flat": 0.5 + 1e-7 * torch.randn(1, 3, 6, 6, generator=GENERATOR),
}


def is_picture(result, like):
    assert result.shape == like.shape and result.dtype == like.dtype
    assert torch.isfinite(result).all() and result.min() >= 0 and result.max() <= 1


# ---- properties of every method


@EVERY
@pytest.mark.parametrize("kind", PICTURES)
def test_any_source_gives_a_picture(name, kind):
    for reference in (PICTURES["noise"], PICTURES["primaries"], PICTURES["black"]):
        is_picture(methods.recolor(name, PICTURES[kind], reference), PICTURES[kind])


@EVERY
@pytest.mark.parametrize("kind", PICTURES)
def test_any_reference_gives_a_picture(name, kind):
    is_picture(
        methods.recolor(name, tensor(SOURCE[::4, ::4], torch.float32), PICTURES[kind]), tensor(SOURCE[::4, ::4]).float()
    )


SIZES = st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3))
LEVELS = st.one_of(st.sampled_from([0, 1, 127, 128, 254, 255]), st.integers(0, 255))
SMALL = arrays(np.uint8, SIZES, elements=LEVELS)


@given(st.sampled_from(sorted(METHODS)), SMALL, SMALL)
@settings(deadline=None, max_examples=80)
def test_8_bit_pictures_of_any_size_and_content(name, source, reference):
    result = methods.recolor_uint8(name, source, reference)
    assert result.dtype == np.uint8 and result.shape == source.shape
    is_picture(methods.recolor(name, tensor(source), tensor(reference)), tensor(source))


@EVERY
def test_the_mean_color_comes_near_the_reference(name):
    source, reference = tensor(SOURCE), tensor(REFERENCE)
    result = methods.recolor(name, source, reference)
    before, after = ((image.mean((2, 3)) - reference.mean((2, 3))).abs().mean() for image in (source, result))
    if name == "identity":
        assert torch.equal(result, source)
    elif name in ("swatch_seed", "analogy_tile", *PALETTENETS):  # stretches; hardly listens; keep every lightness
        assert (result - source).abs().mean() > 0.01
    else:
        slow = METHODS[name].family in ("palette", "learned") or name == "swatch"
        assert after < (before if slow else 0.5 * before)


@EVERY
def test_both_precisions_agree(name):
    double = methods.recolor(name, tensor(SOURCE), tensor(REFERENCE))
    single = methods.recolor(name, tensor(SOURCE, torch.float32), tensor(REFERENCE, torch.float32))
    difference = (double - single.double()).abs()
    assert difference.mean() < (4 / 255 if name in ROUGH else 1e-3)


@EVERY
def test_8_bits_equal_floats_within_a_level(name):
    result = methods.recolor_uint8(name, SOURCE, REFERENCE).astype(float)
    floats = methods.recolor(name, tensor(SOURCE), tensor(REFERENCE))[0].permute(1, 2, 0).numpy() * 255
    difference = np.abs(result - floats)
    if name in ROUGH:
        assert difference.mean() < 6
    else:
        assert difference.max() <= 1


@EVERY
def test_the_inputs_are_left_alone(name):
    source, reference = SOURCE[::4, ::4].copy(), REFERENCE[::4, ::4].copy()
    tensors = tensor(source), tensor(reference)
    methods.recolor_uint8(name, source, reference)
    methods.recolor(name, *tensors)
    np.testing.assert_array_equal(source, SOURCE[::4, ::4])
    np.testing.assert_array_equal(reference, REFERENCE[::4, ::4])
    assert torch.equal(tensors[0], tensor(SOURCE[::4, ::4])) and torch.equal(tensors[1], tensor(REFERENCE[::4, ::4]))


@EVERY
def test_the_same_call_gives_the_same_picture(name):
    first, second = (methods.recolor_uint8(name, SOURCE, REFERENCE) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", GLOBAL)
def test_a_global_method_is_a_function_of_color(name):
    color_map = methods.fit(name, tensor(SOURCE), tensor(REFERENCE))
    colors = torch.rand(1, 3, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    assert torch.isfinite(color_map(colors)).all()
    torch.testing.assert_close(color_map(colors[..., order]), color_map(colors)[..., order])
    torch.testing.assert_close(color_map(colors.reshape(1, 3, 20, 15)), color_map(colors).reshape(1, 3, 20, 15))
    torch.testing.assert_close(in_pieces(color_map, colors, size=7), color_map(colors))


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.family != "palette"])
def test_a_batch_is_a_loop(name):
    sources = torch.cat([tensor(SOURCE[::2, ::2]), tensor(255 - SOURCE[::2, ::2])])
    references = torch.cat([tensor(REFERENCE[::2, ::2]), tensor(REFERENCE[::2, ::2, ::-1])])
    loop = [methods.recolor(name, s[None], r[None]) for s, r in zip(sources, references, strict=True)]
    found = methods.recolor(name, sources, references)
    assert (found - torch.cat(loop)).abs().mean() < (2 / 255 if name in ROUGH else 1e-4 if name in LEARNED else 1e-6)


# ---- wrong input


@EVERY
@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (flat(torch.nan, 2, 2), "holds NaN or infinite values"),
        (flat(torch.inf, 2, 2), "holds NaN or infinite values"),
        (flat(1e6, 2, 2), r"expected sRGB in \[0, 1\]"),
        (flat(-1.0, 2, 2), r"expected sRGB in \[0, 1\]"),
        (flat(0.5, 0, 2), "the picture is empty"),
        (flat(0.5, 2, 2)[0], "expected 3 color channels on axis 1"),
        (flat(0.5, 4), r"expected shape \(B, 3, H, W\)"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "expected a float tensor"),
        (SOURCE, "expected a torch tensor, got ndarray"),
    ],
)
def test_wrong_pictures_are_named(name, broken, says):
    with pytest.raises(ValueError, match=f"source: {says}"):
        methods.recolor(name, broken, PICTURES["noise"])
    with pytest.raises(ValueError, match=f"reference: {says}"):
        methods.recolor(name, PICTURES["noise"], broken)


@pytest.mark.parametrize("broken", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3)), np.zeros((0, 2, 3), np.uint8)])
def test_wrong_8_bit_pictures_are_refused(broken):
    with pytest.raises(ValueError, match=r"expected an 8-bit picture|the picture is empty"):
        methods.recolor_uint8("reinhard_lab", broken, REFERENCE)
    with pytest.raises(ValueError, match=r"expected an 8-bit picture|the picture is empty"):
        methods.recolor_uint8("reinhard_lab", SOURCE, broken)


def test_an_unknown_method_lists_the_known_ones():
    calls = [
        lambda: methods.get("magic"),
        lambda: methods.fit("magic", PICTURES["noise"], PICTURES["noise"]),
        lambda: methods.recolor("magic", PICTURES["noise"], PICTURES["noise"]),
        lambda: methods.recolor_uint8("magic", SOURCE, REFERENCE),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="unknown method 'magic'; known: ") as error:
            call()
        assert all(name in str(error.value) for name in METHODS)


def test_something_to_recolor_towards_is_needed():
    for call in (lambda: methods.recolor("idt", PICTURES["noise"]), lambda: methods.recolor_uint8("chang", SOURCE)):
        with pytest.raises(ValueError, match="nothing to recolor towards; give a reference picture or a palette"):
            call()


PALETTE = torch.tensor([[20.0, 20, -30], [50, 40, 20], [90, 0, 10]], dtype=torch.float64)


def test_a_palette_needs_a_palette_method():
    for call in (
        lambda: methods.recolor("mkl_rgb", PICTURES["noise"], None, PALETTE),
        lambda: methods.recolor_uint8("idt_regrain", SOURCE, None, PALETTE),
    ):
        with pytest.raises(
            ValueError,
            match="takes a reference picture, not a palette; methods that take one: chang, chang_demo, chang_bz; ",
        ):
            call()


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (PALETTE[:0], "is empty; give at least one color"),
        (PALETTE[0], r"expected finite CIELAB colors \(k, 3\), got shape \(3,\)"),
        (PALETTE[:, :2], r"expected finite CIELAB colors \(k, 3\), got shape \(3, 2\)"),
        (PALETTE * torch.nan, "expected finite CIELAB colors"),
    ],
)
def test_a_palette_has_three_columns_and_a_row(broken, says):
    with pytest.raises(ValueError, match=f"palette: {says}"):
        methods.recolor("chang", PICTURES["noise"], None, broken)


def test_a_palette_method_recolors_a_batch_picture_by_picture():
    source, reference = torch.rand(2, 3, 12, 10), torch.rand(2, 3, 9, 8)
    both = methods.recolor("chang", source, reference)
    each = [methods.recolor("chang", *pair) for pair in zip(source.split(1), reference.split(1), strict=True)]
    torch.testing.assert_close(both, torch.cat(each))


# ---- palettes, options, LUTs


@pytest.mark.parametrize("name", [name for name, one in METHODS.items() if one.family == "palette" and one.fit])
def test_a_palette_instead_of_a_reference(name):
    result = methods.recolor(name, tensor(SOURCE), None, PALETTE)
    is_picture(result, tensor(SOURCE))
    assert (result - tensor(SOURCE)).abs().mean() > 0.02
    levels = methods.recolor_uint8(name, SOURCE, None, PALETTE).astype(float)
    assert np.abs(levels - result[0].permute(1, 2, 0).numpy() * 255).max() <= 1


@pytest.mark.parametrize("name", ["chang", "chang_demo", "chang_bz"])
def test_whose_palette_it_is_may_be_said(name):
    own = PALETTE + 5
    moved = methods.recolor(name, tensor(SOURCE), None, PALETTE, source_palette=own)
    wanted = palettes.transfer(own, PALETTE, variant=METHODS[name].fit.keywords["variant"])(tensor(SOURCE)).clamp(0, 1)
    assert torch.equal(moved, wanted) and not torch.equal(moved, methods.recolor(name, tensor(SOURCE), None, PALETTE))
    gray = torch.full((1, 3, 4, 4), 0.5)
    assert torch.isfinite(methods.recolor(name, gray, None, PALETTE, source_palette=own)).all()
    with pytest.raises(ValueError, match="source_palette: has 2 colors, the palette 3; give one for each"):
        methods.fit_palette(name, tensor(SOURCE), PALETTE, source_palette=own[:2])


@pytest.mark.parametrize("name", ["chang", "chang_demo", "chang_bz"])
def test_a_palette_of_too_many_colors(name):
    with pytest.raises(ValueError, match=r"palette: has 3 colors, .* give at most 1, or say in source_palette"):
        methods.recolor(name, torch.full((1, 3, 4, 4), 0.5), None, PALETTE)
    with pytest.raises(ValueError, match=r"palette: has 13 colors, .* give at most 12, or say in source_palette"):
        methods.recolor_uint8(name, SOURCE, None, ["#aabbcc"] * 13)


@pytest.mark.parametrize("name", LEARNED)
def test_a_network_takes_a_palette_and_no_options(name):
    result = methods.recolor(name, tensor(SOURCE), None, PALETTE)
    drawn = methods.palette_picture(PALETTE, tensor(SOURCE))
    assert drawn.shape == (1, 3, 1, 3) and torch.equal(result, methods.recolor(name, tensor(SOURCE), drawn))
    assert (methods.recolor_uint8(name, SOURCE, None, PALETTE) != SOURCE).any()
    with pytest.raises(ValueError, match=f"{name} has no option 'k'"):
        methods.recolor(name, tensor(SOURCE), tensor(REFERENCE), k=3)
    for call in (methods.fit, methods.fit_uint8):
        with pytest.raises(ValueError, match=f"{name} is a network .* use recolor"):
            call(name, *((SOURCE, REFERENCE) if call is methods.fit_uint8 else (tensor(SOURCE), tensor(REFERENCE))))


@pytest.mark.parametrize("name", PALETTENETS)
def test_a_network_that_takes_palettes(name):
    count, source = METHODS[name].colors, tensor(SOURCE)
    wanted = palette_of(REFERENCE, count)
    result = methods.recolor(name, source, tensor(REFERENCE))
    assert torch.equal(result, methods.recolor(name, source, None, wanted))  # a reference stands for its palette
    assert torch.equal(result, methods.recolor(name, source, None, wanted.flip(0)))  # sorted, whatever the order
    assert (result - source).abs().mean() > 0.01
    with pytest.raises(ValueError, match=f"palette: this network takes {count} colors, got 3"):
        methods.recolor(name, source, None, PALETTE)
    with pytest.raises(ValueError, match="hex color: expected six digits such as '#aabbcc', got '#12345'"):
        methods.recolor(name, source, None, ["#12345"] * count)
    repeated = methods.recolor(name, source, None, ["#ff0000"] * count)
    assert ((repeated >= 0) & (repeated <= 1)).all()
    far = torch.tensor([[50.0, 500, -500]] * count)  # no color that sRGB shows: clipped to one that it does
    assert torch.isfinite(methods.recolor(name, source, None, far)).all()
    labels = (torch.zeros(source.shape[2:]).long(), torch.zeros(*REFERENCE.shape[:2]).long())
    with pytest.raises(ValueError, match=f"labels: {name} sees its reference as a palette, which has no regions"):
        methods.recolor(name, source, tensor(REFERENCE), labels=labels)
    with pytest.raises(ValueError, match="one reference a source, got 2 and 1"):
        methods.recolor(name, torch.cat([source, source]), tensor(REFERENCE))
    with pytest.raises(ValueError, match=f"{name} has no option 'k'"):
        methods.recolor(name, source, tensor(REFERENCE), k=3)
    for size in ((1, 1), (3, 50), (33, 17)):
        assert methods.recolor(name, source[..., : size[0], : size[1]], None, wanted).shape[2:] == size
    gray = source.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert torch.isfinite(methods.recolor(name, gray, None, wanted)).all()


def test_stylization_answers_gray_references_and_swatches():
    """The network's own door refuses both, since neither has colors to lend to a gray picture."""
    source = images.to_tensor(data.coffee()[::4, ::4].copy())
    gray = source.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    warm, cold = (methods.recolor("stylization", source, None, colors) for colors in (["#b06020"] * 2, ["#2060b0"] * 2))
    paler = methods.recolor("stylization", source, gray)
    before, after = (rgb_to_lab(one)[:, 1:].norm(dim=1).mean() for one in (source, paler))
    assert after < 0.7 * before and rgb_to_lab(warm)[:, 2].mean() > rgb_to_lab(cold)[:, 2].mean() + 10
    for result in (warm, cold, paler):  # a rounding at the edge of what a screen shows is allowed
        assert (rgb_to_lab(result)[:, 0] - rgb_to_lab(source)[:, 0]).abs().max() < 0.1


def test_stylization_looks_for_colors_in_the_region_of_the_same_label():
    source = images.to_tensor(data.coffee()[::4, ::4].copy())
    top = torch.zeros(1, 3, 64, 64) + torch.tensor([0.2, 0.4, 0.8]).view(3, 1, 1)
    reference = torch.cat([top, top.flip(1)], dim=2)
    halves = [(torch.arange(size[0])[:, None] >= size[0] // 2).long().expand(size) for size in ((100, 150), (128, 64))]
    one, other = (methods.recolor("stylization", source, reference, labels=(mine, halves[1]))
                  for mine in (halves[0], 1 - halves[0]))  # fmt: skip
    blue = [rgb_to_lab(result)[:, 2, :50].mean() - rgb_to_lab(result)[:, 2, 50:].mean() for result in (one, other)]
    assert blue[0] < blue[1] - 10


def test_options_reach_the_method():
    source, reference = tensor(SOURCE), tensor(REFERENCE)
    for name, options in [
        ("idt", {"iterations": 1}),
        ("idt", {"relaxation": 0.5}),
        ("sliced_ot", {"directions": 2}),
        ("swatch", {"k": 1}),
        ("chang", {"k": 3}),
        ("reinhard_lab", {"space": "rgb"}),
    ]:
        plain = methods.recolor(name, source, reference)
        assert (methods.recolor(name, source, reference, **options) - plain).abs().max() > 1 / 255
        assert (
            methods.recolor_uint8(name, SOURCE, REFERENCE, **options) != methods.recolor_uint8(name, SOURCE, REFERENCE)
        ).any()
    torch.testing.assert_close(
        methods.recolor("reinhard_lab", source, reference, space="rgb"),
        methods.recolor("mean_std_rgb", source, reference),
    )
    with pytest.raises(TypeError, match="iterations"):
        methods.recolor("reinhard_lab", source, reference, iterations=3)


@pytest.mark.parametrize("name", GLOBAL)
def test_the_map_of_an_8_bit_picture_can_be_had_alone(name):
    codes, colors, _ = distinct(SOURCE)
    painted = repaint(SOURCE, codes, methods.fit_uint8(name, SOURCE, REFERENCE)(colors))
    np.testing.assert_array_equal(painted, methods.recolor_uint8(name, SOURCE, REFERENCE))


def test_no_lut_of_a_method_that_looks_at_neighbors():
    with pytest.raises(ValueError, match="idt_regrain looks at neighboring pixels"):
        methods.fit_uint8("idt_regrain", SOURCE, REFERENCE)


# ---- the table of methods


def test_the_ids_are_those_that_results_are_stored_under():
    assert list(METHODS) == [
        *["identity", "mean_std_rgb", "reinhard_lalphabeta", "reinhard_lab", "swatch_seed", "swatch", "cholesky"],
        *["square_root", "mkl_rgb", "mkl_lab", "xiao_ma", "histogram_rgb", "histogram_lab", "hm_mkl_hm", "idt"],
        *["idt_regrain", "sliced_ot", "chang", "chang_demo", "chang_bz"],
        *["palettenet_instance", "palettenet", "palettenet_4", "palettenet_adversarial"],
        *["analogy_tile", "analogy_no_norm", "analogy_film", "analogy", "analogy_distilled"],
        "stylization",
    ]
    families = {"baseline", "statistics", "distribution", "palette", "learned"}
    assert {method.family for method in METHODS.values()} == families
    assert len({method.title for method in METHODS.values()}) == len(METHODS)


def test_what_a_method_cites_is_in_the_bibliography():
    bibliography = paths.ROOT / "book" / "references.bib"
    if not bibliography.exists():
        pytest.skip("book/references.bib is not there")
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", bibliography.read_text(), re.M))
    assert {method.cite for method in METHODS.values() if method.cite} <= keys


# ---- other people's numbers


@pytest.mark.filterwarnings("ignore:.*negative Z")
def test_reinhard_is_within_a_level_of_scikit_image():
    source, reference = data.astronaut()[::2, ::2], data.coffee()[::2, ::2]
    lab, wanted = peer.rgb2lab(source / 255.0), peer.rgb2lab(reference / 255.0)
    scaled = (lab - lab.mean((0, 1))) * wanted.std((0, 1)) / lab.std((0, 1)) + wanted.mean((0, 1))
    expected = (peer.lab2rgb(scaled) * 255).round()
    found = methods.recolor_uint8("reinhard_lab", source, reference).astype(float)
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.001


#: on 15 FiveK pairs, input to expert C: PSNR dB, CIEDE2000, SSIM (Wang), and by how much PSNR may differ
FIVEK = {
    "identity": (19.02, 11.12, 0.825, 0.1),
    "reinhard_lab": (27.95, 4.18, 0.891, 0.1),
    "mkl_rgb": (28.73, 4.19, 0.896, 0.1),
    "mkl_lab": (28.40, 4.11, 0.890, 0.1),
    "histogram_rgb": (34.3, 2.70, 0.944, 0.1),
    "idt": (36.2, 2.19, 0.945, 0.5),
}


@pytest.mark.parametrize("name", FIVEK)
def test_real_pairs_come_out_as_they_did_elsewhere(name):
    if not os.environ.get("CTLIB_DATA"):
        pytest.skip("needs FiveK pairs: set CTLIB_DATA to the folder that holds fivek/pairs")
    folder = Path(os.environ["CTLIB_DATA"]) / "fivek" / "pairs"
    truths = sorted(folder.glob("*_C.jpg"))
    if not truths:
        pytest.skip(f"needs FiveK pairs: {folder} has none")
    rows = []
    for path in truths:
        truth, source = (
            np.asarray(Image.open(file).convert("RGB"))
            for file in (path, path.with_name(path.name.replace("_C", "_input")))
        )
        result = methods.recolor_uint8(name, source, truth)
        psnr = -10 * np.log10(np.mean((result / 255 - truth / 255) ** 2))
        delta = peer.deltaE_ciede2000(peer.rgb2lab(result), peer.rgb2lab(truth)).mean()
        ssim = structural_similarity(
            result, truth, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        rows.append((psnr, delta, ssim))
    psnr, delta, ssim, slack = FIVEK[name]
    found = np.mean(rows, axis=0)
    assert len(rows) == 15
    assert found[0] == pytest.approx(psnr, abs=slack)
    assert found[1] == pytest.approx(delta, abs=0.05 + 0.2 * (slack > 0.1))
    assert found[2] == pytest.approx(ssim, abs=0.005)
