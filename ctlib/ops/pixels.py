"""Color pictures as the ops see them: `(B, 3, ...)`, channels first or last in memory, one pass over the pixels."""

import torch
from torch import Tensor

from ctlib.ops.launch import compiles, jit, tl, wrap_triton

_CHUNK = 1 << 16  # pixels that eager torch treats at once: their intermediate planes stay in the processor's cache
_BLOCK = 1024  # pixels of a Triton program


def result_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def interleaved(x: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side, as in channels_last."""
    single = x.numel() == 3 * x.shape[0]  # one pixel a picture: both at once
    return x.movedim(1, -1).is_contiguous() and (single or not x.is_contiguous())


def dense(x: Tensor) -> Tensor:
    """The tensor itself if it is contiguous or channels last, else a contiguous copy."""
    return x if x.is_contiguous() or interleaved(x) else x.contiguous()


def as_laid_out(x: Tensor, model: Tensor) -> Tensor:
    """The tensor, copied if need be to lie in memory as `model` does."""
    if x.stride() == model.stride():
        return x
    return torch.empty_like(model, dtype=x.dtype).copy_(x)


def like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Fresh memory in the layout of a `dense` tensor."""
    return torch.empty_like(x, dtype=dtype or result_dtype(x))


def planes_of(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The channels of a `dense` tensor as three views `(B, N)`."""
    return x.flatten(2).unbind(1) if x.ndim > 2 else x.unsqueeze(2).unbind(1)


def fill(function, inputs: tuple[Tensor, ...], out: Tensor, *options, settings: tuple[Tensor, ...] = ()) -> None:
    """Write `function` of the channels of all inputs to the channels of `out`: at once if compiled, else in chunks.

    `settings` are tensors `(B,)`, one value a picture; the function gets them as planes, before those of `out`.
    """
    if not out.numel():
        return None
    if (
        compiles(out) and interleaved(out) and not out.is_contiguous()
    ):  # the compiler treats channels that lie between each other as one input
        apart = torch.empty(out.shape, dtype=out.dtype)
        fill(function, inputs, apart, *options, settings=settings)
        out.copy_(apart)
        return None
    planes = [plane for x in inputs for plane in planes_of(x)]
    batch, pixels = planes[0].shape
    planes += [setting[:, None].expand(batch, pixels) for setting in settings]
    planes += planes_of(out)
    if out.is_cuda or type(out) is not Tensor:
        return function(*planes, *options)
    if compiles(out):
        for picture in zip(*planes, strict=True):
            function(*picture, *options)
        return None
    rows = max(1, _CHUNK // max(pixels, 1))
    for top in range(0, batch, rows):
        for left in range(0, pixels, _CHUNK):
            function(*(plane[top : top + rows, left : left + _CHUNK] for plane in planes), *options)
    return None


def launch_pixels(kernel, *tensors: Tensor, apart: bool = False, **constants) -> None:
    """Run a kernel over all pixels; the first tensor tells the layout, which all `(B, 3, ...)` ones share.

    With `apart` no program treats two pictures, which a kernel with settings a picture needs.
    """
    x = tensors[0]
    if x.numel() == 0:
        return
    last = interleaved(x)
    pictures = 1 if last and not apart else x.shape[0]  # if interleaved, they follow each other as pixels do
    plane = x.numel() // (3 * pictures)
    bound = 3 * plane if last else plane
    blocks = -(-plane // _BLOCK)
    with torch.cuda.device_of(x):
        wrap_triton(kernel)[(blocks * pictures,)](
            *tensors, plane, bound, blocks, **constants, INTERLEAVED=last, BLOCK=_BLOCK
        )


@jit
def place(plane, blocks, INTERLEAVED: tl.constexpr, BLOCK: tl.constexpr):
    """Where a program's pixels lie: offsets of the first third, the step to the next, the index within
    the picture, and the picture.

    Planes: a third is a channel. Interleaved: four pixels are twelve values in a row, read as three fours, so that a
    thread moves 16 bytes at a time. Offsets have 64 bits: a picture may have more than 2^31 values.
    """
    program = tl.program_id(0).to(tl.int64)
    picture = program // blocks
    block = program - picture * blocks
    start = 3 * picture * plane
    if INTERLEAVED:
        index = 12 * (block * (BLOCK // 4) + tl.arange(0, BLOCK // 4))[:, None] + tl.arange(0, 4)[None, :]
        return start + index, 4, index, picture
    else:
        index = block * BLOCK + tl.arange(0, BLOCK)
        return start + index, plane, index, picture


@jit
def quarters(x):
    """`(G, 4)` to its four columns."""
    even, odd = tl.split(tl.reshape(x, (x.shape[0], 2, 2)))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@jit
def whole(first, second, third, fourth):
    """Four columns to one row `(4 G,)`, column after column within a group."""
    return tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), (4 * first.shape[0],))


@jit
def load(pointer, offset, step, index, bound, INTERLEAVED: tl.constexpr):
    """The three channels of a program's pixels, as stored."""
    if INTERLEAVED:
        red0, green0, blue0, red1 = quarters(tl.load(pointer + offset, index < bound, 0))
        green1, blue1, red2, green2 = quarters(tl.load(pointer + offset + 4, index + 4 < bound, 0))
        blue2, red3, green3, blue3 = quarters(tl.load(pointer + offset + 8, index + 8 < bound, 0))
        red = whole(red0, red1, red2, red3)
        return red, whole(green0, green1, green2, green3), whole(blue0, blue1, blue2, blue3)
    else:
        red = tl.load(pointer + offset, index < bound, 0)
        green = tl.load(pointer + offset + step, index < bound, 0)
        return red, green, tl.load(pointer + offset + step + step, index < bound, 0)


@jit
def store(pointer, offset, step, index, bound, first, second, third, INTERLEAVED: tl.constexpr):
    kind = pointer.dtype.element_ty
    first, second, third = first.to(kind), second.to(kind), third.to(kind)
    if INTERLEAVED:
        four: tl.constexpr = (first.shape[0] // 4, 4)
        red0, red1, red2, red3 = quarters(tl.reshape(first, four))
        green0, green1, green2, green3 = quarters(tl.reshape(second, four))
        blue0, blue1, blue2, blue3 = quarters(tl.reshape(third, four))
        tl.store(pointer + offset, tl.reshape(whole(red0, green0, blue0, red1), four), index < bound)
        tl.store(pointer + offset + 4, tl.reshape(whole(green1, blue1, red2, green2), four), index + 4 < bound)
        tl.store(pointer + offset + 8, tl.reshape(whole(blue2, red3, green3, blue3), four), index + 8 < bound)
    else:
        tl.store(pointer + offset, first, index < bound)
        tl.store(pointer + offset + step, second, index < bound)
        tl.store(pointer + offset + step + step, third, index < bound)
