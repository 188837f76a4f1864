"""Judge exemplar colorization on photographs that no part of it has seen: a record for chapters 51 and 61.

    CTLIB_DATA=<folder with camvid/, coco/, scenes256/ and weights/> python benchmarks/judge_exemplars.py

Each photograph is colored after the nearest reference of its class, an unrelated one and itself: by the chain and by
each of its links, as they are shipped, by AdaIN and by matching; without detail, without spreading, with a transfer
that sees all of the sides; by chains that
follow every reference besides, as the paper's, with AdaIN at different sites and without the first link; with more
samples and fewer; and by methods without a network. Road scenes and pictures of COCO are colored with label maps and
without. LPIPS is that of SqueezeNet; its column is left out where that cannot be had. The student's transfer sub-net is
trained here, on the photographs of the shipped networks: ten minutes on one core, once; `--once-steps 0` leaves it out.
The rest takes a quarter of an hour on two cores.

The result, `judge_exemplars.json`, goes to `_build/lab/results`; a reviewed copy is the record in `book/results`. It
says which goals of the chapter are reached.
"""

import argparse
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from ctlib import colorizers, evaluate_exemplars, results
from ctlib.exemplars.chain import ALL, PAPERS, SAMPLES, Exemplar
from ctlib.exemplars.moments import reinhard_ab
from ctlib.exemplars.superpixels import superpixel_transfer
from ctlib.exemplars.variants import BOTH, COARSE, FULL, Way, by_link, remembered, variants, with_samples
from ctlib.exemplars.welsh import welsh
from ctlib.perceptual_losses import lpips_column
from ctlib.recipes import stylization_once

AUTOMATIC, LPIPS = "automatic", "lpips_squeeze"
COUNTS = (0, 1, 10, SAMPLES, 500, ALL)
MANY = (500, ALL)
MATCHING = "matching"
SAMPLED = ("nearest", "self")  # references with which samples are counted
#: what is taken off the shipped chain, one at a time
WITHOUT = {
    "not spread": {"spread": False, "detail": False},
    "no detail": {"detail": False},
    "not shrunk": {"shrink": 1},
}
#: how the student's network is trained
ONCE = {"sets": ["scenes256", "imagenet_samples", "bsds500", "coco"], "size": 160, "side": 128, "batch": 8}
STREETS, OBJECTS = "camvid", "coco, labelled"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["scenes256", "coco"], help="folders in $CTLIB_DATA")
    parser.add_argument("--limit", type=int, default=14, help="pictures of each set, of those held back")
    parser.add_argument("--streets", type=int, default=6, help="frames of CamVid, with labels; 0 for none")
    parser.add_argument("--long-side", type=int, default=256, help="pixels; smaller pictures stay as they are")
    parser.add_argument("--transfer", default="stylization-compact", help="weights of the transfer sub-net")
    parser.add_argument("--refine", default="refinement-quarter", help="weights of the colorization sub-net")
    parser.add_argument("--once-steps", type=int, default=500, help="of a training of the student's transfer sub-net")
    chosen = parser.parse_args()
    run = results.start("judge_exemplars", **vars(chosen))
    chain = Exemplar.from_pretrained(chosen.transfer, chosen.refine)
    student = None
    if chosen.once_steps:
        options = ONCE | {"steps": chosen.once_steps}
        student = stylization_once.run(run.checkpoints(**options), **options)[0].eval()
    chains = {"": remembered(chain), MATCHING: remembered(chain, by="matching")} | variants(chain, student)
    followed = f"{MATCHING}, followed"
    chains |= {followed: remembered(chain, by="matching", **PAPERS)}
    without = {
        f"{name}, {what}": by_link({"": remembered(chain, by=by, **options)})[FULL]
        for name, by in ((FULL, "adain"), (f"{FULL}, {MATCHING}", "matching"))
        for what, options in WITHOUT.items()
        if by == "adain" or "shrink" not in options
    }
    cases = evaluate_exemplars.cases(chosen.sets, chosen.long_side, limit=chosen.limit)
    streets = evaluate_exemplars.street_cases(chosen.long_side, limit=chosen.streets) if chosen.streets else []
    objects = labelled(chosen.long_side, chosen.limit) if "coco" in chosen.sets else []
    steps, also, rows = chains[""], lpips_column(), []
    alone = {AUTOMATIC: partial(automatic, steps)}
    for number, case in enumerate(cases, 1):
        rows += evaluate_exemplars.judge(alone | others(), after(chains) | without, [case], also=also)
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
    reached = goals([row for row in rows if row["set"] in chosen.sets])
    print(run.write(rows, references=lenders, data=data, goals=reached, student=student and ONCE))
    tell(rows, chosen.sets)
    for goal in reached:
        print("{goal}: {measured:+.3f} ± {error:.3f}, {result}".format_map(goal))


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


def goals(rows: Sequence[dict]) -> list[dict]:
    """What the chapter wants of the chain, and what was measured: rows of `goal`, `measured`, `error`, `result`."""
    none, found = evaluate_exemplars.NONE, []
    means = {(row["method"], row["kind"]): row for row in evaluate_exemplars.summary(rows)}
    truth = means["truth", none]["colorfulness"]

    def asked(goal: str, one: tuple, other: tuple, column: str, least: float) -> None:
        if column not in rows[0]:
            return
        told, sign = evaluate_exemplars.gain(rows, one, other, column), -1 if column == LPIPS else 1
        result = "reached" if sign * told["mean"] >= least else "MISSED"
        found.append({"goal": goal, "measured": told["mean"], "error": told["error"], "result": result})

    for name, coarse in (("", COARSE), (f", {MATCHING}", f"{COARSE}, {MATCHING}")):
        full = f"{FULL}{name}"
        for column, unit in (("psnr", "PSNR, dB"), (LPIPS, "LPIPS")):
            asked(f"{full}, nearest, above automatic: {unit}", (full, "nearest"), (AUTOMATIC, none), column, 0.0)
            asked(f"{full}, nearest, above {coarse}: {unit}", (full, "nearest"), (coarse, "nearest"), column, 0.0)
        off = [abs(means[one]["colorfulness"] - truth) for one in ((full, "nearest"), (AUTOMATIC, none))]
        nearer = {
            "measured": off[0] - off[1],
            "error": float("nan"),
            "result": "reached" if off[0] < off[1] else "MISSED",
        }
        found.append({"goal": f"{full}, nearest, colorfulness nearer to the truth than automatic"} | nearer)
        asked(f"{full}, itself, at least +4 dB above automatic", (full, "self"), (AUTOMATIC, none), "psnr", 4.0)
        asked(f"{full}, unrelated, within 0.5 dB of automatic", (full, "unrelated"), (AUTOMATIC, none), "psnr", -0.5)
    return found


if __name__ == "__main__":
    main()
