"""How near is a picture, colored after a reference, to its original? That depends on the reference, so there are three.

- `nearest`: of the pictures that share a class with it, the one whose palette is closest, which is how exemplar
  colorization picks its references (see `ctlib.data.references`);
- `unrelated`: of those that share none, one whose palette is far off. A method that trusts its reference blindly comes
  out below one that was given none. It is drawn from the farthest fifth, as one odd picture is the farthest from most;
- `self`: the picture itself, whose colors are the answer. No user has that reference; it says what can be reached.

Pictures and references are held back from trainings by the hash of their file, as in `ctlib.evaluate_colorization`: the
pictures are of one part, the references of all parts that are held back.

Taught in: notebooks/51_exemplar_colorization, notebooks/61_ablate_adain.
"""

import csv
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ctlib import check, chroma, images, metrics, paths
from ctlib import evaluate_colorization as plain
from ctlib.data import camvid, coco, references, splits
from ctlib.data.registry import DataError
from ctlib.exemplars.chain import ALL, KNOWN, Exemplar, sample
from ctlib.models.stylization import scaled
from ctlib.segment.regions import resized
from ctlib.settings import whole

KINDS = ("nearest", "unrelated", "self")
NONE = "none"  # the kind of a method that looks at no reference
COLUMNS = ("psnr", "ssim", "ab_rmse", "ciede2000", "colorfulness")
HELD_BACK = ("test", "val")
_CLASSES = ("category", "detection_classes")  # columns of an index.csv
_DRAW = 61  # another draw than that of the parts, in which all pictures of one fall at the same place

Alone = Callable[[Tensor], Tensor]  # sRGB (1, 3, H, W), of which only the lightness counts, to sRGB of that size
After = Callable[[Tensor, Tensor], Tensor]  # the same and a reference (1, 3, h, w)
Guided = Callable[[Tensor, Tensor, tuple[Tensor, Tensor]], Tensor]  # the same and labels of both, (H, W) and (h, w)


class Picture(NamedTuple):
    """Its name, its pixels `(1, 3, H, W)` sRGB in [0, 1], its file's SHA-256, labels `(H, W)` int64 or None."""

    name: str
    rgb: Tensor
    sha256: str
    labels: Tensor | None = None


class Case(NamedTuple):
    """A picture to be colored anew, and its references by kind."""

    set: str
    truth: Picture
    references: dict[str, Picture]

    @property
    def name(self) -> str:
        return self.truth.name


def cases(
    sets: Sequence[str] = ("photos",),
    long_side: int = 256,
    *,
    part: str = "test",
    pool: Sequence[str] = HELD_BACK,
    limit: int | None = None,
    kind: references.Kind = "palette_emd",
    labels: bool = False,
) -> list[Case]:
    """Photographs in color with references from the same set.

    Which pictures share a class says the set's `index.csv` (`category`, or `detection_classes` parted by `|`). Where
    none does, nearest and farthest are of all others.

    Args:
        sets: `"photos"`, those that come with the packages, all of them; or folders in `$CTLIB_DATA`.
        long_side: pixels; larger pictures are scaled down to it.
        part: of a folder, see `ctlib.evaluate_colorization.cases`: what is colored.
        pool: parts in which references are looked for; those of `part` are always among them.
        limit: at most so many of each set, spread evenly over it.
        kind: of the distance, see `ctlib.data.references.distance`.
        labels: whether pictures come with their label maps, those of COCO that have one; what has no label is -1.

    Raises:
        ValueError: an unknown part or kind. DataError: fewer than two photographs in color, or no label maps.
    """
    if limit is not None:
        whole("limit", limit, 1)
    found = []
    for name in sets:
        maps = _maps(name) if labels else None
        asked = plain.cases([name], long_side, part=part)
        asked = _labelled(list({one.sha256: one for one in asked}.values()), maps)  # each once, whatever its copies
        if not asked:
            raise DataError(f"{name}: no picture of {part!r} has a label map; take labels=False, or another part")
        known = {one.sha256: one for one in asked}
        if name != "photos" and part != "all":
            for other in pool:
                known |= {one.sha256: one for one in _labelled(_of(name, long_side, other), maps)}
        if len(known) < 2:
            raise DataError(f"{name}: a reference is another picture, and there are {len(known)}; add pictures")
        classes = classes_of(name)
        lenders = [Picture(one.name, one.truth, one.sha256, _fitted(maps, one)) for one in known.values()]
        signatures = [references.signature(one.rgb) for one in lenders]
        for place in _spread(len(asked), limit):  # they are the first in the pool
            mine = classes.get(asked[place].name, frozenset())
            shares = np.array([bool(mine & classes.get(one.name, frozenset())) for one in lenders])
            found.append(_case(name, place, lenders, signatures, shares if mine else None, kind))
    return found


