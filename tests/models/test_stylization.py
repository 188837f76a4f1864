"""The transfer sub-net: counts of the spec, the graph by hand, where AdaIN acts, labels, what it refuses."""

import itertools
import warnings

import pytest
import torch
from torch.nn import functional

from ctlib import chroma, color, ops
from ctlib.data import photos
from ctlib.models import stylization
from ctlib.models.stylization import SITES, Stylization, sites_of
from ctlib.segment.guides import Guide

EVERY = [tuple(some) for n in (1, 2, 3, 4) for some in itertools.combinations(SITES, n)]


def network(encoder: str = "distilled", seed: int = 0) -> Stylization:
    torch.manual_seed(seed)
    return Stylization(encoder).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def called(monkeypatch):
    """Shapes of the features that AdaIN is called with."""
    found, adain = [], ops.adain

    def spy(x, y, *args, **options):
        found.append((tuple(x.shape[1:]), tuple(y.shape[1:])))
        return adain(x, y, *args, **options)

    monkeypatch.setattr(ops, "adain", spy)
    return found


def test_parameters_and_layers_of_the_spec():
    with torch.device("meta"):
        net = Stylization("vgg19")
    assert sum(weight.numel() for weight in net.decoder.parameters()) == 5_053_507
    assert sum(weight.numel() for weight in net.encoder.parameters()) == 3_505_740 - 12
    plan = {name: (layer.in_channels, layer.out_channels) for name, layer in net.decoder.named_children()}
    assert plan == {
        "conv4_1": (512, 256), "conv3_4_2": (768, 256), "conv3_3": (256, 256), "conv3_2": (256, 256),
        "conv3_1": (256, 128), "conv2_2_2": (384, 128), "conv2_1": (128, 64), "conv1_2_2": (192, 64),
        "conv1_1": (64, 3),
    }  # fmt: skip
    assert net(*(torch.empty(1, 3, 32, 48, device="meta") for _ in range(2))).shape == (1, 3, 32, 48)
    assert not any(weight.requires_grad for weight in net.encoder.parameters())


def by_hand(net: Stylization, rgb, reference, sites) -> torch.Tensor:
    """The tables of the spec, layer by layer."""

    def run(part, name, x):
        layer = getattr(part, name)
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="reflect"), layer.weight, layer.bias)

    def through(picture, style=None):
        x, skips, kept = (picture - net.encoder.mean) / net.encoder.std, {}, {}
        for level, names in enumerate((("1_1", "1_2"), ("2_1", "2_2"), ("3_1", "3_2", "3_3", "3_4"), ("4_1",)), 1):
            for name in names:
                x = run(net.encoder, f"conv{name}", x).relu()
                if name.endswith("_1"):
                    if style and "encoder" in sites:
                        x = ops.adain(x, style[f"e{level}"])
                    kept[f"e{level}"] = x
            if level < 4:
                skips[level] = [x, functional.avg_pool2d(x, 2)]
                kept[f"p{level}"] = x = skips[level][1]
        if style and "skip" in sites:
            for level in (1, 2, 3):
                skips[level][1] = ops.adain(skips[level][1], style[f"p{level}"])
        if style and {"decoder", "deepest"} & set(sites) and "encoder" not in sites:
            x = ops.adain(x, style["e4"])
        up = lambda z: z.repeat_interleave(2, 2).repeat_interleave(2, 3)  # noqa: E731
        for level, first, names in (
            (3, "4_1", ("3_4_2", "3_3", "3_2")), (2, "3_1", ("2_2_2",)), (1, "2_1", ("1_2_2",))
        ):  # fmt: skip
            x = run(net.decoder, f"conv{first}", x).relu()
            x = torch.cat([up(x), up(skips[level][1]), skips[level][0]], 1)
            for name in names:
                x = run(net.decoder, f"conv{name}", x).relu()
            if style and "decoder" in sites:
                x = ops.adain(x, style[f"d{level}"])
            kept[f"d{level}"] = x
        return run(net.decoder, "conv1_1", x), kept

    return through(rgb, through(reference)[1])[0]


