"""What the door lets in, and what it says to the rest."""

import numpy as np
import pytest
import torch

from ctlib import check

GOOD = torch.linspace(0, 1, 24).reshape(1, 3, 2, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (4, 3, 1, 9), (2, 3, 5, 7)])
def test_a_good_batch_is_returned_itself(shape, dtype):
    picture = torch.full(shape, 0.5, dtype=dtype)
    assert check.rgb(picture) is picture


def test_rounding_beyond_the_range_is_forgiven():
    picture = torch.tensor([-1e-7, 0.5, 1 + 1e-7]).reshape(1, 3, 1, 1)
    assert check.rgb(picture) is picture


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"content: expected a torch tensor, got ndarray; see ctlib\.images\.to_tensor"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), r"content: expected a float tensor, got torch\.uint8"),
        (GOOD[0], r"3 color channels on axis 1.*got shape \(3, 2, 4\)"),
        (GOOD.permute(0, 2, 3, 1), r"3 color channels on axis 1"),
        (GOOD.flatten(2), r"content: expected shape \(B, 3, H, W\).*add the batch axis with \[None\]"),
        (torch.zeros(1, 3, 0, 4), r"content: the picture is empty"),
        (torch.zeros(1, 3, 4, 0), r"content: the picture is empty"),
        (GOOD * 255, r"content: expected sRGB in \[0, 1\], got values from 0 to 255; divide by 255"),
        (GOOD - 0.1, r"got values from -0\.1 to 0\.9; clamp it"),
        (torch.full_like(GOOD, torch.nan), r"content: holds NaN or infinite values; repair the picture"),
        (torch.full_like(GOOD, -torch.inf), r"content: holds NaN or infinite values"),
        (torch.full_like(GOOD, 1e30), r"content: expected sRGB in \[0, 1\]"),
    ],
)
def test_the_message_names_argument_fault_and_remedy(picture, says):
    with pytest.raises(ValueError, match=says) as error:
        check.rgb(picture, "content")
    assert "\n" not in str(error.value)


def test_one_nan_among_good_values_is_found():
    picture = GOOD.clone()
    picture[0, 1, 1, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        check.rgb(picture)


def test_colors_may_have_any_range_and_any_trailing_axes():
    for shape in [(2, 3), (1, 3, 5), (1, 3, 2, 2), (1, 3, 2, 2, 2)]:
        values = torch.full(shape, -300.0)
        assert check.colors(values) is values


def test_same_shape_compares_all_axes():
    assert check.same_shape(GOOD, GOOD + 1) is None
    with pytest.raises(ValueError, match=r"result and truth: shapes differ, \(1, 3, 2, 4\) and \(1, 3, 2, 3\)"):
        check.same_shape(GOOD, GOOD[..., :3])
    with pytest.raises(ValueError, match="source and transferred"):
        check.same_shape(GOOD, GOOD[0], "source and transferred")
