"""The door for files. Every picture here is written by the test itself, so each expected pixel is known."""

import errno
import io
import os
import resource
import struct
import subprocess
import sys
import time
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from ctlib import images
from ctlib.images import ImageReadError, ImageWriteError

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


# ---- reading: formats and modes


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp"])
def test_lossless_formats_are_pixel_exact(tmp_path, suffix):
    rgb = images.read(save(tmp_path / f"a{suffix}", RGB))
    assert rgb.dtype == np.uint8 and rgb.flags.writeable and rgb.flags.c_contiguous
    assert np.array_equal(rgb, RGB)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(tmp_path, compression):
    assert np.array_equal(images.read(save(tmp_path / "a.tif", RGB, compression=compression)), RGB)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".jpg", {"quality": 100, "subsampling": 0}),
        (".jpg", {"quality": 100, "subsampling": 0, "progressive": True}),
        (".webp", {"quality": 100}),
    ],
)
def test_lossy_formats_come_close(tmp_path, suffix, options):
    rgb = images.read(save(tmp_path / f"a{suffix}", smooth(), **options))
    assert np.abs(rgb.astype(int) - smooth()).mean() < 1.5


def test_lossless_webp_and_the_content_deciding_the_format(tmp_path):
    save(tmp_path / "a.webp", RGB, lossless=True)
    (tmp_path / "a.webp").rename(tmp_path / "a.jpg")
    assert np.array_equal(images.read(str(tmp_path / "a.jpg")), RGB)


@pytest.mark.parametrize("shape", [(1, 1), (1, 257), (257, 1), (1, 65_500)])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_extreme_shapes(tmp_path, shape, suffix):
    rgb = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(images.read(save(tmp_path / f"a{suffix}", rgb)), rgb)


def test_a_jpeg_as_wide_as_jpeg_allows(tmp_path):
    rgb = images.read(save(tmp_path / "a.jpg", np.full((2, 65_500, 3), 77, np.uint8)))
    assert rgb.shape == (2, 65_500, 3) and np.abs(rgb.astype(int) - 77).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_gray_and_one_bit(tmp_path, suffix):
    assert np.array_equal(images.read(save(tmp_path / f"gray{suffix}", GRAY)), triple(GRAY))
    bits = Image.fromarray(GRAY).convert("1")
    expected = triple(np.asarray(bits) * np.uint8(255))
    assert np.array_equal(images.read(save(tmp_path / f"bits{suffix}", bits)), expected)


