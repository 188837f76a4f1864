"""Trainings of Histogram Analogy that differ in one choice about the losses each, judged on the same pairs.

Taught in: notebooks/62_ablate_losses.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.nn import functional

from ctlib.losses import histogram_loss
from ctlib.models.histogram_analogy import to_unit
from ctlib.recipes import histogram_analogy as recipe

VARIANTS = {
    "λ1 = 1.5, as published": {},
    "λ1 = 0": {"histogram": 0.0},
    "λ1 = 10": {"histogram": 10.0},
    "λ1 = 1000": {"histogram": 1000.0},
    "centers = unity, λ1 = 1000": {"centers": "unity", "histogram": 1000.0},
    "λ2 = 0, no multi-scale": {"multi_scale": 0.0},
    "no identity pairs": {"shares": (0.65, 0.2, 0.0, 0.15)},
    "official-history": {"recipe": "official-history"},
}
FIXED = {
    "data": "photos",
    "conditioning": "film",
    "root": True,
    "residual": True,
    "init": "kaiming",
    "schedule": "cosine",
}


def batch_of(dataset, count: int) -> dict:
    """Photographs of a data set with seeds that no training draws, for `Objective.pair`."""
    items = [dataset[number % len(dataset), 1_000_003 + number] for number in range(count)]
    return torch.utils.data.default_collate(items)


def compare(
    options: dict, batch: dict, folder_of: Callable[..., Path], seeds: Sequence[int] = (0,)
) -> tuple[list[dict], dict[str, list[dict]]]:
    """Train every variant with every seed.

    Args:
        options: of `ctlib.recipes.histogram_analogy.run`, over `FIXED`: `sets`, `size`, `side`, `width`, `steps`,
            `batch`, `lr`.
        batch: what all are judged on, see `batch_of`.
        folder_of: options of a training to its folder, e.g. `ctlib.results.Run.checkpoints`; what was finished there is
            not trained again.
        seeds: one training each.

    Returns:
        A row a training: `error`, mean squared error of the result; `histogram_error`, of its soft histogram (unity);
        `identity_error`, mean squared error where the reference is the source. All on CIELAB scaled to [-1, 1]. And
        the history of each variant's first training.
    """
    rows, histories, options = [], {}, FIXED | options
    for name, change in VARIANTS.items():
        for seed in seeds:
            chosen = options | change | {"seed": seed}
            network, history = recipe.run(folder_of(**chosen), log_every=max(1, options["steps"] // 15), **chosen)
            histories.setdefault(name, history)
            rows.append({"case": f"seed {seed}", "method": name, **judge(network, batch, options["side"])})
    return rows, histories


@torch.no_grad()
def judge(network, batch: dict, side: int) -> dict[str, float]:
    """The three errors of `compare` on retouch, hue and palette pairs, and on identity pairs."""
    place = next(network.parameters()).device
    batch = {name: value.to(place) for name, value in batch.items()}
    given, same = (
        recipe.Objective(network, side=side, shares=shares, luts=recipe.fivek_luts()).to(place).pair(batch)
        for shares in ((0.55, 0.2, 0.1, 0.15), (0.0, 0.0, 1.0, 0.0))
    )
    out, kept = (network.transfer(pair.source, pair.reference)[0] for pair in (given, same))
    wanted = to_unit(given.target)
    return {
        "error": functional.mse_loss(out, wanted).item(),
        "histogram_error": histogram_loss(out, wanted, centers="unity").item(),
        "identity_error": functional.mse_loss(kept, to_unit(same.target)).item(),
    }
