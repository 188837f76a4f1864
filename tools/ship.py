"""From a finished training to shipped weights: copy them to data/pretrained, with a model card and a hash.

    python tools/ship.py _build/training/film histogram-analogy-film-tiny \\
        --method analogy_film --record book/results/judge_shipped.json

Run `benchmarks/judge_shipped.py` between a first and a second call: the card quotes its numbers.
"""

import argparse
import csv
import hashlib
import json
import re
from pathlib import Path

from graph import ROOT

from ctlib import checkpoints
from ctlib.atomic import replacing

CARD = """\
---
license: other
license_name: research-only
library_name: ctlib
tags: [color-transfer, image-to-image]
---

# {name}

{about}

```python
from ctlib.models.histogram_analogy import HistogramAnalogy

network = HistogramAnalogy.from_pretrained("{name}")
out = network.recolor(source, reference)  # (B, 3, H, W) sRGB in [0, 1]
```

| | |
|---|---|
| **Network** | {network} |
| **Parameters** | {parameters:,}, stored in float16 |
| **Recipe** | {recipe} |
| **Training** | {steps:,} steps of {batch} pairs, {side} x {side} pixels each; {seconds:,.0f} s on {device} |
| **Last loss** | {loss:.5f} (mean since the line before) |
| **Data** | {count:,} photographs, retouched at random: {sets}; all in [{manifest}](../{manifest}), with SHA-256 |
| **Never seen** | FiveK's photographs, Deep Photo Style Transfer's, Kodak's, and those that come with the packages |

The retouching draws from, among others, a 3D-LUT model that others trained on FiveK's expert C ({luts}), so FiveK is
unseen as pictures, not as a style.

{metrics}

**License.** The code is MIT. The photographs are for non-commercial research, each set under its owner's terms (see
[data/README.md](../../README.md)); use the weights likewise.
"""


def describe(record: dict | None, method: str) -> str:
    if record is None:
        return "No metrics yet: run `benchmarks/judge_shipped.py`."
    frame = {}
    for row in record["rows"]:
        if row["method"] in (method, "identity"):
            frame.setdefault((row["kind"], row["method"]), []).append(row)
    lines = ["| Test | PSNR, dB | CIEDE2000 | ab-histogram distance | edge SSIM |", "|---|---|---|---|---|"]
    for (kind, name), rows in sorted(frame.items(), key=lambda item: (item[0][0], item[0][1] == method)):
        means = [
            f"{sum(values) / len(values):.{digits}f}" if (values := [r[key] for r in rows if key in r]) else "-"
            for key, digits in (("psnr", 2), ("ciede2000", 2), ("hellinger_ab", 3), ("edge_ssim", 3))
        ]
        place = "Deep Photo Style Transfer" if kind == "unpaired" else "FiveK, expert C"
        who = "these weights" if name == method else "identity"
        lines.append(f"| {place}, {kind}, {len(rows)} pictures, {who} | {' | '.join(means)} |")
    side = record["parameters"]["long_side"]
    commit = next((row["commit"] for row in record["rows"] if row["method"] == method), record["commit"])
    note = f"Measured at {side} px by `benchmarks/judge_shipped.py`, commit {commit}."
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the training")
    parser.add_argument("name", help="of the weights, a folder in data/pretrained")
    parser.add_argument("--method", default="", help="key in ctlib.methods.METHODS, to find its numbers in the record")
    parser.add_argument("--about", default="", help="one paragraph for the card")
    parser.add_argument("--record", type=Path, help="judge_shipped.json")
    options = parser.parse_args()
    state = checkpoints.load_state(options.folder / "resume.pt")
    identity, history = state["identity"], state["history"]
    settings, objective = identity["settings"], identity["objective"]
    if state["step"] != settings["steps"]:
        raise SystemExit(
            f"{options.folder}: stopped at step {state['step']} of {settings['steps']}; let it finish first"
        )
    target = checkpoints.SHIPPED / options.name
    target.mkdir(parents=True, exist_ok=True)
    for file in (checkpoints.WEIGHTS, checkpoints.CONFIG):
        with replacing(target / file) as temporary:
            temporary.write_bytes((options.folder / file).read_bytes())

    files = json.loads(identity["data"])
    if seen := {name.partition("-")[0] for name in files} & {"photos", "fivek", "dpst", "kodak"}:
        raise SystemExit(f"{options.folder}: trained on {', '.join(seen)}, which the book judges on; nothing shipped")
    # the place in the cache, "00012 ", is no part of a photograph's name
    rows = sorted((re.sub(r"/\d{5} ", "/", name), digest) for name, digest in files.items())
    manifest = f"photographs-{hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:8]}.csv"
    with replacing(checkpoints.SHIPPED / manifest) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["file", "sha256"])
        writer.writerows(rows)
    pairs, seconds, before = settings["batch"], 0.0, 0
    for row in history:
        seconds += pairs * (row["step"] - before) / row["images_per_second"]
        before = row["step"]
    weights = checkpoints.load_weights(target / checkpoints.WEIGHTS)
    card = CARD.format(
        name=options.name,
        about=options.about or "See notebooks/20_train_histogram_analogy for what this network is.",
        network=", ".join(f"{key} = {value}" for key, value in identity["network"].items()),
        parameters=sum(value.numel() for value in weights.values()),
        recipe=", ".join(f"{key} = {value}" for key, value in {**objective, **settings}.items() if key != "luts"),
        steps=settings["steps"],
        batch=pairs,
        side=objective["side"],
        seconds=seconds,
        device="{device} ({machine}), {threads} thread(s), torch {torch}".format(**identity["environment"]),
        loss=history[-1]["loss"],
        count=len(files),
        sets=", ".join(sorted({name.partition("/")[0].rpartition("-")[0] for name in files})),
        manifest=manifest,
        luts="it was at hand" if objective.get("luts") else "it was not at hand here",
        metrics=describe(json.loads(options.record.read_text()) if options.record else None, options.method),
    )
    with replacing(target / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    paths = sorted(checkpoints.SHIPPED.glob(f"*/{checkpoints.WEIGHTS}"))
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(checkpoints.SHIPPED).as_posix()}"
        for path in paths
    ]
    with replacing(checkpoints.SHIPPED / "SHA256SUMS") as temporary:
        temporary.write_text("\n".join(sums) + "\n", encoding="utf-8")
    print(f"{target.relative_to(ROOT)}: {sum(p.stat().st_size for p in paths) / 1e6:.1f} MB of weights shipped in all")


if __name__ == "__main__":
    main()
