"""The paper's own training, started by its profile on a fixture in FiveK's official layout."""

import json
import os
import subprocess
import sys

import graph
import numpy as np
import pytest
import yaml
from PIL import Image

from ctlib.recipes import histogram_analogy as recipe
from ctlib.settings import Settings

STEM = "20_train_histogram_analogy"
PROFILE = graph.ROOT / "notebooks" / "profiles" / "paper" / f"{STEM}.yml"


@pytest.fixture
def fivek(tmp_path):
    """Six photographs in six renditions: four to train on, the first and the last held out."""
    rng = np.random.default_rng(0)
    names = ("jmac_DSC1459", "dgw_005", "NKIM_MG_8178", "jmac_DSC1460", "dgw_006", "NKIM_MG_8179")
    for key in (f"a{n:04d}-{name}" for n, name in enumerate(names, 1)):
        noise = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        for number, rendition in enumerate(("raw", "a", "b", "c", "d", "e")):
            path = tmp_path / "fivek" / rendition / f"{key}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - noise if number % 2 else noise).resize((120, 90), Image.BICUBIC).save(path)
    return tmp_path


def test_the_paper_profile_says_everything_that_the_recipe_takes():
    values = yaml.safe_load(PROFILE.read_text())
    notebook = set(graph.parameters(graph.ROOT / "notebooks" / f"{STEM}.ipynb"))
    settings = {"steps", "batch", "lr", "schedule", "precision", "workers"}
    assert set(values) == notebook - {"seed", "sets"}  # no sets: the data is FiveK
    Settings(**{name: values[name] for name in settings})
    assert (values["width"], values["conditioning"], values["lr"]) == ("paper", "tile", 5e-5)
    assert recipe.Objective.__init__.__kwdefaults__["histogram"] == values["histogram"] == 1.5


@pytest.mark.slow
def test_papermill_starts_it(fivek, tmp_path):
    """As the book says, but for the length and the width, which no processor carries in a test."""
    environment = os.environ | {"CTLIB_DATA": str(fivek), "CTLIB_PROFILE": "test-paper", "OMP_NUM_THREADS": "2"}
    out = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", "--cwd", "notebooks", "-k", "python3", "--no-progress-bar"]
    command += ["-f", PROFILE, f"notebooks/{STEM}.ipynb", out]
    for name, value in {"steps": 2, "width": "tiny", "workers": 0, "side": 64, "size": 72, "case_side": 64}.items():
        command += ["-p", name, str(value)]
    done = subprocess.run(command, cwd=graph.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((graph.ROOT / "_build" / "test-paper" / "results" / f"{STEM}.json").read_text())
    assert result["parameters"]["data"] == "fivek" and result["parameters"]["conditioning"] == "tile"
    assert result["history"][-1]["step"] == 2
    seen = {name.rpartition("/")[2][:5] for name in result["trained_on"]}
    judged = {row["case"] for row in result["rows"]}
    assert seen == {"a0002", "a0003", "a0004", "a0005"} and judged == {"a0001", "a0006"}
