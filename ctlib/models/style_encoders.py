"""Encoders for exemplar colorization: VGG19 to conv4_1, what there is of it in small files, and the project's own.

All are a `Pyramid`: reflection around the picture, averages between the scales (the paper's average pooling). What a
file does to its input (ImageNet's mean and deviation, or BGR from 0 to 255 less a mean) is folded into conv1_1, so that
each takes sRGB in [0, 1] as the others do.

- `"vgg19"`: torchvision's, from its file, torch's cache or its hub. The paper's.
- `"vgg19-conv3_1"`: a file of VGG19 that ends there, so that a network has three scales; as torchvision's or
  "normalized" for style transfer (Li et al. 2017). For development.
- `"distilled"`: VGG19 distilled to a 16th (Wang et al. 2020), made for maxima between the scales, here with averages.
  For development.
- `"compact"`: `ctlib.models.features`, which comes with the book.

Taught in: notebooks/50_train_transfer_subnet.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ctlib.checkpoints import CheckpointError, load_weights
from ctlib.hubcache import MissingWeights
from ctlib.models import imagenet
from ctlib.models.features import COMPACT, MEAN, STD, Features, Pyramid


class Plan(NamedTuple):
    """Channels and number of convolutions at each scale."""

    widths: tuple[int, ...]
    counts: tuple[int, ...]


ENCODERS = {
    "vgg19": Plan((64, 128, 256, 512), (2, 2, 4, 1)),
    "vgg19-conv3_1": Plan((64, 128, 256), (2, 2, 1)),
    "distilled": Plan((16, 32, 64, 128), (2, 2, 4, 1)),
    "compact": Plan((24, 48, 96, 192), (2, 2, 2, 1)),
}
#: to relu5_1, for losses that look deeper than the networks
DEEP = {
    "vgg19": Plan((64, 128, 256, 512, 512), (2, 2, 4, 4, 1)),
    "distilled": Plan((16, 32, 64, 128, 128), (2, 2, 4, 4, 1)),
    "compact": Plan((24, 48, 96, 192, 192), (2, 2, 2, 2, 1)),
}
_INSTEAD = "; or take encoder compact, which comes with the book"


def plan(name: str, deep: bool = False) -> Plan:
    """The graph of an encoder. Raises `ValueError` that lists the known ones."""
    known = DEEP if deep else ENCODERS
    if name not in known:
        depth = " to relu5_1" if deep else ""
        raise ValueError(f"encoder: expected one of {', '.join(known)}{depth}, got {name!r}")
    return known[name]


def load(name: str, file: Path | str = "", *, deep: bool = False, download: bool = True) -> Pyramid:
    """An encoder with its trained weights, frozen.

    Args:
        name: of `ENCODERS`, with `deep` of `DEEP`.
        file: of the weights. Looked for or downloaded for `"vgg19"` unless given; `"compact"` takes none.
        deep: to relu5_1.
        download: whether that may be.

    Raises:
        ValueError: an unknown name, no file where one is needed, or one of another network.
        MissingWeights, CheckpointError: the weights are nowhere to be had; the message says what to do.
    """
    encoder = Pyramid(*plan(name, deep))
    try:
        found = _weights(name, file, encoder.counts, deep, download)
        encoder.load_state_dict({key: found[key].float() for key in encoder.state_dict()})
    except (MissingWeights, CheckpointError) as error:
        raise type(error)(f"{str(error).removesuffix(_INSTEAD)}{_INSTEAD}") from error
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"file: these are not the weights of encoder {name} ({reason}){_INSTEAD}") from error
    return encoder.requires_grad_(False).eval()


def _weights(name: str, file: Path | str, counts: tuple[int, ...], deep: bool, download: bool) -> dict[str, Tensor]:
    """Tensors under the names of `Pyramid`, and perhaps others."""
    if name == "compact":
        if file:
            raise ValueError(f"file: encoder compact comes with the book and takes none, got {str(file)!r}")
        return Features.from_pretrained(COMPACT).state_dict()
    if name == "vgg19":
        return _renamed(imagenet.weights("vgg19", file, download=download), counts)
    if not file:
        raise ValueError(f"file: encoder {name} needs the file of its weights{_INSTEAD}")
    weights = load_weights(file)
    if name == "distilled":
        return _distilled(weights, "enc5." if deep else "enc4.")
    return _folded(_renamed(weights, counts), weights, "preprocess")


def _renamed(weights: dict[str, Tensor], counts: tuple[int, ...]) -> dict[str, Tensor]:
    """torchvision's `features.N` as `convL_K`: each convolution is followed by a ReLU, each scale by a pooling."""
    found, place = {}, 0
    for level, count in enumerate(counts, 1):
        for number in range(1, count + 1):
            for kind in ("weight", "bias"):
                if (key := f"features.{place}.{kind}") in weights:
                    found[f"conv{level}_{number}.{kind}"] = weights[key]
            place += 2
        place += 1
    return found


def _distilled(weights: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    """`enc4.conv11.weight` as `conv1_1.weight`."""
    found = {}
    for key, value in weights.items():
        name, _, kind = key.removeprefix(f"{head}conv").partition(".")
        if key.startswith(head) and len(name) == 2:
            found[f"conv{name[0]}_{name[1]}.{kind}"] = value.float()
    return _folded(found, weights, f"{head}conv0")


def _folded(found: dict[str, Tensor], weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """conv1_1 with the 1 x 1 convolution in front of it, whose input is sRGB, instead of a mean and a deviation.

    Exact, as reflection puts pixels of the picture around it, where zeros would not go through that convolution.
    """
    if f"{name}.weight" not in weights or "conv1_1.weight" not in found:
        return found
    matrix, offset = weights[f"{name}.weight"].double()[:, :, 0, 0], weights[f"{name}.bias"].double()
    kernel = found["conv1_1.weight"].double()
    mean, std = torch.tensor(MEAN).double(), torch.tensor(STD).double()
    bias = found["conv1_1.bias"].double() + kernel.sum((2, 3)) @ (matrix @ mean + offset)
    kernel = torch.einsum("oihw,ij->ojhw", kernel, matrix * std)
    return found | {"conv1_1.weight": kernel.float(), "conv1_1.bias": bias.float()}
