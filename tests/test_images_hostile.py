"""The door for files, shut: what is refused, how fast, and that nothing else ever comes out."""

import io
import os
import struct
import subprocess
import sys
import time
import warnings
import zlib

import numpy as np
import pytest
from pictures import ADOBE, RGB, icc, peak_memory, png, refusal, save, smooth, tiff, to_d50
from PIL import Image, ImageFile

from ctlib import images
from ctlib.images import ImageReadError

# ---- refusals


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


def test_deep_color_plane_by_plane_is_refused(tmp_path):
    """Pillow takes the high and the low bytes of the first row for two rows."""
    data = struct.pack("<12H", *range(0, 60_000, 5_000))
    (tmp_path / "a.tif").write_bytes(tiff(2, 2, data, t262=2, t277=3, t284=2))
    assert "plane by plane" in refusal(tmp_path / "a.tif")


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
    start, memory = time.perf_counter(), peak_memory()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(path)
    assert "pixels" in message
    assert time.perf_counter() - start < 0.5
    assert peak_memory() - memory < 50e6


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


# ---- a thousand mutated files


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
    deep = np.random.default_rng(1).integers(0, 65536, (48, 64, 3)).astype(">u2")
    yield png(64, 48, 16, 2, [row.tobytes() for row in deep], (b"tRNS", bytes(6)))
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
        "import sys; from ctlib import images; from pictures import peak_memory;"
        "images.read(sys.argv[2]); before = peak_memory(); images.read(sys.argv[1]); print(peak_memory() - before)"
    )
    small = save(tmp_path / "small.jpg", smooth())
    command, folders = [sys.executable, "-c", script, path, small], os.pathsep.join(sys.path)
    environment = os.environ | {"PYTHONPATH": folders}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert float(done.stdout) < 12e6 * 7 + 30e6
