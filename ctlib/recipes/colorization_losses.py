"""The loss study: trainings of one network that differ in output, loss, encoder and seed, judged on the same pictures.

Taught in: notebooks/40_colorization_losses.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ctlib import chroma, evaluate_colorization
from ctlib.evaluate_colorization import COLUMNS, Case, Measure
from ctlib.models.resnet_colorizer import ResnetColorizer
from ctlib.recipes import resnet_colorizer
from ctlib.recipes.resnet_colorizer import COMBOS

ENCODERS = ("frozen-random", "squeezenet-frozen-random", "squeezenet-frozen", "squeezenet-tuned")
#: what is done to a result: nothing; its color joined with the true lightness, which for Lab is the same; and that on
#: pictures larger than the network sees
POSTS = ("as it is", "best of both", "best of both, full size")


def compare(
    options: dict,
    cases: Iterable[Case],
    place: Callable[..., Path],
    *,
    full: Iterable[Case] = (),
    combos: Sequence[str] = tuple(COMBOS),
    encoders: Sequence[str] = ENCODERS,
    seeds: Sequence[int] = (0,),
    wanted: Sequence[str] = COLUMNS,
    also: Mapping[str, Measure] | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Train every combination, and judge all of them on the same pictures.

    Args:
        options: of `ctlib.recipes.resnet_colorizer.run` that all have in common: `sets`, `size`, `side`, `steps`, ...
        cases: photographs that are in no training, see `ctlib.evaluate_colorization.cases`, about as small as the
            network sees them.
        full: the same as large as they come, for the last of `POSTS`; none by default.
        place: options of a training to its folder, e.g. `ctlib.results.Run.checkpoints`; what was finished there is
            not trained again, what was interrupted goes on.
        combos: of `COMBOS`. encoders: of `ctlib.models.resnet_colorizer.ENCODERS`. seeds: one training each.
        wanted, also: columns, see `ctlib.evaluate_colorization.judge`.
        told: gets a line after each training.

    Returns:
        Means over the pictures of a set: `case` (the set), `method` (combo and encoder), `combo`, `encoder`, `seed`,
        `post` (one of `POSTS`) and the columns; first the rows of `"gray"` and `"truth"`, which have only the post
        (the first or the last) and the columns.

    Raises:
        ValueError: an unknown combination, or none. MissingWeights: no ImageNet weights, or no LPIPS.
    """
    for name, given in (("combos", combos), ("encoders", encoders), ("seeds", seeds)):
        if not len(given):
            raise ValueError(f"{name}: name at least one, else there is nothing to compare")
    if unknown := [name for name in combos if name not in COMBOS]:
        raise ValueError(f"combos: expected some of {', '.join(COMBOS)}, got {unknown[0]!r}")
    side, made, colorizers = options["side"], {}, {post: {} for post in POSTS}
    for encoder in encoders:
        for combo in combos:
            for seed in seeds:
                chosen = {"schedule": "cosine"} | options | COMBOS[combo] | {"encoder": encoder, "seed": seed}
                network, history = resnet_colorizer.run(place(**chosen), **chosen)
                what = {"method": f"{combo}, {encoder}", "combo": combo, "encoder": encoder, "seed": seed}
                told(f"{what['method']}, seed {seed}: loss {history[-1]['loss']:.4f}")
                for post, color in zip(POSTS, (network.predict, best_of(network), best_of(network)), strict=True):
                    if post != POSTS[0] or network.output == "rgb":
                        name = f"{what['method']}, {seed}, {post}"
                        colorizers[post][name], made[name] = partial(color, side=side), what | {"post": post}
    small, large = colorizers[POSTS[0]] | colorizers[POSTS[1]], colorizers[POSTS[2]]
    rows = []
    for post, which, given in ((POSTS[0], small, list(cases)), (POSTS[2], large, list(full))):
        measured = evaluate_colorization.judge(which, given, wanted=wanted, also=also)
        for place_of in dict.fromkeys(case.set for case in given):
            for means in evaluate_colorization.summary(measured, place_of):
                name = means.pop("method")
                rows.append({"case": place_of, **made.get(name, {"method": name, "post": post}), **means})
    baselines = evaluate_colorization.BASELINES
    return sorted(rows, key=lambda row: row["method"] not in baselines)


