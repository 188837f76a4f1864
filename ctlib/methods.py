"""Every method behind one call: a source picture, a reference (or a palette), and out comes the recolored picture.

Taught in: notebooks/00_tour.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from ctlib import check, chroma, images, ops, regionwise
from ctlib.classical import distribution, eight_bit, statistics, swatches
from ctlib.classical import palette as palettes
from ctlib.classical.statistics import ColorMap, Weights, in_pieces
from ctlib.data.palettes import palette_of
from ctlib.distinct import distinct, repaint

Palette = Tensor | Sequence[str]  # (k, 3) CIELAB, or hex colors
Labels = tuple[Tensor, Tensor]  # label maps (H, W) of source and reference, see ctlib.regionwise


@dataclass(frozen=True)
class Method:
    """One way to recolor.

    Attributes:
        title: name for tables and figures.
        family: `"baseline"`, `"statistics"`, `"distribution"`, `"palette"` or `"learned"`.
        fit: `(source, reference, weights=None, **options)` to a color map; `None` for a network, which looks at
            neighbors all the way.
        finish: what follows the color map and looks at neighbors, `(source, transferred) -> rgb`; `None` for a global
            method. Only global methods can become a LUT.
        on_levels: the method on 8-bit pictures, `(source, reference) -> image`, worth it once compiled: see
            `ctlib.ops.compile_cpu`.
        run: a network, `(source, reference, labels) -> rgb` on tensors; one of the family `"palette"` is
            `(source, palette) -> rgb` instead.
        colors: how many a palette must have, for such a network.
        cite: key in `book/references.bib`, empty for a baseline.
    """

    title: str
    family: str
    fit: Callable[..., ColorMap] | None = None
    finish: Callable[[Tensor, Tensor], Tensor] | None = None
    on_levels: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    run: Callable[..., Tensor] | None = None
    colors: int = 0
    cite: str = ""


def _identity(source: Tensor, reference: Tensor, *, weights: Weights | None = None) -> ColorMap:
    return lambda rgb: rgb


def _chang(source: Tensor, reference: Tensor, *, variant: str, k: int = 5, weights: Weights | None = None) -> ColorMap:
    """Recolor the source's palette to the reference's, matched by order of lightness."""
    source_weights, reference_weights = weights or (None, None)
    if len(source) != len(reference):
        raise ValueError(f"source and reference: one reference a source, got {len(source)} and {len(reference)}")
    if len(source) > 1:  # a palette belongs to one picture
        one = partial(_chang, variant=variant, k=k)
        maps = [one(*pair) for pair in zip(source.split(1), reference.split(1), strict=True)]
        return lambda rgb: torch.cat([part(color) for part, color in zip(maps, rgb.split(1), strict=True)])
    pictures = ((source, source_weights), (reference, reference_weights))
    # a picture of few colors has a short palette, and both palettes must be of one length
    k = min(k, *(len(palettes.bin_colors(picture, counts, variant=variant)[1]) for picture, counts in pictures))
    old, new = (palettes.extract(picture, k, weights=counts, variant=variant) for picture, counts in pictures)
    return palettes.transfer(old, new, variant=variant)


@cache
def _histogram_analogy(weights: str):
    from ctlib.models.histogram_analogy import HistogramAnalogy  # the hub's client is slow to import

    return HistogramAnalogy.from_pretrained(weights)


def _analogy(weights: str, source: Tensor, reference: Tensor, labels: Labels | None = None) -> Tensor:
    return _histogram_analogy(weights).recolor(source, reference, labels=labels)


@cache
def _stylization(weights: str):
    from ctlib.models.stylization import Stylization

    return Stylization.from_pretrained(weights)


def _stylized(weights: str, source: Tensor, reference: Tensor, labels: Labels | None = None) -> Tensor:
    """Of any reference: a gray one takes colors away, too, and swatches are drawn as large as the network looks."""
    from ctlib.models.stylization import recolored

    height, width = check.rgb(reference, "reference").shape[2:]
    if min(height, width) < chroma.LEAST:
        times = math.ceil(_STYLIZED / (height * width) ** 0.5)
        reference = reference.repeat_interleave(times, 2).repeat_interleave(times, 3)
    return recolored(_stylization(weights), source, reference, labels, _STYLIZED, lenient=True)


@cache
def _palettenet(weights: str):
    from ctlib.models.palettenet import PaletteNet

    return PaletteNet.from_pretrained(weights)


def _recolored(weights: str, source: Tensor, palette: Palette) -> Tensor:
    return _palettenet(weights).recolor(source, palette)


def _palette_network(title: str, weights: str, colors: int) -> Method:
    run = partial(_recolored, weights)
    return Method(f"PaletteNet ({title})", "palette", run=run, colors=colors, cite="cho2017palettenet")


_STYLIZED = 256  # pixels, the side of what the network of exemplar stylization sees
_stat, _dist = statistics, distribution
METHODS: dict[str, Method] = {
    "identity": Method("identity", "baseline", _identity),
    "mean_std_rgb": Method(
        "mean-std RGB", "statistics", partial(_stat.reinhard, space="rgb"), cite="reinhard2001color"
    ),
    "reinhard_lalphabeta": Method(
        "Reinhard lαβ", "statistics", partial(_stat.reinhard, space="lalphabeta"), cite="reinhard2001color"
    ),
    "reinhard_lab": Method(
        "Reinhard CIELAB",
        "statistics",
        partial(_stat.reinhard, space="lab"),
        on_levels=eight_bit.reinhard_lab,
        cite="reinhard2001color",
    ),
    "swatch_seed": Method("swatches (as published)", "statistics", swatches.swatch_seed),
    "swatch": Method("swatches (corrected)", "statistics", swatches.swatch, cite="reinhard2001color"),
    "cholesky": Method("Cholesky", "statistics", partial(_stat.linear, kind="cholesky"), cite="pitie2007linear"),
    "square_root": Method(
        "square root", "statistics", partial(_stat.linear, kind="square_root"), cite="pitie2007linear"
    ),
    "mkl_rgb": Method("Monge-Kantorovich RGB", "statistics", _stat.linear, cite="pitie2007linear"),
    "mkl_lab": Method(
        "Monge-Kantorovich CIELAB", "statistics", partial(_stat.linear, space="lab"), cite="pitie2007linear"
    ),
    "xiao_ma": Method("Xiao and Ma", "statistics", partial(_stat.linear, kind="xiao_ma"), cite="xiao2006color"),
    "histogram_rgb": Method("histogram matching RGB", "distribution", _dist.histogram_matching),
    "histogram_lab": Method(
        "histogram matching CIELAB", "distribution", partial(_dist.histogram_matching, space="lab")
    ),
    "hm_mkl_hm": Method("HM-MKL-HM", "distribution", _dist.hm_mkl_hm, cite="pitie2007linear"),
    "idt": Method("IDT", "distribution", _dist.idt, cite="pitie2005ndimensional"),
    "idt_regrain": Method("IDT + regrain", "distribution", _dist.idt, _dist.regrain, cite="pitie2005towards"),
    "sliced_ot": Method("sliced optimal transport", "distribution", _dist.sliced_transport, cite="bonneel2015sliced"),
    "chang": Method("Chang palette", "palette", partial(_chang, variant="paper"), cite="chang2015palette"),
    "chang_demo": Method("Chang palette (demo)", "palette", partial(_chang, variant="demo"), cite="chang2015palette"),
    "chang_bz": Method("Chang palette (b-z)", "palette", partial(_chang, variant="bz"), cite="chang2015palette"),
    "palettenet_instance": _palette_network("published decoder", "palettenet-instance-6-tiny", 6),
    "palettenet": _palette_network("FiLM", "palettenet-film-6-tiny", 6),
    "palettenet_4": _palette_network("FiLM, 4 colors", "palettenet-film-4-tiny", 4),
    "palettenet_adversarial": _palette_network("FiLM, adversarial", "palettenet-adversarial-6-tiny", 6),
    "analogy_tile": Method(
        "Histogram Analogy (published conditioning)",
        "learned",
        run=partial(_analogy, "histogram-analogy-tile-tiny"),
        cite="lee2020deep",
    ),
    "analogy_no_norm": Method(
        "Histogram Analogy (no norms)",
        "learned",
        run=partial(_analogy, "histogram-analogy-no-norm-tiny"),
        cite="lee2020deep",
    ),
    "analogy_film": Method(
        "Histogram Analogy (FiLM)", "learned", run=partial(_analogy, "histogram-analogy-film-tiny"), cite="lee2020deep"
    ),
    "analogy": Method(
        "Histogram Analogy (FiLM, curves)",
        "learned",
        run=partial(_analogy, "histogram-analogy-film-curves-tiny"),
        cite="lee2020deep",
    ),
    "analogy_distilled": Method(
        "Histogram Analogy (FiLM, curves, distilled)",
        "learned",
        run=partial(_analogy, "histogram-analogy-distilled-tiny"),
        cite="lee2020deep",
    ),
    "stylization": Method(
        "stylization (AdaIN)", "learned", run=partial(_stylized, "stylization-compact"), cite="xu2020stylization"
    ),
}


def get(name: str) -> Method:
    """Look a method up. Raises `ValueError` that lists the known ones."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; known: {', '.join(METHODS)}")
    return METHODS[name]


