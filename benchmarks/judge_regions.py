"""What regions are worth where people drew them: pairs of pictures, with and without their labels.

    CTLIB_DATA=<folder with dpst/, camvid/ and coco/> python benchmarks/judge_regions.py    # a quarter of an hour

Deep Photo Style Transfer is for evaluation only: no shipped weights have seen it, nor CamVid. COCO's photographs were
among those that the networks were trained on, one by one and retouched. The result, `judge_regions.json`, goes to
`_build/lab/results`; a reviewed copy is the record in `book/results`, which notebooks/21_semantic_transfer shows.
"""

import argparse

from ctlib import evaluate, methods, results

METHODS = ["identity", "reinhard_lab", "mkl_lab", "histogram_rgb", "idt"]
METHODS += [name for name, method in methods.METHODS.items() if method.family == "learned"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long-side", type=int, default=256, help="pixels")
    parser.add_argument("--methods", nargs="*", default=METHODS, help="names of methods")
    parser.add_argument("--sets", nargs="+", default=["dpst", "camvid", "coco"], help="see evaluate.labelled_cases")
    options = parser.parse_args()
    run = results.start("judge_regions", long_side=options.long_side, sets=options.sets)
    rows, data = [], {}
    for name in options.sets:
        cases = evaluate.labelled_cases(name, options.long_side)
        data |= evaluate.fingerprints(case for case, _ in cases)
        part = [row | {"set": name} for row in evaluate.judge_regions(options.methods, cases)]
        for kind in ("whole", "regions"):
            print(f"\n{name + ', ' + kind:16}" + "".join(f"{column:>16}" for column in evaluate.REGIONAL))
            for row in evaluate.summary(part, kind, evaluate.REGIONAL):
                print(
                    f"{row['method']:16}" + "".join(f"{row[column]:16.3f}" for column in evaluate.REGIONAL), flush=True
                )
        rows += part
    print(run.write(rows, data=data))


if __name__ == "__main__":
    main()
