"""The ArtBench report's grid of PaletteNet trainings, with what it printed beside what it should have measured.

The report took the loss of the *last mini-batch* of the fifth epoch for the result of a training, from one seed, on
training pictures. Here each point of the grid is trained with several seeds, and for each training three numbers are
kept: that one (of a full batch; the report's last one had what was left), the mean over the last epoch, and the mean
over pictures that were not trained on.

Taught in: notebooks/32_sweep_hyperparameters.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from scipy.stats import spearmanr

from ctlib.recipes import palettenet
from ctlib.settings import parse_settings, whole

#: what is measured of a training, all of the same loss
NUMBERS = ("last_batch", "epoch_mean", "validation")


class Point(NamedTuple):
    """One point of the grid."""

    lr: float
    batch: int
    shuffle: bool


#: Loss by learning rate, batch size and shuffling, as printed in the ArtBench report and its repository.
REPORT = {
    Point(0.01, 8, True): 0.023087,
    Point(0.01, 8, False): 0.007394,
    Point(0.01, 16, True): 0.026323,
    Point(0.01, 16, False): 0.014462,
    Point(0.01, 32, True): 0.015443,
    Point(0.01, 32, False): 0.010073,
    Point(0.0002, 8, True): 0.005155,
    Point(0.0002, 8, False): 0.004481,
    Point(0.0002, 16, True): 0.008075,
    Point(0.0002, 16, False): 0.007259,
    Point(0.0002, 32, True): 0.014070,
    Point(0.0002, 32, False): 0.009074,
}


def points(lrs: Sequence[float], batches: Sequence[int], shuffles: Sequence[bool]) -> list[Point]:
    """Every combination, in the order of the report's table.

    Raises:
        ValueError: an empty list, or a value that is none.
    """
    for name, values in (("lrs", lrs), ("batches", batches), ("shuffles", shuffles)):
        if not values:
            raise ValueError(f"{name}: is empty; give at least one value")
    for shuffle in shuffles:
        if not isinstance(shuffle, bool):
            raise ValueError(f"shuffles: expected true or false, got {shuffle!r}")
    for batch in batches:
        if type(batch) is not int or batch < 1:
            raise ValueError(f"batches: expected whole numbers from 1 on, got {batch!r}")
    lrs = [parse_settings(steps=1, lr=lr).lr for lr in lrs]
    return [Point(lr, batch, shuffle) for lr in lrs for batch in batches for shuffle in shuffles]


def train(
    point: Point,
    place: Callable[..., Path],
    *,
    epochs: int = 5,
    epoch: int = 0,
    seed: int = 0,
    seeds: int = 3,
    side: int = 256,
    **options,
) -> list[dict]:
    """Train one point of the grid with several seeds, or read what an earlier call has trained.

    Args:
        point: which.
        place: `ctlib.results.Run.checkpoints`, options to a folder; a training that is finished there is not repeated.
        epochs: how long.
        epoch: pictures that count as one; 0 for as many as there are.
        seed, seeds: trainings with seeds from `seed` on.
        side, options: of `ctlib.recipes.palettenet.run`, but for those of the point.

    Returns:
        One row a seed: those of the point, `seed`, `last_batch`, `epoch_mean` and `validation`, all of the loss, and
        `ab_rmse` with `identity_ab_rmse` on the validation pictures.

    Raises:
        ValueError, DataError, TrainingError: see `ctlib.recipes.palettenet.run`.
    """
    for name, value, least in (("epochs", epochs, 1), ("epoch", epoch, 0), ("seeds", seeds, 1)):
        whole(name, value, least)
    common = {name: options[name] for name in ("data", "sets", "size", "colors", "palettes") if name in options}
    count = epoch or len(palettenet.pictures(**common, part="train"))
    held_out = palettenet.pictures(**common, part="val")
    rows = []
    for one in range(seed, seed + seeds):
        an_epoch = -(-count // point.batch)
        values = options | point._asdict() | {"side": side, "seed": one, "steps": epochs * an_epoch}
        network, history = palettenet.run(place(**values), part="train", log_every=1, **values)
        last = [row["euclidean"] for row in history[-an_epoch:]]
        judged = palettenet.validate(network, held_out, side=side)
        rows.append(
            {"case": "validation", "method": name_of(point), **point._asdict(), "seed": one}
            | {"last_batch": last[-1], "epoch_mean": sum(last) / len(last), "validation": judged.pop("euclidean")}
            | judged
        )
    return rows


def name_of(point: Point) -> str:
    """Its name in tables."""
    return f"lr {point.lr:g} batch {point.batch} {'shuffled' if point.shuffle else 'in order'}"


def means(rows: Sequence[dict]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and standard deviation of `NUMBERS` over the seeds, a row a point; 0 for a single seed."""
    by_point = pd.DataFrame(rows).groupby("method", sort=False)[list(NUMBERS)]
    return by_point.mean(), by_point.std().fillna(0)


def agreement(rows: Sequence[dict], number: str) -> list[float]:
    """Rank correlation over the points of one number with the validation mean of all seeds: one value a seed.

    Source: Spearman 1904, through SciPy.
    """
    truth = means(rows)[0]["validation"]
    by_seed = [part.set_index("method")[number] for _, part in pd.DataFrame(rows).groupby("seed")]
    return [float(spearmanr(values.reindex(truth.index), truth).statistic) for values in by_seed]


def shuffling(rows: Sequence[dict]) -> pd.Series:
    """Validation loss with shuffling over that without, a value for each learning rate, batch size and seed."""
    values = pd.DataFrame(rows).pivot_table(index=["lr", "batch", "seed"], columns="shuffle", values="validation")
    return (values[True] / values[False]).dropna()
