"""How Zhang 2016 is trained: its loss by hand, what the weights of colors touch, runs that go on exactly."""

import json

import pytest
import torch
from torch.nn import functional

from ctlib import ops, train
from ctlib.checkpoints import CheckpointError, load_state
from ctlib.data import cache, colors, pairs, photos
from ctlib.models.zhang2016 import Zhang2016
from ctlib.recipes import histogram_analogy
from ctlib.recipes import zhang2016 as recipe
from ctlib.recipes.zhang2016 import Objective, cross_entropy, squares

SIDE = 32


def network(**options) -> Zhang2016:
    torch.manual_seed(0)
    return Zhang2016(**{"width": 0.06} | options)


def weights() -> torch.Tensor:
    return colors.rebalanced(torch.rand(313, generator=torch.Generator().manual_seed(0)).double().square())


@pytest.fixture(scope="module")
def batch() -> dict:
    names = ("coffee", "china", "flower")
    rgb = torch.stack([torch.from_numpy(cache.resize(photos.load(name), (40, 40)).copy()) for name in names])
    rgb[1] = 10 + rgb[1].float().mean(2, keepdim=True).byte() // 2  # one without color
    return {"rgb": rgb, "seed": torch.tensor([3, 4, 2**62])}


def target_of(batch: dict, k: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    lab = ops.rgb_to_lab(squares(batch, SIDE, 1.0))
    ab = lab[:, 1:, ::4, ::4]
    return lab[:, :1], ops.dense_bins(*ops.encode_ab(ab.contiguous(), k))


def test_the_loss_by_hand(batch):
    """Every fourth pixel, the soft target on all 313 planes, the weight of its greatest bin, none without color."""
    for k in (1, 5, 10):
        objective = Objective(network(), weights(), side=SIDE, k=k, boost="loss").eval()
        loss, terms = objective(batch)
        lightness, target = target_of(batch, k)
        torch.testing.assert_close(target.sum(1), torch.ones(3, 8, 8))
        with torch.no_grad():
            each = -(target * objective.model(lightness).log_softmax(1)).sum(1)
        v = weights().float()[target.argmax(1)]
        v[1] = 0
        assert terms["cross_entropy"].item() == pytest.approx(each.mean().item(), rel=1e-5)
        assert terms["rebalanced"].item() == pytest.approx((v * each).mean().item(), rel=1e-4)
        assert loss.item() == pytest.approx(terms["rebalanced"].item()) and terms.keys() == {
            "cross_entropy",
            "rebalanced",
        }


def gradient(objective: Objective, batch: dict) -> torch.Tensor:
    objective.zero_grad()
    loss, _ = objective.eval()(batch)
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in objective.parameters() if weight.requires_grad])


def test_weights_on_the_gradient_alone(batch):
    model = network()
    on_both, on_gradient, plain = (
        Objective(model, given, side=SIDE, boost=boost)
        for given, boost in ((weights(), "loss"), (weights(), "gradient"), (None, "loss"))
    )
    torch.testing.assert_close(gradient(on_gradient, batch), gradient(on_both, batch))
    assert (gradient(plain, batch) - gradient(on_both, batch)).abs().max() > 1e-4
    loss, terms = on_gradient(batch)
    assert loss.item() == pytest.approx(terms["cross_entropy"].item(), rel=1e-6)
    assert loss.item() != pytest.approx(terms["rebalanced"].item(), rel=1e-3)
    gray = {"rgb": batch["rgb"][1:2], "seed": batch["seed"][1:2]}
    assert gradient(on_gradient, gray).abs().max() == 0  # a picture without color teaches nothing


def test_no_loss_reaches_the_table(batch):
    objective = Objective(network(), side=SIDE)
    objective(batch)[0].backward()
    missing = [name for name, weight in objective.named_parameters() if weight.grad is None]
    assert missing == ["model.model_out.weight"]


def test_cross_entropy_without_planes():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 313, 3, 4, generator=generator, dtype=torch.float32).requires_grad_()
    index, share = ops.encode_ab(80 * torch.randn(2, 2, 3, 4, generator=generator), 7)
    found = cross_entropy(logits, index, share)
    expected = functional.cross_entropy(logits, ops.dense_bins(index, share), reduction="none")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one.square().sum(), logits)[0] for one in (found, expected)))


