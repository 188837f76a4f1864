"""A small network that sees: features of photographs at five scales, for perceptual losses and for exemplar transfer.

Its graph is that of VGG19 with two convolutions a scale, fewer channels, reflection instead of zeros around the picture
and averages instead of maxima where it halves (Gatys et al. 2016 found that smoother). What it knows it learned by
imitating VGG19, see `ctlib.recipes.features`; it has a thirteenth of the parameters of VGG19 up to the same layer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctlib.checkpoints import Pretrained

#: what can be asked for, in the order of the computation: `relu3_1` and `relu3_2` have a fourth of the picture's sides
LAYERS = (
    *(name for level in range(1, 5) for name in (f"relu{level}_1", f"relu{level}_2", f"pool{level}")),
    "relu5_1",
)
TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Features(nn.Module, Pretrained):
    """The encoder.

    Args:
        widths: channels at 1, 1/2, 1/4, 1/8 and 1/16 of the sides.

    Raises:
        ValueError: not five widths, whole numbers of at least 1.
    """

    def __init__(self, widths: Sequence[int] = (24, 48, 96, 192, 192)):
        super().__init__()
        if len(widths) != 5 or any(type(width) is not int or width < 1 for width in widths):
            raise ValueError(f"widths: expected five whole numbers of at least 1, got {widths!r}")
        self.widths, channels = tuple(widths), 3
        for level, width in enumerate(widths, 1):
            for number in (1, 2) if level < 5 else (1,):
                conv = nn.Conv2d(channels, width, 3, padding=1, padding_mode="reflect")
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                nn.init.zeros_(conv.bias)
                self.add_module(f"conv{level}_{number}", conv)
                channels = width
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    def channels(self, layer: str) -> int:
        """Channels of a layer of `LAYERS`."""
        return self.widths[int(layer[-1] if layer.startswith("pool") else layer[4]) - 1]

    def forward(self, rgb: Tensor, layers: Sequence[str] = TAPS) -> dict[str, Tensor]:
        """Features of pictures.

        Args:
            rgb: `(B, 3, H, W)` sRGB in [0, 1]; in a loss they may leave that range.
            layers: of `LAYERS`; nothing behind the last of them is computed.

        Returns:
            Layer to `(B, C, h, w)`, in the order of `LAYERS`; none is negative.

        Raises:
            ValueError: an unknown layer or none, another shape, or a picture too small for the last layer.
        """
        if unknown := [layer for layer in layers if layer not in LAYERS]:
            raise ValueError(f"layers: {unknown[0]!r} is none of {', '.join(LAYERS)}")
        if not layers:
            raise ValueError(f"layers: name at least one of {', '.join(LAYERS)}")
        last = max(layers, key=LAYERS.index)
        least = 2 ** int(last[4])  # each scale must be left with two pixels a side, to reflect
        if rgb.ndim != 4 or rgb.shape[1] != 3 or min(rgb.shape[2:]) < least:
            raise ValueError(
                f"rgb: expected (B, 3, H, W) with sides of at least {least} pixels for {last}, got {tuple(rgb.shape)}"
            )
        features, found = (rgb - self.mean) / self.std, {}
        for layer in LAYERS[: LAYERS.index(last) + 1]:
            if layer.startswith("pool"):
                features = functional.avg_pool2d(features, 2)
            else:
                features = functional.relu(getattr(self, "conv" + layer[4:])(features))
            if layer in layers:
                found[layer] = features
        return found
