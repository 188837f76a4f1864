"""Learning from a teacher: the terms by hand, the phases, and that the teacher is neither trained nor kept."""

import copy
import json

import pytest
import torch
from torch.nn import functional

from ctlib import train
from ctlib.checkpoints import CheckpointError, load_state
from ctlib.data import cache, pairs, photos
from ctlib.losses import histogram_loss, multi_scale_loss
from ctlib.models.histogram_analogy import Film, HistogramAnalogy, to_unit
from ctlib.recipes import distill, histogram_analogy
from ctlib.recipes.distill import Distillation, Phase, fingerprint

SIDE = 64


def network(conditioning: str = "film", seed: int = 0, **options) -> HistogramAnalogy:
    torch.manual_seed(seed)
    net = HistogramAnalogy(conditioning, **{"width": "tiny", "init": "kaiming"} | options)
    for part in net.modules():
        if isinstance(part, Film):
            torch.nn.init.normal_(part.linear.weight, 0.0, 0.1)
    return net


@pytest.fixture(scope="module")
def batch() -> dict:
    squares = [torch.from_numpy(cache.resize(photos.load(name), (SIDE, SIDE)).copy()) for name in ("coffee", "china")]
    return {"rgb": torch.stack(squares), "seed": torch.tensor([3, 2**62])}


def constant(student, teacher, **options) -> Distillation:
    return Distillation(student, teacher, side=SIDE, phases="constant", **options)


def test_terms_by_hand(batch):
    student, teacher = network(seed=1), network("tile", curves=True)
    torch.nn.init.normal_(teacher.ctn.head.layers[-1].weight, 0.0, 0.1)
    loss, terms = constant(student, teacher, soft=0.3, histogram=10.0, multi_scale=2.0)(batch)
    with torch.no_grad():
        source, target, reference = pairs.photo_pairs(batch["rgb"], [3, 2**62], SIDE)
        (out, sides), (taught, taught_sides) = (net.transfer(source, reference) for net in (student, teacher))
        wanted = to_unit(target)
        expected = {
            "image": functional.mse_loss(out, wanted),
            "histogram": histogram_loss(out, wanted),
            "multi_scale": multi_scale_loss(sides, wanted),
            "soft_image": functional.mse_loss(out, taught),
            "soft_histogram": histogram_loss(out, taught),
            "soft_multi_scale": sum(map(functional.mse_loss, sides, taught_sides)) / 4,
        }
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        assert term.item() == pytest.approx(expected[name].item(), rel=1e-5) and term > 0, name
    factors = {"image": 1, "histogram": 10, "multi_scale": 2}
    hard, soft = (sum(factors[name] * expected[kind + name] for name in factors) for kind in ("", "soft_"))
    assert loss.item() == pytest.approx((0.7 * hard + 0.3 * soft).item(), rel=1e-5)


def test_a_copy_of_the_student_teaches_nothing(batch):
    student = network()
    loss, terms = constant(student, copy.deepcopy(student), soft=1.0)(batch)
    assert loss.item() == 0 and not any(terms[f"soft_{name}"] for name in ("image", "histogram", "multi_scale"))
    assert terms["image"] > 0


@pytest.mark.parametrize("soft", [1.0, 0.5, 0.0])
def test_gradients_reach_the_student_alone(batch, soft):
    objective = constant(network(seed=1), network(), soft=soft)
    objective.train()
    assert objective.model.training and not objective.teacher.training
    before = fingerprint(objective.teacher)
    objective(batch)[0].backward()
    assert all(weight.grad.abs().max() > 0 for weight in objective.model.parameters() if weight.ndim > 1)
    assert all(weight.grad is None and not weight.requires_grad for weight in objective.teacher.parameters())
    assert fingerprint(objective.teacher) == before


def test_without_a_soft_part_the_teacher_rests(batch):
    objective = constant(network(seed=1), network(), soft=0.0, histogram=10.0)
    objective.teacher.forward = None  # calling it fails
    loss, terms = objective(batch)
    plain, same = histogram_analogy.Objective(objective.model, side=SIDE, histogram=10.0)(batch)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {name: term.item() for name, term in same.items()}, rel=1e-6
    )


