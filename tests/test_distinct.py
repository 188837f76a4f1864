"""Distinct colors: nothing is lost, nothing is invented."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage import data

from ctlib.distinct import distinct, in_threads, repaint, tally

PICTURES = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


@given(PICTURES)
@settings(deadline=None, max_examples=30)
def test_agrees_with_numpy_unique_and_paints_back(picture):
    codes, colors, counts = distinct(picture)
    known, numbers = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    np.testing.assert_array_equal((colors[0].T * 255).round().numpy(), known)  # both sort by r, then g, then b
    np.testing.assert_array_equal(counts[0].numpy(), numbers)
    assert colors.dtype == counts.dtype == torch.float64
    assert codes.dtype == np.int32 and (np.diff(codes) > 0).all()
    np.testing.assert_array_equal(repaint(picture, codes, colors), picture)


@pytest.mark.parametrize("shape", [(1100, 1001), (1024, 1024)])  # enough pixels to be counted in tables
def test_large_pictures_are_counted_alike_on_any_number_of_threads(shape):
    rng = np.random.default_rng(0)
    picture = rng.normal(120, 40, (*shape, 3)).clip(0, 255).astype(np.uint8)
    picture[-1, -1] = (255, 0, 254)  # the last pixel is read in its own way
    packed = picture.astype(np.int32) @ [1 << 16, 1 << 8, 1]
    known, numbers = np.unique(packed, return_counts=True)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            codes, counts = tally(picture)
            np.testing.assert_array_equal(codes, known)
            np.testing.assert_array_equal(counts, numbers)
    finally:
        torch.set_num_threads(before)
    assert codes.dtype == np.int32 and counts.dtype == np.int64
    codes, colors, _ = distinct(picture)
    np.testing.assert_array_equal(repaint(picture, codes, colors), picture)


def test_threads_keep_the_order_and_pass_on_errors():
    assert list(in_threads(lambda x: x * x, range(9))) == [x * x for x in range(9)]
    assert list(in_threads(lambda x: x, [])) == []
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda x: 1 / x, [1, 0]))


def test_moments_of_a_photograph_need_no_pixels():
    picture = data.astronaut()[::2, ::2]
    _, colors, counts = distinct(picture)
    mean = (colors * counts[:, None]).sum(2) / counts.sum()
    np.testing.assert_allclose(mean[0].numpy(), picture.reshape(-1, 3).mean(0) / 255, rtol=1e-12)
    assert counts.sum() == picture.shape[0] * picture.shape[1]


def test_views_with_odd_strides_are_read_right():
    picture = data.astronaut()[5:90:3, 200:20:-7]
    for view in (picture, picture[..., ::-1], picture.transpose(1, 0, 2), np.asfortranarray(picture)):
        codes, colors, _ = distinct(view)
        np.testing.assert_array_equal(repaint(view, codes, colors), view)


def test_repaint_rounds_and_clamps():
    picture = np.array([[[0, 0, 0], [10, 20, 30]]], np.uint8)
    codes, _, _ = distinct(picture)
    new = torch.tensor([[[-0.4, 0.5], [1.7, 99.6 / 255], [0.0, 99.4 / 255]]])
    assert repaint(picture, codes, new).tolist() == [[[0, 255, 0], [128, 100, 99]]]


def test_the_source_is_left_alone():
    picture = data.astronaut()[:16, :16].copy()
    before = picture.copy()
    codes, colors, _ = distinct(picture)
    painted = repaint(picture, codes, 1 - colors)
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(painted, 255 - before)
    assert painted.flags.c_contiguous and painted.flags.writeable


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.zeros((4, 4, 3), np.float32), "expected an 8-bit picture"),
        (np.zeros((4, 4), np.uint8), "expected an 8-bit picture"),
        (np.zeros((4, 4, 4), np.uint8), "expected an 8-bit picture"),
        (np.zeros((0, 4, 3), np.uint8), "the picture is empty"),
        (np.zeros((4, 0, 3), np.uint8), "the picture is empty"),
    ],
)
def test_other_pictures_are_refused(picture, says):
    with pytest.raises(ValueError, match=says):
        distinct(picture)
