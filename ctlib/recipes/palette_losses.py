"""Trainings of PaletteNet that differ in one choice about the losses each, judged on the same turned hues.

Taught in: notebooks/62_ablate_losses.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ctlib import evaluate_palettes
from ctlib.models.palettenet import PaletteNet
from ctlib.recipes import palettenet

#: of the first stage
FIRST = {
    "Euclidean, of a and b": {},
    "Euclidean, of RGB (the report's)": {"bug_compat": True},
    "weight decay 10⁻³": {"weight_decay": 1e-3},
    "dropout 0.2": {"dropout": 0.2},
    "saturation changed too": {"saturation": True},
}
#: of the second, from the weights of the first variant
SECOND = {
    "continued, no adversary": {"adversary": False},
    "adversary, λ = 100": {"fidelity": 100.0},
    "adversary, λ = 10": {"fidelity": 10.0},
    "adversary, λ = 1": {"fidelity": 1.0},
    "adversary with all norms, λ = 1": {"fidelity": 1.0, "norms": "all"},
}
NETWORK = {"colors": 6, "variant": "tiny", "decoder_norm": "film"}


def compare(
    options: dict, pictures: Mapping[str, np.ndarray], place: Callable[..., Path], seeds: Sequence[int] = (0,)
) -> list[dict]:
    """Train every variant with every seed.

    Args:
        options: of `ctlib.recipes.palettenet.run`: `sets`, `size`, `side`, `steps`, `batch`, `lr`; the second stage has
            half as many steps.
        pictures: what all are judged on, see `ctlib.evaluate_palettes.cases`.
        place: options of a training to its folder, e.g. `ctlib.results.Run.checkpoints`; what was finished there is
            not trained again.
        seeds: one training each.

    Returns:
        A row a training: `palette_distance` and `ab_rmse` on turned hues, and those of `"identity"`.
    """
    cases = [case for case in evaluate_palettes.cases(pictures, NETWORK["colors"]) if case.kind == "hue"]
    rows = []

    def judge(name: str, seed: int, method: str | PaletteNet) -> None:
        recolors = {name: evaluate_palettes.recolor_by(method)}
        (means,) = evaluate_palettes.summary(evaluate_palettes.judge(recolors, cases), "hue")
        kept = {key: means[key] for key in ("palette_distance", "ab_rmse")}
        rows.append({"case": f"seed {seed}", "method": name, **kept})

    judge("identity", 0, "identity")
    for seed in seeds:
        common = {"schedule": "cosine", "seed": seed} | options
        begin = None
        for name, change in FIRST.items():
            chosen = NETWORK | common | change
            folder = place(**chosen)
            judge(name, seed, palettenet.run(folder, **chosen)[0])
            begin = begin or str(folder)
        for name, change in SECOND.items():
            chosen = common | {"begin": begin, "steps": max(1, options["steps"] // 2)} | change
            judge(name, seed, palettenet.run(place(**chosen), **chosen)[0])
    order = {name: number for number, name in enumerate(["identity", *FIRST, *SECOND])}
    return sorted(rows, key=lambda row: order[row["method"]])
