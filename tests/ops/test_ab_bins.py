"""The 313 bins: the published table, the k nearest against a full search, the annealed mean against softmax."""

import ptx
import pytest
import torch

from ctlib.ops import ab_bins, launch
from ctlib.ops.ab_bins import AB_BINS, annealed_mean, dense_bins, encode_ab

MEAN = {"N": "i32", "rate": "fp32", "blocks": "i32", "bins_ptr": "*fp32", "ab_ptr": "*fp32", "norm_ptr": "*fp32"}
TILE = {"ROWS": 16, "BLOCK": 128}
SIGNATURES = [
    (
        ab_bins._encode_kernel,
        {
            "ab_ptr": "*fp32",
            "table_ptr": "*i32",
            "index_ptr": "*i64",
            "weight_ptr": "*fp32",
            **dict(list(MEAN.items())[:3]),
        },
        {"K": 5, "M": 13, "BLOCK": 256},
        False,  # two pixels a thread
    ),
    (ab_bins._mean_kernel, {"logits_ptr": "*fp32", **MEAN}, TILE, True),
    (ab_bins._mean_kernel, {"logits_ptr": "*bf16", **MEAN}, {"ROWS": 8, "BLOCK": 128}, True),
    (
        ab_bins._mean_backward_kernel,
        {"grad_ptr": "*fp32", "logits_ptr": "*fp32", "out_ptr": "*fp32", "inverse": "fp32", **MEAN},
        TILE,
        True,
    ),
]


def search(ab, k, sigma=5.0):
    """All 313 distances in float64, and a stable sort."""
    square = (ab.double().movedim(1, -1)[..., None, :] - AB_BINS.double()).square().sum(-1)
    square, index = square.sort(dim=-1, stable=True)
    weight = (-square[..., :k] / (2 * sigma**2)).softmax(-1)
    return index[..., :k].movedim(-1, 1), weight.movedim(-1, 1)


def naive(logits, temperature=0.38):
    return torch.einsum("qc,bqhw->bchw", AB_BINS.to(logits), (logits / temperature).softmax(1))


def colors(batch=2, height=19, width=23):
    """Random ones over the whole reach, and lattice points where up to four bins tie."""
    random = torch.Generator().manual_seed(0)
    ab = (torch.rand(batch, 2, height, width, generator=random) - 0.5) * 250
    ab[0, :, 0] = torch.randint(-26, 27, (2, width), generator=random) * 5.0
    ab[0, 1, 1] = ab[0, 0, 1]  # the diagonal: mirrored bins tie there
    return ab


def logits_of(batch=2, height=5, width=7, dtype=torch.float32):
    return (4 * torch.randn(batch, 313, height, width, generator=torch.Generator().manual_seed(1))).to(dtype)


def test_the_table_is_the_published_one():
    assert AB_BINS.shape == (313, 2)
    assert AB_BINS[0].tolist() == [-90, 50] and AB_BINS[-1].tolist() == [100, 0]
    counts = [5, 8, 10, 12, 14, 15, 16, 16, 17, 18, 18, 18, 19, 20, 19, 20, 20, 19, 19, 10]
    assert torch.unique(AB_BINS[:, 0], return_counts=True)[1].tolist() == counts
    assert AB_BINS.tolist() == sorted(AB_BINS.tolist())


@pytest.mark.parametrize("k", [1, 2, 5, 10, 40, 313])
def test_encoding_equals_a_full_search(k):
    ab = colors()
    index, weight = encode_ab(ab, k)
    expected_index, expected_weight = search(ab, k)
    assert torch.equal(index, expected_index)
    # float32 squares of up to 1e4 err by 1e-3, which the exponent divides by 50
    torch.testing.assert_close(weight, expected_weight.float(), rtol=0, atol=2e-5)


def test_encoding_equals_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    ab = (torch.rand(1, 2, 40, 50, generator=torch.Generator().manual_seed(3)) - 0.5) * 180
    points = ab[0].flatten(1).T.numpy()
    expected = NearestNeighbors(n_neighbors=5).fit(AB_BINS.numpy()).kneighbors(points, return_distance=False)
    assert (encode_ab(ab)[0][0].flatten(1).T.numpy() == expected).all()


def test_encoding_of_extreme_colors():
    ab = torch.tensor([[1e30, 0.0], [130.0, 0.0], [torch.nan, 3.0], [torch.inf, -torch.inf]])[:, :, None, None]
    index, weight = encode_ab(ab)
    assert torch.equal(index[0], index[1])
    assert weight[2].isnan().all() and weight[[0, 1, 3]].isfinite().all()
    assert ((index >= 0) & (index < 313)).all()


def test_encoding_in_half_precision_and_other_layouts():
    ab = colors()
    for x in (ab.bfloat16(), ab.contiguous(memory_format=torch.channels_last), ab[..., ::2], ab[:, :, :1, :1], ab[:0]):
        torch.testing.assert_close(encode_ab(x), encode_ab(x.float().contiguous()))
    assert not encode_ab(ab.requires_grad_())[1].requires_grad


def test_dense_planes_hold_the_weights():
    index, weight = encode_ab(colors(), 10)
    planes = dense_bins(index, weight)
    assert planes.shape == (2, 313, 19, 23)
    torch.testing.assert_close(planes.gather(1, index), weight)
    torch.testing.assert_close(planes.sum(1), torch.ones(2, 19, 23))


