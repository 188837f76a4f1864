"""Train and judge PaletteNet's loss variants: a record for notebooks/62_ablate_losses.

    CTLIB_DATA=<folder with bsds500/ and coco/> python benchmarks/judge_palette_losses.py  # half an hour on one core

Trained on photographs of `--sets`, judged on those that come with the packages, which no training has seen. The result,
`judge_palette_losses.json`, goes to `_build/lab/results`; a reviewed copy is the record in `book/results`.
"""

import argparse

from ctlib import images, results
from ctlib.data import photos
from ctlib.recipes import palette_losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["bsds500", "coco"], help="folders in $CTLIB_DATA")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each variant")
    parser.add_argument("--steps", type=int, default=400, help="updates of the weights in each, half of it in stage 2")
    options = parser.parse_args()
    training = dict(sets=options.sets, size=64, side=64, steps=options.steps, batch=8, lr=1e-3)
    run = results.start("judge_palette_losses", seeds=options.seeds, **training)
    pictures = {name: images.resize(photos.load(name), 192) for name in photos.names()}
    rows = palette_losses.compare(training, pictures, run.checkpoints, range(options.seeds))
    for row in rows:
        print(f"{row['method']:34} {row['case']}: {row['palette_distance']:.2f} ΔE00, {row['ab_rmse']:.2f} in a and b")
    print(run.write(rows, data=photos.manifest(photos.names())))


if __name__ == "__main__":
    main()
