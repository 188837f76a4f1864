"""Judge the shipped networks where the quick book cannot: on FiveK and on unpaired photographs, beside other methods.

    CTLIB_DATA=<folder with fivek/ and dpst/> python benchmarks/judge_shipped.py
    ... python benchmarks/judge_shipped.py --methods analogy    # anew; the rows of the other methods stay

Both sets are for evaluation only: no shipped weights have seen them. The result, `judge_shipped.json`, goes to
`_build/lab/results`; a reviewed copy is the record in `book/results`, which notebooks/20_train_histogram_analogy shows.
"""

import argparse

from ctlib import evaluate, methods, metrics, paths, results

PAIRED = ["psnr", "ssim", "ciede2000", "psnr_lab_official"]
UNPAIRED = ["hellinger_ab", "sliced_wasserstein", "edge_ssim", "ssim_l"]
BESIDE = ["identity", "reinhard_lab", "mkl_lab", "mkl_rgb", "histogram_rgb", "histogram_lab", "idt"]


def bench(long_side: int) -> list[evaluate.Case]:
    """The paired and the same-edit cases of FiveK at hand."""
    # the scenes beside the folder `pairs` were developed from raw by other software
    ids = {path.name[:5] for path in (paths.data_dir() / "fivek" / "pairs").glob("a*")}
    cases = [case for case in evaluate.fivek_cases(long_side) if case.kind != "unpaired"]
    return [case for case in cases if not ids or case.name in ids]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long-side", type=int, default=512, help="pixels")
    parser.add_argument("--methods", nargs="*", help="names of methods; all by default")
    options = parser.parse_args()
    run = results.start("judge_shipped", long_side=options.long_side)
    every = BESIDE + [name for name, method in methods.METHODS.items() if method.family == "learned"]
    names = options.methods or every
    cases = bench(options.long_side)
    rows = evaluate.judge(names, cases, PAIRED)
    unpaired = evaluate.folder_cases("dpst", options.long_side)
    rows += evaluate.judge(names, unpaired, UNPAIRED)
    commit = results.provenance()["commit"]
    rows = [row | {"commit": commit} for row in rows]
    if options.methods:
        before = results.read("judge_shipped")
        if before["parameters"] != run.parameters:
            parser.error(f"the result so far has {before['parameters']}; judge all methods anew")
        rows += [row for row in before["rows"] if row["method"] not in names]
        rows.sort(key=lambda row: every.index(row["method"]))
    manifest = evaluate.manifest("fivek", cases) | evaluate.fingerprints(unpaired)
    print(run.write(rows, data=manifest, sets={"fivek": len(cases) // 2, "dpst": len(unpaired)}))
    for kind, columns in (("paired", PAIRED), ("same edit", PAIRED), ("unpaired", UNPAIRED)):
        print(f"\n{kind:16}" + "".join(f"{metrics.METRICS[column].name:>20}" for column in columns))
        for row in evaluate.summary(rows, kind, columns):
            print(f"{row['method']:16}" + "".join(f"{row[column]:20.3f}" for column in columns))


if __name__ == "__main__":
    main()