def test_weight_decay_is_half_the_sum_of_squares_of_kernels(batch):
    plain, decayed = (Objective(network(), side=SIDE, weight_decay=decay).eval() for decay in (0, 0.01))
    kernels = [weight for weight in plain.model.parameters() if weight.ndim == 4 and weight.requires_grad]
    expected = 0.005 * sum(kernel.square().sum().item() for kernel in kernels)
    loss, terms = decayed(batch)
    assert terms["decay"].item() == pytest.approx(expected, rel=1e-5)
    assert loss.item() == pytest.approx(plain(batch)[0].item() + expected, rel=1e-5)


def test_targets_keep_full_precision_under_autocast(batch):
    objective = Objective(network(), weights(), side=SIDE).eval()
    expected, _ = objective(batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = objective(batch)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=0.02)


def test_squares_are_a_function_of_the_seed(batch):
    found = squares(batch, SIDE, 1.0)
    alone = squares({name: value[2:] for name, value in batch.items()}, SIDE, 1.0)
    torch.testing.assert_close(found[2:], alone)
    whole = squares(batch, 40, 0.0)  # the whole picture, mirrored or not
    picture = batch["rgb"].permute(0, 3, 1, 2) / 255
    for row in range(3):
        distance = min((whole[row] - one).abs().max().item() for one in (picture[row], picture[row].flip(2)))
        assert distance < 1e-4


SMALL = {"width": 0.06, "size": SIDE, "side": SIDE, "batch": 2, "log_every": 1, "lr": 1e-3, "part": "all"}


class PowerCutError(Exception):
    """What stops a training in a test."""


def test_a_run_cut_and_resumed_ends_with_the_same_bits(tmp_path, caches, monkeypatch):
    options = SMALL | {"steps": 4, "save_every": 1, "sample_every": 2}
    whole, history = recipe.run(tmp_path / "whole", **options)
    assert history[-1].keys() >= {"loss", "cross_entropy", "rebalanced", "decay"}
    forward, calls = Objective.forward, []

    def cut(self, batch):
        calls.append(len(calls))
        if len(calls) in (2, 4):
            raise PowerCutError
        return forward(self, batch)

    monkeypatch.setattr(Objective, "forward", cut)
    for _ in range(2):
        with pytest.raises(PowerCutError):
            recipe.run(tmp_path / "cut", **options)
    again, _ = recipe.run(tmp_path / "cut", **options)
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    states = [load_state(tmp_path / name / train.STATE) for name in ("whole", "cut")]
    for part in ("exp_avg", "exp_avg_sq"):
        moments = [[one[part] for one in state["optimizer"]["state"].values()] for state in states]
        assert moments[0] and all(map(torch.equal, *moments))

    with pytest.raises(CheckpointError, match=r"different objective .weights was"):
        recipe.run(tmp_path / "whole", **options | {"lam": 0.3})
    with pytest.raises(CheckpointError, match=r"different objective .k was 5 and is 10"):
        recipe.run(tmp_path / "whole", **options | {"k": 10})


def test_the_prior_is_that_of_the_pictures(tmp_path, caches):
    recipe.run(tmp_path / "run", **SMALL | {"steps": 1, "support": "seen", "lam": 0.4, "sigma": 0})
    kept = json.loads((tmp_path / "run" / "prior.json").read_text())
    dataset = histogram_analogy.photographs(["photos"], SIDE)
    prior = colors.prior(dataset)
    assert kept["prior"] == pytest.approx(prior.tolist())
    assert kept["weights"] == pytest.approx(colors.rebalanced(prior, 0.4, support="seen").tolist())


