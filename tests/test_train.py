"""The training loop: settings, the order of samples, and that an interrupted run loses time but no bit."""

import functools
import io
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from accelerate.state import AcceleratorState
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import Net, Pictures, PowerCutError, fit

from ctlib import checkpoints, paths, train
from ctlib.checkpoints import CheckpointError, load_state
from ctlib.settings import SCHEDULES, Settings, parse_settings
from ctlib.train import Order, TrainingError


@pytest.fixture(autouse=True)
def one_processor(monkeypatch):
    """One thread on the CPU, whatever the machine has: bits are compared."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.setenv("CTLIB_PROFILE", "quick")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    torch.set_num_threads(threads)


def same(a, b):
    """Whether two states of training hold the same bits; speed aside."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        keys = [key for key in a if key not in ("images_per_second", "loader")]
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in keys)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def dropping():
    """A network that draws from torch's own generator."""
    return Net(drop=0.5)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*") if not path.name.startswith("events")}


# Settings


@pytest.mark.parametrize(
    "name, value",
    [
        *[(name, 0) for name in ("steps", "batch", "accumulate", "save_every", "log_every", "lr")],
        *[(name, -1) for name in ("steps", "seed", "workers", "sample_every", "lr")],
        *[("lr", value) for value in (math.nan, math.inf, "fast", None, True)],
        *[("steps", value) for value in (1.5, "many", None, True, math.nan, math.inf)],
        *[("betas", value) for value in ([0.9], [0.9, 1.0], [-0.1, 0.9], 0.9, "ab", [0.9, 0.99, 0.999])],
        *[("schedule", value) for value in ("stairs", "halve", "halve-0", "halve-x", None, ["linear"])],
        ("precision", "fp16"),
        ("compile", "no"),
        ("shuffle", "no"),
    ],
)
def test_wrong_settings_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected .*, got {re.escape(repr(value))}$"):
        parse_settings(**{"steps": 10, name: value})


def test_settings_by_name():
    with pytest.raises(ValueError, match=r"unknown option 'stepz'; known are accumulate, .*, steps, width, workers$"):
        parse_settings(steps=10, stepz=1, also=("width", "folder"))
    with pytest.raises(ValueError, match="steps: say how many"):
        parse_settings(batch=4)


def test_settings_become_plain_values():
    """YAML takes 1e-3 for a word and a bare no for false; NumPy's numbers would make a state that cannot be read."""
    settings = parse_settings(steps="10", lr="1e-3", precision=False, betas=["0.5", 0])
    assert settings == Settings(steps=10, lr=0.001, precision="no", betas=(0.5, 0.0))
    settings = Settings(np.int64(10), lr=np.float64(0.5), betas=np.array([0.5, 0.9]))
    assert settings == Settings(10, lr=0.5, betas=(0.5, 0.9))
    assert [type(value) for value in (settings.steps, settings.lr, *settings.betas)] == [int, float, float, float]


def test_the_schedules():
    constant, linear, cosine, stairs = (Settings(100, lr=2.0, schedule=name) for name in SCHEDULES)
    assert {constant.lr_at(step) for step in range(100)} == {2.0}
    assert {linear.lr_at(step) for step in range(51)} == {2.0}
    assert [linear.lr_at(step) for step in (75, 99)] == pytest.approx([1.0, 0.04])
    assert cosine.lr_at(0) == pytest.approx(1.0, rel=1e-3) and cosine.lr_at(1) == pytest.approx(2.0, rel=1e-3)
    assert cosine.lr_at(50) == pytest.approx(1.0)
    assert cosine.lr_at(99) == pytest.approx(1 - math.cos(math.pi / 100))
    assert [stairs.lr_at(step) for step in (0, 49, 50, 74, 75, 99)] == pytest.approx([2, 2, 0.2, 0.2, 0.02, 0.02])
    for settings in (linear, cosine, stairs):
        rates = [settings.lr_at(step) for step in range(2, 100)]
        assert rates == sorted(rates, reverse=True) and rates[-1] > 0
    halved, tenths = (Settings(100, lr=2.0, schedule=name) for name in ("halve-30", "tenth-40"))
    assert [halved.lr_at(step) for step in (0, 29, 30, 60, 99)] == pytest.approx([2, 2, 1, 0.5, 0.25])
    assert [tenths.lr_at(step) for step in (0, 39, 40, 80)] == pytest.approx([2, 2, 0.2, 0.02])
    for name in SCHEDULES:  # a single step trains
        assert Settings(1, schedule=name).lr_at(0) > 0