@torch.no_grad()
@pytest.mark.parametrize("sites", EVERY)
def test_the_graph_by_hand(sites):
    net, rgb, reference = network(), noise(2, 3, 32, 40), noise(2, 3, 24, 16, seed=1) ** 2
    torch.testing.assert_close(net(rgb, reference, sites=sites), by_hand(net, rgb, reference, sites))


@torch.no_grad()
def test_where_adain_acts(called):
    net, rgb, reference = network(), noise(1, 3, 32, 32), noise(1, 3, 16, 16, seed=1)
    for sites in EVERY:
        called.clear()
        net(rgb, reference, sites=sites)
        expected = 4 * ("encoder" in sites) + 3 * ("decoder" in sites) + 3 * ("skip" in sites)
        once = ("decoder" in sites or "deepest" in sites) and "encoder" not in sites
        assert len(called) == expected + once
        assert all(x[0] == y[0] for x, y in called)
    called.clear()
    net.reconstruct(rgb)
    assert not called


@torch.no_grad()
@pytest.mark.parametrize("sites", EVERY)
def test_its_own_reference_changes_nothing(sites):
    """AdaIN(x, x) = x at every site, so the network gives the reconstruction."""
    net, rgb = network(), noise(1, 3, 32, 32)
    torch.testing.assert_close(net(rgb, rgb, sites=sites), net.reconstruct(rgb), rtol=1e-3, atol=1e-4)
    other = net(rgb, noise(1, 3, 32, 32, seed=1) ** 3, sites=sites)
    assert (other - net.reconstruct(rgb)).abs().max() > (5e-3 if sites == ("deepest",) else 1e-2)


