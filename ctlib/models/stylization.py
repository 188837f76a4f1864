r"""The transfer sub-net of exemplar colorization (Xu et al. 2020): a picture in the colors of a reference.

An encoder that is not trained (`ctlib.models.style_encoders`), a decoder that mirrors it, and shortcuts: what comes up
from a scale is joined by the pooled features of the encoder, enlarged, and by what they were pooled from. Training
teaches the decoder to give pictures back as they were, see `ctlib.recipes.stylization`; colors move only where AdaIN,
`ctlib.ops.adain`, gives features the mean and deviation of the reference's:

- `"encoder"`: after the first convolution of each scale;
- `"decoder"`: after the last of each scale, on the way back, toward what the decoder makes of the reference;
- `"skip"`: the pooled features that the shortcuts carry. The paper, as retold, has the first two; the authors' script
  runs with all three;
- `"deepest"`: the features between encoder and decoder, once, where a student who rebuilt the system has it. With
  `"decoder"` that happens as well.

With label maps all of that happens in each region toward the region of the same label.

Layers and their names are those of the authors' decoder: of VGG19's, 5,053,507 parameters.

Source: Xu, Wang, Fang, Sheng, Zhang, Stylization-Based Architecture for Fast Deep Exemplar Colorization, CVPR 2020, and
its code; section 3.

Taught in: notebooks/50_train_transfer_subnet.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctlib import check, chroma, ops
from ctlib.checkpoints import Pretrained
from ctlib.models import style_encoders
from ctlib.models.features import Adapt, Pyramid
from ctlib.segment.guides import Guide, guide
from ctlib.settings import number, whole

SITES = ("encoder", "decoder", "skip", "deepest")
PAPER = ("encoder", "decoder")
MULTIPLE = 16  # of the sides: three halvings leave two pixels to reflect


class Encoded(NamedTuple):
    """What an encoder saw: one of each a scale, fine to coarse, but `lasts` and `pools` without the coarsest."""

    levels: tuple[Tensor, ...]  # after the first convolution of each scale
    lasts: tuple[Tensor, ...]  # after the last
    pools: tuple[Tensor, ...]  # the same, pooled


class Style(NamedTuple):
    """What is kept of a reference: its features on the way down, and on the way up after each scale, fine to coarse."""

    encoded: Encoded
    decoded: tuple[Tensor, ...]


class Decoder(nn.Module):
    """The mirror of a `Pyramid`.

    Args:
        widths, counts: of the encoder.
    """

    def __init__(self, widths: Sequence[int], counts: Sequence[int]):
        super().__init__()
        self.counts = tuple(counts)
        for level in range(len(widths) - 1, 0, -1):
            wide, own = widths[level], widths[level - 1]
            self.add_module(f"conv{level + 1}_1", _conv(wide, own))
            self.add_module(f"conv{level}_{counts[level - 1]}_2", _conv(3 * own, own))
            for place in range(counts[level - 1] - 1, 1, -1):
                self.add_module(f"conv{level}_{place}", _conv(own, own))
        self.conv1_1 = begin_near_gray(_conv(widths[0], 3))

    def forward(self, encoded: Encoded, adapt: Adapt | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Features to a picture.

        Args:
            encoded: of a picture whose sides the scales divide.
            adapt: what is done to the features after each scale, 3, 2, 1.

        Returns:
            `(B, 3, H, W)` sRGB, not clamped; the features after each scale, fine to coarse, as `adapt` left them.
        """
        decoded = self.features(encoded, adapt)
        return self.conv1_1(decoded[0]), decoded

    def features(self, encoded: Encoded, adapt: Adapt | None = None) -> tuple[Tensor, ...]:
        """What `forward` makes a picture of: the features after each scale, fine to coarse."""
        features, decoded = encoded.levels[-1], []
        for level in range(len(encoded.lasts), 0, -1):
            count = self.counts[level - 1]
            features = functional.relu(self.get_submodule(f"conv{level + 1}_1")(features))
            coarse, join = torch.cat([features, encoded.pools[level - 1]], dim=1), f"conv{level}_{count}_2"
            features = functional.relu(enlarging(self.get_submodule(join), coarse, encoded.lasts[level - 1]))
            for place in range(count - 1, 1, -1):
                features = functional.relu(self.get_submodule(f"conv{level}_{place}")(features))
            if adapt is not None:
                features = adapt(level, features)
            decoded.append(features)
        return tuple(decoded[::-1])


