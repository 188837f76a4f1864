"""ctlib.figures: what readers see."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from ctlib import figures
from ctlib.classical import palette, statistics


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def picture(height, width, level=128):
    return np.full((height, width, 3), level, np.uint8)


def test_gallery_shows_every_picture_with_its_title():
    shown = [picture(30, 40), torch.zeros(1, 3, 60, 40), picture(30, 40), picture(30, 40), picture(30, 40)]
    figure = figures.gallery(shown, list("abcde"), columns=3)
    assert [axis.get_title() for axis in figure.axes if axis.images] == list("abcde")
    assert len(figure.axes) == 6 and figure.axes[1].images[0].get_array().shape == (60, 40, 3)


def test_gallery_does_not_resample():
    figures.style()
    shown = figures.gallery([picture(10, 10)]).axes[0].images[0]
    assert shown.get_interpolation() == "none"


def test_style_is_transparent_with_gray_ink():
    figures.style()
    figure, axis = plt.subplots()
    assert figure.get_facecolor()[3] == 0 and axis.get_facecolor()[3] == 0
    assert plt.rcParams["text.color"] == figures.INK


def test_palette_strip_widths_follow_the_shares():
    lab = palette.from_hex(["#000000", "#ffffff"])
    figure = figures.palette_strip({"one": lab}, {"one": torch.tensor([3.0, 1.0])})
    bars = figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == pytest.approx([0.75, 0.25])
    assert bars[1].get_facecolor()[:3] == pytest.approx((1, 1, 1), abs=1e-4)


def test_slider_carries_its_pictures_and_no_links():
    page = figures.slider(picture(8, 12), picture(8, 12, 3), ("a <b>", "c")).data
    assert page.count("data:image/jpeg;base64,") == 2 and "http" not in page and "<script" not in page
    assert "a &lt;b&gt;" in page and "aspect-ratio:12/8" in page
    with pytest.raises(ValueError, match="sizes differ"):
        figures.slider(picture(8, 12), picture(8, 13))


def test_table_has_arrows_and_marks_the_best():
    rows = [
        {"method": "x", "psnr": 10.0, "ciede2000": 3.0, "lpips": None},
        {"method": "y", "psnr": 20.0, "ciede2000": 4.0, "lpips": None},
        {"method": "oracle", "psnr": "inf", "ciede2000": 0.0, "lpips": None},
    ]
    page = figures.table(rows, caption="Paired").to_html()
    assert "psnr\u00a0↑" in page and "ciede2000\u00a0↓" in page and "Paired" in page
    assert "10.00" in page and "inf" in page and "–" in page
    # row 1 has the best PSNR and row 0 the best color difference of the methods; the oracle does not compete
    style = page.split("</style>")[0]
    assert "row1_col0" in style and "row0_col1" in style and "row2" not in style and "col2" not in style
    same = figures.table([row | {"method": row["method"].replace("oracle", "truth")} for row in rows]).to_html()
    assert "row2" not in same.split("</style>")[0]  # nor does the truth, as colorizers' tables call it


def test_source_is_shown_without_its_docstring():
    code = figures.show_source(statistics.transport_matrix).data
    assert code.startswith("def transport_matrix") and "Args:" not in code and "cholesky" in code


def test_lpips_of_a_network_is_a_metric_like_another():
    long = figures.table([{"method": "a", "psnr_missing_root": 32.0}]).to_html()
    assert "psnr_\u200bmissing_\u200broot" in long  # a heading may break there
    html = figures.table([{"method": "a", "lpips_squeeze": 0.2}, {"method": "b", "lpips_squeeze": 0.3}]).to_html()
    assert (
        "lpips (SqueezeNet)\u00a0↓" in html and "row0_col0 {\n  font-weight: bold" in html and "row1_col0 {" not in html
    )


def test_panels_show_lines_and_levels():
    lines = {"PSNR": {"one": ([0, 1], [2, 3]), "two": ([0, 1], [4, 5])}, "LPIPS": {"": ([0, 1], [0.2, 0.1])}}
    figure = figures.panels(lines, xlabel="T", dotted={"PSNR": 1.5}, dashed={"LPIPS": 0.0})
    first, second = figure.axes
    assert (first.get_title(), second.get_title(), first.get_xlabel()) == ("PSNR", "LPIPS", "T")
    assert [one.get_linestyle() for one in first.lines] == ["-", "-", ":"] and len(second.lines) == 2
    assert list(first.lines[1].get_ydata()) == [4, 5] and list(first.lines[2].get_ydata()) == [1.5, 1.5]
    assert second.get_legend() is None and len(first.get_legend().get_texts()) == 2


def test_slopes_name_each_line_at_both_ends():
    ranks = pd.DataFrame({"PSNR": [1.0, 2.0], "LPIPS": [2.0, 1.0]}, index=["a", "b"])
    (axis,) = figures.slopes(ranks, lambda name: "red" if name == "a" else "blue", lambda name: name == "b").axes
    assert [text.get_text() for text in axis.texts] == ["a", "a", "b", "b"]
    assert [line.get_linestyle() for line in axis.lines] == ["-", "--"] and axis.lines[0].get_color() == "red"
    assert list(axis.lines[1].get_ydata()) == [2, 1] and axis.get_ylim() == (2.5, 0.5)


def test_bands_go_from_the_lowest_to_the_highest_try():
    (axis,) = figures.bands({"a": [[1.0, 3.0], [4.0]]}, ["few", "many"], xlabel="samples", ylabel="PSNR, dB").axes
    assert list(axis.lines[0].get_ydata()) == [2, 4] and axis.get_xlabel() == "samples"
    (band,) = axis.collections
    assert {tuple(point) for point in band.get_paths()[0].vertices.round(6)} >= {(0, 1), (0, 3), (1, 4)}
