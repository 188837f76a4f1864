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

KILLS = int(os.environ.get("CTLIB_KILLS", 8))
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


def run_toy(folder: Path, record: Path, **options) -> subprocess.CompletedProcess:
    record.mkdir(exist_ok=True)
    return torchrun(toy.__file__, folder, json.dumps(SHORT | options), record)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Folder of a training by two processes, and what each of them saw and wrote."""
    folder, record = (tmp_path_factory.mktemp("pair") / name for name in ("run", "record"))
    done = run_toy(folder, record)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, [json.loads((record / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_learn_what_one_learns(pair, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.setenv("CTLIB_PROFILE", "quick")
    network, history = toy.fit(tmp_path, **SHORT | {"dtype": torch.float64})
    state = load_state(pair[0] / "resume.pt")
    assert state["identity"]["environment"]["processes"] == 2
    for name, weight in network.state_dict().items():
        torch.testing.assert_close(state["model"][name], weight, rtol=0, atol=1e-10)
    assert [row["loss"] for row in state["history"]] == pytest.approx([row["loss"] for row in history], rel=1e-6)


def test_two_processes_see_each_sample_once(pair):
    _, ranks = pair
    seen = [index for place in range(0, 40, 2) for rank in ranks for index in rank["seen"][place : place + 2]]
    assert len(seen) == sum(len(rank["seen"]) for rank in ranks) == 20 * 4
    assert all(sorted(seen[epoch : epoch + 10]) == list(range(10)) for epoch in range(0, 80, 10))


def test_only_the_first_process_writes(pair):
    folder, (first, second) = pair
    assert second["written"] == []
    names = {path.name for path in folder.iterdir()}
    assert {"resume.pt", "model.safetensors", "config.json"} < names and len(names) == 4  # and one of TensorBoard's
    assert len(first["written"]) >= 7  # four states, weights, configuration, curve


def test_one_process_falls_the_other_ends(pair, tmp_path):
    """And both together go on later, to the same bits."""
    began = time.monotonic()
    done = run_toy(tmp_path / "run", tmp_path / "record", dies=1)
    assert done.returncode != 0 and time.monotonic() - began < 60
    for rank in (0, 1):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "record" / f"pid-{rank}").read_text()), 0)
    assert load_state(tmp_path / "run" / "resume.pt")["step"] == 10
    done = run_toy(tmp_path / "run", tmp_path / "record")
    assert done.returncode == 0, done.stderr[-3000:]
    assert sha256(tmp_path / "run") == sha256(pair[0])


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
