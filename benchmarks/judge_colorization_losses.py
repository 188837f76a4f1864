"""Train and judge the loss study's grid: a record for notebooks/40_colorization_losses.

    CTLIB_DATA=<folder with scenes256/, imagenet_samples/ and weights/> OMP_NUM_THREADS=1 \\
        python benchmarks/judge_colorization_losses.py  # an hour or two on one core

Output x loss x encoder x seed, equal steps for all, on the train parts of `--sets`; judged on their test parts at the
size of the trainings, and best of both at full size, too. What is finished stays in `_build/lab/checkpoints` and is not
trained again, as long as the code of trainings is the same. The result, `judge_colorization_losses.json`, goes to
`_build/lab/results`; a reviewed copy is the record in `book/results`.
"""

import argparse
import time

from ctlib import evaluate_colorization, results
from ctlib.perceptual_losses import lpips_column
from ctlib.recipes import colorization_losses
from ctlib.recipes.colorization_losses import ENCODERS
from ctlib.recipes.resnet_colorizer import COMBOS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["scenes256", "imagenet_samples"], help="folders in $CTLIB_DATA")
    parser.add_argument("--steps", type=int, default=300, help="updates of the weights in each training")
    parser.add_argument("--side", type=int, default=80, help="pixels of the training squares")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each combination")
    parser.add_argument("--limit", type=int, default=30, help="pictures of each set to judge on, of those held back")
    parser.add_argument("--long-side", type=int, default=256, help="pixels of what is judged at full size")
    parser.add_argument("--combos", nargs="+", default=list(COMBOS), help="of output and loss")
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS))
    parser.add_argument("--precision", default="no", choices=["no", "bf16"], help="bf16 only where a processor has it")
    chosen = parser.parse_args()
    training = {"sets": chosen.sets, "size": 160, "side": chosen.side, "steps": chosen.steps, "batch": 8}
    training |= {"augment": True, "precision": chosen.precision, "log_every": 50, "save_every": chosen.steps}
    run = results.start("judge_colorization_losses", seeds=chosen.seeds, limit=chosen.limit, long_side=chosen.long_side,
                        **training)  # fmt: skip
    cases, full = (
        evaluate_colorization.cases(chosen.sets, long_side, limit=chosen.limit)
        for long_side in (round(1.15 * chosen.side), chosen.long_side)  # at 4:3 the first has side² pixels
    )
    measured, began = lpips_column(), time.perf_counter()

    def told(line: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s, {line}", flush=True)

    rows = colorization_losses.compare(
        training,
        cases,
        run.checkpoints,
        full=full,
        combos=chosen.combos,
        encoders=chosen.encoders,
        seeds=range(chosen.seeds),
        also=measured,
        told=told,
    )
    columns = ("psnr", "psnr_missing_root", "ssim", *measured, "ab_rmse", "colorfulness")
    print(f"{'':34}{'':14}", *(f"{column:>17}" for column in columns))
    for row in colorization_losses.over_seeds(rows, columns):
        cells = (f"{row[column]:10.3f} ±{row[column + '_spread']:5.3f}" for column in columns)
        print(f"{row['method']:34}{row['post']:14}", *cells)
    print(run.write(rows, data={f"{case.set}/{case.name}": case.sha256 for case in cases}))


if __name__ == "__main__":
    main()