def test_gray_jpeg(tmp_path):
    rgb = images.read(save(tmp_path / "a.jpg", smooth()[..., 0], quality=100))
    assert (rgb[..., 0] == rgb[..., 2]).all() and np.abs(rgb[..., 0].astype(int) - smooth()[..., 0]).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_palette(tmp_path, suffix):
    palette = Image.fromarray(RGB).quantize(200)
    assert np.array_equal(images.read(save(tmp_path / f"a{suffix}", palette)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_rgba_lies_over_white(tmp_path, name):
    rgba = np.dstack([RGB, ALPHA])
    options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    rgb = images.read(save(tmp_path / name, rgba, **options))
    assert np.abs(rgb - over_white(RGB, ALPHA)).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_gray_with_alpha(tmp_path, suffix):
    rgb = images.read(save(tmp_path / f"a{suffix}", Image.merge("LA", [Image.fromarray(p) for p in (GRAY, ALPHA)])))
    assert np.abs(rgb - over_white(triple(GRAY), ALPHA)).max() <= 1


def test_premultiplied_alpha_tiff(tmp_path):
    strip = Image.merge("LA", [Image.fromarray(p) for p in (GRAY, np.full_like(GRAY, 255))])
    save(tmp_path / "a.tif", strip, tiffinfo={338: 1})  # ExtraSamples: associated alpha
    assert np.array_equal(images.read(tmp_path / "a.tif"), triple(GRAY))


@pytest.mark.parametrize("transparent", [3, bytes(range(0, 200, 2))])
def test_palette_with_transparency(tmp_path, transparent):
    palette = Image.fromarray(RGB).quantize(100)
    index = np.asarray(palette)
    alpha = np.full(256, 255)
    alpha[: 100 if isinstance(transparent, bytes) else 0] = (
        list(range(0, 200, 2)) if isinstance(transparent, bytes) else 0
    )
    if isinstance(transparent, int):
        alpha[transparent] = 0
    rgb = images.read(save(tmp_path / "a.png", palette, transparency=transparent))
    assert np.abs(rgb - over_white(np.asarray(palette.convert("RGB")), alpha[index])).max() <= 1


def test_transparent_color_of_gray_and_rgb_png(tmp_path):
    rgb = images.read(save(tmp_path / "gray.png", GRAY, transparency=int(GRAY[3, 4])))
    assert np.array_equal(rgb, triple(np.where(GRAY[3, 4] == GRAY, np.uint8(255), GRAY)))
    key = tuple(int(value) for value in RGB[3, 4])
    rgb = images.read(save(tmp_path / "rgb.png", RGB, transparency=key))
    assert (rgb[3, 4] == 255).all() and np.array_equal(rgb[4:], RGB[4:])


def test_transparent_color_below_and_above_eight_bits(tmp_path):
    """Pillow compares the file's two-bit or sixteen-bit color with eight-bit pixels."""
    path = tmp_path / "a.png"
    path.write_bytes(png(4, 1, 2, 0, [bytes([0b00_01_10_11])], (b"tRNS", b"\0\1")))
    assert images.read(path)[0, :, 0].tolist() == [0, 255, 170, 255]
    row = struct.pack(">6H", 1000, 2000, 3000, 9000, 5000, 6000)
    path.write_bytes(png(2, 1, 16, 2, [row], (b"tRNS", struct.pack(">3H", 1000, 2000, 3000))))
    assert images.read(path)[0].tolist() == [[255, 255, 255], [9000 >> 8, 5000 >> 8, 6000 >> 8]]
    path.write_bytes(png(3, 1, 16, 0, [struct.pack(">3H", 1000, 1001, 60000)], (b"tRNS", struct.pack(">H", 1000))))
    assert images.read(path)[0, :, 0].tolist() == [255, 4, round(60000 / 257)]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_gray_is_scaled_not_saturated(tmp_path, suffix):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rgb = images.read(save(tmp_path / f"a{suffix}", ramp))
    assert np.array_equal(rgb, triple(np.rint(ramp / 257).astype(np.uint8)))


def test_sixteen_bit_color_png(tmp_path):
    deep = RNG.integers(0, 65536, (5, 7, 3)).astype(">u2")
    (tmp_path / "a.png").write_bytes(png(7, 5, 16, 2, [row.tobytes() for row in deep]))
    assert np.abs(images.read(tmp_path / "a.png") - deep / 257).max() <= 1


def tiff(width, height, data, **tags):
    """An uncompressed gray TIFF of one strip; `tags` as `t<number>`, written as 16-bit values."""
    entries = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 277: 1, 278: height, 279: len(data)}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    entries[273] = 8 + 2 + 12 * (len(entries) + 1) + 4
    body = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + b"\0\0\0\0" + data


def test_sixteen_bit_tiff_where_zero_is_white(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(3, 1, struct.pack("<3H", 0, 257 * 100, 65535), t262=0))
    assert images.read(tmp_path / "a.tif")[0, :, 0].tolist() == [255, 155, 0]


def test_twelve_bit_tiff(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(2, 1, bytes([0xFF, 0xF8, 0x00]), t258=12))
    assert images.read(tmp_path / "a.tif")[0, :, 0].tolist() == [255, round(0x800 / 4095 * 255)]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_without_an_agreed_range_are_refused(tmp_path, mode):
    with pytest.raises(ImageReadError, match="convert it to 8 or 16 bits"):
        images.read(save(tmp_path / "a.tif", Image.new(mode, (4, 4))))


def test_cmyk_without_a_profile(tmp_path):
    inks = np.dstack([RGB, GRAY])
    expected = (255 - RGB.astype(float)) * (255 - GRAY.astype(float))[..., None] / 255
    rgb = images.read(save(tmp_path / "a.tif", Image.fromarray(inks, "CMYK")))
    assert np.abs(rgb - expected).max() <= 1


@pytest.mark.parametrize("inks", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 200, 50, 30), (10, 20, 30, 255)])
def test_cmyk_jpeg_is_not_inverted(tmp_path, inks):
    rgb = images.read(save(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), inks), quality=100))
    expected = [(255 - ink) * (255 - inks[3]) / 255 for ink in inks[:3]]
    assert np.abs(rgb[8, 8] - expected).max() <= 2


