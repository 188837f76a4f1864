"""The tasks of the benchmark, and how each library is asked to do them.

Every contender starts from data laid out as it likes best and writes where it likes best: OpenCV and scikit-image get
pictures with channels last, OpenCV a buffer to write to. A library that is not installed does not take part.
"""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ctlib import color, methods, ops
from ctlib.bench.timing import Case, Contender
from ctlib.classical import palette as palettes
from ctlib.data import photos
from ctlib.ops import launch

SIZES = {
    "256²": (1, 256, 256),
    "512²": (1, 512, 512),
    "16 × 256²": (16, 256, 256),
    "64 × 256²": (64, 256, 256),
    "12 MP": (1, 3000, 4000),
}
FEATURES = {"4 × 256 × 64²": (4, 256, 64, 64), "16 × 256 × 64²": (16, 256, 64, 64)}
LOGITS = {"1 × 313 × 64²": (1, 64, 64), "16 × 313 × 64²": (16, 64, 64)}


def picture(size: str, device: str = "cpu", seed: int = 0) -> Tensor:
    """Smooth fields with the grain of a sensor, `(B, 3, H, W)` float32 in [0, 1]: about what a photograph is."""
    batch, height, width = SIZES[size]
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 6, 8, generator=generator)
    rgb = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return rgb.add_(0.01 * torch.randn(rgb.shape, generator=generator)).clamp_(0, 1).to(device)