def fit(name: str, source: Tensor, reference: Tensor, **options) -> ColorMap:
    """Fit a method on two pictures.

    Args:
        name: key of `METHODS`.
        source, reference: `(B, 3, H, W)` sRGB in [0, 1]; sizes may differ.
        options: of the method, see its function.

    Returns:
        A function of color `(B, 3, ...) -> (B, 3, ...)`, not clipped. What a method does to neighborhoods (regrain) is
        not in it.

    Raises:
        ValueError: unknown method, wrong input, or a network, which is no color map.
    """
    return color_method(name).fit(check.rgb(source, "source"), check.rgb(reference, "reference"), **options)


def color_method(name: str) -> Method:
    """As `get`, for a method that has a color map. Raises `ValueError` for a network."""
    method = get(name)
    if method.fit is None:
        raise ValueError(f"{name} is a network that looks at neighbors, and has no color map; use recolor")
    return method


def recolor(
    name: str,
    source: Tensor,
    reference: Tensor | None = None,
    palette: Palette | None = None,
    *,
    labels: Labels | None = None,
    **options,
) -> Tensor:
    """Recolor a batch of pictures.

    Args:
        name: key of `METHODS`.
        source: `(B, 3, H, W)` sRGB in [0, 1].
        reference: `(B, 3, H', W')` sRGB in [0, 1]; the picture whose colors are wanted.
        palette: `(k, 3)` CIELAB or hex colors, instead of a reference. For methods of the family `"palette"`: what
            the source's own palette of `k` colors, sorted by lightness, becomes; a network of that family takes as
            many colors as it was trained with, `Method.colors`. For the family `"learned"`: the colors wanted, in equal
            parts.
        labels: label maps of source and reference, whole numbers, if each region of one picture shall take its colors
            from the region of the same number; see `ctlib.regionwise.partners` and `ctlib.segment.match`.
        options: of the method; with a palette, those of `fit_palette`.

    Returns:
        `(B, 3, H, W)` sRGB in [0, 1].

    Raises:
        ValueError: unknown method, wrong input, or neither reference nor palette.

    Example:
        >>> picture = torch.rand(1, 3, 8, 8)
        >>> recolor("identity", picture, picture).equal(picture)
        True
    """
    method = get(name)
    check.rgb(source, "source")
    _one_aim(name, reference, palette)
    if labels is not None and palette is not None:
        raise ValueError("labels: a palette has no regions; give a reference picture")
    if method.colors:
        _no_options(name, options)
        if labels is not None:
            raise ValueError(f"labels: {name} sees its reference as a palette, which has no regions; leave them out")
        return _to_palette(method, source, reference, palette)
    if method.run:
        _no_options(name, options)
        return method.run(source, reference if palette is None else palette_picture(palette, source), labels)
    if labels is not None:
        check.rgb(reference, "reference")
        pair = regionwise.partners(labels, source, reference)
        result = pair.blend(partial(method.fit, **options), source, reference)
    elif palette is not None:
        result = fit_palette(name, source, palette, **options)(source)
    else:
        result = fit(name, source, reference, **options)(source)
    result = result.clamp(0, 1)
    return method.finish(source, result).clamp(0, 1) if method.finish else result


