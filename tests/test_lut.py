"""Look-up tables: exact at the nodes and for affine maps, true to the .cube format, clear about bad files."""

import os

import colour
import pytest
import torch

from ctlib import color, lut
from ctlib.classical import palette

GENERATOR = torch.Generator().manual_seed(0)
RGB = torch.rand(2, 3, 7, 5, dtype=torch.float64, generator=GENERATOR)
HEAD = "LUT_3D_SIZE 2\n"
ROWS = "".join(f"{r} {g} {b}\n" for b in (0, 1) for g in (0, 1) for r in (0, 1))


def random_lut(nodes: int) -> torch.Tensor:
    return torch.rand(3, nodes, nodes, nodes, dtype=torch.float64, generator=GENERATOR)


def affine(rgb: torch.Tensor) -> torch.Tensor:
    matrix = torch.tensor([[0.5, 0.2, -0.1], [0.1, 0.7, 0.3], [-0.2, 0.1, 0.9]], dtype=rgb.dtype)
    return torch.einsum("ij,bj...->bi...", matrix, rgb) + 0.05


@pytest.mark.parametrize("nodes", [2, 3, 13, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identity_and_affine_maps_are_exact(nodes, dtype):
    rgb = RGB.to(dtype)
    same = lut.apply(lut.sample(lambda grid: grid, nodes), rgb)
    assert same.dtype == dtype and same.shape == rgb.shape
    torch.testing.assert_close(same, rgb, atol=1e-6, rtol=0)
    torch.testing.assert_close(lut.apply(lut.sample(affine, nodes), rgb), affine(rgb), atol=1e-6, rtol=0)


def test_index_order_is_red_green_blue_and_nodes_are_exact():
    table = random_lut(5)
    grid = lut.sample(lambda rgb: rgb, 5)
    torch.testing.assert_close(lut.apply(table, grid[None])[0], table, atol=1e-12, rtol=0)
    corner = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)[None, :, None]
    torch.testing.assert_close(lut.apply(table, corner)[0, :, 0], table[:, 4, 0, 2])


def test_white_and_values_beyond_the_cube():
    table = random_lut(4)
    ends = torch.tensor([[[1.0], [1.0], [1.0]], [[0.0], [0.0], [0.0]]], dtype=torch.float64)
    out = lut.apply(table, ends)
    torch.testing.assert_close(out[..., 0], torch.stack([table[:, 3, 3, 3], table[:, 0, 0, 0]]))
    torch.testing.assert_close(lut.apply(table, ends * 1.5 - 0.1), out)


def test_pieces_join_and_any_trailing_shape_works():
    table = random_lut(3)
    many = torch.rand(2, 3, 3 * 16384 // 4 + 5, dtype=torch.float64, generator=GENERATOR)
    whole = lut.apply(table, many)
    torch.testing.assert_close(whole[1:, :, -9:], lut.apply(table, many[1:, :, -9:]))
    assert lut.as_map(table)(RGB[:, :, 0, 0]).shape == (2, 3)


def test_gradients():
    table = random_lut(3).requires_grad_()
    inside = (torch.rand(2, 3, 4, dtype=torch.float64, generator=GENERATOR) * 0.4 + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(lut.apply, (table, inside))
    white = torch.ones(1, 3, 1, dtype=torch.float64, requires_grad=True)
    lut.apply(lut.sample(lambda grid: grid, 3), white).sum().backward()
    torch.testing.assert_close(white.grad, torch.ones_like(white))  # grid_sample would say 0 here


def test_round_trip_through_a_file(tmp_path):
    table = random_lut(9)
    path = lut.save_cube(tmp_path / "look.cube", table, title='my "look"\nsecond line')
    torch.testing.assert_close(lut.load_cube(path), table, atol=1e-6, rtol=0)
    assert path.read_text().splitlines()[0] == "TITLE \"my 'look' second line\""
    assert os.listdir(tmp_path) == ["look.cube"]


def test_saved_values_are_clamped(tmp_path):
    path = lut.save_cube(tmp_path / "wide.cube", random_lut(3) * 3 - 1)
    loaded = lut.load_cube(path)
    assert loaded.min() == 0 and loaded.max() == 1


def test_colour_science_reads_the_same_table_and_applies_it_alike(tmp_path):
    table = random_lut(6)
    peer = colour.io.read_LUT_IridasCube(str(lut.save_cube(tmp_path / "peer.cube", table)))
    torch.testing.assert_close(torch.from_numpy(peer.table).double().permute(3, 0, 1, 2), table, atol=1e-6, rtol=0)
    rgb = RGB[:1]
    theirs = peer.apply(rgb[0].permute(1, 2, 0).numpy(), interpolator=colour.algebra.table_interpolation_trilinear)
    ours = lut.apply(table, rgb)[0].permute(1, 2, 0)
    torch.testing.assert_close(ours, torch.from_numpy(theirs).double(), atol=1e-6, rtol=0)


def test_we_read_what_colour_science_writes(tmp_path):
    table = random_lut(4)
    path = tmp_path / "theirs.cube"
    colour.io.write_LUT_IridasCube(colour.LUT3D(table.permute(1, 2, 3, 0).numpy(), "theirs"), str(path))
    torch.testing.assert_close(lut.load_cube(path), table, atol=1e-6, rtol=0)


def test_comments_blank_lines_keywords_and_line_ends(tmp_path):
    path = tmp_path / "odd.cube"
    text = (
        f'\ufeff# made by hand\r\n\r\nTITLE "# 1"\r\n{HEAD}DOMAIN_MIN 0.0 0 0\nDOMAIN_MAX 1 1.0 1\n# data\n\n{ROWS}\n\n'
    )
    path.write_bytes(text.encode())
    torch.testing.assert_close(lut.load_cube(path), lut.sample(lambda grid: grid, 2))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no LUT_3D_SIZE"),
        (ROWS, "line 1: numbers before"),
        (HEAD + ROWS[:-6], "truncated"),
        (HEAD + ROWS[:-3], "line 9: expected 3 finite"),
        (HEAD + ROWS + "0 0 0\n", "line 10: more than the 8"),
        (HEAD + ROWS.replace("1 1 1", "1 nan 1"), "line 9: expected 3 finite"),
        (HEAD + ROWS.replace("1 1 1", "nan 1 1"), "line 9: expected 3 finite"),
        (HEAD + ROWS.replace("1 1 1", "1 inf 1"), "line 9: expected 3 finite"),
        (HEAD + ROWS.replace("1 1 1", "1 one 1"), "line 9: expected 3 finite"),
        ("LUT_1D_SIZE 4\n0 0 0\n", "line 1: a 1-D table"),
        ("LUT_3D_SIZE 1\n0 0 0\n", "line 1: expected one LUT_3D_SIZE"),
        ("LUT_3D_SIZE 300\n", "line 1: expected one LUT_3D_SIZE"),
        ("LUT_3D_SIZE two\n", "line 1: expected one LUT_3D_SIZE"),
        (HEAD + HEAD + ROWS, "line 2: expected one LUT_3D_SIZE"),
        ("DOMAIN_MAX 4 4 4\n" + HEAD + ROWS, "line 1: a domain other"),
        ("LUT_IN_VIDEO_RANGE\n" + HEAD + ROWS, "line 1: unknown keyword"),
    ],
)
def test_bad_files_are_one_clear_error(tmp_path, text, says):
    path = tmp_path / "bad.cube"
    path.write_text(text)
    with pytest.raises(lut.LutError, match=says) as caught:
        lut.load_cube(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_binary_and_unwritable_files(tmp_path):
    with pytest.raises(lut.LutError, match="cannot be read"):
        lut.load_cube(tmp_path / "none.cube")
    (tmp_path / "binary.cube").write_bytes(bytes(range(128, 256)))
    with pytest.raises(lut.LutError, match="not a text file"):
        lut.load_cube(tmp_path / "binary.cube")
    with pytest.raises(lut.LutError, match="cannot be written"):
        lut.save_cube(tmp_path / "no folder" / "x.cube", random_lut(2))


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    path = lut.save_cube(tmp_path / "look.cube", lut.sample(lambda grid: grid, 2))
    before = path.read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(lut.LutError, match="No space left"):
        lut.save_cube(path, random_lut(3))
    assert os.listdir(tmp_path) == ["look.cube"] and path.read_text() == before


def test_bad_tables():
    with pytest.raises(lut.LutError, match="expected shape"):
        lut.apply(torch.zeros(3, 4, 4, 5), RGB)
    with pytest.raises(lut.LutError, match="nodes"):
        lut.sample(lambda grid: grid, 1)
    with pytest.raises(lut.LutError, match="color_map"):
        lut.sample(lambda grid: grid * float("nan"), 3)
    with pytest.raises(lut.LutError, match="NaN"):
        lut.save_cube("unused.cube", torch.full((3, 2, 2, 2), float("nan")))


def test_more_nodes_come_closer_to_the_exact_recoloring(capsys):
    old = palette.palette_from_rgb([[0.1, 0.1, 0.2], [0.6, 0.2, 0.2], [0.3, 0.6, 0.4], [0.9, 0.8, 0.6]])
    new = old.clone()
    new[1] += torch.tensor([8.0, -40.0, 20.0], dtype=torch.float64)
    rgb = torch.rand(1, 3, 4000, dtype=torch.float64, generator=GENERATOR)
    exact = color.rgb_to_lab(palette.transfer(old, new, nodes=None)(rgb).clamp(0, 1))
    errors = []
    for nodes in (9, 13, 17, 33):
        table = color.rgb_to_lab(palette.transfer(old, new, nodes=nodes)(rgb).clamp(0, 1))
        errors.append((table - exact).norm(dim=1).mean().item())
    with capsys.disabled():
        print("\nLUT against exact, mean CIE76 at 9, 13, 17, 33 nodes:", *(f"{error:.3f}" for error in errors))
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 2