def test_ycck_jpeg(tmp_path):
    """Pillow writes inverted CMYK; with Adobe's transform byte set to 2 the same planes mean Y, Cb, Cr and K."""
    ycc = Image.new("RGB", (16, 16), (200, 120, 40)).convert("YCbCr").getpixel((0, 0))
    stored = Image.new("CMYK", (16, 16), tuple(255 - value for value in (*ycc, 204)))
    data = bytearray(save(tmp_path / "a.jpg", stored, quality=100).read_bytes())
    data[data.index(b"Adobe") + 11] = 2
    (tmp_path / "a.jpg").write_bytes(data)
    # the decoder gives C = 255 - R and K = 204, Adobe's files hold 255 - ink, so the inks are R, G, B and 51
    expected = [(255 - value) * 204 / 255 for value in (200, 120, 40)]
    assert np.abs(images.read(tmp_path / "a.jpg")[8, 8] - expected).max() <= 2


@pytest.mark.parametrize("suffix", [".webp", ".tif", ".png"])
def test_of_an_animation_frame_zero_is_read(tmp_path, suffix):
    options = {"lossless": True} if suffix == ".webp" else {}
    others = [Image.fromarray(255 - RGB), Image.new("RGB", (31, 24), "red")]
    save(tmp_path / f"a{suffix}", RGB, save_all=True, append_images=others, **options)
    with Image.open(tmp_path / f"a{suffix}") as check:
        assert check.n_frames == 3
    assert np.array_equal(images.read(tmp_path / f"a{suffix}"), RGB)


# ---- reading: orientation and profiles


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_orientation(tmp_path, suffix, orientation):
    """The stored picture is the upright one seen through the inverse of each turn."""
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = (255, 0, 0)
    upright[:8, 24:] = (0, 255, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),  # the camera lay on its side: turn back by 90 degrees clockwise
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    rgb = images.read(save(tmp_path / f"a{suffix}", np.ascontiguousarray(stored), exif=exif.tobytes(), **options))
    assert rgb.shape == upright.shape and rgb.flags.c_contiguous
    assert np.abs(rgb.astype(int) - upright).max() <= 2


def test_nonsense_in_exif_does_not_turn_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 77
    assert np.array_equal(images.read(save(tmp_path / "a.png", RGB, exif=exif.tobytes())), RGB)


@pytest.mark.parametrize(
    ("primaries", "gamma"), [(ADOBE, 2.19921875), (P3, None), (matrix((0.73, 0.27), (0.16, 0.84), (0.04, 0.01)), 1.8)]
)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_profiles_are_converted_to_srgb(tmp_path, suffix, primaries, gamma):
    """Against the colorimetric definition: linearize, to XYZ, to linear sRGB, clip, encode."""
    curve = None if gamma else np.rint(decode(np.linspace(0, 1, 4096)) * 65535)
    steps = np.linspace(0, 255, 6).astype(np.uint8)
    rgb = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(6, 36, 3)
    profile = icc(b"RGB ", to_d50(primaries), gamma, curve)
    path = save(tmp_path / f"a{suffix}", rgb, icc_profile=profile, quality=95, lossless=True)
    with Image.open(path) as stored:
        rgb = np.asarray(stored.convert("RGB")) / 255
    linear = rgb**gamma if gamma else decode(rgb)
    expected = 255 * encode(linear @ (np.linalg.inv(SRGB) @ primaries).T)
    assert np.abs(images.read(path) - expected).max() <= 1.6


def test_srgb_profile_leaves_every_pixel_alone(tmp_path):
    builtin = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    curve = np.rint(decode(np.linspace(0, 1, 1024)) * 65535)
    for profile in (builtin, icc(b"RGB ", to_d50(SRGB), curve=curve)):
        assert np.array_equal(images.read(save(tmp_path / "a.png", RGB, icc_profile=profile)), RGB)
        assert np.array_equal(images.read(save(tmp_path / "a.png", GRAY, icc_profile=profile)), triple(GRAY))


@pytest.mark.parametrize("deep", [False, True])
def test_gray_profile(tmp_path, deep):
    ramp = np.arange(256, dtype=np.uint8)[None]
    stored = ramp.astype(np.uint16) * 257 if deep else ramp
    rgb = images.read(save(tmp_path / "a.png", stored, icc_profile=icc(b"GRAY", gamma=1.8)))
    assert np.abs(rgb - 255 * encode((ramp[..., None] / 255) ** 1.8)).max() <= 1.6
    assert np.ptp(rgb.astype(int), axis=2).max() <= 1