def best_of(network: ResnetColorizer) -> Callable[..., Tensor]:
    """What a network says with the lightness of the picture, at the picture's size."""
    return lambda rgb, side: chroma.best_of_both(network.predict(rgb, side), rgb)


def over_seeds(rows: Sequence[dict], columns: Sequence[str]) -> list[dict]:
    """Means and spreads over sets and seeds.

    Returns:
        A row for each method and post: `method`, `post`, `seeds`, the columns, and `<column>_spread`, the standard
        deviation of the seeds (NaN of a single one).
    """
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["post"]), []).append(row)
    found = []
    for (method, post), group in groups.items():
        seeds = dict.fromkeys(row.get("seed") for row in group)
        result = {"method": method, "post": post, "seeds": len(seeds)}
        for column in columns:
            each = torch.tensor(
                [[float(row[column]) for row in group if row.get("seed") == seed] for seed in seeds],
                dtype=torch.float64,
            ).mean(1)
            result[column] = each.mean().item()
            result[column + "_spread"] = each.std().item() if len(each) > 1 else float("nan")
        found.append(result)
    return found


def moved(rows: Sequence[dict], columns: Sequence[str]) -> list[dict]:
    """How far each choice moves each column while the others are kept: from the lowest mean to the highest.

    Args:
        rows: of `compare`, every combination with every seed. columns: of them.

    Returns:
        A row for each choice, `method`, and means over what the others may be: `output`, `loss` and `encoder` with
        the true lightness at the network's size, means over the seeds; `seed`, of single trainings; `lightness`, of RGB
        networks, the step from their own lightness to the true one; `knowledge`, from the random SqueezeNet to the
        trained one, both frozen, where both are among the encoders.
    """
    frame = pd.DataFrame([row for row in rows if "combo" in row])
    frame[["output", "loss"]] = frame["combo"].str.split("_", n=1, expand=True)
    choices = ["output", "loss", "encoder"]
    single = frame.groupby(["post", *choices, "seed"])[list(columns)].mean()  # over the sets
    means = single.groupby(["post", *choices]).mean()
    best = means.loc[POSTS[1]]
    found = {}
    for choice in choices:
        kept = best.groupby([other for other in choices if other != choice])
        found[choice] = (kept.max() - kept.min()).mean()
    kept = single.loc[POSTS[1]].groupby(choices)
    found["seed"] = (kept.max() - kept.min()).mean()
    if POSTS[0] in means.index:
        found["lightness"] = (best.loc["rgb"] - means.loc[POSTS[0]].loc["rgb"]).abs().mean()
    pair = [f"squeezenet-frozen{end}" for end in ("", "-random")]
    if set(pair) <= set(best.index.get_level_values("encoder")):
        taught, blank = (best.xs(one, level="encoder") for one in pair)
        found["knowledge"] = (taught - blank).abs().mean()
    return [{"method": choice, **move.to_dict()} for choice, move in found.items()]


def said(row: Mapping | pd.Series, column: str, digits: int) -> str:
    """A mean and the spread of its seeds, of a row of `over_seeds`, as in `"22.70 ± 0.11"`."""
    known = [row[one] for one in (column, f"{column}_spread") if row[one] == row[one]]
    return "\u00a0±\u00a0".join(f"{one:.{digits}f}" for one in known)


def ranks(rows: pd.DataFrame, colorfulness: float) -> pd.DataFrame:
    """Rank of each row by four measures, 1 the best; by colorfulness the one that is nearest to the truth's."""
    near = {
        "PSNR": -rows["psnr"],
        "SSIM": -rows["ssim"],
        "LPIPS": rows["lpips_squeeze"],
        "colorfulness": (rows["colorfulness"] - colorfulness).abs(),
    }
    return pd.DataFrame(near).astype(float).rank()


def leaders(moves: Mapping[str, Mapping[str, float]], column: str, luck: float, digits: int) -> str:
    """Which of output, loss and encoder moves a measure most, and what chance cannot tell from it, in words.

    Args:
        moves: choice to its moves by column, see `moved`. column: of them.
        luck: how far chance moves a mean. digits: of the numbers.
    """
    order = sorted(("output", "loss", "encoder"), key=lambda name: -moves[name][column])
    level = [name for name in order if moves[order[0]][column] - moves[name][column] < luck]
    return " and ".join(f"{name} ({moves[name][column]:.{digits}f})" for name in level)
