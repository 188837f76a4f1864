"""Train and judge the loss variants of notebooks/62_ablate_losses for longer than a page can wait.

    CTLIB_DATA=<folder with bsds500/ and coco/> python benchmarks/judge_losses.py   # an hour on one processor core

Trained on photographs of `--sets`, judged on those that come with the packages, which no training has seen. Stopped and
called again it goes on. The result, `judge_losses.json`, goes to `_build/lab/results`; a reviewed copy is the record in
`book/results`, which the notebook shows.
"""

import argparse

from ctlib import results
from ctlib.recipes import histogram_analogy, loss_variants


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["bsds500", "coco"], help="folders in $CTLIB_DATA")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each variant")
    parser.add_argument("--steps", type=int, default=300, help="updates of the weights in each")
    options = parser.parse_args()
    training = dict(sets=options.sets, size=80, side=64, width="tiny", steps=options.steps, batch=8, lr=2e-3)
    run = results.start("judge_losses", seeds=options.seeds, **training)
    held_out = histogram_analogy.photographs(["photos"], training["size"])
    batch = loss_variants.batch_of(held_out, 64)
    rows, _ = loss_variants.compare(training, batch, run.checkpoints, range(options.seeds))
    for row in rows:
        errors = ", ".join(f"{key} {value:.2e}" for key, value in row.items() if key.endswith("error"))
        print(f"{row['method']:28} {row['case']}: {errors}")
    print(run.write(rows, data=held_out.manifest))


if __name__ == "__main__":
    main()
