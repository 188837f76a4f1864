"""Regional statistics against torch on each region alone, the affine map, and AdaIN against the paper's formula."""

import ptx
import pytest
import torch

from ctlib.ops import launch, regional
from ctlib.ops.regional import adain, regional_affine, regional_stats

NUMBERS = dict.fromkeys(("N", "C", "R", "splits", "tiles"), "i32")
SMALL = dict.fromkeys(("center_ptr", "scale_ptr", "shift_ptr", "to_scale_ptr", "to_shift_ptr"), "*fp32")


def signature(kernel, picture):
    """Types of a kernel's arguments; `picture` is that of the large ones."""
    large = dict.fromkeys(("x_ptr", "y_ptr", "grad_ptr", "to_x_ptr"), picture)
    known = {**NUMBERS, **SMALL, **large, "labels_ptr": "*i64"}
    known |= {"count_ptr": "*i32", "mean_ptr": "*fp32", "square_ptr": "*fp32"}
    return {name: known[name] for name in kernel.arg_names if name in known}


def pictures(batch=2, channels=5, height=9, width=11, labels=3, dtype=torch.float32):
    """Features with a mean far above their deviation, and labels with a large region and some outside of the range."""
    random = torch.Generator().manual_seed(0)
    x = (100 + 3 * torch.randn(batch, channels, height, width, generator=random)).to(dtype)
    label = torch.randint(-1, labels + 1, (batch, height, width), generator=random)
    label[:, : height // 2] = labels - 1
    return x, label


def each_region(x, labels, regions):
    """Count, mean and variance by boolean masks, in float64."""
    count = torch.zeros(len(x), regions, dtype=torch.int64)
    mean, var = (torch.zeros(len(x), regions, x.shape[1], dtype=torch.float64) for _ in range(2))
    for b in range(len(x)):
        for r in range(regions):
            own = x[b][:, labels[b] == r].double()
            count[b, r] = own.shape[1]
            if own.shape[1] > 0:
                mean[b, r] = own.mean(1)
            if own.shape[1] > 1:
                var[b, r] = own.var(1)
    return count, mean, var


def plain_adain(x, y, x_labels, y_labels, full_x, full_y, regions, alpha=1.0, eps=1e-5):
    """Spec 1.2.3, one label of one image after the other."""
    out = x.clone()
    for b in range(len(x)):
        for r in range(regions):
            target, reference = int((full_x[b] == r).sum()), int((full_y[b] == r).sum())
            here, there = x_labels[b] == r, y_labels[b] == r
            if min(target, reference) <= 10 or target >= 100 * reference or reference >= 100 * target:
                continue
            if not here.any() or not there.any():
                continue
            own, other = x[b][:, here], y[b][:, there]
            sigma, sigma_y = (
                (v.var(1, keepdim=True) if v.shape[1] > 1 else 0 * v[:, :1]).add(eps).sqrt() for v in (own, other)
            )
            moved = sigma_y * (own - own.mean(1, keepdim=True)) / sigma + other.mean(1, keepdim=True)
            out[b][:, here] = alpha * moved + (1 - alpha) * own
    return out


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_statistics_equal_those_of_each_region_alone(dtype):
    x, labels = pictures(dtype=dtype)
    for maps, regions in ((labels, 3), (labels.to(torch.uint8), 3), (labels, 40)):
        count, mean, var = regional_stats(x, maps, regions)
        expected = each_region(x, maps, regions)
        assert torch.equal(count, expected[0])
        torch.testing.assert_close(mean.double(), expected[1], rtol=1e-6, atol=0)
        torch.testing.assert_close(var.double(), expected[2], rtol=1e-4, atol=0)  # of a mean known to 1e-5
    count, mean, var = regional_stats(x)
    torch.testing.assert_close(mean[:, 0].double(), x.double().mean((2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(var[:, 0].double(), x.double().var((2, 3)), rtol=1e-4, atol=0)


def test_gradients():
    x, labels = pictures(2, 2, 3, 4, dtype=torch.float64)
    x = (x - 100).requires_grad_()
    for maps, regions in ((labels, 3), (None, 1)):
        small = [torch.randn(2, regions, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
        assert torch.autograd.gradcheck(lambda x, m=maps, r=regions: regional_stats(x, m, r)[1:], (x,))
        assert torch.autograd.gradcheck(lambda x, a, b, c, m=maps: regional_affine(x, a, b, m, c), (x, *small))


def test_adain_gradient():
    x, labels = pictures(1, 2, 4, 6, labels=2, dtype=torch.float64)
    x = x - 100
    y = (2 * x.flip(2) + 1)[..., :5].contiguous()
    call = lambda x, y: adain(x, y, labels, labels[..., :5], num_labels=2, alpha=0.7)  # noqa: E731
    assert torch.autograd.gradcheck(call, (x.requires_grad_(), y.requires_grad_()))


def test_affine_keeps_what_has_no_region():
    x, labels = pictures()
    scale, shift = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    y = regional_affine(x, scale, shift, labels)
    outside = ((labels < 0) | (labels >= 3))[:, None].expand_as(x)
    assert torch.equal(y[outside], x[outside])
    here = labels[0] == 1
    torch.testing.assert_close(y[0][:, here], x[0][:, here] * scale[0, 1, :, None] + shift[0, 1, :, None])


def test_adain_laws():
    x, _ = pictures(2, 4, 16, 16)
    y = 7 * torch.randn(2, 4, 9, 20) - 3
    torch.testing.assert_close(adain(x, x), x, rtol=0, atol=1e-4)
    moved = adain(x, y)
    torch.testing.assert_close(moved.mean((2, 3)), y.mean((2, 3)), rtol=0, atol=1e-4)
    torch.testing.assert_close(moved.std((2, 3)), y.std((2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(adain(x, y, alpha=0.0), x)
    torch.testing.assert_close(adain(x, y[:1]), adain(x, y[:1].expand(2, -1, -1, -1)))
    flat = torch.full_like(x, 5.0)
    torch.testing.assert_close(adain(flat, y), y.mean((2, 3), keepdim=True).expand_as(x))
    assert adain(x[..., :1, :1], y[..., :1, :1]).isfinite().all()


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_adain_by_label_equals_the_plain_loop(alpha):
    random = torch.Generator().manual_seed(5)
    x, y = (torch.randn(2, 3, *size, generator=random, dtype=torch.float64) for size in ((8, 10), (6, 12)))
    full_x = torch.randint(0, 4, (2, 32, 40), generator=random)
    full_y = torch.randint(0, 4, (2, 24, 48), generator=random)
    full_x[full_x == 2] = 0
    full_x[:, 0, :11] = 2  # valid at 11 pixels, and 1152 / 11 = 104.7 times as many of label 0 in the style
    full_y[0] = full_y[0].masked_fill(full_y[0] == 3, 1)
    full_y[0, 1, :10] = 3  # 10 pixels: not valid
    full_x[1, :, :20], full_x[1, 1, 20:31], full_y[1, :, :] = 1, 2, 1  # label 2 nowhere in the style
    full_y[1, 5, 5:17] = 0  # 12 pixels, none of which survives the resizing
    small_x, small_y = full_x[:, ::4, ::4], full_y[:, ::4, ::4]
    expected = plain_adain(x, y, small_x, small_y, full_x, full_y, 4, alpha)
    torch.testing.assert_close(adain(x, y, full_x, full_y, num_labels=4, alpha=alpha), expected)
    torch.testing.assert_close(adain(x, y, full_x, full_y, alpha=alpha), expected)


def test_resizing_equals_torch():
    labels = torch.randint(0, 9, (2, 37, 50))
    for size in ((8, 10), (13, 17), (64, 64)):
        expected = torch.nn.functional.interpolate(labels[:, None].float(), size, mode="nearest")[:, 0].long()
        assert torch.equal(regional._nearest(labels, size), expected)


@pytest.mark.parametrize("case", ["float32", "bfloat16", "1x1", "empty", "sliced", "permuted", "no labels"])
def test_registration(case):
    x, labels = pictures(dtype=torch.bfloat16 if case == "bfloat16" else torch.float32)
    x, labels = x.flatten(2), labels.flatten(1)
    if case == "1x1":
        x, labels = x[..., :1], labels[..., :1]
    if case == "empty":
        x, labels = x[:0], labels[:0]
    if case == "sliced":
        x, labels = x[..., ::2], labels[..., ::2]
    if case == "permuted":
        x = x.mT.contiguous().mT
    regions, labels = (1, None) if case == "no labels" else (3, labels)
    small = [torch.randn(len(x), regions, 5, requires_grad=True) for _ in range(3)]
    x = x.detach().requires_grad_()
    torch.library.opcheck(torch.ops.ctlib.regional_stats, (x, labels, regions))
    torch.library.opcheck(torch.ops.ctlib.regional_affine, (x, labels, *small, True))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_within_torch_compile(backend):
    if backend == "inductor" and not launch.has_compiler():
        pytest.skip("no C++ compiler")
    x, labels = pictures(2, 4, 16, 16)
    y = x.flip(3) * 0.5

    def run(x, y):
        return adain(x, y, labels, labels, num_labels=3)

    results = []
    for function in (run, torch.compile(run, fullgraph=True, backend=backend)):
        inputs = [v.clone().requires_grad_() for v in (x, y)]
        out = function(*inputs)
        results.append((out, *torch.autograd.grad(out.sin().sum(), inputs)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)


@pytest.mark.kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "regions"), [((2, 5, 9, 11), 3), ((1, 3, 40, 60), 40), ((2, 3, 1, 1), 2), ((2, 6, 16, 16), 1)]
)
def test_kernels_equal_reference(device, poison, monkeypatch, dtype, shape, regions):
    monkeypatch.setattr(regional, "_TILE", 1024)
    monkeypatch.setattr(regional, "_PROGRAMS", 4)  # several tiles a program, several programs an image
    x, labels = pictures(*shape, labels=regions, dtype=dtype)
    labels = None if regions == 1 else labels
    small = [torch.rand(shape[0], regions, shape[1], dtype=torch.float64) + 0.5 for _ in range(3)]
    grads = [torch.randn(shape[0], regions, shape[1], dtype=torch.float64) for _ in range(2)]
    grads.append(torch.randn(shape).to(dtype).double())

    def everything(place, kind, wide):
        values = x.to(place, kind).requires_grad_()
        maps = None if labels is None else labels.to(place)
        given = [v.to(place, wide).requires_grad_() for v in small]
        _, mean, var = regional_stats(values, maps, regions)
        y = regional_affine(values, given[0], given[1], maps, given[2])
        back = [g.to(place, v.dtype) for g, v in zip(grads, (mean, var, y), strict=True)]
        first = torch.autograd.grad([mean, var], values, back[:2])
        return [v.cpu().double() for v in (mean, var, y, *first, *torch.autograd.grad(y, [values, *given], back[2]))]

    # of the largest value: float32 sums; or one step of bfloat16 (Triton's interpreter cuts off instead of rounding)
    step = 1e-5 if dtype == torch.float32 else 2**-7
    for got, expected in zip(
        everything(device, dtype, torch.float32), everything("cpu", torch.float64, torch.float64), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=max(step, 1e-4), atol=step * float(expected.abs().max()))


@pytest.mark.skipif(launch.triton is None, reason="no Triton")
@pytest.mark.skipif(launch.INTERPRET, reason="interpreted kernels are not compiled")
@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("picture", ["*fp32", "*bf16"])
@pytest.mark.parametrize("name", ["_stats_kernel", "_affine_kernel", "_affine_backward_kernel"])
def test_compiles_for_an_h200(name, picture, labels):
    kernel = getattr(regional, name)
    constants = {"LABELS": labels, "CHANNELS": 4, "PIXELS": 512 if "backward" in name else 1024}
    if "affine" in name:
        constants["KEEP"] = True
    compiled = ptx.compile_sm90(kernel, signature(kernel, picture), constants, warps=8)
    assert compiled.spills == 0
    assert compiled.wide_loads > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, m: regional_stats(x.long()), "x: .*float"),
        (lambda x, m: regional_stats(x, m[:, 1:], 3), "labels: .*nearest"),
        (lambda x, m: regional_stats(x, m.float(), 3), "labels: .*long"),
        (lambda x, m: regional_stats(x, m, 0), "num_labels: .*at least 1"),
        (lambda x, m: regional_stats(x, None, 3), "labels: .*without a label map"),
        (lambda x, m: regional_affine(x, torch.ones(2, 5), torch.ones(2, 1, 5)), "scale: .*None"),
        (lambda x, m: regional_affine(x, torch.ones(2, 1, 5), torch.ones(2, 1, 4)), "shift: .*expand"),
        (lambda x, m: adain(x[0], x), "content: .*batch axis"),
        (lambda x, m: adain(x, x[:, :3]), "style: .*same layer"),
        (lambda x, m: adain(x, x, m), "style_labels: .*without the other"),
        (lambda x, m: adain(x, x, m, m.float()), "style_labels: .*long"),
        (lambda x, m: adain(x, x, eps=0), "eps: .*above 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(*pictures())


@pytest.mark.parametrize("kind, regions", [(torch.uint8, 256), (torch.int8, 127), (torch.int32, 3)])
def test_labels_of_any_width(kind, regions):
    x, labels = torch.arange(12.0).reshape(1, 2, 6), torch.tensor([[0, 1, 1, 0, 2, 2]], dtype=kind)
    count, mean, _ = regional_stats(x, labels, regions)
    assert count[0, :3].tolist() == [2, 2, 2] and mean[0, :3, 0].tolist() == [1.5, 1.5, 4.5]


def test_what_belongs_to_no_region_may_be_nan():
    x = torch.tensor([[[1.0, 2, 3, torch.nan, torch.inf]]], requires_grad=True)
    _, mean, var = regional_stats(x, torch.tensor([[0, 0, 0, -1, -1]]), 1)
    (mean + var).sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad[..., 3:] == 0).all()


@pytest.mark.kernel
def test_kernel_leaves_nan_outside_all_regions(device):
    x = torch.tensor([[[1.0, 2, 3, torch.nan, torch.inf]]], device=device, requires_grad=True)
    _, mean, var = regional_stats(x, torch.tensor([[0, 0, 0, -1, -1]], device=device), 1)
    (mean + var).sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad[..., 3:] == 0).all()
