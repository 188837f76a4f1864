"""PaletteNet: counts and shapes of its re-implementations, what a palette can and cannot do, pictures of any size."""

import re

import pytest
import torch
from torch import nn

from ctlib import color, ops
from ctlib.checkpoints import CheckpointError
from ctlib.data import photos
from ctlib.models import palettenet as module
from ctlib.models.histogram_analogy import Film, to_unit, with_border
from ctlib.models.palettenet import DECODER_NORMS, LAYOUTS, Discriminator, PaletteNet

COLORS = ["#20304a", "#8c4a2f", "#5f7d4e", "#c9a35b", "#a3b8c2", "#f1e7d0"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=seeded(seed), dtype=dtype)


def network(decoder_norm: str = "film", variant: str = "tiny", seed: int = 0, **options) -> PaletteNet:
    """In evaluation mode, with a Film that does something, which it does not at the start."""
    torch.manual_seed(seed)
    net = PaletteNet(**{"decoder_norm": decoder_norm, "variant": variant} | options)
    for part in net.modules():
        if isinstance(part, Film):
            nn.init.normal_(part.linear.weight, 0.0, 0.2, generator=seeded(9))
    return net.eval()


def count(part: nn.Module) -> int:
    return sum(weights.numel() for weights in part.parameters())


def on_meta(make, *args, **options) -> nn.Module:
    with torch.device("meta"):  # no memory, no time: shapes alone
        return make(*args, **options)


@pytest.mark.parametrize(
    ("variant", "colors", "options", "encoder", "decoder"),
    [
        ("paper", 6, {}, 11_016_320, 2_866_068),  # repalette, two blocks a stage
        ("yongzx", 6, {"bug_compat": True}, 4_820_480, 2_866_654),
        ("yongzx", 4, {"bug_compat": True}, 4_820_480, 2_845_918),  # the ArtBench report
        ("aakriti", 6, {}, 4_818_688, 2_054_548),
        ("taptoi", 6, {"decoder_norm": "none"}, 4_821_376, 2_011_892),
    ],
)
def test_implementations_have_the_parameters_of_the_spec(variant, colors, options, encoder, decoder):
    net = on_meta(PaletteNet, colors, variant=variant, **options)
    assert (count(net.encoder), count(net.decoder)) == (encoder, decoder)


def test_discriminators_have_the_parameters_of_the_spec():
    """repalette's, yongzx's, and that of the ArtBench report; norms have none."""
    for norms in module.NORMS:
        assert count(on_meta(Discriminator, norms=norms, dropout=0.1)) == 2_775_489
        assert count(on_meta(Discriminator, 6, "flat", (432, 288), norms)) == 243_969
        assert count(on_meta(Discriminator, 4, "flat", (256, 256), norms)) == 224_769


def test_shipped_sizes():
    for variant in ("small", "tiny"):
        for colors in (4, 6):
            assert 2 * count(on_meta(PaletteNet, colors, "film", variant)) <= 6e6  # bytes in float16


@pytest.mark.parametrize("variant", LAYOUTS)
@pytest.mark.parametrize("decoder_norm", DECODER_NORMS)
def test_shapes_of_the_papers_size(variant, decoder_norm):
    net = on_meta(PaletteNet, 6, decoder_norm, variant)
    picture, palette = (torch.empty(shape, device="meta") for shape in ((2, 3, 432, 288), (2, 3, 6)))
    sizes = [(27, 18), (54, 36), (108, 72), (216, 144)]
    widths = LAYOUTS[variant].encoder[::-1]
    assert [tuple(one.shape) for one in net.encoder(picture)] == [
        (2, width, *size) for width, size in zip(widths, sizes, strict=True)
    ]
    assert net(picture, palette).shape == (2, 2, 432, 288)
    assert on_meta(PaletteNet, 6, decoder_norm, variant, bug_compat=True)(picture, palette).shape == (2, 3, 432, 288)


def test_shapes_of_discriminators():
    for colors in (1, 12):
        palette = torch.empty(3, 3, colors, device="meta")
        for kind, size in (("flat", (432, 288)), ("pooled", (96, 64)), ("pooled", (32, 32)), ("flat", (62, 62))):
            assert on_meta(Discriminator, colors, kind, size)(
                torch.empty(3, 3, *size, device="meta"), palette
            ).shape == (3,)
    with pytest.raises(ValueError, match=r"view: this discriminator takes \(64, 96\) only, got \(64, 64\)"):
        Discriminator(1, "flat", (64, 96))(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 1))


