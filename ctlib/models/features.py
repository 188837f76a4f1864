"""A small network that sees: features of photographs at five scales, for perceptual losses and for exemplar transfer.

Its graph is that of VGG19 with two convolutions a scale, fewer channels, reflection instead of zeros around the picture
and averages instead of maxima where it halves (Gatys et al. 2016 found that smoother). What it knows it learned by
imitating VGG19, see `ctlib.recipes.features`; it has a thirteenth of the parameters of VGG19 up to the same layer.

Source: Simonyan and Zisserman 2015 (the graph); Gatys, Ecker, Bethge 2016 (averages).
Taught in: notebooks/50_train_transfer_subnet.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctlib.checkpoints import Pretrained

Adapt = Callable[[int, Tensor], Tensor]  # level and its features (B, C, h, w) to what the next layer shall see of them

COUNTS = (2, 2, 2, 2, 1)  # convolutions at each scale


def layers_of(counts: Sequence[int]) -> tuple[str, ...]:
    """Names of the layers of a `Pyramid` in the order of the computation: `relu3_1` has a fourth of the sides."""
    names = []
    for level, count in enumerate(counts, 1):
        names += [f"relu{level}_{number}" for number in range(1, count + 1)]
        names += [f"pool{level}"] if level < len(counts) else []
    return tuple(names)


#: what can be asked of `Features`
LAYERS = layers_of(COUNTS)
COMPACT = "features-compact"  # the trained one, in data/pretrained
TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Pyramid(nn.Module):
    """The graph of VGG with any widths and numbers of convolutions: 3 x 3, ReLU, averages between the scales.

    Args:
        widths: channels at 1, 1/2, 1/4, ... of the sides.
        counts: convolutions at each of these scales.

    Raises:
        ValueError: not as many widths as counts, or no whole numbers of at least 1.
    """

    def __init__(self, widths: Sequence[int], counts: Sequence[int]):
        super().__init__()
        if len(widths) != len(counts) or any(type(width) is not int or width < 1 for width in (*widths, *counts)):
            raise ValueError(f"widths: expected {len(counts)} whole numbers of at least 1, got {widths!r}")
        self.widths, self.counts, channels = tuple(widths), tuple(counts), 3
        self.layers = layers_of(counts)
        for level, (width, count) in enumerate(zip(widths, counts, strict=True), 1):
            for number in range(1, count + 1):
                conv = nn.Conv2d(channels, width, 3, padding=1, padding_mode="reflect")
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                nn.init.zeros_(conv.bias)
                self.add_module(f"conv{level}_{number}", conv)
                channels = width
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def channels(self, layer: str) -> int:
        """Channels of a layer."""
        return self.widths[int(layer[-1] if layer.startswith("pool") else layer[4]) - 1]

    def forward(self, rgb: Tensor, layers: Sequence[str] = TAPS, adapt: Adapt | None = None) -> dict[str, Tensor]:
        """Features of pictures.

        Args:
            rgb: `(B, 3, H, W)` sRGB in [0, 1]; in a loss they may leave that range.
            layers: names as in `layers_of`; nothing behind the last of them is computed.
            adapt: what is done to the features of `relu1_1`, `relu2_1`, ...; the layers behind see its result.

        Returns:
            Layer to `(B, C, h, w)`, in the order of the computation; none is negative but by `adapt`.

        Raises:
            ValueError: an unknown layer or none, another shape, or a picture too small for the last layer.
        """
        if unknown := [layer for layer in layers if layer not in self.layers]:
            raise ValueError(f"layers: {unknown[0]!r} is none of {', '.join(self.layers)}")
        if not layers:
            raise ValueError(f"layers: name at least one of {', '.join(self.layers)}")
        last = max(layers, key=self.layers.index)
        least = 2 ** int(last[4])  # each scale must be left with two pixels a side, to reflect
        if rgb.ndim != 4 or rgb.shape[1] != 3 or min(rgb.shape[2:]) < least:
            raise ValueError(
                f"rgb: expected (B, 3, H, W) with sides of at least {least} pixels for {last}, got {tuple(rgb.shape)}"
            )
        features, found = (rgb - self.mean) / self.std, {}
        for layer in self.layers[: self.layers.index(last) + 1]:
            if layer.startswith("pool"):
                features = functional.avg_pool2d(features, 2)
            else:
                features = functional.relu(getattr(self, "conv" + layer[4:])(features))
                if adapt is not None and layer.endswith("_1"):
                    features = adapt(int(layer[4]), features)
            if layer in layers:
                found[layer] = features
        return found


class Features(Pyramid, Pretrained):
    """The encoder.

    Args:
        widths: channels at 1, 1/2, 1/4, 1/8 and 1/16 of the sides.

    Raises:
        ValueError: not five widths, whole numbers of at least 1.
    """

    def __init__(self, widths: Sequence[int] = (24, 48, 96, 192, 192)):
        super().__init__(widths, COUNTS)
