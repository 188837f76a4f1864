"""How both transfer sub-nets are trained: losses by hand, rates by epochs, runs that go on exactly."""

import numpy as np
import pytest
import torch

from ctlib.data import cache, photos
from ctlib.data.registry import DataError
from ctlib.hubcache import MissingWeights
from ctlib.models import style_encoders
from ctlib.models.stylization import Stylization
from ctlib.models.stylization_once import StylizationOnce
from ctlib.recipes import histogram_analogy
from ctlib.recipes import stylization as recipe
from ctlib.recipes import stylization_once as once
from ctlib.recipes.zhang2016 import squares
from ctlib.settings import Settings

SIDE = 32
SMALL = {"size": SIDE, "side": SIDE, "batch": 2, "log_every": 1, "part": "all"}


@pytest.fixture(scope="module")
def batch() -> dict:
    squares = [cache.resize(photos.load(name), (40, 40)) for name in ("coffee", "china", "flower", "chelsea")]
    first, second = np.stack(squares[:2]), np.stack(squares[2:])
    return {"rgb": torch.from_numpy(first), "other": torch.from_numpy(second), "seed": torch.tensor([3, 2**62])}


def network(kind=Stylization):
    torch.manual_seed(0)
    return kind("compact").load_encoder()


@torch.no_grad()
def test_the_loss_by_hand(batch):
    net = network()
    loss, terms = recipe.Objective(net, side=SIDE)(batch)
    rgb = squares(batch, SIDE, 1.0)
    result = net.reconstruct(rgb)
    seen = [net.encoder(one, ["relu4_1"])["relu4_1"] for one in (result, rgb)]
    assert terms["reconstruction"].item() == pytest.approx((result - rgb).square().mean().item(), rel=1e-5)
    assert terms["perceptual"].item() == pytest.approx((seen[0] - seen[1]).square().mean().item(), rel=1e-4)
    assert loss.item() == pytest.approx((0.8 * terms["reconstruction"] + 0.2 * terms["perceptual"]).item(), rel=1e-6)


@torch.no_grad()
def test_the_students_loss_by_hand(batch):
    net, judge = network(StylizationOnce).train(), style_encoders.load("compact", deep=True)
    loss, terms = once.Objective(net, judge, side=SIDE)(batch)
    rgb, other = (squares({"rgb": batch[name], "seed": batch["seed"]}, SIDE, 0.0) for name in ("rgb", "other"))
    result = net(rgb, other)
    layers = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"]
    made, content, style = (judge(one, layers) for one in (result, rgb, other))
    expected = 0
    for layer, weight in zip([n for n in layers if n != "relu4_2"], (1.0, 0.75, 0.2, 0.2, 0.2), strict=True):
        for row in range(2):
            grams = []
            for features in (made[layer][row], style[layer][row]):
                c, h, w = features.shape
                grams.append(torch.einsum("ahw,bhw->ab", features, features) / (c * h * w))
            expected += weight * (grams[0] - grams[1]).square().sum() / 2
    assert terms["style"].item() == pytest.approx(expected.item(), rel=1e-4)
    wanted = (made["relu4_2"] - content["relu4_2"]).square().mean()
    assert terms["content"].item() == pytest.approx(wanted.item(), rel=1e-4)
    assert terms["reconstruction"].item() == pytest.approx((result - rgb).square().mean().item(), rel=1e-4)
    total = 0.2 * (terms["content"] + 1e6 * terms["style"]) + 0.8 * terms["reconstruction"]
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)


@pytest.mark.parametrize("kind", [Stylization, StylizationOnce])
def test_only_the_decoder_learns(batch, kind):
    net = network(kind).train()
    judge = style_encoders.load("compact", deep=True)
    objective = recipe.Objective(net, side=SIDE) if kind is Stylization else once.Objective(net, judge, side=SIDE)
    objective(batch)[0].backward()
    for name, weight in objective.named_parameters():
        learns = not name.startswith(("model.encoder", "judge"))
        assert weight.requires_grad == learns and (weight.grad is not None) == learns, name


