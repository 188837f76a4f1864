"""Look-up in a table and the blend of palette shifts: values, gradients, layouts, kernels."""

import colour
import pytest
import torch
from ptx import compile_sm90
from torch.library import opcheck

from ctlib.ops import launch, lookup, palette_lut, rbf_shift
from ctlib.ops.rbf_shift import _shift_grad_kernel, _shift_kernel, rbf_system

# the palette for which the weights of a few colors were worked out by hand
PALETTE = torch.tensor(
    [[20, 10, -30], [45, 40, 20], [60, -30, 30], [75, 5, 60], [90, 0, 5]], dtype=torch.float64
)  # fmt: skip
LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "permuted": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "sliced": lambda x: torch.cat([x, x], dim=3)[..., : x.shape[3]],
}


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def colors_lab(*shape, seed=0):
    low, range_ = torch.tensor([[0.0, -60, -60], [100, 120, 120]], dtype=torch.float64)
    column = (1, 3) + (1,) * (len(shape) - 2)
    return random(*shape, seed=seed) * range_.reshape(column) + low.reshape(column)


def edited(seed=1):
    return PALETTE + 20 * (random(5, 3, seed=seed) - 0.5)


def weights_one_color_at_a_time(x, palette):
    """The formula as it stands in the docstring."""
    k = len(palette)
    distances = torch.stack([(palette[i] - palette[j]).norm() for i in range(k) for j in range(i)])
    sigma = distances.mean()
    phi = torch.exp(-torch.cdist(palette, palette).square() / (2 * sigma**2))
    raw = torch.linalg.solve(phi, torch.exp(-(palette - x).square().sum(1) / (2 * sigma**2)))
    return raw, raw.clamp(min=0) / raw.clamp(min=0).sum(), sigma


# look-up


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("nodes", [2, 17])
def test_lookup_agrees_with_colour_science(nodes, layout):
    table, rgb = random(3, nodes, nodes, nodes), LAYOUTS[layout](random(2, 3, 7, 5))
    trilinear = colour.algebra.table_interpolation_trilinear
    theirs = trilinear(rgb.movedim(1, -1).numpy(), table.permute(1, 2, 3, 0).contiguous().numpy())
    found = lookup(table, rgb)
    torch.testing.assert_close(found, torch.from_numpy(theirs).movedim(-1, 1), atol=1e-12, rtol=0, check_stride=False)
    assert found.is_contiguous()
    for kind, tolerance in ((torch.float32, 2e-6), (torch.bfloat16, 4e-3)):  # half a step of the result below 1
        low = lookup(table, rgb.to(kind))
        assert low.dtype == kind
        assert (low.double() - lookup(table, rgb.to(kind).double())).abs().max() <= tolerance


def test_nodes_faces_and_nan():
    table = random(3, 5, 5, 5).float()
    axis = torch.linspace(0, 1, 5)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))[None]
    assert torch.equal(lookup(table, grid)[0], table)
    assert torch.equal(lookup(table, grid * 3 - 1)[0, :, ::4, ::4, ::4], table[:, ::4, ::4, ::4])
    rgb = torch.tensor([[0.2, 0.5, 0.5], [0.5, torch.nan, 0.5]])
    assert torch.equal(lookup(table, rgb).isnan(), torch.tensor([[False] * 3, [True] * 3]))


