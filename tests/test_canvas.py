"""The picture to click on, without a browser: what a click leads to."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ctlib import chroma, hints, images
from ctlib.canvas import HintCanvas
from ctlib.data import photos


@pytest.fixture
def canvas():
    def tint(rgb, points):
        if any(x > 60 for x, _, _ in points):
            raise ValueError("point 1: outside")
        result = rgb.clone()
        result[:, 0] = min(1.0, 0.5 * len(points))
        return result

    return HintCanvas(photos.tensor("chelsea", 64), tint)


def test_each_click_colors_anew_and_can_be_undone(canvas):
    assert canvas.points == [] and canvas.result[0, 0].max() == 0
    canvas.add(10.6, 20.2)
    canvas.color.value = "#ff8000"
    canvas.add(30, 5)
    assert canvas.points == [(10, 20, "#3060c0"), (30, 5, "#ff8000")]
    assert canvas.result[0, 0].min() == 1.0 and canvas.said.value == "2 hints"
    undo, clear = canvas.widget.children[0].children[1:]
    undo.click()
    assert canvas.points == [(10, 20, "#3060c0")] and canvas.result[0, 0].max() == 0.5
    clear.click()
    assert canvas.points == []


def test_what_is_shown_is_the_result_at_its_size(canvas):
    canvas.add(1, 1)
    shown = np.asarray(Image.open(io.BytesIO(canvas.view.value)))
    assert np.array_equal(shown, images.to_uint8(canvas.result))
    assert (canvas.layers.height, canvas.layers.width) == shown.shape[:2]


def test_a_hint_that_cannot_be_is_said_and_not_kept(canvas):
    canvas.add(5, 5)
    before = canvas.result
    canvas.add(62, 5)
    assert canvas.said.value == "point 1: outside"
    assert canvas.points == [(5, 5, "#3060c0")] and canvas.result is before


def test_a_color_that_gives_way_to_another_is_said():
    def point(rgb, points):
        hints.from_points(points, rgb.shape[2:], lightness=chroma.lightness(rgb))
        return rgb

    canvas = HintCanvas(torch.ones(1, 3, 32, 32), point, color="#0000ff")
    canvas.add(5, 5)
    assert canvas.said.value.startswith("1 hints; point 1: sRGB cannot show") and len(canvas.points) == 1
    canvas.color.value = "#ffffff"
    canvas.keep([])
    canvas.add(5, 5)
    assert canvas.said.value == "1 hints"


def test_one_picture_only(canvas):
    with pytest.raises(ValueError, match="expected one picture"):
        HintCanvas(torch.rand(2, 3, 8, 8), canvas.colorize)
