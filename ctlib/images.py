"""The one door for image files: every picture comes in as 8-bit sRGB, and goes out whole or not at all.

Reading is strict, because a photograph that was read a little wrongly spoils every number measured on it. Only five
formats are opened, sizes are checked before anything is decoded, and what cannot be read as the photographer meant it
is an `ImageReadError` that names the file, the reason and the remedy in one line.
"""

import io
import os
import stat
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError
from torch import Tensor

from ctlib import atomic, deep

FORMATS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "TIFF": (".tif", ".tiff"), "BMP": (".bmp",)}
SUFFIXES = {suffix: kind for kind, suffixes in FORMATS.items() for suffix in suffixes}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")

_MAX_JPEG_PIXELS_PER_BYTE = 1024  # Huffman codes spend at least a bit on a block or two: more cannot be in the file
_MAX_JPEG_SCANS = 100  # encoders write about ten; each further scan visits the whole picture again
_MAX_RLE_PIXELS = 4_000_000  # Pillow unpacks run-length BMP byte by byte in Python
_STRIP_PIXELS = 1 << 18  # pixels converted at a time: small enough to stay in the cache

_GRAY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N")
# EXIF orientation -> step along rows, step along columns, swap the axes afterwards
_FLIPS = {2: (1, -1, 0), 3: (-1, -1, 0), 4: (-1, 1, 0), 5: (1, 1, 1), 6: (-1, 1, 1), 7: (-1, -1, 1), 8: (1, -1, 1)}


class ImageReadError(ValueError):
    """A picture could not be read; the message names the file, the reason and the remedy in one line."""


class ImageWriteError(OSError):
    """A picture could not be written; nothing was left behind and an older file is untouched."""


def read(path: str | os.PathLike, *, max_pixels: int = 64_000_000) -> np.ndarray:
    """Read a JPEG, PNG, WebP, TIFF or BMP file as 8-bit sRGB.

    EXIF orientation is applied. An ICC profile is converted to sRGB (relative colorimetric, with black point
    compensation); a broken one is ignored with a warning, as browsers do. Gray becomes three equal channels, CMYK
    without a profile becomes RGB by multiplying out the inks. 16 bits become 8 by rounding, before the profile is
    applied (by the high byte where gray has alpha, or alpha is premultiplied, or a compressed TIFF keeps its colors
    plane by plane). Transparency is laid over white, in sRGB. Of an animation or a multi-page file frame 0 is read.
    Gamma values without a profile are not applied.

    Args:
        path: the file. Its content decides the format, not its suffix.
        max_pixels: limit on width x height, checked in the header before anything is decoded. Pillow's own ceiling,
            twice `PIL.Image.MAX_IMAGE_PIXELS`, stays in force above it.

    Returns:
        uint8 `(H, W, 3)`, sRGB, writable and contiguous.

    Raises:
        ImageReadError: the file is missing, empty, damaged, truncated, too large or of another kind.

    Taught in: notebooks/00_tour
    """
    if not max_pixels >= 1:
        raise ValueError(f"max_pixels: expected a positive number, got {max_pixels}")
    path, head = Path(path), b""
    if ImageFile.LOAD_TRUNCATED_IMAGES:  # another library's switch, which would turn truncated files into half pictures
        raise _unreadable(path, "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is switched on", "set it to False")
    try:
        with _open(path, max_pixels) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit has the word
            head = stream.read(30)
            _check_webp(path, head, max_pixels)
            if head.startswith(b"\x89PNG"):  # Pillow's decoder skips the checksums of the pixel data
                Image.open(stream, formats=("PNG",)).verify()
            with Image.open(stream, formats=tuple(FORMATS)) as image:
                _check_header(path, image, max_pixels)
                return _decode(path, image, stream)
    except ImageReadError:
        raise
    except UnidentifiedImageError as error:
        raise _unidentified(path, head) from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise _unreadable(path, "it has too many pixels to be decoded here", "make it smaller first") from error
    except OSError as error:
        if error.errno is None:  # Pillow's, about the content
            raise _unreadable(path, error) from error
        raise _unreadable(path, error.strerror or error, "check the path and its permissions") from error
    except Exception as error:  # Pillow's parsers let out SyntaxError, ValueError, struct.error, IndexError, zlib.error
        raise _unreadable(path, _line(error)) from error


