"""Every colorizer behind one call, for one picture or for a folder of them.

A colorizer sees the lightness of a picture and guesses its color; some listen to hints of color, and some take the
colors of a reference, which they cannot do without. Results have the size of the picture and its lightness: a color
that sRGB cannot show there becomes paler.

Taught in: notebooks/41_classification_colorization, those with a reference in notebooks/51_exemplar_colorization.
"""

import importlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ctlib import check, chroma, images
from ctlib.data.coco import is_gray
from ctlib.data.registry import IMAGES
from ctlib.hints import Hints, from_points
from ctlib.settings import whole


@dataclass(frozen=True)
class Colorizer:
    """One way to color.

    Attributes:
        title: name for tables and figures.
        network: module and class, `"ctlib.models.zhang2016.Zhang2016"`; empty for what was not trained.
        weights: a name in `data/pretrained`, or that of an official file, which is fetched and checked by its hash.
        options: what it takes beside the picture and `side`; with `"reference"` among them it needs one.
        cite: key in `book/references.bib`, empty for a baseline.
        side: pixels, at which size it does best; 0 for what looks at pictures as they are.
        transfer: in a chain of two networks, the weights of the transfer sub-net; `weights` are the other's.
        function: module and function, of picture and reference, where there is no network.
        first: the colorizer that colors before the function does.
        defaults: what it is given unless it is told otherwise; the authors' networks do as released.
    """

    title: str
    network: str = ""
    weights: str = ""
    options: tuple[str, ...] = ()
    cite: str = ""
    side: int = 256
    transfer: str = ""
    function: str = ""
    first: str = ""
    defaults: dict = field(default_factory=dict)


COLORIZERS: dict[str, Colorizer] = {
    "gray": Colorizer("gray copy"),
    "zhang2016": Colorizer(
        "Zhang 2016", "ctlib.models.zhang2016.Zhang2016", "zhang2016-quarter", ("temperature",), "zhang2016colorful"
    ),
    "zhang2017": Colorizer(
        "Zhang 2017", "ctlib.models.zhang2017.Zhang2017", "zhang2017-quarter", ("hints", "spread"), "zhang2017real"
    ),
    "unet": Colorizer(
        "U-Net on SqueezeNet",
        "ctlib.models.resnet_colorizer.ResnetColorizer",
        "unet-colorizer",
        ("saturation",),
        "ronneberger2015unet",
        side=160,
    ),
    "exemplar": Colorizer(
        "exemplar, by two networks",
        "ctlib.exemplars.chain.Exemplar",
        "refinement-quarter",
        ("reference", "samples", "trust", "labels", "seed", "spread", "detail"),
        "xu2020stylization",
        transfer="stylization-compact",
    ),
    "matching": Colorizer(
        "exemplar, by matching",
        "ctlib.exemplars.chain.Exemplar",
        "refinement-quarter",
        ("reference", "samples", "trust", "labels", "seed", "spread", "detail"),
        "he2018deep",
        transfer="stylization-compact",
        defaults={"by": "matching"},
    ),
    "welsh": Colorizer(
        "Welsh",
        function="ctlib.exemplars.welsh.welsh",
        options=("reference", "seed"),
        cite="welsh2002transferring",
        side=0,
    ),
    "superpixels": Colorizer(
        "superpixels, after Gupta",
        function="ctlib.exemplars.superpixels.superpixel_transfer",
        options=("reference", "seed"),
        cite="gupta2012image",
    ),
    "reinhard_ab": Colorizer(
        "Zhang 2017, then Reinhard",
        function="ctlib.exemplars.moments.reinhard_ab",
        options=("reference",),
        cite="reinhard2001color",
        first="zhang2017",
    ),
    "eccv16": Colorizer(
        "Zhang 2016 (official weights)",
        "ctlib.models.zhang2016.Zhang2016",
        "eccv16",
        ("temperature",),
        "zhang2016colorful",
        defaults={"temperature": None},
    ),
    "siggraph17": Colorizer(
        "Zhang 2017 (official weights)",
        "ctlib.models.zhang2017.Zhang2017",
        "siggraph17",
        ("hints", "spread"),
        "zhang2017real",
        defaults={"spread": False},
    ),
}


