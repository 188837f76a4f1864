"""How often regions without names find their partners: pairs of Deep Photo Style Transfer, with regions people drew.

    CTLIB_DATA=<folder with dpst/> python benchmarks/judge_partners.py    # a minute

The names (colors of the drawn maps) are hidden from `ctlib.segment.match`, and tell afterwards who was right. The
numbers are shares of regions whose partner is known: found with all statistics, with the mean color alone and by
chance; kept at the default limit, if right and if wrong; and of regions whose partner was taken out of the reference,
how many are given to another. The result, `judge_partners.json`, goes to `_build/lab/results`; a reviewed copy is the
record in `book/results`, which the comments of `ctlib/segment/partners.py` quote.
"""

import argparse
import warnings

import torch

from ctlib import evaluate, results
from ctlib.segment import Regions
from ctlib.segment.partners import LIMIT, assigned, statistics

COLORS = 3  # of the statistics, the mean color


def named(labels: torch.Tensor) -> tuple[Regions, list[int]]:
    """Regions numbered anew, and what each was called; -1 is a region that has no partner."""
    present, numbers = torch.unique(labels, return_inverse=True)
    return Regions(numbers), present.tolist()


def found(sides: list[torch.Tensor], names: list[list[int]], limit: float = float("inf")) -> dict[str, int]:
    """Of the regions with a known partner: how many there are, how many got it, and how many got another."""
    numbers = assigned(*sides, limit)
    partner = {number: name for number, name in zip(numbers[1], names[1], strict=True) if number >= 0}
    given = [(name, partner.get(number)) for number, name in zip(numbers[0], names[0], strict=True) if name >= 0]
    right = sum(own == other for own, other in given)
    return {"asked": len(given), "right": right, "wrong": sum(other is not None for _, other in given) - right}


def alone(sides: list[torch.Tensor], names: list[list[int]], limit: float) -> dict[str, int]:
    """Each region in turn, its partner taken out of the reference: how often another is given to it."""
    asked = [place for place, name in enumerate(names[0]) if name >= 0]
    taken = 0
    for place in asked:
        rest = [row for row, name in enumerate(names[1]) if name != names[0][place]]
        taken += bool(rest) and assigned(sides[0], sides[1][rest], limit)[0][place] >= 0
    return {"asked": len(asked), "wrong": taken}


def chance(names: list[list[int]]) -> dict[str, float]:
    """What a random one-to-one assignment finds, on average."""
    asked = sum(name >= 0 for name in names[0])
    return {"asked": asked, "right": asked / max(map(len, names))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long-side", type=int, default=256, help="pixels")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    run = results.start("judge_partners", long_side=options.long_side, limit=LIMIT)
    cases, rows = evaluate.labelled_cases("dpst", options.long_side), []
    for case, labels in cases:
        sides, names = [], []
        for one, rgb in zip(labels, (case.source, case.reference), strict=True):
            regions, called = named(one)
            sides.append(statistics(regions, rgb))
            names.append(called)
        ways = {
            "statistics": found(sides, names),
            "colors": found([side[:, :COLORS] for side in sides], names),
            "chance": chance(names),
            "limit": found(sides, names, LIMIT),
            "partner gone": alone(sides, names, LIMIT),
        }
        rows += [{"case": case.name, "method": way, **counts} for way, counts in ways.items()]
    share = {}
    for way in dict.fromkeys(row["method"] for row in rows):
        part = [row for row in rows if row["method"] == way]
        total = {key: sum(row.get(key, 0) for row in part) for key in ("asked", "right", "wrong")}
        share[way] = total
        print(f"{way:14}", *(f"{key} {value / total['asked']:.0%}" for key, value in total.items() if key != "asked"))
    print(f"kept at {LIMIT}: right {share['limit']['right'] / share['statistics']['right']:.0%}, "
          f"wrong {share['limit']['wrong'] / share['statistics']['wrong']:.0%}")  # fmt: skip
    print(run.write(rows, data=evaluate.fingerprints(case for case, _ in cases), totals=share))


if __name__ == "__main__":
    main()
