"""The histogram tensor of HEN: values of the spec, masks and regions, kernel against reference."""

from importlib import import_module

import numpy as np
import ptx
import pytest
import torch

from ctlib.color import A_RANGE, B_RANGE, rgb_to_lab
from ctlib.ops import hen_histogram

module = import_module("ctlib.ops.hen_histogram")  # the package has the function under this name


def picture(*shape: int) -> torch.Tensor:
    return rgb_to_lab(torch.rand(*shape, generator=torch.Generator().manual_seed(0)))


def test_four_pixels_of_the_spec():
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]).T.reshape(1, 3, 2, 2)
    tensor = hen_histogram(rgb_to_lab(colors))
    assert tensor.shape == (1, 9, 64, 64)
    assert tensor[0, 0].nonzero().tolist() == [[0, 57], [34, 29], [55, 57], [60, 0]]
    assert tensor[0, 0].unique().tolist() == [0, 0.25]
    assert (
        tensor[0, 1:].amax((1, 2)).tolist() == tensor[0, 1:].amin((1, 2)).tolist() == [0, 0, 0.25, 0, 0.25, 0, 0, 0.5]
    )


@pytest.mark.parametrize("bins", module.BINS)
def test_equals_numpy(bins):
    lab = picture(1, 3, 40, 50)
    scaled = [((lab[0, i] - low) / (high - low)).numpy().ravel() for i, (low, high) in ((2, B_RANGE), (1, A_RANGE))]
    ab = np.histogram2d(*scaled, bins=bins, range=[[0, 1]] * 2)[0] / 2000
    lightness = np.histogram(lab[0, 0].numpy() / np.float32(100), bins=8, range=(0, 1))[0] / 2000
    found = hen_histogram(lab, bins=bins)
    assert found.shape == (1, 9, bins, bins)
    assert found[0, 0].sum().item() == pytest.approx(1) == found[0, 1:, 0, 0].sum().item()
    np.testing.assert_allclose(found[0, 0], ab, atol=1e-7)
    np.testing.assert_allclose(found[0, 1:, 0, 0], lightness, atol=1e-7)


def test_default_is_64_bins():
    lab = picture(1, 3, 20, 20)
    assert torch.equal(hen_histogram(lab), hen_histogram(lab, bins=64))


@pytest.mark.parametrize("bins", module.BINS)
def test_regions_have_the_bins_too(bins):
    lab = picture(2, 3, 8, 8)
    labels = torch.arange(8).expand(2, 8, 8) // 4  # left half, right half
    regions = hen_histogram(lab, bins=bins, labels=labels, num_labels=2)
    assert regions.shape == (2, 2, 9, bins, bins)
    for i, half in enumerate(lab.chunk(2, dim=-1)):
        assert torch.equal(regions[:, i], hen_histogram(half, bins=bins))


def test_mask_and_label_equal_the_cropped_region():
    lab = picture(1, 3, 8, 8)
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 1:4, 2:7] = True
    expected = hen_histogram(lab[:, :, 1:4, 2:7])
    assert torch.equal(hen_histogram(lab, mask=mask), expected)
    regions = hen_histogram(lab, labels=mask.long() * 3 - 1, num_labels=4)
    assert torch.equal(regions[:, 2], expected)
    assert not regions[:, [0, 1, 3]].any()
    assert not hen_histogram(lab, mask=~mask & mask).any()


def test_order_and_border():
    lab = picture(1, 3, 500)
    assert torch.equal(hen_histogram(lab), hen_histogram(lab[..., torch.randperm(500)]))
    outside = torch.tensor([[[-1.0, 101.0], [-200.0, 200.0], [-200.0, 200.0]]])
    assert hen_histogram(outside)[0, 0].nonzero().tolist() == [[0, 0], [63, 63]]


def test_traces_and_compiles_whole():
    for lab in (picture(2, 3, 5, 7), picture(2, 3, 5, 7).bfloat16(), picture(1, 3, 1, 1), picture(0, 3, 4, 4)):
        run = torch.compile(hen_histogram, fullgraph=True, backend="aot_eager")
        for bins in (64, 16):
            torch.library.opcheck(torch.ops.ctlib.hen_counts, (lab.flatten(2), None, 1, bins))
            assert torch.equal(run(lab, bins=bins), hen_histogram(lab, bins=bins))


@pytest.mark.kernel
@pytest.mark.parametrize("bins", module.BINS)
def test_kernel_equals_reference(bins, device, poison, monkeypatch):
    lab = picture(2, 3, 40, 40)
    lab[1] = 20.0  # blocks of one color
    labels = torch.randint(-1, 4, (2, 40, 40), generator=torch.Generator().manual_seed(1)).to(device)
    for more in ({}, {"labels": labels, "num_labels": 3}):
        found = []
        for kernels in (True, False):
            monkeypatch.setattr(module, "takes_kernel", lambda _, kernels=kernels: kernels)
            found.append(hen_histogram(lab.to(device), bins=bins, **more))
        assert torch.equal(*found)


@pytest.mark.skipif(module.triton is None, reason="no Triton")
@pytest.mark.parametrize("bins", module.BINS)
def test_compiles_for_hopper(bins):
    types = {"lab": "*fp32", "labels": "*u8", "counts": "*i32", "pixels": "i32", "regions": "i32", "copies": "i32"}
    types |= dict.fromkeys(("a_low", "a_width", "b_low", "b_width"), "fp32")
    compiled = ptx.compile_sm90(module._kernel, types, {"LABELS": True, "BINS": bins, "BLOCK": 1024})
    assert compiled.spills == 0
    assert compiled.wide_loads > 0


@pytest.mark.parametrize(
    ("lab", "more", "name"),
    [
        (torch.zeros(1, 2, 4), {}, "lab"),
        (torch.zeros(1, 3, 4), {"bins": 48}, "bins: expected one of 8, 16, 32, 64, 128, got 48"),
        (torch.zeros(1, 3, 4), {"bins": 64.0}, "bins: expected one of 8, 16, 32, 64, 128, got 64.0"),
        (torch.zeros(1, 3, 4), {"mask": torch.zeros(1, 4)}, "mask"),
        (torch.zeros(1, 3, 4), {"labels": torch.zeros(1, 4).long()}, "num_labels"),
        (
            torch.zeros(1, 3, 4),
            {"mask": torch.ones(1, 4).bool(), "labels": torch.zeros(1, 4).long(), "num_labels": 1},
            "mask",
        ),
    ],
)
def test_bad_input_is_named(lab, more, name):
    with pytest.raises(ValueError, match=name):
        hen_histogram(lab, **more)
