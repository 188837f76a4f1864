r"""The network of the loss study: an encoder at an eighth of the sides, a small decoder, RGB or a and b out.

It is that of "Image Colorization and Mood Transfer" (SaadManzur), a student project: ResNet-18 to its second stage for
a picture of one channel, and a decoder that enlarges three times. Two facts that its README does not tell: the ResNet
has random weights, and they are not trained. What the encoder sees is a fixed bank of random filters, of which only
the statistics of the norms move. That is `encoder="frozen-random"`; the others ask what ImageNet would have been worth:

- `"imagenet-frozen"`, `"imagenet-tuned"`: the same with torchvision's weights, kept or trained on.
- `"squeezenet-frozen"`, `"squeezenet-tuned"`: SqueezeNet 1.1 to its fourth fire module, whose file is 5 MB, not 45.
- `"squeezenet-frozen-random"`: the same with random weights, so that nothing but what it knows differs.

With `skips` the network becomes a U-Net: the encoder goes on to a 16th of the sides, and the decoder sees its finer
features too. That is not the study's, it is what we ship.

Source: github.com/SaadManzur/ImageColorization; He et al. 2016 (ResNet), Iandola et al. 2016 (SqueezeNet), Ronneberger
et al. 2015 (U-Net).
Taught in: notebooks/40_colorization_losses.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from ctlib import check, chroma, ops
from ctlib.checkpoints import Pretrained
from ctlib.models import imagenet
from ctlib.settings import whole

ENCODERS = (
    "frozen-random",
    "imagenet-frozen",
    "imagenet-tuned",
    "squeezenet-frozen-random",
    "squeezenet-frozen",
    "squeezenet-tuned",
)
OUTPUTS = ("rgb", "lab")
BN = ("moving", "fixed")
LUMA = (0.2989, 0.587, 0.114)  # of the study's gray pictures
_MEAN, _STD = 0.449, 0.226  # of ImageNet's, over its three channels


class ResnetColorizer(nn.Module, Pretrained):
    r"""A gray picture in, a colored one out.

    Its parameters: 676,800 in the encoder of a ResNet, 278,211 (RGB) or 277,922 (Lab) in the decoder, under the names
    of the study's checkpoints (`midlevel_resnet`, `upsample`). New networks have random weights: see `load_imagenet`.
    Unlike the study's they begin near gray, which saves a short training the way there.

    Args:
        output: `"rgb"`: the input is luma (0.2989 R + 0.587 G + 0.114 B), the output sRGB; `"lab"`: the input is L\*,
            the output a and b. Inside, gray is (x - 0.5) / 0.5 or L\* / 100, and the output is clamped to [-1, 1]: RGB
            as (x - 0.5) / 0.5, a and b as (ab + 128) / 256. All encoders but `"frozen-random"` see (x - 0.449) / 0.226.
        encoder: of `ENCODERS`. A frozen one has parameters that ask for no gradient.
        bn: whether the norms of a frozen encoder normalize by batches in training, and their statistics move
            (`"moving"`, as in the study), or everything in it is `"fixed"`. SqueezeNet has none.
        skips: make it a U-Net, see the head of this file.
        width: with `skips`, factor of the channels of the decoder.
        bug_compat: read a and b as the study does, code x 254 - 128; see `decode_ab`.

    Raises:
        ValueError: an unknown option; the message lists the known ones.
        RuntimeError: torchvision, whose encoders these are, is not installed.
    """

    def __init__(
        self,
        output: str = "rgb",
        encoder: str = "frozen-random",
        bn: str = "moving",
        skips: bool = False,
        width: float = 1.0,
        bug_compat: bool = False,
    ):
        super().__init__()
        for name, value, known in (
            ("output", output, OUTPUTS),
            ("encoder", encoder, ENCODERS),
            ("bn", bn, BN),
            ("skips", skips, (False, True)),
            ("bug_compat", bug_compat, (False, True)),
        ):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(map(str, known))}, got {value!r}")
        if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width <= 8:
            raise ValueError(f"width: expected a factor above 0, at most 8, got {width!r}")
        if width != 1 and not skips:
            raise ValueError(f"width: the decoder of the study has one width; set skips=True for {width!r}")
        self.output, self.encoder, self.bn, self.skips, self.bug_compat = output, encoder, bn, skips, bug_compat
        outputs = 3 if output == "rgb" else 2
        self.trunk_name = "squeezenet" if encoder.startswith("squeezenet") else "midlevel_resnet"
        make = _squeezenet if self.trunk_name == "squeezenet" else _resnet
        self.add_module(self.trunk_name, make(skips))
        self._frozen = "frozen" in encoder
        if self._frozen:
            self.trunk.requires_grad_(False)
        self._cuts = _CUTS[self.trunk_name]
        if skips:
            self.unet = _UNet(_CHANNELS[self.trunk_name], outputs, width)
            last = self.unet.head
        else:
            self.upsample = _decoder(_CHANNELS[self.trunk_name][2], outputs)
            last = self.upsample[14]
        with torch.no_grad():  # a new network says about gray; a and b need not come from 128 first
            last.weight.mul_(0.1)
            last.bias.fill_(0.0 if output == "rgb" else 0.5)

    @property
    def trunk(self) -> nn.Sequential:
        """The encoder."""
        return self.get_submodule(self.trunk_name)

    @property
    def random(self) -> bool:
        """Whether the encoder shall know nothing."""
        return self.encoder.endswith("random")

    @property
    def multiple(self) -> int:
        """What the sides of the network's input are multiples of."""
        return 16 if self.skips else 8

    def train(self, mode: bool = True) -> "ResnetColorizer":
        super().train(mode)
        if self._frozen and self.bn == "fixed":
            self.trunk.eval()
        return self

    def load_imagenet(self, file: Path | str = "", *, download: bool = True) -> "ResnetColorizer":
        """Give the encoder ImageNet's weights, the kernels of R, G and B added up; see `ctlib.models.imagenet`.

        `from_pretrained` needs none of this: the encoder is in the saved weights.

        Raises:
            ValueError: a random encoder takes none, or the file is of another network.
            MissingWeights, CheckpointError: see `ctlib.models.imagenet.weights`.
        """
        if self.random:
            raise ValueError(f"encoder: {self.encoder} has random weights; choose imagenet-... or squeezenet-...")
        squeeze = self.trunk_name == "squeezenet"
        name = "squeezenet1_1" if squeeze else "resnet18"
        found = imagenet.weights(name, file, download=download)
        if squeeze:
            found = {key.removeprefix("features."): value for key, value in found.items()}
        else:
            places = {one: str(place) for place, one in enumerate(_RESNET)}
            found = {places.get(key.partition(".")[0], "-") + "." + key.partition(".")[2]: value
                     for key, value in found.items()}  # fmt: skip
        own = self.trunk.state_dict()
        try:
            chosen = {key: found[key] for key in own if not key.endswith("num_batches_tracked")}
            chosen["0.weight"] = chosen["0.weight"].sum(1, keepdim=True)
            chosen |= {key: value for key, value in own.items() if key not in chosen}
            self.trunk.load_state_dict(chosen)
        except (KeyError, RuntimeError) as error:
            missing = isinstance(error, KeyError)
            reason = f"{error.args[0]} is missing" if missing else " ".join(str(error).split())[:160]
            raise ValueError(f"file: these are not torchvision's weights of {name} ({reason})") from error
        return self

    def forward(self, gray: Tensor) -> Tensor:
        r"""The code of a picture, what losses compare.

        Args:
            gray: `(B, 1, H, W)`, sides divisible by 8, with `skips` by 16; luma in [0, 1], or for Lab L\* in [0, 100].

        Returns:
            `(B, 3, H, W)` or `(B, 2, H, W)` in [-1, 1]; see `decode`.

        Raises:
            ValueError: another shape.
        """
        if gray.ndim != 4 or gray.shape[1] != 1 or not gray.numel() or any(n % self.multiple for n in gray.shape[2:]):
            raise ValueError(
                f"gray: expected (B, 1, H, W) with sides that {self.multiple} divides, got {tuple(gray.shape)}; "
                "colorize takes any size"
            )
        gray = gray.to(self.trunk[0].weight)
        unit = gray if self.output == "rgb" else gray / 100
        if self.encoder != "frozen-random":
            features = (unit - _MEAN) / _STD
        else:
            features = (unit - 0.5) / 0.5 if self.output == "rgb" else unit
        found = []
        for place, layer in enumerate(self.trunk):
            features = layer(features)
            if place in self._cuts:
                found.append(features)
        code = self.unet(found) if self.skips else self.upsample(features)
        return code.clamp(-1, 1)

    def encode(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is given of sRGB pictures `(B, 3, H, W)`, and the code that would be right."""
        if self.output == "rgb":
            luma = (rgb * rgb.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
            return luma, (rgb - 0.5) / 0.5
        lab = ops.rgb_to_lab(rgb)
        return lab[:, :1], (lab[:, 1:] + 128) / 256

    def decode(self, code: Tensor, lightness: Tensor | None = None) -> Tensor:
        r"""A code to sRGB `(B, 3, H, W)`, not clipped; Lab needs the L\* `(B, 1, H, W)` of the picture."""
        if self.output == "rgb":
            return 0.5 * code + 0.5
        return ops.lab_to_rgb(torch.cat([lightness, decode_ab(code, self.bug_compat)], dim=1))

    def ab(self, lightness: Tensor) -> Tensor:
        r"""L\* `(B, 1, h, w)` in [0, 100] to a and b `(B, 2, h, w)` in CIELAB units, whatever the output."""
        lightness = lightness.to(self.trunk[0].weight)
        if self.output == "lab":
            return decode_ab(self(lightness), self.bug_compat)
        neutral = torch.cat([lightness, lightness.new_zeros(len(lightness), 2, *lightness.shape[2:])], dim=1)
        gray = ops.lab_to_rgb(neutral)[:, 1:2]
        return ops.rgb_to_lab(self.decode(self(gray.clamp(0, 1))).clamp(0, 1))[:, 1:]

    @torch.no_grad()
    def colorize(self, rgb: Tensor, side: int = 256, saturation: float = 1.0) -> Tensor:
        r"""Color pictures of any size: `(B, 3, H, W)` sRGB in [0, 1], of which only L\* counts, to the same.

        Args:
            rgb: the pictures.
            side: the network sees about side x side pixels.
            saturation: factor of a and b, 0 to 2. PSNR asks for paler colors than the eye.

        Raises:
            ValueError: no sRGB pictures, a side that is too small, or a saturation out of range.
        """
        if isinstance(saturation, bool) or not isinstance(saturation, int | float) or not 0 <= saturation <= 2:
            raise ValueError(f"saturation: expected a factor of 0 to 2, got {saturation!r}")
        return chroma.colorize(lambda lightness: saturation * self.ab(lightness), rgb, side, multiple=self.multiple)

    @torch.no_grad()
    def predict(self, rgb: Tensor, side: int = 256) -> Tensor:
        """What the network itself says, enlarged: as `colorize`, but RGB networks keep their own lightness."""
        if self.output == "lab":
            return self.colorize(rgb, side)
        check.rgb(rgb, "rgb")
        size = chroma.network_size(*rgb.shape[2:], whole("side", side, self.multiple), self.multiple)
        said = self.decode(self(chroma.resize(self.encode(rgb)[0], size)))
        return chroma.resize(said.to(rgb), rgb.shape[2:]).clamp(0, 1)


def decode_ab(code: Tensor, bug_compat: bool = False) -> Tensor:
    """(ab + 128) / 256 back to a and b in CIELAB units.

    With `bug_compat` as the study reads predictions and targets, code x 254 - 128: that is no inverse. Neutral 0
    becomes -1 in both, so that its results, and what it compares them with, are a little green and blue.
    """
    return code * (254 if bug_compat else 256) - 128


_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
#: places of layers whose output has 1/2, 1/4, 1/8 and 1/16 of the sides, and its channels
_CUTS = {"midlevel_resnet": (2, 4, 5, 6), "squeezenet": (1, 4, 7, 12)}
_CHANNELS = {"midlevel_resnet": (64, 64, 128, 256), "squeezenet": (64, 128, 256, 512)}


def _resnet(deep: bool) -> nn.Sequential:
    network = imagenet.architecture("resnet18", num_classes=100)
    layers = nn.Sequential(*list(network.children())[: 7 if deep else 6])
    layers[0] = _one_channel(layers[0], padding=3)
    return layers


def _squeezenet(deep: bool) -> nn.Sequential:
    layers = imagenet.architecture("squeezenet1_1").features[: 13 if deep else 8]
    layers[0] = _one_channel(layers[0], padding=1)  # torchvision pads with nothing, and sides would not be halves
    return layers


def _one_channel(conv: nn.Conv2d, padding: int) -> nn.Conv2d:
    """The kernels of R, G and B added up: what the three say of a gray picture."""
    options = {"stride": conv.stride, "padding": padding, "bias": conv.bias is not None}
    single = nn.Conv2d(1, conv.out_channels, conv.kernel_size, **options)
    with torch.no_grad():
        single.weight.copy_(conv.weight.sum(1, keepdim=True))
        if conv.bias is not None:
            single.bias.copy_(conv.bias)
    return single


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


def _decoder(inputs: int, outputs: int) -> nn.Sequential:
    """The study's: 1/8 of the sides to all of them."""
    double = nn.Upsample(scale_factor=2)  # nearest
    return nn.Sequential(
        *(*_block(inputs, 128), double),
        *(*_block(128, 64), *_block(64, 64), double),
        *(*_block(64, 32), nn.Conv2d(32, outputs, 3, padding=1), double),
    )


class _UNet(nn.Module):
    """Features at 1/2 to 1/16 of the sides, fine to coarse, to `outputs` channels at all of them."""

    def __init__(self, channels: tuple[int, ...], outputs: int, width: float):
        super().__init__()
        widths, inputs, steps = [max(8, round(width * own)) for own in (160, 96, 48, 32)], 0, []
        for skip, own in zip(channels[::-1], widths, strict=True):
            steps.append(nn.Sequential(*_block(inputs + skip, own), *_block(own, own)))
            inputs = own
        self.steps, self.head = nn.ModuleList(steps), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.grow = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, found: list[Tensor]) -> Tensor:
        features = None
        for step, skip in zip(self.steps, found[::-1], strict=True):
            features = step(skip if features is None else torch.cat([skip, self.grow(features)], dim=1))
        return self.grow(self.head(features))
