"""Other encoders for the U-Net of Histogram Analogy: MobileNetV3, and a transformer on the coarsest grid.

Swapping the encoder does not make the network small. With MobileNetV3-large it shrinks from 19.2 to 3.0 million
parameters, and the whole U-Net grows from 39.4 to 53.2 million: the decoder meets 960 channels instead of 512, and its
blocks pay for their inputs. Whoever wants a small network narrows the decoder. The widths `"mobilenet_large"` and
`"mobilenet_small"` have the channels of the project that tried this (Wp-Zhang, Deep-Color-Transfer);
`"mobilenet_tiny"` has the smaller encoder and the decoder of `"tiny"`.

Source: Howard et al., Searching for MobileNetV3, ICCV 2019, by torchvision; the transformer is our own.

Taught in: notebooks/22_compact_and_distilled.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

#: where torchvision's layers are cut: what each part hands on has a half, a quarter, ... a 32nd of the picture's sides
_CUTS = {"mobilenet_v3_large": (0, 2, 4, 7, 13, 17), "mobilenet_v3_small": (0, 1, 2, 4, 9, 13)}


def mobilenet(name: str, colors: int) -> nn.ModuleList:
    """The convolutional part of a MobileNetV3, in five blocks `(B, C, H, W)` to `(B, C', H/2, W/2)`.

    Its weights are random. It normalizes by batches: what it knows of them for evaluation takes some hundred steps of
    training to settle, and of several processes each normalizes by its own share, so that here, unlike elsewhere, two
    processes do not learn exactly what one would.

    Args:
        name: `"mobilenet_v3_large"`, of 16, 24, 40, 112 and 960 channels, or `"mobilenet_v3_small"`, of 16, 16, 24, 48
            and 576.
        colors: channels of the picture; with 3 it is torchvision's to the layer.

    Raises:
        RuntimeError: torchvision is not installed.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise RuntimeError(
            f"{name}: torchvision is not installed: in the checkout, `make env` or pip install -e '.[segmentation]'; "
            "the widths paper, small, tiny and transformer need none"
        ) from error
    layers = models.get_model(name, weights=None).features
    if colors != 3:
        first = layers[0][0]
        layers[0][0] = nn.Conv2d(colors, first.out_channels, 3, 2, 1, bias=False)
    cuts = _CUTS[name]
    return nn.ModuleList(layers[begin:end] for begin, end in pairwise(cuts))


class Transformer(nn.Module):
    """Layers of attention between encoder and decoder, where all of the picture and both histograms meet.

    The cells of the coarsest grid are tokens. In each layer they look at each other, and then at two more tokens, what
    the histograms of source and reference say. The decoder's norms remove from that what is the same in all cells; what
    a cell made of it by its own question stays, so even with tiled codes the histograms are heard. With several regions
    there are two such tokens each, and a cell looks at them by as much as it lies in the region: logarithms of its
    weights are added before the softmax. Regions that all say the same are then the same as one.

    A depthwise convolution at the head of each layer tells where the cells are (conditional positional encoding, Chu et
    al. 2021): it has no size, so neither has the network.

    Args:
        channels: of the features. code: of one histogram's vector.
        layers: how many. heads: of the attention; divide the channels.
    """

    def __init__(self, channels: int, code: int, layers: int = 3, heads: int = 4):
        super().__init__()
        self.source, self.reference = nn.Linear(code, channels), nn.Linear(code, channels)
        self.layers = nn.ModuleList(_Layer(channels, heads) for _ in range(layers))

    def forward(self, features: Tensor, vectors: Tensor, weights: Tensor | None = None) -> Tensor:
        """Let cells and histograms meet.

        Args:
            features: `(B, C, H, W)`.
            vectors: `(B, R, 2 code)`, those of source and reference side by side.
            weights: `(B, R, H, W)` of the regions, which add up to 1 in each cell; `None` for a single one.

        Returns:
            `(B, C, H, W)`.
        """
        source, reference = vectors.chunk(2, dim=-1)
        said = torch.cat([self.source(source), self.reference(reference)], dim=1)
        bias = None
        if weights is not None:
            bias = weights.flatten(2).transpose(1, 2).log().repeat(1, 1, 2)[:, None]  # (B, 1, cells, 2 R)
        for layer in self.layers:
            features = layer(features, said, bias)
        return features


class _Layer(nn.Module):
    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.place = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(4))
        self.among, self.toward = Attention(channels, heads), Attention(channels, heads)
        self.each = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, features: Tensor, said: Tensor, bias: Tensor | None) -> Tensor:
        size = features.shape[2:]
        cells = (features + self.place(features)).flatten(2).transpose(1, 2)
        seen = self.norms[0](cells)
        cells = cells + self.among(seen, seen)
        cells = cells + self.toward(self.norms[1](cells), self.norms[2](said), bias)
        cells = cells + self.each(self.norms[3](cells))
        return cells.transpose(1, 2).unflatten(2, size)


class Attention(nn.Module):
    """Scaled dot-product attention of `(B, N, C)` to `(B, M, C)`; `bias` `(B, 1, N, M)` is added before the softmax."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.value, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, asking: Tensor, asked: Tensor, bias: Tensor | None = None) -> Tensor:
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.query, asking), (self.key, asked), (self.value, asked))
        )
        if bias is not None:
            bias = bias.to(query)
        mixed = functional.scaled_dot_product_attention(query, key, value, bias)
        return self.out(mixed.transpose(1, 2).flatten(2))
