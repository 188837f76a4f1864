r"""The cases on which methods are compared, and the one loop that judges them.

Three kinds of case, because a paired test alone flatters: its reference *is* the answer, so every statistic that a
method reads is the answer's own.

- `paired`: the source is recolored towards the retouched source. Truth = reference.
- `same edit`: the reference is *another* photograph with the same retouching. Truth = the retouched source.
- `unpaired`: the reference is simply another photograph. There is no truth.

Taught in: notebooks/70_compare.
"""

import hashlib
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ctlib import images, methods, metrics, paths, regionwise, segment
from ctlib.data import augment, camvid, coco, fivek, photos, splits
from ctlib.data.registry import DataError


class Case(NamedTuple):
    """One test: pictures are `(1, 3, H, W)` sRGB in [0, 1]; `truth` is `None` where nobody knows the answer."""

    name: str
    kind: str
    source: Tensor
    reference: Tensor
    truth: Tensor | None


def photo_cases(long_side: int = 256, seed: int = 0, names: Sequence[str] | None = None) -> list[Case]:
    """Cases of all three kinds from the bundled photographs.

    Args:
        long_side: pixels; the photographs are scaled down to it.
        seed: of the retouching.
        names: which photographs; all by default. The reference of each is the next in the list.
    """
    names = _at_least_two(list(names or photos.names()))
    cases = []
    for i, name in enumerate(names):
        source = photos.tensor(name, long_side)
        other = photos.tensor(names[(i + 1) % len(names)], long_side)
        # one generator state for both pictures: the same edit on the source and on the other photograph
        edited, other_edited = (
            augment.retouch(picture, torch.Generator().manual_seed(1000 * seed + i), strength=1.5)
            for picture in (source, other)
        )
        # a picture is a file of 8 bits a channel before anybody measures it
        edited, other_edited = (images.to_tensor(images.to_uint8(one)) for one in (edited, other_edited))
        cases += [
            Case(name, "paired", source, edited, edited),
            Case(name, "same edit", source, other_edited, edited),
            Case(name, "unpaired", source, other, None),
        ]
    return cases


def _at_least_two(names: list[str]) -> list[str]:
    if len(names) < 2:
        raise ValueError(f"names: at least two photographs are needed, the reference is another one; got {names}")
    return names


def fivek_cases(long_side: int = 256, limit: int = 100, held_out: bool = False) -> list[Case]:
    """Cases of all three kinds from MIT-Adobe FiveK: the raw rendition is the source, expert C's the truth.

    Here "same edit" means the same editor: expert C's version of another photograph.

    Args:
        long_side: pixels; the photographs are scaled down to it.
        limit: at most so many photographs, the first ones; 100 at 512 pixels hold 1 GB of memory.
        held_out: only photographs that `ctlib.recipes.histogram_analogy.renditions` does not train on.

    Raises:
        DataError: FiveK is not in the data folder; the message says how to get it.
        ValueError: fewer than two photographs.
    """
    dataset = fivek.FiveK(renditions=("raw", "c"))
    # of those with all renditions, as the training counts them
    ids = splits.every_fifth(fivek.FiveK().ids)["val"] if held_out else dataset.ids
    ids = _at_least_two(ids[:limit])

    def pictures(key: str) -> tuple[Tensor, Tensor]:
        pair = dataset.pair(key, "raw", "c")
        return tuple(images.to_tensor(images.resize(pair[side], long_side)) for side in ("source", "reference"))

    cases = []
    for i, key in enumerate(ids):
        (source, truth), (other, other_edited) = pictures(key), pictures(ids[(i + 1) % len(ids)])
        cases += [
            Case(key, "paired", source, truth, truth),
            Case(key, "same edit", source, other_edited, truth),
            Case(key, "unpaired", source, other, None),
        ]
    return cases


def folder_cases(dataset: str, long_side: int = 256) -> list[Case]:
    """Unpaired cases from a folder of inputs and styles: `input/inNN.jpg` goes with `style/tarNN.jpg`.

    That is how the examples of Deep Photo Style Transfer (Luan et al. 2017) lie on disk.

    Args:
        dataset: name of a folder in the data folder, e.g. `"dpst"`.
        long_side: pixels; the photographs are scaled down to it.

    Raises:
        DataError: no such pairs there.
    """
    folder = paths.data_dir() / dataset
    cases = []
    for path in sorted((folder / "input").glob("in*.jpg")):
        style = folder / "style" / path.name.replace("in", "tar", 1)
        if style.is_file():
            source, reference = (images.to_tensor(images.resize(images.read(one), long_side)) for one in (path, style))
            cases.append(Case(path.stem, "unpaired", source, reference, None))
    if not cases:
        raise DataError(f"{dataset}: no input/inNN.jpg with style/tarNN.jpg in {folder}; set CTLIB_DATA")
    return cases


