"""The report's grid: every point once, what is measured of a training, and trainings that are not repeated."""

import json

import pytest

from ctlib import results
from ctlib.checkpoints import load_state
from ctlib.recipes import palettenet, sweep
from ctlib.recipes.sweep import Point

OPTIONS = {"sets": ["photos"], "size": 32, "side": 32, "crop": 1.0, "colors": 4, "variant": "tiny"}
OPTIONS |= {"decoder_norm": "none"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sweep.points([], [8], [True]), "lrs: is empty"),
        (lambda: sweep.points([0.1], [0], [True]), "batches: expected whole numbers from 1 on, got 0"),
        (lambda: sweep.points([0.1], [8], ["yes"]), "shuffles: expected true or false, got 'yes'"),
        (lambda: sweep.points(["fast"], [8], [True]), "lr: expected a positive number, got 'fast'"),
        (
            lambda: sweep.train(Point(0.1, 8, True), None, seeds=0),
            "seeds: expected a whole number of at least 1, got 0",
        ),
        (lambda: sweep.train(Point(0.1, 8, True), None, epochs=0), "epochs: expected a whole number of at least 1"),
        (lambda: sweep.train(Point(0.1, 8, True), None, epoch=-5), "epoch: expected a whole number of at least 0"),
    ],
)
def test_a_grid_that_is_none_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_comparisons_of_a_table():
    rows = [
        {
            "method": f"{lr} {shuffle}",
            "lr": lr,
            "batch": 8,
            "shuffle": shuffle,
            "seed": seed,
            "validation": v + seed,
            "last_batch": w,
        }
        for lr, shuffle, v, w in ((0.1, True, 4, 1), (0.1, False, 2, 2), (0.2, True, 9, 3), (0.2, False, 3, 4))
        for seed in (0, 1)
    ]
    mean, spread = sweep.means([row | {"epoch_mean": 0} for row in rows])
    assert mean.loc["0.1 True", "validation"] == 4.5 and spread.loc["0.1 True", "validation"] == pytest.approx(0.5**0.5)
    rows = [row | {"epoch_mean": 0} for row in rows]
    assert sweep.agreement(rows, "last_batch") == pytest.approx([0.0, 0.0])
    assert sweep.agreement(rows, "validation") == pytest.approx([1, 1])
    assert sweep.shuffling(rows).tolist() == pytest.approx([2, 5 / 3, 3, 10 / 4])


def test_the_grid_is_the_reports():
    found = sweep.points([0.01, 0.0002], [8, 16, 32], [True, False])
    assert found == list(sweep.REPORT) and len(set(map(sweep.name_of, found))) == 12
    assert min(sweep.REPORT, key=sweep.REPORT.get) == Point(0.0002, 8, False)


def test_three_numbers_of_each_training(tmp_path, monkeypatch):
    monkeypatch.setattr(results.paths, "results_dir", lambda profile=None: tmp_path / "results")
    place = results.Run("32_sweep_hyperparameters", {}).checkpoints
    point = Point(0.001, 4, False)
    rows = sweep.train(point, place, epochs=2, epoch=10, seed=3, seeds=2, **OPTIONS)
    assert [row["seed"] for row in rows] == [3, 4] and {row["method"] for row in rows} == {"lr 0.001 batch 4 in order"}
    json.dumps(rows)
    states = {}
    for path in tmp_path.rglob("resume.pt"):
        state = load_state(path)
        states[state["identity"]["settings"]["seed"]] = state["history"]
    held_out = palettenet.pictures(sets=["photos"], size=32, part="val", colors=4)
    assert len(held_out)
    for row in rows:
        losses = [line["euclidean"] for line in states[row["seed"]]]
        assert len(losses) == 6  # two epochs of three steps, whose last batch is not whole
        assert row["last_batch"] == losses[-1] and row["epoch_mean"] == pytest.approx(sum(losses[-3:]) / 3)
        assert row["validation"] > 0 and row["ab_rmse"] > 0 and row["identity_ab_rmse"] > 0
    assert rows[0]["validation"] != rows[1]["validation"]

    def train_again(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(palettenet.Objective, "forward", train_again)
    assert sweep.train(point, place, epochs=2, epoch=10, seed=3, seeds=2, **OPTIONS) == rows
