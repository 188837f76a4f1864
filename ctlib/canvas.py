"""A picture to click on in JupyterLab: each click is a hint of color, and the picture is colored anew.

The widgets are ipycanvas's and ipywidgets's. They need a kernel, so a page of the book shows fixed hints instead.

Taught in: notebooks/42_user_guided_colorization.
"""

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image
from torch import Tensor

from ctlib import chroma, images

Point = tuple[int, int, str]  # column, row, "#rrggbb"
Colorize = Callable[[Tensor, list[Point]], Tensor]


class HintCanvas:
    """Left the gray picture with its hints, right what the colorizer makes of it.

    Args:
        rgb: `(1, 3, H, W)` sRGB in [0, 1], shown at the size it has: some hundred pixels a side.
        colorize: picture and points to a picture of the same size, e.g. of `ctlib.colorizers`.
        color: the first color to click with.

    Attributes:
        points: the hints so far, `(x, y, "#rrggbb")`.
        result: `(1, 3, H, W)`, the picture as it is colored now.
        widget: to be shown as the last value of a cell.

    Raises:
        RuntimeError: ipycanvas is not installed.
        ValueError: not one picture.
    """

    def __init__(self, rgb: Tensor, colorize: Colorize, color: str = "#3060c0"):
        try:
            import ipycanvas
            import ipywidgets
        except ImportError as error:
            raise RuntimeError(f"{error.name} is not installed; pip install ipycanvas ipywidgets") from error
        if rgb.ndim != 4 or len(rgb) != 1:
            raise ValueError(f"rgb: expected one picture (1, 3, H, W), got {tuple(rgb.shape)}")
        self.rgb, self.colorize = rgb, colorize
        self.points: list[Point] = []
        height, width = rgb.shape[2:]
        self.layers = ipycanvas.MultiCanvas(2, width=width, height=height)
        gray = chroma.join(chroma.lightness(rgb), rgb.new_zeros(1, 2, 1, 1))
        self.layers[0].put_image_data(np.ascontiguousarray(images.to_uint8(gray)), 0, 0)
        self.layers[1].on_mouse_down(self.add)
        self.color = ipywidgets.ColorPicker(value=color, description="color")
        self.view = ipywidgets.Image(format="png", width=width, height=height)
        self.said = ipywidgets.Label()
        undo, clear = (ipywidgets.Button(description=name) for name in ("undo", "clear"))
        undo.on_click(lambda _: self.keep(self.points[:-1]))
        clear.on_click(lambda _: self.keep([]))
        self.widget = ipywidgets.VBox(
            [
                ipywidgets.HBox([self.color, undo, clear]),
                ipywidgets.HBox([self.layers, self.view]),
                self.said,
            ]
        )
        self.keep([])

    def add(self, x: float, y: float) -> None:
        """A click at a column and a row."""
        self.keep([*self.points, (int(x), int(y), self.color.value)])

    def keep(self, points: list[Point]) -> None:
        """Color the picture by these hints, unless they cannot be: then the old ones stay, and a line says why.

        The line also has what the colorizer warns of, e.g. a color that had to give way to one that can be shown.
        """
        try:
            with warnings.catch_warnings(record=True) as given:
                warnings.simplefilter("always", UserWarning)
                self.result = self.colorize(self.rgb, points)
        except ValueError as error:
            self.said.value = str(error)
            return
        told = [str(one.message) for one in given if issubclass(one.category, UserWarning)]
        self.points, self.said.value = points, "; ".join([f"{len(points)} hints", *told[-1:]])  # the newest, in a line
        self._draw()

    def _draw(self) -> None:
        marks = self.layers[1]
        marks.clear()
        for x, y, color in self.points:
            marks.fill_style, marks.stroke_style = color, "white"
            marks.fill_circle(x, y, 5)
            marks.stroke_circle(x, y, 5)
        encoded = io.BytesIO()
        Image.fromarray(images.to_uint8(self.result)).save(encoded, "PNG")
        self.view.value = encoded.getvalue()