Labelled = tuple[Case, tuple[Tensor, Tensor]]  # a case and the label maps of its pictures, see `ctlib.segment.match`


def labelled_cases(dataset: str, long_side: int = 256, limit: int = 40) -> list[Labelled]:
    """Unpaired cases with regions that people drew.

    Args:
        dataset: `"dpst"`, the pairs of `folder_cases`, whose regions are `segmentation/inNN.png` and `tarNN.png`, equal
            colors partners; `"camvid"`, streets at dusk towards streets by day, of the test split; or `"coco"`, each
            picture with the next one that shows two things or more of the same kind, see `ctlib.data.coco.labelled`.
        long_side: pixels; the photographs are scaled down to it.
        limit: at most so many, the first ones.

    Raises:
        ValueError: unknown name. DataError: no such pairs there, or one without its regions.
    """
    readers = {"dpst": _dpst_labelled, "camvid": _camvid_labelled, "coco": _coco_labelled}
    if dataset not in readers:
        raise ValueError(f"unknown dataset {dataset!r}; with regions that people drew: {', '.join(readers)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the maps are larger than the pictures here, and dpst's went through JPEG
        return readers[dataset](long_side, limit)


def _dpst_labelled(long_side: int, limit: int) -> list[Labelled]:
    folder, cases = paths.data_dir() / "dpst" / "segmentation", []
    for case in folder_cases("dpst", long_side)[:limit]:
        files = [folder / f"{case.name.replace('in', side, 1)}.png" for side in ("in", "tar")]
        if missing := [path for path in files if not path.is_file()]:
            raise DataError(f"dpst: {missing[0].name} is missing in {folder}; fetch the data set again")
        colors = segment.label_colors(*files)
        sides = zip(files, (case.source, case.reference), strict=True)
        regions = [segment.given(path, rgb.shape[2:], colors=colors) for path, rgb in sides]
        cases.append(_labelled(case, *regions))
    return cases


def _camvid_labelled(long_side: int, limit: int) -> list[Labelled]:
    names = [segment.UNLABELED if name == "Unlabelled" else name for name in camvid.CLASSES]
    dusk, day = (camvid.CamVid(split="test", sequences=(film,)) for film in ("0001TP", "Seq05VD"))
    cases = []
    for number in range(min(limit, len(dusk), len(day))):
        items = dusk[number], day[number]
        pictures = [images.to_tensor(images.resize(item["image"], long_side)) for item in items]
        regions = [
            segment.given(item["labels"], rgb.shape[2:], names=names) for item, rgb in zip(items, pictures, strict=True)
        ]
        cases.append(_labelled(Case(items[0]["name"], "unpaired", *pictures, None), *regions))
    return cases


def _coco_labelled(long_side: int, limit: int) -> list[Labelled]:
    cases, waiting = [], []
    for name, image, labels, names in coco.labelled():
        if len(cases) == limit:
            break
        shown = set(np.unique(labels).tolist()) - {0}
        partner = next((other for other in waiting if len(shown & other[1]) >= 2), None)
        rgb = images.to_tensor(images.resize(image, long_side))
        regions = segment.given(labels, rgb.shape[2:], names=names)
        if partner is None:
            waiting.append((name, shown, rgb, regions))
            continue
        waiting.remove(partner)
        first, _, source, own = partner
        cases.append(_labelled(Case(first, "unpaired", source, rgb, None), own, regions))
    if not cases:
        raise DataError("coco: no two pictures show two things of the same kinds; fetch more of it")
    return cases


def _labelled(case: Case, source: segment.Regions, reference: segment.Regions) -> Labelled:
    regions = segment.drop_small(source), segment.drop_small(reference)
    return case, segment.match(*regions, case.source, case.reference)


def cases_of(dataset: str, long_side: int, seed: int = 0, held_out: bool = False) -> list[Case]:
    """Cases by name: `"photos"`, the bundled photographs with seeded retouching, or `"fivek"`, see `fivek_cases`.

    Raises:
        ValueError: unknown name, or fewer than two photographs.
    """
    if dataset == "photos":
        return photo_cases(long_side, seed)
    if dataset == "fivek":
        return fivek_cases(long_side, held_out=held_out)
    raise ValueError(f"unknown dataset {dataset!r}; known: photos, fivek")


def manifest(dataset: str, cases: Sequence[Case]) -> dict[str, str]:
    """sha256 of every file behind the cases of a dataset, for the result file."""
    names = list(dict.fromkeys(case.name for case in cases))
    if dataset == "photos":
        return photos.manifest(names)
    files = fivek.FiveK(renditions=("raw", "c")).files
    return {
        f"{name}/{side}": hashlib.sha256(files[name][side].read_bytes()).hexdigest()
        for name in names
        for side in ("raw", "c")
    }


def fingerprints(cases: Iterable[Case]) -> dict[str, str]:
    """sha256 of the 8-bit pixels of source and reference as the methods see them, for files that have no manifest."""
    return {
        f"{case.name}/{side}": hashlib.sha256(images.to_uint8(picture).tobytes()).hexdigest()
        for case in cases
        for side, picture in (("source", case.source), ("reference", case.reference))
    }


def recolor(method: str, case: Case) -> Tensor:
    """Result of a method on a case, 8 bits a channel, `(1, 3, H, W)`; `"oracle"` answers with the truth."""
    if method == "oracle":
        return case.truth
    source, reference = images.to_uint8(case.source), images.to_uint8(case.reference)
    return images.to_tensor(methods.recolor_uint8(method, source, reference))


def judge(names: Iterable[str], cases: Sequence[Case], wanted: Sequence[str] | None = None) -> list[dict]:
    """Run methods on cases and measure every result.

    Args:
        names: keys of `methods.METHODS`, or `"oracle"`, which is skipped where there is no truth.
        cases: see `photo_cases`.
        wanted: keys of `metrics.METRICS`; `None` for all that the pictures of a case allow.

    Returns:
        One row for each method and case: `case`, `kind`, `method`, the metrics, `seconds` of recoloring.
    """
    rows = []
    for name in names:
        for case in cases:
            if name == "oracle" and case.truth is None:
                continue
            began = time.perf_counter()
            result = recolor(name, case)
            seconds = time.perf_counter() - began
            with warnings.catch_warnings():
                # LPIPS without its weights warns; here its column says so by staying blank
                warnings.simplefilter("ignore")
                measured = metrics.evaluate(result, case.source, case.reference, case.truth, metrics=wanted)
            rows.append({"case": case.name, "kind": case.kind, "method": name, **measured, "seconds": seconds})
    return rows


REGIONAL = ("regions_ab", "hellinger_ab", "edge_ssim")  # what `judge_regions` measures


def judge_regions(names: Iterable[str], cases: Iterable[Labelled]) -> list[dict]:
    """Run methods with and without regions.

    Args:
        names: keys of `methods.METHODS`.
        cases: with their label maps, see `labelled_cases` and `ctlib.segment.match`; some label must be shared.

    Returns:
        Two rows for each method and case, of the kinds `"whole"` and `"regions"`: `case`, `kind`, `method`,
        `regions_ab` (`ctlib.regionwise.distance`), `hellinger_ab`, `edge_ssim`.
    """
    rows = []
    for case, labels in cases:
        for name in names:
            for kind, option in (("whole", None), ("regions", labels)):
                result = methods.recolor(name, case.source, case.reference, labels=option)
                near = regionwise.distance(result, case.reference, labels)
                judged = metrics.evaluate(result, case.source, case.reference, metrics=list(REGIONAL[1:]))
                rows.append({"case": case.name, "kind": kind, "method": name, "regions_ab": near, **judged})
    return rows


def summary(rows: Iterable[dict], kind: str, columns: Sequence[str]) -> list[dict]:
    """Mean over the cases of one kind, one row a method in the order of `rows`; an infinite PSNR stays infinite."""
    frame = pd.DataFrame([row for row in rows if row["kind"] == kind]).replace("inf", float("inf"))
    if frame.empty:
        raise ValueError(f"no rows of kind {kind!r}")
    means = frame.groupby("method", sort=False)[list(columns)].agg(lambda values: pd.to_numeric(values).mean())
    return means.reset_index().to_dict("records")
