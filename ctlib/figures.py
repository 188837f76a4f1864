"""One look for every figure: galleries, palettes, tables, and a before / after slider.

Figures have a transparent ground and mid-gray text, so that they read on a white page and on a black one.
"""

import ast
import base64
import html
import inspect
import io
import math
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ctlib import color, images

INK = "#7d7d7d"  # contrast about 4 : 1 on white and on near-black
#: Okabe and Ito's colors, told apart by color-blind readers too; black is left out, it vanishes on a dark page
CYCLE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b8a800")


def style() -> None:
    """Set matplotlib's defaults for the whole process."""
    mpl.rcParams.update(
        {
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 9,
            "axes.titlesize": 9,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": INK,
            "axes.titlecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": mpl.cycler(color=CYCLE),
            "grid.color": INK,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "image.interpolation": "none",
        }
    )


def as_uint8(image: np.ndarray | Tensor) -> np.ndarray:
    """A picture as `(H, W, 3)` uint8: arrays as they are, tensors `(1, 3, H, W)` or `(3, H, W)` in [0, 1] converted."""
    return images.to_uint8(image) if isinstance(image, Tensor) else image


def gallery(
    pictures: Sequence[np.ndarray | Tensor],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 4,
    width: float = 9.0,
) -> Figure:
    """Pictures in rows, each with its title.

    Args:
        pictures: uint8 `(H, W, 3)` arrays or float tensors `(1, 3, H, W)`.
        titles: one a picture.
        columns: pictures a row.
        width: of the figure, in inches.
    """
    pictures = [as_uint8(picture) for picture in pictures]
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    # the tallest picture of a row sets its height, so that rows of landscapes stay flat
    tallest = [max(p.shape[0] / p.shape[1] for p in pictures[r * columns : (r + 1) * columns]) for r in range(rows)]
    cell = width / columns
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width, sum(tallest) * cell + 0.26 * rows * bool(titles)),
        gridspec_kw={"height_ratios": tallest},
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0.01)
    for index, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if index < len(pictures):
            axis.imshow(pictures[index])
            axis.set_title(titles[index] if titles else "")
    return figure


def palette_strip(palettes: Mapping[str, Tensor], shares: Mapping[str, Tensor] | None = None, *, width: float = 6.0):
    """Palettes as rows of swatches.

    Args:
        palettes: label to `(k, 3)` CIELAB colors.
        shares: label to `(k,)` shares of the picture; swatches are then as wide as their color is frequent.
        width: of the figure, in inches.
    """
    figure, axes = plt.subplots(len(palettes), 1, figsize=(width, 0.5 * len(palettes)), squeeze=False)
    for axis, (label, lab) in zip(axes.flat, palettes.items(), strict=True):
        rgb = color.lab_to_rgb(lab.T[None].double())[0].T.tolist()
        share = [1 / len(rgb)] * len(rgb) if shares is None else (shares[label] / shares[label].sum()).tolist()
        left = 0.0
        for one, part in zip(rgb, share, strict=True):
            axis.barh(0, part, left=left, height=1, color=one)
            left += part
        axis.set(xlim=(0, 1), ylim=(-0.5, 0.5), xticks=[], yticks=[0], yticklabels=[label])
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    return figure


