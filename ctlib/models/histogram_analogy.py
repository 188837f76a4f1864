r"""Deep color transfer by histogram analogy: what turned one histogram into the other shall be done to the pixels.

A *histogram encoding network* (HEN) turns a color histogram into a vector, once for the source and once for the
reference. A U-Net, the *color transfer network* (CTN), gets the source picture and both vectors. How the vectors enter
is `conditioning`:

- `"tile"`: repeated over space and concatenated to the features, as published. Each convolution that sees them is
  followed by an InstanceNorm without parameters, which subtracts what a constant input adds: the vectors act only
  through the zeros around the picture.
- `"tile_no_norm"`: the same without the norms of the decoder and of the refinement.
- `"film"`: no tiling; the vectors scale and shift the features *after* each norm (feature-wise linear modulation, Perez
  et al. 2018).

Source: Lee, Son, Lee, Lee, Cho, Lee, Deep Color Transfer using Histogram Analogy, The Visual Computer 36, 2020, and the
layers of its authors' code.

Taught in: notebooks/20_train_histogram_analogy, notebooks/60_ablate_conditioning.
"""

import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctlib import check, ops, regionwise
from ctlib.checkpoints import Pretrained
from ctlib.classical.distribution import match_sorted, spread
from ctlib.classical.statistics import ColorMap
from ctlib.color import A_RANGE, B_RANGE
from ctlib.enlarge import enlarge
from ctlib.models import encoders
from ctlib.ops.hen_histogram import BINS

Conditioning = Literal["tile", "tile_no_norm", "film"]
CONDITIONINGS = ("tile", "tile_no_norm", "film")
SAMPLES = 4096  # pixels of a picture that curves are fitted on
PAD = 32  # pixels of replicated border at inference: divides by the five halvings


@dataclass(frozen=True)
class Widths:
    """Channels of the layers.

    Attributes:
        encoder, decoder: of the five blocks.
        hen: of HEN's hidden layers. code: of its vector.
        middle: inside the last decoder block. full: of the features at full resolution. hidden: inside a refinement
            step; steps: how many of those.
        separable: 3 x 3 convolutions of decoder and refinement split into one a channel and one a pixel, where that
            saves time: up to 24 input channels the plain one is faster.
        backbone: another encoder, see `ctlib.models.encoders.mobilenet`.
        attention: layers between encoder and decoder, see `ctlib.models.encoders.Transformer`.
    """

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    hen: int = 128
    code: int = 64
    middle: int = 128
    full: int = 64
    hidden: int = 64
    steps: int = 3
    separable: bool = False
    backbone: str | None = None
    attention: int = 0


WIDTHS = {
    "paper": Widths((64, 128, 256, 512, 512), (512, 256, 128, 64, 64)),
    "small": Widths((16, 32, 64, 128, 256), (256, 128, 64, 64, 64)),
    "tiny": Widths((8, 24, 48, 96, 128), (128, 96, 48, 16, 8), 64, 32, 8, 8, 8, 1, separable=True),
    "mobilenet_large": Widths((16, 24, 40, 112, 960), (960, 256, 128, 64, 64), backbone="mobilenet_v3_large"),
    "mobilenet_small": Widths((16, 16, 24, 48, 576), (576, 48, 48, 64, 64), backbone="mobilenet_v3_small"),
}
WIDTHS["mobilenet_tiny"] = replace(
    WIDTHS["tiny"], encoder=WIDTHS["mobilenet_small"].encoder, backbone="mobilenet_v3_small"
)
WIDTHS["transformer"] = replace(WIDTHS["tiny"], attention=3)


def to_unit(lab: Tensor) -> Tensor:
    """CIELAB `(B, 3, ...)` to [-1, 1], each channel by its extremes over sRGB (L: 0 and 100)."""
    return (lab - _vector(_MIDDLE, lab)) / _vector(_HALF, lab)


def from_unit(unit: Tensor) -> Tensor:
    """Inverse of `to_unit`; what lies outside [-1, 1] stays outside."""
    return unit * _vector(_HALF, unit) + _vector(_MIDDLE, unit)


