"""Loss variants of PaletteNet, each trained for a step or two."""

import pytest

from ctlib import images
from ctlib.checkpoints import load_state
from ctlib.data import photos
from ctlib.recipes import palette_losses
from ctlib.recipes.palette_losses import FIRST, SECOND


def test_every_variant_is_trained_and_judged(tmp_path):
    pictures = {name: images.resize(photos.load(name), 48) for name in ("coffee", "flower")}
    places = {}

    def place(**options):
        folder = tmp_path / str(len(places))
        places[folder] = options
        return folder

    options = {"sets": ["photos"], "size": 32, "side": 32, "steps": 2, "batch": 2, "lr": 1e-3}
    rows = palette_losses.compare(options, pictures, place, seeds=[4])
    assert [row["method"] for row in rows] == ["identity", *FIRST, *SECOND]
    assert rows[0]["ab_rmse"] > 5 and len({row["ab_rmse"] for row in rows}) > 6
    first = next(iter(places))
    assert all(chosen["begin"] == str(first) for chosen in places.values() if "begin" in chosen)
    steps = [load_state(folder / "resume.pt")["step"] for folder in places]
    assert steps == [2] * len(FIRST) + [1] * len(SECOND)
    assert {chosen["seed"] for chosen in places.values()} == {4}
    for row in rows:
        assert row["palette_distance"] == pytest.approx(row["palette_distance"]) and row["palette_distance"] > 0