def _copies(make: Callable[[int], tuple], device: str) -> list[tuple]:
    """One set of inputs on the CPU; on a GPU as many as overflow its cache."""
    first = make(0)
    size = sum(x.numel() * x.element_size() for x in first if isinstance(x, Tensor))
    return [first] + [make(seed) for seed in range(1, 1 if device == "cpu" else min(8, 1 + 200_000_000 // size))]


def _ways(name: str, call: Callable, device: str, read=None, compilable: bool = False) -> list[Contender]:
    """Our op: its kernel on a GPU; eager on the CPU, and before that compiled where op and machine can."""
    if device == "cuda":
        return [Contender(f"{name}, Triton", call, read)]

    def compiled(*inputs):
        with ops.compile_cpu():
            return call(*inputs)

    eager = Contender(f"{name}, eager", call, read)
    return [Contender(f"{name}, compiled", compiled, read), eager] if compilable and launch.has_compiler() else [eager]


def _both(name: str, call: Callable, device: str, read=None) -> list[Contender]:
    """A peer in plain torch, as it is and under `torch.compile`."""
    eager = Contender(f"{name}, eager", call, read)
    if device == "cpu" and not launch.has_compiler():
        return [eager]
    return [eager, Contender(f"{name}, compiled", torch.compile(call, dynamic=False), read)]


def _same(result: Tensor) -> Tensor:
    return result


def _pair(call: Callable[[Tensor], Tensor]) -> Callable:
    """Forward and backward: the gradient of the sum for the first input."""

    def run(x: Tensor, *others):
        leaf = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(call(leaf, *others).sum(), leaf)
        return grad

    return run


def _last(x: Tensor) -> list[np.ndarray]:
    return [np.ascontiguousarray(one.permute(1, 2, 0).cpu().numpy()) for one in x]


def _first(pictures: list[np.ndarray]) -> Tensor:
    return torch.stack([torch.from_numpy(np.asarray(one)).permute(2, 0, 1) for one in pictures])


def conversion(direction: str, size: str, device: str) -> Case:
    """sRGB to CIELAB or back, float32."""
    forward = direction == "rgb_to_lab"
    ours, plain = getattr(ops, direction), getattr(color, direction)

    def make(seed):
        x = picture(size, device, seed)
        return (x if forward else color.rgb_to_lab(x), torch.empty_like(x))

    inputs = _copies(make, device)
    contenders = _ways("ctlib out=", lambda x, out: ours(x, out=out), device, _same, True)[:1]
    contenders += _ways("ctlib", lambda x, out: ours(x), device, _same, True)
    contenders += _both("definition", lambda x, out: plain(x), device, _same)[int(device == "cpu") :]
    if find_spec("kornia"):
        import kornia.color as peer

        peer_call = getattr(peer, direction)
        contenders += _both("kornia", lambda x, out: peer_call(x), device, _same)
    if device == "cpu" and find_spec("cv2"):
        import cv2

        cv2.setNumThreads(torch.get_num_threads())
        code = cv2.COLOR_RGB2Lab if forward else cv2.COLOR_Lab2RGB
        stack = np.concatenate(_last(inputs[0][0]))  # one tall picture: its threads share the whole of it
        into = np.empty_like(stack)
        count = len(inputs[0][0])
        contenders.append(Contender(
            "OpenCV", lambda *_: cv2.cvtColor(stack, code, dst=into), lambda out: _first(np.split(out, count))
        ))  # fmt: skip
    if device == "cpu":
        from skimage import color as peer

        peer_of = peer.rgb2lab if forward else peer.lab2rgb
        last = _last(inputs[0][0])
        contenders.append(Contender("scikit-image", lambda *_: [peer_of(one) for one in last], _first))
    moved = 24 * inputs[0][0].numel() // 3
    return Case(direction, size, inputs, contenders, moved, lambda x, out: plain(x.double()))


def conversion_gradient(direction: str, size: str, device: str) -> Case:
    """The same, forward and backward."""
    forward = direction == "rgb_to_lab"
    ours, plain = getattr(ops, direction), getattr(color, direction)

    def make(seed):
        x = picture(size, device, seed)
        return (x if forward else color.rgb_to_lab(0.05 + 0.9 * x),)  # inside the gamut, at whose border it jumps

    inputs = _copies(make, device)
    contenders = _ways("ctlib", _pair(ours), device, _same, True)
    if find_spec("kornia"):
        import kornia.color as peer

        contenders += _both("kornia", _pair(getattr(peer, direction)), device, _same)
    moved = 60 * inputs[0][0].numel() // 3  # read and write forward; read the input and the gradient, write, backward
    return Case(f"{direction}, gradient", size, inputs, contenders, moved, lambda x: _pair(plain)(x.double()))


def shift_hue(size: str, device: str) -> Case:
    """Hue and saturation change that restores L*."""

    def make(seed):
        x = picture(size, device, seed)
        draw = torch.rand(2, len(x), generator=torch.Generator().manual_seed(seed))
        return x, draw[0].to(device), (0.3 + draw[1]).to(device)

    def chain(rgb_to_hsv, hsv_to_rgb, rgb_to_lab, turn):
        def run(rgb, shift, saturation):
            hue, chroma, value = rgb_to_hsv(rgb).unbind(1)
            hue = (hue + turn * shift[:, None, None]) % turn
            chroma = (chroma * saturation[:, None, None]).clamp(max=1)
            changed = rgb_to_lab(hsv_to_rgb(torch.stack([hue, chroma, value], dim=1)))
            return torch.cat([rgb_to_lab(rgb)[:, :1], changed[:, 1:]], dim=1)

        return run

    plain = chain(color.rgb_to_hsv, color.hsv_to_rgb, color.rgb_to_lab, 1.0)
    inputs = _copies(make, device)
    contenders = _ways("ctlib", ops.shift_hue, device, _same, True)
    if find_spec("kornia"):
        import kornia.color as peer

        theirs = chain(peer.rgb_to_hsv, peer.hsv_to_rgb, peer.rgb_to_lab, 2 * torch.pi)
        contenders += _both("kornia chain", theirs, device, _same)
    truth = lambda *all_: plain(*(each.double() for each in all_))  # noqa: E731
    return Case("shift_hue", size, inputs, contenders, 24 * inputs[0][0].numel() // 3, truth)


def soft_histogram(size: str, device: str, gradient: bool = True) -> Case:
    """64 x 64 soft histogram of a and b; kornia's kernel is a Gaussian that no bin escapes, so no common truth."""
    inputs = _copies(lambda seed: (picture(size, device, seed)[:, 1:].contiguous(),), device)
    weights = torch.linspace(0, 1, 64 * 64, device=device).reshape(64, 64)

    def ours(ab):
        return ops.soft_histogram(ab, 64, centers="unity")

    def loss(call):
        return _pair(lambda ab: call(ab) * weights) if gradient else call

    contenders = _ways("ctlib", loss(ours), device)
    if find_spec("kornia") and (device == "cuda" or size != "12 MP"):  # there it would take 3 GB a step
        from kornia.enhance import histogram2d

        def theirs(ab):
            bins = torch.linspace(0, 1, 64, device=ab.device)
            return histogram2d(ab[:, 0].flatten(1), ab[:, 1].flatten(1), bins, torch.tensor(0.01, device=ab.device))

        contenders += _both("kornia", loss(theirs), device)
    name = "soft_histogram, gradient" if gradient else "soft_histogram"
    return Case(name, size, inputs, contenders, (24 if gradient else 8) * inputs[0][0].numel() // 2)


def adain(size: str, device: str, labels: int = 4) -> Case:
    """AdaIN label by label, 4 labels, against one boolean mask after the other."""
    batch, channels, height, width = FEATURES[size]

    def make(seed):
        generator = torch.Generator().manual_seed(seed)
        content, style = (torch.randn(batch, channels, height, width, generator=generator) for _ in range(2))
        rows = torch.arange(height)[:, None] * labels // height
        maps = rows.expand(batch, height, width).contiguous()  # bands, as label maps are: piecewise constant
        return content.to(device), (2 * style + 1).to(device), maps.to(device), maps.flip(1).to(device)

    def ours(content, style, first, second):
        return ops.adain(content, style, first, second, num_labels=labels)

    def masks(content, style, first, second):
        result = content.clone()
        for one in range(len(content)):
            for label in range(labels):
                here, there = first[one] == label, second[one] == label
                x, y = content[one][:, here], style[one][:, there]
                deviation = (y.var(1, keepdim=True) + 1e-5).sqrt() / (x.var(1, keepdim=True) + 1e-5).sqrt()
                result[one][:, here] = (x - x.mean(1, keepdim=True)) * deviation + y.mean(1, keepdim=True)
        return result

    inputs = _copies(make, device)
    contenders = [*_ways("ctlib", ours, device, _same), Contender("masks, eager", masks, _same)]
    truth = lambda content, style, *maps: masks(content.double(), style.double(), *maps)  # noqa: E731
    return Case("adain, 4 labels", size, inputs, contenders, 16 * inputs[0][0].numel(), truth)


def annealed_mean(size: str, device: str) -> Case:
    """Expected ab of 313 logits a pixel at T = 0.38."""
    batch, height, width = LOGITS[size]

    def make(seed):
        generator = torch.Generator().manual_seed(seed)
        return (torch.randn(batch, 313, height, width, generator=generator).mul_(2).to(device),)

    def plain(logits):
        return torch.einsum("bqhw,qc->bchw", (logits / 0.38).softmax(1), ops.AB_BINS.to(logits))

    inputs = _copies(make, device)
    contenders = _ways("ctlib", ops.annealed_mean, device, _same) + _both("softmax, einsum", plain, device, _same)
    moved = 4 * 315 * batch * height * width
    return Case("annealed_mean", size, inputs, contenders, moved, lambda logits: plain(logits.double()))


def encode_ab(size: str, device: str) -> Case:
    """The 5 nearest of 313 bins and their weights."""
    inputs = _copies(lambda seed: (color.rgb_to_lab(picture(size, device, seed))[:, 1:].contiguous(),), device)

    def distances(ab):
        points = ab.movedim(1, -1).reshape(-1, 2)
        nearest, index = torch.cdist(points, ops.AB_BINS.to(points)).topk(5, dim=1, largest=False)
        return index, torch.softmax(-nearest.square() / 50, dim=1)

    contenders = _ways("ctlib", ops.encode_ab, device) + _both("cdist, topk", distances, device)
    if device == "cpu":
        from sklearn.neighbors import NearestNeighbors

        neighbors = NearestNeighbors(n_neighbors=5).fit(ops.AB_BINS.numpy())

        def theirs(ab):
            nearest, index = neighbors.kneighbors(ab.movedim(1, -1).reshape(-1, 2).numpy())
            weights = np.exp(-(nearest**2) / 50)
            return index, weights / weights.sum(1, keepdims=True)

        contenders.append(Contender("scikit-learn", theirs))
    return Case("encode_ab, k = 5", size, inputs, contenders, (8 + 5 * 12) * inputs[0][0].numel() // 2)


def lookup(size: str, device: str) -> Case:
    """Trilinear look-up in a 33^3 table."""
    nodes = torch.rand(3, 33, 33, 33, generator=torch.Generator().manual_seed(0)).to(device)

    def theirs(rgb):
        grid = (rgb * 2 - 1).movedim(1, -1)[:, None].flip(-1)  # its x is the last axis of the table
        table = nodes[None].expand(len(rgb), -1, -1, -1, -1)
        return torch.nn.functional.grid_sample(table, grid, align_corners=True)[:, :, 0]

    inputs = _copies(lambda seed: (picture(size, device, seed),), device)
    contenders = _ways("ctlib", lambda rgb: ops.lookup(nodes, rgb), device, _same)
    contenders += [Contender("grid_sample", theirs, _same)]
    truth = lambda rgb: ops.lookup(nodes.double(), rgb.double())  # noqa: E731
    return Case("lookup, 33³", size, inputs, contenders, 24 * inputs[0][0].numel() // 3, truth)


def rbf_shift(size: str, device: str) -> Case:
    """Chang's blend of five palette shifts."""
    old = torch.tensor([[20.0, 10, -30], [45, 40, 20], [60, -30, 30], [75, 5, 60], [90, 0, 5]], device=device)
    new = old + torch.tensor([0.0, 20, -10], device=device)

    def plain(lab):
        palette, moves = old.to(lab), (new - old).to(lab)
        apart = torch.cdist(palette, palette)
        width = apart.sum() / (len(old) * (len(old) - 1))
        inverse = torch.linalg.inv(torch.exp(-(apart**2) / (2 * width**2)))
        square = (lab[:, None] - palette[:, :, None, None]).square().sum(2)
        weights = torch.einsum("ij,bjhw->bihw", inverse, torch.exp(-square / (2 * width**2))).clamp(min=0)
        return lab + torch.einsum("bihw,ic->bchw", weights / weights.sum(1, keepdim=True), moves)

    inputs = _copies(lambda seed: (color.rgb_to_lab(picture(size, device, seed)),), device)
    contenders = _ways("ctlib", lambda lab: ops.rbf_shift(lab, old, new), device, _same)
    contenders += _both("einsum", plain, device, _same)
    return Case(
        "rbf_shift, 5 colors", size, inputs, contenders, 24 * inputs[0][0].numel() // 3, lambda lab: plain(lab.double())
    )


def _photograph(name: str, size: str) -> np.ndarray:
    """A bundled photograph at this size with the grain of a sensor, `(H, W, 3)` uint8: as many colors as a real one."""
    _, height, width = SIZES[size]
    image = Image.fromarray(photos.load(name)).resize((width, height), Image.Resampling.LANCZOS)
    grain = np.random.default_rng(0).standard_normal((height, width, 3), dtype=np.float32)
    return (np.asarray(image) + 2 * grain).round().clip(0, 255).astype(np.uint8)


def palette(size: str, device: str = "cpu") -> Case:
    """Five colors of an 8-bit picture. `max_error` is the mean squared distance of the pixels to them, in CIELAB."""
    image = _photograph("coffee", size)
    lab = color.rgb_to_lab(torch.from_numpy(image).reshape(-1, 3) / 255.0)

    def inertia(centers):
        return torch.cdist(lab, torch.as_tensor(centers, dtype=torch.float32)).amin(1).square().mean()

    contenders = [Contender("ctlib", lambda image: palettes.extract_uint8(image, 5), inertia)]
    if size != "12 MP":  # there the peers take minutes
        from skimage.color import rgb2lab
        from sklearn.cluster import KMeans, MiniBatchKMeans

        for name, kind in (("KMeans, all pixels", KMeans), ("MiniBatchKMeans", MiniBatchKMeans)):
            fit = lambda image, kind=kind: kind(5, n_init=1, random_state=0).fit(rgb2lab(image).reshape(-1, 3))  # noqa: E731
            contenders.append(Contender(f"scikit-learn {name}", fit, lambda model: inertia(model.cluster_centers_)))
    return Case("palette of 5", size, [(image,)], contenders, image.size, lambda image: torch.zeros(()))


def reinhard(size: str, device: str = "cpu") -> Case:
    """Reinhard's transfer in CIELAB, 8 bits in and out."""
    source, reference = _photograph("coffee", size), _photograph("china", size)

    def theirs(source, reference):
        from skimage.color import lab2rgb, rgb2lab

        lab, wanted = rgb2lab(source), rgb2lab(reference)
        lab = (lab - lab.mean((0, 1))) * (wanted.std((0, 1)) / lab.std((0, 1))) + wanted.mean((0, 1))
        return (lab2rgb(lab) * 255).round().astype(np.uint8)

    read = lambda image: torch.from_numpy(image.astype(np.float64))  # noqa: E731
    contenders = _ways("ctlib", lambda *pair: methods.recolor_uint8("reinhard_lab", *pair), "cpu", read, True)
    if find_spec("color_matcher"):
        from color_matcher import ColorMatcher

        contenders.append(
            Contender("color-matcher mkl", lambda a, b: ColorMatcher().transfer(src=a, ref=b, method="mkl"))
        )
    contenders.append(Contender("scikit-image, numpy", theirs, read))
    truth = lambda *pair: read(theirs(*pair))  # noqa: E731
    return Case("Reinhard, 8 bits", size, [(source, reference)], contenders, 4 * source.size, truth)


#: task: how to build it, the sizes on a CPU, the sizes on a GPU
TASKS: dict[str, tuple[Callable[[str, str], Case], tuple[str, ...], tuple[str, ...]]] = {
    "rgb_to_lab": (
        lambda *where: conversion("rgb_to_lab", *where), ("512²", "16 × 256²", "12 MP"), ("64 × 256²", "12 MP")
    ),
    "lab_to_rgb": (
        lambda *where: conversion("lab_to_rgb", *where), ("512²", "16 × 256²", "12 MP"), ("64 × 256²", "12 MP")
    ),
    "rgb_to_lab_gradient": (
        lambda *where: conversion_gradient("rgb_to_lab", *where), ("512²", "16 × 256²"), ("64 × 256²", "12 MP")
    ),
    "lab_to_rgb_gradient": (
        lambda *where: conversion_gradient("lab_to_rgb", *where), ("512²", "16 × 256²"), ("64 × 256²", "12 MP")
    ),
    "shift_hue": (shift_hue, ("512²", "16 × 256²"), ("64 × 256²", "12 MP")),
    "soft_histogram": (soft_histogram, ("256²", "512²", "12 MP"), ("64 × 256²", "12 MP")),
    "adain": (adain, ("4 × 256 × 64²",), ("16 × 256 × 64²",)),
    "annealed_mean": (annealed_mean, ("1 × 313 × 64²", "16 × 313 × 64²"), ("16 × 313 × 64²",)),
    "encode_ab": (encode_ab, ("256²",), ("64 × 256²",)),
    "lookup": (lookup, ("512²", "12 MP"), ("64 × 256²", "12 MP")),
    "rbf_shift": (rbf_shift, ("512²",), ("64 × 256²", "12 MP")),
    "palette": (palette, ("512²", "12 MP"), ()),
    "reinhard": (reinhard, ("512²", "12 MP"), ()),
}  # fmt: skip