def test_lookup_gradients_also_at_and_beyond_the_faces():
    table = random(3, 3, 3, 3).requires_grad_()
    rgb = (random(2, 3, 4) * 1.4 - 0.2).requires_grad_()
    assert torch.autograd.gradcheck(lookup, (table, rgb))
    identity = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 3, dtype=torch.float64)] * 3, indexing="ij"))
    ends = torch.tensor([[0.0, 1.0, 1.2]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(lookup(identity, ends).sum(), ends)
    torch.testing.assert_close(slope, torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64))


def test_pieces_threads_and_repetition_change_no_bit():
    """More colors than a piece holds, so that the sums of the gradient come from several threads."""
    table, rgb = random(3, 4, 4, 4).float().requires_grad_(), random(2, 3, 41_003).float().requires_grad_()
    wanted = torch.autograd.grad(lookup(table, rgb).square().sum(), (table, rgb))
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert all(map(torch.equal, torch.autograd.grad(lookup(table, rgb).square().sum(), (table, rgb)), wanted))
    finally:
        torch.set_num_threads(before)
    exact = table.detach().double().requires_grad_()
    truth = torch.autograd.grad(lookup(exact, rgb.detach().double()).square().sum(), exact)[0]
    torch.testing.assert_close(wanted[0].double(), truth, rtol=1e-6, atol=0)  # summed in float64
    part = lookup(table, rgb[1:, :, -9:])
    assert torch.equal(part, lookup(table, rgb)[1:, :, -9:])


# shift


@pytest.mark.parametrize(
    ("x", "raw", "weights"),
    [
        ((50, 0, 0), (0.349243, 0.269015, 0.396576, -0.168469, 0.296244), (0.266379, 0.205186, 0.302481, 0, 0.225954)),
        ((10, 60, 60), (-0.170747, 1.015097, 0.075066, 0.096458, -0.463068), (0, 0.855452, 0.063260, 0.081288, 0)),
    ],
)
def test_golden_weights(x, raw, weights):
    x = torch.tensor(x, dtype=torch.float64)
    slow_raw, slow_weights, sigma = weights_one_color_at_a_time(x, PALETTE)
    torch.testing.assert_close(sigma.item(), 68.071124, atol=1e-6, rtol=0)
    torch.testing.assert_close(slow_raw, torch.tensor(raw, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(slow_weights, torch.tensor(weights, dtype=torch.float64), atol=1e-6, rtol=0)
    for i in range(5):  # one color moves by one unit: the shift is its weight
        new = PALETTE.clone()
        new[i, 0] += 1
        shift = rbf_shift(x[None], PALETTE, new)[0, 0] - x[0]
        assert abs(shift.item() - weights[i]) < 1e-6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shift_agrees_with_the_formula(layout):
    lab, new = LAYOUTS[layout](colors_lab(2, 3, 4, 5)), edited()
    found = rbf_shift(lab, PALETTE, new)
    assert found.is_contiguous()
    for x, y in zip(lab.movedim(1, -1).reshape(-1, 3), found.movedim(1, -1).reshape(-1, 3), strict=True):
        weights = weights_one_color_at_a_time(x, PALETTE)[1]
        torch.testing.assert_close(y, x + weights @ (new - PALETTE), atol=1e-9, rtol=0)
    # float32: the inverse of Phi has entries of about 10
    torch.testing.assert_close(rbf_shift(lab.float(), PALETTE, new).double(), found, atol=2e-4, rtol=0)
    assert rbf_shift(lab.bfloat16(), PALETTE, new).dtype == torch.bfloat16


def test_palette_colors_land_duplicates_share_and_far_colors_stay_finite():
    new = edited()
    torch.testing.assert_close(rbf_shift(PALETTE, PALETTE, new), new, atol=1e-9, rtol=0)
    twice = [torch.cat([each, each[1:2]]) for each in (PALETTE, new)]
    torch.testing.assert_close(rbf_shift(PALETTE, *twice), new, atol=1e-6, rtol=0)
    tight = PALETTE[:1] + 0.1 * random(4, 3)
    for kind in (torch.float32, torch.float64):
        far = colors_lab(1, 3, 200).to(kind)
        shifted = rbf_shift(far, tight, tight + 10)
        torch.testing.assert_close(shifted, far + 10, atol=1e-4, rtol=0)  # weights sum to 1 however far
        torch.testing.assert_close(rbf_shift(far, tight[:1], tight[:1] + 3), far + 3)
        same = PALETTE[:1].repeat(3, 1)
        torch.testing.assert_close(rbf_shift(far, same, same + 3), far + 3, atol=1e-4, rtol=0)


def test_one_palette_a_picture():
    lab, old = colors_lab(2, 3, 6), torch.stack([PALETTE, PALETTE.flip(0) * 0.8])
    new = old + 5 * random(2, 5, 3)
    each = torch.cat([rbf_shift(lab[i : i + 1], old[i], new[i]) for i in range(2)])
    torch.testing.assert_close(rbf_shift(lab, old, new), each)
    torch.testing.assert_close(rbf_shift(lab[:, :, 0], old, new), each[:, :, 0])


def test_shift_gradients():
    lab, new = colors_lab(2, 3, 5).requires_grad_(), edited().requires_grad_()
    assert torch.autograd.gradcheck(lambda lab, new: rbf_shift(lab, PALETTE, new), (lab, new))
    each = torch.stack([edited(2), edited(3)]).requires_grad_()
    assert torch.autograd.gradcheck(lambda lab, new: rbf_shift(lab, PALETTE, new), (lab, each))
    many = colors_lab(2, 3, 20_000).float().requires_grad_()  # in pieces
    found = torch.autograd.grad(rbf_shift(many, PALETTE, each).square().sum(), (many, each))
    exact = many.detach().double().requires_grad_()
    truth = torch.autograd.grad(rbf_shift(exact, PALETTE, each).square().sum(), (exact, each))
    torch.testing.assert_close(found[0].double(), truth[0], rtol=1e-4, atol=2e-2)  # of values about 100
    torch.testing.assert_close(found[1].double(), truth[1], rtol=1e-4, atol=0)


# with PyTorch


def system(batch):
    inverse, sharpness = rbf_system(PALETTE[None])
    moves = (edited() - PALETTE)[None]
    return [x.float().expand(batch, *x.shape[1:]).contiguous() for x in (PALETTE[None], inverse, sharpness, moves)]


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (torch.float32, (2, 3, 35)),
        (torch.float32, (1, 3, 1)),
        (torch.float32, (0, 3, 4)),
        (torch.bfloat16, (2, 3, 35)),
        (torch.float64, (1, 3, 35)),
    ],
)
def test_opcheck(kind, shape):
    table = random(3, 4, 4, 4).to(torch.float64 if kind == torch.float64 else torch.float32).requires_grad_()
    rgb = random(*shape).to(kind).requires_grad_()
    opcheck(torch.ops.ctlib.lut_lookup.default, (table, rgb, False))
    opcheck(torch.ops.ctlib.lut_lookup.default, (table, rgb.detach().mT.contiguous().mT, True))
    old, inverse, sharpness, moves = (x.to(table.dtype) for x in system(shape[0]))
    lab = colors_lab(*shape).to(kind).requires_grad_()
    opcheck(torch.ops.ctlib.rbf_shift.default, (lab, old, inverse, sharpness, moves.requires_grad_()))


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",
        pytest.param(
            "inductor",
            marks=[pytest.mark.slow, pytest.mark.skipif(not launch.has_compiler(), reason="no C++ compiler")],
        ),
    ],
)
def test_within_torch_compile(backend):
    def recolor(table, rgb, new):
        return lookup(table, rgb), rbf_shift(rgb * 100, PALETTE, new)

    inputs = [x.float().requires_grad_() for x in (random(3, 5, 5, 5), random(2, 3, 7, 9), edited())]
    expected = recolor(*inputs)
    found = torch.compile(recolor, fullgraph=True, backend=backend)(*inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)
    gradients = [torch.autograd.grad(sum(x.square().mean() for x in out), inputs) for out in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


# kernels


@pytest.mark.kernel
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(2, 3, 17, 31), (1, 3, 1, 1)])
def test_lookup_kernel(device, poison, shape, layout, deterministic):
    table = random(3, 5, 5, 5).float().to(device).requires_grad_()
    rgb = LAYOUTS[layout](random(*shape).float() * 1.4 - 0.2).to(device).requires_grad_()
    grad = random(*shape, seed=2).float().to(device)
    found = lookup(table, rgb, deterministic)
    exact = [x.detach().double().requires_grad_() for x in (table, rgb)]
    truth = lookup(*exact)
    torch.testing.assert_close(found.double(), truth, atol=1e-6, rtol=0)  # of values up to 1
    to_table, to_rgb = torch.autograd.grad(found, (table, rgb), grad)
    truth_table, truth_rgb = torch.autograd.grad(truth, exact, grad.double())
    torch.testing.assert_close(to_table.double(), truth_table, atol=1e-5, rtol=1e-5)  # sums of hundreds
    torch.testing.assert_close(to_rgb.double(), truth_rgb, atol=2e-5, rtol=1e-5)  # of values up to 10


