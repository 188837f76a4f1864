"""Distances of deep features: LPIPS equals its authors' package, ours its formula; both always have a gradient."""

import os
from pathlib import Path

import pytest
import torch

from ctlib import checkpoints, metrics
from ctlib.hubcache import MissingWeights
from ctlib.models import imagenet
from ctlib.models.features import Features
from ctlib.perceptual_losses import SEEN, CompactPerceptual, Lpips

WEIGHTS = Path(os.environ.get("CTLIB_DATA", "nowhere")) / "weights"
TRUNK = WEIGHTS / "squeezenet1_1_torchvision_fp16.safetensors"


def smooth(*shape: int, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(*shape[:2], 6, 7, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear")


def encoder(seed: int = 0) -> Features:
    torch.manual_seed(seed)
    return Features([4, 6, 8, 10, 12])


def compact(**options) -> CompactPerceptual:
    return CompactPerceptual(encoder(), **options)


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    if not TRUNK.is_file():
        pytest.skip(f"CTLIB_DATA has no {TRUNK.name}")
    pytest.importorskip("lpips")
    return Lpips("squeeze")


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained'", "ignore:Arguments other than a weight enum")
def test_lpips_equals_its_authors_package(lpips):
    """On three fixed pairs, fed to the package by its own door."""
    import lpips as package

    trunk = checkpoints.load_weights(TRUNK)
    peer = package.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    peer.net.load_state_dict({name: trunk["features." + name.partition(".")[2]] for name in peer.net.state_dict()})
    first, second = smooth(3, 3, 64, 72, seed=1), smooth(3, 3, 64, 72, seed=2)
    second[1] = 0.9 * first[1] + 0.1 * second[1]  # near
    second[2] = first[2].mean(0)  # gray
    with torch.no_grad():
        expected = peer(first, second, normalize=True).flatten()
        found = lpips(first, second)
    assert (expected > 0.01).all() and len(set(expected.tolist())) == 3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    ours = metrics.lpips(first, second, "squeeze", trunk=imagenet.weights("squeezenet1_1"))
    torch.testing.assert_close(found.double(), ours, rtol=0, atol=1e-5)


def test_compact_equals_its_formula():
    loss, first, second = compact(), smooth(2, 3, 32, 48), smooth(2, 3, 32, 48, seed=1)
    with torch.no_grad():
        total = 0
        for f, g in zip(loss.encoder(first, SEEN).values(), loss.encoder(second, SEEN).values(), strict=True):
            cosine = torch.nn.functional.cosine_similarity(f, g, dim=1)
            lengths = (f > 0).any(1).float() + (g > 0).any(1).float()  # 1 each; what is nothing has no direction
            total = total + (lengths - 2 * cosine).mean((1, 2)) / len(SEEN)
        torch.testing.assert_close(loss(first, second), total, rtol=1e-3, atol=1e-5)
        weighted = compact(layers=["relu2_1", "relu1_1"], weights=[1.0, 0.0])
        only = compact(layers=["relu1_1"])
        torch.testing.assert_close(weighted(first, second), only(first, second))


@pytest.mark.parametrize("make", ["compact", "lpips"])
def test_laws_of_a_distance(make, request):
    loss = compact() if make == "compact" else request.getfixturevalue("lpips")
    first, second = smooth(2, 3, 40, 48), smooth(2, 3, 40, 48, seed=1)
    with torch.no_grad():
        assert loss(first, first).abs().max() < 1e-6
        assert (loss(first, second) > 1e-3).all()
        torch.testing.assert_close(loss(first, second), loss(second, first))
        near = loss(first + 0.1 * (second - first), first)
        assert (near < loss(second, first)).all()


@pytest.mark.parametrize("make", ["compact", "lpips"])
def test_it_leads_a_picture_to_its_target(make, request):
    loss = compact() if make == "compact" else request.getfixturevalue("lpips")
    target = smooth(1, 3, 32, 32)
    rgb = target.mean(1, keepdim=True).repeat(1, 3, 1, 1).requires_grad_()
    optimizer = torch.optim.Adam([rgb], 0.01)
    values = []
    for _ in range(15):
        value = loss(rgb, target).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]
    assert all(weight.grad is None for weight in loss.parameters())


@pytest.mark.parametrize("make", ["compact", "lpips"])
def test_gradients_are_finite_where_features_vanish(make, request):
    """Black, white, identical pictures; and a network to which a picture is nothing at all."""
    loss = compact() if make == "compact" else request.getfixturevalue("lpips")
    flat = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32), torch.full((3, 32, 32), 1.4)])
    rgb = flat.clone().requires_grad_()
    loss(rgb, flat.clone().clamp(max=1)).sum().backward()
    assert rgb.grad.isfinite().all()
    if make == "compact":
        for weight in loss.encoder.parameters():
            weight.zero_()
        rgb = flat.clone().requires_grad_()
        loss(rgb, flat).sum().backward()
        assert rgb.grad.isfinite().all()


def test_it_stays_frozen_within_a_training():
    loss = compact().train()
    assert not loss.training and not loss.encoder.training
    assert not any(weight.requires_grad for weight in loss.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compact(layers=["conv9"]), "layers: .*conv9"),
        (lambda: compact(layers=[]), "layers: expected some of"),
        (lambda: compact(weights=[0.5, 0.5]), "weights: expected 5 that add up to 1"),
        (lambda: compact(layers=["relu1_1", "pool2"], weights=[2, -1]), "weights"),
        (lambda: Lpips("resnet"), "net: expected one of alex, vgg, squeeze"),
        (lambda: imagenet.weights("vgg99"), "name: expected one of resnet18, squeezenet1_1"),
    ],
)
def test_bad_options_are_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_missing_trunk_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    for make in (lambda: Lpips("squeeze", download=False), lambda: Lpips("alex", download=False)):
        with pytest.raises(MissingWeights, match=r"(squeezenet1_1|alexnet).*missing.*go online") as error:
            make()
        assert "\n" not in str(error.value)
    with pytest.raises(checkpoints.CheckpointError, match="there are no weights"):
        Lpips("squeeze", "nowhere.safetensors")
