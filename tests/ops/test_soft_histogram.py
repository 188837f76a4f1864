"""Soft histograms: values of the spec, laws, gradients, kernel against reference."""

from importlib import import_module

import ptx
import pytest
import torch

from ctlib.ops import soft_histogram

module = import_module("ctlib.ops.soft_histogram")  # the package has the function under this name

KINDS = [("triangular", "official"), ("triangular", "unity"), ("gaussian", "official"), ("gaussian", "unity")]


def picture(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def slow(values: torch.Tensor, bins: int, kernel: str, centers: str) -> torch.Tensor:
    """The formula, as an array pixels x bins."""
    span = bins if centers == "official" else bins - 1
    distance = values.flatten(2).double()[..., None] - torch.arange(bins).double() / span
    if kernel == "triangular":
        weight = (1 - (bins - 1) * distance.abs()).clamp(min=0)
    else:
        z = distance * span
        weight = torch.exp(-z * z / 2) / (2 * torch.pi) ** 0.5 * (z.abs() <= 4)
    product = weight[:, 0]
    for axis in range(1, values.shape[1]):
        product = torch.einsum("bp...,bpj->bp...j", product, weight[:, axis])
    return product.mean(1)


def test_weights_of_the_spec():
    sums = soft_histogram(torch.tensor([0.0, 5 / 32, 0.99, 1.0]).view(4, 1, 1), 32).sum(1)
    torch.testing.assert_close(sums, torch.tensor([1.03125, 1.0625, 0.341, 0.031]), atol=5e-4, rtol=0)


@pytest.mark.parametrize(("kernel", "centers"), KINDS)
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("bins", [2, 3, 7])
def test_equals_the_formula_inside_and_outside_the_range(kernel, centers, axes, bins):
    values = picture(2, axes, 5, 7, dtype=torch.float64) * 1.4 - 0.2
    found = soft_histogram(values, bins, kernel=kernel, centers=centers)
    torch.testing.assert_close(found, slow(values, bins, kernel, centers), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("kernel", "centers"), KINDS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_gradient(kernel, centers, axes):
    values = picture(1, axes, 6, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([[0, 1, 1, -1, 255, 0]])
    for more in ({}, {"labels": labels, "num_labels": 3}):
        assert torch.autograd.gradcheck(
            lambda v, more=more: soft_histogram(v, 5, kernel=kernel, centers=centers, **more), values
        )


def test_unity_sums_to_one():
    total = soft_histogram(torch.cat([picture(1, 2, 500), torch.ones(1, 2, 1)], 2), 16, centers="unity").sum()
    assert abs(total - 1) < 1e-6


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_regions_add_up_and_equal_the_cropped_region(dtype):
    values = picture(1, 2, 8, 8)
    labels = torch.zeros(1, 8, 8, dtype=dtype)
    labels[:, 2:5, 1:7] = 2
    regions = soft_histogram(values, 8, labels=labels, num_labels=4)
    assert regions.shape == (1, 4, 8, 8)
    assert not regions[:, [1, 3]].any()
    torch.testing.assert_close(regions[:, 2], soft_histogram(values[:, :, 2:5, 1:7], 8))
    torch.testing.assert_close((regions[:, 0] * 46 + regions[:, 2] * 18) / 64, soft_histogram(values, 8))


def test_pixels_outside_all_regions_count_nowhere_even_nan():
    values = picture(1, 1, 4)
    values[..., 0] = torch.nan
    found = soft_histogram(values, 4, labels=torch.tensor([[-1, 0, 0, 0]]), num_labels=1)
    torch.testing.assert_close(found[:, 0], soft_histogram(values[..., 1:], 4))
    assert soft_histogram(values, 4).isnan().any()


def test_deterministic_does_not_know_the_order(monkeypatch):
    values = picture(1, 2, 3000)
    shuffled = values[..., torch.randperm(3000)]
    first = soft_histogram(values, 16, deterministic=True)
    monkeypatch.setattr(module, "_STEP", 700)  # nor the pieces
    assert torch.equal(first, soft_histogram(shuffled, 16, deterministic=True))
    torch.testing.assert_close(first, soft_histogram(values, 16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_opcheck(dtype):
    base = picture(2, 2, 5, 7, dtype=torch.float32).to(dtype)
    for values in (base.flatten(2), base.flatten(2)[..., ::2], base[:, :, :1, 0], base.flatten(2)[:0]):
        for grad in (False, True):
            arguments = (values.detach().requires_grad_(grad), None, 1, 6, "triangular", "official", 1.0, False)
            torch.library.opcheck(torch.ops.ctlib.soft_histogram, arguments)


def test_layouts_and_empty_batches():
    values = picture(2, 2, 5, 7)
    expected = soft_histogram(values, 6)
    torch.testing.assert_close(soft_histogram(values.contiguous(memory_format=torch.channels_last), 6), expected)
    torch.testing.assert_close(soft_histogram(values.transpose(2, 3), 6), expected)
    assert soft_histogram(values[:0], 6).shape == (0, 6, 6)
    assert not soft_histogram(values[..., :0], 6).any()


def test_compiles_whole():
    values = picture(1, 2, 9, 9).requires_grad_()
    run = torch.compile(lambda v: soft_histogram(v, 8), fullgraph=True, backend="aot_eager")
    found, expected = run(values), soft_histogram(values, 8)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(h.square().sum(), values)[0] for h in (found, expected)))


@pytest.mark.kernel
@pytest.mark.parametrize(("kernel", "centers"), KINDS[:3])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("deterministic", [False, True])
def test_kernel_equals_reference(device, poison, monkeypatch, kernel, centers, axes, deterministic):
    values = picture(2, axes, 1100) * 1.2 - 0.1
    values[1] = 0.3  # blocks of one color
    labels = torch.randint(-1, 4, (2, 1100), generator=torch.Generator().manual_seed(1))
    found = []
    for kernels in (True, False):
        monkeypatch.setattr(module, "takes_kernel", lambda _, kernels=kernels: kernels)
        v = values.to(device).requires_grad_()
        h = soft_histogram(
            v, 5, kernel=kernel, centers=centers, labels=labels.to(device), num_labels=3, deterministic=deterministic
        )
        found.append((h, *torch.autograd.grad(h.square().sum(), v)))
    # the sums of float32 differ in their last digits by their order, the weights by exp2
    torch.testing.assert_close(found[0], found[1], atol=2e-6, rtol=1e-4)


NUMBERS = {"pixels": "i32", "regions": "i32", "shift": "fp32", "slope": "fp32", "values": "*fp32"}
WINDOW = {"BINS": 64, "SPAN": 64, "BLOCK": 1024, "AXES": 2, "TAPS": 3, "GAUSSIAN": False, "LABELS": True}
SCATTER = {"labels": "*u8", "counts": "*i64", "copies": "i32"}
SIGNATURES = [
    (module._scatter_kernel, NUMBERS | SCATTER | {"total": "*fp32"}, WINDOW | {"FIXED": False, "REGIONS": 128}),
    (module._scatter_kernel, NUMBERS | SCATTER | {"total": "*i64"}, WINDOW | {"FIXED": True, "REGIONS": 128}),
    (module._gather_kernel, NUMBERS | {"labels": "*u8", "grad": "*fp32", "grad_values": "*fp32"}, WINDOW),
]


@pytest.mark.skipif(module.triton is None, reason="no Triton")
@pytest.mark.parametrize(("kernel", "signature", "constants"), SIGNATURES)
def test_compiles_for_hopper(kernel, signature, constants):
    compiled = ptx.compile_sm90(kernel, signature, constants)
    assert compiled.spills == 0
    assert compiled.wide_loads > 0


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"values": torch.zeros(1, 4, 3)}, "values"),
        ({"values": torch.zeros(1, 2, 3, dtype=torch.uint8)}, "values"),
        ({"bins": 1}, "bins"),
        ({"kernel": "box"}, "kernel"),
        ({"centers": "middle"}, "centers"),
        ({"sigma": 0.0}, "sigma"),
        ({"labels": torch.zeros(1, 3, dtype=torch.long)}, "labels"),
        ({"labels": torch.zeros(1, 3), "num_labels": 2}, "labels"),
        ({"labels": torch.zeros(1, 4, dtype=torch.long), "num_labels": 2}, "labels"),
        ({"labels": torch.zeros(1, 3, dtype=torch.long), "num_labels": 0}, "num_labels"),
    ],
)
def test_bad_input_is_named(change, name):
    with pytest.raises(ValueError, match=name):
        soft_histogram(**({"values": torch.zeros(1, 2, 3), "bins": 4} | change))


def test_nan_with_deterministic_adds_nothing():
    hist = soft_histogram(torch.tensor([[[torch.nan, 0.5]]]), 4, centers="unity", deterministic=True)
    torch.testing.assert_close(hist, soft_histogram(torch.tensor([[[0.5]]]), 4, centers="unity") / 2)


def test_labels_of_single_colors():
    values = torch.rand(4, 2)
    labeled = soft_histogram(values, 4, labels=torch.zeros(4, dtype=torch.long), num_labels=1)
    torch.testing.assert_close(labeled[:, 0], soft_histogram(values, 4))