@pytest.mark.kernel
def test_lookup_kernel_in_bf16_with_nan_and_without_pixels(device):
    table = random(3, 4, 4, 4).float().to(device)
    rgb = random(1, 3, 300).bfloat16().to(device)
    torch.testing.assert_close(lookup(table, rgb).double(), lookup(table.double(), rgb.double()), atol=4e-3, rtol=0)
    assert lookup(table, torch.full((1, 3, 2), torch.nan, device=device)).isnan().all()
    empty = torch.zeros(0, 3, 4, device=device, requires_grad=True)
    leaf = table.clone().requires_grad_()
    lookup(leaf, empty).sum().backward()
    assert (leaf.grad == 0).all() and empty.grad.shape == empty.shape


@pytest.mark.kernel
@pytest.mark.parametrize("k", [1, 3, 5, 16])
def test_shift_kernel(device, poison, k):
    old = torch.cat([PALETTE, colors_lab(11, 3, seed=7)])[:k]
    inputs = colors_lab(2, 3, 23, 27).float(), torch.stack([old + 9 * random(k, 3), old - 5 * random(k, 3)]).float()
    lab, new = (x.to(device).requires_grad_() for x in inputs)
    grad = random(2, 3, 23, 27, seed=3).float().to(device)
    found = rbf_shift(lab, old, new)
    exact = [x.detach().double().requires_grad_() for x in (lab, new)]
    truth = rbf_shift(exact[0], old, exact[1])
    # rounding grows with the condition of Phi: 3e2 with five colors, 1e5 with sixteen
    tolerance = 1e-4 if k < 16 else 2e-2
    torch.testing.assert_close(found.double(), truth, atol=tolerance, rtol=0)
    to_lab, to_new = torch.autograd.grad(found, (lab, new), grad)
    truth_lab, truth_new = torch.autograd.grad(truth, exact, grad.double())
    torch.testing.assert_close(to_lab.double(), truth_lab, atol=tolerance, rtol=1e-4)
    torch.testing.assert_close(to_new.double(), truth_new, atol=tolerance, rtol=1e-4)


