"""Encoders that know ImageNet: torchvision's weights, from a file, the data folder, torch's cache or its hub.

Taught in: notebooks/40_colorization_losses.
"""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from ctlib import hubcache, paths
from ctlib.checkpoints import load_weights
from ctlib.hubcache import MissingWeights
from ctlib.models import official

#: as torchvision names its files
FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
}
_INSTEAD = {
    "resnet18": "; or take an encoder squeezenet-..., which needs a smaller file",
    "vgg19": "; or take encoder compact, which comes with the book",
}


def architecture(name: str, **options) -> nn.Module:
    """A network of torchvision with random weights.

    Raises:
        RuntimeError: torchvision is not installed.
    """
    return _torchvision(name).get_model(name, weights=None, **options)


def weights(name: str, file: Path | str = "", *, download: bool = True) -> dict[str, Tensor]:
    """ImageNet weights in torchvision's names, float32.

    Args:
        name: of `FILES`.
        file: where they lie, `.safetensors` or torchvision's `.pth`; else they are looked for as
            `weights/<name>_torchvision_fp16.safetensors` in the data folder, then in torch's cache, then downloaded.
        download: whether they may be.

    Raises:
        ValueError: an unknown name. CheckpointError: `file` is missing or damaged.
        MissingWeights: they are nowhere to be had; the message says what to do.
    """
    if name not in FILES:
        raise ValueError(f"name: expected one of {', '.join(FILES)}, got {name!r}")
    at_hand = paths.data_dir() / "weights" / f"{name}_torchvision_fp16.safetensors"
    if file or at_hand.is_file():
        path = Path(file or at_hand)
        if path.suffix == ".pth" and path.is_file():
            return official.read(path)
        return {key: value.float() for key, value in load_weights(path).items()}
    try:
        path = hubcache.fetch(FILES[name], _address(name), f"{name}: ImageNet's weights", download=download)
    except MissingWeights as error:
        raise MissingWeights(f"{error}; or name the file where you have it{_INSTEAD.get(name, '')}") from error
    found = hubcache.sha256(path)
    if not found.startswith(hubcache.hash_of_name(path)):
        raise MissingWeights(f"{name}: {path} is damaged (SHA-256 {found[:8]}...); delete it")
    return official.read(path)


def _address(name: str) -> Callable[[], str]:
    """torchvision's own, so that no host is written down here."""
    return lambda: _torchvision(name).get_model_weights(name)["IMAGENET1K_V1"].url


def _torchvision(name: str):
    try:
        from torchvision import models
    except ImportError as error:
        raise RuntimeError(
            f"{name}: torchvision is not installed: in the checkout, `make env` or pip install torchvision"
        ) from error
    return models