@torch.no_grad()
def response(net, side: int = 64, colors: int = 6) -> float:
    """How much the output depends on the palette: mean change by spread, as in the spec."""
    net = net.double()
    view = 2 * noise(1, 3, side, side, dtype=torch.float64) - 1
    one, other = (net(view, 2 * noise(1, 3, colors, seed=n, dtype=torch.float64) - 1) for n in (1, 2))
    return ((one - other).abs().mean() / one.std()).item()


@pytest.mark.parametrize("variant", ["tiny", "taptoi"])
def test_norms_remove_the_palette(variant):
    """The flaw of the published network: without a border to see, it cannot know the palette."""
    faithful = network("instance", variant)
    assert response(faithful) > 1e-3  # through the zeros around the picture
    assert response(with_border(faithful, "replicate")) < 1e-10
    assert response(with_border(faithful, "reflect")) < 1e-10
    for decoder_norm in ("none", "film"):
        assert response(with_border(network(decoder_norm, variant), "replicate")) > 0.02


def test_the_report_has_the_flaw_too():
    assert response(with_border(network("instance", "yongzx", bug_compat=True), "replicate")) < 1e-10


def test_transposed_convolutions_leave_the_palette_as_a_grid():
    """The exception: a constant becomes a pattern that repeats every two pixels, and that is not subtracted."""
    assert response(with_border(network("instance", "aakriti"), "replicate")) > 1e-3


def test_norms_remove_the_palette_from_a_discriminator():
    def reaction(kind: str, norms: str) -> float:
        torch.manual_seed(0)
        net = Discriminator(6, kind, (64, 64), norms).double()
        view = 2 * noise(1, 3, 64, 64, dtype=torch.float64) - 1
        one, other = (net(view, 2 * noise(1, 3, 6, seed=n, dtype=torch.float64) - 1) for n in (1, 2))
        return ((one - other).abs() / one.abs()).item()

    assert reaction("flat", "all") < 1e-10  # yongzx's and the report's: it cannot know whose palette it is
    for kind in module.KINDS:
        for norms in ("inner", "none"):
            assert reaction(kind, norms) > 1e-4


@pytest.mark.parametrize("decoder_norm", DECODER_NORMS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (33, 47), (64, 96)])
def test_luminance_is_kept(decoder_norm, shape):
    net, source = network(decoder_norm), noise(2, 3, *shape)
    out = net.recolor(source, COLORS)
    assert out.shape == source.shape and out.dtype == source.dtype and out.min() >= 0 and out.max() <= 1
    lab = ops.rgb_to_lab(source)
    wanted = net.ordered(COLORS).T.float().expand(2, -1, -1)
    if min(shape) >= 32 and shape[0] % 16 == shape[1] % 16 == 0:
        found = net.transfer(lab, wanted)
        assert torch.equal(found[:, :1], lab[:, :1])
        shown = color.in_gamut(found, tolerance=0)
        assert 0 < shown.double().mean() < 1
        assert (color.rgb_to_lab(out)[:, 0] - lab[:, 0])[shown].abs().max() < 0.5


def test_luminance_of_large_pictures_is_kept():
    source = photos.tensor("coffee", 200) * 0.5 + 0.25  # dull colors, so that few are clipped
    net = network()
    nn.init.zeros_(net.decoder.head.weight)
    out = net.recolor(source, COLORS, long_side=64)
    assert out.shape == source.shape and (out - source).abs().mean() > 0.01
    off = (color.rgb_to_lab(out)[:, 0] - color.rgb_to_lab(source)[:, 0]).abs()
    assert off.max() < 0.5


def test_sides_are_extended_and_cut_back():
    """Where nothing has to be extended, `recolor` is the network and nothing else."""
    net, source = network(), noise(1, 3, 48, 64)
    whole = ops.lab_to_rgb(net.transfer(ops.rgb_to_lab(source), net.ordered(COLORS).T.float()[None])).clamp(0, 1)
    assert torch.equal(net.recolor(source, COLORS), whole)
    more = torch.cat([source, source[:, :, -1:].expand(-1, -1, 16, -1)], dim=2)
    assert torch.equal(net.recolor(more[:, :, :49], COLORS), net.recolor(more, COLORS)[:, :, :49])


