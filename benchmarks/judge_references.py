"""Does it help to look for a reference among pictures of the same class? Outdoor scenes in seven classes, by folder.

    CTLIB_DATA=<folder with scenes256/> python benchmarks/judge_references.py    # a few minutes

Each picture is made gray and colored after references chosen by the rules of `ctlib.data.references.picks`, by Welsh's
method, which looks for pixels of like lightness and texture, and by the mean color of the reference alone (Reinhard on
a and b). The result, `judge_references.json`, goes to `_build/lab/results`; a reviewed copy is the record in
`book/results`, which notebooks/04_find_references shows.
"""

import argparse

import numpy as np

from ctlib import evaluate, images, metrics, results
from ctlib.data import photos, references
from ctlib.data.coco import is_gray
from ctlib.evaluate_colorization import gray
from ctlib.exemplars.moments import reinhard_ab
from ctlib.exemplars.welsh import welsh

METHODS = {"welsh": welsh, "reinhard_ab": reinhard_ab}
MEASURES = ("psnr", "ciede2000", "ab_rmse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", default="scenes256", help="folder in CTLIB_DATA with a folder for each class")
    parser.add_argument("--most", type=int, default=20, help="pictures of each class, spread evenly over it")
    parser.add_argument("--long-side", type=int, default=192, help="pixels")
    parser.add_argument("--seed", type=int, default=0, help="of palettes and draws")
    options = parser.parse_args()
    run = results.start("judge_references", set=options.set, most=options.most, long_side=options.long_side,
                        seed=options.seed)  # fmt: skip
    classes = {}
    for name, path in photos.files(options.set).items():
        classes.setdefault(name.rpartition("/")[0], []).append(path)
    pool = []
    for own, paths in classes.items():
        step = max(1, len(paths) / options.most)
        chosen = [images.read(paths[int(number * step)]) for number in range(min(options.most, len(paths)))]
        pool += [(own, images.resize(picture, options.long_side)) for picture in chosen if not is_gray(picture)]
    labels, pictures = zip(*pool, strict=True)
    tensors = [images.to_tensor(picture) for picture in pictures]
    table = references.distances([references.signature(picture, seed=options.seed) for picture in pictures])
    rows = []
    for rule, chosen in references.picks(table, labels, options.seed).items():
        for number, other in enumerate(chosen.tolist()):
            if other < 0:
                continue
            truth, row = tensors[number], {"case": f"{labels[number]} {number}", "rule": rule}
            row |= {"palette_emd": table[number, other], "same_class": labels[number] == labels[other]}
            for method, color in METHODS.items():
                judged = metrics.evaluate(color(gray(truth), tensors[other]), truth=truth, metrics=MEASURES)
                rows.append(row | {"method": method, **judged})
    for number, truth in enumerate(tensors):
        judged = metrics.evaluate(gray(truth), truth=truth, metrics=MEASURES)
        rows.append({"case": f"{labels[number]} {number}", "rule": "no reference", "method": "gray", **judged})
    same = np.equal.outer(labels, labels) & ~np.eye(len(labels), dtype=bool)
    apart = {"same class": table[same].mean(), "other class": table[~np.equal.outer(labels, labels)].mean()}
    data = evaluate.fingerprints(
        evaluate.Case(f"{labels[number]} {number}", "unpaired", one, one, None) for number, one in enumerate(tensors)
    )
    print(run.write(rows, data=data, palette_emd=apart, classes={name: labels.count(name) for name in classes}))
    print(apart)
    for method, rule in dict.fromkeys((row["method"], row["rule"]) for row in rows):
        part = [row for row in rows if (row["method"], row["rule"]) == (method, rule)]
        print(f"{method:12} {rule:22}", *(f"{name} {np.mean([row[name] for row in part]):7.3f}" for name in MEASURES))


if __name__ == "__main__":
    main()
