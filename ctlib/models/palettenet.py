r"""PaletteNet: a picture and a palette in, the picture in the colors of the palette out.

An encoder turns the picture into features at a half, a quarter, an eighth and a 16th of its sides. A decoder that also
gets the palette makes of them the channels a and b; L\* is that of the source, put back unchanged. How the palette
enters is `decoder_norm`:

- `"instance"`: repeated over space beside the features, as published. The convolution that sees it is followed by an
  InstanceNorm without parameters, which subtracts what a constant input adds: the palette acts only through the zeros
  around the picture. With transposed convolutions (`variant="aakriti"`) something is left: even and odd rows and
  columns add up different weights, so the palette becomes a grid that repeats every two pixels, which is no constant.
- `"none"`: the same without norms in the decoder.
- `"film"`: no repetition; a small perceptron of the palette scales and shifts the features after each norm
  (feature-wise linear modulation, Perez et al. 2018).

No code of the paper's authors was found. Its re-implementations agree on the graph and differ in the rest, see
`LAYOUTS`. Where they scale colors each in its own way, this network uses the book's, `to_unit`.

Source: Cho, Yun, Lee, Choi, PaletteNet: Image Recolorization with Given Color Palette, CVPR Workshops 2017.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctlib import check, color, ops
from ctlib.checkpoints import Pretrained
from ctlib.classical.palette import as_palette
from ctlib.enlarge import enlarge
from ctlib.models.histogram_analogy import Block, Code, Film, conv3, from_unit, norm, thinned, to_unit
from ctlib.settings import share

DecoderNorm = Literal["instance", "none", "film"]
DECODER_NORMS = ("instance", "none", "film")
MAX_COLORS = 12
PAD = 16  # sides are extended to a multiple of this: the encoder halves four times


@dataclass(frozen=True)
class Layout:
    """What implementations differ in, and widths.

    Attributes:
        encoder: channels at 1/2, 1/4, 1/8 and 1/16 of the sides. decoder: at 1/8, 1/4, 1/2 and 1 of them.
        blocks: residual blocks a stage.
        bias: of the convolutions in residual blocks.
        batch: the shortcut of a residual block normalizes by batches, everything else by pictures.
        pool: the first halving is by max-pooling, or by the stride of the convolution.
        convs: 3 x 3 convolutions in a step of the decoder, 1 or 2.
        grow: how a step doubles the sides: bilinear `"before"` or `"after"` its convolutions, or `"transposed"`.
        active: whether the decoder has activations; one implementation has none.
        slope: of the activations below zero.
        code: width of the perceptron that `"film"` adds.
    """

    encoder: tuple[int, ...] = (64, 128, 256, 512)
    decoder: tuple[int, ...] = (256, 128, 64, 64)
    blocks: int = 1
    bias: bool = True
    batch: bool = False
    pool: bool = True
    convs: int = 2
    grow: str = "before"
    active: bool = True
    slope: float = 0.2
    code: int = 128


#: Parameters of encoder and decoder with 6 colors and `"instance"` or `"none"`:
#: `paper`, repalette's: 11,016,320 and 2,866,068;
#: `yongzx`: 4,820,480 and, with `bug_compat`, 2,866,654; with 4 colors it is the ArtBench report's, 2,845,918;
#: `aakriti`: 4,818,688 and 2,054,548;
#: `taptoi`: 4,821,376 and 2,011,892; that its steps have one convolution, the last of 32 channels, is inferred from it.
#: `small` and `tiny` are ours, to be shipped: nothing but the head computes at full resolution, where most of the time
#: goes otherwise; a and b are sharpened there by L alone, as in a JPEG with halved chroma.
LAYOUTS = {
    "paper": Layout(blocks=2),
    "yongzx": Layout(bias=False, batch=True, grow="after", active=False, slope=0.0),
    "aakriti": Layout(bias=False, convs=1, grow="transposed", slope=0.02),
    "taptoi": Layout(decoder=(256, 128, 64, 32), pool=False, convs=1),
    "small": Layout((16, 48, 128, 256), (128, 64, 32, 16), pool=False, grow="after", code=96),
    "tiny": Layout((8, 32, 64, 128), (64, 32, 24, 8), pool=False, grow="after", code=64),
}


class Residual(nn.Module):
    """Two convolutions beside a shortcut: `(B, C, H, W)` to `(B, C', H / stride, W / stride)`."""

    def __init__(self, inputs: int, outputs: int, stride: int, layout: Layout):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=layout.bias), norm(outputs)),
            *(nn.LeakyReLU(layout.slope), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=layout.bias), norm(outputs)),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            after = nn.BatchNorm2d(outputs) if layout.batch else norm(outputs)
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=layout.bias), after)
        self.last = nn.LeakyReLU(layout.slope)

    def forward(self, features: Tensor) -> Tensor:
        return self.last(self.layers(features) + self.shortcut(features))


class FeatureEncoder(nn.Module):
    """A picture `(B, 3, H, W)` to its features, coarse to fine: 1/16, 1/8, 1/4 and 1/2 of the sides."""

    def __init__(self, layout: Layout):
        super().__init__()
        first, *widths = layout.encoder
        layers = [nn.Conv2d(3, first, 3, 1 if layout.pool else 2, 1), norm(first), nn.LeakyReLU(layout.slope)]
        stages = [nn.Sequential(*layers, *([nn.MaxPool2d(2)] if layout.pool else []))]
        channels = first
        for width in widths:
            blocks = [Residual(channels, width, 2, layout)]
            blocks += [Residual(width, width, 1, layout) for _ in range(layout.blocks - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = width
        self.stages = nn.ModuleList(stages)

    def forward(self, picture: Tensor) -> list[Tensor]:
        found = []
        for stage in self.stages:
            picture = stage(picture)
            found.insert(0, picture)
        return found


class RecoloringDecoder(nn.Module):
    """Features and a palette to `outputs` channels: see the head of this file for `decoder_norm`."""

    def __init__(self, colors: int, decoder_norm: DecoderNorm, layout: Layout, dropout: float, outputs: int):
        super().__init__()
        film, values = decoder_norm == "film", 3 * colors
        self.code = None
        if film:
            act = nn.LeakyReLU(0.2)
            self.code = nn.Sequential(nn.Linear(values, layout.code), act, nn.Linear(layout.code, layout.code), act)
        steps, channels = [], 0
        for number, (width, skip) in enumerate(zip(layout.decoder, layout.encoder[::-1], strict=True)):
            inputs = skip + channels + (values if self._tiled(number) else 0)
            layers = [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)] * (layout.grow == "before")
            for position in range(layout.convs):
                if layout.grow == "transposed" and position == 0:
                    conv = nn.ConvTranspose2d(inputs, width, 3, 2, 1, output_padding=1)
                else:
                    conv = conv3(inputs, width)
                layers += [conv, None if decoder_norm == "none" else norm(width)]
                layers += [Film(layout.code, width) if film else None]
                layers += [nn.LeakyReLU(layout.slope) if layout.active else None]
                inputs = width
            layers += [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)] * (layout.grow == "after")
            steps.append(Block(*layers, nn.Dropout2d(dropout) if dropout else None))
            channels = width
        self.steps, self.head = nn.ModuleList(steps), conv3(channels + 1, outputs)

    def _tiled(self, number: int) -> bool:
        """Whether a step sees the palette as channels; the second does not, in all implementations."""
        return self.code is None and number != 1

    def forward(self, found: list[Tensor], palette: Tensor, light: Tensor) -> Tensor:
        values = palette.flatten(1)
        code = None if self.code is None else Code(self.code(values)[:, None])
        features = None
        for number, (step, skip) in enumerate(zip(self.steps, found, strict=True)):
            parts = [skip] if features is None else [skip, features]
            if self._tiled(number):
                parts.append(values[:, :, None, None].expand(-1, -1, *skip.shape[2:]))
            features = step(torch.cat(parts, dim=1), code)
        return self.head(torch.cat([light, features], dim=1))


class PaletteNet(nn.Module, Pretrained):
    r"""PaletteNet, whole: encoder and decoder.

    Args:
        colors: of a palette, 1 to 12; the paper has 6, the ArtBench report 4.
        decoder_norm: how the palette enters, see the head of this file.
        variant: one of `LAYOUTS`.
        init: `"he"` or `"glorot"`. Before the tanh it is Glorot's either way, and all biases begin at 0.
        dropout: share of the channels that each step of the decoder forgets in training.
        bug_compat: compute as the report's implementation (yongzx's) does: sRGB instead of CIELAB in, sRGB out, neither
            squashed nor with the source's L\* put back; and the channel that should hold L\* is computed from values in
            [0, 1] that are divided by 255 once more, so that white has 0.27 instead of 100.

    Raises:
        ValueError: an unknown option; the message lists the known ones.
    """

    def __init__(
        self,
        colors: int = 6,
        decoder_norm: DecoderNorm = "instance",
        variant: str = "paper",
        init: str = "he",
        dropout: float = 0.0,
        bug_compat: bool = False,
    ):
        super().__init__()
        if type(colors) is not int or not 1 <= colors <= MAX_COLORS:
            raise ValueError(f"colors: expected a whole number from 1 to {MAX_COLORS}, got {colors!r}")
        for name, value, known in (
            ("decoder_norm", decoder_norm, DECODER_NORMS),
            ("variant", variant, tuple(LAYOUTS)),
            ("init", init, ("he", "glorot")),
        ):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        dropout, layout = share("dropout", dropout), LAYOUTS[variant]
        self.colors, self.bug_compat = colors, bool(bug_compat)
        self.encoder = FeatureEncoder(layout)
        self.decoder = RecoloringDecoder(colors, decoder_norm, layout, dropout, 3 if bug_compat else 2)
        self.apply(_he if init == "he" else _glorot)
        if not bug_compat:
            _glorot(self.decoder.head)

    def forward(self, view: Tensor, palette: Tensor) -> Tensor:
        """Recolor what the network computes in, see `view`.

        Args:
            view: `(B, 3, H, W)`, sides at least 32 and divisible by 16.
            palette: `(B, 3, colors)`, in the same scale, dark to light.

        Returns:
            a and b, `(B, 2, H, W)` in [-1, 1]; with `bug_compat` sRGB `(B, 3, H, W)`, of any range.

        Raises:
            ValueError: other shapes.
        """
        height, width = view.shape[2:]
        if height % PAD or width % PAD or min(height, width) < 2 * PAD:
            raise ValueError(
                f"view: expected sides of at least 32 that 16 divides, got {height} x {width}; use recolor"
            )
        if palette.shape != (len(view), 3, self.colors):
            raise ValueError(f"palette: expected {(len(view), 3, self.colors)}, got {tuple(palette.shape)}")
        if self.bug_compat:
            light = ops.rgb_to_lab(view.float() / 255)[:, :1].to(view)
            return self.decoder(self.encoder(view), palette, light)
        return torch.tanh(self.decoder(self.encoder(view), palette, view[:, :1]))

    def view(self, lab: Tensor) -> Tensor:
        """CIELAB `(B, 3, ...)` to what the network computes in: `to_unit`, or sRGB in [0, 1] with `bug_compat`."""
        return ops.lab_to_rgb(lab).clamp(0, 1) if self.bug_compat else to_unit(lab)

    def whole(self, out: Tensor, view: Tensor) -> Tensor:
        """The picture `(B, 3, H, W)` that an output stands for, in the scale of `view`: with the source's lightness."""
        return out if self.bug_compat else torch.cat([view[:, :1], out], dim=1)

    def transfer(self, source: Tensor, palette: Tensor) -> Tensor:
        r"""`forward` on CIELAB: source `(B, 3, H, W)`, palette `(B, 3, colors)`, in natural units.

        Returns:
            `(B, 3, H, W)` CIELAB, whose L\* is that of the source to the bit unless `bug_compat`.
        """
        out = self(self.view(source), self.view(palette))
        if self.bug_compat:
            return ops.rgb_to_lab(out.clamp(0, 1))
        ab = from_unit(torch.cat([torch.zeros_like(out[:, :1]), out], dim=1))[:, 1:]
        return torch.cat([source[:, :1], ab.to(source)], dim=1)

    @torch.no_grad()
    def recolor(self, source: Tensor, palette, *, long_side: int = 1024) -> Tensor:
        r"""Recolor pictures of any size.

        Args:
            source: `(B, 3, H, W)` sRGB in [0, 1].
            palette: `(colors, 3)` CIELAB or a list of hex colors, for all pictures. The order does not matter: the
                network is given them dark to light, as it was trained. Colors may repeat; what sRGB cannot show is
                clipped to it first.
            long_side: of a larger source, the network sees pixels picked at this size, and what that did to them is
                done to all by `ctlib.enlarge`.

        Returns:
            `(B, 3, H, W)` sRGB in [0, 1]. L\* is kept but where a color had to be clipped (and with `bug_compat`).

        Raises:
            ValueError: wrong input; the message names what and the remedy.
        """
        check.rgb(source, "source")
        check.long_side(long_side)
        wanted, device = self.ordered(palette), check.in_float32(self)
        size, scale = source.shape[2:], long_side / max(source.shape[2:])
        small = source if scale >= 1 else thinned(source, [max(1, round(side * scale)) for side in size])
        lab = ops.rgb_to_lab(small.float().to(device))
        height, width = lab.shape[2:]
        right, below = (max(-side % PAD, 2 * PAD - side) for side in (width, height))  # norms need 2 x 2 at 1/16
        padded = functional.pad(lab, (0, right, 0, below), mode="replicate")
        wanted = wanted.T.to(lab).expand(len(lab), -1, -1)
        result = self.transfer(padded, wanted)[..., :height, :width]
        if scale < 1:
            return enlarge(source, small.to(lab), result)
        return ops.lab_to_rgb(result).clamp(0, 1).to(source)

    def ordered(self, palette) -> Tensor:
        """A palette as the network takes it: `(colors, 3)` CIELAB that sRGB can show, dark to light.

        Raises:
            ValueError: another number of colors, a misspelled one, or numbers that are no colors.
        """
        lab = as_palette(palette)
        if len(lab) != self.colors:
            raise ValueError(
                f"palette: this network takes {self.colors} colors, got {len(lab)}; repeat or drop some, or load a "
                f"network that was trained with {len(lab)}"
            )
        lab = color.rgb_to_lab(color.lab_to_rgb(lab))
        return lab[lab[:, 0].argsort(stable=True)]