def _one_aim(name: str, reference, palette) -> None:
    if reference is None and palette is None:
        raise ValueError(f"{name}: nothing to recolor towards; give a reference picture or a palette")
    if reference is not None and palette is not None:
        raise ValueError(f"{name}: give a reference picture or a palette, not both")


def _to_palette(method: Method, source: Tensor, reference: Tensor | None, palette: Palette | None) -> Tensor:
    """A network that takes a palette: the one given, or that of each reference."""
    if palette is not None:
        return method.run(source, palette)
    check.rgb(reference, "reference")
    if len(source) != len(reference):
        raise ValueError(f"source and reference: one reference a source, got {len(source)} and {len(reference)}")
    wanted = (palette_of(images.to_uint8(one), method.colors) for one in reference.split(1))
    parts = [method.run(one, colors) for one, colors in zip(source.split(1), wanted, strict=True)]
    return torch.cat(parts) if parts else source


def _no_options(name: str, options: dict) -> None:
    if options:
        raise ValueError(f"{name} has no option {next(iter(options))!r}: it is a trained network")


def palette_picture(palette: Palette, source: Tensor) -> Tensor:
    """A palette as a picture `(B, 3, 1, k)` of equal swatches, for what takes its reference as a histogram."""
    rgb = palettes.to_rgb(palettes.as_palette(palette)).to(source)
    return rgb.T.reshape(1, 3, 1, -1).expand(len(source), -1, -1, -1)


