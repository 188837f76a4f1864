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
