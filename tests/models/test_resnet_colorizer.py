"""The network of the loss study: counts and names of its checkpoints, what is frozen, codes, any size, no network."""

import re

import pytest
import torch
from torch import nn

from ctlib import chroma, color, metrics, ops
from ctlib.checkpoints import CheckpointError
from ctlib.hubcache import MissingWeights
from ctlib.models import imagenet
from ctlib.models.resnet_colorizer import ENCODERS, OUTPUTS, ResnetColorizer, decode_ab

pytest.importorskip("torchvision")


def network(output: str = "lab", encoder: str = "squeezenet-tuned", seed: int = 0, **options) -> ResnetColorizer:
    torch.manual_seed(seed)
    return ResnetColorizer(output, encoder, **options).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def count(part: nn.Module) -> int:
    return sum(weight.numel() for weight in part.parameters())


@pytest.mark.parametrize(("output", "decoder"), [("rgb", 278_211), ("lab", 277_922)])
@pytest.mark.parametrize("encoder", ["frozen-random", "imagenet-tuned"])
def test_the_study_has_the_parameters_of_the_spec(output, decoder, encoder):
    net = network(output, encoder)
    assert (count(net.midlevel_resnet), count(net.upsample)) == (676_800, decoder)


def test_the_names_are_those_of_the_studys_checkpoints():
    net = network("rgb", "frozen-random")
    places = {name.rsplit(".", 1)[0] for name in net.state_dict() if name.startswith("upsample")}
    assert places == {f"upsample.{n}" for n in (0, 1, 4, 5, 7, 8, 11, 12, 14)}
    heads = {re.match(r"midlevel_resnet\.\d+", name).group() for name in net.state_dict() if name.startswith("mid")}
    assert heads == {f"midlevel_resnet.{n}" for n in (0, 1, 4, 5)}
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes["midlevel_resnet.0.weight"] == (64, 1, 7, 7) and shapes["upsample.14.weight"] == (3, 32, 3, 3)
    assert shapes["midlevel_resnet.5.0.downsample.0.weight"] == (128, 64, 1, 1)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("skips", [False, True])
def test_shapes(encoder, skips):
    for output in OUTPUTS:
        net = network(output, encoder, skips=skips)
        code = net(noise(2, 1, 48, 64) * (100 if output == "lab" else 1))
        assert code.shape == (2, 3 if output == "rgb" else 2, 48, 64) and code.abs().max() <= 1


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_new_network_says_about_gray(output):
    for skips in (False, True):
        rgb = network(output, "frozen-random", skips=skips).colorize(noise(1, 3, 40, 48), 32)
        assert metrics.colorfulness(rgb).item() < 25


def moved(net: ResnetColorizer, before: dict) -> set[str]:
    return {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_frozen_is_frozen(encoder):
    """In the study, of a frozen encoder nothing but the statistics of its norms moves."""
    for bn in ("moving", "fixed"):
        net = network("rgb", encoder, bn=bn).train()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        optimizer = torch.optim.Adam([weight for weight in net.parameters() if weight.requires_grad], 0.01)
        net(noise(2, 1, 32, 32)).square().mean().backward()
        optimizer.step()
        trunk = {name for name in moved(net, before) if name.startswith(net.trunk_name)}
        statistics = {name for name in trunk if re.search(r"running|batches_tracked", name)}
        assert moved(net, before) - trunk  # the decoder learns
        if encoder.endswith("tuned"):
            assert trunk - statistics
        else:
            assert trunk == statistics
            assert bool(statistics) == (bn == "moving" and net.trunk_name == "midlevel_resnet")


def test_codes_go_there_and_back():
    rgb = noise(2, 3, 16, 24)
    for output in OUTPUTS:
        net = network(output)
        given, code = net.encode(rgb)
        torch.testing.assert_close(net.decode(code, given), rgb, rtol=0, atol=2e-3)
    luma, code = network("rgb").encode(rgb)
    expected = 0.2989 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2]
    torch.testing.assert_close(luma[:, 0], expected)
    torch.testing.assert_close(code, (rgb - 0.5) / 0.5)
    lightness, code = network("lab").encode(rgb)
    lab = color.rgb_to_lab(rgb.double()).float()
    torch.testing.assert_close(lightness, lab[:, :1], rtol=0, atol=1e-3)
    torch.testing.assert_close(code, (lab[:, 1:] + 128) / 256, rtol=0, atol=1e-5)


