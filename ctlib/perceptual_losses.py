r"""Distances of deep features as losses: LPIPS, and one that comes with the book.

Both take sRGB and have a gradient. LPIPS needs an ImageNet network that others trained and weighs its channels by what
people said of pairs of pictures (Zhang et al. 2018). `CompactPerceptual` needs our own encoder alone, 2 MB, and weighs
nothing: with $\hat f_l$ the features of layer $l$, divided at each place by their length over the channels,

$$d = \frac1{|l|} \sum_l \operatorname{mean}_{hw} \lVert \hat f_l - \hat g_l \rVert^2$$

Source: Zhang, Isola, Efros, Shechtman, Wang, The Unreasonable Effectiveness of Deep Features, CVPR 2018.
Taught in: notebooks/40_colorization_losses.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ctlib.hubcache import MissingWeights
from ctlib.metrics import perceptual
from ctlib.models import imagenet
from ctlib.models.features import COMPACT, LAYERS, Features

SEEN = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
_TINY = 1e-10  # as in LPIPS: what is black to all channels has no direction


class _Frozen(nn.Module):
    """Stays in evaluation mode, whatever the training around it."""

    def train(self, mode: bool = True):
        return super().train(False)

    def freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()


class CompactPerceptual(_Frozen):
    """The distance above.

    Args:
        encoder: ours unless given; it is frozen.
        layers: of `ctlib.models.features.LAYERS`.
        weights: one a layer, at least 0, adding up to 1; equal unless given.

    Raises:
        ValueError: an unknown layer, or weights that do not fit. CheckpointError: the shipped encoder is damaged.
    """

    def __init__(
        self, encoder: Features | None = None, layers: Sequence[str] = SEEN, weights: Sequence[float] | None = None
    ):
        super().__init__()
        if not layers or (unknown := [layer for layer in layers if layer not in LAYERS]):
            raise ValueError(f"layers: expected some of {', '.join(LAYERS)}, got {unknown[0] if layers else layers!r}")
        self.layers = tuple(sorted(set(layers), key=LAYERS.index))
        equal = (1 / len(self.layers),) * len(self.layers)
        self.weights = equal if weights is None else tuple(map(float, weights))
        if len(self.weights) != len(self.layers) or min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError(f"weights: expected {len(self.layers)} that add up to 1, got {weights!r}")
        self.encoder = Features.from_pretrained(COMPACT) if encoder is None else encoder
        self.freeze()

    def forward(self, result: Tensor, target: Tensor) -> Tensor:
        """Distances of pictures `(B, 3, H, W)`, sRGB in [0, 1] (a result may leave that), each of 0 to 2.

        Returns:
            `(B,)`, differentiable.

        Raises:
            ValueError: see `ctlib.models.features.Features.forward`.
        """
        laid_out = (rgb.contiguous(memory_format=torch.channels_last) for rgb in (result, target))  # faster on a CPU
        first, second = (self.encoder(rgb, self.layers).values() for rgb in laid_out)
        each = [(_unit(f) - _unit(g)).square().sum(1).mean((1, 2)) for f, g in zip(first, second, strict=True)]
        return sum(weight * distance for weight, distance in zip(self.weights, each, strict=True))


class Lpips(_Frozen):
    """LPIPS with a gradient; the values are those of the authors' package.

    Their code has none (NaN) where a picture is nothing to all channels of a layer, so lengths are computed here.

    Args:
        net: `"squeeze"`, `"alex"` or `"vgg"`.
        file: of the trunk, see `ctlib.models.imagenet.weights`, for `"squeeze"`.
        download: whether a missing trunk may be fetched.

    Raises:
        ValueError: an unknown net. MissingWeights: no trunk, or the package `lpips` is missing.
    """

    def __init__(self, net: str = "squeeze", file: str = "", *, download: bool = True):
        super().__init__()
        trunk = imagenet.weights("squeezenet1_1", file, download=download) if net == "squeeze" else None
        self.net = net
        self.model = perceptual.model(net, trunk, download)
        self.freeze()

    def forward(self, result: Tensor, target: Tensor) -> Tensor:
        """Distances `(B,)` of pictures `(B, 3, H, W)`, sRGB in [0, 1] (a result may leave that), at least 32 x 32."""
        with torch.autocast(result.device.type, enabled=False):
            first, second = (self.model.net(self.model.scaling_layer(2 * rgb - 1)) for rgb in (result, target))
            heads = zip(self.model.lins, first, second, strict=True)
            return sum(head.model((_unit(f) - _unit(g)).square()).mean((1, 2, 3)) for head, f, g in heads)


def lpips_column() -> dict:
    """LPIPS of SqueezeNet as a further column of a table, `ctlib.evaluate_colorization.judge(also=...)`.

    Returns:
        `{"lpips_squeeze": measure}`; empty where its weights cannot be had.
    """
    try:
        lpips = Lpips("squeeze")
    except MissingWeights:
        return {}
    return {"lpips_squeeze": lambda result, truth: lpips(result.float(), truth.float()).detach()}


def _unit(features: Tensor) -> Tensor:
    features = features.float()  # a network may compute in bfloat16, but not differences of what is nearly the same
    return features / (features.square().sum(1, keepdim=True) + _TINY).sqrt()