class Stylization(nn.Module, Pretrained):
    """Encoder, decoder, and AdaIN between a picture and a reference. A new network knows nothing: `load_encoder`.

    Args:
        encoder: of `ctlib.models.style_encoders.ENCODERS`. Its weights are saved with the decoder's.

    Raises:
        ValueError: an unknown encoder.
    """

    def __init__(self, encoder: str = "compact"):
        super().__init__()
        self.encoder_name = encoder
        plan = style_encoders.plan(encoder)
        self.encoder = Pyramid(*plan).requires_grad_(False)
        self.decoder = Decoder(*plan)
        self.to(memory_format=torch.channels_last)  # convolutions on a processor are faster so

    def load_encoder(self, file: Path | str = "", *, download: bool = True) -> "Stylization":
        """Give the encoder its weights, see `ctlib.models.style_encoders.load`; `from_pretrained` needs none of this.

        Raises:
            ValueError, MissingWeights, CheckpointError: see there.
        """
        found = style_encoders.load(self.encoder_name, file, download=download)
        self.encoder.load_state_dict(found.state_dict())
        return self

    def encode(self, rgb: Tensor, adapt: Adapt | None = None) -> Encoded:
        """Features of `(B, 3, H, W)` sRGB in [0, 1], with or without AdaIN on the way."""
        return encode(self.encoder, rgb, adapt)

    def reconstruct(self, rgb: Tensor) -> Tensor:
        """A picture through encoder and decoder, without AdaIN: what the decoder is trained to make of it."""
        return self.decoder(self.encode(rgb))[0]

    def style(self, reference: Tensor) -> Style:
        """What is kept of a reference `(B, 3, h, w)`: it goes through the whole network without AdaIN."""
        encoded = self.encode(reference)
        return Style(encoded, self.decoder.features(encoded))

    def forward(
        self,
        rgb: Tensor,
        reference: Tensor | Style,
        labels: Guide | None = None,
        *,
        sites: Sequence[str] = PAPER,
        alpha: float = 1.0,
    ) -> Tensor:
        """Pictures in the colors of references.

        Args:
            rgb: `(B, 3, H, W)` sRGB in [0, 1], sides that 8 divides.
            reference: `(B or 1, 3, h, w)`, the same, of another size perhaps; or its `style`.
            labels: of one picture and its reference, see `ctlib.segment.guides.guide`.
            sites: where AdaIN acts, some of `SITES`.
            alpha: how much of it, 0 to 1.

        Returns:
            `(B, 3, H, W)` sRGB, not clamped.

        Raises:
            ValueError: sides that do not fit, unknown sites or none, or an alpha out of range.
        """
        sites = sites_of(sites)
        check_sides(rgb, "rgb", self.encoder)
        if not isinstance(reference, Style):
            check_sides(reference, "reference", self.encoder)
            reference = self.style(reference)
        to = normalizer(labels, number("alpha", alpha, 1))
        own, style = reference.encoded, reference

        encoded = self.encode(rgb, (lambda level, x: to(x, own.levels[level - 1])) if "encoder" in sites else None)
        if "skip" in sites:
            encoded = encoded._replace(pools=tuple(map(to, encoded.pools, own.pools)))
        if "encoder" not in sites and {"decoder", "deepest"} & set(sites):
            encoded = encoded._replace(levels=(*encoded.levels[:-1], to(encoded.levels[-1], own.levels[-1])))
        adapt = (lambda level, x: to(x, style.decoded[level - 1])) if "decoder" in sites else None
        return self.decoder(encoded, adapt)[0]

    @torch.no_grad()
    def recolor(
        self,
        rgb: Tensor,
        reference: Tensor,
        *,
        labels: tuple[Tensor, Tensor] | None = None,
        sites: Sequence[str] = PAPER,
        alpha: float = 1.0,
        side: int = 256,
    ) -> Tensor:
        r"""Pictures of any size: their L\* with the a and b that the network gives them.

        Args:
            rgb: `(B, 3, H, W)` sRGB in [0, 1].
            reference: `(B or 1, 3, H', W')` sRGB in [0, 1], at least 32 pixels a side, in color.
            labels: of one picture and its reference, `(H, W)` and `(H', W')` whole numbers, the same number for what
                belongs together; see `ctlib.segment.guides.guide`.
            sites, alpha: of `forward`.
            side: the network sees about side x side pixels of each.

        Returns:
            `(B, 3, H, W)` sRGB in [0, 1] with the lightness of `rgb`.

        Raises:
            ValueError: wrong input; the message names what and the remedy.
        """
        return recolored(self, rgb, reference, labels, side, sites=sites, alpha=alpha)