COLORS = {"size": "i32", "blocks": "i32"}
GRID = COLORS | {"nodes": "i32"}
SYSTEM = dict.fromkeys(("lab", "palette", "inverse", "sharpness", "moves", "out"), "*fp32") | COLORS
SCATTER = dict.fromkeys(("rgb", "grad", "sums", "scale"), "*fp32") | GRID | {"copies": "i32"}
SIGNATURES = [
    (palette_lut._look_up_kernel, dict.fromkeys(("table", "rgb", "out"), "*fp32") | GRID, {"BLOCK": 256}),
    (palette_lut._grad_rgb_kernel, dict.fromkeys(("table", "rgb", "grad", "out"), "*fp32") | GRID, {"BLOCK": 256}),
    (palette_lut._grad_lut_kernel, SCATTER, {"FIXED": False, "BLOCK": 256}),
    (palette_lut._grad_lut_kernel, SCATTER | {"sums": "*i64"}, {"FIXED": True, "BLOCK": 256}),
    (_shift_kernel, SYSTEM, {"K": 5, "KP": 8, "BLOCK": 512}),
    (_shift_grad_kernel, SYSTEM | {"grad": "*fp32", "parts": "*fp32"}, {"K": 5, "KP": 8, "BLOCK": 512}),
    (_shift_kernel, SYSTEM, {"K": 16, "KP": 16, "BLOCK": 256}),
    (_shift_grad_kernel, SYSTEM | {"grad": "*fp32", "parts": "*fp32"}, {"K": 16, "KP": 16, "BLOCK": 256}),
]


@pytest.mark.skipif(launch.triton is None or launch.INTERPRET, reason="needs the Triton compiler")
@pytest.mark.parametrize(("kernel", "signature", "constants"), SIGNATURES)
def test_compiles_for_hopper(kernel, signature, constants):
    built = compile_sm90(kernel, signature, constants)
    assert built.spills == 0 and built.stack == 0
    assert built.wide_loads > 0 or constants.get("K") == 16  # two pixels a thread leave 8 bytes


# bad input


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: lookup(torch.zeros(3, 4, 4, 5), torch.zeros(1, 3, 2)), r"lut: expected shape \(3, N, N, N\)"),
        (lambda: lookup(torch.zeros(3, 4, 4, 4).int(), torch.zeros(1, 3, 2)), "lut: expected a float table"),
        (lambda: lookup(torch.zeros(3, 4, 4, 4), torch.zeros(1, 3, 2).byte()), "rgb: expected a float tensor"),
        (lambda: lookup(torch.zeros(3, 4, 4, 4), torch.zeros(1, 4, 2)), "rgb: expected 3 color channels"),
        (lambda: rbf_shift(torch.zeros(1, 2, 2), PALETTE, PALETTE), "lab: expected 3 color channels"),
        (lambda: rbf_shift(torch.zeros(1, 3, 2), PALETTE.int(), PALETTE), "palette: expected float CIELAB"),
        (lambda: rbf_shift(torch.zeros(1, 3, 2), torch.zeros(17, 3), torch.zeros(17, 3)), "palette: .* k from 1 to 16"),
        (lambda: rbf_shift(torch.zeros(1, 3, 2), PALETTE, PALETTE[:4]), "new_palette: has 4 colors, the palette 5"),
        (
            lambda: rbf_shift(torch.zeros(2, 3, 2), PALETTE, PALETTE.expand(3, 5, 3)),
            "new_palette: has 3 palettes for 2",
        ),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_threads_work_in_the_callers_mode(mode):
    table, rgb = random(3, 5, 5, 5), random(1, 3, 200, 200)
    with mode():
        assert torch.equal(lookup(table, rgb), lookup(table.clone(), rgb))


def test_autocast_changes_nothing():
    lab = colors_lab(1, 3, 9, 9).float()
    plain = rbf_shift(lab, PALETTE, edited())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rbf_shift(lab, PALETTE, edited()), plain)


def test_a_table_of_another_size_traces():
    traced = torch.compile(lookup, fullgraph=True, backend="aot_eager")
    for nodes in (5, 9):
        table, rgb = random(3, nodes, nodes, nodes), random(1, 3, 6, 6)
        torch.testing.assert_close(traced(table, rgb), lookup(table, rgb))
