"""The ArtBench report's twelve trainings, several seeds each, on the paintings at hand: a record for chapter 32.

    CTLIB_DATA=<folder with artbench10_32px/> OMP_NUM_THREADS=1 python benchmarks/sweep_palettenet.py
    ... --data artbench32    # of the official batches

The network is the report's, with its in- and output. Half an hour on one core; what is trained stays in
`_build/lab/checkpoints`, and an interrupted run goes on. The result, `sweep_palettenet.json`, goes to
`_build/lab/results`; a reviewed copy is the record in `book/results`.
"""

import argparse

from ctlib import results
from ctlib.recipes import palettenet, sweep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="photos", help="photos, those of --sets, or artbench32, the official batches")
    parser.add_argument("--sets", nargs="+", default=["artbench10_32px"], help="folders of pictures in $CTLIB_DATA")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variant", default="yongzx", help="layout of the network")
    chosen = parser.parse_args()
    options = {
        "data": chosen.data,
        "sets": chosen.sets,
        "size": 32,
        "side": 32,
        "colors": 4,
        "epochs": chosen.epochs,
        "seeds": chosen.seeds,
    }
    options |= {"variant": chosen.variant, "decoder_norm": "instance", "bug_compat": True}
    run = results.start("sweep_palettenet", **options)
    rows = []
    for point in sweep.REPORT:
        rows += sweep.train(point, run.checkpoints, **options)
        print(sweep.name_of(point), *(f"{row['validation']:.5f}" for row in rows[-chosen.seeds :]), flush=True)
    pictures = {
        part: palettenet.pictures(chosen.data, chosen.sets, 32, part=part, colors=4) for part in ("train", "val")
    }
    counts = {part: len(found) for part, found in pictures.items()}

    print(run.write(rows, data=pictures["train"].manifest, pictures=counts))


if __name__ == "__main__":
    main()
