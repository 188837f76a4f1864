"""Judge palette methods on paintings that no shipped network has seen: a record for chapter 31.

    CTLIB_DATA=<folder with wikiart7/ and art_pd/> python benchmarks/judge_palettes.py --continued FOLDER

FOLDER holds a second stage without the adversary, to be compared with the shipped one, alike in all else that its card
says: `ctlib train palettenet FOLDER -p begin=palettenet-film-6-tiny -p adversary=false ...`. The result,
`judge_palettes.json`, goes to `_build/lab/results`; a reviewed copy is the record in `book/results`, and
`tools/ship.py --rejudge` brings its numbers to the cards. Twenty minutes on one core.
"""

import argparse
import hashlib

from ctlib import evaluate_palettes, images, paths, results
from ctlib.data.coco import is_gray
from ctlib.data.registry import IMAGES
from ctlib.models.palettenet import PaletteNet

BESIDE = ["identity", "reinhard_lab", "chang", "chang_demo", "chang_bz"]
SIX = ["palettenet_instance", "palettenet", "palettenet_adversarial"]
FOUR = ["palettenet_4"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["wikiart7", "art_pd"], help="folders of paintings in $CTLIB_DATA")
    parser.add_argument("--limit", type=int, default=12, help="paintings of each folder in a set, the first ones")
    parser.add_argument("--long-side", type=int, default=512, help="pixels; smaller paintings stay as they are")
    parser.add_argument("--continued", help="weights of a second stage without the adversary")
    chosen = parser.parse_args()
    run = results.start("judge_palettes", sets=chosen.sets, limit=chosen.limit, long_side=chosen.long_side)
    commit = results.provenance()["commit"]
    folders = {}
    for name in chosen.sets:
        for path in sorted((paths.data_dir() / name / "images").rglob("*")):
            if path.suffix.lower() in IMAGES:
                folders.setdefault(path.parent, []).append(path)
    files = [path for group in folders.values() for path in group[: chosen.limit]]
    if not files:
        parser.error(f"no paintings in {', '.join(chosen.sets)}; set CTLIB_DATA")
    pictures = {}
    for path in files:
        picture = images.resize(images.read(path), chosen.long_side)
        if not is_gray(picture):
            pictures[path.relative_to(paths.data_dir()).as_posix()] = picture

    methods = {name: evaluate_palettes.recolor_by(name) for name in (*BESIDE, *SIX, *FOUR)}
    six = {"oracle": None} | {name: methods[name] for name in (*BESIDE, *SIX)}
    if chosen.continued:
        six["euclidean, continued"] = evaluate_palettes.recolor_by(PaletteNet.from_pretrained(chosen.continued))
    four = {name: methods[name] for name in (*BESIDE, *FOUR)}
    rows = evaluate_palettes.judge(
        six, [case for case in evaluate_palettes.cases(pictures, 6) if case.kind != "report"]
    )
    rows += evaluate_palettes.judge(four, [c for c in evaluate_palettes.cases(pictures, 4) if c.kind == "report"])
    manifest = {name: hashlib.sha256((paths.data_dir() / name).read_bytes()).hexdigest() for name in pictures}
    print(run.write([row | {"commit": commit} for row in rows], data=manifest))
    for kind in ("hue", "other", "report"):
        print(f"\n{kind}")
        for row in evaluate_palettes.summary(rows, kind):
            numbers = (f"{row[column]:20.3f}" for column in evaluate_palettes.COLUMNS if column in row)
            print(f"{row['method']:24}", *numbers)


if __name__ == "__main__":
    main()