@torch.no_grad()
def recolored(
    network: nn.Module, rgb: Tensor, reference: Tensor, labels, side: int, *, lenient: bool = False, **options
) -> Tensor:
    """`recolor` of a network that takes a picture, a reference and a guide; `lenient` as in `ctlib.chroma.lender`."""
    check.rgb(rgb, "rgb")
    chroma.lender(reference, len(rgb), lenient=lenient)
    found = None if labels is None else guide(labels, rgb, reference)
    place = next(network.parameters())
    small = [scaled(picture.to(place), side) for picture in (rgb, reference)]
    result = network(*small, None if found is None else found.to(place.device), **options).clamp(0, 1)
    lightness = chroma.lightness(rgb)
    return chroma.shown(lightness, ops.rgb_to_lab(result)[:, 1:].to(rgb)).to(rgb)


def encode(encoder: Pyramid, rgb: Tensor, adapt: Adapt | None = None) -> Encoded:
    """Features of `(B, 3, H, W)` sRGB at all scales, with or without AdaIN on the way."""
    below = list(enumerate(encoder.counts[:-1], 1))
    names = (
        tuple(f"relu{level}_1" for level in range(1, len(encoder.counts) + 1)),
        tuple(f"relu{level}_{count}" for level, count in below),
        tuple(f"pool{level}" for level, _ in below),
    )
    found = encoder(rgb, sum(names, ()), adapt)
    return Encoded(*(tuple(found[name] for name in group) for group in names))


def normalizer(labels: Guide | None, alpha: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
    """AdaIN of features toward others, in regions if there are any."""
    if labels is None:
        return lambda x, y: ops.adain(x, y, alpha=alpha)
    return lambda x, y: ops.adain(x, y, labels.source, labels.reference, num_labels=labels.count, alpha=alpha)


def sites_of(sites: Sequence[str]) -> tuple[str, ...]:
    """The sites in a fixed order. Raises `ValueError` for unknown ones or none."""
    given = (sites,) if isinstance(sites, str) or not isinstance(sites, Sequence) else tuple(sites)
    if not given or any(site not in SITES for site in given):
        raise ValueError(f"sites: expected some of {', '.join(SITES)}, got {sites!r}")
    return tuple(site for site in SITES if site in given)


def check_sides(rgb: Tensor, name: str, encoder: Pyramid) -> None:
    """Raise `ValueError` unless all scales of an encoder divide the sides of a picture."""
    multiple = 2 ** (len(encoder.counts) - 1)
    if rgb.ndim != 4 or rgb.shape[1] != 3 or any(length % multiple for length in rgb.shape[2:]):
        raise ValueError(
            f"{name}: expected (B, 3, H, W) with sides that {multiple} divides, got {tuple(rgb.shape)}; "
            "recolor takes any size"
        )


def scaled(rgb: Tensor, side: int) -> Tensor:
    """A picture as the network sees it, about side x side pixels of its shape."""
    whole("side", side, 32)
    return chroma.resize(rgb, chroma.network_size(*rgb.shape[2:], side, MULTIPLE)).clamp(0, 1)


def enlarging(conv: nn.Conv2d, coarse: Tensor, fine: Tensor) -> Tensor:
    """A 3 x 3 convolution of what is coarse, at twice the sides by the nearest neighbor, and of what is fine.

    Nothing is enlarged for it. Three neighbors in an enlarged row are one pixel and twice the next, or the other way
    round, so that each of four outputs sees 2 x 2 coarse pixels through summed weights: 4 products instead of 9.

    Args:
        conv: of `C + c` channels, reflecting at the borders, which repeats those of `coarse`.
        coarse: `(B, C, h, w)`. fine: `(B, c, 2h, 2w)`.
    """
    wide = coarse.shape[1]
    pairs = conv.weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])  # even and odd places, pixel, tap
    weight = torch.einsum("pak,qbl,oikl->pqoiab", pairs, pairs, conv.weight[:, :wide]).flatten(0, 2)
    found = functional.conv2d(functional.pad(coarse, (1, 1, 1, 1), mode="replicate"), weight)
    (height, width), found = coarse.shape[2:], found.unflatten(1, (2, 2, -1))
    result = functional.conv2d(functional.pad(fine, (1, 1, 1, 1), mode="reflect"), conv.weight[:, wide:], conv.bias)
    for p, q in itertools.product((0, 1), (0, 1)):
        result[..., p::2, q::2] += found[:, p, q, :, p : p + height, q : q + width]
    return result


@torch.no_grad()
def begin_near_gray(head: nn.Conv2d) -> nn.Conv2d:
    """Let a new decoder say about gray, which saves a short training the way there."""
    head.weight.mul_(0.1)
    head.bias.fill_(0.5)
    return head


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