def test_a_profile_leaves_transparency_alone(tmp_path):
    profile = icc(b"RGB ", to_d50(ADOBE), 2.19921875)
    opaque = images.read(save(tmp_path / "a.png", RGB, icc_profile=profile))
    rgb = images.read(save(tmp_path / "b.png", np.dstack([RGB, ALPHA]), icc_profile=profile))
    assert np.abs(rgb - over_white(opaque, ALPHA)).max() <= 1


@pytest.mark.parametrize("profile", [b"not a profile", icc(b"GRAY", gamma=1.8), icc(b"RGB ", to_d50(P3), 2.2)[:150]])
def test_broken_or_unfitting_profile_is_ignored_with_a_warning(tmp_path, profile):
    path = save(tmp_path / "a.png", RGB, icc_profile=profile)
    with pytest.warns(UserWarning, match=r"a\.png: its ICC profile is ignored"):
        assert np.array_equal(images.read(path), RGB)


# ---- reading: refusals


def refusal(path, **options):
    with pytest.raises(ImageReadError) as caught:
        images.read(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and "; " in message
    return message


def test_missing_folder_and_empty(tmp_path):
    (tmp_path / "empty.jpg").touch()
    assert "no such file" in refusal(tmp_path / "none.jpg")
    assert "folder" in refusal(tmp_path)
    assert "empty" in refusal(tmp_path / "empty.jpg")
    assert "Not a directory" in refusal(tmp_path / "empty.jpg" / "a.jpg")


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "ordinary file" in refusal(tmp_path / "pipe.png")


@pytest.mark.parametrize("content", [b"hello, this is text\n", b"\0" * 500, b"GIF89a" + b"\0" * 40, b"%PDF-1.7", b"x"])
def test_other_content_behind_an_image_suffix(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    assert "none of JPEG, PNG, WebP, TIFF, BMP" in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["AVIF", "GIF", "PPM", "ICO", "TGA", "JPEG2000"])
def test_only_the_five_formats_are_opened(tmp_path, kind):
    Image.fromarray(RGB).save(tmp_path / "a.png", kind)
    assert "convert it to JPEG or PNG" in refusal(tmp_path / "a.png")


def test_heif_is_named(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert "HEIF or AVIF file; convert it to JPEG or PNG" in refusal(tmp_path / "a.heic")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_truncated_files_never_give_half_a_picture(tmp_path, kind, part):
    whole = io.BytesIO()
    Image.fromarray(RGB).save(whole, kind)
    data = whole.getvalue()
    (tmp_path / "a").write_bytes(data[: int(part * len(data))])
    refusal(tmp_path / "a")


def test_truncation_is_refused_even_where_another_library_allows_it(tmp_path, monkeypatch):
    save(tmp_path / "a.jpg", RGB)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert "LOAD_TRUNCATED_IMAGES" in refusal(tmp_path / "a.jpg")


def test_one_flipped_bit_in_png_pixels_is_noticed(tmp_path):
    data = bytearray(save(tmp_path / "a.png", RGB).read_bytes())
    data[data.index(b"IDAT") + 300] ^= 4
    (tmp_path / "a.png").write_bytes(data)
    refusal(tmp_path / "a.png")


def test_tiff_with_a_strip_missing_is_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(2, 2, struct.pack("<2H", 1, 2), t278=1))
    assert "do not add up" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_the_preview_in_a_raw_file_is_not_taken_for_the_photograph(tmp_path, tags):
    assert "raw photograph" in refusal(save(tmp_path / "a.dng", RGB, format="TIFF", tiffinfo=tags))


def bombs():
    side = struct.pack(">II", 60_000, 60_000)
    yield "png", png(60_000, 60_000, 8, 2, [bytes(3000)])
    yield "png", png(9_000, 9_000, 1, 0, [bytes(1125)])
    yield "bmp", b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    yield "webp", b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\x5f\xea\0" * 2 + bytes(40)
    yield "webp", b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\x0f\x1f\0\0" + bytes(40)  # 2^20 x 32
    yield "webp", b"RIFF\x40\0\0\0WEBPVP8L\x0a\0\0\0\x2f" + struct.pack("<I", 11_999 | 11_999 << 14) + bytes(40)
    yield "webp", b"RIFF\x40\0\0\0WEBPVP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 12_000, 12_000) + bytes(40)
    yield "tif", tiff(60_000, 60_000, b"\0\0")
    yield "tif", tiff(8, 8, b"\0\0", t322=60_000, t323=60_000, t324=8)
    jpeg = io.BytesIO()
    Image.fromarray(RGB).save(jpeg, "JPEG")
    data = jpeg.getvalue()
    start = data.index(b"\xff\xc0") + 5
    yield "jpg", data[:start] + side[2:4] + side[6:8] + data[start + 4 :]
    yield "jpg", data[:start] + struct.pack(">HH", 7_000, 7_000) + data[start + 4 :]  # fits the limit, not the file


@pytest.mark.parametrize(("suffix", "data"), bombs())
def test_bombs_are_refused_from_their_header(tmp_path, suffix, data):
    path = tmp_path / f"bomb.{suffix}"
    path.write_bytes(data)
    start, memory = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(path)
    assert "pixels" in message
    assert time.perf_counter() - start < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 50_000  # KiB


def test_the_limits_are_the_callers(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    assert images.read(path, max_pixels=24 * 31).shape == (24, 31, 3)
    assert "31 x 24" in refusal(path, max_pixels=24 * 31 - 1)
    with open(path, "r+b") as stream:
        stream.truncate(20 << 20)  # a sparse tail: absurd for so few pixels
    assert "over the limit" in refusal(path, max_pixels=24 * 31)
    with pytest.raises(ValueError, match="max_pixels"):
        images.read(path, max_pixels=0)


def test_endless_progressive_scans_are_refused(tmp_path):
    data = save(tmp_path / "a.jpg", smooth(), progressive=True).read_bytes()
    last = data[data.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(data[:-2] + last * 200 + data[-2:])
    assert "scans" in refusal(tmp_path / "a.jpg")


# ---- reading: a thousand mutated files


def seeds():
    """One small file for each kind of decoder."""
    exif, profile = Image.Exif(), icc(b"RGB ", to_d50(ADOBE), 2.2)
    exif[0x0112], exif[0x010F] = 6, "a camera"
    picture, rgba = Image.fromarray(smooth()), Image.fromarray(np.dstack([smooth(), smooth()[..., 0]]))
    frames = {"save_all": True, "append_images": [picture.rotate(180)]}
    kinds = [
        (picture, "JPEG", {"exif": exif, "icc_profile": profile}),
        (picture, "JPEG", {"progressive": True}),
        (picture.convert("CMYK"), "JPEG", {}),
        (rgba, "PNG", {"icc_profile": profile, "exif": exif}),
        (picture.quantize(16), "PNG", {"transparency": b"\0\x80\xff"}),
        (Image.fromarray(smooth()[..., 0].astype(np.uint16) * 257), "PNG", {}),
        (picture, "PNG", frames),
        (picture, "WEBP", {"exif": exif}),
        (rgba, "WEBP", {"lossless": True, "icc_profile": profile}),
        (picture, "WEBP", frames),
        (picture, "TIFF", {"exif": exif}),
        (picture, "TIFF", {"compression": "tiff_lzw"}),
        (picture, "TIFF", {"compression": "jpeg"}),
        (picture.convert("1"), "TIFF", {"compression": "group4"}),
        (picture.quantize(16), "BMP", {}),
    ]
    for source, kind, options in kinds:
        stream = io.BytesIO()
        source.save(stream, kind, **options)
        yield stream.getvalue()
    rows = (
        b"".join(bytes([40, 1, 24, 2, 0, 0]) for _ in range(48)) + b"\0\1"
    )  # run-length coded BMP, never written by Pillow
    palette = bytes(range(256)) * 4
    head = struct.pack("<IIIIiiHHIIIIII", 54 + 1024 + len(rows), 0, 1078, 40, 64, 48, 1, 8, 1, len(rows), 0, 0, 256, 0)
    yield b"BM" + head + palette + rows


def resealed(data):
    """A PNG with its checksums made right again, so that the damage reaches the decoder behind them."""
    data, at = bytearray(data), 8
    while data[:4] == b"\x89PNG" and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))[: max(0, len(data) - end)]
        at = end + 4
    return bytes(data)


def mutated(data, donor, rng):
    data, kind = bytearray(data), rng.integers(4)
    if kind == 0:  # flipped bits
        for at in rng.integers(0, len(data), rng.integers(1, 9)):
            data[at] ^= 1 << rng.integers(8)
    elif kind == 1:  # truncation
        del data[rng.integers(1, len(data)) :]
    elif kind == 2:  # a piece of another file
        at, start = rng.integers(0, len(data)), rng.integers(0, len(donor))
        length = rng.integers(1, 200)
        data[at : at + length] = donor[start : start + length]
    else:  # length fields: extreme numbers near the head, where the headers are
        value = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x1F40, 0x7FFFFFFF, 0xFFFFFFFF)[rng.integers(9)]
        width = 2 if value <= 0xFFFF and rng.integers(2) else 4
        at = rng.integers(0, min(len(data), 256))
        data[at : at + width] = int(value).to_bytes(width, "big" if rng.integers(2) else "little")
    return resealed(data) if rng.integers(2) else bytes(data)


