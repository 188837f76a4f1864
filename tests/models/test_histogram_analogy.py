"""Histogram Analogy: counts and shapes of the spec, what the conditioning can and cannot do, pictures of any size."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ctlib import color, metrics
from ctlib.checkpoints import CheckpointError
from ctlib.data import photos
from ctlib.models import histogram_analogy as module
from ctlib.models.histogram_analogy import (
    CONDITIONINGS,
    ColorTransfer,
    Film,
    HistogramAnalogy,
    HistogramEncoder,
    Widths,
    from_unit,
    match_channels,
    to_unit,
    with_border,
)

# all parts of the published network, none of its width
NARROW = Widths((4, 5, 6, 7, 8), (8, 7, 6, 5, 4), hen=8, code=3, middle=6, full=5, hidden=4, steps=2)
TINY = module.WIDTHS["tiny"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=seeded(seed), dtype=dtype)


def lab(*shape: int, seed: int = 0) -> torch.Tensor:
    return color.rgb_to_lab(noise(*shape, seed=seed))


def dull(*shape: int, seed: int = 1) -> torch.Tensor:
    """A reference that differs from `lab` in place and width of each channel's histogram."""
    scale, shift = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.5, 0.3, 0.8), (0.4, 0.2, 0.1)))
    return color.rgb_to_lab(noise(*shape, seed=seed) * scale + shift)


def random_film(net: nn.Module) -> nn.Module:
    """A Film begins by doing nothing; these do something."""
    for part in net.modules():
        if isinstance(part, Film):
            nn.init.normal_(part.linear.weight, 0.0, 0.1, generator=seeded(9))
    return net


def network(conditioning: str = "film", **options) -> HistogramAnalogy:
    """Tiny, with weights of a size that lets the histograms be heard."""
    torch.manual_seed(0)
    return random_film(HistogramAnalogy(conditioning, "tiny", **{"init": "kaiming"} | options)).eval()


def count(part: nn.Module) -> int:
    return sum(weights.numel() for weights in part.parameters())


def on_meta(*args, **options) -> HistogramAnalogy:
    with torch.device("meta"):  # no memory, no time: shapes alone
        return HistogramAnalogy(*args, **options)


def test_published_network_has_the_parameters_of_the_spec():
    net = on_meta()
    assert count(net.hen) == 1_604_608 and count(net.ctn) == 39_407_247 and count(net.ctn.encoder) == 19_171_328
    assert [count(block) for block in net.ctn.decoder] == [10_028_544, 3_834_624, 1_032_576, 295_104, 405_632]
    assert [count(side) for side in net.ctn.sides] == [2_373_635, 596_995, 151_043, 38_659]
    assert [count(step) for step in net.ctn.refine] == [442_624] * 3
    assert count(net.ctn.guide) == 38_720 and count(net.ctn.head) == 112_515
    assert count(on_meta("tile_no_norm").ctn) == 39_407_247  # a norm has no parameters


def test_smaller_networks_have_the_parameters_they_claim():
    small = on_meta("tile", "small")
    assert count(small.ctn) == 9_232_079 and count(small.ctn.encoder) == 2_576_000 and count(small.hen) == 1_604_608
    for conditioning in CONDITIONINGS:
        assert count(on_meta(conditioning, "tiny", curves=True)) < 2_000_000


def test_layers_of_the_published_encoder():
    net, shapes = HistogramEncoder().to("meta"), []
    for layer in net.layers:
        layer.register_forward_hook(lambda layer, _, out: shapes.append((type(layer).__name__, tuple(out.shape[1:]))))
    assert net(torch.empty(2, 9, 64, 64, device="meta")).shape == (2, 64)
    assert [shape for name, shape in shapes if name == "Conv2d"] == [
        *((128, side, side) for side in (32, 16, 8, 4, 3, 2, 1)),
        (64, 1, 1),
    ]
    assert [name for name, _ in shapes[:14]] == ["Conv2d", "LeakyReLU"] * 7
    assert {layer.negative_slope for layer in net.layers if isinstance(layer, nn.LeakyReLU)} == {0.1}
    assert all(layer.bias is not None for layer in net.layers if isinstance(layer, nn.Conv2d | nn.Linear))


