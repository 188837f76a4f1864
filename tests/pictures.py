"""What the tests of `ctlib.images` share: pictures written by hand, so that each expected pixel is known."""

import resource
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from ctlib import images
from ctlib.images import ImageReadError

RNG = np.random.default_rng(2)
RGB = RNG.integers(0, 256, (24, 31, 3), dtype=np.uint8)
GRAY = RGB[..., 0]
ALPHA = RGB[..., 1]


def over_white(rgb, alpha):
    """What a picture with transparency shows on a white page."""
    alpha = alpha[..., None] / 255
    return rgb * alpha + 255 * (1 - alpha)


def triple(gray):
    return np.repeat(gray[..., None], 3, axis=-1)


def smooth(height=48, width=64):
    """A photograph-like picture, which JPEG keeps within a few levels."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 / height, columns * 255 / width, 128 + 100 * np.sin(rows / 9)], -1).astype(np.uint8)


def save(path, picture, **options):
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(path, **options)
    return path


def png(width, height, depth, color, rows, *extra):
    """A PNG from its parts, for the kinds that Pillow reads but does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*pair) for pair in extra) + pixels + chunk(b"IEND", b"")


def icc(space, primaries=None, gamma=None, curve=None):
    """A minimal ICC profile: an RGB matrix profile (columns are the primaries under D50) or a gray one."""

    def fixed(*values):
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    if curve is None:
        tone = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    else:
        tone = b"curv\0\0\0\0" + struct.pack(">I", len(curve)) + curve.astype(">u2").tobytes()
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1.0, 0.8249)}
    if space == b"GRAY":
        tags[b"kTRC"] = tone
    else:
        tags |= {name + b"TRC": tone for name in (b"r", b"g", b"b")}
        tags |= {name + b"XYZ": b"XYZ \0\0\0\0" + fixed(*primaries[:, i]) for i, name in enumerate((b"r", b"g", b"b"))}
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s12x4s", start + len(body), b"", 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    return head.ljust(68, b"\0") + fixed(0.9642, 1.0, 0.8249).ljust(60, b"\0") + table + body


def matrix(red, green, blue, white=(0.3127, 0.3290)):
    """RGB to XYZ from chromaticities."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (red, green, blue)]).T
    x, y = white
    return columns * np.linalg.solve(columns, [x / y, 1, (1 - x - y) / y])


def to_d50(columns):
    """Bradford adaptation from D65, as profiles store their primaries."""
    cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d65 = cone @ np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    d50 = cone @ np.array([0.9642, 1.0, 0.8249])
    return np.linalg.solve(cone, np.diag(d50 / d65) @ cone) @ columns


SRGB = matrix((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE = matrix((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3 = matrix((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))


def decode(values):
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encode(linear):
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def tiff(width, height, data, order="<", **tags):
    """A 16-bit gray TIFF of one strip, if no tag says otherwise; `tags` as `t<number>`, written as 16-bit values."""
    entries = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 277: 1, 278: height, 279: len(data)}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    entries[273] = 8 + 2 + 12 * (len(entries) + 1) + 4
    body = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in sorted(entries.items()))
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IH", 8, len(entries)) + body + b"\0\0\0\0" + data


def refusal(path, **options):
    with pytest.raises(ImageReadError) as caught:
        images.read(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and "; " in message
    return message


def peak_memory():
    """Peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
