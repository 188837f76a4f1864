"""Any global color map as a 3-D look-up table, and the `.cube` files that photo and video software read.

A table is a tensor `(3, N, N, N)` indexed `[channel, red, green, blue]`: node `i` of an axis stands for the sRGB value
`i / (N - 1)`. Between nodes the colors are mixed trilinearly, so every affine map of RGB is reproduced exactly.

Taught in: notebooks/12_palette_recoloring.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ctlib import check
from ctlib.atomic import replacing
from ctlib.ops import palette_lut

ColorMap = Callable[[Tensor], Tensor]

_SIZES = range(2, 257)  # what the .cube specification allows


class LutError(ValueError):
    """A look-up table or a `.cube` file that cannot be used; the message names the place and the remedy."""


def _checked(lut: Tensor) -> Tensor:
    if lut.ndim != 4 or lut.shape[0] != 3 or len(set(lut.shape[1:])) != 1 or lut.shape[1] not in _SIZES:
        raise LutError(f"lut: expected shape (3, N, N, N) with N from 2 to 256, got {tuple(lut.shape)}")
    return lut


def sample(color_map: ColorMap, nodes: int = 33) -> Tensor:
    """Evaluate a color map on a regular grid of sRGB.

    Args:
        color_map: takes and returns `(B, 3, ...)` rgb.
        nodes: grid points an axis, 2 to 256. 33 is what cameras and editors expect; 13 is Chang's demo.

    Returns:
        `(3, N, N, N)` float64, not clipped.

    Raises:
        LutError: `nodes` out of range, or the map returned another shape or NaN.
    """
    if nodes not in _SIZES:
        raise LutError(f"nodes: expected a whole number from 2 to 256, got {nodes}")
    axis = torch.linspace(0, 1, nodes, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    lut = color_map(grid[None])[0]
    if lut.shape != grid.shape or not torch.isfinite(lut).all():
        raise LutError("color_map: must return finite colors of the shape it was given, (B, 3, ...)")
    return lut


def apply(lut: Tensor, rgb: Tensor) -> Tensor:
    r"""Look colors up, trilinearly. Differentiable in the table and in the colors.

    Args:
        lut: `(3, N, N, N)` float.
        rgb: `(B, 3, ...)` float sRGB; values outside [0, 1] take the color of the nearest face.

    Returns:
        `(B, 3, ...)` in the dtype and on the device of `rgb`; at the nodes exactly the table's values.

    Raises:
        LutError: the table is not `(3, N, N, N)`.
    """
    check.colors(rgb, "rgb")
    return palette_lut.lookup(_checked(lut), rgb)


def as_map(lut: Tensor) -> ColorMap:
    """The table as a color map, `(B, 3, ...)` to `(B, 3, ...)`."""
    _checked(lut)
    return lambda rgb: apply(lut, rgb)


def save_cube(path: str | os.PathLike, lut: Tensor, title: str = "ctlib") -> Path:
    """Write a `.cube` file, whole or not at all.

    Args:
        path: where to; the folder must exist.
        lut: `(3, N, N, N)` float. Values are clamped to [0, 1]: programs differ in what they do with others.
        title: one line that editors show; line breaks and double quotes are replaced.

    Returns:
        The path.

    Raises:
        LutError: the table has a wrong shape or holds NaN, or the file cannot be written.
    """
    path = Path(path)
    if not torch.isfinite(_checked(lut)).all():
        raise LutError(f"{path}: the table holds NaN or infinite values; repair the map before saving it")
    title = " ".join(title.replace('"', "'").split())
    rows = lut.detach().double().clamp(0, 1).permute(3, 2, 1, 0).reshape(-1, 3).tolist()  # red runs fastest
    head = f'TITLE "{title}"\nLUT_3D_SIZE {lut.shape[1]}\nDOMAIN_MIN 0 0 0\nDOMAIN_MAX 1 1 1\n\n'
    try:
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(head)
            file.writelines(f"{red:.7f} {green:.7f} {blue:.7f}\n" for red, green, blue in rows)
    except OSError as error:
        raise LutError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    return path


def load_cube(path: str | os.PathLike) -> Tensor:
    """Read a 3-D `.cube` file over the domain [0, 1].

    Args:
        path: the file. Comments, blank lines, TITLE, DOMAIN_MIN, DOMAIN_MAX and LUT_3D_INPUT_RANGE are understood.

    Returns:
        `(3, N, N, N)` float64, as written (values outside [0, 1] are kept).

    Raises:
        LutError: naming the file, the line and the remedy: no such file, 1-D table, unknown keyword, another domain,
            wrong or missing numbers, truncated.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise LutError(f"{path}: not a text file; export a .cube file from your program") from None
    except OSError as error:
        raise LutError(f"{path}: cannot be read ({error.strerror}); check the path") from error

    size, rows = 0, []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#") or words[0] == "TITLE":
            continue
        where = f"{path}, line {number}"
        if words[0][0].isalpha() and words[0].lower() not in ("nan", "inf", "infinity"):
            if words[0] != "LUT_3D_SIZE":
                _check_keyword(words, where)
            elif size or len(words) != 2 or not words[1].isdecimal() or int(words[1]) not in _SIZES:
                raise LutError(f"{where}: expected one LUT_3D_SIZE, 2 to 256, got {line.strip()[:40]!r}; export again")
            else:
                size = int(words[1])
            continue
        if not size:
            raise LutError(f"{where}: numbers before LUT_3D_SIZE; add the line, or export the file again")
        rows.append(_numbers(words, where))
        if len(rows) > size**3:
            raise LutError(f"{where}: more than the {size**3} colors of LUT_3D_SIZE {size}; correct the size")
    if not size:
        raise LutError(f"{path}: no LUT_3D_SIZE, so not a 3-D .cube file; export the file again")
    if len(rows) < size**3:
        raise LutError(f"{path}: ends after {len(rows)} of {size**3} colors, the file is truncated; export it again")
    return torch.tensor(rows, dtype=torch.float64).reshape(size, size, size, 3).permute(3, 2, 1, 0).contiguous()


def _check_keyword(words: list[str], where: str) -> None:
    """Pass over what says "the domain is [0, 1]"; refuse what would change the meaning of the numbers."""
    domains = {"DOMAIN_MIN": [0, 0, 0], "DOMAIN_MAX": [1, 1, 1], "LUT_3D_INPUT_RANGE": [0, 1]}
    if words[0] in ("LUT_1D_SIZE", "LUT_1D_INPUT_RANGE"):
        raise LutError(f"{where}: a 1-D table; convert it to a 3-D .cube file, e.g. with colour-science")
    if words[0] not in domains:
        raise LutError(f"{where}: unknown keyword {words[0][:40]!r}; delete the line if it does not change the colors")
    if _numbers(words[1:], where, len(domains[words[0]])) != domains[words[0]]:
        raise LutError(f"{where}: a domain other than [0, 1]; export the table for inputs from 0 to 1")


def _numbers(words: list[str], where: str, count: int = 3) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != count or not all(abs(value) < float("inf") for value in values):
        shown = " ".join(words)[:60]
        raise LutError(f"{where}: expected {count} finite numbers, got {shown!r}; export the file again")
    return values
