"""What is shipped in data/pretrained: small, whole, described, and what the registry of methods asks for."""

import json
import re

import pytest
import rejudge
from ship import KINDS, UNJUDGED

from ctlib import checkpoints, colorizers, methods, paths
from ctlib.models.features import Features
from ctlib.models.histogram_analogy import HistogramAnalogy
from ctlib.models.palettenet import PaletteNet
from ctlib.models.refinement import Refinement
from ctlib.models.resnet_colorizer import ResnetColorizer
from ctlib.models.stylization import Stylization
from ctlib.models.zhang2016 import Zhang2016
from ctlib.models.zhang2017 import Zhang2017

FOLDERS = sorted(path.parent for path in checkpoints.SHIPPED.glob(f"*/{checkpoints.WEIGHTS}"))


NETWORKS = {
    "histogram-analogy": HistogramAnalogy,
    "palettenet": PaletteNet,
    "features": Features,
    "zhang2016": Zhang2016,
    "zhang2017": Zhang2017,
    "unet": ResnetColorizer,
    "study": ResnetColorizer,
    "refinement": Refinement,
    "stylization": Stylization,
}
#: record of the benchmark that judges, and the option by which `tools/ship.py` knows the network
JUDGES = {
    "histogram-analogy": ("judge_shipped", "conditioning"),
    "palettenet": ("judge_palettes", "decoder_norm"),
    "features": ("judge_features", "widths"),
    "zhang2016": ("judge_colorization", "folded"),
    "zhang2017": ("judge_colorization", "hints"),
    "refinement": ("judge_exemplars", "mask_cent"),
    "unet": ("judge_colorization", "skips"),
    "study": ("judge_colorization_losses", "study"),
    "stylization": ("judge_shipped", "encoder"),
}


def kind(folder):
    return next(name for name in NETWORKS if folder.name.startswith(name))


LIMITS = [
    ("histogram-analogy", 25),
    ("palettenet", 12),
    ("features", 3),
    ("zhang", 12),
    ("unet", 8),
    ("study", 3),
    ("stylization", 3),
    ("refinement", 6),
]


@pytest.mark.parametrize(("name", "megabytes"), LIMITS)
def test_all_of_it_stays_small(name, megabytes):
    sizes = [(folder / checkpoints.WEIGHTS).stat().st_size for folder in FOLDERS if kind(folder).startswith(name)]
    assert sizes and sum(sizes) <= megabytes * 1e6


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_weights_fit_their_card(folder):
    network = NETWORKS[kind(folder)].from_pretrained(folder.name)  # holds the file against SHA256SUMS
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and f"# {folder.name}\n" in card
    count = sum(weight.numel() for weight in network.parameters())
    assert f"| {count:,}, stored in float16 |" in card
    for row in ("Network", "Recipe", "Training", "Data", "Never seen"):
        assert re.search(rf"^\| \*\*{row}\*\* \| \S", card, re.MULTILINE), f"no {row}"
    assert re.search(r"steps of \d+ (pairs|pictures), \d+ x \d+ pixels each; [\d,]+ s on \w+", card)
    assert "**License.**" in card
    scored = {"palettenet": "palette distance", "features": "missed"}.get(kind(folder), "PSNR, dB")
    assert scored in card
    assert re.search(r"Measured (at \d+ px )?by `benchmarks/judge_\w+\.py`, commit \w{9}\.", card)
    assert ", these weights | " in card or kind(folder) == "features"
    (manifest,) = set(re.findall(r"\((\.\./photographs-\w+\.csv)\)", card))
    lines = (folder / manifest).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "file,sha256" and f"{len(lines) - 1:,} photographs" in card
    assert all(re.fullmatch(r"[^,]+,[0-9a-f]{64}", line) for line in lines[1:])
    assert not any(re.search(r"fivek|dpst|kodak|wikiart|art_pd", line) for line in lines), (
        "these are for evaluation only"
    )


def test_the_learned_methods_are_shipped():
    wanted = {method.run.args[0] for method in methods.METHODS.values() if method.run}
    wanted |= {one.weights for one in colorizers.COLORIZERS.values() if one.weights} - {"eccv16", "siggraph17"}
    wanted |= {one.transfer for one in colorizers.COLORIZERS.values() if one.transfer}
    assert wanted <= {folder.name for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_card_says_what_the_record_says(folder):
    names = (name for name, weights in rejudge.judged_as().items() if weights == folder.name)
    name = next(names, "")  # the encoder is no method
    stem, option = JUDGES[kind(folder)]
    record = json.loads((paths.ROOT / "book/results" / f"{stem}.json").read_text(encoding="utf-8"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    table = KINDS[option].scores(record, name)
    assert table in card and rejudge.rejudged(card, table) == card
    assert rejudge.rejudged(rejudge.rejudged(card, UNJUDGED), table) == card
    with pytest.raises(ValueError, match="no table of metrics"):
        rejudge.rejudged(card.replace(table, ""), table)