def test_a_run_from_other_weights(tmp_path, caches):
    one, _ = recipe.run(tmp_path / "one", **SMALL | {"steps": 1})
    options = {name: value for name, value in SMALL.items() if name != "width"} | {"begin": str(tmp_path / "one")}
    two, _ = recipe.run(tmp_path / "two", **options | {"steps": 1, "lr": 1e-9})
    assert two._hub_mixin_config["width"] == 0.06
    difference = (one.model5[2].weight - two.model5[2].weight).abs().max().item()
    assert difference < 1e-3 * one.model5[2].weight.abs().max().item()  # float16 in between
    with pytest.raises(ValueError, match=r"width: .*one has 0\.06, not 0\.1; leave it out with begin"):
        recipe.run(tmp_path / "three", **options | {"steps": 1, "width": 0.1})
    with pytest.raises(CheckpointError, match="no such weights"):
        recipe.run(tmp_path / "three", **options | {"steps": 1, "begin": "nowhere"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": 36}, "side: three halvings need squares that 8 divides, got 36"),
        ({"side": 16}, "side: expected a whole number of at least 32, got 16"),
        ({"size": 24}, "size: expected a whole number of at least 32, got 24"),
        ({"k": 0}, "k: expected a whole number from 1 to 313, got 0"),
        ({"lam": 1.5}, "lam: expected a number from 0 to 1, got 1.5"),
        ({"lam": 0}, "lam: with 0, colors that hardly occur weigh infinitely; take more"),
        ({"boost": "both"}, "boost: expected one of gradient, loss, got 'both'"),
        ({"crop": -1}, "crop: expected a number from 0 to 1, got -1"),
        ({"width": "wide"}, "width: expected a factor"),
        ({"counted": 0}, "counted: expected a whole number of at least 1, got 0"),
        ({"temprature": 1}, "unknown option 'temprature'; known are .*boost.*sigma"),
    ],
)
def test_options_that_lead_nowhere_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        recipe.run(tmp_path / "run", **{"steps": 1, "side": SIDE} | options)
    assert not (tmp_path / "run").exists()


def test_a_training_learns(tmp_path, caches):
    options = SMALL | {"steps": 60, "batch": 8, "lr": 5e-3, "weight_decay": 0, "crop": 0.0}
    model, _ = recipe.run(tmp_path / "run", **options)
    data = histogram_analogy.photographs(["photos"], SIDE)
    before, after = (recipe.validate(one, data, side=SIDE) for one in (network(), model))
    assert after["cross_entropy"] < before["cross_entropy"] - 1.5
    assert after == recipe.validate(model, data, side=SIDE)
    assert recipe.validate(model, data, side=SIDE, batch=3) == pytest.approx(after, rel=1e-3)


def test_a_validation_by_hand(caches):
    data, model = histogram_analogy.photographs(["photos"], SIDE), network().eval()
    data.places = data.places[:1]
    found = recipe.validate(model, data, side=SIDE, k=7, temperature=0.5, seed=2)
    item = data[0, 2 << 32]
    lab = ops.rgb_to_lab(squares({"rgb": item["rgb"][None], "seed": torch.tensor([2 << 32])}, SIDE, 0.0))
    with torch.no_grad():
        ab = functional.interpolate(model.ab(lab[:, :1], 0.5), (SIDE, SIDE), mode="bilinear")
        index, share = ops.encode_ab(lab[:, 1:, ::4, ::4].contiguous(), 7)
        entropy = functional.cross_entropy(model(lab[:, :1]), ops.dense_bins(index, share))
    assert found["ab_rmse"] == pytest.approx((ab - lab[:, 1:]).square().mean().sqrt().item(), rel=1e-5)
    assert found["gray_ab_rmse"] == pytest.approx(lab[:, 1:].square().mean().sqrt().item(), rel=1e-5)
    assert found["cross_entropy"] == pytest.approx(entropy.item(), rel=1e-5)


def test_samples_are_the_same_pictures_each_time(caches):
    data = histogram_analogy.photographs(["photos"], SIDE)
    model = network().eval()
    out = recipe.grid(Objective(model, side=SIDE), data, count=3)(model)
    assert out.shape == (3, 3 * SIDE, 3 * SIDE) and out.min() >= 0 and out.max() <= 1
    assert (out[:, :SIDE].amax(0) - out[:, :SIDE].amin(0)).max() < 0.01  # the first row is gray
    assert torch.equal(out, recipe.grid(Objective(model, side=SIDE), data, count=3)(model))
    truth = squares({"rgb": torch.stack([data[n, n]["rgb"] for n in range(3)]), "seed": torch.arange(3)}, SIDE, 0.0)
    torch.testing.assert_close(out[:, 2 * SIDE :], torch.cat(truth.unbind(0), dim=2))
    assert isinstance(data, pairs.Photos)
