"""Bring the numbers of a new record to the cards of shipped weights; all else on the cards stays.

    python tools/rejudge.py book/results/judge_palettes.json

For when the benchmark changed and the weights did not: `tools/ship.py` writes whole cards, and needs the trainings.
"""

import argparse
import json
import re
from pathlib import Path

from ship import STUDY, UNJUDGED, exemplar_scores, kind_of, study_scores

from ctlib import checkpoints, colorizers, methods
from ctlib.atomic import replacing

#: colorizers that a record calls by another name
RECORDED = {"exemplar": "full chain"}
TABLE = re.compile(
    rf"^\| (?:Test|Layer) \|.*?^Measured (?:at|by) [^\n]*|^{re.escape(UNJUDGED)}", re.MULTILINE | re.DOTALL
)


def rejudged(card: str, table: str) -> str:
    """A card with another table of metrics. Raises `ValueError` if it has none to take the place of."""
    new, count = TABLE.subn(lambda _: table, card, count=1)
    if not count:
        raise ValueError("no table of metrics, and no word that there is none yet")
    return new


def judged_as() -> dict[str, str]:
    """Names in records to the shipped weights behind them."""
    here = {path.parent.name for path in checkpoints.SHIPPED.glob(f"*/{checkpoints.WEIGHTS}")}
    found = {name: method.run.args[0] for name, method in methods.METHODS.items() if method.run}
    painters = {name: one.weights for name, one in colorizers.COLORIZERS.items() if one.weights in here}
    return (
        found | {RECORDED.get(name, name): weights for name, weights in painters.items()} | {STUDY: "study-lab-lpips"}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", type=Path, help="judge_shipped.json, judge_palettes.json, ...")
    record = json.loads(parser.parse_args().record.read_text(encoding="utf-8"))
    judged = {row["method"] for row in record["rows"]}
    for name, folder in judged_as().items():
        if name not in judged:
            continue
        path = checkpoints.SHIPPED / folder / "README.md"
        network = json.loads(path.with_name(checkpoints.CONFIG).read_text(encoding="utf-8"))
        kind = kind_of(network)
        of = {exemplar_scores: "judge_exemplars", study_scores: "judge_colorization_losses"}.get(kind.scores)
        if (record["stem"] if record["stem"] in ("judge_exemplars", "judge_colorization_losses") else None) != of:
            continue  # these records have rows of networks that others judge
        card = rejudged(path.read_text(encoding="utf-8"), kind.scores(record, name))
        with replacing(path) as temporary:
            temporary.write_text(card, encoding="utf-8")
        print(f"{folder}: numbers of {name}")


if __name__ == "__main__":
    main()