@pytest.mark.parametrize("temperature", [0.05, 0.38, 1.0])
def test_annealed_mean_equals_softmax(temperature):
    logits = logits_of()
    logits[:, 40:300:3] = -torch.inf
    # float32 sums of 313 terms of up to 110
    torch.testing.assert_close(
        annealed_mean(logits, temperature), naive(logits.double(), temperature).float(), rtol=0, atol=2e-4
    )


def test_annealed_mean_at_the_ends():
    logits = torch.full((1, 313, 1, 1), -torch.inf)
    assert annealed_mean(logits).isnan().all()
    logits[0, 77] = -3.0
    assert annealed_mean(logits).flatten().tolist() == AB_BINS[77].tolist()
    assert annealed_mean(1e30 * logits_of()).isfinite().all()


def test_annealed_mean_of_several_chunks():
    logits = logits_of(1, 40, 60)  # 2400 pixels; the CPU takes 1024 at a time
    torch.testing.assert_close(annealed_mean(logits), naive(logits), rtol=0, atol=2e-4)


def test_gradient():
    logits = logits_of(1, 1, 2, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(annealed_mean, (logits, 0.7))


@pytest.mark.parametrize(
    "logits",
    [
        logits_of(),
        logits_of(dtype=torch.bfloat16),
        logits_of(1, 1, 1),
        logits_of()[:0],
        logits_of().contiguous(memory_format=torch.channels_last),
        logits_of()[..., ::2],
    ],
    ids=["float32", "bfloat16", "1x1", "empty", "channels_last", "sliced"],
)
def test_registration(logits):
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    flat = logits.flatten(2).detach().requires_grad_()
    torch.library.opcheck(torch.ops.ctlib.annealed_mean, (flat, AB_BINS, 0.38), test_utils=tests)
    torch.library.opcheck(torch.ops.ctlib.encode_ab, (logits[:, :2] * 1, 3, 5.0), test_utils=tests)


def run(logits, weight):
    index, share = encode_ab(logits[:, :2] * 10)
    return annealed_mean(logits), dense_bins(index, share) * weight


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_within_torch_compile(backend):
    if backend == "inductor" and not launch.has_compiler():
        pytest.skip("no C++ compiler")
    compiled = torch.compile(run, fullgraph=True, backend=backend)
    results = []
    for function in (run, compiled):
        logits = logits_of().requires_grad_()
        mean, planes = function(logits, 2.0)
        results.append((mean, planes, *torch.autograd.grad(mean.square().sum(), logits)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-2)  # gradients of up to 1e4


@pytest.mark.kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(5, 7), (16, 16), (1, 1)])
def test_mean_kernel_equals_reference(device, poison, dtype, size):
    logits = logits_of(2, *size, dtype)
    logits[:, 100] = -torch.inf
    exact = logits.double().requires_grad_()
    logits = logits.to(device).requires_grad_()
    grad = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(2)).to(dtype)
    expected = naive(exact)
    (expected_gradient,) = torch.autograd.grad(expected, exact, grad.double())
    ab = annealed_mean(logits)
    (gradient,) = torch.autograd.grad(ab, logits, grad.to(device))
    # float32 sums; or one step of bfloat16, 2**-7 (Triton's interpreter cuts off instead of rounding)
    step = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(ab.cpu().double(), expected, rtol=step, atol=2e-4)
    torch.testing.assert_close(gradient.cpu().double(), expected_gradient, rtol=step, atol=2e-3)


@pytest.mark.kernel
@pytest.mark.parametrize("k", [1, 5, 10])
def test_encoding_kernel_equals_search(device, poison, k):
    ab = colors()
    index, weight = encode_ab(ab.to(device), k)
    expected_index, expected_weight = search(ab, k)
    assert torch.equal(index.cpu(), expected_index)
    torch.testing.assert_close(weight.cpu(), expected_weight.float(), rtol=0, atol=2e-5)


@pytest.mark.skipif(launch.triton is None, reason="no Triton")
@pytest.mark.skipif(launch.INTERPRET, reason="interpreted kernels are not compiled")
@pytest.mark.parametrize(("kernel", "signature", "constants", "wide"), SIGNATURES)
def test_compiles_for_an_h200(kernel, signature, constants, wide):
    compiled = ptx.compile_sm90(kernel, signature, constants)
    assert compiled.spills == 0
    assert compiled.wide_loads > 0 or not wide


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: encode_ab(torch.zeros(1, 3, 2, 2)), "ab: .*drop L"),
        (lambda: encode_ab(torch.zeros(1, 2, 2, 2), k=0), "k: expected 1 to 313"),
        (lambda: encode_ab(torch.zeros(1, 2, 2, 2), sigma=0), "sigma: .*above 0"),
        (lambda: dense_bins(torch.zeros(1, 5, 2, 2).long(), torch.zeros(1, 4, 2, 2)), "index, weight: .*one shape"),
        (lambda: annealed_mean(torch.zeros(1, 2, 2, 313)), "logits: .*movedim"),
        (lambda: annealed_mean(torch.zeros(1, 313, 2, 2), temperature=0), "temperature: .*above 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_annealed_mean_of_no_preference_is_the_mean_of_the_bins_also_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        ab = annealed_mean(torch.zeros(1, 313, 1, 1))
    torch.testing.assert_close(ab.flatten(), AB_BINS.mean(0).float())