# Order


def take(order, batches):
    return [sample for _ in range(batches) for sample in next(order)]


@pytest.mark.parametrize("count, batch", [(12, 4), (10, 4), (3, 8), (1, 2)])
def test_each_sample_once_an_epoch(count, batch):
    epochs, batches = 4 * batch, 4 * count
    samples = take(Order(count, batch, seed=0), batches)
    assert len(samples) == count * epochs
    permutations = [[index for index, _ in samples[n * count : (n + 1) * count]] for n in range(epochs)]
    assert all(sorted(permutation) == list(range(count)) for permutation in permutations)
    assert len(set(map(tuple, permutations))) > 1 or count == 1
    seeds = [seed for _, seed in samples]
    assert len(set(seeds)) == len(seeds) and min(seeds) >= 0 and max(seeds) < 2**63


def test_without_shuffling_the_samples_come_as_they_lie():
    samples = take(Order(5, 3, seed=0, shuffle=False), 5)
    assert [index for index, _ in samples] == [0, 1, 2, 3, 4] * 3
    assert [seed for _, seed in samples] == [seed for _, seed in take(Order(5, 3, seed=0), 5)]


def test_two_processes_share_the_stream_of_one():
    one = Order(10, 4, seed=3)
    ranks = [Order(10, 4, 3, rank, world=2) for rank in (0, 1)]
    for _ in range(12):
        assert next(one) == next(ranks[0]) + next(ranks[1])


def test_parts_of_a_batch_are_the_batch():
    assert take(Order(10, 4, seed=3), 6) == take(Order(10, 2, seed=3), 12)


def test_the_order_goes_on_from_its_state():
    order, again = Order(10, 4, seed=1), Order(10, 4, seed=1)
    take(order, 7)
    again.load_state_dict(order.state_dict())
    assert take(order, 5) == take(again, 5)


def test_seeds_give_other_orders():
    streams = [take(Order(10, 5, seed), 4) for seed in range(5)]
    for part in (0, 1):  # indices, seeds of the samples
        assert len({tuple(sample[part] for sample in stream) for stream in streams}) == 5


# A training from end to end


def test_the_loss_falls_and_the_weights_are_saved(tmp_path):
    network, history = fit(tmp_path / "new" / "run", steps=150, lr=0.02, log_every=50, save_every=1000)
    assert [row["step"] for row in history] == [50, 100, 150]
    assert history[-1]["loss"] < history[0]["loss"] / 1.5
    for row in history:
        assert row["twice"] == pytest.approx(2 * row["loss"]) and row["lr"] == 0.02 and row["images_per_second"] > 0
    assert not network.training
    again = Net.from_pretrained(tmp_path / "new" / "run")
    assert all(torch.equal(b, a.half().float()) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_a_finished_training_is_not_trained_again(tmp_path):
    network, history = fit(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # killed just before the end
    data = Pictures()
    again, repeated = fit(tmp_path, data=data)
    assert data.seen == [] and repeated == history and (tmp_path / "model.safetensors").exists()
    assert same(network.state_dict(), again.state_dict())


def test_means_are_those_of_each_stretch(tmp_path):
    """Row by row what a run that logs every step says."""
    every = [row["loss"] for row in fit(tmp_path / "every", log_every=1)[1]]
    rows = fit(tmp_path / "run", log_every=3, save_every=5)[1]
    assert [row["step"] for row in rows] == [3, 5, 6, 9, 10, 12]
    begin = 0
    for row in rows:
        assert row["loss"] == pytest.approx(np.mean(every[begin : row["step"]]), rel=1e-6)
        begin = row["step"]


def test_a_network_that_cannot_be_saved_trains_too(tmp_path):
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Conv2d(3, 3, 1)

        def forward(self, unit):
            return self.last(unit)

    fit(tmp_path, model=Plain)
    assert set(files(tmp_path)) == {"resume.pt"}


def test_parts_of_a_batch_add_up(tmp_path):
    whole, rows = fit(tmp_path / "1", dtype=torch.float64, steps=20)
    parts, same_rows = fit(tmp_path / "2", dtype=torch.float64, steps=20, accumulate=2)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in same_rows], rel=1e-6)


