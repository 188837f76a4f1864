"""How PaletteNet is trained: its losses worked out by hand, who gets which gradient, and runs that go on exactly."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from ctlib import ops, train
from ctlib.checkpoints import CheckpointError, load_state
from ctlib.data import cache, pairs, photos
from ctlib.data.artbench import STYLES
from ctlib.data.palettes import hue_pairs, palette_of
from ctlib.data.registry import DataError
from ctlib.models.histogram_analogy import to_unit
from ctlib.models.palettenet import Discriminator, PaletteNet
from ctlib.recipes import palettenet as recipe
from ctlib.recipes.palettenet import Adversarial, Objective, Players

SIDE = 32


def network(**options) -> PaletteNet:
    torch.manual_seed(0)
    return PaletteNet(**{"colors": 4, "decoder_norm": "none", "variant": "tiny"} | options)


def players(forget: float = 0.0, **options) -> Players:
    generator = network(**options)
    torch.manual_seed(1)
    return Players(generator, Discriminator(generator.colors, dropout=forget))


@pytest.fixture(scope="module")
def batch() -> dict:
    squares = [cache.resize(photos.load(name), (SIDE, SIDE)) for name in ("coffee", "china", "flower")]
    found = torch.stack([palette_of(one, 4) for one in squares]).float()
    rgb = torch.stack([torch.from_numpy(one.copy()) for one in squares])
    return {"rgb": rgb, "palette": found, "seed": torch.tensor([3, 4, 2**62])}


def pair_of(batch):
    return hue_pairs(batch["rgb"], batch["palette"], batch["seed"].tolist(), SIDE)


def test_the_euclidean_loss(batch):
    objective = Objective(network(), side=SIDE)
    loss, terms = objective(batch)
    pair = pair_of(batch)
    with torch.no_grad():
        out = objective.model(to_unit(pair.source), to_unit(pair.palette))
    expected = (out - to_unit(pair.target)[:, 1:]).square().mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-5) and terms["euclidean"].item() == pytest.approx(expected)
    assert terms.keys() == {"euclidean"} and not terms["euclidean"].requires_grad
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in objective.parameters())


def test_the_reports_loss_is_one_of_rgb(batch):
    objective = Objective(network(variant="yongzx", decoder_norm="instance", bug_compat=True), side=SIDE)
    pair, model = pair_of(batch), objective.model
    out = model(*(ops.lab_to_rgb(lab).clamp(0, 1) for lab in (pair.source, pair.palette)))
    expected = functional.mse_loss(out, ops.lab_to_rgb(pair.target).clamp(0, 1))
    model.train()
    assert objective(batch)[0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_weight_decay_is_half_the_sum_of_squares(batch):
    plain, decayed = (Objective(network(), side=SIDE, weight_decay=decay) for decay in (0, 0.01))
    squares = sum(weight.square().sum().item() for weight in plain.model.parameters())
    loss, terms = decayed(batch)
    assert terms["decay"].item() == pytest.approx(0.005 * squares, rel=1e-5)
    assert loss.item() == pytest.approx(plain(batch)[0].item() + 0.005 * squares, rel=1e-5)
    frozen = Objective(network(), side=SIDE, weight_decay=0.01, frozen=True)
    assert 0 < frozen(batch)[1]["decay"] < terms["decay"]


def test_the_adversarial_losses(batch):
    """The three kinds of fakes, a quarter of their sum, and lambda, written as in the papers."""
    objective = Adversarial(players(), side=SIDE, fidelity=7.0)
    loss, terms = objective(batch)
    generator, judge, pair = objective.generator, objective.model.discriminator, pair_of(batch)
    with torch.no_grad():
        view, own, wanted = (to_unit(lab) for lab in (pair.source, pair.own, pair.palette))
        made = torch.cat([view[:, :1], generator(view, wanted)], dim=1)
        asked = {
            name: judge(*seen).double().sigmoid()
            for name, seen in (
                ("I,P", (view, own)),
                ("G,Pt", (made, wanted)),
                ("G,P", (made, own)),
                ("I,Pt", (view, wanted)),
            )
        }
        for_judge = (
            -sum((asked["I,P"].log(), *((1 - asked[name]).log() for name in ("G,Pt", "G,P", "I,Pt")))).mean() / 4
        )
        fooling, euclidean = -asked["G,Pt"].log().mean(), functional.mse_loss(made[:, 1:], to_unit(pair.target)[:, 1:])
    expected = {"euclidean": euclidean, "fooling": fooling, "discriminator": for_judge}
    expected |= {"real": asked["I,P"].mean(), "fake": asked["G,Pt"].mean()}
    assert {name: term.item() for name, term in terms.items()} == {
        name: pytest.approx(term.item(), rel=1e-4) for name, term in expected.items()
    }
    assert loss.item() == pytest.approx((7 * euclidean + fooling + for_judge).item(), rel=1e-4)


def test_each_player_gets_the_gradient_of_its_own_loss(batch):
    objective = Adversarial(players(), side=SIDE)
    generator, judge, pair = objective.generator, objective.model.discriminator, pair_of(batch)
    objective(batch)[0].backward()
    view, own, wanted = (to_unit(lab) for lab in (pair.source, pair.own, pair.palette))

    out = generator(view, wanted)
    made = generator.whole(out, view)
    target = to_unit(pair.target)[:, 1:]
    for_generator = 10 * functional.mse_loss(out, target) + functional.softplus(-judge(made, wanted)).mean()
    decoder = list(generator.decoder.parameters())
    expected = torch.autograd.grad(for_generator, decoder)
    without = torch.autograd.grad(10 * functional.mse_loss(generator(view, wanted), target), decoder)
    for weight, wanted_grad in zip(decoder, expected, strict=True):
        torch.testing.assert_close(weight.grad, wanted_grad, rtol=1e-4, atol=1e-7)
    assert any((one - other).abs().max() > 1e-5 for one, other in zip(expected, without, strict=True))

    fakes = [judge(made.detach(), wanted), judge(made.detach(), own), judge(view, wanted)]
    for_judge = (functional.softplus(-judge(view, own)) + sum(map(functional.softplus, fakes))).mean() / 4
    weights = list(judge.parameters())
    for weight, wanted_grad in zip(weights, torch.autograd.grad(for_judge, weights), strict=True):
        torch.testing.assert_close(weight.grad, wanted_grad, rtol=1e-4, atol=1e-7)
    assert all(weight.grad is None for weight in generator.encoder.parameters())


def test_a_frozen_encoder_stays_as_it_is(batch):
    """Its running means too, where its shortcuts normalize by batches."""
    objective = Adversarial(players(variant="yongzx", decoder_norm="instance"), side=SIDE)
    before = {name: value.clone() for name, value in objective.generator.encoder.state_dict().items()}
    assert any("running_mean" in name for name in before)
    objective.train()
    assert objective.generator.decoder.training and not objective.generator.encoder.training
    objective(batch)[0].backward()
    assert all(map(torch.equal, before.values(), objective.generator.encoder.state_dict().values()))


def test_pairs_keep_full_precision_under_autocast(batch):
    objective = Adversarial(players(), side=SIDE)
    expected = objective.pair(batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, objective.pair(batch), expected))
        loss, terms = objective(batch)
    assert {term.dtype for term in terms.values()} == {loss.dtype} == {torch.float32}
    assert loss.item() == pytest.approx(objective(batch)[0].item(), rel=0.1)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Objective, {"side": 40}, "side: four halvings need squares of at least 32 pixels that 16 divides, got 40"),
        (Objective, {"side": 16}, "side: four halvings"),
        (Objective, {"crop": 1.5}, "crop: expected a number from 0 to 1, got 1.5"),
        (Objective, {"weight_decay": -1}, "weight_decay: expected a number from 0 on, got -1"),
        (Adversarial, {"fidelity": "much"}, "fidelity: expected a number from 0 on, got 'much'"),
    ],
)
def test_unknown_options_are_named(make, options, message):
    model = network() if make is Objective else players()
    with pytest.raises(ValueError, match=message):
        make(model, **options)


SMALL = {"size": SIDE, "side": SIDE, "batch": 2, "log_every": 1, "lr": 1e-3}
NET = {"colors": 4, "variant": "tiny", "decoder_norm": "film"}


class PowerCutError(Exception):
    """What stops a training in a test."""


def test_both_stages_cut_and_resumed_end_with_the_same_bits(tmp_path, caches, monkeypatch):
    first = NET | SMALL | {"steps": 4, "save_every": 1, "dropout": 0.2, "schedule": "step", "sample_every": 2}
    second = SMALL | {"begin": str(tmp_path / "one"), "steps": 4, "save_every": 1, "forget": 0.1}
    _, history = recipe.run(tmp_path / "one", **first)
    assert [row["lr"] for row in history] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])
    model, history = recipe.run(tmp_path / "two", **second)
    assert all(row.keys() >= {"euclidean", "fooling", "discriminator", "real", "fake"} for row in history)

    for make, whole, options in ((Objective, "one", first), (Adversarial, "two", second)):
        forward, calls = make.forward, []

        def cut(self, batch, forward=forward, calls=calls):
            calls.append(len(calls))
            if len(calls) in (2, 4):
                raise PowerCutError
            return forward(self, batch)

        with monkeypatch.context() as patch:
            patch.setattr(make, "forward", cut)
            for _ in range(2):
                with pytest.raises(PowerCutError):
                    recipe.run(tmp_path / f"{whole}-cut", **options)
            recipe.run(tmp_path / f"{whole}-cut", **options)
        states = [load_state(tmp_path / name / train.STATE) for name in (whole, f"{whole}-cut")]
        assert all(map(torch.equal, states[0]["model"].values(), states[1]["model"].values()))
        for part in ("exp_avg", "exp_avg_sq"):
            moments = [[one[part] for one in state["optimizer"]["state"].values()] for state in states]
            assert moments[0] and all(map(torch.equal, *moments))
        weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in (whole, f"{whole}-cut")]
        assert weights[0] == weights[1]

    # stage 2 keeps the encoder of stage 1, changes the decoder, and leaves the weights of PaletteNet alone
    one, two = (PaletteNet.from_pretrained(tmp_path / name) for name in ("one", "two"))
    assert all(map(torch.equal, one.encoder.state_dict().values(), two.encoder.state_dict().values()))
    assert not torch.equal(one.decoder.head.weight, two.decoder.head.weight)
    assert json.loads((tmp_path / "two" / "config.json").read_text())["colors"] == 4
    assert any(name.startswith("discriminator.") for name in states[0]["model"]) and not model.training
    assert all(weight.requires_grad for weight in model.parameters())

    recipe.run(tmp_path / "other", **NET | SMALL | {"steps": 1, "seed": 5})
    with pytest.raises(CheckpointError, match=r"different objective .begun was"):
        recipe.run(tmp_path / "two", **second | {"begin": str(tmp_path / "other")})
    with pytest.raises(CheckpointError, match=r"different objective .fidelity was 10\.0 and is 1\.0"):
        recipe.run(tmp_path / "two", **second | {"fidelity": 1.0})


def test_a_seed_says_it_all(tmp_path, caches):
    options = NET | SMALL | {"steps": 2}
    runs = [recipe.run(tmp_path / name, seed=seed, **options)[0] for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    states = [model.state_dict() for model in runs]
    assert all(map(torch.equal, states[0].values(), states[1].values()))
    assert not all(map(torch.equal, states[0].values(), states[2].values()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fidelity": 1.0}, "fidelity: 1.0 belongs to stage 2; name in begin"),
        ({"discriminator": "flat"}, "discriminator: 'flat' belongs to stage 2"),
        ({"adversary": False}, "adversary: False belongs to stage 2"),
        (
            {"begin": "palettenet-film-4-tiny", "adversary": False, "norms": "all"},
            "norms: 'all' belongs to an adversary",
        ),
        ({"saturation": "maybe"}, "saturation: expected true or false, got 'maybe'"),
        ({"side": 32.0}, "side: expected a whole number, got 32.0"),
        ({"size": "abc"}, "size: expected a whole number, got 'abc'"),
        ({"weight_decay": "little"}, "weight_decay: expected a number from 0 on, got 'little'"),
        ({"crop": "some"}, "crop: expected a number from 0 to 1, got 'some'"),
        ({"dropout": 1}, "dropout: expected a share from 0 to below 1, got 1"),
        ({"bug_compat": "no"}, "bug_compat: expected true or false, got 'no'"),
        ({"sets": 3}, r"sets: expected a list of names, e\.g\. sets=\[photos\], got 3"),
        ({"sets": [3]}, r"sets: expected a list of names, e\.g\. sets=\[photos\], got \[3\]"),
        ({"begin": "palettenet-film-4-tiny", "forget": "abc"}, "forget: expected a share from 0 to below 1, got 'abc'"),
        ({"begin": "palettenet-film-4-tiny", "forget": 1.0}, "forget: expected a share from 0 to below 1, got 1.0"),
        ({"begin": "palettenet-film-4-tiny", "discriminator": 3}, "discriminator: expected one of pooled, flat, got 3"),
    ],
)
def test_options_that_lead_nowhere_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        recipe.run(tmp_path / "run", **{"steps": 1} | options)
    assert not (tmp_path / "run").exists()


def test_numbers_that_yaml_reads_as_words(tmp_path, caches):
    words = {"weight_decay": "1e-3", "crop": "5e-1", "dropout": "1e-1"}
    recipe.run(tmp_path / "words", **NET | SMALL | {"steps": 1} | words)
    recipe.run(tmp_path / "numbers", **NET | SMALL | {"steps": 1} | {name: float(word) for name, word in words.items()})
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("words", "numbers"))
    assert one == two and json.loads((tmp_path / "words" / "config.json").read_text())["dropout"] == 0.1


def test_a_frozen_encoder_stays_frozen_while_it_is_looked_at(tmp_path, caches):
    recipe.run(tmp_path / "one", **SMALL | {"steps": 1, "variant": "yongzx", "colors": 4})
    stage = SMALL | {"begin": str(tmp_path / "one"), "steps": 3}
    blind, _ = recipe.run(tmp_path / "blind", **stage)
    seen, _ = recipe.run(tmp_path / "seen", sample_every=1, **stage)
    assert all(map(torch.equal, blind.state_dict().values(), seen.state_dict().values()))


def test_each_player_is_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *args, **options: compiled.append(type(self).__name__))
    players().compile()
    assert compiled == ["PaletteNet", "Discriminator"]


def test_stage_2_without_an_adversary(tmp_path, caches):
    recipe.run(tmp_path / "one", **NET | SMALL | {"steps": 1})
    options = SMALL | {"begin": str(tmp_path / "one"), "adversary": False, "steps": 1}
    model, history = recipe.run(tmp_path / "two", **options)
    begun = PaletteNet.from_pretrained(tmp_path / "one")
    assert all(map(torch.equal, begun.encoder.state_dict().values(), model.encoder.state_dict().values()))
    assert not torch.equal(begun.decoder.head.weight, model.decoder.head.weight) and "fooling" not in history[0]
    for name in ("none", "instance"):  # the latter is what would be taken if no weights said otherwise
        with pytest.raises(ValueError, match=rf"decoder_norm: .*one has 'film', not '{name}'; leave it out in stage 2"):
            recipe.run(tmp_path / "three", **options | {"decoder_norm": name})


def test_a_training_learns(tmp_path, caches):
    data = recipe.pictures(size=SIDE, colors=4, part="all")
    model, _ = recipe.run(tmp_path / "run", **NET | SMALL | {"steps": 60, "batch": 8, "part": "all", "lr": 5e-3})
    before, after = (recipe.validate(one, data, side=SIDE) for one in (network(decoder_norm="film"), model))
    assert after["euclidean"] < 0.5 * before["euclidean"] and after["ab_rmse"] < after["identity_ab_rmse"]
    assert after == recipe.validate(model, data, side=SIDE)
    other = recipe.validate(model, data, side=SIDE, batch=3)
    assert other == pytest.approx(after, rel=1e-3)


def test_a_validation_by_hand(caches):
    data, model = recipe.pictures(size=SIDE, colors=4, part="val"), network()
    assert len(data) == 1
    found = recipe.validate(model, data, side=SIDE, seed=2)
    item = data[0, 2 << 32]
    pair = hue_pairs(item["rgb"][None], item["palette"][None], [2 << 32], SIDE)
    error = (pair.source - pair.target)[:, 1:].square().mean().sqrt().item()
    assert found["identity_ab_rmse"] == pytest.approx(error, rel=1e-5)
    with torch.no_grad():
        moved = model.eval().transfer(pair.source, pair.palette)
    assert found["ab_rmse"] == pytest.approx((moved - pair.target)[:, 1:].square().mean().sqrt().item(), rel=1e-5)


def test_samples_are_the_same_pairs_each_time(caches):
    data, adversary = recipe.pictures(size=SIDE, colors=4), players()
    picture = recipe.grid(Adversarial(adversary, side=SIDE), data, count=3)
    out = picture(adversary)
    assert out.shape == (3, 3 * (SIDE + SIDE // 8), 3 * SIDE) and out.min() >= 0 and out.max() <= 1
    assert torch.equal(out, picture(adversary.generator))


def test_parts_of_artbench(tmp_path, caches):
    """The official test split is the test; what validates comes out of the train split."""
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 3), ("test", 1)):
        for style in STYLES:
            for n in range(count):
                path = tmp_path / "data" / "artbench10" / split / style / f"{n}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                levels = torch.randint(0, 256, (40, 40, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(levels.numpy()).save(path)
    options = {"data": "artbench", "size": SIDE, "colors": 4}
    sizes = {part: len(recipe.pictures(part=part, **options)) for part in pairs.PARTS}
    assert sizes["all"] == 30 == sizes["train"] + sizes["val"] and sizes["test"] == 10
    assert 0 < sizes["val"] < 10


def test_artbench_in_its_small_edition(tmp_path, caches):
    folder = tmp_path / "data" / "artbench10_32px" / "artbench-10-batches-py"
    folder.mkdir(parents=True)
    draw, styles = np.random.default_rng(0), list(STYLES)
    (folder / "meta").write_bytes(pickle.dumps({"styles": styles}))
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        count = 4 if name == "test_batch" else 6
        pixels = draw.integers(0, 256, (count, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [n % 10 for n in range(count)]}))
    options = {"data": "artbench32", "size": 32, "colors": 4}
    found = {part: recipe.pictures(part=part, **options) for part in pairs.PARTS}
    assert len(found["all"]) == 30 == len(found["train"]) + len(found["val"]) and len(found["test"]) == 4
    assert not set(found["test"].manifest) & set(found["all"].manifest) - {"palettes"}
    first = found["all"][0, 1]["rgb"]
    again = pickle.loads((folder / "data_batch_1").read_bytes())["data"][0].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(first, again)
    _, history = recipe.run(tmp_path / "run", **NET | SMALL | {"steps": 1, "data": "artbench32"})
    assert history[-1]["step"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 1.0}, "unknown option 'learning_rate'; known are .*begin.*fidelity.*variant"),
        ({"data": "coco"}, "data: expected photos, artbench or artbench32, got 'coco'"),
        ({"data": "artbench32", "size": 64}, "size: the pictures of artbench32 have 32 pixels, got 64"),
        ({"part": "dev"}, "part: expected one of all, train, val, test, got 'dev'"),
        ({"palettes": "median"}, "palettes: expected one of chang, kmeans, got 'median'"),
        ({"colors": 13}, "colors: expected a whole number from 1 to 12, got 13"),
        ({"variant": "huge"}, "variant: expected one of paper"),
        ({"size": 31}, "size, side: squares of 32 pixels are not to be had from 31"),
        ({"side": 24}, "side: four halvings"),
        ({"steps": 0}, "steps: expected at least 1"),
    ],
)
def test_a_run_with_wrong_options_trains_nothing(tmp_path, caches, options, message):
    with pytest.raises(ValueError, match=message):
        recipe.run(tmp_path / "run", **{"steps": 1} | NET | SMALL | options)
    assert not (tmp_path / "run").exists()


def test_missing_data_and_weights_are_named(tmp_path, caches):
    with pytest.raises(DataError, match="nowhere: no pictures in"):
        recipe.run(tmp_path / "run", **NET | SMALL | {"steps": 1, "sets": ["nowhere"]})
    with pytest.raises(DataError, match=r"artbench10: .*CTLIB_DATA"):
        recipe.run(tmp_path / "run", **NET | SMALL | {"steps": 1, "data": "artbench"})
    with pytest.raises(DataError, match="part: no colored picture falls into 'test'"):
        recipe.run(tmp_path / "run", **NET | SMALL | {"steps": 1, "part": "test"})
    with pytest.raises(CheckpointError, match="nobody: no such weights"):
        recipe.run(tmp_path / "run", **SMALL | {"steps": 1, "begin": "nobody"})
    assert not (tmp_path / "run").exists()
