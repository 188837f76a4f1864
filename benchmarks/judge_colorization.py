"""Judge the shipped colorizers on photographs that none of them has seen: a record for chapters 41 and 42.

    CTLIB_DATA=<folder with bsds500/, coco/, imagenet_samples/, scenes256/ and weights/> \\
        python benchmarks/judge_colorization.py

Beside them stands the loss study's network of the published best row, Lab + L2 on a random encoder, trained here on the
photographs that they were trained on: three times briefly, a quarter of an hour on one core, once; with `--long-steps`
once more, as long as is asked. LPIPS is that of SqueezeNet; its column is left out where that cannot be had. What comes
of it, `judge_colorization.json`, goes to `_build/lab/results`; a reviewed copy is the record in `book/results`.
"""

import argparse
from collections.abc import Iterable
from functools import partial

from ctlib import checkpoints, colorizers, evaluate_colorization, results
from ctlib.models.zhang2017 import Zhang2017
from ctlib.perceptual_losses import lpips_column
from ctlib.recipes import resnet_colorizer
from ctlib.recipes.resnet_colorizer import COMBOS

PALE = 0.7  # of unet's colors, the best of 0.7 to 1 for PSNR on 50 photographs of the part that validates
STUDY, LONG = "Lab + L2 on a random encoder", "trained longer"
SEEN = ("bsds500", "coco", "imagenet_samples", "scenes256")  # by the shipped networks, in their parts to train on
SIDE = 128  # pixels of the study's training squares, and what its network sees
WAYS = {"psnr_alone": "network", "psnr_spread": "spread without network", "psnr": "both"}
COUNTS = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # of the authors' curve, as far as it is steep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["scenes256", "imagenet_samples"], help="folders in $CTLIB_DATA")
    parser.add_argument("--limit", type=int, default=40, help="pictures of each set, of those held back")
    parser.add_argument("--long-side", type=int, default=256, help="pixels; smaller pictures stay as they are")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the places of hints")
    parser.add_argument("--study-steps", type=int, default=700, help="of three trainings of the study's network")
    parser.add_argument("--long-steps", type=int, default=0, help="of one more; 7000 is as long as that of unet")
    chosen = parser.parse_args()
    run = results.start("judge_colorization", sets=chosen.sets, limit=chosen.limit, long_side=chosen.long_side,
                        seeds=chosen.seeds, study_steps=chosen.study_steps, long_steps=chosen.long_steps)  # fmt: skip
    study = studied(run, chosen.study_steps, range(3))
    longer = studied(run, chosen.long_steps, [0]) if chosen.long_steps else {}
    longer = {f"{STUDY}, {LONG}": one for one in longer.values()}
    cases = evaluate_colorization.cases(chosen.sets, chosen.long_side, limit=chosen.limit)
    rows = evaluate_colorization.judge(shipped() | study | longer, cases, also=lpips_column())
    rows = [row | {"method": STUDY if row["method"] in study else row["method"]} for row in rows]
    network = Zhang2017.from_pretrained(colorizers.get("zhang2017").weights)
    told = evaluate_colorization.by_hints(network, cases, COUNTS, seeds=chosen.seeds)
    print(run.write(rows, hints=told, data={f"{case.set}/{case.name}": case.sha256 for case in cases}))
    for row in evaluate_colorization.summary(rows):
        print(f"{row['method']:14}", *(f"{key} {value:7.3f}" for key, value in row.items() if key != "method"))
    for count in COUNTS:
        mine = [row for row in told if row["count"] == count]
        found = (f"{sum(row[key] for row in mine) / len(mine):.2f} dB {way}" for key, way in WAYS.items())
        print(f"{count:4} hints:", ", ".join(found))


def studied(run: results.Run, steps: int, seeds: Iterable[int]) -> dict:
    """The study's network, a training for each seed."""
    options = {"sets": list(SEEN), "size": 160, "side": SIDE, "augment": True, **COMBOS["lab_l2"]}
    options |= {"steps": steps, "batch": 8, "schedule": "cosine"}
    found = {}
    for seed in seeds:
        chosen = options | {"seed": seed}
        network, history = resnet_colorizer.run(run.checkpoints(**chosen), **chosen)
        print(f"{STUDY}, seed {seed}: loss {history[-1]['loss']:.5f}", flush=True)
        found[f"{STUDY}, {seed}"] = partial(network.colorize, side=SIDE)
    return found


def shipped() -> dict:
    """Every colorizer that needs no reference and whose weights lie in the repository."""
    here = {path.name for path in checkpoints.SHIPPED.iterdir()}
    found = {
        name: partial(colorizers.colorize, name)
        for name, one in colorizers.COLORIZERS.items()
        if one.weights in here and "reference" not in one.options
    }
    return found | {f"unet, saturation {PALE}": partial(colorizers.colorize, "unet", saturation=PALE)}


if __name__ == "__main__":
    main()
