"""The compact encoder: sizes, the laws of its layers, what it refuses, and the weights that are shipped."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from ctlib import checkpoints
from ctlib.models.features import LAYERS, TAPS, Features, Pyramid, layers_of

SMALL = [4, 6, 8, 10, 12]


def network(widths=SMALL, seed: int = 0) -> Features:
    torch.manual_seed(seed)
    return Features(widths).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_is_small():
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in Features().parameters())
    # 3x3 kernels and biases between 3, 24, 24, 48, 48, 96, 96, 192, 192, 192 channels
    widths = (3, 24, 24, 48, 48, 96, 96, 192, 192, 192)
    assert parameters == sum(9 * a * b + b for a, b in pairwise(widths)) == 991_704
    assert 2 * parameters <= 3e6  # bytes in float16


def test_layers_have_their_sizes():
    net, rgb = network(), noise(2, 3, 48, 80)
    found = net(rgb, LAYERS)
    assert tuple(found) == LAYERS
    for name, features in found.items():
        level = int(name[-1] if name.startswith("pool") else name[4])
        stride = 2 ** (level - (0 if name.startswith("pool") else 1))
        assert features.shape == (2, SMALL[level - 1], 48 // stride, 80 // stride), name
        assert net.channels(name) == SMALL[level - 1] and (features >= 0).all()
    assert tuple(net(rgb)) == TAPS
    assert net(rgb, ["relu3_1", "relu1_1"]).keys() == {"relu1_1", "relu3_1"}
    assert torch.equal(net(rgb)["relu4_1"], found["relu4_1"])


def test_it_computes_as_vgg_with_averages_and_reflection():
    net, rgb = network(), noise(1, 3, 32, 40)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    features = (rgb - mean[:, None, None]) / std[:, None, None]
    for conv in (net.conv1_1, net.conv1_2):
        padded = functional.pad(features, (1, 1, 1, 1), mode="reflect")
        features = functional.conv2d(padded, conv.weight, conv.bias).clamp(min=0)
    halves = features.unflatten(3, (20, 2)).unflatten(2, (16, 2)).mean((3, 5))
    torch.testing.assert_close(net(rgb, ["pool1"])["pool1"], halves)


def test_what_is_not_asked_for_is_not_computed(monkeypatch):
    net = network()
    monkeypatch.setattr(net.conv2_1, "forward", lambda *_: pytest.fail("computed"))
    assert net(noise(1, 3, 8, 8), ["pool1"])["pool1"].shape == (1, 4, 4, 4)


def test_a_constant_picture_has_constant_features():
    """Zeros around the picture would show, and a loss would paint a frame."""
    for features in network()(torch.full((1, 3, 64, 64), 0.3), LAYERS).values():
        torch.testing.assert_close(features, features[..., :1, :1].expand_as(features), rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_picture():
    rgb = noise(1, 3, 32, 32).requires_grad_()
    sum(features.sum() for features in network()(rgb, LAYERS).values()).backward()
    assert rgb.grad.isfinite().all() and (rgb.grad != 0).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Features([1, 2, 3]), "widths: expected 5 whole numbers"),
        (lambda: Features([1, 2, 3, 4, 0.5]), "widths"),
        (lambda: network()(noise(1, 3, 32, 32), ["relu9_1"]), "layers: 'relu9_1' is none of"),
        (lambda: network()(noise(1, 3, 32, 32), []), "layers: name at least one"),
        (lambda: network()(noise(1, 1, 32, 32)), "rgb: expected"),
        (lambda: network()(noise(3, 32, 32)), "rgb: expected"),
        (lambda: network()(noise(1, 3, 31, 40), LAYERS), "at least 32 pixels for relu5_1"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_the_smallest_pictures():
    for layer in LAYERS:
        side = 2 ** int(layer[4])
        assert network()(noise(1, 3, side, side), [layer])[layer].isfinite().all()


def test_it_is_saved_and_read(tmp_path):
    net = network()
    net.save_pretrained(tmp_path, dtype=torch.float32)
    again = Features.from_pretrained(tmp_path)
    rgb = noise(1, 3, 32, 32)
    assert torch.equal(net(rgb)["relu4_1"], again(rgb)["relu4_1"])
    assert "mean" not in checkpoints.load_weights(tmp_path / checkpoints.WEIGHTS)


@pytest.fixture(scope="module")
def shipped() -> Features:
    if not (checkpoints.SHIPPED / "features-compact").is_dir():
        pytest.skip("features-compact is not in data/pretrained yet")
    return Features.from_pretrained("features-compact")


def test_shipped_features_are_alive_and_differ(shipped):
    from ctlib import images
    from ctlib.data import photos

    rgb = torch.cat([images.to_tensor(images.resize(photos.load(name), 128))[..., :80, :80].float()
                     for name in ("coffee", "china", "flower")])  # fmt: skip
    for name, features in shipped(rgb, (*TAPS, "relu5_1")).items():
        assert features.isfinite().all()
        alive = (features.flatten(2).amax(2) > 0).any(0).double().mean()
        assert alive > (0.5 if name == "relu5_1" else 0.8), f"{name}: {1 - alive:.0%} of the channels say nothing"
        one, other = features[0].mean((1, 2)), features[1].mean((1, 2))
        assert functional.cosine_similarity(one, other, dim=0) < 0.999 or math.isclose(float(name[4]), 1)


def test_a_pyramid_adapts_at_the_first_layer_of_each_scale():
    net, rgb, seen = network(), noise(1, 3, 32, 32), []

    def adapt(level, features):
        seen.append(level)
        return 2 * features if level == 2 else features

    plain, found = net(rgb, LAYERS), net(rgb, LAYERS, adapt)
    assert seen == [1, 2, 3, 4, 5]
    assert torch.equal(found["relu2_1"], 2 * plain["relu2_1"]) and torch.equal(found["pool1"], plain["pool1"])
    expected = functional.relu(net.conv2_2(2 * plain["relu2_1"]))
    assert torch.equal(found["relu2_2"], expected)


def test_names_of_vgg19s_layers():
    names = layers_of((2, 2, 4, 1))
    assert names[6:] == ("relu3_1", "relu3_2", "relu3_3", "relu3_4", "pool3", "relu4_1")
    assert Pyramid((4, 4), (1, 2)).layers == ("relu1_1", "pool1", "relu2_1", "relu2_2")