def slider(before: np.ndarray | Tensor, after: np.ndarray | Tensor, labels: tuple[str, str] = ("before", "after")):
    """A before / after slider in plain HTML, for a notebook and for the site; it needs no kernel and no network.

    Args:
        before, after: pictures of one size.
        labels: their names, also the text that a screen reader speaks.

    Raises:
        ValueError: sizes differ.
    """
    from IPython.display import HTML

    before, after = as_uint8(before), as_uint8(after)
    if before.shape != after.shape:
        raise ValueError(f"slider: sizes differ, {before.shape[:2]} and {after.shape[:2]}; resize one of them")
    first, second = (html.escape(label, quote=True) for label in labels)
    height, width = before.shape[:2]
    full = "position:absolute;inset:0;width:100%;height:100%;margin:0;max-width:none"
    tag = "position:absolute;bottom:.5em;padding:.1em .6em;border-radius:1em;background:#000a;color:#fff;font-size:.8em"
    return HTML(
        f'<div class="ct-slider" style="--at:50%;position:relative;width:100%;max-width:640px;'
        f'aspect-ratio:{width}/{height};overflow:hidden;border-radius:6px">'
        f'<img src="{_data_url(before)}" alt="{first}" style="{full}">'
        f'<img src="{_data_url(after)}" alt="{second}" style="{full};clip-path:inset(0 0 0 var(--at))">'
        '<div style="position:absolute;top:0;bottom:0;left:var(--at);width:2px;margin-left:-1px;background:#fff;'
        'box-shadow:0 0 4px #000"></div>'
        f'<span style="{tag};left:.5em">{first}</span><span style="{tag};right:.5em">{second}</span>'
        f'<input type="range" min="0" max="100" value="50" step="0.1" aria-label="{first} or {second}" '
        "oninput=\"this.parentNode.style.setProperty('--at', this.value + '%')\" "
        f'style="{full};opacity:0;cursor:ew-resize;touch-action:pan-y"></div>'
    )


def show_source(function):
    """The code of a function without its docstring, highlighted: the heart of a method, never a retyped copy."""
    from IPython.display import Code

    code = textwrap.dedent(inspect.getsource(function))
    body = ast.parse(code).body[0].body
    if ast.get_docstring(ast.parse(code).body[0]):
        lines = code.splitlines()
        code = "\n".join(lines[: body[0].lineno - 1] + lines[body[0].end_lineno :])
    return Code(code, language="python")