_MIDDLE = (50.0, sum(A_RANGE) / 2, sum(B_RANGE) / 2)
_HALF = (50.0, (A_RANGE[1] - A_RANGE[0]) / 2, (B_RANGE[1] - B_RANGE[0]) / 2)


def _vector(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, *(1,) * (like.ndim - 2))


class HistogramEncoder(nn.Module):
    """HEN: `(B, 9, bins, bins)` of `ctlib.ops.hen_histogram` to a vector `(B, code)`. No norm anywhere.

    Args:
        bins: of a and of b; halved by convolutions down to 4.
        root: take the square root first. Shares are tiny (the mean of the joint histogram is 1/4096), and a freshly
            initialised network hardly hears them; roots have unit length. The published network reads the shares.
    """

    def __init__(self, bins: int = 64, hidden: int = 128, code: int = 64, root: bool = False):
        super().__init__()
        self.root = root
        halvings = bins.bit_length() - 3
        channels, layers = 9, []
        for stride in (2,) * halvings + (1,) * 3:
            layers += [nn.Conv2d(channels, hidden, 4, stride, 1), nn.LeakyReLU(0.1)]
            channels = hidden
        self.layers = nn.Sequential(*layers, nn.Conv2d(hidden, code, 1), nn.Flatten(), nn.Linear(code, code))

    def forward(self, histogram: Tensor) -> Tensor:
        return self.layers(histogram.sqrt() if self.root else histogram)


class Code:
    """What the histograms say: one vector a region, and where the regions are.

    Args:
        vectors: `(B, R, D)`.
        regions: `(B, R, H, W)` weights that add up to 1 in each pixel; `None` for one region, everywhere.
    """

    def __init__(self, vectors: Tensor, regions: Tensor | None = None):
        self.vectors, self.regions = vectors, regions
        self._sized: dict[tuple[int, ...], Tensor] = {}  # each decoder block asks for the same sizes several times

    def weights(self, size: torch.Size) -> Tensor:
        """`(B, R, h, w)`: the regions over features of a size."""
        if size not in self._sized:
            self._sized[size] = functional.interpolate(self.regions, size, mode="area")
        return self._sized[size]

    def spread(self, values: Tensor, size: torch.Size) -> Tensor:
        """`(B, R, C)`, what a layer makes of the vectors, over features of a size: `(B, C, h, w)` or `(B, C, 1, 1)`."""
        if self.regions is None:
            return values[:, 0, :, None, None]
        return torch.einsum("brc,brhw->bchw", values, self.weights(size))


class Film(nn.Module):
    """Scale and shift features `(B, C, H, W)` by what a code says; does nothing until trained."""

    def __init__(self, code: int, channels: int):
        super().__init__()
        self.linear = nn.Linear(code, 2 * channels)

    def forward(self, features: Tensor, code: Code) -> Tensor:
        scale, shift = code.spread(self.linear(code.vectors), features.shape[2:]).chunk(2, dim=1)
        return torch.addcmul(features + shift, features, scale)


class Block(nn.Module):
    """A chain of convolutions, norms and activations in which a `Film` is handed the code."""

    def __init__(self, *layers: nn.Module | None):
        super().__init__()
        self.layers = nn.ModuleList([layer for layer in layers if layer is not None])

    def forward(self, features: Tensor, code: Code | None = None) -> Tensor:
        for layer in self.layers:
            features = layer(features, code) if isinstance(layer, Film) else layer(features)
        return features


def conv3(inputs: int, outputs: int, *, separable: bool = False, bias: bool = True) -> nn.Module:
    """A 3 x 3 convolution that keeps the size, zeros around."""
    if not separable:
        return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False), nn.Conv2d(inputs, outputs, 1, bias=bias)
    )


def norm(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels)  # no parameters, as published


