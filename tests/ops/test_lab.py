from functools import partial

import numpy as np
import pytest
import torch
from ptx import compile_sm90
from skimage.color import lab2rgb, rgb2lab
from torch.autograd import gradcheck
from torch.library import opcheck

from ctlib import color, ops
from ctlib.ops import lab, launch, pixels

TOLERANCE = 3e-4  # Lab, against float64: float32 cube roots near white, times the factor 500 of a
INPUTS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "uint8": torch.uint8, "float64": torch.float64}


def colors(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pictures():
    """float32 sRGB of every memory layout and awkward size."""
    plain = colors(2, 3, 6, 10).float()
    return {
        "contiguous": plain,
        "channels_last": plain.to(memory_format=torch.channels_last),
        "permuted": plain.transpose(2, 3),
        "sliced": colors(2, 3, 6, 20).float()[..., ::2],
        "cropped": colors(2, 5, 9, 11).float()[:, 1:4, 1:7, 2:],
        "odd": colors(3, 3, 7, 13).float(),
        "odd_channels_last": colors(3, 3, 7, 13).float().to(memory_format=torch.channels_last),
        "pixel": colors(1, 3, 1, 1).float(),
        "empty_batch": colors(0, 3, 4, 4).float(),
        "no_pixels": colors(2, 3, 0, 4).float(),
        "list_of_colors": colors(9, 3).float(),
        "row": colors(2, 3, 5).float(),
    }


def in_lab(rgb):
    return color.rgb_to_lab(rgb.double()).to(rgb.dtype)


# opcheck; traced, polynomials stand in for powers
traced_like_eager = partial(opcheck, atol=2 * TOLERANCE, rtol=1e-3)


@pytest.fixture(scope="module")
def cube():
    """Every 5th level of each channel, and so black, white and the primaries."""
    levels = torch.arange(0, 256, 5, dtype=torch.uint8)
    return torch.cartesian_prod(levels, levels, levels)


def test_agrees_with_scikit_image(cube):
    rgb = cube.double() / 255
    truth = torch.from_numpy(rgb2lab(rgb.numpy()))
    assert (ops.rgb_to_lab(rgb) - truth).abs().max() < 1e-10
    assert (ops.rgb_to_lab(rgb.float()) - truth).abs().max() < TOLERANCE
    assert (ops.rgb_to_lab(cube) - truth).abs().max() < TOLERANCE
    back = torch.from_numpy(lab2rgb(truth.numpy()))
    assert (ops.lab_to_rgb(truth) - back).abs().max() < 1e-10
    assert (
        ops.lab_to_rgb(truth.float()) - back
    ).abs().max() < 2e-5  # float32 of Lab 100, times the slope 12.92 at black
    assert np.array_equal((ops.lab_to_rgb(ops.rgb_to_lab(cube)) * 255).round().byte(), cube)


@pytest.mark.parametrize("name", ["_fast_0_4", "_fast_1_3", "_fast_5_12"])
def test_polynomials_keep_what_they_promise(name):
    exponent, low, high, promise = {
        "_fast_0_4": (0.4, 0.0905, 1.237, 6e-7),
        "_fast_1_3": (1 / 3, 0.008856, 1.26, 6e-7),
        "_fast_5_12": (5 / 12, 0.0031308, 1, 1.2e-6),
    }[name]
    t = torch.linspace(low, high, 100_001, dtype=torch.float64)
    truth = t**exponent
    assert (getattr(lab, name)(t.float()) / truth - 1).abs().max() < promise


def test_matrices_are_those_of_color():
    """They are typed out, as the compilers want them: a name would become an input."""
    xyz = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(
        torch.stack(lab._white_share(*xyz)) * torch.tensor(color._WHITE)[:, None], color._XYZ_FROM_RGB
    )
    # Lab of which XYZ is 1 in one place and 0 elsewhere
    corners = color.xyz_to_lab(torch.eye(3, dtype=torch.float64) * torch.tensor(color._WHITE, dtype=torch.float64))
    linear = torch.stack(lab.linear_rgb_of(*corners.T))
    assert torch.allclose(linear, color._RGB_FROM_XYZ * torch.tensor(color._WHITE, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("name", pictures())
def test_any_layout_and_size(name):
    rgb = pictures()[name]
    result = ops.rgb_to_lab(rgb)
    assert result.shape == rgb.shape and result.dtype == torch.float32
    assert torch.allclose(result.double(), color.rgb_to_lab(rgb.double()), atol=TOLERANCE)
    assert torch.allclose(ops.lab_to_rgb(result), rgb, atol=3e-5)
    if "channels_last" in name:
        assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", INPUTS)
def test_dtypes(kind):
    rgb = colors(1, 3, 4, 5)
    given = (rgb * 255).to(torch.uint8) if kind == "uint8" else rgb.to(INPUTS[kind])
    seen = given.double() / (255 if kind == "uint8" else 1)
    result = ops.rgb_to_lab(given)
    assert result.dtype == (torch.float64 if kind == "float64" else torch.float32)
    assert torch.allclose(result.double(), color.rgb_to_lab(seen), atol=TOLERANCE)


def test_overshoot_follows_the_formula_to_a_quarter_and_stays_finite_beyond():
    above = torch.linspace(1, 1.25, 50, dtype=torch.float64).repeat(3, 1).T
    assert (ops.rgb_to_lab(above.float()) - color.rgb_to_lab(above)).abs().max() < 2e-3  # L is 122
    below = -above
    assert (ops.rgb_to_lab(below.float()) - color.rgb_to_lab(below)).abs().max() < 1e-3
    far = torch.tensor([[9.0, 1e4, 2.0]], requires_grad=True)
    assert torch.equal(ops.rgb_to_lab(far), ops.rgb_to_lab(torch.full((1, 3), 1.25)))
    ops.rgb_to_lab(far).sum().backward()
    assert torch.equal(far.grad, torch.zeros(1, 3))


def test_out_of_gamut():
    lab_ = torch.tensor([[50.0, 120, -120], [110, 0, 0], [-5, 10, 10], [50, 0, 120]], dtype=torch.float64)
    for clip in (True, False):
        truth = color.lab_to_rgb(lab_, clip=clip)
        assert torch.allclose(ops.lab_to_rgb(lab_, clip=clip), truth)
        assert torch.allclose(ops.lab_to_rgb(lab_.float(), clip=clip).double(), truth, atol=2e-5)


@pytest.mark.parametrize("clip", [True, False])
def test_gradients(clip):
    rgb = colors(1, 3, 4, 3)
    rgb[0, :, 0, 0], rgb[0, :, 0, 1], rgb[0, :, 0, 2] = 0.02, 1.3, 0.5  # linear part, beyond the bound, gray
    assert gradcheck(ops.rgb_to_lab, rgb.requires_grad_())
    wide = color.rgb_to_lab(colors(1, 3, 4, 3)) * 1.4  # some out of gamut
    assert gradcheck(lambda x: ops.lab_to_rgb(x, clip=clip), wide.requires_grad_())


def test_gradients_equal_those_of_color():
    rgb = colors(2, 3, 5, 7).float()
    rgb[:, :, 0, 0], rgb[:, :, 0, 1] = 0, 1
    weights = colors(2, 3, 5, 7, seed=1).float()
    for fast, plain, x, scale in (
        (ops.rgb_to_lab, color.rgb_to_lab, rgb, 8000),  # the steepest slope: b against blue, at black
        (partial(ops.lab_to_rgb, clip=False), partial(color.lab_to_rgb, clip=False), in_lab(rgb) * 1.1, 1),
    ):
        grads = []
        for function, kind in ((fast, torch.float32), (plain, torch.float64)):
            leaf = x.detach().to(kind).requires_grad_()
            (function(leaf) * weights.to(kind)).sum().backward()
            grads.append(leaf.grad.double())
        assert torch.allclose(*grads, rtol=1e-4, atol=1e-5 * scale)
        assert torch.isfinite(grads[0]).all()


def test_bfloat16_gradient_is_bfloat16():
    rgb = colors(1, 3, 4, 4).bfloat16().requires_grad_()
    ops.rgb_to_lab(rgb).sum().backward()
    assert rgb.grad.dtype == torch.bfloat16 and rgb.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["odd_channels_last", "sliced", "odd", "pixel", "empty_batch", "row"])
def test_opcheck(name):
    rgb = pictures()[name]
    traced_like_eager(lab._rgb_to_lab, (rgb,))
    traced_like_eager(lab._rgb_to_lab, (rgb.clone().requires_grad_(),))
    traced_like_eager(lab._rgb_to_lab_backward, (torch.ones_like(rgb), rgb))
    traced_like_eager(lab._lab_to_rgb, (100 * rgb, True))
    traced_like_eager(lab._lab_to_rgb_backward, (torch.ones_like(rgb), 100 * rgb, False))


def test_opcheck_of_other_dtypes_and_out():
    rgb = colors(2, 3, 5, 4)
    traced_like_eager(lab._rgb_to_lab, ((rgb * 255).to(torch.uint8),))
    traced_like_eager(lab._rgb_to_lab, (rgb.bfloat16().requires_grad_(),))
    traced_like_eager(lab._lab_to_rgb, (rgb.requires_grad_(), True))
    traced_like_eager(lab._rgb_to_lab_out, (rgb.detach().float(), torch.empty(2, 3, 5, 4)))
    traced_like_eager(lab._lab_to_rgb_out, (rgb.detach().float(), torch.empty(2, 3, 5, 4), True))


def test_out():
    rgb = colors(2, 3, 5, 4).float()
    out = torch.full_like(rgb, torch.nan)
    assert ops.rgb_to_lab(rgb, out=out) is out and torch.equal(out, ops.rgb_to_lab(rgb))
    last = torch.full_like(rgb, torch.nan).to(memory_format=torch.channels_last)
    assert torch.equal(ops.lab_to_rgb(out, out=last), ops.lab_to_rgb(out)) and torch.allclose(last, rgb, atol=3e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inside_torch_compile(layout):
    rgb = colors(2, 3, 6, 5).float().contiguous(memory_format=layout)

    def chain(x):
        return ops.lab_to_rgb(ops.rgb_to_lab(x) * torch.tensor([1.0, 0.5, 1.2])[:, None, None])

    plain, traced = rgb.clone().requires_grad_(), rgb.clone().requires_grad_()
    expected = chain(plain)
    result = torch.compile(chain, fullgraph=True, backend="aot_eager")(traced)
    assert torch.allclose(result, expected, atol=1e-6) and result.stride() == expected.stride()
    expected.sum().backward()
    result.sum().backward()
    assert torch.allclose(plain.grad, traced.grad, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not launch.has_compiler(), reason="no C++ compiler on this machine")
def test_compiled_path_agrees():
    rgb = colors(2, 3, 30, 41).float()
    with ops.compile_cpu():
        for x in (rgb, rgb.to(memory_format=torch.channels_last), (rgb * 255).to(torch.uint8)):
            truth = color.rgb_to_lab(x.double() / (255 if x.dtype == torch.uint8 else 1))
            assert (ops.rgb_to_lab(x) - truth).abs().max() < TOLERANCE
        out = torch.empty_like(rgb)
        assert (ops.lab_to_rgb(ops.rgb_to_lab(rgb), out=out) - rgb).abs().max() < 3e-5
        for name in ("pixel", "empty_batch", "no_pixels", "list_of_colors", "odd_channels_last"):
            x = pictures()[name]
            assert torch.allclose(ops.rgb_to_lab(x).double(), color.rgb_to_lab(x.double()), atol=TOLERANCE)
        leaf = rgb.clone().requires_grad_()
        ops.lab_to_rgb(ops.rgb_to_lab(leaf)).sum().backward()
    assert torch.allclose(leaf.grad, torch.ones_like(leaf), atol=1e-2)  # there and back is the identity
    assert not ops.compile_cpu.on


@pytest.mark.parametrize("call, message", [
    (lambda x: ops.rgb_to_lab(x.to(torch.int64)), "rgb: expected float32, bfloat16, float64, uint8, got torch.int64"),
    (lambda x: ops.rgb_to_lab(x[:, :2]), r"rgb: expected 3 color channels on axis 1, \(B, 3, ...\), got shape"),
    (lambda x: ops.lab_to_rgb(x.to(torch.uint8)), "lab: expected float32, bfloat16, float64, got torch.uint8"),
    (lambda x: ops.rgb_to_lab(x, out=torch.empty(1, 3, 2, 3)), "out: expected torch.float32 .* make it with"),
    (lambda x: ops.rgb_to_lab(x, out=torch.empty(1, 3, 2, 4)[..., ::2]), "out: expected a contiguous or channels_last"),
    (lambda x: ops.rgb_to_lab(x.requires_grad_(), out=torch.empty(1, 3, 2, 2)), "out: no gradient passes through out"),
])  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 3, 2, 2))


# --- the kernels ------------------------------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.parametrize("name", pictures())
def test_kernel_agrees_with_reference(name, device, poison):
    """Powers by exp2 and log2 against polynomials: both within TOLERANCE of float64."""
    rgb = pictures()[name].to(device)
    truth = color.rgb_to_lab(rgb.double())
    assert torch.allclose(ops.rgb_to_lab(rgb).double(), truth, atol=TOLERANCE)
    for clip in (True, False):
        lab_ = (1.2 * truth).float()
        truth_rgb = color.lab_to_rgb(lab_.double(), clip=clip)
        assert torch.allclose(ops.lab_to_rgb(lab_, clip=clip).double(), truth_rgb, atol=2e-5)


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["contiguous", "odd_channels_last", "odd", "pixel", "empty_batch"])
def test_kernel_gradients_agree_with_reference(name, device, poison):
    rgb = pictures()[name].to(device)
    weights = torch.linspace(-1, 1, rgb.numel(), device=device).reshape(rgb.shape)
    for function, x, scale in (
        (ops.rgb_to_lab, rgb, 8000),
        (lambda x: ops.lab_to_rgb(x, clip=False), in_lab(rgb), 1),
        (ops.lab_to_rgb, 1.2 * in_lab(rgb), 1),
    ):
        grads = []
        for kind in (torch.float32, torch.float64):  # float64 takes the reference
            leaf = x.detach().to(kind).requires_grad_()
            (function(leaf) * weights).sum().backward()
            grads.append(leaf.grad.double())
        assert torch.allclose(*grads, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.kernel
def test_kernel_dtypes_and_out(device):
    rgb = colors(2, 3, 5, 9).to(device)
    levels = (rgb * 255).to(torch.uint8)
    for x in (levels, levels.to(memory_format=torch.channels_last)):
        assert torch.allclose(ops.rgb_to_lab(x).double(), color.rgb_to_lab(levels / 255.0).double(), atol=TOLERANCE)
    half = rgb.bfloat16()
    out = torch.full_like(half, torch.nan, dtype=torch.float32)
    ops.rgb_to_lab(half, out=out)
    assert torch.allclose(out.double(), color.rgb_to_lab(half.double()), atol=TOLERANCE)


@pytest.mark.kernel
def test_kernel_shows_nan(device):
    lab_ = torch.tensor([[torch.nan, 0, 0], [50, torch.nan, 0], [50, 0, torch.nan]], device=device)
    assert ops.lab_to_rgb(lab_).isnan().any(1).all() and ops.rgb_to_lab(lab_ / 100).isnan().any(1).all()
    assert ops.shift_hue(lab_ / 100, 0.2).isnan().any(1).all()


@pytest.mark.kernel
def test_kernel_of_several_programs(device, monkeypatch):
    """Pictures larger than a block, that end within one."""
    monkeypatch.setattr(pixels, "_BLOCK", 32)
    for shape in ((3, 3, 5, 9), (2, 3, 8, 8)):
        rgb = colors(*shape).float().to(device)
        for x in (rgb, rgb.to(memory_format=torch.channels_last)):
            assert torch.allclose(ops.rgb_to_lab(x).double(), color.rgb_to_lab(x.double()), atol=TOLERANCE)


KINDS = {"planes": False, "interleaved": True}
KERNELS = {
    "forward": (lab._forward_kernel, {"rgb": "*fp32", "table": "*fp32", "lab": "*fp32"}),
    "forward_uint8": (lab._forward_kernel, {"rgb": "*u8", "table": "*fp32", "lab": "*fp32"}),
    "forward_backward": (lab._forward_backward_kernel, {"grad": "*fp32", "rgb": "*fp32", "out": "*fp32"}),
    "inverse": (lab._inverse_kernel, {"lab": "*fp32", "rgb": "*fp32"}),
    "inverse_backward": (lab._inverse_backward_kernel, {"grad": "*fp32", "lab": "*fp32", "out": "*fp32"}),
}


@pytest.mark.skipif(launch.triton is None or launch.INTERPRET, reason="needs Triton's compiler")
@pytest.mark.parametrize("layout", KINDS)
@pytest.mark.parametrize("name", KERNELS)
def test_compiled_for_an_h200(name, layout):
    kernel, signature = KERNELS[name]
    constants = {"INTERLEAVED": KINDS[layout], "BLOCK": pixels._BLOCK} | ({"CLIP": True} if "inverse" in name else {})
    numbers = {"plane": "i32", "bound": "i32", "blocks": "i32"}
    made = compile_sm90(kernel, signature | numbers, constants)
    assert made.spills == 0 and made.stack == 0 and made.registers <= 128
    assert made.wide_stores >= 6 and (made.wide_loads >= 6 or "uint8" in name)