@torch.no_grad()
def test_features_get_the_mean_and_deviation_of_the_reference():
    net, rgb = network("compact"), photos.tensor("coffee", 96)[..., :64, :96]
    reference = photos.tensor("china", 96)[..., :48, :96]
    style, before = net.load_encoder().encode(reference), []

    def adapt(level, x):
        before.append(x.var((2, 3)))
        return ops.adain(x, style.levels[level - 1])

    encoded = net.encode(rgb, adapt)
    for own, wanted, variance in zip(encoded.levels, style.levels, before, strict=True):
        alive = variance > 0.1  # what hardly varies is not blown up: 1e-5 is added to each variance
        assert alive.sum() > 8
        torch.testing.assert_close(own.mean((2, 3)), wanted.mean((2, 3)), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(own.std((2, 3))[alive], wanted.std((2, 3))[alive], rtol=1e-4, atol=4e-3)


@torch.no_grad()
def test_alpha_and_a_kept_style():
    net, rgb, reference = network(), noise(2, 3, 32, 32), noise(1, 3, 16, 24, seed=1)
    torch.testing.assert_close(net(rgb, reference, alpha=0.0), net.reconstruct(rgb), rtol=1e-3, atol=1e-4)
    assert torch.equal(net(rgb, net.style(reference)), net(rgb, reference))
    torch.testing.assert_close(net(rgb[1:], reference), net(rgb, reference)[1:], rtol=1e-3, atol=1e-4)


def halves(height: int, width: int) -> torch.Tensor:
    labels = torch.zeros(height, width, dtype=torch.int64)
    labels[:, width // 2 :] = 1
    return labels


@torch.no_grad()
@pytest.mark.parametrize("sites", EVERY)
def test_one_label_everywhere_is_no_label(sites):
    net, rgb, reference = network(), noise(1, 3, 32, 32), noise(1, 3, 16, 32, seed=1)
    same = Guide(torch.zeros(1, 32, 32, dtype=torch.int64), torch.zeros(1, 16, 32, dtype=torch.int64), 1)
    torch.testing.assert_close(net(rgb, reference, same, sites=sites), net(rgb, reference, sites=sites))


@torch.no_grad()
def test_each_region_hears_of_its_own():
    """A change of the reference on the right is heard on the right, but where the kernels reach over."""
    net, rgb = network(), noise(1, 3, 64, 128)
    guide = Guide(halves(64, 128)[None], halves(64, 128)[None], 2)
    reference = noise(1, 3, 64, 128, seed=1)
    changed = reference.clone()
    changed[..., 64:] = changed[..., 64:] ** 4
    apart = (net(rgb, changed, guide) - net(rgb, reference, guide)).abs().amax((0, 1, 2))
    whole = (net(rgb, changed) - net(rgb, reference)).abs().amax((0, 1, 2))
    assert apart[96:].min() > 10 * apart[:4].max() and whole[:4].min() > 10 * apart[:4].max()


@torch.no_grad()
def test_recolor_keeps_lightness_at_any_size():
    net, reference = network("compact"), photos.tensor("china", 90)
    for size in ((37, 120), (64, 64), (33, 250)):
        rgb = chroma.resize(photos.tensor("coffee", 256), size).clamp(0, 1)
        found = net.recolor(rgb, reference, side=64)
        assert found.shape == rgb.shape and found.min() >= 0 and found.max() <= 1
        lightness = [color.rgb_to_lab(one.double())[:, 0] for one in (found, rgb)]
        assert (lightness[0] - lightness[1]).abs().max() < 0.02
    batch = torch.cat([rgb, rgb.flip(3)])
    torch.testing.assert_close(net.recolor(batch, reference, side=64)[:1], found, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_labels_of_recolor():
    net, rgb = network("compact"), photos.tensor("coffee", 96)[..., :64, :96]
    reference = photos.tensor("china", 96)[..., :64, :96]
    labels, ones = halves(64, 96), torch.ones(64, 96, dtype=torch.int64)
    plain = net.recolor(rgb, reference, side=64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(net.recolor(rgb, reference, labels=(ones, ones), side=64), plain)
        guided = net.recolor(rgb, reference, labels=(labels, labels), side=64)
    assert (guided - plain).abs().max() > 0.01
    with pytest.warns(UserWarning, match="share none"):
        torch.testing.assert_close(net.recolor(rgb, reference, labels=(ones, 0 * ones), side=64), plain)
    with pytest.warns(UserWarning, match="source's map .* is scaled"):
        small = net.recolor(rgb, reference, labels=(halves(32, 48), labels), side=64)
    torch.testing.assert_close(small, guided)


GRAY = photos.tensor("coffee", 64)[:, :1].expand(-1, 3, -1, -1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Stylization("vgg"), "encoder: expected one of vgg19, .*compact, got 'vgg'"),
        (lambda: sites_of(()), r"sites: expected some of encoder, decoder, skip, deepest, got \(\)"),
        (lambda: sites_of(["encoder", "middle"]), "sites: expected some of .*middle"),
        (
            lambda: network()(noise(1, 3, 32, 32), noise(1, 3, 32, 36)),
            r"reference: expected \(B, 3, H, W\) with sides that 8 divides",
        ),
        (lambda: network()(noise(1, 3, 30, 32), noise(1, 3, 32, 32)), "rgb: expected .* with sides that 8 divides"),
        (lambda: network()(noise(1, 1, 32, 32), noise(1, 3, 32, 32)), r"rgb: expected \(B, 3, H, W\)"),
        (lambda: network().recolor(noise(1, 3, 9, 9), noise(1, 3, 31, 40)), "reference: expected at least 32 x 32"),
        (lambda: network().recolor(noise(1, 3, 64, 64), GRAY), "reference: is gray and has no color to lend"),
        (lambda: network().recolor(noise(2, 3, 64, 64), noise(3, 3, 64, 64)), "reference: expected 1 or 2 pictures"),
        (lambda: network().recolor(noise(1, 3, 64, 64), noise(1, 3, 64, 64), side=8), "side: expected a whole number"),
        (lambda: network().recolor(255 * noise(1, 3, 64, 64), noise(1, 3, 64, 64)), "rgb: expected sRGB in"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_weights_come_back_with_their_encoder(tmp_path, monkeypatch):
    net = network("compact")
    net.save_pretrained(tmp_path, dtype=torch.float32)
    monkeypatch.setattr(stylization.style_encoders, "load", lambda *_, **__: pytest.fail("looked for an encoder"))
    again = Stylization.from_pretrained(tmp_path)
    pair = noise(1, 3, 32, 32), noise(1, 3, 32, 32, seed=1)
    assert again.encoder_name == "compact" and not again.training and torch.equal(net(*pair), again(*pair))
    assert not any(weight.requires_grad for weight in again.encoder.parameters())