def test_two_precisions_in_one_session(tmp_path):
    for precision in ("no", "bf16", "no"):
        network, _ = fit(tmp_path / precision, precision=precision)
        assert network.first.weight.dtype == torch.float32
    exact, rough = (load_state(tmp_path / name / "resume.pt")["model"]["first.weight"] for name in ("no", "bf16"))
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(exact, rough, rtol=0.2, atol=0.05)


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}], ids=str)
def test_an_objective_hears_which_step_it_is(tmp_path, monkeypatch, options):
    told = []
    monkeypatch.setattr(toy.Objective, "at", lambda self, step, steps: told.append((step, steps)), raising=False)
    with pytest.raises(PowerCutError):
        fit(tmp_path, steps=8, stop=7 * options.get("accumulate", 1), **options)
    fit(tmp_path, steps=8, **options)
    parts = options.get("accumulate", 1)
    place = [(step, 8) for step in range(8) for _ in range(parts)]
    assert told == place[: 7 * parts] + place[5 * parts :]


# Interrupted

CASES = {
    "first step": (2, {}),
    "mid-epoch": (7, {}),
    "while logging is apart from saving": (10, {"save_every": 4, "log_every": 3}),
    "parts": (15, {"accumulate": 2}),
    "workers": (8, {"workers": 2}),
    "schedule": (8, {"schedule": "cosine"}),
    "bf16": (8, {"precision": "bf16"}),
    "one sample": (8, {"batch": 1}),
}


@pytest.mark.parametrize("stop, options", CASES.values(), ids=CASES)
def test_an_interrupted_run_loses_no_bit(tmp_path, stop, options):
    whole, history = fit(tmp_path / "whole", **options)
    with pytest.raises(PowerCutError):
        fit(tmp_path / "run", stop=stop, **options)
    torch.rand(7)  # what else happens in a session is of no concern
    network, again = fit(tmp_path / "run", **options)
    assert same(whole.state_dict(), network.state_dict()) and same(history, again)
    assert same(*(load_state(tmp_path / name / "resume.pt") for name in ("whole", "run")))
    names = ("model.safetensors", "config.json")
    assert [files(tmp_path / "whole")[name] for name in names] == [files(tmp_path / "run")[name] for name in names]


def test_interrupted_again_and_again(tmp_path):
    whole, history = fit(tmp_path / "whole", save_every=2)
    for stop in (1, 2, 4, 3, 3, 1, 6):
        with pytest.raises(PowerCutError):
            fit(tmp_path / "run", stop=stop, save_every=2)
    network, again = fit(tmp_path / "run", save_every=2)
    assert same(whole.state_dict(), network.state_dict()) and same(history, again)


def test_interrupted_while_reading(tmp_path):
    class Torn(Pictures):
        def __getitem__(self, place):
            if len(self.seen) == 30:
                raise PowerCutError
            return super().__getitem__(place)

    whole, _ = fit(tmp_path / "whole")
    with pytest.raises(PowerCutError):
        fit(tmp_path / "run", data=Torn())
    assert load_state(tmp_path / "run" / "resume.pt")["step"] == 5
    assert same(whole.state_dict(), fit(tmp_path / "run")[0].state_dict())


def test_dropout_goes_on_where_it_was(tmp_path):
    whole, _ = fit(tmp_path / "whole", model=dropping)
    for stop in (7, 4):
        with pytest.raises(PowerCutError):
            fit(tmp_path / "run", model=dropping, stop=stop)
    assert same(whole.state_dict(), fit(tmp_path / "run", model=dropping)[0].state_dict())


def test_a_run_goes_on_with_other_free_settings(tmp_path):
    whole, _ = fit(tmp_path / "whole")
    with pytest.raises(PowerCutError):
        fit(tmp_path / "run", stop=8)
    free = {"save_every": 3, "log_every": 2, "sample_every": 1}
    network, _ = fit(tmp_path / "run", samples=lambda network: torch.rand(3, 4, 4), **free)
    assert same(whole.state_dict(), network.state_dict())


# Refused


