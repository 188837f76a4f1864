"""Zhang 2016: counts and names of the released network, how a distribution is decoded, pictures of any size."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from ctlib import chroma, ops
from ctlib.checkpoints import CheckpointError
from ctlib.data import photos
from ctlib.images import to_tensor
from ctlib.models.zhang2016 import Zhang2016, block, channels


def network(seed: int = 0, **options) -> Zhang2016:
    """In evaluation mode, with norms that have seen pictures: before, hardly anything passes them."""
    torch.manual_seed(seed)
    net = Zhang2016(**{"width": 0.06} | options)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        net(levels(4, 1, 32, 32))
    return net.eval()


def levels(*shape: int, seed: int = 0) -> torch.Tensor:
    return 100 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.fixture(scope="module")
def published() -> Zhang2016:
    with torch.device("meta"):  # no memory, no time: shapes alone
        return Zhang2016()


def test_the_released_network_has_these_parameters(published):
    assert count(published) == 32_236_011
    assert count(published.model_out) == 2 * 313


def test_names_and_shapes_of_the_released_weights(published):
    shapes = {name: tuple(value.shape) for name, value in published.state_dict().items()}
    expected = {}
    plan = {1: (1, 64, 64), 2: (64, 128, 128), 3: (128, 256, 256, 256), 4: (256, 512, 512, 512)}
    plan |= {number: (512, 512, 512, 512) for number in (5, 6, 7)}
    for number, widths in plan.items():
        for place, (inputs, outputs) in enumerate(pairwise(widths)):
            expected[f"model{number}.{2 * place}.weight"] = (outputs, inputs, 3, 3)
            expected[f"model{number}.{2 * place}.bias"] = (outputs,)
        norm = f"model{number}.{2 * (len(widths) - 1)}"
        expected |= {f"{norm}.{name}": (widths[-1],) for name in ("weight", "bias", "running_mean", "running_var")}
        expected[f"{norm}.num_batches_tracked"] = ()
    for place, shape in ((0, (512, 256, 4, 4)), (2, (256, 256, 3, 3)), (4, (256, 256, 3, 3)), (6, (313, 256, 1, 1))):
        expected[f"model8.{place}.weight"] = shape
        expected[f"model8.{place}.bias"] = (shape[1] if place == 0 else shape[0],)
    expected["model_out.weight"] = (2, 313, 1, 1)
    assert shapes == expected


def test_strides_and_dilations(published):
    convs = {name: one for name, one in published.named_modules() if isinstance(one, nn.Conv2d)}
    assert {name for name, one in convs.items() if one.stride == (2, 2)} == {"model1.2", "model2.2", "model3.4"}
    dilated = {name for name, one in convs.items() if one.dilation == (2, 2)}
    assert dilated == {f"model{number}.{place}" for number in (5, 6) for place in (0, 2, 4)}
    assert all(convs[name].padding == (2, 2) for name in dilated)
    for size in ((256, 256), (64, 104)):
        assert published(torch.empty(2, 1, *size, device="meta")).shape == (2, 313, size[0] // 4, size[1] // 4)


def test_the_last_layer_is_the_table_of_bins():
    net = network()
    torch.testing.assert_close(110 * net.model_out.weight[:, :, 0, 0].T, ops.AB_BINS)
    assert not net.model_out.weight.requires_grad  # no loss reaches it
    lightness = levels(1, 1, 16, 24)
    torch.testing.assert_close(net.ab(lightness, None), net.ab(lightness, 1.0), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_temperatures_from_mode_to_mean():
    net, lightness = network(), levels(2, 1, 32, 16)
    nn.init.normal_(net.model8[-1].weight, 0.0, 1.0, generator=torch.Generator().manual_seed(1))
    logits = net(lightness)
    mean = torch.einsum("bqhw,qc->bchw", logits.softmax(1), ops.AB_BINS)
    mode = ops.AB_BINS[logits.argmax(1)].movedim(-1, 1)
    torch.testing.assert_close(net.ab(lightness, 1.0), mean, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(net.ab(lightness, 1e-4), mode, atol=1e-3, rtol=1e-4)
    annealed = torch.einsum("bqhw,qc->bchw", (logits / 0.38).softmax(1), ops.AB_BINS)
    torch.testing.assert_close(net.ab(lightness), annealed, atol=1e-3, rtol=1e-4)
    assert (net.ab(lightness) - mean).abs().max() > 1


@torch.no_grad()
def test_a_folded_temperature_is_not_applied_twice():
    """Logits that were divided by 0.38 already are decoded as the others are."""
    plain, folded = network(), network(folded=0.38)
    folded.load_state_dict(plain.state_dict())
    for part in (folded.model8[-1].weight, folded.model8[-1].bias):
        part.div_(0.38)
    lightness = levels(1, 1, 16, 16)
    for temperature in (0.38, 1.0):
        torch.testing.assert_close(
            folded.ab(lightness, temperature), plain.ab(lightness, temperature), atol=1e-3, rtol=0
        )
    torch.testing.assert_close(folded.ab(lightness, None), plain.ab(lightness), atol=1e-3, rtol=0)


def test_lightness_is_normalized():
    net, seen = network(), []
    net.model1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(torch.tensor([0.0, 50, 100]).repeat_interleave(64).view(3, 1, 8, 8))
    assert seen[0][:, 0, 0, 0].tolist() == [-0.5, 0, 0.5]


@pytest.mark.parametrize("size", [(30, 37), (1, 1), (8, 9), (64, 3)])
@torch.no_grad()
def test_any_size(size):
    net, lightness = network(), levels(2, 1, *size)
    found = net.ab(lightness)
    assert found.shape == (2, 2, -(-size[0] // 4), -(-size[1] // 4)) and found.isfinite().all()
    below, right = (-side % 8 for side in size)
    padded = nn.functional.pad(lightness, (0, right, 0, below), mode="replicate")
    torch.testing.assert_close(found, net.ab(padded)[..., : found.shape[2], : found.shape[3]])


def test_colorize_keeps_the_lightness():
    net = network()
    nn.init.normal_(net.model8[-1].weight, 0.0, 0.3, generator=torch.Generator().manual_seed(1))
    rgb = to_tensor(photos.load("coffee", 90))
    found = net.colorize(rgb, side=64)
    assert found.shape == rgb.shape and found.dtype == rgb.dtype and found.min() >= 0 and found.max() <= 1
    gray = chroma.lightness(rgb)
    again = net.colorize(chroma.join(gray, torch.zeros(1, 2, 1, 1)), side=64)
    torch.testing.assert_close(again, found, atol=2e-3, rtol=0)  # the color of the source does not count
    shown = ops.rgb_to_lab(found)
    inside = ((found > 0.001) & (found < 0.999)).all(1, keepdim=True)  # where nothing was clipped
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(shown[:, :1][inside], gray[inside], atol=0.02, rtol=0)
    assert not torch.equal(net.colorize(rgb, side=32), found)
    assert net.colorize(rgb.double(), side=32).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Zhang2016(width=0), "width: expected a factor above 0, at most 4, got 0"),
        (lambda: Zhang2016(width="wide"), "width: expected a factor"),
        (lambda: Zhang2016(width=0.1, folded=2), "folded: expected a temperature above 0, at most 1, got 2"),
        (lambda: Zhang2016(width=0.1, init="zero"), "init: expected one of he, normal, got 'zero'"),
        (lambda: network()(levels(1, 1, 12, 16)), "lightness: 8 must divide its sides, got .*; use ab or colorize"),
        (lambda: network().ab(levels(1, 3, 8, 8)), r"lightness: expected L\* \(B, 1, H, W\), got \(1, 3, 8, 8\)"),
        (lambda: network().ab(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)), "lightness: expected a float tensor"),
        (lambda: network().ab(levels(1, 1, 8, 8), 0.0), "temperature: expected a finite number above 0"),
        (lambda: network().colorize(torch.rand(3, 8, 8)), r"rgb: expected"),
        (lambda: network().colorize(torch.rand(1, 3, 8, 8), side=4), "side: expected a whole number of at least 8"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_weights_come_back(tmp_path):
    net = network(width=0.1)
    net.save_pretrained(tmp_path / "net", dtype=torch.float32)
    back = Zhang2016.from_pretrained(tmp_path / "net")
    assert all(map(torch.equal, net.state_dict().values(), back.state_dict().values()))
    assert torch.equal(net.ab(levels(1, 1, 16, 16)), back.ab(levels(1, 1, 16, 16)))
    with pytest.raises(CheckpointError, match="no such weights"):
        Zhang2016.from_pretrained("no-such-name")


def test_widths():
    assert channels(1) == [64, 128, 256, 512] and channels(0.25) == [16, 32, 64, 128] and channels(0.01)[0] == 4
    with torch.device("meta"):
        counts = [count(Zhang2016(width)) for width in (0.125, 0.25, 0.5)]
    assert counts[0] < 0.6e6 < counts[1] < 2.2e6 < counts[2] < 8.3e6
    assert len(block([1, 4, 4])) == 5


@pytest.mark.parametrize("init", ["he", "normal"])
def test_at_the_start_nothing_is_claimed(init):
    """Heads start small: the first distribution is nearly even, and its entropy the greatest."""
    with torch.no_grad():
        share = network(init=init)(levels(1, 1, 16, 16)).softmax(1)
    assert -(share * share.log()).sum(1).mean().item() == pytest.approx(torch.log(torch.tensor(313.0)).item(), abs=0.1)
