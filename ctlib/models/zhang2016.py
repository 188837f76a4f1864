r"""Colorization as classification (Zhang, Isola and Efros 2016): for each pixel, how probable each of 313 colors is.

A network of convolutions that sees L\* alone. Three strides bring it to an eighth of the sides, two blocks with
dilated convolutions widen what a pixel sees, and the head says at a quarter of the sides how probable each bin of
`ctlib.ops.AB_BINS` is. Which color is then painted is a choice of its own: the mean of the distribution is dull, its
mode jumps from one bin to another, and the annealed mean stands between the two, see `ctlib.ops.annealed_mean`.

Layers and their names are those of the authors' released second version, so that its weights load by name. Training
differs in data and length only, see `ctlib.recipes.zhang2016`.

Source: Zhang, Isola, Efros, Colorful Image Colorization, ECCV 2016; section 3, equations 2 to 5.
Taught in: notebooks/41_classification_colorization.
"""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctlib import check, chroma, ops
from ctlib.checkpoints import Pretrained
from ctlib.models import official

BINS = len(ops.AB_BINS)
MULTIPLE = 8  # sides that the network takes: it halves three times and doubles once
TEMPERATURE = 0.38
INITS = ("he", "normal")


class Zhang2016(nn.Module, Pretrained):
    r"""L\* to a distribution over 313 colors. All options are plain values.

    Args:
        width: factor on the channels, which are 64, 128, 256 and 512 at 1: 32,236,011 parameters. 0.125 to 0.5 train
            on a CPU. Rounded to whole channels, at least 4.
        folded: temperature that the logits were divided by when the network was made. 1 for networks trained here. The
            released PyTorch weights are used without a temperature where the authors' Caffe network divides by 0.3837
            (it multiplies by 2.606): so it must be in their last layer. This is inferred, no one says it.
        init: `"he"` (Kaiming's) or `"normal"`, N(0, 0.02), as the authors' later network begins.

    Raises:
        ValueError: an option out of its range.
    """

    #: what a file of weights does not say
    UNTOLD: ClassVar = {"folded": "1 / 2.606 for the authors' released weights, 1 for networks trained here"}

    def __init__(self, width: float = 1.0, folded: float = 1.0, init: str = "he"):
        super().__init__()
        one, two, three, four = channels(width)
        if isinstance(folded, bool) or not isinstance(folded, int | float) or not 0 < folded <= 1:
            raise ValueError(f"folded: expected a temperature above 0, at most 1, got {folded!r}")
        self.folded = float(folded)
        self.model1 = block([1, one, one], stride=2)
        self.model2 = block([one, two, two], stride=2)
        self.model3 = block([two, three, three, three], stride=2)
        self.model4 = block([three, four, four, four])
        self.model5 = block([four] * 4, dilation=2)
        self.model6 = block([four] * 4, dilation=2)
        self.model7 = block([four] * 4)
        self.model8 = nn.Sequential(
            *(nn.ConvTranspose2d(four, three, 4, 2, 1), nn.ReLU(True)),
            *(nn.Conv2d(three, three, 3, 1, 1), nn.ReLU(True), nn.Conv2d(three, three, 3, 1, 1), nn.ReLU(True)),
            nn.Conv2d(three, BINS, 1),
        )
        self.model_out = nn.Conv2d(BINS, 2, 1, bias=False)
        start(self, init, [self.model8[-1]])
        with torch.no_grad():
            self.model_out.weight.copy_(ops.AB_BINS.mT[:, :, None, None] / 110)
        self.model_out.requires_grad_(False)  # a table, no layer: no loss reaches it

    def forward(self, lightness: Tensor) -> Tensor:
        r"""Logits of the bins, in the order of `ctlib.ops.AB_BINS`.

        Args:
            lightness: `(B, 1, H, W)` L\* in [0, 100], sides that 8 divides.

        Returns:
            `(B, 313, H / 4, W / 4)`.

        Raises:
            ValueError: another shape.
        """
        lightness_of(lightness)
        if lightness.shape[2] % MULTIPLE or lightness.shape[3] % MULTIPLE:
            raise ValueError(
                f"lightness: 8 must divide its sides, got {tuple(lightness.shape[2:])}; use ab or colorize"
            )
        features = (lightness - 50) / 100
        for number in range(1, 9):
            features = getattr(self, f"model{number}")(features)
        return features

    def ab(self, lightness: Tensor, temperature: float | None = TEMPERATURE) -> Tensor:
        r"""a and b by the annealed mean.

        Args:
            lightness: `(B, 1, H, W)` L\* in [0, 100], any sides: they are extended by their last row and column.
            temperature: T of equation 5. Towards 0 the mode, 1 the mean; the paper takes 0.38. None decodes as the
                released network does: softmax of the logits as they are, then `model_out`.

        Returns:
            `(B, 2, H / 4, W / 4)` CIELAB units, rounded up.
        """
        lightness_of(lightness)
        height, width = lightness.shape[2:]
        logits = self(extended(lightness)).float()
        if temperature is None:
            found = 110 * functional.conv2d(logits.softmax(1), self.model_out.weight.float())
        else:
            found = ops.annealed_mean(logits, temperature / self.folded)
        return found[..., : -(-height // 4), : -(-width // 4)]

    @torch.no_grad()
    def colorize(self, rgb: Tensor, *, temperature: float | None = TEMPERATURE, side: int = 256) -> Tensor:
        r"""Color pictures of any size, see `ctlib.chroma.colorize`.

        Args:
            rgb: `(B, 3, H, W)` sRGB in [0, 1], of which only the lightness counts.
            temperature: of `ab`. side: the network sees about side x side pixels.

        Returns:
            `(B, 3, H, W)` sRGB in [0, 1] with the lightness of `rgb`.

        Raises:
            ValueError: wrong input; the message names what and the remedy.
        """
        return colorized(self, rgb, side, lambda lightness: self.ab(lightness, temperature))

    @classmethod
    def from_pretrained(cls, name, **options):
        """As that of `Pretrained`. Known beside: `"eccv16"`, the authors' weights, and a `.pth` file like theirs.

        Args:
            options: for a `.pth` file those of the network; `folded` has to be among them.
        """
        if official.is_official(name):
            return official.load(cls, name, "eccv16", **options)
        return super().from_pretrained(name, **options)


def channels(width: float) -> list[int]:
    """The four widths of the trunk under a factor.

    Raises:
        ValueError: no number above 0, or above 4.
    """
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width <= 4:
        raise ValueError(f"width: expected a factor above 0, at most 4, got {width!r}; 1 is the published network")
    return [max(4, round(width * one)) for one in (64, 128, 256, 512)]


def block(widths: list[int], stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolutions 3 x 3 from each width to the next, each with a ReLU, the last with the stride; then a BatchNorm."""
    layers = []
    for place, (inputs, outputs) in enumerate(pairwise(widths), 2):
        step = stride if place == len(widths) else 1
        layers += [nn.Conv2d(inputs, outputs, 3, step, dilation, dilation), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.BatchNorm2d(widths[-1]))


def start(network: nn.Module, init: str, heads: list[nn.Module]) -> None:
    """Weights to begin a training with; no bias; heads N(0, 0.02) in any case, so that they claim nothing yet.

    Channels lie last in memory: on a CPU a training step is faster by a sixth.
    """
    network.to(memory_format=torch.channels_last)
    if init not in INITS:
        raise ValueError(f"init: expected one of {', '.join(INITS)}, got {init!r}")
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        if init == "normal" or module in heads:
            nn.init.normal_(module.weight, 0.0, 0.02)
        else:
            # a transposed convolution of stride 2 adds up a quarter of its weights at each place
            inputs = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            inputs /= 1 if isinstance(module, nn.Conv2d) else module.stride[0] * module.stride[1]
            nn.init.normal_(module.weight, 0.0, (2 / inputs) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def lightness_of(lightness: Tensor) -> Tensor:
    r"""Return `lightness` if it is `(B, 1, H, W)` float; else a `ValueError` that names the remedy."""
    if not isinstance(lightness, Tensor) or not lightness.is_floating_point():
        found = lightness.dtype if isinstance(lightness, Tensor) else type(lightness).__name__
        raise ValueError(f"lightness: expected a float tensor, got {found}; see ctlib.chroma.lightness")
    if lightness.ndim != 4 or lightness.shape[1] != 1 or 0 in lightness.shape:
        raise ValueError(
            f"lightness: expected L* (B, 1, H, W), got {tuple(lightness.shape)}; see ctlib.chroma.lightness"
        )
    return lightness


def extended(picture: Tensor, mode: str = "replicate") -> Tensor:
    """`(B, C, H, W)` with rows and columns added below and right until 8 divides the sides."""
    below, right = (-side % MULTIPLE for side in picture.shape[2:])
    return functional.pad(picture, (0, right, 0, below), mode=mode) if below or right else picture


def colorized(network: nn.Module, rgb: Tensor, side: int, predict) -> Tensor:
    """`ctlib.chroma.colorize` in float32 on the device of the network, back in the type and place of `rgb`."""
    check.rgb(rgb, "rgb")
    device = next(network.parameters()).device
    return chroma.colorize(predict, rgb.to(device, torch.float32), side, multiple=MULTIPLE).to(rgb)