@pytest.mark.parametrize(
    "change, message",
    [
        ({"lr": 0.02}, r"settings \(lr was 0.01 and is 0.02\)"),
        ({"batch": 2, "seed": 1}, r"settings \(batch was 4 and is 2, seed was 0 and is 1\)"),
        ({"steps": 13}, r"settings \(steps was 12 and is 13\)"),
        ({"accumulate": 2}, r"settings \(accumulate was 1 and is 2\)"),
        ({"workers": 1}, r"settings \(workers was 0 and is 1\)"),
        ({"shuffle": False}, r"settings \(shuffle was True and is False\)"),
        ({"noise": 0.2}, r"objective \(noise was 0.1 and is 0.2\)"),
        ({"model": functools.partial(Net, width=5)}, r"network \(width was 4 and is 5\)"),
        ({"data": Pictures(seed=1)}, r"data \(other files\)"),
        ({"data": Pictures(count=9)}, r"data \(other files\)"),
        ({"threads": 2}, r"environment \(threads was 1 and is 2\)"),
    ],
)
def test_another_run_is_not_gone_on_with(tmp_path, change, message):
    with pytest.raises(PowerCutError):
        fit(tmp_path, stop=8)
    before = files(tmp_path)
    torch.set_num_threads(change.pop("threads", 1))
    with pytest.raises(CheckpointError, match=rf"resume.pt: begun with a different {message}; go on as it was begun"):
        fit(tmp_path, **change)
    assert files(tmp_path) == before


def test_the_order_of_the_files_is_part_of_the_data(tmp_path):
    """An index stands for another picture then."""

    class Turned(Pictures):
        @property
        def manifest(self):
            return dict(reversed(super().manifest.items()))

    with pytest.raises(PowerCutError):
        fit(tmp_path, stop=8)
    with pytest.raises(CheckpointError, match="begun with a different data"):
        fit(tmp_path, data=Turned())


@pytest.mark.parametrize("part", ["identity", "step", "model", "optimizer", "loader", "rng", "history"])
@pytest.mark.parametrize("value", ["gone", "text", 5.5, [3]], ids=str)
def test_a_state_with_a_part_amiss_is_refused(tmp_path, part, value):
    state = _begun(tmp_path)
    if value == "gone":
        del state[part]
    else:
        state[part] = value
    torch.save(state, tmp_path / "resume.pt")
    with pytest.raises(CheckpointError, match=r"resume.pt: .*; remove it and start anew"):
        fit(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "empty dict", "other network"])
def test_a_damaged_state_is_refused_and_kept(tmp_path, damage):
    state, path = _begun(tmp_path), tmp_path / "resume.pt"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    else:
        other = state | {"model": Net(width=5).state_dict()}
        checkpoints.save_state(path, {} if damage == "empty dict" else other)
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=r"resume.pt: not .*; remove it and start anew"):
        fit(tmp_path)
    assert files(tmp_path) == before


def test_a_finished_training_can_be_looked_at_anywhere(tmp_path):
    network, history = fit(tmp_path)
    torch.set_num_threads(2)
    again, same_history = fit(tmp_path)
    assert same(network.state_dict(), again.state_dict()) and same_history == history
    with pytest.raises(CheckpointError, match=r"settings \(lr was"):
        fit(tmp_path, lr=0.02)


_STATE = {}


def _begun(folder: Path) -> dict:
    """The state of a run that was interrupted in `folder`; trained once, copied after that."""
    if not _STATE:
        with pytest.raises(PowerCutError):
            fit(folder, stop=8)
        _STATE.update(load_state(folder / "resume.pt"))
    checkpoints.save_state(folder / "resume.pt", _STATE)
    return dict(_STATE)