@pytest.mark.filterwarnings("ignore")
def test_a_thousand_mutated_files(tmp_path):
    """Each gives a picture or an `ImageReadError`, within a second."""
    rng, originals, path = np.random.default_rng(7), list(seeds()), tmp_path / "mutant"
    read, refused, slowest = 0, 0, 0.0
    for original in originals:
        path.write_bytes(original)
        assert images.read(path).size  # the seeds themselves are sound
    for case in range(1000):
        path.write_bytes(mutated(originals[case % len(originals)], originals[rng.integers(len(originals))], rng))
        start = time.perf_counter()
        try:
            rgb = images.read(path)
            assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.size
            read += 1
        except ImageReadError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            refused += 1
        slowest = max(slowest, time.perf_counter() - start)
    print(f"{read} read, {refused} refused, slowest {slowest:.3f} s")
    assert slowest < 1
    assert read > 100 and refused > 300  # the mutations are neither harmless nor hopeless


@pytest.mark.parametrize(
    "error", [OSError, SyntaxError, ValueError, struct.error, IndexError, MemoryError, zlib.error, KeyError]
)
def test_whatever_pillow_raises_becomes_one_error(tmp_path, monkeypatch, error):
    def broken(self):
        raise error("line one\nline two")

    path = save(tmp_path / "a.png", RGB)
    monkeypatch.setattr(Image.Image, "getexif", broken)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images.read(path)  # EXIF is an extra: the picture is still good
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", broken)
    refusal(path)


