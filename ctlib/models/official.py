"""Weights that the authors of two colorizers released, read into the networks of this book.

The files lie in torch's cache or are downloaded there; a `.pth` file on disk is taken too. They are pickles of tensors,
read with `weights_only=True`, so that nothing in them can run.

Source: github.com/richzhang/colorization (loader and hashes of the two files).
Taught in: notebooks/41_classification_colorization.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ctlib import hubcache, ops
from ctlib.checkpoints import CheckpointError


class Release(NamedTuple):
    """A released file, and the options that the network needs to be what its authors trained."""

    url: str
    config: dict

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]


_HOST = "https://colorizers.s3.us-east-2.amazonaws.com/"
RELEASES = {
    "eccv16": Release(_HOST + "colorization_release_v2-9b330a0b.pth", {"folded": 1 / 2.606}),
    "siggraph17": Release(_HOST + "siggraph17-df00044c.pth", {"mask_cent": 0.0}),
}


def is_official(name: str | Path) -> bool:
    """Whether a name is that of a release or of a `.pth` file, rather than a folder or a hub id."""
    return str(name) in RELEASES or str(name).endswith(".pth")


def load(kind: type[nn.Module], name: str | Path, own: str, *, download: bool = True, **options) -> nn.Module:
    """A network with released weights, in float32, on the CPU, in evaluation mode.

    Args:
        kind: class of the network. own: which release is its own.
        name: that, or a `.pth` file of the same keys and shapes.
        download: whether a missing file may be fetched.
        options: of the network; for a file that is not the release, those of its `UNTOLD` have to be given.

    Raises:
        CheckpointError: the file is not here and not to be had, is damaged, or does not fit the network.
        ValueError: an option that is missing or out of its range.

    Warns:
        UserWarning: a file that is not the release does not do what colorizers do, see `smoke`.
    """
    name = str(name)
    if name in RELEASES:
        if name != own:
            raise CheckpointError(f"{name}: weights of another network; {kind.__name__} takes {own}")
        release = RELEASES[name]
        try:
            path = hubcache.fetch(release.file, release.url, f"{name}: the authors' weights", download=download)
        except hubcache.MissingWeights as error:
            raise CheckpointError(str(error)) from error
    else:
        path = Path(name)
        if not path.is_file():
            raise CheckpointError(f"{name}: there is no such file; known are {own} and .pth files")
    digest = hubcache.sha256(path)
    genuine = digest.startswith(hubcache.hash_of_name(Path(RELEASES[own].file)))
    if name in RELEASES and not genuine:
        raise CheckpointError(f"{path}: damaged (SHA-256 {digest[:8]}...); delete it")
    weights = read(path)
    for option, values in {} if genuine else getattr(kind, "UNTOLD", {}).items():
        if option not in options:
            raise ValueError(
                f"{option}: {path.name} does not say it, and a wrong one spoils every result; it is {values}"
            )
    network = kind(**(RELEASES[own].config if genuine else {}) | options)
    fill(network, weights, path).eval()
    if not genuine:
        try:
            smoke(network)
        except CheckpointError as error:  # a warning: a training that has hardly begun does no better
            warnings.warn(f"{path}: {str(error).removeprefix('weights: ')}", stacklevel=3)
    return network


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` file by name, without the `module.` that training on several cards leaves.

    Raises:
        CheckpointError: damaged, or something else than tensors.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch comments on odd files before it refuses them
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader lets out whatever the damage leads to
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"{path}: not readable as tensors ({reason}); download it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: expected a dict of tensors by name, as state_dict() gives")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def fill(network: nn.Module, weights: dict[str, Tensor], path: Path | str = "weights") -> nn.Module:
    """Copy weights by name. Counters of old BatchNorms may be missing; nothing else, and nothing may be left.

    Raises:
        CheckpointError: a name too few or too many, another shape, or values that are not finite; the message names
            the first.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    surplus = [name for name in weights if name not in own]
    kind = type(network).__name__
    if missing or surplus:
        what = f"{missing[0]} is missing" if missing else f"{surplus[0]} is none of its layers"
        raise CheckpointError(
            f"{path}: not the weights of {kind} ({what}; {len(missing)} missing, {len(surplus)} more)"
        )
    for name, value in weights.items():
        if value.shape != own[name].shape:
            shapes = f"{tuple(value.shape)}, expected {tuple(own[name].shape)}"
            raise CheckpointError(f"{path}: {name} has the shape {shapes}; is it of another {kind}?")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite; download it again")
    network.load_state_dict({**own, **weights})
    return network


@torch.no_grad()
def smoke(network: nn.Module, side: int = 128) -> dict[str, float]:
    """Whether a colorizer with imported weights does what colorizers do, on a gray square of L* = 50.

    Args:
        network: `Zhang2016`, or `Zhang2017` with local hints. side: of the square, that 8 divides.

    Returns:
        `gray`: mean of the norm of (a, b) without hints. For `Zhang2017` also `before` and `after`: how far the middle
        is from red, a = 80 and b = 67, without a hint and with a red one there of 8 x 8 pixels.

    Raises:
        CheckpointError: not finite; more than 30 for gray; the hint leaves more than three quarters of the distance, as
            it does with the wrong `mask_cent`; or `Zhang2016` brings a table of colors that is not `ctlib.ops.AB_BINS`.
    """
    weight = next(network.parameters())
    if (table := getattr(network, "model_out", None)) is not None and hasattr(network, "folded"):
        off = (110 * table.weight[:, :, 0, 0].mT - ops.AB_BINS.to(weight)).abs().max().item()
        if off > 0.5:
            raise CheckpointError(f"weights: their 313 colors are others, or in another order (up to {off:.0f} away)")
    lightness = torch.full((1, 1, side, side), 50.0, device=weight.device, dtype=weight.dtype)
    plain = network.ab(lightness)
    found = {"gray": plain.norm(dim=1).mean().item()}
    if getattr(network, "hints", None) == "local":
        red = torch.tensor([80.0, 67.0]).to(lightness)[:, None, None]
        middle = slice(side // 2 - 4, side // 2 + 4)
        mask = torch.zeros_like(lightness)
        mask[..., middle, middle] = 1
        pulled = network.ab(lightness, red * mask, mask)
        for name, ab in (("before", plain), ("after", pulled)):
            found[name] = (ab[0, :, middle, middle] - red).norm(dim=0).mean().item()
    values = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    if not torch.tensor(list(found.values())).isfinite().all() or found["gray"] > 30:
        raise CheckpointError(f"weights: a gray square does not stay near gray ({values}); they are of another network")
    if found.get("after", 0) > 0.75 * found.get("before", 0):
        raise CheckpointError(f"weights: a red hint does not color its place ({values}); is mask_cent right?")
    return found
