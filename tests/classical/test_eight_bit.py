import numpy as np
import pytest

from ctlib import methods, ops
from ctlib.classical import eight_bit
from ctlib.data import photos
from ctlib.ops import launch


def pair():
    return photos.load("coffee")[:200, :301], photos.load("china")[:150]


def test_equals_the_method_in_double_precision_to_a_level():
    source, reference = pair()
    difference = eight_bit.reinhard_lab(source, reference).astype(int) - methods.recolor_uint8(
        "reinhard_lab", source, reference
    )
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 1e-3


def test_strips_do_not_show(monkeypatch):
    source, reference = pair()
    whole = eight_bit.reinhard_lab(source, reference)
    monkeypatch.setattr(eight_bit, "_STRIP", 1000)
    assert np.abs(whole.astype(int) - eight_bit.reinhard_lab(source, reference)).max() <= 1


def test_flat_pictures():
    gray, red = np.full((5, 7, 3), 90, np.uint8), np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    assert np.array_equal(eight_bit.reinhard_lab(gray, red), np.broadcast_to(red[0, 0], gray.shape))


def low_contrast():
    """Pictures of several strips whose variance is a small difference of large sums."""
    random, blue = np.random.default_rng(0), np.zeros((600, 600, 3), np.uint8)
    blue[..., 2] = 255
    blue[0, 0] = 0
    flat = np.broadcast_to(np.uint8([250, 10, 240]), blue.shape).copy()
    noise = flat + random.integers(-1, 2, flat.shape)
    sky = random.normal([245, 245, 250], 0.5, (600, 900, 3)).round()
    return {"one other pixel": blue, "flat": flat, "one level": noise.astype(np.uint8), "sky": sky.astype(np.uint8)}


@pytest.mark.parametrize("name", low_contrast())
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_low_contrast(name, compiled):
    if compiled and not launch.has_compiler():
        pytest.skip("no C++ compiler on this machine")
    source, reference = low_contrast()[name], pair()[1]
    expected = methods.recolor_uint8("reinhard_lab", source, reference)
    with ops.compile_cpu(compiled):
        result = eight_bit.reinhard_lab(source, reference)
    assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("flip", [False, True])
def test_views_and_tiny_pictures(flip):
    source, reference = pair()
    source = source[::3, ::-2] if flip else source[:1, :1]
    result = eight_bit.reinhard_lab(source, reference)
    expected = methods.recolor_uint8("reinhard_lab", np.ascontiguousarray(source), reference)
    assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2, 3), np.uint8)])
def test_bad_pictures_are_named(bad):
    good = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="source: expected an 8-bit picture"):
        eight_bit.reinhard_lab(bad, good)
    with pytest.raises(ValueError, match="reference: expected an 8-bit picture"):
        eight_bit.reinhard_lab(good, bad)


@pytest.mark.slow
@pytest.mark.skipif(not launch.has_compiler(), reason="no C++ compiler on this machine")
def test_recolor_uint8_takes_it_when_compiled(monkeypatch):
    source, reference = pair()
    expected = methods.recolor_uint8("reinhard_lab", source, reference)
    with ops.compile_cpu():
        result = methods.recolor_uint8("reinhard_lab", source, reference)
    assert np.abs(result.astype(int) - expected).max() <= 1
    with ops.compile_cpu(), pytest.raises(ValueError, match="nothing to recolor towards"):
        methods.recolor_uint8("reinhard_lab", source)