def test_rates_fall_by_epochs():
    settings = Settings(100, batch=4, lr=1.0)
    assert recipe.stairs(settings, "halve", 5, 30).schedule == "halve-38"
    assert recipe.steps_of(settings, 5, 30) == 38 and recipe.steps_of(settings, 0.01, 3) == 1


class PowerCutError(Exception):
    """What stops a training in a test."""


def test_a_style_keeps_full_precision_under_autocast():
    """What is multiplied by a million is a small difference of large numbers."""
    features = torch.rand(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = once.gram(features)
    assert found.dtype == torch.float32 and torch.equal(found, once.gram(features))


@pytest.mark.parametrize("module", [recipe, once])
def test_a_run_cut_and_resumed_ends_with_the_same_bits(tmp_path, caches, monkeypatch, module):
    options = SMALL | {"steps": 3, "save_every": 1, "sample_every": 2}
    whole, history = module.run(tmp_path / "whole", **options)
    assert np.isfinite(history[-1]["loss"]) and history[-1].keys() >= {"loss", "reconstruction"}
    forward, calls = module.Objective.forward, []

    def cut(self, batch):
        calls.append(1)
        if len(calls) == 2:
            raise PowerCutError
        return forward(self, batch)

    monkeypatch.setattr(module.Objective, "forward", cut)
    with pytest.raises(PowerCutError):
        module.run(tmp_path / "cut", **options)
    again, _ = module.run(tmp_path / "cut", **options)
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))
    kind = type(whole)
    assert kind.from_pretrained(tmp_path / "whole").encoder_name == "compact"
    begun, _ = module.run(tmp_path / "on", **options | {"steps": 1, "begin": str(tmp_path / "whole"), "lr": 1e-9})
    own, other = (next(one.parameters()) for one in (begun, whole))
    torch.testing.assert_close(own, other)


def test_the_decoder_learns_to_give_pictures_back(tmp_path, caches):
    data = histogram_analogy.photographs(["photos"], SIDE)
    torch.manual_seed(0)
    before = recipe.validate(network(), data, side=SIDE)
    options = SMALL | {"steps": 60, "batch": 4, "lr": 1e-3, "crop": 0.0, "every": 15}
    net, history = recipe.run(tmp_path / "run", **options)
    after = recipe.validate(net, data, side=SIDE)
    assert after["psnr"] > before["psnr"] + 4 and after["rmse"] < before["rmse"]
    assert history[-1]["lr"] < history[0]["lr"]  # halved every 15 epochs of two steps


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (recipe, {"encoder": "vgg"}, "encoder: expected one of"),
        (recipe, {"encoder": "distilled"}, "file: encoder distilled needs the file"),
        (recipe, {"side": 36}, "side: three halvings"),
        (recipe, {"perceptual": -1}, "perceptual: expected a number"),
        (recipe, {"every": -1}, "every: expected a number"),
        (recipe, {"stlye": 1}, "unknown option 'stlye'; known are .*encoder"),
        (once, {"judge": "vgg19-conv3_1"}, "encoder: expected one of .* to relu5_1"),
        (once, {"near": -1}, "near: expected a whole number"),
        (once, {"style": "much"}, "style: expected a number"),
    ],
)
def test_options_that_lead_nowhere_are_refused(tmp_path, caches, module, options, message):
    with pytest.raises(ValueError, match=message):
        module.run(tmp_path / "run", **SMALL | {"steps": 1} | options)
    assert not (tmp_path / "run").exists()


def test_missing_vgg19_is_one_clear_line(tmp_path, caches, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("ctlib.hubcache.answers", lambda _: False)
    with pytest.raises(MissingWeights, match=r"vgg19-dcbb9e9d.pth are missing, and there is no network.*compact"):
        recipe.run(tmp_path / "run", **SMALL | {"steps": 1, "encoder": "vgg19"})
    with pytest.raises(DataError):
        recipe.run(tmp_path / "run", **SMALL | {"steps": 1, "sets": ["none"]})
