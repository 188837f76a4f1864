"""What is shipped in data/pretrained: small, whole, described, and what the registry of methods asks for."""

import re

import pytest

from ctlib import checkpoints, methods
from ctlib.models.histogram_analogy import HistogramAnalogy

FOLDERS = sorted(path.parent for path in checkpoints.SHIPPED.glob(f"*/{checkpoints.WEIGHTS}"))


def test_all_of_it_stays_small():
    assert FOLDERS
    assert sum(path.stat().st_size for path in checkpoints.SHIPPED.rglob("*.safetensors")) <= 25e6


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_weights_fit_their_card(folder):
    network = HistogramAnalogy.from_pretrained(folder.name)  # holds the file against SHA256SUMS
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and f"# {folder.name}\n" in card
    count = sum(weight.numel() for weight in network.parameters())
    assert f"| {count:,}, stored in float16 |" in card
    for row in ("Network", "Recipe", "Training", "Data", "Never seen"):
        assert re.search(rf"^\| \*\*{row}\*\* \| \S", card, re.MULTILINE), f"no {row}"
    assert re.search(r"steps of \d+ pairs, \d+ x \d+ pixels each; [\d,]+ s on \w+", card)
    assert "PSNR" in card and "**License.**" in card
    (manifest,) = set(re.findall(r"\((\.\./photographs-\w+\.csv)\)", card))
    lines = (folder / manifest).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "file,sha256" and f"{len(lines) - 1:,} photographs" in card
    assert all(re.fullmatch(r"[^,]+,[0-9a-f]{64}", line) for line in lines[1:])
    assert not any(re.search(r"fivek|dpst|kodak", line) for line in lines), "these are for evaluation only"


def test_the_learned_methods_are_shipped():
    wanted = {method.run.args[0] for method in methods.METHODS.values() if method.run}
    assert wanted <= {folder.name for folder in FOLDERS}