@pytest.mark.parametrize("bins", [8, 16, 32, 64, 128])
def test_every_number_of_bins_runs(bins):
    net = network(bins=bins)
    out, sides = net.transfer(lab(1, 3, 64, 64), dull(1, 3, 9, 9))
    assert out.shape == (1, 3, 64, 64) and out.isfinite().all() and len(sides) == 4
    halvings = [layer.stride[0] for layer in net.hen.layers if isinstance(layer, nn.Conv2d)].count(2)
    assert bins >> halvings == 4


SIDES = {  # of the side outputs, for each size of a picture
    (256, 256): [(16, 16), (32, 32), (64, 64), (128, 128)],
    (316, 316): [(18, 18), (38, 38), (78, 78), (158, 158)],
    (300, 260): [(18, 16), (36, 32), (74, 64), (150, 130)],
}


@pytest.mark.parametrize(("conditioning", "width"), [("tile", "paper"), ("film", "paper"), ("tile_no_norm", "tiny")])
def test_shapes_of_outputs(conditioning, width):
    net, histogram = on_meta(conditioning, width), torch.empty(1, 9, 64, 64, device="meta")
    for size, sides in SIDES.items():
        out, found = net(torch.empty(1, 3, *size, device="meta"), histogram, histogram)
        assert out.shape == (1, 3, *size)
        assert [side.shape for side in found] == [(1, 3, *side) for side in sides]


