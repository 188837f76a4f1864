"""From a finished training to shipped weights: copy them to data/pretrained, with a model card and a hash.

    python tools/ship.py _build/training/film histogram-analogy-film-tiny \\
        --about "What it is." --method analogy_film --record book/results/judge_shipped.json

Run the benchmark that judges, `judge_shipped.py`, `judge_palettes.py`, `judge_colorization.py`,
`judge_exemplars.py` or `judge_features.py`, between a first and a second call: the card quotes its numbers.
"""

import argparse
import csv
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
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
{usage}
```

| | |
|---|---|
| **Network** | {network} |
| **Parameters** | {parameters:,}, stored in float16 |
| **Recipe** | {recipe} |
| **Training** | {steps:,} steps of {batch} {unit}, {side} x {side} pixels each; {seconds:,.0f} s on {device} |
| **Last loss** | {loss:.5f} (mean since the line before) |
| **Data** | {count:,} photographs, {pairs}: {sets}; all in [{manifest}](../{manifest}), with SHA-256 |
| **Never seen** | {unseen} |

{note}{metrics}

**License.** The code is MIT. The photographs are for non-commercial research, each set under its owner's terms (see
[data/README.md](../../README.md)); use the weights likewise.
"""


def scores(record: dict, method: str) -> str:
    """Numbers of a network that takes a reference picture, from `judge_shipped.json`."""
    columns = {"psnr": ("PSNR, dB", 2), "ciede2000": ("CIEDE2000", 2), "hellinger_ab": ("ab-histogram distance", 3),
               "edge_ssim": ("edge SSIM", 3)}  # fmt: skip
    places = {
        kind: f"{'Deep Photo Style Transfer' if kind == 'unpaired' else 'FiveK, expert C'}, {kind}"
        for kind in ("paired", "same edit", "unpaired")
    }
    return scored(record, method, columns, places, "judge_shipped")


def palette_scores(record: dict, method: str) -> str:
    """Numbers of a network that takes a palette, from `judge_palettes.json`."""
    columns = {"palette_distance": ("palette distance, ΔE00", 2), "ab_rmse": ("error of a and b", 2),
               "ssim_l": ("SSIM of L*", 3)}  # fmt: skip
    places = {"hue": "Paintings, hues turned", "other": "Paintings, another's palette", "report": "Paintings, orange, "
              "brown, purple, green"}  # fmt: skip
    return scored(record, method, columns, places, "judge_palettes")


def scored(record: dict, method: str, columns: dict, places: dict[str, str], benchmark: str) -> str:
    """A table of means beside those of identity, for each kind of case that the method stands in."""
    lines = [f"| Test | {' | '.join(title for title, _ in columns.values())} |", "|---" * (1 + len(columns)) + "|"]
    for kind, place in places.items():
        groups = {name: [row for row in record["rows"] if row["kind"] == kind and row["method"] == name]
                  for name in ("identity", method)}  # fmt: skip
        for name, rows in groups.items():
            if not groups[method]:
                continue
            means = [
                f"{sum(values) / len(values):.{digits}f}" if (values := [r[key] for r in rows if key in r]) else "-"
                for key, (_, digits) in columns.items()
            ]
            who = "these weights" if name == method else "identity"
            lines.append(f"| {place}, {len(rows)} pictures, {who} | {' | '.join(means)} |")
    side = record["parameters"]["long_side"]
    commit = next((row["commit"] for row in record["rows"] if row["method"] == method), record["commit"])
    return "\n".join([*lines, "", f"Measured at {side} px by `benchmarks/{benchmark}.py`, commit {commit}."])


def color_scores(record: dict, method: str) -> str:
    """Numbers of a colorizer, from `judge_colorization.json`: beside the gray copy, and by the number of hints."""
    columns = {"psnr": ("PSNR, dB", 2), "ciede2000": ("CIEDE2000", 2), "colorfulness": ("colorfulness", 1)}
    if all("lpips_squeeze" in row for row in record["rows"]):
        columns["lpips_squeeze"] = ("LPIPS (SqueezeNet)", 3)
    lines = [f"| Test | {' | '.join(title for title, _ in columns.values())} |", "|---" * (1 + len(columns)) + "|"]

    def mean(name: str, key: str) -> float:
        found = [row[key] for row in record["rows"] if row["method"] == name]
        return sum(found) / len(found)

    found = dict.fromkeys(row["method"] for row in record["rows"])
    variants = {name: "these weights" + name.removeprefix(method) for name in found if name.startswith(f"{method},")}
    for name, who in {"gray": "gray copy", method: "these weights", **variants}.items():
        cells = (f"{mean(name, key):.{digits}f}" for key, (_, digits) in columns.items())
        lines.append(f"| Held back, {len(record['data'])} photographs, {who} | {' | '.join(cells)} |")
    lines += ["", f"The photographs themselves have a colorfulness of {mean('truth', 'colorfulness'):.1f}."]
    ways = {"psnr_alone": "the network alone", "psnr_spread": "hints spread without any network",
            "psnr": "both, as `colorize` does it"}  # fmt: skip
    for column, way in ways.items() if method == "zhang2017" else ():
        told = {}
        for row in record["hints"]:
            told.setdefault(row["count"], []).append(row[column])
        curve = ", ".join(f"{sum(found) / len(found):.2f} with {count}" for count, found in sorted(told.items()))
        lines += ["", f"PSNR in dB by the number of hints of 6 x 6 pixels, {way}: {curve}."]
    where = f"Measured at {record['parameters']['long_side']} px by `benchmarks/judge_colorization.py`"
    return "\n".join([*lines, "", f"{where}, commit {record['commit']}."])


def exemplar_scores(record: dict, method: str) -> str:
    """Numbers of the chain that the weights are part of, from `judge_exemplars.json`, by reference.

    Without a reference it is the first link, which needs these weights alone.
    """
    columns = {"psnr": ("PSNR, dB", 2), "ciede2000": ("CIEDE2000", 2), "colorfulness": ("colorfulness", 1)}
    rows = [row for row in record["rows"] if row["set"] in record["parameters"]["sets"]]
    if all("lpips_squeeze" in row for row in rows):
        columns["lpips_squeeze"] = ("LPIPS (SqueezeNet)", 3)
    lines = [f"| Test | {' | '.join(title for title, _ in columns.values())} |", "|---" * (1 + len(columns)) + "|"]
    asked = {("gray", "none"): "gray copy", ("automatic", "none"): "no reference, these weights"}
    asked |= {
        (method, "nearest"): "nearest reference of its class, these weights",
        (method, "unrelated"): "unrelated reference, these weights",
        (method, "self"): "itself as the reference, these weights",
    }
    matched = f"{method}, matching"
    asked |= {
        (matched, kind): asked[method, kind] + ", by matching"
        for kind in ("nearest", "unrelated", "self")
        if any(row["method"] == matched for row in rows)
    }
    for (name, kind), who in asked.items():
        found = [row for row in rows if (row["method"], row["kind"]) == (name, kind)]
        cells = (f"{sum(row[key] for row in found) / len(found):.{digits}f}" for key, (_, digits) in columns.items())
        lines.append(f"| Held back, {len(found)} photographs, {who} | {' | '.join(cells)} |")
    chain = (
        f"In a chain with {record['parameters']['transfer']}, 100 samples of its colors; a reference that looks unlike "
    )
    chain += (
        "is followed less (`trust`), samples are spread to what is near and as light, and detail of the coarse colors "
    )
    chain += "is added."
    blind = [
        row["psnr"] for row in rows if row["method"] == f"{method}, encoder + decoder" and row["kind"] == "unrelated"
    ]
    if blind:
        chain += f" Followed as in the paper, an unrelated one gives {sum(blind) / len(blind):.2f} dB."
    where = f"Measured at {record['parameters']['long_side']} px by `benchmarks/judge_exemplars.py`"
    return "\n".join([*lines, "", chain, "", f"{where}, commit {record['commit']}."])


def study_scores(record: dict, _: str) -> str:
    """Numbers of one training of the loss study, from `judge_colorization_losses.json`: with the true lightness."""
    columns = {"psnr": ("PSNR, dB", 2), "lpips_squeeze": ("LPIPS (SqueezeNet)", 3), "colorfulness": ("colorfulness", 1)}
    lines = [f"| Test | {' | '.join(title for title, _ in columns.values())} |", "|---" * (1 + len(columns)) + "|"]
    places = {"best of both": ("as it is", "size of the training"), "best of both, full size": ("", "256 px")}
    for post, (small, at) in places.items():
        gray = [row for row in record["rows"] if row["method"] == "gray" and row["post"] == (small or post)]
        own = [row for row in record["rows"] if row["method"] == STUDY and row.get("seed") == 0 and row["post"] == post]
        for who, rows in (("gray copy", gray), ("these weights", own)):
            means = (f"{sum(row[key] for row in rows) / len(rows):.{digits}f}" for key, (_, digits) in columns.items())
            lines.append(f"| Held back, {len(record['data'])} photographs, at {at}, {who} | {' | '.join(means)} |")
    commit = record["commit"]
    return "\n".join([*lines, "", f"Measured by `benchmarks/judge_colorization_losses.py`, commit {commit}."])


def feature_scores(record: dict, method: str) -> str:
    """What the encoder misses of its teacher, and its rank correlation with LPIPS, from `judge_features.json`."""
    rows = record["rows"]
    missed = {row["case"]: row["missed"] for row in rows if "missed" in row}
    ranks = {row["method"]: row["within"] for row in rows if "within" in row}
    lines = [
        "| Layer | of the teacher's variation missed | rank correlation of its distance with LPIPS |",
        "|---" * 3 + "|",
        *(f"| {layer} | {share:.2f} | {ranks[f'compact, {layer}']:.2f} |" for layer, share in missed.items()),
        f"| all five | | {ranks['compact']:.2f} |",
        f"| all five, random weights | | {ranks['random weights']:.2f} |",
        f"| squared error of the pictures | | {ranks['squared error']:.2f} |",
        "",
        "Spearman's, over 14 ways to spoil a photograph, mean over photographs held back; LPIPS is that of SqueezeNet.",
    ]
    return "\n".join([*lines, "", f"Measured by `benchmarks/judge_features.py`, commit {record['commit']}."])


@dataclass(frozen=True)
class Kind:
    """What the card of an architecture says.

    Attributes:
        usage: code, with the name of the weights in braces.
        pairs: how photographs became pairs. unseen: data that no training has touched. note: a paragraph after that.
        loss: the line of the log that is quoted.
        scores: record and method to a table.
        unit: what a batch consists of.
    """

    usage: str
    pairs: str
    unseen: str
    note: str
    loss: str
    scores: Callable[[dict, str], str]
    unit: str = "pairs"


KINDS = {
    "conditioning": Kind(
        usage="""\
from ctlib.models.histogram_analogy import HistogramAnalogy

network = HistogramAnalogy.from_pretrained("{name}")
out = network.recolor(source, reference)  # (B, 3, H, W) sRGB in [0, 1]""",
        pairs="retouched at random",
        unseen="FiveK's photographs, Deep Photo Style Transfer's, Kodak's, and those that come with the packages",
        note="""\
The retouching draws from, among others, a 3D-LUT model that others trained on FiveK's expert C ({luts}), so FiveK is
unseen as pictures, not as a style.

""",
        loss="loss",
        scores=scores,
    ),
    "decoder_norm": Kind(
        usage="""\
from ctlib.models.palettenet import PaletteNet

network = PaletteNet.from_pretrained("{name}")
out = network.recolor(source, palette)  # (B, 3, H, W) sRGB in [0, 1]; {colors} hex colors or (k, 3) CIELAB""",
        pairs="in two random hues each (a quarter of the sources as they are)",
        unseen="any painting, and the photographs that come with the packages",
        note="",
        loss="euclidean",
        scores=palette_scores,
    ),
}
_COLORIZER = {
    "pairs": "made gray",
    "unit": "pictures",
    "unseen": "a fifth of each set, by the hash of the file, and the photographs that come with the packages",
    "scores": color_scores,
}
KINDS |= {
    "hints": Kind(
        usage="""\
from ctlib import colorizers

out = colorizers.colorize("zhang2017", rgb, hints=[(120, 90, "#a03020")])  # (1, 3, H, W) sRGB in [0, 1]""",
        note="",
        loss="loss",
        **_COLORIZER,
    ),
    # after "hints", for a network with hints has both options
    "mask_cent": Kind(
        usage="""\
from ctlib import colorizers

out = colorizers.colorize("exemplar", rgb, reference=reference)  # (B, 3, H, W) sRGB in [0, 1]""",
        note="""\
Training began with the weights of [zhang2017-quarter](../zhang2017-quarter/README.md).

""",
        loss="loss",
        **_COLORIZER | {"scores": exemplar_scores},
    ),
    "folded": Kind(
        usage="""\
from ctlib import colorizers

out = colorizers.colorize("zhang2016", rgb, temperature=0.38)  # (B, 3, H, W) sRGB in [0, 1]""",
        note="",
        loss="cross_entropy",
        **_COLORIZER,
    ),
    "skips": Kind(
        usage="""\
from ctlib import colorizers

out = colorizers.colorize("unet", rgb)  # (B, 3, H, W) sRGB in [0, 1]""",
        note="""\
The encoder's weights began as torchvision's for ImageNet, of SqueezeNet 1.1 (torchvision: BSD-3-Clause).

""",
        loss="loss",
        **_COLORIZER,
    ),
    "study": Kind(
        usage="""\
from ctlib.models.resnet_colorizer import ResnetColorizer

network = ResnetColorizer.from_pretrained("{name}")
out = network.colorize(rgb, side=80)  # (B, 3, H, W) sRGB in [0, 1]""",
        note="""\
The encoder's weights are torchvision's for ImageNet, of SqueezeNet 1.1 (torchvision: BSD-3-Clause), and were not
trained on. The loss was LPIPS with its SqueezeNet trunk.

""",
        loss="loss",
        **_COLORIZER | {"scores": study_scores},
    ),
    "widths": Kind(
        usage="""\
from ctlib.models.features import Features

encoder = Features.from_pretrained("{name}")
found = encoder(rgb, ["relu1_1", "relu4_1"])  # layer to (B, C, h, w), of (B, 3, H, W) sRGB in [0, 1]""",
        pairs="two of five with their saturation changed",
        unseen=_COLORIZER["unseen"],
        note="""\
**Teachers**, of which these weights hold nothing but what was learned by imitation: VGG19 (Simonyan and Zisserman),
normalized for style transfer (Li et al. 2017), to relu3_1; for relu4_1 and relu5_1 the encoder of a 16th of its size
that Wang et al. 2020 distilled from VGG19 (Collaborative Distillation), with its own maps to VGG19's channels.

""",
        loss="loss",
        scores=feature_scores,
        unit="pictures",
    ),
    "encoder": Kind(
        usage="""\
from ctlib.models.stylization import Stylization

network = Stylization.from_pretrained("{name}")
out = network.recolor(source, reference)  # (B, 3, H, W) sRGB in [0, 1], with the lightness of the source""",
        pairs="to be given back as they are",
        unseen="FiveK's photographs, Deep Photo Style Transfer's, those that come with the packages, and a fifth of "
        "each set, by the hash of the file",
        note="""\
The encoder is frozen; its weights are those of [features-compact](../features-compact/README.md). No reference and no
loss of style took part in the training.

""",
        loss="reconstruction",
        scores=scores,
        unit="pictures",
    ),
}
#: the training of the loss study that is shipped, with seed 0
STUDY = "lab_lpips_squeeze, squeezenet-frozen"
#: what norms know of their inputs, which is no parameter
COUNTED = ("running_mean", "running_var", "num_batches_tracked")
UNJUDGED = "No metrics yet: run the benchmark that judges it."
#: sets that the book judges on; paintings of any other set are kept out too, since a card says so
JUDGED = {"photos", "fivek", "dpst", "kodak", "wikiart7", "art_pd"}


def kind_of(network: dict) -> Kind:
    """Which of `KINDS` a network is, by its options; the loss study's has none of a U-Net's shortcuts."""
    if network.get("skips") is False:
        return KINDS["study"]
    return next(kind for option, kind in KINDS.items() if option in network)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the training")
    parser.add_argument("name", help="of the weights, a folder in data/pretrained")
    parser.add_argument("--method", default="", help="key in ctlib.methods.METHODS, to find its numbers in the record")
    parser.add_argument("--about", required=True, help="one paragraph for the card: what this network is")
    parser.add_argument("--record", type=Path, help="what the benchmark that judges has written")
    options = parser.parse_args()
    state = checkpoints.load_state(options.folder / "resume.pt")
    identity, history = state["identity"], state["history"]
    settings, objective, network = identity["settings"], identity["objective"], identity["network"]
    kind = kind_of(network)
    if state["step"] != settings["steps"]:
        raise SystemExit(
            f"{options.folder}: stopped at step {state['step']} of {settings['steps']}; let it finish first"
        )
    target = checkpoints.SHIPPED / options.name
    target.mkdir(parents=True, exist_ok=True)
    for file in (checkpoints.WEIGHTS, checkpoints.CONFIG):
        with replacing(target / file) as temporary:
            temporary.write_bytes((options.folder / file).read_bytes())

    files = {name: digest for name, digest in json.loads(identity["data"]).items() if name != "palettes"}
    seen = {name.partition("-")[0] for name in files}
    if seen := seen & JUDGED | {name for name in seen if name.startswith("artbench")}:
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
        about=options.about,
        usage=kind.usage.format(name=options.name, **network),
        network=", ".join(f"{key} = {value}" for key, value in network.items()),
        parameters=sum(value.numel() for key, value in weights.items() if key.rpartition(".")[2] not in COUNTED),
        recipe=", ".join(f"{key} = {value}" for key, value in {**objective, **settings}.items() if key != "luts"),
        steps=settings["steps"],
        batch=pairs,
        unit=kind.unit,
        side=objective["side"],
        seconds=seconds,
        device="{device} ({machine}), {threads} thread(s), torch {torch}".format(**identity["environment"]),
        loss=history[-1][kind.loss],
        pairs=kind.pairs,
        unseen=kind.unseen,
        note=kind.note.format(luts="it was at hand" if objective.get("luts") else "it was not at hand here"),
        count=len(files),
        sets=", ".join(sorted({name.partition("/")[0].rpartition("-")[0] for name in files})),
        manifest=manifest,
        metrics=kind.scores(json.loads(options.record.read_text()), options.method) if options.record else UNJUDGED,
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
