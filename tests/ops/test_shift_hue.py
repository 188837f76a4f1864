import pytest
import torch
from ptx import compile_sm90
from skimage.color import hsv2rgb, rgb2hsv, rgb2lab
from torch.library import opcheck

from ctlib import color, ops
from ctlib.data import augment
from ctlib.ops import launch, pixels
from ctlib.ops.shift_hue import _kernel, _shift_hue

TOLERANCE = 3e-4  # Lab; as of the conversion itself
SHIFT, SATURATION = torch.tensor([0.37, -1.2]), torch.tensor([1.7, 0.4])


def pictures(kind=torch.float32):
    """Two, with black, white, grays and the primaries, at which hue has no value or two maxima are equal."""
    rgb = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    special = [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]]
    rgb[:, :, 0] = torch.tensor(special, dtype=torch.float64).T
    return (rgb * 255).round().to(torch.uint8) if kind == torch.uint8 else rgb.to(kind)


def by_scikit_image(rgb, shift, saturation):
    results = []
    for picture, turn, factor in zip(rgb.double().movedim(1, -1).numpy(), shift, saturation, strict=True):
        hsv = rgb2hsv(picture)
        hsv[..., 0] = (hsv[..., 0] + float(turn)) % 1
        hsv[..., 1] = (hsv[..., 1] * float(factor)).clip(0, 1)
        lab = rgb2lab(hsv2rgb(hsv))
        lab[..., 0] = rgb2lab(picture)[..., 0]
        results.append(torch.from_numpy(lab).movedim(-1, 0))
    return torch.stack(results)


LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "permuted": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "sliced": lambda x: torch.cat([x, x], dim=3)[..., : x.shape[3]],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.uint8, torch.bfloat16])
def test_agrees_with_scikit_image(kind, layout):
    rgb = LAYOUTS[layout](pictures(kind))
    seen = rgb.double() / (255 if kind == torch.uint8 else 1)
    result = ops.shift_hue(rgb, SHIFT, SATURATION)
    assert result.shape == rgb.shape and result.dtype == (kind if kind == torch.float64 else torch.float32)
    truth = by_scikit_image(seen, SHIFT.to(result.dtype), SATURATION.to(result.dtype))
    assert torch.allclose(result.double(), truth, atol=1e-9 if kind == torch.float64 else TOLERANCE)


def test_agrees_with_the_definition():
    rgb = pictures(torch.float64)
    definition = augment.shift_hue_saturation(rgb, SHIFT, SATURATION)
    assert torch.allclose(ops.shift_hue(rgb, SHIFT, SATURATION), definition, atol=1e-9)


def test_lightness_stays():
    rgb = pictures()
    assert torch.equal(ops.shift_hue(rgb, 0.3, 2.0)[:, 0], ops.rgb_to_lab(rgb)[:, 0])


def test_no_change_is_the_conversion_and_a_full_turn_no_change():
    rgb = pictures(torch.float64)
    lab = color.rgb_to_lab(rgb)
    assert torch.allclose(ops.shift_hue(rgb, 0), lab, atol=1e-9)
    assert torch.allclose(ops.shift_hue(rgb, 1.0), lab, atol=1e-9)
    assert torch.allclose(ops.shift_hue(rgb, -3.0), lab, atol=1e-9)


def test_without_saturation_all_is_gray():
    assert ops.shift_hue(pictures(), 0.2, 0.0)[:, 1:].abs().max() < 0.02  # the white of sRGB is not quite neutral


def test_one_setting_serves_all_pictures():
    rgb = pictures()
    assert torch.equal(ops.shift_hue(rgb, 0.25, 1.5), ops.shift_hue(rgb, torch.full((2,), 0.25), torch.tensor([1.5])))


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (0, 3, 4, 4), (3, 3, 5, 7), (4, 3), (2, 3, 5)])
@pytest.mark.parametrize("kind", [torch.float32, torch.uint8])
def test_opcheck(shape, kind):
    rgb = (torch.rand(shape) * (255 if kind == torch.uint8 else 1)).to(kind)
    # traced, polynomials stand in for powers
    opcheck(_shift_hue, (rgb, torch.rand(shape[0]), torch.rand(shape[0])), atol=2 * TOLERANCE, rtol=1e-3)


