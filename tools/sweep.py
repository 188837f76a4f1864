"""Train one point of the grid of notebooks/32_sweep_hyperparameters, for the Snakefile, which runs them side by side.

    python tools/sweep.py quick 0.01 8 True

The trainings go where the notebook looks for them; printed are the rows that it will show.
"""

import json
import os
import sys

import graph

STEM = "32_sweep_hyperparameters"
GRID = ("lrs", "batches", "shuffles")


def options(profile: str) -> dict:
    """The notebook's parameters under a profile, without the grid: what `ctlib.recipes.sweep.train` takes."""
    return {name: value for name, value in graph.values(STEM, profile).items() if name not in GRID}


if __name__ == "__main__":
    profile, lr, batch, shuffle = sys.argv[1:]
    os.environ["CTLIB_PROFILE"] = profile
    from ctlib import results
    from ctlib.recipes import sweep

    point = sweep.Point(float(lr), int(batch), shuffle == "True")
    print(json.dumps(sweep.train(point, results.Run(STEM, {}).checkpoints, **options(profile)), indent=1))