def format_of(path: Path | str) -> str:
    """The format that a file's suffix stands for, e.g. `"PNG"`. Raises `ImageWriteError` that lists the known ones."""
    suffix = Path(path).suffix
    if suffix.lower() not in SUFFIXES:
        raise ImageWriteError(f"{path}: unknown suffix {suffix!r}; use one of {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix.lower()]


def write(path: str | os.PathLike, image: np.ndarray | Tensor, *, quality: int = 95) -> Path:
    """Write a picture atomically; the suffix chooses the format.

    The bytes go to a temporary file in the same folder, which then takes the place of `path` in one step: readers see
    the old file or the new one, never a part. No metadata is written: no EXIF, no GPS position, no profile (sRGB).

    Args:
        path: ends in .jpg, .jpeg, .png, .webp, .tif, .tiff or .bmp.
        image: uint8 `(H, W, 3)`, or a float tensor `(1, 3, H, W)` or `(3, H, W)` in [0, 1], rounded to 8 bits.
        quality: 1 to 100, for JPEG (written without chroma subsampling) and WebP; the others are lossless.

    Raises:
        ValueError: the picture or the quality is not as described.
        ImageWriteError: the suffix is unknown, the folder is missing, or the file cannot be written.
    """
    path, kind = Path(path), format_of(path)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100, got {quality}")
    if isinstance(image, Tensor):
        _check_rgb(image)
        low, high = image.min().item(), image.max().item()
        if low < -1e-6 or high > 1 + 1e-6:
            hint = "divide by 255" if high > 2 else "clamp it first"
            raise ValueError(f"image: expected sRGB in [0, 1], got values from {low:.4g} to {high:.4g}; {hint}")
        image = to_uint8(image)
    _check_uint8(image)
    if not path.parent.is_dir():
        raise ImageWriteError(f"{path}: the folder {path.parent} does not exist; create it first")
    options = {"JPEG": {"quality": int(quality), "subsampling": 0}, "WEBP": {"quality": int(quality)}}
    options["TIFF"] = {"compression": "tiff_adobe_deflate"}
    encoded = io.BytesIO()
    try:
        Image.fromarray(image).save(encoded, kind, **options.get(kind, {}))
    except Exception as error:
        raise ImageWriteError(f"{path}: cannot be encoded as {kind} ({_line(error)}); write it as .png") from error
    try:
        with atomic.replacing(path) as part:
            part.write_bytes(encoded.getbuffer())
    except OSError as error:
        reason = _line(error.strerror or error)
        raise ImageWriteError(f"{path}: not written ({reason}); free some space or choose another folder") from error
    return path


def resize(image: np.ndarray, long_side: int) -> np.ndarray:
    """Scale a picture down until its longer side is `long_side` pixels, by Lanczos resampling in sRGB.

    Args:
        image: uint8 `(H, W, 3)`.
        long_side: pixels, at least 1.

    Returns:
        uint8 `(h, w, 3)` of the same proportions; `image` itself where it is small enough, for nothing is enlarged.

    Raises:
        ValueError: another shape or type, or a side under 1.
    """
    _check_uint8(image)
    if not long_side >= 1:
        raise ValueError(f"long_side: expected at least 1 pixel, got {long_side}")
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def to_tensor(image: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn uint8 `(H, W, 3)` into a batch of one: `(1, 3, H, W)` of a float `dtype`, in [0, 1], contiguous.

    Raises:
        ValueError: another shape or type, or a `dtype` that is no float.
    """
    _check_uint8(image)
    if not dtype.is_floating_point:
        raise ValueError(f"dtype: expected a float type, got {dtype}; use torch.float32")
    planes = np.array(image.transpose(2, 0, 1), order="C")  # a copy: the tensor must not share the caller's memory
    return torch.from_numpy(planes)[None].to(dtype).div_(255)


def to_uint8(rgb: Tensor) -> np.ndarray:
    """Turn one picture `(1, 3, H, W)` or `(3, H, W)`, float sRGB, into uint8 `(H, W, 3)`.

    Values are clamped to [0, 1] and rounded, not truncated: that would darken the picture by half a level on average.

    Raises:
        ValueError: another shape or type, or NaN or infinite values.
    """
    _check_rgb(rgb)
    rgb = rgb.detach().reshape(rgb.shape[-3:]).to("cpu")
    if rgb.dtype in (torch.float16, torch.bfloat16):
        rgb = rgb.float()  # 8 bits of mantissa would round the levels themselves
    levels = rgb.clamp(0, 1).mul_(255).round_().to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().numpy()


# ---- reading, step by step


def _open(path, max_pixels: int):
    """The opened file, once it is known to be an ordinary file of a sensible size."""
    try:
        info = os.stat(path)  # before opening: that would wait for ever on a named pipe
    except FileNotFoundError as error:
        raise _unreadable(path, "there is no such file", "check the path") from error
    if stat.S_ISDIR(info.st_mode):
        raise _unreadable(path, "it is a folder", "name one of the files in it")
    if not stat.S_ISREG(info.st_mode):
        raise _unreadable(path, "it is not an ordinary file", "name an image file")
    if info.st_size == 0:
        raise _unreadable(path, "it is empty (0 bytes)")
    limit = 16 * max_pixels + (16 << 20)  # twice the widest pixel, and room for metadata
    if info.st_size > limit:
        size, limit = info.st_size / 1e6, limit / 1e6
        raise _unreadable(path, f"its {size:,.0f} MB are over the limit of {limit:,.0f} MB", "make it smaller first")
    return open(path, "rb")  # handed to Pillow as a stream: given a name, it would map the file into memory


def _check_pixels(path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        reason = f"its header says {width} x {height} pixels, over the limit of {max_pixels / 1e6:g} megapixels"
        raise _unreadable(path, reason, "make it smaller first, or pass max_pixels if you trust the file")


def _check_webp(path, head: bytes, max_pixels: int) -> None:
    """Check the canvas of a WebP file before opening it, which is when Pillow allocates it."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return
    little = [int.from_bytes(head[start : start + 4], "little") for start in (21, 24, 26, 27, 28)]
    if head[12:16] == b"VP8X":  # extended: 24 bits each, less one
        size = (little[1] & 0xFFFFFF) + 1, (little[3] & 0xFFFFFF) + 1
    elif head[12:16] == b"VP8L":  # lossless: 14 bits each, less one
        size = (little[0] & 0x3FFF) + 1, (little[0] >> 14 & 0x3FFF) + 1
    else:  # lossy: 14 bits each
        size = little[2] & 0x3FFF, little[4] & 0x3FFF
    if max(size) > 16383:  # WebP's own limit; a tiny animation can claim more, and costs seconds
        raise _unreadable(path, f"its header says {size[0]} x {size[1]} pixels, more than WebP allows")
    _check_pixels(path, *size, max_pixels)


def _check_header(path, image: ImageFile.ImageFile, max_pixels: int) -> None:
    """Refuse what would decode for ever, or decode into something else than the picture."""
    width, height = image.size
    pixels = width * height
    _check_pixels(path, width, height, max_pixels)
    if image.mode in ("I", "F"):
        reason = "it holds 32-bit, float or signed values, whose range is not agreed on"
        raise _unreadable(path, reason, "convert it to 8 or 16 bits")

    codec = image.tile[0].codec_name if image.tile else None
    planes = 1
    if image.format == "TIFF":
        tags = image.tag_v2
        if 50706 in tags or (isinstance(tags.get(254), int) and tags[254] & 1):  # DNGVersion; NewSubfileType: reduced
            raise _unreadable(path, "its first picture is only the preview of a raw photograph", "develop it to a PNG")
        _check_pixels(path, int(tags.get(322, 1)), int(tags.get(323, 1)), max_pixels)  # a tile, decoded whole
        if codec == "raw" and tags.get(284) == 2:  # PlanarConfiguration: a tile for each band
            planes = len(image.getbands())
            if max(tags.get(258, (1,))) > 8:  # which Pillow takes for bytes
                raise _unreadable(path, "it holds 16-bit color plane by plane", "save it anew as PNG")
    elif codec == "jpeg":
        size = image.fp.seek(0, os.SEEK_END)
        if pixels > _MAX_JPEG_PIXELS_PER_BYTE * size:
            raise _unreadable(path, f"{size} bytes cannot hold the {width} x {height} pixels of its header")
        if image.info.get("progressive"):
            image.fp.seek(0)
            if image.fp.read().count(b"\xff\xda") > _MAX_JPEG_SCANS:
                raise _unreadable(path, f"it has more than {_MAX_JPEG_SCANS} progressive scans", "save it anew as PNG")
    elif codec == "bmp_rle" and pixels > _MAX_RLE_PIXELS:
        raise _unreadable(path, "it is a large run-length coded BMP", "save it anew as PNG")

    covered = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (tile.extents for tile in image.tile))
    if image.tile and covered != planes * pixels:
        raise _unreadable(path, "its parts do not add up to the picture")


def _decode(path, image: ImageFile.ImageFile, stream: BinaryIO) -> np.ndarray:
    """Decode, then convert strip by strip, so that a large photograph is held at most twice (16-bit color: thrice)."""
    table, is_deep = deep.gray_levels(image), deep.is_color(image)  # these three read what Pillow forgets on loading
    deep.scale_transparent_color(image)
    image.load()
    low = deep.low_bytes(stream) if is_deep else None
    transform = _profile_to_srgb(path, image)
    try:
        orientation = image.getexif().get(0x0112, 1)  # 1 after a TIFF, which Pillow has already turned
    except Exception as error:
        warnings.warn(f"{path}: its EXIF block is broken and ignored ({_line(error)})", stacklevel=3)
        orientation = 1
    down, across, swap = _FLIPS.get(orientation, (1, 1, 0))
    width, height = image.size
    rgb = np.empty((width, height, 3) if swap else (height, width, 3), np.uint8)
    as_stored = (rgb.swapaxes(0, 1) if swap else rgb)[::down, ::across]  # a view, through which the strips turn upright
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        strip = deep.rounded(image.crop(box), low.crop(box)) if low else image.crop(box)
        color, alpha = _split(strip, table)
        wanted = transform.input_mode if transform else "RGB"
        color = color if color.mode == wanted else color.convert(wanted)
        color = transform.apply(color) if transform else color
        if alpha:
            white = Image.new("RGB", color.size, "white")
            white.paste(color, mask=alpha)
            color = white
        as_stored[top : top + rows] = np.asarray(color)
    return rgb


def _split(strip: Image.Image, table: np.ndarray | None) -> tuple[Image.Image, Image.Image | None]:
    """The color of a strip, in mode L, RGB or CMYK, and its alpha channel, if it has one."""
    if table is not None:
        values, key = np.asarray(strip), strip.info.get("transparency")
        alpha = None if key is None else Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
        return Image.fromarray(table[values]), alpha
    gray = strip.mode in _GRAY
    if strip.mode == "La":  # premultiplied; Pillow knows only this way out
        strip = strip.convert("LA")
    if strip.has_transparency_data:
        strip = strip.convert("LA" if gray else "RGBA")
        return strip.convert("L" if gray else "RGB"), strip.getchannel("A")
    mode = "L" if gray else "CMYK" if strip.mode == "CMYK" else "RGB"
    return strip if strip.mode == mode else strip.convert(mode), None


def _profile_to_srgb(path, image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """The transform from the picture's ICC profile to sRGB; `None` where there is nothing to do."""
    data = image.info.get("icc_profile")
    if not data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        mode = {"GRAY": "L", "CMYK": "CMYK"}.get(space, space)
        own = "L" if image.mode in _GRAY else "CMYK" if image.mode == "CMYK" else "RGB"
        if mode != own and (own, mode) != ("L", "RGB"):  # gray pictures often carry the profile of their color sibling
            raise ValueError(f"made for {space}, not for {own}")
        srgb = ImageCms.createProfile("sRGB")
        intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
        transform = ImageCms.buildTransform(profile, srgb, mode, "RGB", intent, flags)
        if mode == "RGB":  # sRGB goes by many names; what changes no color is one of them, and keeps every pixel exact
            steps = np.linspace(0, 255, 9).astype(np.uint8)
            probe = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(9, 81, 3)
            moved = np.asarray(transform.apply(Image.fromarray(probe)))
            if np.abs(moved.astype(int) - probe).max() <= 1:
                return None
    except Exception as error:
        warnings.warn(f"{path}: its ICC profile is ignored, colors are taken as sRGB ({_line(error)})", stacklevel=4)
        return None
    return transform


# ---- messages and checks


def _line(text: object) -> str:
    return " ".join(str(text).split()) or type(text).__name__  # some exceptions say nothing


def _unreadable(path, reason: object, remedy: str = "copy or download it again") -> ImageReadError:
    return ImageReadError(_line(f"{path}: cannot be read, {reason}; {remedy}"))


def _unidentified(path, head: bytes) -> ImageReadError:
    """Say why Pillow recognized nothing."""
    remedy = "convert it to JPEG or PNG"
    if head[4:8] == b"ftyp":  # the box that opens HEIF, HEIC and AVIF files
        return _unreadable(path, "it is a HEIF or AVIF file", remedy)
    if head.startswith(_MAGIC):
        return _unreadable(path, "its header is damaged or of a rare kind", f"copy it again, or {remedy}")
    return _unreadable(path, "it is none of JPEG, PNG, WebP, TIFF, BMP, whatever its suffix", remedy)


def _check_uint8(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise ValueError(f"image: expected a uint8 array (H, W, 3), got {kind}; see ctlib.images.to_uint8")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image: expected a uint8 array (H, W, 3) with pixels in it, got shape {image.shape}")


def _check_rgb(rgb: Tensor) -> None:
    if not isinstance(rgb, Tensor) or not rgb.is_floating_point():
        kind = getattr(rgb, "dtype", type(rgb).__name__)
        raise ValueError(f"rgb: expected a float tensor (1, 3, H, W), got {kind}; see ctlib.images.to_tensor")
    shape = tuple(rgb.shape)
    if rgb.ndim not in (3, 4) or shape[-3] != 3 or (rgb.ndim == 4 and shape[0] != 1) or rgb.numel() == 0:
        raise ValueError(f"rgb: expected one picture, (1, 3, H, W) or (3, H, W), got shape {shape}")
    if not torch.isfinite(rgb).all():
        raise ValueError("rgb: holds NaN or infinite values; repair the picture first, e.g. with torch.nan_to_num")
