r"""LPIPS, the distance of deep features, through its authors' package `lpips` (Zhang et al. 2018).

The package brings the linear heads; the trunk is torchvision's ImageNet network. It is looked for in torch's cache
under torchvision's own file name, else downloaded. Without it there is no number: `MissingWeights` says what to do.

Taught in: notebooks/70_compare.
"""

import functools
import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ctlib import hubcache
from ctlib.hubcache import MissingWeights
from ctlib.metrics.inputs import pair

Net = Literal["alex", "vgg", "squeeze"]
#: Trunk files as torchvision names them; the name ends with the head of the file's SHA-256.
TRUNKS = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
_SMALLEST = 32  # below, AlexNet's last features vanish


def lpips(
    result: Tensor, truth: Tensor, net: Net = "alex", *, trunk: dict[str, Tensor] | None = None, download: bool = True
) -> Tensor:
    """Learned perceptual image patch similarity, version 0.1.

    Pictures go in as [0, 1] and are mapped to [-1, 1] inside: feeding [0, 1] to the package as it is, the most common
    error with this metric, lowers the value.

    Args:
        result, truth: `(B, 3, H, W)` sRGB in [0, 1], same shape, at least 32 x 32. Computed in float32 on the device
            of `result`.
        net: `"alex"` (the usual choice for measuring), `"vgg"` or `"squeeze"`; values of two nets are not comparable.
        trunk: weights of the trunk in torchvision's names (`features.0.weight`, ...), instead of those in the cache.
        download: whether a missing trunk may be fetched; not tried twice in one process if there is no connection.

    Returns:
        `(B,)` float64 on the CPU, from 0, lower is better.

    Raises:
        MissingWeights: the trunk is neither in the cache nor to be downloaded, or its file is broken, or the packages
            are not installed.
        ValueError: wrong type, shape or range, NaN, two shapes, too small, or an unknown net.
    """
    device = result.device if isinstance(result, Tensor) else "cpu"
    result, truth = pair(result, truth)
    _known(net)
    if min(result.shape[2:]) < _SMALLEST:
        raise ValueError(f"result: LPIPS needs {_SMALLEST} x {_SMALLEST} pixels, got {tuple(result.shape[2:])}")
    network = model(net, trunk, download).to(device)
    with torch.no_grad():
        values = [
            network(2 * a[None] - 1, 2 * b[None] - 1) for a, b in zip(*_floats(result, truth, device), strict=True)
        ]
    return torch.cat(values).flatten().to("cpu", torch.float64)


def model(net: Net = "alex", trunk: dict[str, Tensor] | None = None, download: bool = True) -> nn.Module:
    """The authors' network, frozen: two pictures `(B, 3, H, W)` in [-1, 1] to `(B, 1, 1, 1)`, with a gradient.

    Arguments and errors are those of `lpips`.
    """
    _known(net)
    return _cached(net, _trunk_file(net, download)) if trunk is None else _model(net, trunk)


def _known(net: str) -> None:
    if net not in TRUNKS:
        raise ValueError(f"net: expected one of {', '.join(TRUNKS)}, got {net!r}")


def _floats(result: Tensor, truth: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
    return result.to(device, torch.float32), truth.to(device, torch.float32)


@functools.cache
def _cached(net: Net, file: Path) -> nn.Module:
    """The model of a trunk file that bears the hash in its name: a broken file must not become a number."""
    found = hubcache.sha256(file)
    if not found.startswith(hubcache.hash_of_name(file)):
        raise MissingWeights(f"LPIPS ({net}): {file} is damaged (SHA-256 {found[:8]}...); delete it")
    return _model(net, torch.load(file, map_location="cpu", weights_only=True))


def _model(net: Net, trunk: dict[str, Tensor]) -> nn.Module:
    try:
        import lpips as package
    except ImportError as error:
        raise MissingWeights(f"LPIPS: {error.name} is not installed; pip install lpips torchvision") from error
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's note on an old argument that the package uses
        model = package.LPIPS(net=net, pnet_rand=True, verbose=False)  # random only until the next line
    # "slice3.8.weight" is "features.8.weight": the package cuts the trunk into slices and keeps its numbers
    try:
        weights = {name: trunk["features." + name.partition(".")[2]] for name in model.net.state_dict()}
        model.net.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"trunk: these are not torchvision's weights for LPIPS ({net}): {error}") from error
    return model.eval().requires_grad_(False)


def _trunk_file(net: Net, download: bool) -> Path:
    """Where the trunk lies, after fetching it if need be."""
    what = f"LPIPS ({net}): the trunk weights"
    return hubcache.fetch(TRUNKS[net], lambda: _address(net), what, download=download)


def _address(net: Net) -> str:
    """torchvision's address of the trunk, so that no host is written down here."""
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingWeights("LPIPS: torchvision is not installed; pip install lpips torchvision") from error
    zoo = {"alex": models.AlexNet_Weights, "vgg": models.VGG16_Weights, "squeeze": models.SqueezeNet1_1_Weights}
    return zoo[net].IMAGENET1K_V1.url