def test_the_order_of_the_palette_does_not_matter():
    net, source = network(), noise(1, 3, 32, 32)
    expected = net.recolor(source, COLORS)
    assert torch.equal(net.recolor(source, COLORS[::-1]), expected)
    assert torch.equal(net.recolor(source, net.ordered(COLORS)), expected)
    assert not torch.equal(net.recolor(source, [*COLORS[:5], "#ff0000"]), expected)
    assert net.ordered(COLORS)[:, 0].diff().min() > 0


def test_odd_palettes_and_pictures():
    net, source = network(), noise(1, 3, 40, 40)
    loud = torch.tensor([[50.0, 150, 150]] * 6)  # no display shows it; and six times the same
    assert color.in_gamut(net.ordered(loud).T[None], tolerance=1e-6).all()
    assert torch.equal(net.recolor(source, loud), net.recolor(source, net.ordered(loud)))
    for picture in (torch.full((1, 3, 40, 40), 0.5), torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 5, 5)):
        for decoder_norm in DECODER_NORMS:
            assert network(decoder_norm).recolor(picture, COLORS).isfinite().all()


@pytest.mark.parametrize(
    ("palette", "message"),
    [
        (COLORS[:4], "palette: this network takes 6 colors, got 4; repeat or drop some, or load a network"),
        ([*COLORS, "#000000"], "palette: this network takes 6 colors, got 7"),
        ([*COLORS[:5], "#12345"], "hex color: expected six digits such as '#aabbcc', got '#12345'"),
        ([*COLORS[:5], "#gg0000"], "hex color: expected six digits"),
        (torch.full((6, 3), torch.nan), "palette: expected finite CIELAB colors"),
        (torch.full((6, 3), 200.0), r"palette: lightness must lie in \[0, 100\]"),
        ([], "palette: is empty; give at least one color"),
        (torch.zeros(18), r"palette: expected finite CIELAB colors \(k, 3\), got shape \(18,\)"),
    ],
)
def test_wrong_palettes_are_named(palette, message):
    with pytest.raises(ValueError, match=message):
        network().recolor(noise(1, 3, 32, 32), palette)


