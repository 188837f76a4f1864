"""16-bit pixels to 8 bits, rounded. Pillow has no 16-bit color mode: of each channel it keeps the high byte alone.

That is too dark by up to a level in the shadows and too bright in the highlights. `ctlib.images` therefore decodes such
a picture a second time with the order of the two bytes exchanged, which gives the low bytes.
"""

import sys
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

_EXCHANGED = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
_KINDS = ("RGB", "RGBX", "RGBA", "CMYK")  # not RGBa: its unpacker divides by alpha, which mixes up single bytes


def raw_mode(image: ImageFile.ImageFile) -> str:
    """Pillow's name for how the pixels lie in the file, e.g. `"RGB;16B"`; "" once the picture is loaded."""
    args = image.tile[0].args if image.tile else ""
    return args if isinstance(args, str) else args[0]


def gray_levels(image: ImageFile.ImageFile) -> np.ndarray | None:
    """The 8-bit level of each 16-bit gray value; `None` for other pictures. (Pillow's own conversion saturates.)"""
    if not image.mode.startswith("I;16"):
        return None
    white = 4095 if raw_mode(image) == "I;12" else 65535
    levels = np.rint(np.arange(65536) * (255 / white)).clip(0, 255).astype(np.uint8)
    inverted = image.format == "TIFF" and image.tag_v2.get(262) == 0  # WhiteIsZero, which Pillow heeds only at 8 bits
    return 255 - levels if inverted else levels


def is_color(image: ImageFile.ImageFile) -> bool:
    """Whether `low_bytes` can complete this picture, which is not loaded yet."""
    kind, _, depth = raw_mode(image).partition(";")
    return kind in _KINDS and depth in _EXCHANGED


def low_bytes(stream: BinaryIO) -> Image.Image:
    """Decode the low byte of each channel of a picture that `is_color`.

    Of a compressed TIFF that lies plane by plane Pillow gives the high bytes again; `rounded` then changes nothing.
    """
    stream.seek(0)
    image = Image.open(stream, formats=("PNG", "TIFF"))
    kind, _, depth = raw_mode(image).partition(";")
    mode = f"{kind};{_EXCHANGED[depth]}"
    image.tile = [
        tile._replace(args=mode if isinstance(tile.args, str) else (mode, *tile.args[1:])) for tile in image.tile
    ]
    image.load()
    return image


def rounded(high: Image.Image, low: Image.Image) -> Image.Image:
    """The nearest 8-bit levels: of v = 256 high + low that is v / 257 = high + (low - high) / 257, rounded."""
    levels = np.asarray(high)
    rest = np.asarray(low).astype(np.int16) - levels
    strip = Image.frombytes(high.mode, high.size, (levels + (rest > 128) - (rest < -128)).tobytes())
    strip.info = high.info  # knows the transparent color
    return strip


def scale_transparent_color(image: ImageFile.ImageFile) -> None:
    """Bring the transparent color of a PNG to the depth of the decoded pixels; Pillow leaves it at the file's."""
    color, raw = image.info.get("transparency"), raw_mode(image)
    top = {"L;2": 3, "L;4": 15}.get(raw)
    if isinstance(color, int) and top:
        image.info["transparency"] = (color & top) * (255 // top)
    elif isinstance(color, tuple) and raw == "RGB;16B":
        image.info["transparency"] = tuple(round(value / 257) for value in color)