def test_the_studys_way_back_is_no_inverse():
    """ab x 254 - 128 of (ab + 128) / 256: neutral becomes -1 in both channels, a little green and blue."""
    ab = torch.tensor([[[[0.0, -128.0, 60.0]], [[0.0, 20.0, -50.0]]]])
    code = (ab + 128) / 256
    torch.testing.assert_close(decode_ab(code), ab)
    shifted = decode_ab(code, bug_compat=True)
    torch.testing.assert_close(shifted, 254 / 256 * (ab + 128) - 128)
    assert shifted[0, :, 0, 0].tolist() == [-1, -1]
    gray = torch.full((1, 1, 8, 8), 50.0)
    plain, bug = (network(bug_compat=bug, seed=3) for bug in (False, True))
    torch.testing.assert_close(bug.ab(gray), 254 / 256 * (plain.ab(gray) + 128) - 128, rtol=1e-4, atol=1e-3)


def test_the_missing_root():
    """PSNR_true = PSNR_rep / 2 + 10 log10 2, for pictures and for means over them."""
    first, second = noise(4, 3, 16, 16).double(), noise(4, 3, 16, 16, seed=1).double()
    true, reported = metrics.psnr(first, second), metrics.psnr_missing_root(first, second)
    torch.testing.assert_close(true, reported / 2 + 3.0103, rtol=0, atol=1e-4)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("skips", [False, True])
def test_pictures_of_any_size_keep_their_lightness(output, skips):
    net = network(output, skips=skips)
    for height, width in ((1, 1), (37, 90), (64, 64)):
        rgb = 0.3 + 0.4 * noise(1, 3, height, width)
        result = net.colorize(rgb, 48)
        assert result.shape == rgb.shape
        inside = ((result > 0) & (result < 1)).all(1, keepdim=True)
        error = (chroma.lightness(result) - chroma.lightness(rgb)).abs()
        assert error[inside].max() < 0.05 if inside.any() else True


@pytest.mark.parametrize("output", OUTPUTS)
def test_pictures_in_double_precision(output):
    net, rgb = network(output), noise(1, 3, 40, 48).double()
    for color_it in (net.colorize, net.predict):
        torch.testing.assert_close(color_it(rgb, 48).float(), color_it(rgb.float(), 48), rtol=0, atol=1e-3)


def test_what_an_rgb_network_says_itself_has_its_own_lightness():
    net, rgb = network("rgb"), noise(1, 3, 40, 56)
    said, joined = net.predict(rgb, 48), net.colorize(rgb, 48)
    assert said.shape == joined.shape == rgb.shape and (said - joined).abs().max() > 0.05
    assert torch.equal(network("lab").predict(rgb, 48), network("lab").colorize(rgb, 48))


def test_ab_of_an_rgb_network_is_that_of_its_picture():
    net = network("rgb")
    gray = torch.full((1, 3, 16, 16), 0.4)
    picture = net.decode(net(gray[:, :1])).clamp(0, 1)
    torch.testing.assert_close(net.ab(chroma.lightness(gray)), ops.rgb_to_lab(picture)[:, 1:], rtol=1e-3, atol=0.05)