def test_twelve_megapixels_stay_lean(tmp_path):
    """Peak memory of a fresh process: the decoded picture (4 bytes a pixel) and the array (3), and a little."""
    path = save(tmp_path / "a.jpg", np.resize(smooth(100, 4000), (3000, 4000, 3)))
    script = (
        "import sys; from resource import RUSAGE_SELF, getrusage; from ctlib import images;"
        "peak = lambda: getrusage(RUSAGE_SELF).ru_maxrss;"
        "images.read(sys.argv[2]); before = peak(); images.read(sys.argv[1]); print((peak() - before) / 1024)"
    )
    small = save(tmp_path / "small.jpg", smooth())
    done = subprocess.run([sys.executable, "-c", script, path, small], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 12e6 * 7 / 2**20 + 30  # MiB


# ---- writing


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp", ".tif", ".tiff", ".bmp"])
def test_write_and_read_back(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    assert images.write(path, smooth()) == path
    error = np.abs(images.read(path).astype(int) - smooth())
    assert error.mean() < 2 if suffix.lower() in (".jpg", ".jpeg", ".webp") else error.max() == 0
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    with Image.open(path) as image:
        assert not image.info.get("exif") and "icc_profile" not in image.info


def test_write_takes_tensors_and_rounds(tmp_path):
    rgb = torch.from_numpy(RGB.copy()).permute(2, 0, 1) / 255
    for picture in (rgb, rgb[None], rgb.double().requires_grad_()):
        assert np.array_equal(images.read(images.write(tmp_path / "a.png", picture)), RGB)


def test_quality_counts(tmp_path):
    fine = images.write(tmp_path / "a.jpg", RGB, quality=98).stat().st_size
    assert images.write(tmp_path / "b.jpg", RGB, quality=30).stat().st_size < fine / 2
    with pytest.raises(ValueError, match="quality"):
        images.write(tmp_path / "c.jpg", RGB, quality=0)


def test_written_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    assert images.write(tmp_path / "a.png", RGB).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_write_refuses_clearly(tmp_path):
    with pytest.raises(ImageWriteError, match=r"unknown suffix '\.gif'; use one of \.jpg, \.jpeg, \.png"):
        images.write(tmp_path / "a.gif", RGB)
    with pytest.raises(ImageWriteError, match="does not exist; create it first"):
        images.write(tmp_path / "none" / "a.png", RGB)
    with pytest.raises(ImageWriteError, match=r"write it as \.png"):
        images.write(tmp_path / "a.webp", np.zeros((1, 17_000, 3), np.uint8))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageWriteError, match="not written"):
        images.write(tmp_path / "folder.png", RGB)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (RGB.astype(float), "uint8"),
        (GRAY, "shape"),
        (np.dstack([RGB, ALPHA]), "shape"),
        (RGB[:0], "shape"),
        (torch.zeros(3, 4), "shape"),
        (torch.zeros(2, 3, 4, 4), "shape"),
        (torch.zeros(4, 4, 3), "shape"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "float"),
        (torch.full((3, 4, 4), torch.nan), "NaN"),
        (torch.full((3, 4, 4), torch.inf), "NaN or infinite"),
        (torch.full((3, 4, 4), 200.0), "divide by 255"),
        (torch.full((3, 4, 4), -0.2), "clamp"),
        ("a.png", "uint8"),
    ],
)
def test_write_validates_the_picture(tmp_path, picture, message):
    with pytest.raises(ValueError, match=message):
        images.write(tmp_path / "a.png", picture)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = images.write(tmp_path / "a.png", RGB)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(ImageWriteError, match=r"a\.png: not written \(No space left on device\); free some space"):
            images.write(path, 255 - RGB)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    images.write(path, 255 - RGB)
    assert np.array_equal(images.read(path), 255 - RGB)


