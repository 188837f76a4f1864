"""Records of judges keep rows only of what was measured alike."""

import pytest

from ctlib.paths import ROOT


@pytest.fixture
def unlike(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return pytest.importorskip("judge_compact").unlike


def test_a_record_of_other_data_or_size_is_not_kept(unlike):
    before = {"parameters": {"long_side": 512}, "data": {"a/raw": "1", "b/raw": "2"}}
    assert unlike(before, 512, {"b/raw": "2", "a/raw": "1"}) == ""
    assert unlike(before, 256, before["data"]) == "long_side 512"
    assert unlike(before, 512, {"a/raw": "1", "b/raw": "3"}) == "other data: b/raw"
    assert unlike(before, 512, {"a/raw": "1"}) == "other data: b/raw"
    assert unlike({**before, "data": {}}, 512, {name: "1" for name in "abcde"}) == "other data: a, b, c and 2 more"


def test_goals_of_exemplars_are_judged(monkeypatch):
    """By hand: the chain is 1 dB above automatic, 0.5 below its second link, 5 above after itself, 0.6 below else."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    judge = pytest.importorskip("judge_exemplars")
    psnr = {("automatic", "none"): 20.0, ("truth", "none"): 99.0}
    for name in ("", ", matching"):
        psnr |= {
            (f"full chain{name}", kind): value
            for kind, value in (("nearest", 21.0), ("self", 25.0), ("unrelated", 19.4))
        }
        psnr[f"transfer only{name}", "nearest"] = 21.5
    colorfulness = {"truth": 40.0, "automatic": 20.0}
    rows = [
        {"set": "s", "case": case, "method": method, "kind": kind, "psnr": value + shift, "lpips_squeeze": -value / 100,
         "colorfulness": colorfulness.get(method, 25.0)}
        for (method, kind), value in psnr.items() for case, shift in (("a", 0.0), ("b", 1.0))
    ]  # fmt: skip
    found = judge.goals(rows)
    assert len(found) == 14
    told = {goal["goal"]: (round(goal["measured"], 3), goal["result"]) for goal in found[:7]}
    assert told["full chain, nearest, above automatic: PSNR, dB"] == (1.0, "reached")
    assert told["full chain, nearest, above automatic: LPIPS"] == (-0.01, "reached")  # less is better
    assert told["full chain, nearest, above transfer only: PSNR, dB"] == (-0.5, "MISSED")
    assert told["full chain, nearest, above transfer only: LPIPS"] == (0.005, "MISSED")
    assert told["full chain, nearest, colorfulness nearer to the truth than automatic"] == (-5.0, "reached")
    assert told["full chain, itself, at least +4 dB above automatic"] == (5.0, "reached")
    assert told["full chain, unrelated, within 0.5 dB of automatic"] == (-0.6, "MISSED")
