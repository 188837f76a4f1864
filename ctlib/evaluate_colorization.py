"""Is a colored picture near its original, and is it nearer than leaving it gray?

The gray copy, which keeps the true lightness, stands in every table: a colorizer below it does harm on average. Its
counterpart is the truth itself. Pictures that were trained on are left out by the hash of their file.

Taught in: notebooks/41_classification_colorization.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctlib import check, chroma, color, colorizers, hints, images, metrics
from ctlib.data import photos, splits
from ctlib.data.coco import is_gray
from ctlib.data.pairs import PARTS
from ctlib.data.registry import DataError
from ctlib.models.zhang2017 import Zhang2017
from ctlib.settings import names, whole

COLUMNS = ("psnr", "psnr_missing_root", "ssim", "ab_rmse", "ciede2000", "colorfulness", "colorfulness_abs")
BASELINES = ("gray", "truth")
LEAST = 11  # pixels a side that SSIM looks at

Colorize = Callable[[Tensor], Tensor]  # sRGB (1, 3, H, W), of which only the lightness counts, to sRGB of that size
Measure = Callable[[Tensor, Tensor], Tensor]  # result and truth to (1,)


class Case(NamedTuple):
    """One photograph: where it is from, its name, its pixels `(1, 3, H, W)` sRGB in [0, 1], its file's SHA-256."""

    set: str
    name: str
    truth: Tensor
    sha256: str


def cases(
    sets: Sequence[str] = ("photos",), long_side: int = 256, *, part: str = "test", limit: int | None = None
) -> list[Case]:
    """Photographs in color to be colored anew.

    Args:
        sets: `"photos"`, those that come with the packages, which nothing here is trained on and all of which are
            taken; or folders in `$CTLIB_DATA` (their `images` if there is one).
        long_side: pixels; larger pictures are scaled down to it.
        part: of a folder, by the hash of the file: `"test"`, `"val"` or `"train"`, as trainings divide them, or
            `"all"`.
        limit: at most so many of each set, spread evenly over it.

    Raises:
        ValueError: an unknown part, or a limit below 1. DataError: a folder without pictures in color.
    """
    if part not in PARTS:
        raise ValueError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
    if limit is not None:
        whole("limit", limit, 1)
    found = []
    for name in names("sets", sets):
        files = list(photos.files(name).values())
        hashes = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        if name != "photos" and part != "all":
            mine = set(splits.split(dict.fromkeys(hashes.values()))[part])
            files = [path for path in files if hashes[path] in mine]
        step = 1 if limit is None else max(1, len(files) / limit)
        chosen = [files[int(number * step)] for number in range(min(len(files), limit or len(files)))]
        kept = [
            Case(name, path.stem, images.to_tensor(images.resize(picture, long_side)), hashes[path])
            for path in chosen
            if not is_gray(picture := images.read(path))
        ]
        if not kept:
            raise DataError(f"{name}: no picture in color falls into {part!r}; add pictures, or take part='all'")
        found += kept
    return found


def folder_cases(source: Path | str, long_side: int = 256) -> tuple[list[Case], dict[Path, str]]:
    """All photographs in color of any folder and the folders in it, and why the other files were left out.

    Args:
        source: the folder. long_side: as in `cases`.

    Returns:
        The cases, whose set is the folder's name; file to reason, of what cannot be read, is gray or too small.

    Raises:
        ValueError: no such folder, or no photograph in color in it.
    """
    source, found, skipped = Path(source), [], {}
    if not source.is_dir():
        raise ValueError(f"{source}: no such folder")
    for path in colorizers.pictures(source):
        try:
            picture = images.read(path)
        except images.ImageReadError as error:
            skipped[path] = str(error).removeprefix(f"{path}: ")
            continue
        truth = images.to_tensor(images.resize(picture, long_side))
        if min(truth.shape[2:]) < LEAST or is_gray(picture):
            small = min(truth.shape[2:]) < LEAST
            least = f"less than {LEAST} pixels a side where the longer one has at most {long_side}"
            skipped[path] = least if small else "gray: there is no color to compare with"
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(Case(source.resolve().name, path.relative_to(source).as_posix(), truth, digest))
    if not found:
        reasons = "; ".join(f"{path.name}: {reason}" for path, reason in list(skipped.items())[:3])
        raise ValueError(f"{source}: holds no photograph in color ({reasons or 'no pictures'})")
    return found, skipped


def evaluate_files(
    source: Path | str,
    chosen: Sequence[str] | str = ("zhang2016", "zhang2017", "unet"),
    *,
    long_side: int = 256,
    wanted: Sequence[str] = COLUMNS,
    also: Mapping[str, Measure] | None = None,
) -> tuple[list[dict], dict[Path, str]]:
    """Color the photographs of any folder from their lightness, and measure how near that is to what they were.

    Args:
        source, long_side: of `folder_cases`.
        chosen: names in `ctlib.colorizers.COLORIZERS`, of those that need no reference.
        wanted, also: of `judge`.

    Returns:
        Rows of `judge`, the gray copy's and the truth's among them; file to reason, of what was left out.

    Raises:
        ValueError: an unknown colorizer, one that needs a reference, or no photograph in color.
        CheckpointError: weights that are not here and cannot be had.
    """
    given = {}
    for name in names("chosen", chosen):
        if "reference" in colorizers.get(name).options:
            raise ValueError(f"{name} takes its colors from a reference; see ctlib.evaluate_exemplars")
        if name not in BASELINES:
            given[name] = partial(colorizers.colorize, name)
    found, skipped = folder_cases(source, long_side)
    return judge(given, found, wanted=wanted, also=also), skipped