def test_a_file_size_limit_stops_the_write_cleanly(tmp_path):
    """A real failure of `write(2)`, not a simulated one."""
    script = (
        "import resource, signal, sys, numpy as np; from ctlib import images;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000));"
        "images.write(sys.argv[1], np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "a.bmp"], capture_output=True, text=True)
    assert done.returncode != 0 and "ImageWriteError" in done.stderr and not list(tmp_path.iterdir())


# ---- arrays and tensors


def test_resize_only_shrinks():
    rgb = smooth(300, 400)
    small = images.resize(rgb, 100)
    assert small.shape == (75, 100, 3) and small.dtype == np.uint8
    assert np.abs(small.mean((0, 1)) - rgb.mean((0, 1))).max() < 1
    assert images.resize(rgb.swapaxes(0, 1), 100).shape == (100, 75, 3)
    assert images.resize(rgb, 400) is rgb and images.resize(rgb, 4000) is rgb
    assert images.resize(np.zeros((1, 1000, 3), np.uint8), 10).shape == (1, 10, 3)
    with pytest.raises(ValueError, match="long_side"):
        images.resize(rgb, 0)
    with pytest.raises(ValueError, match="uint8"):
        images.resize(rgb / 255, 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensor_round_trip(dtype):
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    rgb = images.to_tensor(levels, dtype)
    assert rgb.shape == (1, 3, 16, 16) and rgb.dtype == dtype and rgb.is_contiguous()
    assert rgb.min() == 0 and rgb.max() == 1
    error = np.abs(images.to_uint8(rgb).astype(int) - levels).max()
    assert error <= (1 if dtype == torch.bfloat16 else 0)  # whose 8 bits of mantissa cannot tell 254 from 255


def test_to_tensor_keeps_its_hands_off_the_array():
    frozen = RGB.copy()
    frozen.flags.writeable = False
    rgb = images.to_tensor(frozen)
    rgb.zero_()
    assert np.array_equal(frozen, RGB)
    assert np.array_equal(images.to_uint8(images.to_tensor(RGB[:, ::-1])), RGB[:, ::-1])
    with pytest.raises(ValueError, match="float type"):
        images.to_tensor(RGB, torch.uint8)


def test_to_uint8_rounds_and_clamps():
    rgb = torch.tensor([-3.0, 0.49 / 255, 0.51 / 255, 254.6 / 255, 1.5, 0.5]).repeat(3, 1)[:, None]
    before = rgb.clone()
    assert images.to_uint8(rgb)[0, :, 0].tolist() == [0, 0, 1, 255, 255, 128]
    assert torch.equal(rgb, before)
    with pytest.raises(ValueError, match="NaN"):
        images.to_uint8(torch.full((1, 3, 2, 2), torch.nan))