def test_inside_torch_compile():
    rgb = pictures()
    traced = torch.compile(lambda x, s: ops.shift_hue(x, s) * 2, fullgraph=True, backend="aot_eager")
    assert torch.allclose(traced(rgb, SHIFT), ops.shift_hue(rgb, SHIFT) * 2, atol=2 * TOLERANCE)


@pytest.mark.slow
@pytest.mark.skipif(not launch.has_compiler(), reason="no C++ compiler on this machine")
def test_compiled_path_agrees():
    with ops.compile_cpu():
        for kind in (torch.float32, torch.uint8):
            rgb = pictures(kind)
            truth = by_scikit_image(rgb.double() / (255 if kind == torch.uint8 else 1), SHIFT, SATURATION)
            assert torch.allclose(ops.shift_hue(rgb, SHIFT, SATURATION).double(), truth, atol=TOLERANCE)


@pytest.mark.parametrize("call, message", [
    (lambda x: ops.shift_hue(x.long(), 0.1), "rgb: expected uint8, float32, bfloat16 or float64, got torch.int64"),
    (lambda x: ops.shift_hue(x[:, :2], 0.1), "rgb: expected 3 color channels on axis 1"),
    (lambda x: ops.shift_hue(x.requires_grad_(), 0.1), "rgb: shift_hue is augmentation .* pass rgb.detach"),
    (lambda x: ops.shift_hue(x, torch.zeros(3)), "shift: expected one value or 2, one a picture, got 3"),
    (lambda x: ops.shift_hue(x, 0.0, torch.zeros(5)), "saturation: expected one value or 2, one a picture, got 5"),
])  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 3, 2, 2))


@pytest.mark.kernel
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [torch.float32, torch.uint8, torch.bfloat16])
def test_kernel_agrees_with_scikit_image(kind, layout, device, poison):
    rgb = LAYOUTS[layout](pictures(kind))
    truth = by_scikit_image(rgb.double() / (255 if kind == torch.uint8 else 1), SHIFT, SATURATION)
    result = ops.shift_hue(rgb.to(device), SHIFT, SATURATION)
    assert torch.allclose(result.double().cpu(), truth, atol=TOLERANCE)


@pytest.mark.kernel
def test_kernel_keeps_pictures_apart(device, monkeypatch):
    """Each picture has its own settings, also where channels lie last and pictures follow each other in memory."""
    monkeypatch.setattr(pixels, "_BLOCK", 32)
    rgb = torch.rand(3, 3, 5, 9)
    shift = torch.tensor([0.0, 0.3, 0.7])
    for x in (rgb, rgb.to(memory_format=torch.channels_last), rgb[:, :, 0, 0]):
        truth = ops.shift_hue(x.double(), shift)
        assert torch.allclose(ops.shift_hue(x.to(device), shift).double().cpu(), truth, atol=TOLERANCE)


@pytest.mark.skipif(launch.triton is None or launch.INTERPRET, reason="needs Triton's compiler")
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("kind", ["*fp32", "*u8"])
def test_compiled_for_an_h200(kind, interleaved):
    tensors = {"rgb": kind, "table": "*fp32", "shift": "*fp32", "saturation": "*fp32", "out": "*fp32"}
    numbers = {"plane": "i32", "bound": "i32", "blocks": "i32"}
    made = compile_sm90(_kernel, tensors | numbers, {"INTERLEAVED": interleaved, "BLOCK": pixels._BLOCK})
    assert made.spills == 0 and made.stack == 0 and made.registers <= 128
    assert made.wide_stores >= 6 and (made.wide_loads >= 6 or kind == "*u8")