def test_units_of_the_spec():
    """L', a', b' in [0, 1]; the network's unit is 2 x' - 1."""
    rgb = torch.tensor([[0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    scaled = (to_unit(color.rgb_to_lab(rgb)) + 1) / 2
    assert scaled[0, 1:].tolist() == pytest.approx([0.467329, 0.533062], abs=2e-5)  # a gray of sRGB is not quite one
    assert to_unit(torch.tensor([[50.0, 0, 0]])).tolist() == [pytest.approx([0, -0.065342, 0.066124], abs=2e-6)]
    assert scaled[1].tolist() == pytest.approx([0.532406, 0.901631, 0.865197], abs=2e-6)
    assert scaled[2].tolist() == pytest.approx([0.877351, 0, 0.944160], abs=2e-6)
    assert scaled[3].tolist() == pytest.approx([0.322957, 0.896715, 0], abs=2e-6)
    ends = to_unit(torch.tensor([[0.0, -86.1830297444, -107.857300207], [100.0, 98.2330538631, 94.4781222765]]))
    assert ends.tolist() == [pytest.approx([-1] * 3, abs=1e-6), pytest.approx([1] * 3, abs=1e-6)]


def test_units_and_back():
    values = 300 * noise(2, 3, 4, 5, dtype=torch.float64) - 150  # also what lies outside sRGB
    assert to_unit(values).abs().max() > 1.2
    assert from_unit(to_unit(values)) == pytest.approx(values, abs=1e-12)
    assert to_unit(values.float()).dtype == torch.float32


def test_official_initialisation():
    torch.manual_seed(0)
    net = HistogramAnalogy("tile", "tiny")
    weights = [part.weight for part in net.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    every = torch.cat([weight.flatten() for weight in weights])
    assert every.std().item() == pytest.approx(0.02, rel=0.01) and every.mean().abs() < 1e-4
    for weight in weights:
        if weight.numel() > 5000:
            assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not any(value.any() for name, value in net.named_parameters() if name.endswith("bias"))


def test_kaiming_initialisation_follows_the_inputs():
    first, *_ = network("tile").hen.layers
    assert first.weight.std().item() == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.05)


def transfer_network(conditioning: str, widths: Widths, init=module._kaiming) -> ColorTransfer:
    torch.manual_seed(0)
    return random_film(ColorTransfer(conditioning, widths).apply(init)).double()


@torch.no_grad()
def response(net: ColorTransfer, side: int, widths: Widths) -> float:
    """How much the output depends on the reference's code: mean change by spread, as in the spec."""
    unit = 2 * noise(1, 3, side, side, dtype=torch.float64) - 1
    source, *codes = torch.randn(3, 1, widths.code, generator=seeded(1), dtype=torch.float64)
    one, other = (net(unit, source, code)[0] for code in codes)
    return ((one - other).abs().mean() / one.std()).item()


@pytest.mark.parametrize("widths", [NARROW, TINY], ids=["narrow", "tiny"])
def test_norms_remove_tiled_codes(widths):
    """The flaw of the published network: without a border to see, it cannot know the histograms."""
    for init in (module._kaiming, module._normal):
        net = transfer_network("tile", widths, init)
        assert response(with_border(net, "replicate"), 64, widths) < 1e-10
        assert response(net, 64, widths) > 0.01  # what was changed is a copy
    assert response(with_border(net, "reflect"), 64, widths) < 1e-10
    for conditioning in ("tile_no_norm", "film"):
        assert response(with_border(transfer_network(conditioning, widths), "replicate"), 64, widths) > 0.1


def test_tiled_codes_act_through_the_border():
    net = transfer_network("tile", TINY, module._normal)
    found = [response(net, side, TINY) for side in (64, 128, 256)]
    assert found[0] > 1.15 * found[1] > 1.15**2 * found[2] > 0.01


def test_other_conditionings_act_at_any_size():
    for conditioning in ("tile_no_norm", "film"):
        net = transfer_network(conditioning, TINY)
        assert response(net, 128, TINY) == pytest.approx(response(net, 64, TINY), rel=0.1)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_only_the_histogram_of_the_reference_counts(conditioning):
    net, source, reference = network(conditioning), lab(1, 3, 64, 64), dull(1, 3, 20, 30)
    mixed = reference.flatten(2)[..., torch.randperm(600, generator=seeded())]
    with torch.no_grad():
        out, sides = net.transfer(source, reference)
        for same in (mixed, mixed.view_as(reference), reference.repeat_interleave(2, 2).repeat_interleave(2, 3)):
            again, more = net.transfer(source, same)
            assert torch.equal(out, again)
            assert all(torch.equal(*pair) for pair in zip(sides, more, strict=True))
        assert (out - net.transfer(source, reference * 0.5)[0]).abs().max() > 1e-3


def test_curves_see_the_reference_as_a_histogram_too():
    net, source, reference = network(curves=True), lab(1, 3, 64, 64), dull(1, 3, 20, 30)
    mixed = reference.flatten(2)[..., torch.randperm(600, generator=seeded())]
    double = reference.repeat_interleave(2, 2).repeat_interleave(2, 3)
    with torch.no_grad():
        out, _ = net.transfer(source, reference)
        # vector units round the last pixels of a row another way than the others
        torch.testing.assert_close(out, net.transfer(source, mixed)[0], rtol=0, atol=1e-4)
        # between quantiles the curve is straight: four equal ones are not quite one
        assert (net.transfer(source, double)[0] - out).abs().max() < 0.03


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_residual_network_begins_as_the_identity(conditioning):
    source, reference = lab(2, 3, 64, 96), dull(2, 3, 9, 9)
    out, sides = network(conditioning, residual=True).transfer(source, reference)
    assert torch.equal(out, to_unit(source)) and sides[0].abs().max() > 0
    assert not torch.equal(network(conditioning).transfer(source, reference)[0], to_unit(source))


def test_a_network_with_curves_begins_as_the_curves():
    source, reference = lab(2, 3, 64, 64), dull(2, 3, 9, 9)
    net = network(curves=True)
    assert net.residual
    assert torch.equal(net.transfer(source, reference)[0], to_unit(match_channels(source, reference)))
    histogram = torch.zeros(2, 9, 64, 64)
    with pytest.raises(ValueError, match="matched: goes with curves=True"):
        net(source, histogram, histogram)
    with pytest.raises(ValueError, match="matched: goes with curves=True"):
        network()(source, histogram, histogram, source)


def test_match_channels_equals_quantiles_of_numpy():
    source, reference = lab(2, 3, 50, 60), dull(2, 3, 40, 30)
    found = match_channels(source, reference)
    assert found.shape == source.shape
    rows = (color.lab_to_rgb(part).flatten(0, 1).flatten(1).numpy() for part in (source, reference, found))
    for have, want, got in zip(*rows, strict=True):
        rank = (have.argsort().argsort() + 0.5) / have.size
        off = np.abs(got - np.quantile(want, rank))
        assert off.mean() < 0.02 * want.std() and off.max() < 0.2 * want.std()


def test_match_channels_of_a_picture_with_itself():
    source = lab(1, 3, 60, 60)
    assert (match_channels(source, source) - source).abs().mean() < 0.2


def test_match_channels_looks_everywhere():
    """Equal steps through a picture as wide as a power of two meet four of its columns."""
    ramp = torch.zeros(1, 3, 1024, 1024)
    ramp[:, 0] = torch.linspace(0, 100, 1024)
    assert (match_channels(ramp, ramp) - ramp).abs().max() < 1


def test_samples_are_spread_over_the_picture():
    for count in (1, 7, 4096):
        assert module.spread(count, 4096).tolist() == list(range(count))
    for count in (4097, 256 * 256, 1024 * 1024):
        places = module.spread(count, 1024).sort().values
        assert len(places.unique()) == 1024 and places[0] >= 0 and places[-1] < count
        assert places.diff().max() < 2 * count / 1024


def test_match_channels_of_constant_pictures():
    gray, colors = torch.tensor([50.0, 0, 0]).view(1, 3, 1, 1).repeat(1, 1, 5, 5), lab(1, 3, 5, 5)
    middle = color.lab_to_rgb(match_channels(gray, colors)).flatten(2)  # one color goes to the middle of what is wanted
    assert middle[..., 0] == pytest.approx(color.lab_to_rgb(colors).flatten(2).median(2).values, abs=1e-4)
    assert middle.std(2).max() < 1e-5
    lighter = gray + torch.tensor([3.0, 0, 0]).view(1, 3, 1, 1)
    assert match_channels(colors, lighter) == pytest.approx(lighter, abs=1e-3)
    assert match_channels(gray, lighter) == pytest.approx(lighter, abs=1e-3)
    assert match_channels(gray[..., :1, :1], lighter[..., :1, :1]).flatten().tolist() == pytest.approx(
        [53, 0, 0], abs=0.01
    )


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_the_image_loss_reaches_the_encoder(conditioning):
    net, source, target = network(conditioning), lab(1, 3, 64, 64), dull(1, 3, 64, 64)
    functional.mse_loss(net.transfer(source, target)[0], to_unit(target)).backward()
    for name, weights in net.hen.named_parameters():
        assert weights.grad.isfinite().all() and weights.grad.abs().max() > 0, name


def test_an_untrained_film_does_nothing_but_can_learn():
    torch.manual_seed(0)
    net, source = HistogramAnalogy("film", "tiny"), lab(1, 3, 64, 64)
    out, _ = net.transfer(source, dull(1, 3, 64, 64))
    assert torch.equal(out, net.transfer(source, source)[0])
    functional.mse_loss(out, to_unit(dull(1, 3, 64, 64))).backward()
    films = [part for part in net.modules() if isinstance(part, Film)]
    assert len(films) == 2 * 1 + 3 * 4 + 2 + 3 and all(film.linear.weight.grad.abs().max() > 0 for film in films)


def test_roots_make_the_histogram_heard():
    histogram = torch.zeros(1, 9, 64, 64)
    histogram[0, 0].view(-1)[::4] = 1 / 1024
    plain, root = (network(root=root).hen for root in (False, True))
    assert torch.equal(root(histogram), plain(histogram.sqrt()))
    assert root(histogram).std() > 3 * plain(histogram).std()


OPTIONS = [{"conditioning": "tile"}, {"conditioning": "film"}, {"curves": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_recolor_takes_pictures_of_any_size(options):
    net, reference = network(**options), noise(1, 3, 5, 7, seed=1)
    sizes, seen = [(1, 1), (1, 7), (33, 65), (90, 50)], []
    net.ctn.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    for size in sizes:
        source = noise(1, 3, *size)
        result = net.recolor(source, reference, long_side=72)
        assert result.shape == source.shape and result.dtype == source.dtype
        assert result.min() >= 0 and result.max() <= 1 and not torch.equal(result, source)
        assert torch.equal(result, net.recolor(source, reference, long_side=72))
    border = 0 if net.ctn.conditioning == "film" else module.PAD
    for size, inner in zip(seen[::2], [*sizes[:3], (72, 40)], strict=True):
        for side, wanted in zip(size, inner, strict=True):
            assert side % 32 == 0 and side >= max(64, wanted + 2 * border)


@pytest.mark.parametrize("conditioning", ["tile", "film"])
@pytest.mark.parametrize("size", [(1, 1), (33, 65), (90, 50)])
def test_recolor_by_the_identity_keeps_each_pixel_in_place(conditioning, size):
    """Border, crop, and the way over a smaller picture, whose change is enlarged, undo each other."""
    source = noise(2, 3, *size)
    result = network(conditioning, residual=True).recolor(source, noise(2, 3, 4, 4, seed=1), long_side=72)
    assert (result - source).abs().max() < 1e-3


def test_curves_reach_each_pixel_of_a_large_picture():
    """As they are, and fitted on the same pixels as without a smaller picture between."""
    source = noise(1, 3, 150, 110)
    net, reference = network(curves=True), color.lab_to_rgb(dull(1, 3, 9, 9))
    nn.init.zeros_(net.ctn.head.layers[-1].weight)  # the curves alone, which know no neighbors
    whole, part = (net.recolor(source, reference, long_side=side) for side in (1024, 40))
    assert (whole - part).abs().max() < 1e-4 < (whole - source).abs().mean()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_large_picture_has_regions_too(options):
    source = noise(1, 3, 150, 110)
    reference = torch.cat([0.3 * noise(1, 3, 20, 20), 0.7 + 0.3 * noise(1, 3, 20, 20)], 3)
    labels = [(torch.arange(width) >= width // 2).long().expand(height, -1) for height, width in ((150, 110), (20, 40))]
    net = network(**options)
    if net.curves:
        nn.init.zeros_(net.ctn.head.layers[-1].weight)
    whole, part = (net.recolor(source, reference, labels=tuple(labels), long_side=side) for side in (1024, 75))
    assert part.shape == whole.shape and part.isfinite().all()
    if net.curves:  # each half has the curves of its own half of the reference, apart from the border between them
        assert part[..., :45].mean() < 0.25 and part[..., 65:].mean() > 0.75
        assert (whole - part)[..., :45].abs().mean() < 0.02 and (whole - part)[..., 65:].abs().mean() < 0.02


def test_recolor_of_a_batch_is_that_of_each():
    net, source, reference = network(curves=True), noise(2, 3, 20, 70), noise(2, 3, 6, 5, seed=1)
    batch = net.recolor(source, reference)
    for one in range(2):
        alone = net.recolor(source[one : one + 1], reference[one : one + 1])
        assert (alone - batch[one]).abs().max() < 1e-4
    assert (batch[0] - net.recolor(source[:1], reference[1:])[0]).abs().max() > 0.01


def test_recolor_keeps_the_dtype():
    net, source, reference = network(), noise(1, 3, 20, 30), noise(1, 3, 6, 5, seed=1)
    result = net.recolor(source.double(), reference.double())
    assert result.dtype == torch.float64
    assert (result - net.recolor(source, reference)).abs().max() < 1e-5


PICTURE = torch.rand(2, 3, 8, 8, generator=seeded())


@pytest.mark.parametrize(
    ("source", "reference", "message"),
    [
        (PICTURE * torch.nan, PICTURE, "source: holds NaN"),
        (PICTURE, PICTURE * torch.nan, "reference: holds NaN"),
        (PICTURE * 255, PICTURE, "source: expected sRGB in .* divide by 255"),
        (PICTURE, PICTURE - 1, "reference: expected sRGB in"),
        (PICTURE[0], PICTURE, "source: expected"),
        (PICTURE, PICTURE[:1], "source and reference: one reference a source, got 2 and 1"),
        (PICTURE, PICTURE[..., :0], "reference: the picture is empty"),
    ],
)
def test_recolor_names_what_is_wrong(source, reference, message):
    with pytest.raises(ValueError, match=message):
        network().recolor(source, reference)


def test_recolor_needs_a_pixel():
    with pytest.raises(ValueError, match="long_side: expected at least 1 pixel, got 0"):
        network().recolor(PICTURE, PICTURE, long_side=0)
    assert network().recolor(PICTURE, PICTURE, long_side=1).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditioning": "adain"}, "conditioning: expected one of tile, tile_no_norm, film, got 'adain'"),
        ({"width": "large"}, r"width: expected one of paper, small, tiny, .*, got 'large'"),
        ({"bins": 48}, "bins: expected one of 8, 16, 32, 64, 128, got 48"),
        ({"init": "xavier"}, "init: expected one of normal, kaiming, got 'xavier'"),
    ],
)
def test_unknown_options_are_answered_with_the_known(options, message):
    with pytest.raises(ValueError, match=message):
        HistogramAnalogy(**options)


def test_weights_come_back(tmp_path):
    options = {"bins": 32, "root": True, "curves": True}
    net = network(**options)
    nn.init.normal_(net.ctn.head.layers[-1].weight, 0.0, 0.1)  # past the beginning
    net.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.items() >= {"conditioning": "film", "width": "tiny", **options}.items()
    loaded = HistogramAnalogy.from_pretrained(tmp_path)
    assert not loaded.training and next(loaded.parameters()).dtype == torch.float32
    source, reference = noise(1, 3, 40, 70), noise(1, 3, 9, 9, seed=1)
    expected, found = (model.recolor(source, reference) for model in (net, loaded))
    assert 0 < (found - expected).abs().mean() < 0.005
    assert torch.equal(found, net.half().float().recolor(source, reference))  # rounding and nothing else


def test_weights_of_another_network_are_refused(tmp_path):
    network("film").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"conditioning": "tile"}))
    with pytest.raises(CheckpointError, match=r"weights and config\.json do not fit together"):
        HistogramAnalogy.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"conditioning": "adain"}))
    with pytest.raises(CheckpointError, match=r"no configuration of HistogramAnalogy.*tile, tile_no_norm, film"):
        HistogramAnalogy.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["film", "film-curves"])
def test_half_the_precision_is_hardly_seen(name):
    net = HistogramAnalogy.from_pretrained(f"histogram-analogy-{name}-tiny")
    source, reference = photos.tensor("china", 128), photos.tensor("coffee", 96)
    full, half = (net.recolor(source, reference, precision=precision) for precision in ("no", "bf16"))
    assert half.dtype == source.dtype and not torch.equal(full, half)
    assert metrics.ciede2000(half, full).item() < 0.3
    with pytest.raises(ValueError, match="precision: expected no or bf16, got 'fp16'"):
        net.recolor(source, reference, precision="fp16")


def test_a_network_in_another_precision_says_so():
    net, picture = HistogramAnalogy(width="tiny").double(), torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"keep the network in float32, with .float\(\); it is in torch.float64"):
        net.recolor(picture, picture)
    with pytest.raises(ValueError, match="long_side: expected at least 1 pixel, got nan"):
        net.float().recolor(picture, picture, long_side=float("nan"))
