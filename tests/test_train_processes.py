"""Training in processes of its own: killed at any moment, two at a time, and by the command."""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import toy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ctlib import paths
from ctlib.checkpoints import load_state
from ctlib.models.histogram_analogy import HistogramAnalogy
from ctlib.recipes import histogram_analogy as recipe

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("CTLIB_KILLS", 4))
LONG = {"steps": 1000, "save_every": 13, "log_every": 20, "lr": 0.001}
SHORT = {"steps": 20, "save_every": 5, "dtype": "float64"}
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "CTLIB_PROFILE": "quick",
    "CUDA_VISIBLE_DEVICES": "",  # bits are compared, and gloo is for processors
    "PYTHONPATH": str(paths.ROOT),
}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def wait_for(path: Path, process: multiprocessing.Process) -> None:
    """Until the file is there, or the process has ended."""
    while process.is_alive() and not path.exists():
        time.sleep(0.0005)


@pytest.fixture
def start(monkeypatch):
    """Begin a long training in a process of its own, which has all modules from the beginning."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["ctlib.train", "accelerate", "torchdata.stateful_dataloader", "torch.utils.tensorboard", "ctlib.figures"]
    )

    def begin(folder: Path, record: Path) -> multiprocessing.Process:
        shutil.rmtree(record, ignore_errors=True)
        record.mkdir()
        time.sleep(1 - time.time() % 1)  # TensorBoard orders its files by the second
        process = context.Process(target=toy.main, args=(str(folder), json.dumps(LONG), str(record)))
        process.start()
        wait_for(record / "begun", process)
        return process

    return begin


def test_killed_at_any_moment_no_bit_is_lost(tmp_path, start, capsys):
    """`CTLIB_KILLS` times; every second one aims at a save."""
    whole, folder, record = tmp_path / "whole", tmp_path / "run", tmp_path / "record"
    began = time.monotonic()
    command = [sys.executable, toy.__file__, whole, json.dumps(LONG)]
    subprocess.run(command, env=ENVIRONMENT, check=True)
    span, dice = time.monotonic() - began, random.Random(0)

    kills = inside = runs = identical = attempts = 0
    while True:
        enough = kills >= KILLS and inside >= KILLS / 4
        process = start(folder, record)
        if not enough:
            time.sleep(dice.uniform(0, span / 6))
            attempts += 1
            if attempts % 2:
                wait_for(record / "saving", process)
                time.sleep(dice.uniform(0, 0.01))
            process.kill()
        process.join()
        if process.exitcode == 0:  # nothing killed it, or too late
            runs, identical = runs + 1, identical + (sha256(folder) == sha256(whole))
            assert not list(folder.glob(".*")), "leftovers of killed saves"
            steps = [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("loss")]
            assert steps == [n for n in range(1, 1001) if n % 13 == 0 or n % 20 == 0]
            if enough:
                break
            shutil.rmtree(folder)
        else:
            assert process.exitcode == -signal.SIGKILL
            kills, inside = kills + 1, inside + (record / "saving").exists()
            if (folder / "resume.pt").exists():
                load_state(folder / "resume.pt")
    with capsys.disabled():
        print(f" {kills} kills, {inside} of them in a save; {identical} of {runs} runs identical ", end="")
    assert identical == runs


def torchrun(*command, timeout: float = 200) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*TORCHRUN, *map(str, command)], env=ENVIRONMENT, timeout=timeout, capture_output=True, text=True
    )


@dataclass
class Pair:
    """A training by two processes, of which the second was killed at step 12 and both began again."""

    folder: Path
    fallen: subprocess.CompletedProcess  # where one was killed
    seconds: float
    pids: list[int]
    step: int  # where it went on
    ranks: list[dict]  # what each saw and wrote from there


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder, record = (tmp_path_factory.mktemp("pair") / name for name in ("run", "record"))
    record.mkdir()
    began = time.monotonic()
    fallen = torchrun(toy.__file__, folder, json.dumps(SHORT | {"dies": 1}), record)
    seconds = time.monotonic() - began
    pids, step = (
        [int((record / f"pid-{rank}").read_text()) for rank in (0, 1)],
        load_state(folder / "resume.pt")["step"],
    )
    done = torchrun(toy.__file__, folder, json.dumps(SHORT), record)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((record / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    return Pair(folder, fallen, seconds, pids, step, ranks)


def test_one_process_falls_the_other_ends(pair):
    assert pair.fallen.returncode != 0 and pair.seconds < 60 and pair.step == 10
    for pid in pair.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_two_processes_learn_what_one_learns(pair, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.setenv("CTLIB_PROFILE", "quick")
    network, history = toy.fit(tmp_path, **SHORT | {"dtype": torch.float64})
    state = load_state(pair.folder / "resume.pt")
    assert state["step"] == 20 and state["identity"]["environment"]["processes"] == 2
    for name, weight in network.state_dict().items():
        torch.testing.assert_close(state["model"][name], weight, rtol=0, atol=1e-10)
    assert [row["loss"] for row in state["history"]] == pytest.approx([row["loss"] for row in history], rel=1e-6)


def test_two_processes_see_each_sample_once(pair):
    """Four epochs of ten pictures, in ten batches of four, two for each."""
    first, second = (rank["seen"] for rank in pair.ranks)
    seen = [index for place in range(0, 20, 2) for rank in (first, second) for index in rank[place : place + 2]]
    assert len(first) == len(second) == 20
    assert all(sorted(seen[epoch : epoch + 10]) == list(range(10)) for epoch in range(0, 40, 10))


def test_only_the_first_process_writes(pair):
    first, second = (rank["written"] for rank in pair.ranks)
    assert second == [] and len(first) >= 5  # two states, weights, configuration, curve
    names = [path.name.split(".")[0] for path in pair.folder.iterdir()]
    assert sorted(names) == ["config", "events", "events", "model", "resume"]


def test_the_command_trains_on_two_processes(tmp_path):
    cached = recipe.cache_dir("photos-82")
    shutil.rmtree(cached, ignore_errors=True)  # both find none, and must not build it at once
    file = tmp_path / "options.yml"
    file.write_text("{data: photos, sets: [photos], width: tiny, size: 82, side: 64, steps: 2, batch: 2}\n")
    done = torchrun("-m", "ctlib.cli", "train", "histogram_analogy", tmp_path / "run", "-f", file)
    shutil.rmtree(cached, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "step 2, loss" in done.stdout
    assert load_state(tmp_path / "run" / "resume.pt")["identity"]["environment"]["processes"] == 2
    network = HistogramAnalogy.from_pretrained(tmp_path / "run")
    source = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(network.recolor(source, source)).all()