def torchvisions(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return imagenet.architecture(name).state_dict()


@pytest.mark.parametrize("skips", [False, True])
def test_imagenets_weights_find_their_places(skips, tmp_path):
    """Features of a gray picture are torchvision's own, with zeros around it in SqueezeNet too."""
    from torchvision import models

    gray = noise(1, 1, 64, 64)
    three = gray.expand(-1, 3, -1, -1)
    for name, encoder in (("resnet18", "imagenet-tuned"), ("squeezenet1_1", "squeezenet-frozen")):
        torch.save(torchvisions(name), tmp_path / f"{name}.pth")
        peer = models.get_model(name, weights=None).eval()
        peer.load_state_dict(torchvisions(name))
        net = network("rgb", encoder, skips=skips).load_imagenet(tmp_path / f"{name}.pth").eval()
        if name == "resnet18":
            layers = nn.Sequential(*list(peer.children())[: len(net.trunk)])
        else:
            layers = peer.features[: len(net.trunk)]
            layers[0].padding = (1, 1)
        with torch.no_grad():
            torch.testing.assert_close(net.trunk(gray), layers(three), rtol=1e-3, atol=1e-4)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(torchvisions("squeezenet1_1"), tmp_path / "s.pth")
    with pytest.raises(ValueError, match="not torchvision's weights of resnet18"):
        network("rgb", "imagenet-frozen").load_imagenet(tmp_path / "s.pth")
    with pytest.raises(ValueError, match="frozen-random has random weights"):
        network("rgb", "frozen-random").load_imagenet()
    with pytest.raises(CheckpointError, match="there are no weights"):
        network().load_imagenet(tmp_path / "none.safetensors")
    (tmp_path / "bad.pth").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"bad.pth: not readable as tensors"):
        network().load_imagenet(tmp_path / "bad.pth")


def test_offline_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"resnet18-f37072fd.pth.*name the file.*squeezenet-") as error:
        network("rgb", "imagenet-frozen").load_imagenet(download=False)
    assert "\n" not in str(error.value)
    with pytest.raises(MissingWeights, match=r"squeezenet1_1-b8a52dc0.pth"):
        network().load_imagenet(download=False)


def test_trained_weights_are_read_without_any_others(monkeypatch, tmp_path):
    net = network("lab", "imagenet-tuned", skips=True, width=0.5)
    net.save_pretrained(tmp_path, dtype=torch.float32)
    monkeypatch.setattr(imagenet, "weights", lambda *_, **__: pytest.fail("looked for ImageNet's weights"))
    again = ResnetColorizer.from_pretrained(tmp_path)
    gray = 100 * noise(1, 1, 32, 32)
    assert torch.equal(net(gray), again(gray)) and not again.training


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network("xyz"), "output: expected one of rgb, lab"),
        (lambda: network(encoder="vgg"), "encoder: expected one of frozen-random"),
        (lambda: network(bn="off"), "bn: expected one of moving, fixed"),
        (lambda: network(skips="yes"), "skips"),
        (lambda: network(width=2.0), "width: the decoder of the study"),
        (lambda: network(skips=True, width=0), "width: expected a factor"),
        (lambda: network()(noise(1, 1, 30, 32)), "sides that 8 divides.*colorize takes any size"),
        (lambda: network(skips=True)(noise(1, 1, 40, 40)), "sides that 16 divides"),
        (lambda: network()(noise(1, 3, 32, 32)), r"gray: expected \(B, 1, H, W\)"),
        (lambda: network().colorize(noise(1, 3, 32, 32) * 255, 32), "rgb: expected sRGB"),
        (lambda: network().colorize(noise(1, 3, 32, 32), 4), "side"),
        (lambda: network("rgb").predict(noise(1, 3, 32, 32), 4), "side"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_saturation_is_a_factor_of_the_colors():
    net, rgb = network("lab", "squeezenet-frozen", skips=True).eval(), noise(1, 3, 40, 48)
    torch.nn.init.normal_(net.unet.head.weight, 0.0, 0.01)
    full, half, none = (ops.rgb_to_lab(net.colorize(rgb, 32, saturation=one))[:, 1:] for one in (1.0, 0.5, 0.0))
    assert none.abs().max() < 0.01 < half.abs().mean() < full.abs().mean()
    for wrong in (-0.1, 3, float("nan"), "a", True):
        with pytest.raises(ValueError, match="saturation: expected a factor of 0 to 2"):
            net.colorize(rgb, 32, saturation=wrong)
