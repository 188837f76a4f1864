r"""Colorization with hints of a user (Zhang et al. 2017): a network that sees L\* and what is known of the colors.

With local hints it sees colors at places and a mask of the places; with global hints a histogram and a saturation,
which are added to its innermost features. The trunk is that of `ctlib.models.zhang2016` but for what happens between
blocks: every second pixel is taken instead of a stride, and the way back up has shortcuts, added before the ReLU. Two
heads: a and b at full size, and how probable each of 529 bins is, at a quarter of the sides, for a user to choose from.

**Two traps.** The mask is shifted by `mask_cent` before the network sees it: 0 in the released weights, which were
converted from Caffe, and 0.5 in networks that the authors' PyTorch re-implementation trains; the wrong one ruins the
result. And the bins are numbered with a in front, see `CLASSES`: a table made by a mesh grid whose first axis runs
fastest, as in one of the authors' programs, swaps a and b.

Layers and their names are those of the released network, so that its weights load by name.

Source: Zhang, Zhu, Isola, Geng, Lin, Yu, Efros, Real-Time User-Guided Image Colorization with Learned Deep Priors,
SIGGRAPH 2017.
Taught in: notebooks/42_user_guided_colorization.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ctlib import check
from ctlib.checkpoints import Pretrained
from ctlib.hints import GLOBAL, Hints, checked, none_like, resized
from ctlib.hints import spread as spread_hints
from ctlib.models import official
from ctlib.models.zhang2016 import MULTIPLE, block, channels, colorized, extended, lightness_of, start

HintKind = Literal["local", "global"]
HINTS = ("local", "global")
SCALE = 110.0  # of a and b
SIDE = 23  # bins along a and along b, -110, -100 .. 110

_LINE = torch.arange(-110.0, 111.0, 10.0)
#: The 529 bin centers `(a, b)`, float32 `(529, 2)`: by rising a, then rising b, so that entry 1 is (-110, -100).
CLASSES = torch.cartesian_prod(_LINE, _LINE)


class Zhang2017(nn.Module, Pretrained):
    r"""L\* and hints to a and b. All options are plain values.

    Args:
        hints: `"local"`, colors at places, or `"global"`, a histogram and a saturation of the whole picture.
        width: factor on the channels; at 1 local hints have 34,187,027 parameters, of which 135,953 are the head of
            bins.
        mask_cent: what is taken off the mask, see the head of this file. Global hints have no mask.
        init: `"normal"`, N(0, 0.02) as in the re-implementation, or `"he"` (Kaiming's).

    Raises:
        ValueError: an option out of its range.
    """

    #: what a file of weights does not say
    UNTOLD: ClassVar = {
        "mask_cent": "0 for the converted original weights, 0.5 for networks of the PyTorch re-implementation"
    }

    def __init__(self, hints: HintKind = "local", width: float = 1.0, mask_cent: float = 0.5, init: str = "normal"):
        super().__init__()
        if hints not in HINTS:
            raise ValueError(f"hints: expected one of {', '.join(HINTS)}, got {hints!r}")
        if isinstance(mask_cent, bool) or mask_cent not in (0, 0.5):
            raise ValueError(f"mask_cent: {self.UNTOLD['mask_cent']}; got {mask_cent!r}")
        one, two, three, four = channels(width)
        self.hints, self.mask_cent = hints, float(mask_cent)
        self.model1 = block([4 if hints == "local" else 1, one, one])
        self.model2 = block([one, two, two])
        self.model3 = block([two, three, three, three])
        self.model4 = block([three, four, four, four])
        self.model5 = block([four] * 4, dilation=2)
        self.model6 = block([four] * 4, dilation=2)
        self.model7 = block([four] * 4)
        self.model8up = nn.Sequential(nn.ConvTranspose2d(four, three, 4, 2, 1))
        self.model3short8 = nn.Sequential(nn.Conv2d(three, three, 3, 1, 1))
        layers = [nn.ReLU(True), nn.Conv2d(three, three, 3, 1, 1), nn.ReLU(True), nn.Conv2d(three, three, 3, 1, 1)]
        self.model8 = nn.Sequential(*layers, nn.ReLU(True), nn.BatchNorm2d(three))
        self.model9up = nn.Sequential(nn.ConvTranspose2d(three, two, 4, 2, 1))
        self.model2short9 = nn.Sequential(nn.Conv2d(two, two, 3, 1, 1))
        self.model9 = nn.Sequential(nn.ReLU(True), nn.Conv2d(two, two, 3, 1, 1), nn.ReLU(True), nn.BatchNorm2d(two))
        self.model10up = nn.Sequential(nn.ConvTranspose2d(two, two, 4, 2, 1))
        self.model1short10 = nn.Sequential(nn.Conv2d(one, two, 3, 1, 1))
        self.model10 = nn.Sequential(nn.ReLU(True), nn.Conv2d(two, two, 3, 1, 1), nn.LeakyReLU(0.2, True))
        self.model_class = nn.Sequential(nn.Conv2d(three, len(CLASSES), 1))
        self.model_out = nn.Sequential(nn.Conv2d(two, 2, 1), nn.Tanh())
        if hints == "global":
            self.glob_conv1, self.s_conv1 = nn.Conv2d(314, four, 1), nn.Conv2d(2, four, 1)
            layers = [nn.ReLU(True), nn.BatchNorm2d(four)]
            for _ in range(3):
                layers += [nn.Conv2d(four, four, 1), nn.ReLU(True), nn.BatchNorm2d(four)]
            self.model_glob = nn.Sequential(*layers)
        start(self, init, [self.model_class[0], self.model_out[0]])

    def forward(
        self,
        lightness: Tensor,
        hints: Hints | Tensor | None = None,
        mask: Tensor | None = None,
        *,
        classification: bool | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Colors, and logits of the bins.

        Args:
            lightness: `(B, 1, H, W)` L\* in [0, 100], sides that 8 divides.
            hints: local: `Hints`, or their `ab (B, 2, H, W)` with `mask (B, 1, H, W)`; global: `(B, 316)` of
                `ctlib.hints.global_hints`. None for no hint.
            classification: which loss trains the trunk. True: that of the bins, and what the ab branch sees of conv8,
                conv2 and conv1 is detached. False: that of a and b, and the head of bins sees detached features. None:
                both.

        Returns:
            a and b `(B, 2, H, W)` in CIELAB units, within +-110; logits `(B, 529, H / 4, W / 4)`, see `CLASSES`.

        Raises:
            ValueError: other shapes, or hints of the other kind.
        """
        lightness_of(lightness)
        if lightness.shape[2] % MULTIPLE or lightness.shape[3] % MULTIPLE:
            raise ValueError(
                f"lightness: 8 must divide its sides, got {tuple(lightness.shape[2:])}; use ab or colorize"
            )
        first = (lightness - 50) / 100
        if self.hints == "local":
            ab, mask = self._local(lightness, hints, mask)
            first = torch.cat([first, ab / SCALE, mask - self.mask_cent], dim=1)
        conv1 = self.model1(first)
        conv2 = self.model2(conv1[:, :, ::2, ::2])
        conv3 = self.model3(conv2[:, :, ::2, ::2])
        deep = self.model4(conv3[:, :, ::2, ::2])
        if self.hints == "global":
            deep = deep + self._global(lightness, hints, mask)
        deep = self.model7(self.model6(self.model5(deep)))
        conv8 = self.model8(self.model8up(deep) + self.model3short8(conv3))
        logits = self._logits(conv8.detach() if classification is False else conv8)
        if classification:
            conv8, conv2, conv1 = conv8.detach(), conv2.detach(), conv1.detach()
        conv9 = self.model9(self.model9up(conv8) + self.model2short9(conv2))
        conv10 = self.model10(self.model10up(conv9) + self.model1short10(conv1))
        return SCALE * self.model_out(conv10), logits

    def _logits(self, conv8: Tensor) -> Tensor | None:
        return self.model_class(conv8)

    def ab(self, lightness: Tensor, hints: Hints | Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        r"""a and b `(B, 2, H, W)` in CIELAB units, of pictures with any sides; arguments as in `forward`.

        Sides that 8 does not divide are extended by their last row and column, without hints.
        """
        lightness_of(lightness)
        height, width = lightness.shape[2:]
        if self.hints == "local":
            hints, mask = (extended(part, "constant") for part in self._local(lightness, hints, mask))
        return self(extended(lightness), hints, mask)[0].float()[..., :height, :width]

    @torch.no_grad()
    def colorize(
        self, rgb: Tensor, *, hints: Hints | Tensor | None = None, side: int = 256, spread: bool = True
    ) -> Tensor:
        r"""Color pictures of any size, see `ctlib.chroma.colorize`.

        Args:
            rgb: `(B, 3, H, W)` sRGB in [0, 1], of which only the lightness counts.
            hints: local: `Hints` at the size of `rgb`, see `ctlib.hints.from_points`; global: `(B, 316)`.
            side: the network sees about side x side pixels.
            spread: whether local hints outvote it around them, see `ctlib.hints.spread`. The authors' program has
                nothing like it.

        Returns:
            `(B, 3, H, W)` sRGB in [0, 1] with the lightness of `rgb`.

        Raises:
            ValueError: wrong input; the message names what and the remedy.
        """
        check.rgb(rgb, "rgb")
        if self.hints == "local" and hints is not None:
            hints = checked(_pair(hints))
            if hints.ab.shape[2:] != rgb.shape[2:]:
                wanted = " and ".join(str(tuple(one.shape[2:])) for one in (hints.ab, rgb))
                raise ValueError(f"hints: their size is not that of the picture, {wanted}; see ctlib.hints.resized")

        def predict(lightness: Tensor) -> Tensor:
            if hints is None or self.hints == "global":
                return self.ab(lightness, None if hints is None else hints.to(lightness))
            small = self._local(lightness, resized(hints, lightness.shape[2:]), None)
            ab = self.ab(lightness, small)
            return spread_hints(lightness, ab, small) if spread else ab

        return colorized(self, rgb, side, predict)

    @torch.no_grad()
    def suggest(self, lightness: Tensor, hints: Hints | None = None, *, sharpness: float = 0.2) -> Tensor:
        """How probable each of `CLASSES` is, `(B, 529, H / 4, W / 4)`: what the authors' program offers a user.

        Args:
            sharpness: factor on the logits before the softmax; theirs is 0.2.
        """
        return (sharpness * self(lightness, hints)[1].float()).softmax(1)

    @classmethod
    def from_pretrained(cls, name, **options):
        """As that of `Pretrained`. Known beside: `"siggraph17"`, the authors' weights, and a `.pth` file like theirs.

        Args:
            options: for a `.pth` file those of the network; `mask_cent` has to be among them.
        """
        if official.is_official(name):
            return official.load(cls, name, "siggraph17", **options)
        return super().from_pretrained(name, **options)

    def _local(self, lightness: Tensor, hints, mask: Tensor | None) -> Hints:
        """Local hints in the shape of a picture."""
        if hints is None and mask is None:
            return none_like(lightness)
        found = _pair(hints, mask)
        if found.ab.shape[2:] != lightness.shape[2:] or len(found.ab) not in (1, len(lightness)):
            raise ValueError(
                f"hints: expected {tuple(lightness.shape[2:])} for {len(lightness)} pictures, got "
                f"{tuple(found.ab.shape)}; see ctlib.hints.resized"
            )
        return Hints(*(part.to(lightness).expand(len(lightness), -1, -1, -1) for part in found))

    def _global(self, lightness: Tensor, hints, mask: Tensor | None) -> Tensor:
        """What global hints add to the features of conv4: `(B, C, 1, 1)`."""
        if hints is None:
            hints = lightness.new_zeros(len(lightness), GLOBAL)
        shape = getattr(hints, "shape", None)
        if mask is not None or shape not in [(len(lightness), GLOBAL), (1, GLOBAL)]:
            found = type(hints).__name__ if shape is None else tuple(shape)
            raise ValueError(f"hints: this network takes global ones, (B, {GLOBAL}), got {found}")
        vector = hints.to(lightness).expand(len(lightness), -1)[:, :, None, None]
        return self.model_glob(self.glob_conv1(vector[:, :314]) + self.s_conv1(vector[:, 314:]))


def class_of(ab: Tensor) -> Tensor:
    """Which of `CLASSES` each color falls into: `(B, 2, H, W)` in CIELAB units to `(B, H, W)` int64."""
    place = ((ab + SCALE) / 10).round().clamp(0, SIDE - 1).long()
    return place[:, 0] * SIDE + place[:, 1]


def ab_of(index: Tensor) -> Tensor:
    """The center of each bin: `(B, H, W)` int64 to `(B, 2, H, W)` in CIELAB units."""
    rows = torch.div(index, SIDE, rounding_mode="floor")
    return torch.stack([rows, index - SIDE * rows], dim=1) * 10.0 - SCALE


def _pair(hints, mask: Tensor | None = None) -> Hints:
    """Local hints from a pair, or from colors and their mask.

    Raises:
        ValueError: one without the other, or other shapes.
    """
    ab, mask = hints if isinstance(hints, tuple) and mask is None else (hints, mask)
    if not all(isinstance(part, Tensor) and part.ndim == 4 and part.is_floating_point() for part in (ab, mask)):
        raise ValueError("hints: this network takes local ones, ab (B, 2, H, W) with a mask (B, 1, H, W)")
    if ab.shape[1] != 2 or mask.shape != (len(ab), 1, *ab.shape[2:]):
        raise ValueError(
            f"hints: expected (B, 2, H, W) and (B, 1, H, W), got {tuple(ab.shape)} and {tuple(mask.shape)}"
        )
    return Hints(ab, mask)
