r"""Does a recolored picture have the palette that was asked for, and is it still the same picture?

Three kinds of case:

- `hue`: the palette of the source with its hues turned, L\* kept. The truth is known: the source turned alike. So are
  networks trained.
- `other`: the palette of another picture. No truth; a method that keeps L\* cannot reach it altogether.
- `report`: orange, brown, purple and green, the one test of the ArtBench report. Colors repeat where a network needs
  more than four.

Taught in: notebooks/31_adversarial_palettenet.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctlib import color, images, methods, metrics, ops
from ctlib.classical.extraction import bin_colors, from_hex, to_rgb
from ctlib.data.palettes import palette_of
from ctlib.models.palettenet import PaletteNet

#: dark to light; the report names them and does not say which shades
REPORT = ("#7b2d8b", "#8b4513", "#2e8b3d", "#ff8c1a")
COLUMNS = ("palette_distance", "palette_emd", "ab_rmse", "ssim_l", "ssim_gray", "gradient_correlation")
SHIFTS = (1 / 6, 1 / 3, 1 / 2, 2 / 3)  # of the hue circle, in turn
STRIPE = 16  # pixels of a side of a swatch in the picture of a palette

Recolor = Callable[[Tensor, Tensor, Tensor], Tensor]  # source (1, 3, H, W), wish and own palette (k, 3) to the result


class Case(NamedTuple):
    """One test: pictures `(1, 3, H, W)` sRGB in [0, 1], palettes `(k, 3)` CIELAB; `truth` is `None` if unknown.

    The wish and the source's own palette have their colors in one order. All methods that recolor from a palette to
    another are given both, so that none is judged by how it would have extracted the first.
    """

    name: str
    kind: str
    source: Tensor
    palette: Tensor
    own: Tensor
    shares: Tensor | None  # of the wished colors in the picture they are from
    truth: Tensor | None


def cases(pictures: Mapping[str, np.ndarray], colors: int = 6) -> list[Case]:
    """Cases of all three kinds; the other picture of each is the next one.

    Args:
        pictures: name to uint8 `(H, W, 3)` sRGB, two or more, in color.
        colors: of the palettes, 1 to 12.

    Raises:
        ValueError: fewer than two pictures, or not 1 to 12 colors.
    """
    names = list(pictures)
    if len(names) < 2:
        raise ValueError(f"pictures: the palette of each is given to another one, so two are needed; got {names}")
    found = {name: areas(picture, colors) for name, picture in pictures.items()}
    report = from_hex([REPORT[place * len(REPORT) // colors] for place in range(colors)])
    made = []
    for number, name in enumerate(names):
        source, (own, shares) = images.to_tensor(pictures[name]), found[name]
        turned, wanted = turn(source, own, SHIFTS[number % len(SHIFTS)])
        other, others = found[names[(number + 1) % len(names)]]
        made += [
            Case(name, "hue", source, wanted, own, shares, turned),
            Case(name, "other", source, other, own, others, None),
            Case(name, "report", source, report, own, None, None),
        ]
    return made


def areas(picture: np.ndarray, colors: int) -> tuple[Tensor, Tensor]:
    """Palette `(colors, 3)` as `palette_of` finds it, and the share of the pixels that is nearest to each color.

    Colors that come several times in a short palette divide their share.
    """
    palette = palette_of(picture, colors)
    bins, counts = bin_colors(images.to_tensor(picture))
    near = torch.cdist(bins.double(), palette).argmin(1)
    shares = torch.zeros(colors, dtype=torch.float64).index_add_(0, near, counts.double())
    same = (palette[:, None] == palette[None]).all(2).double()
    return palette, same @ shares / same.sum(1) / shares.sum()


def turn(source: Tensor, palette: Tensor, shift: float) -> tuple[Tensor, Tensor]:
    r"""A picture and its palette with hues turned by `shift` of a circle and L\* put back, as 8-bit sRGB can show it.

    Args:
        source: `(1, 3, H, W)` sRGB in [0, 1]. palette: `(k, 3)` CIELAB, dark to light. shift: 0 to 1.

    Returns:
        The turned picture in sRGB, and the palette in CIELAB.
    """
    picture = ops.lab_to_rgb(ops.shift_hue(source, shift)).clamp(0, 1)
    wanted = ops.shift_hue(to_rgb(palette).T[None], shift)[0].T
    wanted = color.rgb_to_lab(color.lab_to_rgb(torch.cat([palette[:, :1], wanted[:, 1:]], dim=1)))
    return images.to_tensor(images.to_uint8(picture)), wanted


def stripes(palette: Tensor) -> Tensor:
    """The palette as a picture `(1, 3, STRIPE, k STRIPE)`, for methods that take a reference picture."""
    return to_rgb(palette).float().T[None, :, None].repeat_interleave(STRIPE, 3).repeat(1, 1, STRIPE, 1)


def recolor_by(method: str | PaletteNet, **options) -> Recolor:
    """A method of `ctlib.methods`, or a network, as a function of source, wish and the source's own palette.

    Networks find their way without the last; methods of other families than `"palette"` get the wish as `stripes`.

    Args:
        method: its name, or the network. options: of `PaletteNet.recolor`, for a network.
    """
    if not isinstance(method, str):
        return lambda source, palette, own: method.recolor(source, palette, **options)
    known = methods.get(method)
    if known.family != "palette":
        return lambda source, palette, own: methods.recolor(method, source, stripes(palette))
    if known.run:
        return lambda source, palette, own: methods.recolor(method, source, palette=palette)
    return lambda source, palette, own: methods.recolor(method, source, palette=palette, source_palette=own)


def judge(recolors: Mapping[str, Recolor], given: Iterable[Case]) -> list[dict]:
    """Run methods on cases and measure every result, 8 bits a channel.

    Args:
        recolors: name to function, see `recolor_by`; `"oracle"` is answered with the truth where there is one.
        given: see `cases`.

    Returns:
        One row for each method and case: `case`, `kind`, `method` and `COLUMNS`; `ab_rmse` where there is a truth.
    """
    rows = []
    for case in given:
        for name, recolor in recolors.items():
            if name == "oracle" and case.truth is None:
                continue
            result = case.truth if name == "oracle" else recolor(case.source, case.palette, case.own)
            rows.append({"case": case.name, "kind": case.kind, "method": name, **measure(result, case)})
    return rows


def measure(result: Tensor, case: Case) -> dict[str, float]:
    """`COLUMNS` of one result. Its palette is extracted as that of the case was."""
    levels = images.to_uint8(result)
    result, (palette, shares) = images.to_tensor(levels), areas(levels, len(case.palette))
    return {
        "palette_distance": metrics.palette_distance(palette, case.palette).item(),
        "palette_emd": metrics.palette_emd(palette, shares, case.palette, case.shares).item(),
        **metrics.evaluate(result, case.source, truth=case.truth, metrics=COLUMNS[2:]),
    }


def summary(rows: Sequence[dict], kind: str) -> list[dict]:
    """Mean over the cases of one kind, one row a method; columns that hold nothing are left out."""
    found = {}
    for row in rows:
        if row["kind"] == kind:
            found.setdefault(row["method"], []).append(row)
    if not found:
        raise ValueError(f"no rows of kind {kind!r}")
    columns = [name for name in COLUMNS if all(name in row for group in found.values() for row in group)]
    return [
        {"method": name, **{column: sum(row[column] for row in group) / len(group) for column in columns}}
        for name, group in found.items()
    ]


def response(recolor: Recolor, source: Tensor, palette: Tensor) -> dict[str, float]:
    r"""How far results follow when hues are turned by a third of the circle either way; both answers are known.

    Args:
        recolor: see `recolor_by`.
        source: `(1, 3, H, W)` sRGB in [0, 1]. palette: its own, `(k, 3)` CIELAB.

    Returns:
        `response`: mean distance of the two results in a\* and b\*, divided by that of the answers: 1 is right, 0 is
        deaf. `ab_rmse`: from the answers.

    Raises:
        ValueError: a gray picture, whose hues cannot be turned.
    """
    answers = [turn(source, palette, shift) for shift in (1 / 3, 2 / 3)]
    if torch.equal(answers[0][0], answers[1][0]):
        raise ValueError("source: a gray picture looks the same in all hues, and so do the answers; give one in color")
    made = torch.cat([recolor(source, wish, palette) for _, wish in answers])
    results, truths = color.rgb_to_lab(made), color.rgb_to_lab(torch.cat([truth for truth, _ in answers]))
    far = [(lab[0] - lab[1])[1:].norm(dim=0).mean().item() for lab in (results, truths)]
    return {"response": far[0] / far[1], "ab_rmse": (results - truths)[:, 1:].square().mean().sqrt().item()}


def lightness_kept(network: PaletteNet, source: Tensor, palette: Tensor) -> dict[str, float]:
    r"""How far an 8-bit result is from its source in L\*, where sRGB can show what the network asks for.

    Args:
        network: in evaluation mode.
        source: `(1, 3, H, W)` sRGB in [0, 1], sides divisible by 16. palette: the wish, `(k, 3)` CIELAB.

    Returns:
        `change`: the largest one. `outside`: share of the pixels whose color no screen can show.
    """
    lab = color.rgb_to_lab(source.double())
    with torch.no_grad():
        wanted = network.transfer(lab.float(), network.ordered(palette).T[None].float()).double()
    rgb = color.lab_to_rgb(wanted, clip=False)
    inside = ((rgb - 0.5).abs() <= 0.5).all(1) & ((color.rgb_to_lab(rgb.clamp(0, 1)) - wanted).norm(dim=1) < 0.1)
    shown = color.rgb_to_lab(images.to_tensor(images.to_uint8(rgb.clamp(0, 1))).double())
    change = (shown - lab)[:, 0].abs()[inside]
    return {"change": change.max().item() if len(change) else 0.0, "outside": 1 - inside.double().mean().item()}
