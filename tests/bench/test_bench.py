"""The harness is right; what it measures is not tested here, as no test may depend on the clock."""

import pandas as pd
import pytest
import torch

from ctlib.bench import contenders, goals, ledger, timing
from ctlib.ops import launch


def tiny_case(**changes):
    inputs = [(torch.linspace(0, 1, 1000),)]
    double = timing.Contender("ours", lambda x: 2 * x, lambda y: y)
    wrong = timing.Contender("theirs", lambda x: 2 * x + 0.5, lambda y: y)
    other = timing.Contender("other", lambda x: x.sum())
    case = {"op": "double", "size": "1000", "inputs": inputs, "contenders": [double, wrong, other], "bytes": 8000}
    return timing.Case(**case | {"truth": lambda x: 2 * x.double()} | changes)


def test_run_and_table():
    results = timing.run(tiny_case(), rounds=4)
    table = ledger.table(tiny_case(), results, bandwidth=10.0)
    assert list(table.contender) == ["ours", "theirs", "other"] and (table.rounds == 4).all()
    assert table.max_error[0] == 0 and table.max_error[1] == pytest.approx(0.5) and pd.isna(table.max_error[2])
    assert table.ratio[0] == 1 and (table.median_ms >= table.least_ms).all()
    median = results[0].median_ms
    assert table.copy_share[0] == pytest.approx(8000 / (median * 1e-3) / 10e9, rel=0.01, abs=1e-4)


def test_rounds_are_interleaved_and_slow_contenders_sit_out(monkeypatch):
    order = []
    ours, slow = (timing.Contender(name, lambda x, name=name: order.append(name)) for name in ("ours", "slow"))
    ticks = {"ours": 0.1, "slow": 9.0}
    monkeypatch.setattr(timing, "clock", lambda call, inputs: (call(*inputs), 1e3 * ticks[order[-1]])[1])
    results = timing.run(tiny_case(contenders=[ours, slow], truth=None), rounds=3)
    assert order[-4:] == ["ours", "slow", "ours", "ours"]
    assert [len(result.times_ms) for result in results] == [3, 1]


def test_peak_memory_sees_what_a_call_holds():
    peak, result = timing.peak_of(lambda x: torch.ones(50_000_000).mul_(2).sum() + x.sum(), (torch.ones(3),))
    assert result == 100_000_003
    assert peak is None or 180 < peak < 260  # 200 MB; None where the system does not tell


def test_a_copy_has_a_speed():
    assert timing.copy_bandwidth(megabytes=4, rounds=3) > 0.1  # GB/s


def test_ledger_appends_and_remembers_the_latest(tmp_path):
    path = tmp_path / "results" / "ops.csv"
    with pytest.raises(FileNotFoundError, match="no benchmark on record; make one with `make bench`"):
        ledger.latest(path)
    first = ledger.table(tiny_case(), timing.run(tiny_case(), rounds=3), bandwidth=10.0)
    ledger.record(first, path)
    ledger.record(first.assign(median_ms=123.0), path)
    everything, last = ledger.read(path), ledger.latest(path)
    assert len(everything) == 6 and len(last) == 3 and (last.median_ms == 123.0).all()
    assert {"date", "commit", "versions", "device"} <= set(last) and "torch" in last.versions[last.index[0]]


def test_the_ledger_on_record_is_sound():
    rows = ledger.read()
    assert not rows.empty and rows.median_ms.gt(0).all() and rows.commit.notna().all()
    known = {make(where, "cpu").op for make, on_cpu, _ in contenders.TASKS.values() for where in on_cpu[:1]}
    assert set(rows.op) <= known


def test_goals_judge_both_ways():
    rows = pd.DataFrame([
        {"op": "rgb_to_lab", "size": "512²", "contender": "OpenCV", "ratio": 1.5},
        {"op": "palette of 5", "size": "12 MP", "contender": "ctlib", "median_ms": 80.0},
    ])  # fmt: skip
    verdicts = goals.verdicts(rows, "cpu")
    judged = verdicts[verdicts.reached != "not measured"]
    assert list(judged.reached) == ["MISSED", "yes"] and list(judged.goal) == [">= 2", "<= 100"]
    assert len(verdicts) == len(goals.GOALS["cpu"])


def test_every_goal_names_a_task_that_is_measured():
    for device, where in (("cpu", 1), ("cuda", 2)):
        for goal in goals.GOALS[device]:
            sizes = [task[where] for task in contenders.TASKS.values() if goal.size in task[where]]
            assert sizes, goal


@pytest.mark.slow
@pytest.mark.parametrize("task", [*contenders.TASKS])
def test_contenders_agree(task, monkeypatch):
    """All that compute the same thing do so: a peer that is asked for something else would be no peer."""
    monkeypatch.setattr(launch, "has_compiler", lambda: False)  # eager alone: compiling is tested with each op
    contenders.SIZES |= {"512²": (1, 40, 56), "256²": (1, 40, 56)}
    contenders.LOGITS["1 × 313 × 64²"] = (1, 9, 11)
    contenders.FEATURES["4 × 256 × 64²"] = (1, 4, 24, 20)
    make, sizes, _ = contenders.TASKS[task]
    case = make(sizes[0], "cpu")
    assert len(case.contenders) >= 2 and case.contenders[0].name.startswith("ctlib")
    if case.truth is None or task in ("palette", "reinhard"):
        return
    truth = case.truth(*case.inputs[0])
    for contender in case.contenders:
        error = (contender.read(contender.call(*case.inputs[0])).double() - truth).abs().max()
        loose = {"OpenCV": 0.6}.get(contender.name, 1e-3 * truth.abs().max() if "gradient" in case.op else 2e-3)
        assert error <= loose, (contender.name, error)
