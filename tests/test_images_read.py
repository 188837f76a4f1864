"""The door for files, inwards: formats, modes, orientation, profiles."""

import struct
import zlib

import numpy as np
import pytest
from pictures import (
    ADOBE,
    ALPHA,
    GRAY,
    P3,
    RGB,
    RNG,
    SRGB,
    decode,
    encode,
    icc,
    matrix,
    over_white,
    png,
    save,
    smooth,
    tiff,
    to_d50,
    triple,
)
from PIL import Image, ImageCms

from ctlib import images
from ctlib.images import ImageReadError

# ---- formats and modes


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
    assert images.read(path)[0].tolist() == [[255, 255, 255], [round(value / 257) for value in (9000, 5000, 6000)]]
    path.write_bytes(png(3, 1, 16, 0, [struct.pack(">3H", 1000, 1001, 60000)], (b"tRNS", struct.pack(">H", 1000))))
    assert images.read(path)[0, :, 0].tolist() == [255, 4, round(60000 / 257)]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_gray_is_scaled_not_saturated(tmp_path, suffix):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rgb = images.read(save(tmp_path / f"a{suffix}", ramp))
    assert np.array_equal(rgb, triple(np.rint(ramp / 257).astype(np.uint8)))


def test_sixteen_bit_color_png(tmp_path):
    """Every value of each channel is rounded, not cut to its high byte."""
    ramp = np.arange(65536).reshape(256, 256)
    deep = np.stack([ramp, ramp[::-1], ramp.T], -1).astype(">u2")
    (tmp_path / "a.png").write_bytes(png(256, 256, 16, 2, [row.tobytes() for row in deep]))
    assert np.array_equal(images.read(tmp_path / "a.png"), np.rint(deep / 257))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
def test_sixteen_bit_color_tiff(tmp_path, compression, order):
    deep = RNG.integers(0, 65536, (80, 90, 3)).astype(order + "u2")
    data = zlib.compress(deep.tobytes()) if compression == 8 else deep.tobytes()
    (tmp_path / "a.tif").write_bytes(tiff(90, 80, data, order, t259=compression, t262=2, t277=3))
    assert np.array_equal(images.read(tmp_path / "a.tif"), np.rint(deep / 257))


@pytest.mark.parametrize("tags", [{"t262": 2, "t338": 2}, {"t262": 5}])
def test_sixteen_bit_alpha_and_inks(tmp_path, tags):
    deep = RNG.integers(0, 65536, (80, 90, 4)).astype("<u2")
    (tmp_path / "a.tif").write_bytes(tiff(90, 80, deep.tobytes(), t277=4, **tags))
    color, last = np.split(np.rint(deep / 257), [3], axis=-1)
    expected = (255 - color) * (255 - last) / 255 if tags["t262"] == 5 else over_white(color, last[..., 0])
    error = images.read(tmp_path / "a.tif") - expected
    assert np.abs(error).max() <= 1 and abs(error.mean()) < 0.1


def test_sixteen_bit_color_turns_upright_and_knows_its_transparent_color(tmp_path):
    deep = RNG.integers(0, 65536, (5, 7, 3)).astype(">u2")
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
    extra = [(b"tRNS", deep[3, 4].tobytes()), (b"eXIf", exif)]
    (tmp_path / "a.png").write_bytes(png(7, 5, 16, 2, [row.tobytes() for row in deep], *extra))
    expected = np.rint(deep / 257)
    expected[3, 4] = 255
    assert np.array_equal(images.read(tmp_path / "a.png"), np.rot90(expected, -1))


def test_dark_deep_colors_keep_their_mean_through_a_profile(tmp_path):
    """The shadows of a 16-bit ProPhoto picture; high bytes alone would make them half a level too dark."""
    profile = icc(b"RGB ", matrix((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585)), 1.8)
    gray = RNG.integers(2000, 8000, (200, 200, 1)).repeat(3, -1).astype(">u2")
    rows = [row.tobytes() for row in gray]
    (tmp_path / "a.png").write_bytes(png(200, 200, 16, 2, rows, (b"iCCP", b"p\0\0" + zlib.compress(profile))))
    error = images.read(tmp_path / "a.png") - 255 * encode((gray / 65535) ** 1.8)
    assert np.abs(error.mean((0, 1))).max() < 0.1


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


# ---- orientation and profiles


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
