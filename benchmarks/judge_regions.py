"""What regions are worth where people drew them: every pair of Deep Photo Style Transfer, with and without its labels.

    CTLIB_DATA=<folder with dpst/> python benchmarks/judge_regions.py    # some minutes

The set is for evaluation only: no shipped weights have seen it. The result, `judge_regions.json`, goes to
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
    options = parser.parse_args()
    run = results.start("judge_regions", long_side=options.long_side)
    cases = evaluate.labelled_cases("dpst", options.long_side)
    rows = evaluate.judge_regions(options.methods, cases)
    print(run.write(rows, data=evaluate.fingerprints(case for case, _ in cases)))
    for kind in ("whole", "regions"):
        print(f"\n{kind:16}" + "".join(f"{column:>16}" for column in evaluate.REGIONAL))
        for row in evaluate.summary(rows, kind, evaluate.REGIONAL):
            print(f"{row['method']:16}" + "".join(f"{row[column]:16.3f}" for column in evaluate.REGIONAL))


if __name__ == "__main__":
    main()