def test_wrong_pictures_are_named():
    net = network()
    for picture, message in (
        (torch.full((1, 3, 32, 32), torch.nan), "source: holds NaN"),
        (255 * noise(1, 3, 32, 32), "source: expected sRGB in .* divide by 255"),
        (noise(3, 32, 32), "source: expected"),
        (torch.zeros(1, 3, 0, 5), "source: the picture is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            net.recolor(picture, COLORS)
    for pixels in (0, float("nan"), float("inf"), "a"):
        with pytest.raises(ValueError, match=f"long_side: expected at least 1 pixel, got {pixels!r}"):
            net.recolor(noise(1, 3, 32, 32), COLORS, long_side=pixels)
    with pytest.raises(ValueError, match="keep the network in float32"):
        network().double().recolor(noise(1, 3, 32, 32), COLORS)
    with pytest.raises(
        ValueError, match="view: expected sides of at least 32 that 16 divides, got 32 x 40; use recolor"
    ):
        net(noise(1, 3, 32, 40), noise(1, 3, 6))
    with pytest.raises(ValueError, match=re.escape("palette: expected (1, 3, 6), got (1, 6, 3)")):
        net(noise(1, 3, 32, 32), noise(1, 6, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[({"colors": colors}, "colors: expected a whole number from 1 to 12") for colors in (0, 13, 4.0, True)],
        ({"decoder_norm": "batch"}, "decoder_norm: expected one of instance, none, film, got 'batch'"),
        ({"variant": "large"}, "variant: expected one of paper, yongzx, aakriti, taptoi, small, tiny, got 'large'"),
        ({"init": "normal"}, "init: expected one of he, glorot"),
        *[({"dropout": dropout}, "dropout: expected a share") for dropout in (1, -0.1, "a", True)],
    ],
)
def test_unknown_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        PaletteNet(**options)


def test_unknown_options_of_a_discriminator_are_named():
    with pytest.raises(ValueError, match="kind: expected one of pooled, flat"):
        Discriminator(kind="patch")
    with pytest.raises(ValueError, match="norms: expected one of inner, all, none"):
        Discriminator(norms="some")
    with pytest.raises(ValueError, match="dropout: expected a share from 0 to below 1, got 'abc'"):
        Discriminator(dropout="abc")
    for kind, size, least in (("pooled", (31, 64), 32), ("flat", (64, 61), 62)):
        with pytest.raises(ValueError, match=f"size: '{kind}' needs pictures of at least {least} pixels a side"):
            Discriminator(kind=kind, size=size)


@pytest.mark.parametrize("colors", [1, 4, 12])
def test_any_number_of_colors(colors):
    net, palette = network(colors=colors), (COLORS * 2)[:colors]
    assert net.recolor(noise(1, 3, 20, 20), palette).shape == (1, 3, 20, 20)


def test_initialisations():
    torch.manual_seed(0)
    he, glorot = PaletteNet(variant="yongzx"), PaletteNet(variant="yongzx", init="glorot")
    for net, inside in ((he, 2 / 2304), (glorot, 2 / (2304 + 4608))):
        assert net.encoder.stages[3][0].layers[0].weight.var().item() == pytest.approx(inside, rel=0.02)
        assert net.decoder.head.weight.var().item() == pytest.approx(2 / (9 * 67), rel=0.15)  # before the tanh
        biases = [value for name, value in net.named_parameters() if name.endswith("bias")]
        assert biases and not any(bias.any() for bias in biases)


def test_an_untrained_film_does_nothing_but_can_learn():
    torch.manual_seed(0)
    net, view = PaletteNet(6, "film", "tiny"), 2 * noise(1, 3, 32, 32) - 1
    one, other = (net(view, noise(1, 3, 6, seed=n)) for n in (1, 2))
    assert torch.equal(one, other)
    one.square().mean().backward()
    films = [part for part in net.modules() if isinstance(part, Film)]
    assert len(films) == 4 * 2 and all(film.linear.weight.grad.abs().max() > 0 for film in films)


def test_dropout_acts_in_training_alone():
    net, view, palette = network(dropout=0.5), 2 * noise(1, 3, 32, 32) - 1, noise(1, 3, 6)
    assert torch.equal(net(view, palette), net(view, palette))
    net.train()
    assert not torch.equal(net(view, palette), net(view, palette))


def test_the_report_computes_in_rgb_and_hardly_sees_lightness():
    net, seen = network("instance", "yongzx", bug_compat=True), []
    net.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    rgb = photos.tensor("coffee", 64)[:, :, :32]
    lab = ops.rgb_to_lab(rgb)
    assert net.view(lab) == pytest.approx(rgb, abs=1e-4)
    out = net(net.view(lab), net.view(lab[..., 0, :6]))
    assert out.shape == lab.shape and (out.min() < 0 or out.max() > 1)  # nothing squashes it
    assert 0 < seen[0].max() < 0.28
    moved = net.transfer(lab, lab[..., 0, :6])
    assert (moved[:, 0] - lab[:, 0]).abs().mean() > 1
    assert net.recolor(photos.tensor("coffee", 50), COLORS).isfinite().all()
    plain = network("instance", "yongzx")
    assert torch.equal(plain.view(lab), to_unit(lab))
    assert torch.equal(plain.whole(out[:, 1:], lab), torch.cat([lab[:, :1], out[:, 1:]], dim=1))


def test_saved_and_loaded(tmp_path):
    net, source = network(colors=4), noise(1, 3, 32, 32)
    net.save_pretrained(tmp_path)
    loaded = PaletteNet.from_pretrained(tmp_path)
    assert loaded.colors == 4 and not loaded.training
    assert torch.equal(loaded.recolor(source, COLORS[:4]), net.half().float().recolor(source, COLORS[:4]))
    network("none", colors=4).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text((tmp_path / "config.json").read_text())
    with pytest.raises(CheckpointError, match="do not fit together"):
        PaletteNet.from_pretrained(tmp_path / "other")
