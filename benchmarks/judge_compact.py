"""How good networks of several widths are on FiveK: the shipped ones, and others by folder.

    CTLIB_DATA=<folder with fivek/> python benchmarks/judge_compact.py \\
        "small, the teacher=_build/training/teacher" "tiny, distilled=histogram-analogy-distilled-tiny"

Each is `name=weights`, a folder or a name in data/pretrained. FiveK is for evaluation only. The result,
`judge_compact.json`, goes to `_build/lab/results`; a reviewed copy is the record in `book/results`, which
notebooks/22_compact_and_distilled shows.
"""

import argparse

from judge_shipped import bench

from ctlib import evaluate, methods, results
from ctlib.checkpoints import load_state
from ctlib.models.histogram_analogy import HistogramAnalogy
from ctlib.paths import ROOT

PAIRED = ["psnr", "ssim", "ciede2000"]


def training_of(weights: str) -> dict:
    """Steps and pairs of a training, if its folder still has them."""
    state = ROOT / weights / "resume.pt"
    if not state.is_file():
        return {}
    settings = load_state(state)["identity"]["settings"]
    return {"steps": settings["steps"], "batch": settings["batch"]}


def unlike(before: dict, long_side: int, data: dict) -> str:
    """What a record was measured with, if it was something else: rows of both would not be one table."""
    if before["parameters"]["long_side"] != long_side:
        return f"long_side {before['parameters']['long_side']}"
    changed = sorted(name for name in {*before["data"], *data} if before["data"].get(name) != data.get(name))
    return (
        f"other data: {', '.join(changed[:3])}" + (f" and {len(changed) - 3} more" if changed[3:] else "")
        if changed
        else ""
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+", metavar="name=weights")
    parser.add_argument("--long-side", type=int, default=512, help="pixels")
    parser.add_argument("--keep", action="store_true", help="the networks judged before stay in the record")
    options = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in options.networks)
    run = results.start("judge_compact", long_side=options.long_side)
    cases, commit = bench(options.long_side), results.provenance()["commit"]
    rows, data = [], evaluate.manifest("fivek", cases)
    before = results.read("judge_compact") if options.keep else None
    if before and (kept := unlike(before, options.long_side, data)):
        parser.error(f"the result so far has {kept}; judge all networks anew, without --keep")
    for name, weights in {"identity": None, **given}.items():
        about = {}
        if weights:
            network = HistogramAnalogy.from_pretrained(weights)
            about = {"parameters": sum(one.numel() for one in network.parameters()), **training_of(weights)}
            run_it = lambda source, reference, labels, network=network: network.recolor(source, reference)  # noqa: E731
            methods.METHODS[name] = methods.Method(name, "learned", run=run_it)
        judged = evaluate.judge([name], cases, PAIRED)
        rows += [row | about | {"commit": commit} for row in judged]
        print(name, *evaluate.summary(judged, "paired", PAIRED), *evaluate.summary(judged, "same edit", PAIRED))
    if before:
        rows = [row for row in before["rows"] if row["method"] not in given] + [r for r in rows if r["method"] in given]
    print(run.write(rows, data=data))


if __name__ == "__main__":
    main()