def _maps(folder: str) -> dict[str, np.ndarray]:
    """Of each picture of COCO its labels, 0 where there is none."""
    if folder != "coco":
        raise DataError(f"labels: {folder} has no label maps; take coco, or street_cases for CamVid")
    return {name: labels for name, _, labels, _ in coco.labelled()}


def _labelled(found: list[plain.Case], maps: dict[str, np.ndarray] | None) -> list[plain.Case]:
    """Those that have a map; all where none is asked for."""
    return [one for one in found if maps is None or one.name in maps]


def _fitted(maps: dict[str, np.ndarray] | None, one: plain.Case) -> Tensor | None:
    """The labels of a picture at its size, -1 where there is none."""
    if maps is None:
        return None
    found = torch.from_numpy(maps[one.name].astype(np.int64))
    return resized(found.masked_fill(found == 0, -1), tuple(one.truth.shape[2:]))


def _of(name: str, long_side: int, part: str) -> list[plain.Case]:
    """Pictures of a part, or none where it is empty."""
    try:
        return plain.cases([name], long_side, part=part)
    except DataError:
        return []


def _spread(count: int, limit: int | None) -> list[int]:
    limit = min(count, limit or count)
    return [number * count // limit for number in range(limit)]


def _case(name: str, own: int, lenders: list[Picture], signatures: list, shares: np.ndarray | None, kind: str) -> Case:
    """The case of the picture at `own`; `shares` tells with whom it shares a class, None where none are known."""
    others = references.rank(signatures[own], signatures, kind)
    others = others[[lenders[place].sha256 != lenders[own].sha256 for place in others]]
    if not len(others):
        raise DataError(f"{name}: a reference is another picture, and all are copies of one; add pictures")
    related = strange = others
    if shares is not None and shares[others].any():
        related = others[shares[others]]
    if shares is not None and not shares[others].all():
        strange = others[~shares[others]]
    far = strange[-max(1, len(strange) // 5) :]
    drawn = far[int(splits.place(lenders[own].sha256, seed=_DRAW) * len(far))]
    chosen = {"nearest": lenders[related[0]], "unrelated": lenders[drawn], "self": lenders[own]}
    return Case(name, lenders[own], chosen)


def classes_of(folder: str) -> dict[str, frozenset[str]]:
    """Of each picture of a set, by its file's stem, the classes that its `index.csv` tells; empty where it tells none.

    Of the official layout of COCO its annotations tell them.

    Raises:
        DataError: the index names no files.
    """
    if folder.startswith("coco/"):
        return coco.Coco(split=folder.removeprefix("coco/").partition(":")[0]).classes()
    file = paths.data_dir() / folder / "index.csv"
    if folder == "photos" or not file.is_file():
        return {}
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    column = next((name for name in _CLASSES if rows and name in rows[0]), None)
    if column is None:
        return {}
    if "file" not in rows[0]:
        raise DataError(f"{folder}: {file} has no column `file`; name the pictures there")
    return {Path(row["file"]).stem: frozenset(filter(None, row[column].split("|"))) for row in rows}


def street_cases(
    long_side: int = 256,
    *,
    limit: int | None = 12,
    sequences: Sequence[str] = splits.CAMVID_UNSEEN,
    kind: references.Kind = "palette_emd",
) -> list[Case]:
    """Road scenes of CamVid with their label maps, to be colored region by region.

    The frames are of one film, their references of the other films of the test split: none shows the same street.
    Pixels without a label, and those that CamVid calls unlabelled, are -1.

    Args:
        long_side: pixels.
        limit: frames, spread evenly over the film; None for all.
        sequences: films whose frames are colored.
        kind: of the distance, see `ctlib.data.references.distance`.

    Raises:
        DataError: CamVid is not in the data folder, or its test split has no such film, or no other.
    """
    if limit is not None:
        whole("limit", limit, 1)
    frames = camvid.CamVid(split="test", sequences=sequences)
    places = [(frames, place) for place in _spread(len(frames), limit)]
    others = camvid.CamVid(split="test")
    pool = [(others, place) for place, path in enumerate(others.paths) if camvid.sequence(path) not in sequences]
    if not pool:
        raise DataError(f"camvid: all test frames are of {', '.join(sequences)}; references come from other films")
    pictures = [_frame(frames, place, long_side) for frames, place in places + pool]
    signatures = [references.signature(one.rgb) for one in pictures]
    lent, count = slice(len(places), None), len(places)
    return [
        _case("camvid", 0, [pictures[place], *pictures[lent]], [signatures[place], *signatures[lent]], None, kind)
        for place in range(count)
    ]


def _frame(frames: camvid.CamVid, place: int, long_side: int) -> Picture:
    item = frames[place]
    rgb = images.to_tensor(images.resize(item["image"], long_side))
    labels = torch.from_numpy(item["labels"]).long()
    labels = resized(labels.masked_fill(labels == camvid.UNLABELLED, -1), tuple(rgb.shape[2:]))
    return Picture(item["name"], rgb, hashlib.sha256(frames.paths[place].read_bytes()).hexdigest(), labels)


def judge(
    alone: Mapping[str, Alone],
    after: Mapping[str, After],
    given: Iterable[Case],
    *,
    guided: Mapping[str, Guided] | None = None,
    kinds: Sequence[str] = KINDS,
    wanted: Sequence[str] = COLUMNS,
    also: Mapping[str, plain.Measure] | None = None,
) -> list[dict]:
    """Color every picture by every colorizer, after every reference if it looks at one; measured at 8 bits a channel.

    Args:
        alone: name to a function of the picture, see `Alone`. `gray` and `truth` are added.
        after: to one of the picture and a reference, `After`.
        given: see `cases`.
        guided: to one that takes label maps besides, `Guided`; for cases that have them.
        kinds: of references, of those in `KINDS`.
        wanted: names in `ctlib.metrics.METRICS`.
        also: see `ctlib.evaluate_colorization.judge`.

    Returns:
        One row for each picture, method and reference: `set`, `case`, `method`, `kind` (`"none"` of what is alone), the
        columns.

    Raises:
        ValueError: a name twice or that of a baseline, an unknown kind, a case without labels, or a colorizer returns
            another size.
    """
    guided = guided or {}
    names = [*plain.BASELINES, *alone, *after, *guided]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"colorizers: {twice.pop()!r} comes twice, or is a baseline; choose another name")
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"kinds: expected some of {', '.join(KINDS)}, got {unknown.pop()!r}")
    every = {"gray": plain.gray} | dict(alone) | {"truth": lambda rgb: rgb}
    rows = []

    def measured(case: Case, name: str, kind: str, result: Tensor) -> None:
        check.same_shape(result, case.truth.rgb, f"{name} and truth")
        result = images.to_tensor(images.to_uint8(result))
        numbers = metrics.evaluate(result, truth=case.truth.rgb, metrics=wanted)
        numbers |= {column: measure(result, case.truth.rgb).item() for column, measure in (also or {}).items()}
        rows.append({"set": case.set, "case": case.name, "method": name, "kind": kind, **numbers})

    with torch.no_grad():
        for case in given:
            rgb, labels = case.truth.rgb, case.truth.labels
            for name, colorize in every.items():
                measured(case, name, NONE, colorize(rgb))
            for kind in kinds:
                lender = case.references[kind]
                for name, colorize in after.items():
                    measured(case, name, kind, colorize(rgb, lender.rgb))
                if guided and (labels is None or lender.labels is None):
                    raise ValueError(
                        f"guided: {case.name} or its reference has no labels; take street_cases or labels=True"
                    )
                for name, colorize in guided.items():
                    measured(case, name, kind, colorize(rgb, lender.rgb, (labels, lender.labels)))
    return rows


def by_samples(
    chain: Exemplar,
    given: Iterable[Case],
    counts: Sequence[int | str],
    *,
    draws: int = 1,
    kinds: Sequence[str] = ("nearest", "self"),
    side: int = 256,
    trust: tuple[float, float] | str | None = KNOWN,
    spread: bool = True,
    detail: bool = True,
    **options,
) -> list[dict]:
    """PSNR of the chain by the number of samples, and of its coarse map, which is made once for all of them.

    Args:
        chain: in evaluation mode.
        given: see `cases`; pictures and references are brought to about side x side pixels.
        counts: numbers of samples, see `Exemplar.forward`.
        draws: of the places of samples, the same for every picture.
        kinds: of references, of those in `KINDS`.
        trust: of `Exemplar.colorize`. spread, detail, options: of `Exemplar.forward`.

    Returns:
        Rows of `set`, `case`, `kind`, `samples` (as text; of the coarse map `"coarse"`), `draw`, `psnr`.
    """
    whole("draws", draws, 1)
    rows, place = [], next(chain.parameters()).device
    tries = [(count, draw) for count in counts for draw in range(1 if count in (0, ALL) else draws)]
    for case, kind in ((case, kind) for case in given for kind in kinds):
        truth, lender = (scaled(one.rgb.to(place), side) for one in (case.truth, case.references[kind]))
        lightness = chroma.lightness(truth)
        with torch.no_grad():
            share = chain.followed(lightness, lender, trust)
            coarse = chain(lightness, lender, share=share, samples=0, **options).coarse
            made = {("coarse", 0): coarse}
            for count, draw in tries:
                given = sample(coarse, count, [draw])
                made[count, draw] = chain.refined(lightness, coarse, given, share=share, spread=spread, detail=detail)
        for (count, draw), ab in made.items():
            result = images.to_tensor(images.to_uint8(chroma.shown(lightness, ab)))
            numbers = {"samples": str(count), "draw": draw, "psnr": metrics.psnr(result, truth.cpu()).item()}
            rows.append({"set": case.set, "case": case.name, "kind": kind, **numbers})
    return rows


def summary(rows: Sequence[dict], of: str | None = None) -> list[dict]:
    """Means over pictures, one row a method and kind of reference, in the order in which they first come.

    Args:
        rows: see `judge`; read from a result file, in which what is infinite is a blank, too.
        of: one set only; all by default.

    Raises:
        ValueError: no rows of such a set.
    """
    return plain.summary(rows, of, ("method", "kind"))


def gain(rows: Sequence[dict], one: tuple[str, str], other: tuple[str, str], column: str = "psnr") -> dict:
    """How much one method is above another on the same pictures.

    Args:
        rows: see `judge`.
        one, other: method and kind of reference.
        column: what is compared.

    Returns:
        `mean` of the differences, `error` of that mean (their deviation divided by the root of their number), `clear`,
        whether the mean is more than two of these from 0, `wins`, the share of pictures on which `one` has the larger
        number, `count`.

    Raises:
        ValueError: the two have no picture in common.
    """
    found = [
        {(row["set"], row["case"]): row[column] for row in rows if (row["method"], row["kind"]) == wanted}
        for wanted in (one, other)
    ]
    common = [case for case in found[0] if case in found[1]]
    if not common:
        raise ValueError(f"gain: {one} and {other} have no picture in common")
    apart = np.array([found[0][case] - found[1][case] for case in common])
    mean, error = apart.mean().item(), float(apart.std(ddof=1) / len(apart) ** 0.5) if len(apart) > 1 else float("nan")
    clear = abs(mean) > 2 * error
    return {"mean": mean, "error": error, "clear": clear, "wins": (apart > 0).mean().item(), "count": len(apart)}


def told(
    rows: Sequence[dict], one: tuple[str, str], other: tuple[str, str], column: str = "psnr", digits: int = 2
) -> str:
    """`gain` in words: mean and error, as in `"+0.30 ± 0.14"`."""
    found = gain(rows, one, other, column)
    return f"{found['mean']:+.{digits}f} ± {found['error']:.{digits}f}"


def told_by_kind(rows: Sequence[dict], one: str, other: str) -> str:
    """`told` of PSNR for every kind of reference, as a part of a sentence; `other` may look at no reference."""
    kinds = {"nearest": "the nearest", "unrelated": "an unrelated one", "self": "the photograph itself"}
    alone = any(row["method"] == other and row["kind"] == NONE for row in rows)
    said = (f"{told(rows, (one, kind), (other, NONE if alone else kind))} after {what}" for kind, what in kinds.items())
    return ", ".join(said)


def followed(chain: Exemplar, given: Iterable[Case], trust: tuple[float, float] | str | None = KNOWN) -> dict[str, int]:
    """How many references of each kind a chain follows, at least in part, see `Exemplar.followed`."""
    found, place = dict.fromkeys(KINDS, 0), next(chain.parameters()).device
    for case in given:
        lightness = chroma.lightness(case.truth.rgb.to(place))
        for kind, lender in case.references.items():
            share = chain.followed(lightness, lender.rgb.to(place), trust)
            found[kind] += share is None or bool(share.item() > 0)
    return found


def parts(record: Mapping) -> dict[str, list[dict]]:
    """Rows of a record of `benchmarks/judge_exemplars.py` by what was colored: `photographs`, `roads`, `objects`."""
    sets = {"photographs": record["parameters"]["sets"], "roads": ["camvid"], "objects": ["coco, labelled"]}
    return {name: [row for row in record["rows"] if row["set"] in some] for name, some in sets.items()}


def line(table: pd.DataFrame, name: str, columns: Sequence[str]) -> dict:
    """A method's line in a chapter: after the nearest reference, or of none; PSNR after the others besides.

    Args:
        table: of `summary`, by method and kind. name: of the method. columns: that are told.
    """
    kind = "nearest" if (name, "nearest") in table.index else NONE
    others = {f"psnr, {one}": table.psnr[name, one] for one in ("self", "unrelated") if (name, one) in table.index}
    return {"method": name, **table.loc[(name, kind), list(columns)], **others}


def named(rows: Sequence[dict], before: str = "") -> dict[str, dict]:
    """Rows of `summary` by the name they have in a chapter, method and kind."""
    return {f"{before}{row['method']}, {row['kind']}": row for row in summary(rows)}