def gray(rgb: Tensor) -> Tensor:
    """The gray copy: the lightness of `(B, 3, H, W)` sRGB, and no color."""
    return chroma.join(chroma.lightness(rgb), rgb.new_zeros(len(rgb), 2, 1, 1))


def judge(
    colorizers: Mapping[str, Colorize],
    given: Iterable[Case],
    *,
    wanted: Sequence[str] = COLUMNS,
    also: Mapping[str, Measure] | None = None,
) -> list[dict]:
    """Color every picture by every colorizer and measure the results, 8 bits a channel.

    Args:
        colorizers: name to function. `gray` and `truth` are added.
        given: see `cases`.
        wanted: names in `ctlib.metrics.METRICS`.
        also: name of a column to a measure that is not among those, e.g. LPIPS with a trunk from elsewhere.

    Returns:
        One row for each method and picture: `set`, `case`, `method`, the columns.

    Raises:
        ValueError: a colorizer is named as a baseline, or returns another size.
    """
    if taken := set(BASELINES) & set(colorizers):
        raise ValueError(f"colorizers: {taken.pop()!r} is a baseline that is always measured; choose another name")
    every = {"gray": gray} | dict(colorizers) | {"truth": lambda rgb: rgb}
    rows = []
    for case in given:
        for name, colorize in every.items():
            with torch.no_grad():
                result = colorize(case.truth)
            check.same_shape(result, case.truth, f"{name} and truth")
            result = images.to_tensor(images.to_uint8(result))
            numbers = metrics.evaluate(result, truth=case.truth, metrics=wanted)
            numbers |= {column: measure(result, case.truth).item() for column, measure in (also or {}).items()}
            rows.append({"set": case.set, "case": case.name, "method": name, **numbers})
    return rows


def by_hints(network: Zhang2017, given: Iterable[Case], counts: Sequence[int], *, seeds: int = 1) -> list[dict]:
    """PSNR by the number of hints, as the authors of Zhang 2017 measure it: patches of 6 x 6 pixels of the truth.

    Args:
        network: with local hints, in evaluation mode.
        given: see `cases`; they are brought to about 256 x 256 pixels.
        counts: numbers of hints.
        seeds: draws of their places, the same for every network.

    Returns:
        One row for each picture, count and draw: `set`, `case`, `count`, `seed`; `psnr`, with `ctlib.hints.spread` as
        `Zhang2017.colorize` has it; `psnr_alone`, of the network alone; `psnr_spread`, of hints spread over gray
        without any network.

    Raises:
        ValueError: no counts, one below 0, or less than one draw.
    """
    if not counts:
        raise ValueError("counts: name at least one number of hints, e.g. [0, 10]")
    whole("seeds", seeds, 1)
    place = next(network.parameters()).device
    rows, draws = [], [(count, seed) for count in counts for seed in range(seeds if count else 1)]
    for case in given:
        truth = chroma.resize(case.truth, chroma.network_size(*case.truth.shape[2:], 256)).clamp(0, 1)
        lab = color.rgb_to_lab(truth.to(place))
        for count, seed in draws:
            with torch.no_grad():
                known = hints.fixed(lab[:, 1:], count, [seed])
                ab = network.ab(lab[:, :1], known)
                made = {
                    "psnr": hints.spread(lab[:, :1], ab, known),
                    "psnr_alone": ab,
                    "psnr_spread": hints.spread(lab[:, :1], 0 * ab, known),
                }
            row = {"set": case.set, "case": case.name, "count": count, "seed": seed}
            for column, ab in made.items():
                result = images.to_tensor(images.to_uint8(chroma.shown(lab[:, :1], ab)))
                row[column] = metrics.psnr(result, truth).item()
            rows.append(row)
    return rows


def summary(rows: Sequence[dict], of: str | None = None, by: Sequence[str] = ("method",)) -> list[dict]:
    """Means over pictures, one row a method, in the order in which methods first come.

    Args:
        rows: see `judge`; read from a result file, in which what is infinite is a blank, too.
        of: one set only; all by default.
        by: columns of names that make a row.

    Returns:
        Rows of these columns and means of the others. PSNR is the mean of the pictures' dB; of the truth it is
        infinite, or NaN if read.

    Raises:
        ValueError: no rows of such a set.
    """
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        if of is None or row["set"] == of:
            found.setdefault(tuple(row[key] for key in by), []).append(row)
    if not found:
        raise ValueError(f"of: no rows of a set {of!r}")
    columns = [key for key in rows[0] if key not in ("set", "case", *by)]
    return [
        dict(zip(by, names, strict=True))
        | {column: float(np.array([row[column] for row in group], float).mean()) for column in columns}
        for names, group in found.items()
    ]
