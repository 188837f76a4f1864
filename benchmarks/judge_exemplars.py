"""Judge exemplar colorization on photographs that no part of it has seen: a record for chapters 51 and 61.

    CTLIB_DATA=<folder with camvid/, coco/, scenes256/ and weights/> python benchmarks/judge_exemplars.py

Each photograph is colored after the nearest reference of its class, an unrelated one and itself: by the chain and by
each of its links, as they are shipped, by AdaIN and by matching; with samples that are not spread; by chains that
follow every reference besides, as the paper's, with AdaIN at different sites and without the first link; with more
samples and fewer; and by methods without a network. Road scenes and pictures of COCO are colored with label maps and
without. LPIPS is that of SqueezeNet; its column is left out where that cannot be had. A row of the student's transfer
sub-net needs weights of it, `--once _build/once`, e.g. of

    ctlib train stylization_once _build/once -p "sets=[scenes256, imagenet_samples, bsds500, coco]" -p size=160 \\
        -p side=128 -p steps=500 -p batch=8

The result, `judge_exemplars.json`, goes to `_build/lab/results`; a reviewed copy is the record in `book/results`.
"""

import argparse
from functools import partial

from judge_colorization import LPIPS, perceptual
from torch import Tensor

from ctlib import colorizers, evaluate_exemplars, results
from ctlib.exemplars.chain import ALL, SAMPLES, Exemplar
from ctlib.exemplars.moments import reinhard_ab
from ctlib.exemplars.superpixels import superpixel_transfer
from ctlib.exemplars.variants import BOTH, COARSE, FULL, PAPERS, Way, by_link, remembered, variants, with_samples
from ctlib.exemplars.welsh import welsh
from ctlib.models.stylization_once import StylizationOnce

AUTOMATIC = "automatic"
COUNTS = (0, 1, 10, SAMPLES, 500, ALL)
MANY = (500, ALL)
MATCHING = "matching"
SAMPLED = ("nearest", "self")  # references with which samples are counted
STREETS, OBJECTS = "camvid", "coco, labelled"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["scenes256", "coco"], help="folders in $CTLIB_DATA")
    parser.add_argument("--limit", type=int, default=16, help="pictures of each set, of those held back")
    parser.add_argument("--streets", type=int, default=10, help="frames of CamVid, with labels; 0 for none")
    parser.add_argument("--long-side", type=int, default=256, help="pixels; smaller pictures stay as they are")
    parser.add_argument("--transfer", default="stylization-compact", help="weights of the transfer sub-net")
    parser.add_argument("--refine", default="refinement-quarter", help="weights of the colorization sub-net")
    parser.add_argument("--once", default="", help="weights of the student's transfer sub-net, if there are any")
    chosen = parser.parse_args()
    run = results.start("judge_exemplars", **vars(chosen))
    chain = Exemplar.from_pretrained(chosen.transfer, chosen.refine)
    student = StylizationOnce.from_pretrained(chosen.once) if chosen.once else None
    chains = {"": remembered(chain), MATCHING: remembered(chain, by="matching")} | variants(chain, student)
    followed = f"{MATCHING}, followed"
    chains |= {followed: remembered(chain, by="matching", **PAPERS)}
    unspread = {
        f"{name}, not spread": by_link({"": remembered(chain, by=by, spread=False)})[FULL]
        for name, by in ((FULL, "adain"), (f"{FULL}, {MATCHING}", "matching"))
    }
    cases = evaluate_exemplars.cases(chosen.sets, chosen.long_side, limit=chosen.limit)
    streets = evaluate_exemplars.street_cases(chosen.long_side, limit=chosen.streets) if chosen.streets else []
    objects = labelled(chosen.long_side, chosen.limit) if "coco" in chosen.sets else []
    steps, also, rows = chains[""], perceptual(), []
    alone = {AUTOMATIC: partial(automatic, steps)}
    for number, case in enumerate(cases, 1):
        rows += evaluate_exemplars.judge(alone | others(), after(chains) | unspread, [case], also=also)
        sampled = with_samples(chain, COUNTS) | {
            name.replace(FULL, f"{FULL}, {MATCHING}"): one
            for name, one in with_samples(chain, MANY, by="matching").items()
        }
        counted = evaluate_exemplars.judge({}, sampled, [case], kinds=SAMPLED, also=also)
        rows += [row for row in counted if row["kind"] in SAMPLED]
        print(f"{number} of {len(cases)}: {case.set}, {case.name}", flush=True)
    plain = by_link({name: chains[name] for name in ("", BOTH, followed)})
    guided = by_link({"labels": chains[BOTH], f"labels, {MATCHING}": chains[followed]})
    rows += evaluate_exemplars.judge(alone, plain, streets + objects, guided=guided, kinds=["nearest"], also=also)
    every = cases + streets + objects
    lenders = [
        {"set": case.set, "case": case.name} | {kind: one.name for kind, one in case.references.items()}
        for case in every
    ]
    data = {f"{case.set}/{one.name}": one.sha256 for case in every for one in case.references.values()}
    print(run.write(rows, references=lenders, data=data))
    tell(rows, chosen.sets)


def labelled(long_side: int, limit: int) -> list[evaluate_exemplars.Case]:
    """Photographs of COCO with labels of things and stuff, under a name of their own."""
    found = evaluate_exemplars.cases(["coco"], long_side, limit=limit, labels=True)
    return [case._replace(set=OBJECTS) for case in found]


def automatic(steps: Way, rgb: Tensor) -> Tensor:
    """The first link's, for which it does not matter what reference is given."""
    return steps(rgb, rgb)["precolored"]


def others() -> dict:
    """Colorizers that look at no reference."""
    return {name: partial(colorizers.colorize, name) for name in ("zhang2016", "zhang2017", "unet")}


def after(chains: dict[str, Way]) -> dict:
    """All that look at one: the chain and its variants, and what there is beside it."""
    beside = {
        "welsh": welsh,
        "superpixels": superpixel_transfer,
        "reinhard ab of automatic": lambda rgb, reference: reinhard_ab(automatic(chains[""], rgb), reference),
    }
    return by_link(chains) | beside


def tell(rows: list[dict], sets: list[str]) -> None:
    """The means, and whether the chain keeps what it promises."""
    for of in (sets, [STREETS], [OBJECTS]):
        mine = [row for row in rows if row["set"] in of]
        for row in evaluate_exemplars.summary(mine) if mine else []:
            numbers = (f"{key} {value:7.3f}" for key, value in row.items() if key not in ("method", "kind"))
            print(f"{row['method']:38} {row['kind']:9}", *numbers)
    judged = [row for row in rows if row["set"] in sets]
    for kind in evaluate_exemplars.KINDS:
        for other in ((AUTOMATIC, evaluate_exemplars.NONE), (COARSE, kind)):
            for column in ("psnr", LPIPS) if LPIPS in rows[0] else ("psnr",):
                found = evaluate_exemplars.gain(judged, (FULL, kind), other, column)
                print(f"{FULL} above {other[0]}, {kind}, {column}: {found['mean']:+.3f} +- {found['error']:.3f}")


if __name__ == "__main__":
    main()
