"""ctlib.results: the ledger."""

import json
import random

import numpy as np
import pytest
import torch

from ctlib import paths, results


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """A build and a record of their own."""
    monkeypatch.setenv("CTLIB_PROFILE", "quick")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


def test_start_seeds_every_generator_and_says_where_it_runs(capsys):
    draws = []
    for _ in range(2):
        results.start("99_x", seed=7)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]
    line = capsys.readouterr().out.splitlines()[0]
    assert "99_x" in line and "profile quick" in line and "seed 7" in line and "torch" in line


def test_written_file_holds_rows_provenance_and_units():
    run = results.start("99_x", seed=3, long_side=64)
    rows = [{"case": "a", "method": "identity", "psnr": float("inf"), "ssim": np.float64(0.5), "lpips": float("nan")}]
    path = run.write(rows, data={"china": "abc"}, note=torch.tensor([1.0, 2.0]))
    record = json.loads(path.read_text())
    assert path == paths.results_dir() / "99_x.json"
    assert record["rows"] == [{"case": "a", "method": "identity", "psnr": "inf", "ssim": 0.5, "lpips": None}]
    assert record["metrics"]["psnr"] == {"unit": "dB", "better": "higher", "compares": "truth"}
    assert record["parameters"] == {"seed": 3, "long_side": 64} and record["profile"] == "quick"
    assert record["data"] == {"china": "abc"} and record["note"] == [1.0, 2.0]
    assert {"commit", "date", "device", "versions", "seconds", "peak_memory_mb"} <= set(record)
    assert record["seed"] == 3 and record["versions"]["torch"].startswith(torch.__version__.split("+")[0])


def test_this_build_wins_over_the_record(folders):
    folder = folders / "book" / "results"
    folder.mkdir(parents=True)
    (folder / "99_x.json").write_text('{"rows": [], "profile": "gpu"}')
    assert results.read("99_x")["source"] == "record"
    results.start("99_x", seed=0).write([])
    assert results.read("99_x")["source"] == "this build"


def test_missing_results_name_the_remedy():
    with pytest.raises(FileNotFoundError, match=r"no results of 98_y: run notebooks/98_y.ipynb first, or `make book`"):
        results.read("98_y")


def test_outside_git_the_commit_is_unknown():
    assert results.provenance()["commit"] == "unknown"


def test_interactive_runs_never_touch_the_book(monkeypatch):
    monkeypatch.delenv("CTLIB_PROFILE")
    assert results.start("99_x", seed=0).write([]).parent == paths.ROOT / "_build" / "lab" / "results"


def test_a_person_reads_the_quick_book_but_a_build_never_does(monkeypatch):
    results.start("99_x", seed=0).write([])
    for profile, found in (("lab", "quick book"), ("gpu", None)):
        monkeypatch.setenv("CTLIB_PROFILE", profile)
        if found:
            assert results.read("99_x")["source"] == found
        else:
            with pytest.raises(FileNotFoundError):
                results.read("99_x")