class ColorTransfer(nn.Module):
    """CTN: the U-Net. See the head of this file for `conditioning`, `Widths` for the channels."""

    def __init__(self, conditioning: Conditioning, widths: Widths, pictures: int = 1):
        super().__init__()
        self.conditioning, colors = conditioning, 3 * pictures
        film, plain = conditioning == "film", conditioning == "tile_no_norm"
        code = 2 * widths.code
        tiled = 0 if film else code

        def after(channels: int) -> tuple[nn.Module | None, ...]:
            """What follows a convolution that knows the code."""
            return (None if plain else norm(channels), Film(code, channels) if film else None)

        def act() -> nn.Module:
            # a shift by the code can push a channel below zero everywhere; through a ReLU it never came back
            return nn.LeakyReLU(0.2) if film else nn.ReLU()

        def conv(inputs: int, outputs: int, bias: bool = True) -> nn.Module:
            return conv3(inputs, outputs, separable=widths.separable and inputs > 24, bias=bias)

        encoder, channels = [], colors
        for number, width in enumerate(() if widths.backbone else widths.encoder):
            encoder.append(
                Block(
                    nn.LeakyReLU(0.2) if number else None,
                    *(conv3(channels, width), norm(width), nn.LeakyReLU(0.2)),
                    *(conv3(width, width), norm(width), nn.LeakyReLU(0.2)),
                    *(nn.Conv2d(width, width, 4, 2, 1), norm(width)),
                )
            )
            channels = width
        self.encoder = encoders.mobilenet(widths.backbone, colors) if widths.backbone else nn.ModuleList(encoder)
        channels = widths.encoder[-1]
        self.attention = None
        if widths.attention:
            self.attention = encoders.Transformer(channels, widths.code, widths.attention)

        decoder, sides, full = [], [], widths.full
        for number, (width, skip) in enumerate(zip(widths.decoder, widths.encoder[::-1], strict=True)):
            inputs = channels + skip + tiled
            last = number == len(widths.decoder) - 1
            middle, width = (widths.middle, full) if last else (width, width)
            decoder.append(
                Block(
                    *(act(), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)),
                    *(conv(inputs, middle, bias=not last), *after(middle), act()),
                    *(conv(middle, width), *after(width), act()),
                    *(conv(width, width), *(() if last else after(width))),
                )
            )
            if not last:
                sides.append(Block(nn.ReLU(), conv(width, width), norm(width), nn.ReLU(), conv3(width, 3)))
            channels = width
        self.decoder, self.sides = nn.ModuleList(decoder), nn.ModuleList(sides)

        # film keeps the picture's own colors in `guide`: a norm there would hide what the scales refer to
        self.guide = Block(conv3(colors, full), None if film else norm(full), act(), conv(full, full))
        inner = widths.hidden + tiled
        self.refine = nn.ModuleList(
            Block(
                *(conv(full + tiled, inner), *after(inner), act()),
                *(conv(inner, full), *after(full)),
            )
            for _ in range(widths.steps)
        )
        head = []
        for _ in range(3):
            head += [conv(full, full), Film(code, full) if film else None, act()]
        self.head = Block(*head, conv3(full, 3))

    def forward(
        self, unit: Tensor, source_code: Tensor, reference_code: Tensor, regions: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """See `HistogramAnalogy.forward`; codes are `(B, D)`, or `(B, R, D)` with regions."""
        vectors = torch.cat([source_code, reference_code], dim=-1)
        if self.conditioning == "film":
            vectors = functional.layer_norm(vectors, vectors.shape[-1:])  # of one size, whatever the histogram
        code = Code(vectors[:, None] if regions is None else vectors, regions)
        skips, features = [], unit
        for block in self.encoder:
            features = block(features)
            skips.append(features)
        if self.attention is not None:
            weights = None if regions is None else code.weights(features.shape[2:])
            features = self.attention(features, code.vectors, weights)

        sides = []
        for number, block in enumerate(self.decoder):
            skip = skips[-1 - number]
            features = block(self._join(code, _resized(features, skip), skip), code)
            if number < len(self.sides):
                sides.append(self.sides[number](features))
        features = _resized(features, unit)

        guide = self.guide(unit)
        for step in self.refine:
            features = features + guide
            features = features + step(self._join(code, features), code)
        return self.head(features + guide, code), sides

    def _join(self, code: Code, *features: Tensor) -> Tensor:
        """Features side by side, and unless `film` the code of its region at each pixel."""
        if self.conditioning == "film":
            return torch.cat(features, dim=1)
        size = features[0].shape[2:]
        return torch.cat([*features, code.spread(code.vectors, size).expand(-1, -1, *size)], dim=1)


def _resized(features: Tensor, like: Tensor) -> Tensor:
    if features.shape[2:] == like.shape[2:]:
        return features
    return functional.interpolate(features, like.shape[2:], mode="bilinear", align_corners=False)


class HistogramAnalogy(nn.Module, Pretrained):
    r"""Histogram Analogy, whole: HEN and CTN.

    Args:
        conditioning: how the histograms enter, see the head of this file.
        width: `"paper"` (CTN 39,407,247 parameters with `"tile"`), `"small"` (9,232,079) or `"tiny"` (below 2 million);
            `"mobilenet_large"` (53,159,935), `"mobilenet_small"` (19,129,615), `"mobilenet_tiny"` and `"transformer"`
            have other encoders, see `ctlib.models.encoders`.
        bins: of a and b in the histogram, 8, 16, 32, 64 or 128; 64 as published.
        root: HEN reads the roots of the shares, see `HistogramEncoder`.
        residual: the network predicts a change of the picture instead of the picture.
        curves: beside the source, the network is shown what per-channel histogram matching makes of it, and predicts a
            change of that: the histograms say it exactly, so it need not be learned. Implies `residual`.
        init: `"normal"`, N(0, 0.02) as published, or `"kaiming"` for what is too narrow or has too few norms for that.

    Raises:
        ValueError: an unknown option; the message lists the known ones.
        RuntimeError: a MobileNet without torchvision.
    """

    def __init__(
        self,
        conditioning: Conditioning = "tile",
        width: str = "paper",
        bins: int = 64,
        root: bool = False,
        residual: bool = False,
        curves: bool = False,
        init: str = "normal",
    ):
        super().__init__()
        for name, value, known in (
            ("conditioning", conditioning, CONDITIONINGS),
            ("width", width, tuple(WIDTHS)),
            ("bins", bins, BINS),
            ("init", init, ("normal", "kaiming")),
        ):
            if value not in known or type(value) is not type(known[0]):
                raise ValueError(f"{name}: expected one of {', '.join(map(str, known))}, got {value!r}")
        widths = WIDTHS[width]
        self.bins, self.residual, self.curves = bins, residual or curves, curves
        self.hen = HistogramEncoder(bins, widths.hen, widths.code, root)
        self.ctn = ColorTransfer(conditioning, widths, pictures=2 if curves else 1)
        self.apply(_normal if init == "normal" else _kaiming)
        if self.residual:  # begin with the picture as it is
            nn.init.zeros_(self.ctn.head.layers[-1].weight)

    def forward(
        self,
        unit: Tensor,
        source_histogram: Tensor,
        reference_histogram: Tensor,
        matched: Tensor | None = None,
        regions: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Recolor.

        Args:
            unit: `(B, 3, H, W)` source in [-1, 1], see `to_unit`.
            source_histogram, reference_histogram: `(B, 9, bins, bins)`, see `ctlib.ops.hen_histogram`; of regions,
                `(B, R, 9, bins, bins)`.
            matched: `(B, 3, H, W)` in [-1, 1], see `match_channels`; only and always with `curves`.
            regions: `(B, R, H, W)` weights that add up to 1 in each pixel, where the R histograms hold.

        Returns:
            `(B, 3, H, W)` in about [-1, 1], neither squashed nor clipped, and the side outputs of the first four
            decoder blocks, `(B, 3, h, w)` with h about H/16, H/8, H/4, H/2, for the multi-scale loss.
        """
        if self.curves != (matched is not None):
            raise ValueError("matched: goes with curves=True, see match_channels")
        seen = unit if matched is None else torch.cat([unit, matched], dim=1)
        codes = [self._encode(histogram, regions) for histogram in (source_histogram, reference_histogram)]
        out, sides = self.ctn(seen, *codes, regions)
        return (out + (unit if matched is None else matched) if self.residual else out), sides

    def _encode(self, histogram: Tensor, regions: Tensor | None) -> Tensor:
        """`(B, code)`, or `(B, R, code)` with regions, all of which one histogram may serve."""
        if regions is None:
            return self.hen(histogram)
        if histogram.ndim == 4:
            return self.hen(histogram)[:, None].expand(-1, regions.shape[1], -1)
        return self.hen(histogram.flatten(0, 1)).unflatten(0, histogram.shape[:2])

    def _wanted(self, reference: Tensor, pair: regionwise.Partners | None) -> Tensor:
        """Histogram of the reference `(B, 9, ...)`, or of its regions and then the whole, `(1, R + 1, 9, ...)`."""
        whole = ops.hen_histogram(reference, bins=self.bins)
        if pair is None:
            return whole
        parts = [whole[:, None]]
        if pair.count:
            labels = pair.reference[None].to(reference.device)
            parts.insert(0, ops.hen_histogram(reference, bins=self.bins, labels=labels, num_labels=pair.count))
        return torch.cat(parts, dim=1)

    def transfer(self, source: Tensor, reference: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`forward` on CIELAB pixels: source `(B, 3, H, W)`, reference `(B, 3, ...)`, in natural units; no padding."""
        histograms = [ops.hen_histogram(lab, bins=self.bins) for lab in (source, reference)]
        matched = to_unit(match_channels(source, reference)) if self.curves else None
        return self(to_unit(source), *histograms, matched)

    @torch.no_grad()
    def recolor(
        self,
        source: Tensor,
        reference: Tensor,
        *,
        labels: tuple[Tensor, Tensor] | None = None,
        long_side: int = 1024,
        precision: Literal["no", "bf16"] = "no",
    ) -> Tensor:
        """Recolor pictures of any size.

        Args:
            source: `(B, 3, H, W)` sRGB in [0, 1].
            reference: `(B, 3, H', W')` sRGB in [0, 1], one a source; a picture or a palette drawn as one.
            labels: label maps of one source and its reference, see `ctlib.regionwise.partners`: each region of the
                source takes the histogram of its partner, what has none that of the whole reference. The source's own
                histogram stays that of the whole source, as published.
            long_side: of a larger source, the network sees pixels picked at this size, and what that did to them is
                done to all by `ctlib.enlarge`; curves, if there are any, are applied to all as they are. See
                benchmarks/bench_any_size.py for time and memory.
            precision: `"bf16"` lets the network alone compute in bfloat16, which is faster where the processor knows it
                (AMX, AVX512-BF16, GPUs); results differ by a fraction of a CIEDE2000.

        Returns:
            `(B, 3, H, W)` sRGB in [0, 1].

        Raises:
            ValueError: wrong input.
        """
        check.rgb(source, "source")
        check.rgb(reference, "reference")
        if len(source) != len(reference):
            raise ValueError(f"source and reference: one reference a source, got {len(source)} and {len(reference)}")
        device = check.in_float32(self)
        check.long_side(long_side)
        if precision not in ("no", "bf16"):
            raise ValueError(f"precision: expected no or bf16, got {precision!r}")
        size, scale = source.shape[2:], long_side / max(source.shape[2:])
        small = source if scale >= 1 else thinned(source, [max(1, round(side * scale)) for side in size])
        lab, wanted = (ops.rgb_to_lab(rgb.float().to(device)) for rgb in (small, reference))
        height, width = lab.shape[2:]
        pair = None
        if labels is not None:
            pair = regionwise.partners(labels, source, reference)
            if pair.whole:  # the same, but for rounding that a network may amplify
                pair = None
        # with `film` a border only costs time; with `tile` the vectors act through it
        pad = 0 if self.ctn.conditioning == "film" else PAD
        right, below = (max(-side % PAD, 2 * PAD - side) + pad for side in (width, height))  # the norms need 2 x 2
        border = (pad, right, pad, below)
        histograms = [ops.hen_histogram(lab, bins=self.bins), self._wanted(wanted, pair)]
        shares = None if pair is None else pair.weights(small).to(device)
        maps, matched = [], None
        if self.curves:
            drawn = lambda colors, wanted: rgb_curves(ops.rgb_to_lab(_drawn(colors).float().to(device)), wanted)  # noqa: E731
            maps = [drawn(source, wanted)] if pair is None else list(pair.maps(drawn, source, wanted))
            on_lab = [one and _in_lab(one) for one in maps]
            matched = to_unit(on_lab[0](lab) if pair is None else regionwise.mix(on_lab, lab, shares))
        seen = (to_unit(lab), matched, shares)
        seen, matched, weights = (None if x is None else functional.pad(x, border, mode="replicate") for x in seen)
        if precision == "bf16":  # whose fast convolutions want the channels of a pixel side by side
            seen = seen.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            unit, _ = self(seen, *histograms, matched, weights)
        result = from_unit(unit.to(lab)[..., pad : pad + height, pad : pad + width])
        if scale < 1:
            return enlarge(source, small.to(lab), result, maps, pair and pair.weights)
        return ops.lab_to_rgb(result).clamp(0, 1).to(source)


def match_channels(source: Tensor, reference: Tensor, samples: int = SAMPLES) -> Tensor:
    """`(B, 3, H, W)` CIELAB: the source with the channels of the reference, see `channel_curves`."""
    return channel_curves(source, reference, samples)(source)


def channel_curves(source: Tensor, reference: Tensor, samples: int = SAMPLES) -> ColorMap:
    """`rgb_curves` as a function of color in CIELAB, `(B, 3, ...)` to `(B, 3, ...)`."""
    return _in_lab(rgb_curves(source, reference, samples))


def rgb_curves(source: Tensor, reference: Tensor, samples: int = SAMPLES) -> ColorMap:
    """Match the histograms of R, G and B, each on its own, with curves of 64 straight pieces.

    Retouching acts mostly on these channels: on FiveK, matching them comes nearer to expert C than matching L, a and b.

    Args:
        source, reference: `(B, 3, ...)` CIELAB; what lies outside sRGB is clipped.
        samples: pixels of each picture that the curves are fitted on, see `spread`.

    Returns:
        A function of color, sRGB `(B, 3, ...)` to sRGB in [0, 1].
    """

    def rows(rgb: Tensor) -> Tensor:
        return rgb.flatten(2).flatten(0, 1)

    pair = [rows(ops.lab_to_rgb(lab)) for lab in (source, reference)]
    curve = match_sorted(*(row[:, spread(row.shape[1], samples).to(row.device)] for row in pair), levels=65)
    return lambda rgb: curve(rows(rgb)).clamp(0, 1).view(rgb.shape)


def _in_lab(color_map: ColorMap) -> ColorMap:
    """A function of sRGB colors as one of CIELAB colors."""
    return lambda lab: ops.rgb_to_lab(color_map(ops.lab_to_rgb(lab)))


def with_border(network: nn.Module, mode: str) -> nn.Module:
    """A copy whose convolutions extend pictures by `mode`, `"replicate"`, `"reflect"` or `"zeros"` as published."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode = mode
    return network


def _drawn(rgb: Tensor) -> Tensor:
    """`(B, 3, N)`: those pixels of a picture on which `rgb_curves` fits its curves."""
    return rgb.flatten(2)[:, :, spread(rgb[0, 0].numel(), SAMPLES).to(rgb.device)]


def thinned(rgb: Tensor, size: list[int]) -> Tensor:
    """Pixels picked, not averaged: means of grain and detail would have other histograms than the picture."""
    return functional.interpolate(rgb, size, mode="nearest-exact")


def _normal(module: nn.Module) -> None:
    """The published initialisation."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    _quiet(module)


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    _quiet(module)


def _quiet(module: nn.Module) -> None:
    """No bias at the start, and a `Film` that does nothing yet."""
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, Film):  # `apply` visits its linear layer before the Film itself
        nn.init.zeros_(module.linear.weight)
