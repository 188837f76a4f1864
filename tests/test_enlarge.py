"""What was done to a small picture, done to a large one."""

import re
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from ctlib import color, ops
from ctlib.classical.distribution import spread
from ctlib.enlarge import NODES, enlarge, fit
from ctlib.ops.palette_lut import lookup
from ctlib.segment.soft import grown


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shrunk(rgb, size):
    return functional.interpolate(rgb, size, mode="bilinear", antialias=True).clamp(0, 1)


def smooth(height, width, batch=1, seed=0):
    """A picture with all kinds of colors and grain, of which a small copy keeps the colors."""
    big = functional.interpolate(noise(batch, 3, 6, 8, seed=seed), (height, width), mode="bicubic", antialias=False)
    return (0.2 + 0.6 * big + 0.05 * (noise(batch, 3, height, width, seed=seed + 1) - 0.5)).clamp(0, 1)


def coarse(strength=4.0, seed=5):
    return strength * (noise(3, 3, 3, 3, seed=seed) - 0.5)


def case(height=120, width=160, by=4, batch=1):
    source = smooth(height, width, batch)
    return source, shrunk(source, (max(1, height // by), max(1, width // by)))


def far(first, second):
    """Largest distance in CIELAB."""
    return (ops.rgb_to_lab(first) - ops.rgb_to_lab(second)).norm(dim=1).max().item()


def test_a_change_that_is_a_function_of_color_is_that_at_full_size():
    """Where a small copy shows every cell of the table, it is found again, whatever lies where."""
    source, small = smooth(120, 160), noise(1, 3, 200, 300)
    bend = functional.interpolate(coarse()[None], (NODES,) * 3, mode="trilinear", align_corners=True)[0]
    result = ops.rgb_to_lab(small) + lookup(bend, small)
    expected = ops.lab_to_rgb(ops.rgb_to_lab(source) + lookup(bend, source))
    assert far(source, expected) > 1
    assert far(enlarge(source, small, result), expected) < 0.1


@pytest.mark.parametrize("size", [(1, 1), (1, 301), (97, 1), (33, 65), (120, 161)])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_constant_shift_is_exact(size, batch):
    source, small = case(*size, batch=batch)
    shift = torch.tensor([3.0, -2.0, 4.0]).view(1, 3, 1, 1)
    result = enlarge(source, small, ops.rgb_to_lab(small) + shift)
    assert result.shape == source.shape
    assert (result - ops.lab_to_rgb(ops.rgb_to_lab(source) + shift)).abs().max() < 1e-4


@pytest.mark.parametrize("size", [(1, 1), (1, 301), (97, 1), (120, 161)])
def test_nothing_done_leaves_the_picture(size):
    source, small = case(*size)
    assert (enlarge(source, small, ops.rgb_to_lab(small)) - source).abs().max() < 1e-4


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_picture_of_one_color_gets_that_color(level):
    source = torch.full((1, 3, 50, 70), level)
    small = source[:, :, :10, :14]
    wanted = torch.tensor([40.0, 5.0, -5.0]).view(1, 3, 1, 1)
    result = enlarge(source, small, wanted.expand_as(small))
    assert (result - ops.lab_to_rgb(wanted)).abs().max() < 1e-4


def test_what_is_known_of_color_is_done_to_each_pixel():
    """Grain that the small copy does not show gets what its own color asks for, however steep."""
    source, small = case()

    def steep(rgb):
        return (3 * (rgb - 0.5) + 0.5).clamp(0, 1)

    result = ops.rgb_to_lab(steep(small))
    expected = steep(source)
    assert (enlarge(source, small, result, [steep]) - expected).abs().max() < 1e-4
    change = functional.interpolate(result - ops.rgb_to_lab(small), source.shape[2:], mode="bilinear")
    assert far(ops.lab_to_rgb(ops.rgb_to_lab(source) + change), expected) > 5


def test_what_depends_on_place_is_enlarged():
    """The same gray all over, lighter to the right: no table of colors can know that."""
    small = torch.full((1, 3, 64, 128), 0.5)
    ramp = torch.linspace(-10, 10, 128).expand(1, 1, 64, 128)
    result = ops.rgb_to_lab(small) + torch.cat([ramp, 0 * ramp, 0 * ramp], 1)
    lightness = ops.rgb_to_lab(enlarge(torch.full((1, 3, 256, 512), 0.5), small, result))[0, 0]
    expected = functional.interpolate(result[:, :1], (256, 512), mode="bilinear")[0, 0]
    middle = slice(32, -32)  # a mean over squares flattens the ends
    assert (lightness - expected)[:, middle].abs().max() < 0.1
    assert (lightness - expected).abs().max() < 1


def left_and_right(rgb, top, height):
    """Weights of two regions, and of one that is nowhere."""
    left = (torch.arange(rgb.shape[3]) < rgb.shape[3] // 2).float().expand(1, 1, rgb.shape[2], -1)
    return torch.cat([left, 1 - left, 0 * left], 1)


def test_maps_are_mixed_by_weights():
    source, small = case(batch=1)
    left = left_and_right(small, 0, len(small))[:, :1]
    maps = [lambda rgb: 1 - rgb, lambda rgb: rgb / 2, None]
    result = ops.rgb_to_lab(left * (1 - small) + (1 - left) * small / 2)
    found, edge = enlarge(source, small, result, maps, left_and_right), source.shape[3] // 2
    assert (found - (1 - source))[..., : edge - 8].abs().max() < 1e-4
    assert (found - source / 2)[..., edge + 8 :].abs().max() < 1e-4


@pytest.mark.parametrize("piece", [700, 1 << 18])
def test_each_region_has_a_table(piece):
    """The same colors left and right, lighter here and redder there: one table would do the mean to both."""
    source, small = smooth(120, 160), noise(1, 3, 60, 80)
    shifts = torch.tensor([[8.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, 0.0]])
    both = lambda rgb: torch.einsum("brhw,rc->bchw", left_and_right(rgb, 0, 0), shifts)  # noqa: E731
    result = ops.rgb_to_lab(small) + both(small)
    expected = ops.lab_to_rgb(ops.rgb_to_lab(source) + both(source))
    assert far(enlarge(source, small, result, weights=left_and_right, piece=piece), expected) < 0.1
    assert far(enlarge(source, small, result, piece=piece), expected) > 3


@pytest.mark.parametrize("piece", [1, 700, 5000])
def test_the_result_does_not_depend_on_the_pieces(piece):
    source, small = case(61, 83, batch=2)
    result = ops.rgb_to_lab(small) + 20 * (noise(*small.shape, seed=3) - 0.5)
    whole = enlarge(source, small, result, piece=1 << 30)
    assert (enlarge(source, small, result, piece=piece) - whole).abs().max() < 1e-5


def test_a_batch_is_a_loop():
    source, small = case(batch=3)
    result = ops.rgb_to_lab(small) + 20 * (noise(*small.shape, seed=3) - 0.5)
    together = enlarge(source, small, result)
    for i in range(3):
        alone = enlarge(*(x[i : i + 1] for x in (source, small, result)))
        assert (together[i : i + 1] - alone).abs().max() < 1e-5


def test_dtypes():
    source, small = case()
    result = ops.rgb_to_lab(small) + 3
    single = enlarge(source, small, result)
    double = enlarge(source.double(), small.double(), result.double())
    assert single.dtype == torch.float32 and double.dtype == torch.float64
    assert (single - double).abs().max() < 1e-4
    assert (enlarge(source.double(), small, result) - double).abs().max() < 1e-4


def test_no_gradient_is_kept():
    source, small = case(20, 30)
    assert not enlarge(source.requires_grad_(), small, ops.rgb_to_lab(small)).requires_grad


def test_rows_are_those_of_the_picture_enlarged_at_once():
    maps = noise(2, 3, 7, 9, dtype=torch.float64)
    for size in ((30, 41), (5, 6), (1, 100), (7, 9)):
        whole = functional.interpolate(maps, size, mode="bilinear")
        for top in range(0, size[0], 4):
            bottom = min(top + 4, size[0])
            assert grown(maps, top, bottom, size) == pytest.approx(whole[:, :, top:bottom], abs=1e-12)


def test_fit_is_the_least_squares_solution_of_numpy():
    """Where colors are many, the table's stiffness does not matter."""
    colors, nodes = noise(3, 6000, dtype=torch.float64), 4
    values = torch.sin(5 * colors) + colors.roll(1, 0) ** 2
    places = spread(6000, 1 << 17)
    basis = torch.eye(nodes**3, dtype=torch.float64).reshape(-1, nodes, nodes, nodes)
    design = torch.cat([lookup(unit.expand(3, -1, -1, -1), colors[None])[0, :1] for unit in basis]).T[places]
    expected = torch.linalg.lstsq(design, values.T[places]).solution.T.reshape(3, nodes, nodes, nodes)
    assert fit(colors, values, nodes, stiffness=1e-9) == pytest.approx(expected, abs=1e-5)


def test_a_color_that_counts_twice_is_there_twice():
    colors, values = noise(3, 500), noise(3, 500, seed=1)
    twice = torch.arange(500) % 3 - 1  # -1 for none
    places = torch.cat([torch.arange(500)[twice >= 0], torch.arange(500)[twice == 1]])
    expected = fit(colors[:, places], values[:, places], 4)
    assert fit(colors, values, 4, weights=(twice + 1).float()) == pytest.approx(expected, abs=1e-5)


def test_nodes_without_colors_get_what_their_neighbors_hold():
    dark = 0.3 * noise(3, 50, 50)
    found = fit(dark, dark)
    assert found.isfinite().all() and found.max() < 0.45 and found.min() > -0.05
    assert lookup(found, torch.ones(1, 3, 1)).flatten() == pytest.approx(torch.full((3,), 0.3), abs=0.1)


BAD = [
    ({"small": noise(2, 3, 8, 8), "result": noise(2, 3, 8, 8)}, "one small picture a source, got 1 and 2"),
    ({"result": noise(1, 3, 8, 9)}, "result and small: shapes differ"),
    ({"source": noise(3, 8, 8)}, "source: expected 3 color channels"),
    ({"small": 255 * noise(1, 3, 8, 8)}, "small: expected sRGB in .*divide by 255"),
    ({"result": torch.full((1, 3, 8, 8), torch.nan)}, "result: holds NaN"),
    ({"piece": 0}, "piece: expected at least 1 pixel, got 0"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_wrong_input_is_named(change, message):
    good = {"source": noise(1, 3, 32, 32), "small": noise(1, 3, 8, 8), "result": color.rgb_to_lab(noise(1, 3, 8, 8))}
    with pytest.raises(ValueError, match=message):
        enlarge(**good | change)


PROGRAM = """
import re, torch
from ctlib.enlarge import enlarge
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
small = torch.rand(1, 3, 30, 40)
enlarge(small, small, 50 * torch.rand(1, 3, 30, 40))
source = torch.rand(1, 3, 1500, 2000)
before = peak()
enlarge(source, small, 50 * torch.rand(1, 3, 30, 40))
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of memory from /proc")
def test_beside_the_result_memory_is_a_strip():
    """The result of 3 megapixels is 34 MB; chains of whole pictures would be a multiple of it."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"[\d.]+", done.stdout)[0]) < 34 + 60