def test_identical_pairs_count_less_in_the_image_term(batch):
    options = {"soft": 0.0, "histogram": 0.0, "multi_scale": 0.0, "shares": (0, 0, 1, 0)}
    losses = [constant(network(), network(), identical=weight, **options)(batch)[0] for weight in (1.0, 0.5)]
    assert losses[1].item() == pytest.approx(losses[0].item() / 2, rel=1e-5) and losses[1] > 0
    options["shares"] = (0, 1, 0, 0)
    losses = [constant(network(), network(), identical=weight, **options)(batch)[0] for weight in (1.0, 0.5)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("steps", [25, 250, 7])
def test_phases_of_the_project(steps):
    objective = Distillation(network(), network(seed=1), side=SIDE)
    found = []
    for step in range(steps):
        objective.at(step, steps)
        found.append(Phase(0, objective.soft, objective.identical, objective.histogram, objective.multi_scale)[1:])
    first, second, third = (0.5, 0.5, 10, 10), (0, 0.5, 10, 10), (0, 1, 1.5, 0.5)
    assert found == [
        first if step / steps < 10 / 25 else second if step / steps < 19 / 25 else third for step in range(steps)
    ]
    objective.at(steps, steps)
    assert objective.multi_scale == 0.5  # what lies behind the end is of the last phase


def test_another_encoder_may_round_sides_another_way():
    wanted, sides = torch.rand(1, 3, 9, 9), [torch.rand(1, 3, 3, 3), torch.rand(1, 3, 5, 5)]
    taught = [torch.rand(1, 3, 4, 4), torch.rand(1, 3, 5, 5)]
    terms = constant(network(), network()).compare((wanted, sides), wanted, taught, torch.ones(1))
    assert terms["multi_scale"] > 0 and terms["image"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phases": "mine"}, "phases: expected one of project, constant, got 'mine'"),
        ({"soft": 1.5}, "soft: expected a number from 0 to 1, got 1.5"),
        ({"soft": "half"}, "soft: expected a number from 0 to 1, got 'half'"),
        ({"identical": "abc"}, "identical: expected a number from 0 on, got 'abc'"),
        ({"recipe": "official-history"}, "recipe: a distillation follows the paper's, got 'official-history'"),
        ({"teacher": ""}, "teacher: name the network to learn from"),
        ({"techer": "x"}, "unknown option 'techer'; known are .*phases.*teacher.*width"),
        ({"width": "huge"}, "width: expected one of paper"),
        ({"steps": 0}, "steps: expected at least 1"),
    ],
)
def test_wrong_options_are_named_and_write_nothing(tmp_path, caches, options, message):
    with pytest.raises(ValueError, match=message):
        distill.run(tmp_path / "run", **{"steps": 1, "teacher": "histogram-analogy-film-tiny"} | SMALL | options)
    assert not list(tmp_path.iterdir())


def test_an_unknown_teacher_is_named(tmp_path, caches):
    with pytest.raises(CheckpointError, match=r"nobody: no such weights; shipped are .*histogram-analogy-film-tiny"):
        distill.run(tmp_path / "run", teacher="nobody", steps=1, **SMALL)
    assert not list(tmp_path.iterdir())


SMALL = {"data": "photos", "sets": ["photos"], "size": 72, "side": SIDE, "width": "tiny", "batch": 2, "log_every": 1}
SMALL |= {"conditioning": "film", "root": True, "init": "kaiming", "lr": 1e-3}


class PowerCutError(Exception):
    """What stops a training in a test."""


def test_a_run_that_was_cut_ends_with_the_same_bits(tmp_path, caches, monkeypatch):
    """Through all three phases; neither state nor weights hold anything of the teacher."""
    teacher = network(seed=5, curves=True)
    teacher.save_pretrained(tmp_path / "teacher")
    options = SMALL | {"teacher": str(tmp_path / "teacher"), "steps": 10, "save_every": 2}
    _, history = distill.run(tmp_path / "whole", **options)
    assert ["soft_image" in row for row in history] == [True] * 4 + [False] * 6
    assert all(row["soft_image"] > 0 for row in history[:4])

    forward, calls = Distillation.forward, []

    def cut(self, batch):
        calls.append(self.soft)
        if len(calls) in (4, 7):  # in the first phase and in the second
            raise PowerCutError
        return forward(self, batch)

    monkeypatch.setattr(Distillation, "forward", cut)
    for _ in range(2):
        with pytest.raises(PowerCutError):
            distill.run(tmp_path / "cut", **options)
    distill.run(tmp_path / "cut", **options)
    assert calls == [0.5] * 4 + [0.5, 0.5, 0.0] + [0.0] * 6  # on from steps 2 and 4

    whole, resumed = (load_state(tmp_path / name / train.STATE) for name in ("whole", "cut"))
    assert all(map(torch.equal, whole["model"].values(), resumed["model"].values()))
    for part in ("exp_avg", "exp_avg_sq"):
        moments = [[one[part] for one in state["optimizer"]["state"].values()] for state in (whole, resumed)]
        assert all(map(torch.equal, *moments))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1] and len(weights[0]) < 5e6

    student = network()
    assert whole["model"].keys() == student.state_dict().keys()
    assert len(whole["optimizer"]["state"]) == len(list(student.parameters()))
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert not config["curves"] and HistogramAnalogy.from_pretrained(tmp_path / "whole")

    network(seed=6, curves=True).save_pretrained(tmp_path / "teacher")
    with pytest.raises(CheckpointError, match=r"different objective .teacher_sha256 was '.*' and is '"):
        distill.run(tmp_path / "cut", **options)


def test_a_fingerprint_knows_weights_and_configuration():
    net = network()
    assert fingerprint(net) == fingerprint(copy.deepcopy(net)) != fingerprint(network(seed=1))
    assert fingerprint(network(root=True)) != fingerprint(network(root=False))  # the same weights, used otherwise