def fit_palette(
    name: str,
    source: Tensor,
    palette: Palette,
    *,
    weights: Tensor | None = None,
    source_palette: Palette | None = None,
) -> ColorMap:
    """Color map that takes the source's own palette to `palette`.

    Args:
        name: key of `METHODS`, one of the family `"palette"` that is no network.
        source: `(1, 3, ...)` sRGB in [0, 1]; a palette belongs to one picture.
        palette: as in `recolor`.
        weights: `(1, N)` counts, if `source` holds distinct colors.
        source_palette: what becomes `palette`, color by color; by default what the method itself extracts from the
            source, dark to light, to which b-z adds a black of its own.

    Raises:
        ValueError: another method, a batch, an empty palette, palettes of different size, or more colors to extract
            than the picture has.
    """
    method = color_method(name)
    if method.family != "palette":
        known = ", ".join(key for key, one in METHODS.items() if one.family == "palette" and one.fit)
        networks = ", ".join(key for key, one in METHODS.items() if one.run)
        raise ValueError(
            f"{name} takes a reference picture, not a palette; methods that take one: {known}; networks that do, by "
            f"recolor: {networks}"
        )
    new, variant = palettes.as_palette(palette), method.fit.keywords["variant"]
    if source_palette is not None:
        old = palettes.as_palette(source_palette, "source_palette")
        if len(old) != len(new):
            raise ValueError(f"source_palette: has {len(old)} colors, the palette {len(new)}; give one for each")
        return palettes.transfer(old, new, variant=variant)
    try:
        old = palettes.extract(source, len(new), weights=weights, variant=variant)
    except ValueError as error:
        most = min(12, len(palettes.bin_colors(source, weights, variant=variant)[1]))
        if len(new) <= most:
            raise
        raise ValueError(
            f"palette: has {len(new)} colors, and as many are looked for in the source, which has {most} to offer; "
            f"give at most {most}, or say in source_palette which colors become these"
        ) from error
    black = old[: len(old) - len(new)]  # b-z's palettes begin with a black of their own, which stays
    return palettes.transfer(old, torch.cat([black, new]), variant=variant)


def recolor_uint8(
    name: str,
    source: np.ndarray,
    reference: np.ndarray | None = None,
    palette: Palette | None = None,
    *,
    labels: Labels | None = None,
    **options,
) -> np.ndarray:
    """Recolor an 8-bit picture of any size at the cost of its distinct colors.

    While `ops.compile_cpu` is on, `reinhard_lab` takes its compiled path instead. Colors are computed in double
    precision; what looks at neighbors (regrain) then works on the 8-bit result. Methods
    that draw samples (swatches, sliced transport) draw others than `recolor` does.

    Args:
        name: key of `METHODS`.
        source, reference: `(H, W, 3)` uint8 sRGB.
        palette, labels: as in `recolor`; with labels, each pixel is computed, not each distinct color.
        options: of the method.

    Returns:
        `(H, W, 3)` uint8.

    Raises:
        ValueError: as `recolor`.
    """
    if get(name).run or labels is not None:
        _one_aim(name, reference, palette)
        wanted = None if reference is None else images.to_tensor(reference)
        return images.to_uint8(recolor(name, images.to_tensor(source), wanted, palette, labels=labels, **options))
    if ops.compile_cpu.on and get(name).on_levels and not options:
        _one_aim(name, reference, palette)
        if palette is None:
            return get(name).on_levels(source, reference)
    codes, colors, counts = distinct(source)
    color_map = _fit_colors(name, colors, counts, reference, palette, **options)
    result = repaint(source, codes, in_pieces(color_map, colors))
    finish = get(name).finish
    return result if finish is None else images.to_uint8(finish(images.to_tensor(source), images.to_tensor(result)))


def fit_uint8(
    name: str,
    source: np.ndarray,
    reference: np.ndarray | None = None,
    palette: Palette | None = None,
    **options,
) -> ColorMap:
    """The color map that `recolor_uint8` uses, to be sampled into a LUT.

    Raises:
        ValueError: as `recolor`, and for a method that looks at neighbors: no LUT can hold it.
    """
    if color_method(name).finish is not None:
        raise ValueError(f"{name} looks at neighboring pixels, which no LUT can hold; choose a global method")
    _, colors, counts = distinct(source)
    return _fit_colors(name, colors, counts, reference, palette, **options)


def _fit_colors(name, colors, counts, reference, palette, **options) -> ColorMap:
    method = get(name)
    _one_aim(name, reference, palette)
    if palette is not None:
        return fit_palette(name, colors, palette, weights=counts, **options)
    _, reference_colors, reference_counts = distinct(reference)
    return method.fit(colors, reference_colors, weights=(counts, reference_counts), **options)
