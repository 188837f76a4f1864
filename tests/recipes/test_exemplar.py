"""How the colorization sub-net is trained, and both networks together: hints, empty maps, masks, runs that go on."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ctlib import hints, ops
from ctlib.checkpoints import CheckpointError
from ctlib.data import cache, photos
from ctlib.exemplars.chain import Exemplar
from ctlib.hints import Hints
from ctlib.losses import hinted_huber_loss
from ctlib.models.refinement import Refinement
from ctlib.models.stylization import Stylization
from ctlib.models.stylization_once import StylizationOnce
from ctlib.models.zhang2017 import Zhang2017
from ctlib.recipes import exemplar as joint
from ctlib.recipes import refinement as recipe
from ctlib.recipes.zhang2016 import squares

SIDE = 32
SMALL = {"size": SIDE, "side": SIDE, "batch": 2, "log_every": 1, "part": "all"}
NET = {"width": 0.06, "init": "he"}


@pytest.fixture(scope="module")
def batch() -> dict:
    squares = [cache.resize(photos.load(name), (40, 40)) for name in ("coffee", "china", "flower", "chelsea")]
    first, second = np.stack(squares[:2]), np.stack(squares[2:])
    return {"rgb": torch.from_numpy(first), "other": torch.from_numpy(second), "seed": torch.tensor([3, 2**62])}


def refinement(**options) -> Refinement:
    torch.manual_seed(0)
    return Refinement(**NET | options)


def chain(kind=Stylization) -> Exemplar:
    torch.manual_seed(1)
    return Exemplar(kind("compact").load_encoder(), refinement())


@torch.no_grad()
def test_the_loss_of_the_colorization_sub_net_by_hand(batch):
    objective = recipe.Objective(refinement(), side=SIDE, p=0.05, weight=4.0).eval()
    loss, _ = objective(batch)
    lab = ops.rgb_to_lab(squares(batch, SIDE, 1.0))
    given = hints.simulate(lab[:, 1:], batch["seed"].tolist(), 0.05, law="uniform")
    assert given.mask.sum() > 0
    ab = objective.model(lab[:, :1], given)[0]
    assert loss.item() == pytest.approx(hinted_huber_loss(ab, lab[:, 1:], given.mask, weight=4.0).item(), rel=1e-5)


@torch.no_grad()
def test_the_last_steps_have_empty_maps(batch):
    objective = recipe.Objective(refinement(), side=SIDE, p=0.05, everything=1.0, empty=3).eval()
    losses = []
    for step in range(10):
        objective.at(step, 10)
        losses.append(objective(batch)[0].item())
    assert len(set(losses[:7])) == 1 and len(set(losses[7:])) == 1 and losses[0] != losses[9]
    lab = ops.rgb_to_lab(squares(batch, SIDE, 1.0))
    ab = objective.model(lab[:, :1])[0]
    assert losses[9] == pytest.approx(hinted_huber_loss(ab, lab[:, 1:], torch.zeros(2, 1, 1, 1)).item(), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", [Stylization, StylizationOnce])
def test_the_joint_loss_by_hand(batch, kind):
    net = chain(kind).eval()
    objective = joint.Objective(net, side=SIDE, mask_probability=0.9, none=0.0).eval()
    loss, terms = objective(batch)
    rgb, other = (squares({"rgb": batch[name], "seed": batch["seed"]}, SIDE, 0.0) for name in ("rgb", "other"))
    lab = ops.rgb_to_lab(rgb)
    mask = objective.mask(batch["seed"].tolist(), rgb)
    coarse = net.coarse(lab[:, :1], net.refine.ab(lab[:, :1]), other, shrink=1)
    ab = net.refine(lab[:, :1], Hints(coarse * mask, mask))[0]
    expected = hinted_huber_loss(ab, lab[:, 1:], mask, delta=1.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    missed = (coarse - lab[:, 1:]).square().mean().item()
    assert terms["coarse"].item() == pytest.approx(missed, rel=1e-4)
    both, _ = joint.Objective(net, side=SIDE, mask_probability=0.9, none=0.0, coarse=2.0).eval()(batch)
    assert both.item() == pytest.approx(loss.item() + 2 * missed / 110**2, rel=1e-4)


def test_masks_hide_what_their_probability_says():
    like = torch.zeros(400, 3, 16, 16)
    for probability, shown in ((0.9, 0.1), (0.99, 0.01), (1.0, 0.0), (0.0, 1.0)):
        objective = joint.Objective(chain(), side=SIDE, mask_probability=probability, none=0.25)
        mask = objective.mask(range(400), like)
        assert mask.shape == (400, 1, 16, 16) and set(mask.unique().tolist()) <= {0.0, 1.0}
        assert mask.mean().item() == pytest.approx(0.75 * shown, abs=0.08 * shown)
        assert torch.equal(mask[7:8], objective.mask([7], like))
    empty = 1 - mask.flatten(1).amax(1).mean().item()
    assert empty == pytest.approx(0.25, abs=0.08)


def test_the_gradient_goes_through_the_samples(batch):
    for probability, reached in ((0.9, True), (1.0, False)):
        net = chain().train()
        before = net.refine.model1[4].num_batches_tracked.item()
        joint.Objective(net, side=SIDE, mask_probability=probability, none=0.0)(batch)[0].backward()
        grads = [weight.grad for weight in net.transfer.decoder.parameters()]
        assert any(grad is not None and (grad != 0).any() for grad in grads) == reached
        assert net.refine.model1[0].weight.grad.abs().sum() > 0
        assert net.refine.model1[4].num_batches_tracked.item() == before + 1 and net.refine.training


def test_what_a_training_begins_from(tmp_path):
    torch.manual_seed(2)
    other = Zhang2017(**NET, mask_cent=0.5)
    other.save_pretrained(tmp_path / "zhang", dtype=torch.float32)
    net = recipe.network(pretrained=str(tmp_path / "zhang"), blocks=4)
    assert net.mask_cent == 0.5 and torch.equal(net.model4[0].weight, other.model4[0].weight)
    assert not torch.equal(net.model5[0].weight, other.model5[0].weight)
    whole = recipe.network(pretrained=str(tmp_path / "zhang"))
    assert torch.equal(whole.model_out[0].weight, other.model_out[0].weight)
    with pytest.raises(ValueError, match=r"width: .* has 0\.06, not 0.1"):
        recipe.network(pretrained=str(tmp_path / "zhang"), width=0.1)
    with pytest.raises(ValueError, match="begin, pretrained: give one of the two"):
        recipe.network("a", "b")
    with pytest.raises(CheckpointError, match="no such weights"):
        recipe.network("no-such-name")


class PowerCutError(Exception):
    """What stops a training in a test."""


def cut_and_resumed(module, folder, options, monkeypatch):
    whole, history = module.run(folder / "whole", **options)
    forward, calls = module.Objective.forward, []

    def cut(self, batch):
        calls.append(1)
        if len(calls) == 2:
            raise PowerCutError
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(module.Objective, "forward", cut)
        with pytest.raises(PowerCutError):
            module.run(folder / "cut", **options)
        again, _ = module.run(folder / "cut", **options)
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))
    return history


def test_from_both_networks_to_a_trained_chain(tmp_path, caches, monkeypatch):
    options = SMALL | NET | {"steps": 4, "save_every": 1, "empty": 0.5, "every": 0.5, "sample_every": 3}
    history = cut_and_resumed(recipe, tmp_path / "refine", options, monkeypatch)
    assert [row["lr"] for row in history] == sorted((row["lr"] for row in history), reverse=True)
    refine = tmp_path / "refine" / "whole"
    assert Refinement.from_pretrained(refine).mask_cent == 0
    with pytest.raises(ValueError, match=r"empty: 5 epochs without hints take \d+ steps, and there are 4"):
        recipe.run(tmp_path / "none", **options | {"empty": 5})

    chain().transfer.save_pretrained(tmp_path / "transfer", dtype=torch.float32)
    both = {"transfer": str(tmp_path / "transfer"), "refine": str(refine), "near": 3}
    options = SMALL | both | {"steps": 3, "save_every": 1, "mask_probability": 0.9, "sample_every": 2}
    history = cut_and_resumed(joint, tmp_path / "joint", options, monkeypatch)
    assert history[-1].keys() >= {"loss", "huber", "coarse"}
    net = Exemplar.from_pretrained(tmp_path / "joint" / "whole")
    rgb = photos.tensor("coffee", 64)
    assert net.colorize(rgb, photos.tensor("china", 64), side=SIDE).shape == rgb.shape
    with pytest.raises(CheckpointError, match=r"different objective .*mask_probability was 0\.9 and is 0\.99"):
        joint.run(tmp_path / "joint" / "whole", **options | {"mask_probability": 0.99})


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (recipe, {"p": 0}, "p: expected a number above 0, got 0"),
        (recipe, {"law": "poisson"}, "law: expected one of normal, uniform"),
        (recipe, {"delta": 0}, "delta: expected a number above 0"),
        (recipe, {"blocks": 5, "pretrained": "zhang2017-quarter"}, "blocks: expected 4"),
        (recipe, {"side": 33}, "side: three halvings"),
        (recipe, {"lamda": 1}, "unknown option 'lamda'; known are .*pretrained"),
        (joint, {}, "transfer, refine: name the weights of both networks"),
        (joint, {"once": "yes"}, "once: expected true or false"),
        (joint, {"mask_probbility": 1}, "unknown option 'mask_probbility'; known are .*mask_probability"),
    ],
)
def test_options_that_lead_nowhere_are_refused(tmp_path, caches, module, options, message):
    with pytest.raises(ValueError, match=message):
        module.run(tmp_path / "run", **SMALL | {"steps": 1} | options)
    assert not (tmp_path / "run").exists()


def test_several_trainings_become_chains(tmp_path):
    """Each with its own options over the common ones; what trains the sub-net alone is put into the given chain."""
    asked = []

    def recipe(name, made):
        def run(folder, **options):
            asked.append((name, folder, options))
            return made, [{"step": 1}]

        return SimpleNamespace(__name__=name, run=run)

    base = Exemplar(Stylization("compact"), Refinement(0.06))
    alone, whole = Refinement(0.06), Exemplar(Stylization("compact"), Refinement(0.06))
    trainings = {"a": (recipe("r", alone), {"steps": 90}), "b": (recipe("e", whole), {"steps": 3, "lr": 2})}
    chains, histories = joint.trained(base, trainings, {"lr": 1}, lambda **options: tmp_path / options["recipe"])
    assert asked == [
        ("r", tmp_path / "r", {"lr": 1, "steps": 90, "log_every": 3}),
        ("e", tmp_path / "e", {"lr": 2, "steps": 3, "log_every": 1}),
    ]
    assert list(chains) == ["shipped", "a", "b"] and chains["shipped"] is base and chains["b"] is whole
    assert chains["a"].refine is alone and chains["a"].transfer is base.transfer and not chains["a"].training
    assert histories == {"a": [{"step": 1}], "b": [{"step": 1}]}
