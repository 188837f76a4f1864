"""How the network of the loss study is trained: its losses by hand, the options of a run, runs that go on exactly."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ctlib import ops, paths
from ctlib.checkpoints import load_weights
from ctlib.data import cache, photos
from ctlib.hubcache import MissingWeights
from ctlib.models import imagenet
from ctlib.models.features import Features
from ctlib.models.resnet_colorizer import ResnetColorizer
from ctlib.perceptual_losses import CompactPerceptual
from ctlib.recipes import resnet_colorizer as recipe
from ctlib.recipes.resnet_colorizer import COMBOS, Objective

pytest.importorskip("torchvision")
SIDE = 32


def network(output: str = "rgb", **options) -> ResnetColorizer:
    torch.manual_seed(0)
    return ResnetColorizer(output, "squeezenet-tuned", **options)


def compact() -> CompactPerceptual:
    torch.manual_seed(1)
    return CompactPerceptual(Features([4, 6, 8, 10, 12]))


@pytest.fixture(scope="module")
def batch() -> dict:
    squares = [cache.resize(photos.load(name), (40, 40)) for name in ("coffee", "china", "flower")]
    return {"rgb": torch.from_numpy(np.stack(squares)), "seed": torch.tensor([3, 4, 2**62])}


@torch.no_grad()
@pytest.mark.parametrize("output", ["rgb", "lab"])
@pytest.mark.parametrize("loss", ["l2", "huber", "compact"])
def test_the_losses_by_hand(batch, output, loss):
    judge = compact() if loss == "compact" else None
    objective = Objective(network(output), loss=loss, side=SIDE, delta=2.0, judge=judge).eval()
    value, terms = objective(batch)
    rgb, given, wanted = objective.pair(batch)
    assert rgb.shape == (3, 3, SIDE, SIDE)
    code, lab = objective.model(given), ops.rgb_to_lab(rgb)
    if loss == "compact":
        made = 0.5 * code + 0.5 if output == "rgb" else ops.lab_to_rgb(torch.cat([lab[:, :1], 256 * code - 128], dim=1))
        expected = judge(made, rgb).mean()
    else:
        right = 2 * rgb - 1 if output == "rgb" else (lab[:, 1:] + 128) / 256
        torch.testing.assert_close(wanted, right)
        error, delta = (code - right).abs(), 2 / (127.5 if output == "rgb" else 256)
        small = error < delta
        squares = error.square() if loss == "l2" else torch.where(small, error.square() / 2 / delta, error - delta / 2)
        expected = squares.mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-4) and terms.keys() == {loss}


@torch.no_grad()
def test_vivid_pixels_count_more(batch):
    plain, vivid = (Objective(network("lab"), side=SIDE, vivid=vivid).eval() for vivid in (0.0, 2.0))
    _, given, wanted = plain.pair(batch)
    error = (plain.model(given) - wanted).square()
    chroma = (256 * wanted - 128).norm(dim=1, keepdim=True)
    assert vivid(batch)[0].item() == pytest.approx((error * (1 + 2 * chroma / 50)).mean().item(), rel=1e-4)
    for options in ({"output": "rgb"}, {"loss": "compact", "judge": compact()}):
        with pytest.raises(ValueError, match="vivid"):
            Objective(network(options.pop("output", "lab")), side=SIDE, vivid=1.0, **options)


@pytest.mark.parametrize("name", COMBOS)
def test_every_combination_has_a_gradient(batch, name):
    loss = COMBOS[name]["loss"]
    try:
        objective = Objective(network(COMBOS[name]["output"]), side=SIDE, loss=loss,
                              judge=compact() if loss == "compact" else None)  # fmt: skip
    except MissingWeights as error:
        pytest.skip(str(error)[:80])
    objective(batch)[0].backward()
    for part, weight in objective.model.named_parameters():
        assert weight.grad.isfinite().all(), part
    assert any((weight.grad != 0).any() for weight in objective.model.parameters())


def test_without_augmentation_pictures_come_as_they_are(batch):
    rgb = Objective(network(), side=40).pair(batch)[0]
    torch.testing.assert_close(rgb, batch["rgb"].permute(0, 3, 1, 2) / 255)
    first, again, other = (
        Objective(network(), side=SIDE, augment=True).pair(batch | {"seed": torch.tensor(seeds)})[0]
        for seeds in ([1, 2, 3], [1, 2, 3], [4, 5, 6])
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.fixture
def pictures(caches):
    folder = paths.data_dir() / "pictures"
    folder.mkdir(parents=True)
    for number in range(4):
        rgb = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(folder / f"{number}.png")
    return {"sets": ["pictures"], "part": "all", "size": 40, "side": SIDE, "batch": 2, "log_every": 1}


class PowerCutError(Exception):
    pass


def test_an_interrupted_run_ends_with_the_same_bits(caches, pictures, monkeypatch):
    options = pictures | {"steps": 4, "save_every": 2, "augment": True, "output": "lab"}
    whole, _ = recipe.run(caches / "whole", **options)
    forward, calls = Objective.forward, []

    def cut(self, batch):
        calls.append(1)
        if len(calls) == 4:
            raise PowerCutError
        return forward(self, batch)

    monkeypatch.setattr(Objective, "forward", cut)
    with pytest.raises(PowerCutError):
        recipe.run(caches / "cut", **options)
    again, history = recipe.run(caches / "cut", **options)
    assert history[-1]["step"] == 4
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
    saved = load_weights(caches / "cut" / "model.safetensors")
    assert saved.keys() == again.state_dict().keys()
    assert ResnetColorizer.from_pretrained(caches / "cut").output == "lab"


def test_a_run_begins_from_imagenets_weights(caches, pictures, tmp_path):
    torch.manual_seed(9)
    peer = imagenet.architecture("squeezenet1_1")
    torch.save(peer.state_dict(), tmp_path / "s.pth")
    options = pictures | {"steps": 1, "encoder": "squeezenet-frozen", "weights": str(tmp_path / "s.pth")}
    net, _ = recipe.run(caches / "run", **options)
    torch.testing.assert_close(net.squeezenet[0].weight, peer.features[0].weight.sum(1, keepdim=True))
    assert torch.equal(net.squeezenet[3].squeeze.weight, peer.features[3].squeeze.weight)


def test_the_grid_shows_gray_result_and_truth(batch):
    class Three:
        def __len__(self):
            return 3

        def __getitem__(self, place):
            return {"rgb": batch["rgb"][place[0]], "seed": place[1]}

    for output in ("rgb", "lab"):
        objective = Objective(network(output), side=SIDE)
        shown = recipe.grid(objective, Three(), 3)(objective.model.eval())
        assert shown.shape == (3, 3 * SIDE, 3 * SIDE) and shown.min() >= 0 and shown.max() <= 1
        assert torch.equal(shown[0, :SIDE], shown[2, :SIDE])
        assert torch.equal(shown[:, 2 * SIDE :, :SIDE], objective.pair(batch)[0][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"looss": "l2"}, "unknown option 'looss'.*encoder"),
        ({"loss": "l3"}, "loss: expected one of l2, huber, lpips, compact"),
        ({"side": 36}, "side: expected at least 32 pixels that 8 divides"),
        ({"side": 48}, "squares of 48 pixels are not to be had from 40"),
        ({"size": 40.5}, "size: expected a whole number"),
        ({"augment": "yes"}, "augment: expected true or false"),
        ({"delta": 0}, "delta: expected a number"),
        ({"encoder": "vgg"}, "encoder: expected one of"),
        ({"weights": "resnet18.pth"}, "encoder: frozen-random has random weights"),
        ({"width": 2}, "width: the decoder of the study"),
        ({"part": "most"}, "part: expected one of"),
    ],
)
def test_bad_options_are_one_clear_line(caches, pictures, options, message):
    with pytest.raises(ValueError, match=message) as error:
        recipe.run(caches / "run", **pictures | {"steps": 1} | options)
    assert "\n" not in str(error.value) and not (caches / "run").exists()


def test_the_norms_of_a_frozen_encoder_move_as_in_the_study(batch):
    for bn, moves in (("moving", True), ("fixed", False)):
        net = ResnetColorizer("rgb", "frozen-random", bn)
        before = net.midlevel_resnet[1].running_mean.clone()
        Objective(net, side=SIDE).train()(batch)
        assert torch.equal(before, net.midlevel_resnet[1].running_mean) != moves
    assert isinstance(net.midlevel_resnet[1], nn.BatchNorm2d)
