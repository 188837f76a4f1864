"""How Zhang 2017 is trained: its losses by hand, stages, hints as a function of seeds, runs that go on exactly."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from ctlib import hints, ops
from ctlib.checkpoints import CheckpointError
from ctlib.data import cache, photos
from ctlib.models.zhang2017 import Zhang2017, class_of
from ctlib.recipes import histogram_analogy
from ctlib.recipes import zhang2017 as recipe
from ctlib.recipes.zhang2016 import network_of, squares
from ctlib.recipes.zhang2017 import Objective

SIDE = 32


def network(kind: str = "local", **options) -> Zhang2017:
    torch.manual_seed(0)
    return Zhang2017(kind, **{"width": 0.06, "init": "he"} | options)


@pytest.fixture(scope="module")
def batch() -> dict:
    names = ("coffee", "china", "flower")
    rgb = torch.stack([torch.from_numpy(cache.resize(photos.load(name), (40, 40)).copy()) for name in names])
    rgb[1] = 10 + rgb[1].float().mean(2, keepdim=True).byte() // 2  # one without color
    return {"rgb": rgb, "seed": torch.tensor([3, 4, 2**62])}


def lab_of(batch: dict) -> torch.Tensor:
    return ops.rgb_to_lab(squares(batch, SIDE, 1.0))


@torch.no_grad()
@pytest.mark.parametrize("loss", ["l1", "huber"])
def test_the_losses_by_hand(batch, loss):
    """Pictures without color are left out; a and b by 110; the class of every fourth pixel."""
    objective = Objective(network(), side=SIDE, loss=loss, weight=7.0, classes=2.0).eval()
    found, terms = objective(batch)
    lab = lab_of(batch)
    ab, logits = objective.model(lab[:, :1], hints.simulate(lab[:, 1:], batch["seed"].tolist()))
    error = (ab - lab[:, 1:]).abs()[[0, 2]]
    if loss == "huber":  # of the paper, delta = 1 in CIELAB units
        error = torch.where(error < 1, error.square() / 2, error - 0.5)
    entropy = functional.cross_entropy(logits[[0, 2]], class_of(lab[[0, 2], 1:, ::4, ::4]))
    assert terms["ab"].item() == pytest.approx((error / 110).sum(1).mean().item(), rel=1e-4)
    assert terms["classes"].item() == pytest.approx(entropy.item(), rel=1e-5)
    assert found.item() == pytest.approx(7 * terms["ab"].item() + 2 * terms["classes"].item(), rel=1e-6)


def test_a_batch_without_color_is_no_number_to_divide_by(batch):
    gray = {"rgb": batch["rgb"][1:2], "seed": batch["seed"][1:2]}
    loss, _ = Objective(network(), side=SIDE)(gray)
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize(("stage", "trains"), [("classification", "classes"), ("regression", "ab")])
def test_which_loss_trains_the_trunk(batch, stage, trains):
    for silent in ("ab", "classes"):
        weights = {"weight": 0.0} if silent == "ab" else {"classes": 0.0}
        objective = Objective(network(), side=SIDE, stage=stage, **weights)
        objective(batch)[0].backward()
        trunk = objective.model.model4[0].weight.grad
        assert (trunk is None or trunk.abs().max() == 0) == (silent == trains)


def test_hints_of_the_stages(batch):
    lab, seeds = lab_of(batch), batch["seed"].tolist()
    rgb = squares(batch, SIDE, 1.0)
    first = Objective(network(), side=SIDE, stage="classification").hints(rgb, lab[:, 1:], seeds)
    assert first.mask.sum() == 0
    second = Objective(network(), side=SIDE).hints(rgb, lab[:, 1:], seeds)
    assert torch.equal(second.mask, hints.simulate(lab[:, 1:], seeds, 1 / 8).mask) and second.mask.sum() > 0
    everything = Objective(network(), side=SIDE, everything=1.0).hints(rgb, lab[:, 1:], seeds)
    assert torch.equal(everything.ab, lab[:, 1:])


def test_global_hints_are_given_now_and_then(batch):
    objective = Objective(network("global"), side=SIDE, reveal=0.25)
    rgb = squares(batch, SIDE, 1.0)[:1].expand(1200, -1, -1, -1)
    given = objective.hints(rgb, rgb[:, 1:], range(1200))
    assert given.shape == (1200, 316)
    shares = given[:, [313, 315]].mean(0).tolist()
    assert shares == pytest.approx([0.25, 0.25], abs=0.05)
    assert (given[:, 313] * given[:, 315]).mean().item() == pytest.approx(0.0625, abs=0.03)  # each on its own
    assert torch.equal(given[7:8], objective.hints(rgb[:1], rgb[:1, 1:], [7]))
    told = given[given[:, 313] > 0][0]
    torch.testing.assert_close(told[:313], hints.global_hints(rgb[:1])[0, :313])
    always = Objective(network("global"), side=SIDE, reveal=1.0).hints(rgb[:5], rgb[:5, 1:], range(5))
    assert always[:, [313, 315]].min() == 1
    loss, _ = Objective(network("global"), side=SIDE)(batch)
    loss.backward()


def test_losses_keep_full_precision_under_autocast(batch):
    objective = Objective(network(), side=SIDE).eval()
    expected, _ = objective(batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss, terms = objective(batch)
    assert {term.dtype for term in terms.values()} == {loss.dtype} == {torch.float32}
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)


SMALL = {"size": SIDE, "side": SIDE, "batch": 2, "log_every": 1, "lr": 1e-3, "part": "all"}
NET = {"width": 0.06, "init": "he"}


class PowerCutError(Exception):
    """What stops a training in a test."""


def test_both_stages_cut_and_resumed_end_with_the_same_bits(tmp_path, caches, monkeypatch):
    first = SMALL | NET | {"stage": "classification", "steps": 2, "sample_every": 1}
    recipe.run(tmp_path / "one", **first)
    second = SMALL | {"begin": str(tmp_path / "one"), "steps": 4, "save_every": 1, "everything": 0.3}
    whole, history = recipe.run(tmp_path / "whole", **second)
    assert history[-1].keys() >= {"loss", "ab", "classes"}
    forward, calls = Objective.forward, []

    def cut(self, batch):
        calls.append(len(calls))
        if len(calls) in (2, 4):
            raise PowerCutError
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "forward", cut)
        for _ in range(2):
            with pytest.raises(PowerCutError):
                recipe.run(tmp_path / "cut", **second)
        again, _ = recipe.run(tmp_path / "cut", **second)
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))

    assert Zhang2017.from_pretrained(tmp_path / "whole").mask_cent == 0.5
    recipe.run(tmp_path / "other", **first | {"seed": 5})
    for change, message in (
        ({"begin": str(tmp_path / "other")}, r"different objective .begun was"),
        ({"p": 0.5}, r"different objective .p was 0\.125 and is 0\.5"),
        ({"stage": "classification"}, "different objective .*stage was 'regression'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            recipe.run(tmp_path / "whole", **second | change)
    with pytest.raises(ValueError, match=r"hints: .*one has 'local', not 'global'; leave it out with begin"):
        recipe.run(tmp_path / "three", **second | {"kind": "global"})
    with pytest.raises(ValueError, match=r"mask_cent: .*one has 0\.5, not 0; leave it out"):
        recipe.run(tmp_path / "three", **second | {"mask_cent": 0})


def test_global_hints_train(tmp_path, caches):
    model, history = recipe.run(tmp_path / "run", **SMALL | NET | {"kind": "global", "steps": 2, "sample_every": 1})
    assert model.hints == "global" and np.isfinite(history[-1]["loss"])
    with pytest.raises(ValueError, match="batch: global hints are normalized over pictures"):
        recipe.run(tmp_path / "alone", **SMALL | NET | {"kind": "global", "steps": 1, "batch": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "both"}, "stage: expected one of classification, regression, got 'both'"),
        ({"loss": "l2"}, "loss: expected one of l1, huber, got 'l2'"),
        ({"law": "poisson"}, "law: expected one of normal, uniform, got 'poisson'"),
        ({"p": 0}, "p: with 0 hints never end"),
        ({"p": 2}, "p: expected a number from 0 to 1, got 2"),
        ({"everything": "much"}, "everything: expected a number from 0 to 1, got 'much'"),
        ({"weight": -1}, "weight: expected a number from 0 on, got -1"),
        ({"kind": "lokal"}, "hints: expected one of local, global, got 'lokal'"),
        ({"side": 33}, "side: three halvings"),
        ({"lamda": 1}, "unknown option 'lamda'; known are .*reveal"),
    ],
)
def test_options_that_lead_nowhere_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        recipe.run(tmp_path / "run", **{"steps": 1, "side": SIDE} | NET | options)
    assert not (tmp_path / "run").exists()


def test_a_file_of_weights_is_told_what_it_does_not_say(tmp_path):
    torch.manual_seed(0)
    torch.save(Zhang2017(width=0.06).state_dict(), tmp_path / "some.pth")
    with pytest.warns(UserWarning, match="a red hint does not color its place"):  # random weights
        net = network_of(Zhang2017, str(tmp_path / "some.pth"), width=0.06, mask_cent=0, init=None)
    assert net.mask_cent == 0 and net.model1[0].out_channels == Zhang2017(width=0.06).model1[0].out_channels


def test_a_training_learns(tmp_path, caches):
    """Eight pictures are learned by heart sooner than how to follow hints, which needs more of them."""
    options = SMALL | NET | {"steps": 60, "batch": 8, "lr": 5e-3, "crop": 0.0, "p": 0.05}
    model, _ = recipe.run(tmp_path / "run", **options)
    data = histogram_analogy.photographs(["photos"], SIDE)
    found = recipe.validate(model, data, side=SIDE, counts=(0, 20))
    assert max(found["ab_rmse_0"], found["ab_rmse_20"]) < 0.85 * found["gray_ab_rmse"]
    assert recipe.validate(model, data, side=SIDE, counts=(0, 20), batch=3) == pytest.approx(found, rel=1e-3)


def test_a_validation_by_hand(caches):
    data = histogram_analogy.photographs(["photos"], SIDE)
    data.places = data.places[:1]
    item = data[0, 2 << 32]
    rgb = squares({"rgb": item["rgb"][None], "seed": torch.tensor([2 << 32])}, SIDE, 0.0)
    lab = ops.rgb_to_lab(rgb)
    for kind, given in (("local", hints.fixed(lab[:, 1:], 10, [2 << 32])), ("global", hints.global_hints(rgb))):
        model = network(kind).eval()
        found = recipe.validate(model, data, side=SIDE, seed=2)
        error = (model.ab(lab[:, :1], given) - lab[:, 1:]).square().mean().sqrt().item()
        assert found[f"ab_rmse_{10 if kind == 'local' else 1}"] == pytest.approx(error, rel=1e-5)
        plain = (model.ab(lab[:, :1]) - lab[:, 1:]).square().mean().sqrt().item()
        assert found["ab_rmse_0"] == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("kind", ["local", "global"])
def test_samples_show_results_without_and_with_hints(caches, kind):
    data, model = histogram_analogy.photographs(["photos"], SIDE), network(kind).eval()
    with torch.no_grad():
        out = recipe.grid(Objective(model, side=SIDE), data, count=3)(model)
    assert out.shape == (3, 4 * SIDE, 3 * SIDE) and out.min() >= 0 and out.max() <= 1