def _data_url(picture: np.ndarray) -> str:
    """A picture as a JPEG inside the page."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def table(rows: Sequence[Mapping], *, index: str = "method", caption: str = "", digits: int = 2):
    """A table of metrics with arrows for their direction and the best of each column in bold.

    Identity, oracle and truth stand in the table but not in the contest: each is unbeatable at something.

    Args:
        rows: dicts of one shape; numbers, `None` for a blank.
        index: the key that names a row.
        caption: above the table.
        digits: after the point.

    Returns:
        A pandas Styler.
    """
    from ctlib.metrics import METRICS

    frame = pd.DataFrame(list(rows)).set_index(index)
    frame.index.name = None
    contest = frame.index.difference(["identity", "oracle", "truth"])
    arrows = {"higher": "\u00a0↑", "lower": "\u00a0↓", "neither": ""}  # the arrow stays beside its name
    network = "_squeeze"  # whose LPIPS it is
    measured = {one: METRICS[kind] for one in frame.columns if (kind := one.removesuffix(network)) in METRICS}
    for column in measured:
        frame[column] = pd.to_numeric(frame[column].replace("inf", math.inf))
    plain = {one: one.replace(network, " (SqueezeNet)").replace("_", "_\u200b") for one in measured}  # may break
    names = {one: name + arrows[measured[one].better] for one, name in plain.items()}
    styler = frame.rename(columns=names).style.format(precision=digits, na_rep="–")
    for column, metric in measured.items():
        if metric.better == "neither" or frame.loc[contest, column].isna().all():
            continue
        mark = styler.highlight_max if metric.better == "higher" else styler.highlight_min
        styler = mark(subset=pd.IndexSlice[contest, [names[column]]], props="font-weight:bold")
    return styler.set_caption(caption) if caption else styler


def curve(history: Sequence[Mapping], names: Sequence[str] = ("loss",), *, width: float = 6.0) -> Figure:
    """Training curves on a logarithmic axis, thin as logged, thick as a running mean.

    Args:
        history: what `ctlib.train.fit` returns.
        names: which of its numbers.
        width: of the figure, in inches.
    """
    figure, axis = plt.subplots(figsize=(width, 0.45 * width))
    steps = [row["step"] for row in history]
    for name in names:
        values = pd.Series([row[name] for row in history])
        (line,) = axis.plot(steps, values, linewidth=0.6, alpha=0.5)
        axis.plot(steps, values.ewm(span=10).mean(), color=line.get_color(), label=name.replace("_", " "))
    axis.set(xlabel="step", yscale="log")
    axis.grid(which="both")
    axis.legend()
    return figure


#: of columns where they stand above a plot
_TITLES = {"psnr": "PSNR, dB", "lpips_squeeze": "LPIPS (SqueezeNet)"}


def panels(
    lines: Mapping[str, Mapping[str, tuple[Sequence, Sequence]]],
    *,
    xlabel: str = "",
    dotted: Mapping[str, float] | None = None,
    dashed: Mapping[str, float] | None = None,
    yscale: str = "linear",
    height: float = 3.0,
) -> Figure:
    """Line plots side by side.

    Args:
        lines: title of each plot, or the column it shows, to its lines, label to x and y; those with a label get a
            legend.
        xlabel: of all of them.
        dotted, dashed: title to a level that is drawn across, e.g. what doing nothing has, and the truth.
        yscale: of matplotlib. height: inches; each plot is 3.7 wide.
    """
    figure, axes = plt.subplots(1, len(lines), figsize=(3.7 * len(lines), height), layout="constrained", squeeze=False)
    for axis, (title, some) in zip(axes[0], lines.items(), strict=True):
        for label, (x, y) in some.items():
            axis.plot(x, y, marker="o", label=label or None)
        for levels, style_of in ((dotted or {}, ":"), (dashed or {}, "--")):
            if title in levels:
                axis.axhline(levels[title], linestyle=style_of, color="gray")
        axis.set(title=_TITLES.get(title, title), xlabel=xlabel, yscale=yscale)
    labelled = [axis for axis, some in zip(axes[0], lines.values(), strict=True) if some.keys() - {""}]
    if len({tuple(some) for some in lines.values()}) > 1:  # each plot has lines of its own
        for axis in labelled:
            axis.legend(fontsize="small")
    elif labelled:
        labelled[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def bands(lines: Mapping[str, Sequence[Sequence[float]]], ticks: Sequence[str], *, xlabel: str, ylabel: str) -> Figure:
    """Lines through the mean of several tries, each in a band from the lowest to the highest of them.

    Args:
        lines: label to the tries at each of the ticks.
        ticks: names along x.
    """
    figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for label, tries in lines.items():
        (line,) = axis.plot(ticks, [np.mean(one) for one in tries], marker="o", label=label)
        low, high = ([limit(one) for one in tries] for limit in (np.min, np.max))
        axis.fill_between(ticks, low, high, color=line.get_color(), alpha=0.3)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend()
    return figure


def slopes(ranks: pd.DataFrame, color: Callable[[str], str], dashed: Callable[[str], bool]) -> Figure:
    """Ranks by several measures as lines from left to right, named at both ends; 1 is on top.

    Args:
        ranks: a row for each name, a column for each measure.
        color, dashed: of the line of a name.
    """
    figure, axis = plt.subplots(figsize=(9, 5))
    last = len(ranks.columns) - 1
    for name, row in ranks.iterrows():
        style_of = {"linestyle": "--" if dashed(name) else "-", "color": color(name)}
        axis.plot(range(last + 1), row, marker="o", markersize=4, **style_of)
        axis.text(-0.06, row.iloc[0], name, ha="right", va="center", color=color(name))
        axis.text(last + 0.06, row.iloc[last], name, ha="left", va="center", color=color(name))
    axis.set(xticks=range(last + 1), xticklabels=ranks.columns, yticks=[])
    axis.set(xlim=(-1.4, last + 1.4), ylim=(len(ranks) + 0.5, 0.5))
    axis.spines[:].set_visible(False)
    return figure


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


class LiveCurve:
    """A curve that is drawn anew in its place while a training runs in a notebook, at most every two seconds."""

    def __init__(self):
        from IPython.display import display

        self.handle, self.drawn = display(display_id=True), 0.0

    def update(self, history: Sequence[Mapping]) -> None:
        if self.handle is None or len(history) < 2 or time.monotonic() - self.drawn < 2:
            return
        figure = curve(history)
        self.handle.update(figure)
        plt.close(figure)
        self.drawn = time.monotonic()