@pytest.mark.parametrize("options", [{"batch": 5, "accumulate": 2}, {"batch": 1, "accumulate": 4}])
def test_a_batch_that_cannot_be_divided(tmp_path, options):
    with pytest.raises(ValueError, match=f"batch: {options['batch']} samples cannot be divided among 1 processes x"):
        fit(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_what_no_checkpoint_would_hold_is_not_trained(tmp_path):
    """A loss with a weight of its own would begin anew after each restart, and nobody would notice."""
    objective = toy.Objective(Net())
    objective.temperature = torch.nn.Parameter(torch.ones(()))
    with pytest.raises(ValueError, match=r"temperature is to be trained outside objective\.model"):
        train.fit(objective, Pictures(), parse_settings(steps=2, batch=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    objective.temperature.requires_grad_(False)
    train.fit(objective, Pictures(), parse_settings(steps=2, batch=2), tmp_path / "run")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ValueError, match="run is a file; name another"):
        fit(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_no_samples(tmp_path):
    with pytest.raises(ValueError, match="dataset: holds no samples"):
        fit(tmp_path / "run", data=Pictures(count=0))
    assert not (tmp_path / "run").exists()


# Numbers that are none


def broken(loss):
    return loss * math.nan


def broken_gradient(loss):
    return loss + (loss - loss.detach()).sqrt()  # + 0, with an infinite slope


@pytest.mark.parametrize("options, stop", [({}, 8), ({"accumulate": 2}, 15), ({"accumulate": 2}, 16), ({}, 10)])
def test_a_loss_that_is_no_number(tmp_path, options, stop):
    step = math.ceil(stop / options.get("accumulate", 1))
    with pytest.raises(
        TrainingError, match=rf"the loss is not finite at step {step}; \S*resume.pt keeps an earlier step"
    ):
        fit(tmp_path, stop=stop, event=broken, **options)
    assert load_state(tmp_path / "resume.pt")["step"] == 5 and not (tmp_path / "model.safetensors").exists()
    network, _ = fit(tmp_path, **options)  # the data is well again
    assert same(network.state_dict(), fit(tmp_path / "whole", **options)[0].state_dict())


def test_a_loss_that_is_no_number_from_the_start(tmp_path):
    with pytest.raises(TrainingError, match="the loss is not finite at step 2; nothing was saved yet; lower lr"):
        fit(tmp_path, stop=2, event=broken)
    assert not (tmp_path / "resume.pt").exists()


@pytest.mark.parametrize("stop, saved", [(10, 5), (12, 10)], ids=["save", "last"])
def test_a_gradient_that_is_no_number_spoils_no_state(tmp_path, stop, saved):
    """The loss of that step is still fine; what is to be saved is not."""
    with pytest.raises(
        TrainingError, match=f"the weights are not finite at step {stop}; .*resume.pt keeps an earlier step"
    ):
        fit(tmp_path, stop=stop, event=broken_gradient)
    assert load_state(tmp_path / "resume.pt")["step"] == saved and not (tmp_path / "model.safetensors").exists()
    assert same(fit(tmp_path)[0].state_dict(), fit(tmp_path / "whole")[0].state_dict())


# What a person sees


def test_tensorboard_holds_curve_and_pictures(tmp_path):
    modes, grid = [], torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))

    def samples(network):
        modes.append((network.training, torch.is_grad_enabled()))
        return grid

    model, history = fit(tmp_path, samples=samples, sample_every=4)
    assert modes == [(False, False)] * 3
    board = EventAccumulator(str(tmp_path)).Reload()
    assert set(board.Tags()["scalars"]) == {"loss", "twice", "lr", "images_per_second"}
    for name in board.Tags()["scalars"]:
        points = [(event.step, event.value) for event in board.Scalars(name)]
        assert points == [(row["step"], pytest.approx(row[name])) for row in history]
    shown = board.Images("samples")
    assert [event.step for event in shown] == [5, 9, 12]  # where numbers are looked at, at most every four steps
    weights = {name: value for name, value in model.named_parameters()}
    assert set(board.Tags()["histograms"]) == set(weights)
    for name, value in weights.items():  # the last one is of the weights as they were left
        found = board.Histograms(name)[-1]
        assert found.step == 12 and found.histogram_value.num == value.numel()
        assert found.histogram_value.sum == pytest.approx(value.sum().item(), rel=1e-5)
    pixels = np.asarray(Image.open(io.BytesIO(shown[-1].encoded_image_string)))
    np.testing.assert_allclose(pixels, 255 * grid.permute(1, 2, 0), atol=1)


def test_a_stopped_run_leaves_its_curve(tmp_path):
    """To be looked at, above all where the loss went astray."""
    with pytest.raises(TrainingError):
        fit(tmp_path, stop=8, event=broken)
    points = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [event.step for event in points] == [3, 5, 6]


def test_looking_changes_no_bit(tmp_path):
    def samples(network):
        return torch.rand(3, 4, 4)  # from the generator that dropout draws from

    blind, _ = fit(tmp_path / "blind", model=dropping)
    seeing, _ = fit(tmp_path / "seeing", model=dropping, samples=samples, sample_every=2)
    assert same(blind.state_dict(), seeing.state_dict())


def test_leftovers_of_a_killed_save_go(tmp_path):
    for name in (".resume-abc.pt", ".model-abc.safetensors", ".config-abc.json", ".mine", "notes-resume.pt"):
        (tmp_path / name).write_text("half")
    fit(tmp_path)
    assert set(files(tmp_path)) == {".mine", "notes-resume.pt", "resume.pt", "model.safetensors", "config.json"}


def test_a_batch_run_says_nothing(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(paths.ROOT)}
    command = [sys.executable, toy.__file__, tmp_path / "run", '{"accumulate": 2, "workers": 1}']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "run" / "model.safetensors").exists()