KINDS = ("pooled", "flat")
NORMS = ("inner", "all", "none")


class Discriminator(nn.Module):
    """Whether a picture is a photograph and its colors are those of the palette: `(B,)` logits.

    Four convolutions of stride 2 see the picture and, as further channels, the palette.

    Args:
        colors: of the palette.
        kind: `"pooled"`: 64 to 512 channels, means over the picture (repalette; 2,775,489 parameters with 6 colors).
            `"flat"`: 64 channels, no zeros around, every place with weights of its own, one size of picture only
            (yongzx; 243,969 parameters with 6 colors at 432 x 288, 224,769 with 4 at 256 x 256).
        size: `(H, W)` of the pictures; `"flat"` needs it, `"pooled"` takes any from 32 x 32.
        norms: `"all"`, InstanceNorm after each convolution as in those implementations. As in the decoder it removes
            the palette, from `"flat"`, which has no border to see it by, altogether: it judges pictures, not palettes.
            `"inner"`: none after the first convolution, the rule of DCGAN and pix2pix. `"none"`: no norms.
        dropout: share of the input channels that are forgotten in training (repalette: 0.1).

    A third discriminator, Aakriti's, ends in an InstanceNorm: the mean of its map is 0 whatever the picture, so it
    cannot tell two pictures apart and is not built here.

    Raises:
        ValueError: an unknown option, or a size that is too small.
    """

    def __init__(
        self,
        colors: int = 6,
        kind: str = "pooled",
        size: tuple[int, int] = (256, 256),
        norms: str = "inner",
        dropout: float = 0.0,
    ):
        super().__init__()
        for name, value, known in (("kind", kind, KINDS), ("norms", norms, NORMS)):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        dropout, flat = share("dropout", dropout), kind == "flat"
        sides = list(size)
        for _ in range(4):
            sides = [side // 2 - 1 if flat else side // 2 for side in sides]
        if min(sides) < 2:
            raise ValueError(
                f"size: {kind!r} needs pictures of at least {62 if flat else 32} pixels a side, got {size}"
            )
        self.size = tuple(size) if flat else None
        layers, channels = [nn.Dropout2d(dropout)] if dropout else [], 3 + 3 * colors
        for number, width in enumerate((64,) * 4 if flat else (64, 128, 256, 512)):
            layers.append(nn.Conv2d(channels, width, 4, 2, 0 if flat else 1))
            if norms == "all" or (norms == "inner" and number):
                layers.append(norm(width))
            layers.append(nn.LeakyReLU(0.2))
            channels = width
        layers += [nn.Flatten()] if flat else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Linear(channels * (sides[0] * sides[1] if flat else 1), 1))
        self.apply(_normal)

    def forward(self, view: Tensor, palette: Tensor) -> Tensor:
        """Logits `(B,)` of pictures `(B, 3, H, W)` with palettes `(B, 3, colors)`; see `PaletteNet.view`."""
        if self.size and view.shape[2:] != self.size:
            raise ValueError(f"view: this discriminator takes {self.size} only, got {tuple(view.shape[2:])}")
        tiled = palette.flatten(1)[:, :, None, None].expand(-1, -1, *view.shape[2:])
        return self.layers(torch.cat([view, tiled], dim=1))[:, 0]


_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def _he(module: nn.Module) -> None:
    if isinstance(module, _LAYERS):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    _quiet(module)


def _glorot(module: nn.Module) -> None:
    if isinstance(module, _LAYERS):
        nn.init.xavier_normal_(module.weight)
    _quiet(module)


def _normal(module: nn.Module) -> None:
    """N(0, 0.02), as is usual for adversaries (DCGAN)."""
    if isinstance(module, _LAYERS):
        nn.init.normal_(module.weight, 0.0, 0.02)
    _quiet(module)


def _quiet(module: nn.Module) -> None:
    """No bias at the start, and a `Film` that does nothing yet."""
    if isinstance(module, _LAYERS) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, Film):
        nn.init.zeros_(module.linear.weight)