@dataclass
class Report:
    """What became of a folder: files written, files skipped and why, files whose own color was dropped.

    `unlike` are those whose reference was not followed, since it looks unlike them.
    """

    written: list[Path] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)
    in_color: list[Path] = field(default_factory=list)
    unlike: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.written)} colored, {len(self.skipped)} skipped"]
        if self.in_color:
            lines.append(f"{len(self.in_color)} in color already: their lightness was taken, their color dropped")
        for path in self.unlike:
            lines.append(
                f"  {path}: the reference looks unlike it and was not followed; --follow or trust=None follows it"
            )
        return "\n".join([*lines, *(f"  skipped {path}: {reason}" for path, reason in self.skipped.items())])


def get(name: str) -> Colorizer:
    """Look a colorizer up. Raises `ValueError` that lists the known ones."""
    if name not in COLORIZERS:
        raise ValueError(f"unknown colorizer {name!r}; known: {', '.join(COLORIZERS)}")
    return COLORIZERS[name]


@cache
def _network(network: str, *weights: str):
    return _named(network).from_pretrained(*weights)


def _named(path: str):
    """A class or function by the names of its module and its own."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _asked(name: str, side: int | None, options: dict) -> Colorizer:
    """The colorizer that is asked for, if all that it is given is what it takes."""
    one = get(name)
    if unknown := sorted(set(options) - set(one.options)):
        takes = f"it takes {', '.join(one.options)}" if one.options else "it takes none"
        raise ValueError(f"{name} has no option {unknown[0]!r}; {takes}")
    if side is not None and not one.side:
        raise ValueError(f"{name} has no side: it looks at pictures as they are")
    if side is not None:
        whole("side", side, 1)
    if "reference" in one.options and options.get("reference") is None:
        raise ValueError(f"{name} takes its colors from a reference; give reference, a picture in color")
    return one


def colorize(name: str, rgb: Tensor, *, side: int | None = None, **options) -> Tensor:
    """Color a batch of pictures.

    Args:
        name: key of `COLORIZERS`.
        rgb: `(B, 3, H, W)` sRGB in [0, 1], gray or in color: only its lightness is looked at.
        side: the network sees about side x side pixels, see `ctlib.chroma.colorize`; its own unless given.
        options: of the colorizer: `temperature` of its annealed mean; `saturation` of its result; `hints`, either
            `ctlib.hints.Hints`, or for a single picture points `(x, y, color)`, see `ctlib.hints.from_points`, each of
            which becomes a square of 5 x 5 pixels of what the network sees; `reference`, `(B or 1, 3, H', W')` sRGB in
            [0, 1], at least 32 pixels a side and in color, with `samples`, `trust`, `labels`, `seed` and `detail`
            of `ctlib.exemplars.chain.Exemplar.colorize`; `spread`, whether hints or samples outvote the network around
            them, see `ctlib.hints.spread`.

    Returns:
        `(B, 3, H, W)` sRGB in [0, 1].

    Raises:
        ValueError: unknown colorizer or option, no reference where one is needed, or wrong input.
        CheckpointError: its weights are not here and cannot be had.
    """
    check.rgb(rgb, "rgb")
    one = _asked(name, side, options)
    side = one.side if side is None else side
    given = options.get("hints")
    if isinstance(given, list | tuple) and not (len(given) == 2 and all(isinstance(part, Tensor) for part in given)):
        options["hints"] = _at_points(given, rgb, side)
    if one.first:
        return _named(one.function)(colorize(one.first, rgb, side=side), **options)
    if one.function:
        return _named(one.function)(rgb, **options, **({"side": side} if one.side else {}))
    if not one.network:
        return chroma.colorize(lambda lightness: lightness.expand(-1, 2, -1, -1) * 0, rgb, side)
    weights = (one.transfer, one.weights) if one.transfer else (one.weights,)
    with torch.no_grad():
        return _network(one.network, *weights).colorize(rgb, side=side, **one.defaults | options)


def after(name: str, side: int | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """`colorize` as a function of picture and reference; `side` is left out for what looks at pictures as they are."""
    size = {"side": side} if get(name).side else {}
    return lambda rgb, reference: colorize(name, rgb, reference=reference, **size)


def _at_points(points: Sequence, rgb: Tensor, side: int) -> Hints:
    if len(rgb) != 1:
        raise ValueError(f"hints: points belong to one picture, got {len(rgb)}; give ctlib.hints.Hints")
    height, width = rgb.shape[2:]
    radius = round(2 * max(1.0, (height * width) ** 0.5 / side))
    return from_points(points, (height, width), radius, lightness=chroma.lightness(rgb))


def colorize_files(
    name: str,
    source: Path | str,
    output: Path | str,
    *,
    side: int | None = None,
    suffix: str = ".png",
    progress: Callable[[Path], None] | None = None,
    reference: Path | str | Tensor | None = None,
    **options,
) -> Report:
    """Color a picture, or every picture of a folder and the folders in it, at the size they come in.

    A file that cannot be read is skipped and listed; the others are done. Each result is written whole or not at all.

    Args:
        name: key of `COLORIZERS`.
        source: a file, or a folder.
        output: a file for a file; for a folder a folder, which is made and gets the same names.
        side, options: of `colorize`. A folder takes no points as hints: they belong to one picture.
        suffix: of the files in a folder of results.
        progress: called with each file that was written.
        reference: of `colorize`, one for all: a file or a tensor.

    Raises:
        ValueError: unknown colorizer or option, no pictures, or a source, output or reference of the wrong kind.
        CheckpointError: the weights are not here and cannot be had.
    """
    source, output, report = Path(source), Path(output), Report()
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder")
    folder = source.is_dir()
    if folder and output.exists() and not output.is_dir():
        raise ValueError(f"{output}: is a file; a folder of pictures needs a folder for its results")
    if output.resolve() == source.resolve():
        raise ValueError(f"{output}: the results would take the place of the pictures; name another")
    if folder and options.get("hints"):
        raise ValueError(f"hints: points belong to one picture, and {source} is a folder; color them one by one")
    # before minutes of work, not after
    images.format_of(f"a{suffix}" if folder else output)
    pairs = list(_targets(source, output, suffix)) if folder else [(source, output)]
    if reference is not None:
        known = reference if isinstance(reference, Tensor) else _read_reference(reference, pairs)
        options["reference"] = chroma.lender(known)
    _asked(name, side, options)
    for path, target in pairs:
        try:
            picture = images.read(path)
        except images.ImageReadError as error:
            if not folder:
                raise
            report.skipped[path] = str(error).removeprefix(f"{path}: ")
            continue
        if not is_gray(picture):
            report.in_color.append(path)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            result = colorize(name, images.to_tensor(picture), side=side, **options)
        for one in said:
            if issubclass(one.category, chroma.NotFollowed):
                report.unlike.append(path)
            else:
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        target.parent.mkdir(parents=True, exist_ok=True)
        report.written.append(images.write(target, result))
        if progress:
            progress(target)
    return report


def _read_reference(path: Path | str, pairs: list[tuple[Path, Path]]) -> Tensor:
    if any(target.resolve() == Path(path).resolve() for _, target in pairs):
        raise ValueError(f"{path}: a result would take the place of the reference; name another output")
    return images.to_tensor(images.read(path))


def pictures(folder: Path) -> list[Path]:
    """Every file of a folder and the folders in it whose name is that of a picture, in a fixed order."""
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGES and not path.is_dir()]


def _targets(source: Path, output: Path, suffix: str) -> Iterator[tuple[Path, Path]]:
    """Every picture of a folder and where its result goes: `a.jpg` to `a.png`, beside `a.tif` to `a.jpg.png`."""
    found = pictures(source)
    if source.resolve() in output.resolve().parents:  # results of an earlier call are no sources
        found = [path for path in found if output.resolve() not in path.resolve().parents]
    if not found:
        raise ValueError(f"{source}: holds no pictures ({', '.join(sorted(IMAGES))})")
    plain = [output / path.relative_to(source).with_suffix(suffix) for path in found]
    long = [output / f"{path.relative_to(source)}{suffix}" for path in found]  # no two alike
    often, taken, sources = Counter(plain), set(long), {path.resolve() for path in found}
    for path, short, other in zip(found, plain, long, strict=True):
        target = short if often[short] == 1 and short not in taken else other
        if target.resolve() in sources:
            raise ValueError(f"{output}: the result of {path} would take the place of {target}; name another folder")
        yield path, target
