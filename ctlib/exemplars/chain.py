r"""The chain of exemplar colorization (Xu et al. 2020): pre-colorize, transfer, sample, refine.

1. The colorization sub-net colors the target from its lightness alone, so that an encoder for pictures in color sees
   one.
2. The transfer sub-net gives that the colors of the reference. Only a and b are kept: coarse, with artifacts.
3. They are sampled at random places.
4. The colorization sub-net takes the samples for hints and colors the target once more.

What is not in the paper: a reference that looks unlike the target, when both are gray, is followed less, or not at all
(`trusted`); without it the chain colors anything after anything. The second link sees half the sides, since its colors
are only sampled (`shrink`), or is another one, `by="matching"`, which knows where in the reference a color stands.
After 4, samples speak once more for what is near them and as light (`ctlib.hints.spread`), since the network follows
them halfway, and what of the coarse map is finer than samples can say is added (`detail`). `PAPERS` are the options
without all that.

The target's L\* goes through unaltered; that is what keeps its structure. The authors' code does not wire this chain;
the order is the paper's, as retold. How many samples it takes is not known, so it is a parameter; the sampler is that
of Zhang et al. 2017, with places that are equally likely.

Source: Xu, Wang, Fang, Sheng, Zhang, Stylization-Based Architecture for Fast Deep Exemplar Colorization, CVPR 2020.
Taught in: notebooks/51_exemplar_colorization.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ctlib import check, chroma, hints, ops
from ctlib.exemplars.matching import compared, matched, weighed
from ctlib.hints import Hints
from ctlib.models.refinement import Refinement
from ctlib.models.stylization import MULTIPLE, PAPER, Stylization, scaled, sites_of
from ctlib.models.stylization_once import StylizationOnce
from ctlib.segment.guides import Guide, guide
from ctlib.settings import flag, number, whole

ALL = "all"
#: ways to coarse colors, the paper's transfer sub-net or correspondence of deep features, and their own options
WAYS = {"adain": ("sites", "alpha"), "matching": ("temperature",)}
SAMPLES = 100
KNOWN = "known"
#: by encoder, the likeness (`weighed`) up to which a reference is not followed, and from which on it is
TRUST = {"compact": (0.6, 0.63)}
# the next three were chosen on photographs of the part that validates
SHRINK = 2  # times smaller are the sides of what the transfer sees
DOUBT = 15.0  # how loud the sub-net is beside samples, in pixels of them, where they are spread
CELLS = 24  # a side: what is finer is detail
PAPERS = {"trust": None, "spread": False, "detail": False, "shrink": 1}  # options of `Exemplar.colorize`
PARTS = {"transfer": (Stylization, StylizationOnce), "refine": (Refinement,)}  # folders of a saved chain


class Steps(NamedTuple):
    """What each link made of the target, a and b `(B, 2, h, w)` in CIELAB units, and what was sampled."""

    precolored: Tensor
    coarse: Tensor
    hints: Hints
    refined: Tensor


class Exemplar(nn.Module):
    """Both networks and the chain of them.

    Args:
        transfer: puts a picture in the colors of a reference.
        refine: colors lightness, with hints or without.
    """

    def __init__(self, transfer: Stylization | StylizationOnce, refine: Refinement):
        super().__init__()
        self.transfer, self.refine = transfer, refine

    def forward(
        self,
        lightness: Tensor,
        reference: Tensor,
        labels: Guide | None = None,
        *,
        share: Tensor | None = None,
        samples: int | str = SAMPLES,
        seeds: Sequence[int] = (0,),
        by: str = "adain",
        spread: bool = True,
        detail: bool = True,
        shrink: int = SHRINK,
        **options,
    ) -> Steps:
        r"""The chain at the size of the networks.

        Args:
            lightness: `(B, 1, H, W)` L\* in [0, 100], sides that 8 divides.
            reference: `(B or 1, 3, h, w)` sRGB in [0, 1], the same, of another size perhaps.
            labels: of one target and its reference, see `ctlib.segment.guides.guide`.
            share: `(B,)`, how far each reference is followed, 0 to 1; all the way by default, see `followed`.
            samples: number of patches of 1 to 9 pixels a side whose coarse color is kept; 0 for none, which leaves
                the target as it was pre-colored; `"all"` for all pixels.
            seeds: of their places, one a target or one for all.
            by: one of `WAYS`: how colors get from the reference to the target.
            spread: whether the samples are spread over what the last link made.
            detail: whether what the coarse map has within a cell of a grid of 24 x 24 is added to that, as far as the
                reference is followed.
            shrink: how many times smaller the sides are of what the transfer sees, for `by="adain"`.
            options: of that way: `sites` and `alpha` of the transfer; `temperature` of the matching.

        Raises:
            ValueError: wrong input; the message names what and the remedy.
        """
        count_of(samples)
        flag("spread", spread), flag("detail", detail)
        if by not in WAYS:
            raise ValueError(f"by: expected one of {', '.join(WAYS)}, got {by!r}")
        takes = [name for name in WAYS[by] if name != "sites" or isinstance(self.transfer, Stylization)]
        if unknown := sorted(set(options) - set(takes)):
            raise ValueError(f"{by} has no option {unknown[0]!r}; it takes {', '.join(takes)}")
        whole("shrink", shrink, 1), number("alpha", options.get("alpha", 1), 1), sites_of(options.get("sites", PAPER))
        coarse = precolored = self.precolor(lightness)
        if share is None or share.any():  # else there is no need to look at the reference
            if by == "adain":
                coarse = self.coarse(lightness, precolored, reference, labels, shrink=shrink, **options)
            else:
                likeness = compared(self.transfer.encoder, lightness, reference)
                coarse = chroma.resize(matched(likeness, reference, labels, **options), lightness.shape[2:])
            if share is not None:
                coarse = torch.lerp(precolored, coarse, share.to(coarse).view(-1, 1, 1, 1))
        given = sample(coarse, samples, seeds)
        refined = self.refined(lightness, coarse, given, share=share, spread=spread, detail=detail)
        return Steps(precolored, coarse, given, refined)

    def followed(self, lightness: Tensor, reference: Tensor, trust: tuple[float, float] | str | None) -> Tensor | None:
        r"""How far references are followed: `(B,)`, 0 to 1, by `trusted`; None without trust.

        Args:
            lightness, reference: of `forward`, of any size.
            trust: of `colorize`.

        Raises:
            ValueError: no bounds are known for the encoder, or something else than two rising numbers.
        """
        if trust is None:
            return None
        name = self.transfer.encoder_name
        if trust == KNOWN and name not in TRUST:
            raise ValueError(
                f"trust: bounds are known for encoder {', '.join(TRUST)}, not for {name}; "
                "give two numbers, or None to follow every reference"
            )
        bounds = TRUST[name] if trust == KNOWN else trust
        return trusted(weighed(self.transfer.encoder, lightness, reference), bounds)

    def precolor(self, lightness: Tensor) -> Tensor:
        """The first link: a and b `(B, 2, H, W)` of lightness alone, from an empty map and an empty mask."""
        return self.refine.ab(lightness)

    def coarse(
        self,
        lightness: Tensor,
        ab: Tensor,
        reference: Tensor,
        labels: Guide | None = None,
        *,
        shrink: int,
        **options,
    ) -> Tensor:
        r"""The second: the reference's colors on a colored target. Differentiable in the transfer.

        Args:
            lightness, reference, labels, shrink, options: of `forward`.
            ab: `(B, 2, H, W)` CIELAB units, of the target as it was pre-colored.

        Returns:
            a and b `(B, 2, H, W)` in CIELAB units.

        Raises:
            ValueError: sides that do not fit, unknown sites, or an option out of its range.
        """
        rgb, size = chroma.join(lightness, ab), lightness.shape[2:]
        if shrink > 1:
            rgb, reference = (
                scaled(one, max(32, round((one.shape[2] * one.shape[3]) ** 0.5 / shrink))) for one in (rgb, reference)
            )
        moved = self.transfer(rgb, reference, labels, **options)
        return chroma.resize(ops.rgb_to_lab(moved.float().clamp(0, 1))[:, 1:], size)

    def refined(
        self, lightness: Tensor, coarse: Tensor, given: Hints, *, share: Tensor | None, spread: bool, detail: bool
    ) -> Tensor:
        r"""The last: a and b of lightness and samples of the coarse map.

        Args:
            lightness: `(B, 1, H, W)` L\* in [0, 100].
            coarse: `(B, 2, H, W)` CIELAB units, of which `given` are the samples.
            share, spread, detail: of `forward`.

        Returns:
            `(B, 2, H, W)` CIELAB units; the coarse map itself where nothing is followed, which is what was pre-colored.
        """
        ab, size = self.refine.ab(lightness, given), coarse.shape[2:]
        far = torch.ones(len(ab)).to(ab) if share is None else share.to(ab)
        far = far.view(-1, 1, 1, 1)
        if spread:
            ab = hints.spread(lightness, ab, given, doubt=DOUBT)
        if detail and given.mask.any():  # without samples nothing is told of the reference
            smooth = chroma.resize(chroma.resize(coarse, chroma.network_size(*size, CELLS, 1)), size)
            ab = ab + far * (coarse - smooth)
        return torch.where(far > 0, ab, coarse)

    @torch.no_grad()
    def colorize(self, rgb: Tensor, reference: Tensor, **options) -> Tensor:
        r"""Color pictures of any size after a reference.

        Args:
            rgb: `(B, 3, H, W)` sRGB in [0, 1], of which only L\* counts.
            reference: `(B or 1, 3, H', W')` sRGB in [0, 1], at least 32 pixels a side, in color.
            labels: of one picture and its reference, `(H, W)` and `(H', W')` whole numbers, the same number for what
                belongs together; see `ctlib.segment.guides.guide`. None by default.
            side: the networks see about side x side pixels of each, 256 by default.
            seed: of the places that are sampled, the same for all pictures; 0 by default.
            trust: `"known"`, the default: a reference that looks unlike is followed less or not at all, by the bounds
                that are known for the encoder; two numbers, bounds of `trusted`; None follows every reference, as the
                paper does. With labels in common somebody has said what belongs together, and trust is not asked.
            options: of `forward`: `samples`, `by`, `spread`, `detail`, `shrink` and those of each way.

        Returns:
            `(B, 3, H, W)` sRGB in [0, 1] with the L\* of `rgb`; see `ctlib.chroma.shown`. A warning says if a reference
            is not followed at all.

        Raises:
            ValueError: wrong input; the message names what and the remedy.
        """
        lightness, made, share = self._made(rgb, reference, **options)
        if share is not None and not share.all():
            text = (
                "reference: it looks unlike the picture and is not followed; choose another, or trust=None follows it"
            )
            warnings.warn(text, chroma.NotFollowed, stacklevel=1)  # the caller's frame is one of torch's
        return chroma.shown(lightness, made.refined.to(lightness)).to(rgb)

    @torch.no_grad()
    def steps(self, rgb: Tensor, reference: Tensor, **options) -> dict[str, Tensor]:
        """What each link made of pictures of any size: `precolored`, `coarse`, `refined`, see `colorize`.

        `hints` is the fourth: the samples on the gray picture.
        """
        lightness, made, _ = self._made(rgb, reference, **options)
        shown = made._asdict() | {"hints": made.hints.ab}
        return {name: chroma.shown(lightness, ab.to(lightness)).to(rgb) for name, ab in shown.items()}

    def _made(
        self,
        rgb: Tensor,
        reference: Tensor,
        *,
        labels: tuple[Tensor, Tensor] | None = None,
        side: int = 256,
        seed: int = 0,
        trust: tuple[float, float] | str | None = KNOWN,
        **options,
    ) -> tuple[Tensor, Steps, Tensor | None]:
        r"""L\* of pictures of any size, what each link made of them, and how far each reference was followed."""
        check.rgb(rgb, "rgb")
        chroma.lender(reference, len(rgb))
        whole("side", side, 32), whole("seed", seed, 0)
        found = None if labels is None else guide(labels, rgb, reference)
        place = next(self.parameters())
        lightness, lender = chroma.lightness(rgb), reference.to(place)
        share = self.followed(lightness.to(place), lender, trust) if found is None else None
        small = chroma.resize(lightness.to(place), chroma.network_size(*rgb.shape[2:], side, MULTIPLE))
        guided = None if found is None else found.to(place.device)
        made = self(small, scaled(lender, side), guided, share=share, seeds=[seed], **options)
        return lightness, made, share

    def save_pretrained(self, folder: Path | str, **options) -> Path:
        """Both networks, each in a folder of its own: `transfer` and `refine`."""
        for part in PARTS:
            getattr(self, part).save_pretrained(Path(folder) / part, **options)
        return Path(folder)

    @classmethod
    def from_pretrained(cls, transfer: Path | str, refine: Path | str = "", *, once: bool = False) -> "Exemplar":
        """The chain of trained networks, in evaluation mode.

        Args:
            transfer: folder that `save_pretrained` wrote; or, with `refine`, weights of the transfer sub-net alone.
            refine: weights of the colorization sub-net.
            once: whether the transfer sub-net is the student's, `ctlib.models.stylization_once`.

        Raises:
            CheckpointError: no such weights, or damaged ones.
        """
        kind = PARTS["transfer"][once]
        if not refine:
            transfer, refine = (str(Path(transfer) / part) for part in PARTS)
        return cls(kind.from_pretrained(transfer), Refinement.from_pretrained(refine)).eval()


def trusted(likeness: Tensor, bounds: tuple[float, float] = TRUST["compact"]) -> Tensor:
    """How far a reference is followed, 0 to 1, by how much it looks like the target, both of them gray.

    Args:
        likeness: `(B,)`, see `ctlib.exemplars.matching.weighed`.
        bounds: up to the first a reference is not followed, from the second on it is.

    Raises:
        ValueError: bounds that do not rise.
    """
    try:
        none, full = map(float, bounds)
        rising = none < full
    except (TypeError, ValueError):
        rising = False
    if not rising:
        raise ValueError(f"trust: expected two rising numbers, got {bounds!r}")
    return ((likeness - none) / (full - none)).clamp(0, 1)


def sample(coarse: Tensor, samples: int | str, seeds: Sequence[int]) -> Hints:
    """Hints from a coarse map of colors `(B, 2, H, W)`, see `Exemplar.forward`; no gradient goes through them."""
    if count_of(samples) is None:
        return Hints(coarse.detach().clone(), torch.ones_like(coarse[:, :1]))
    seeds = list(seeds) * len(coarse) if len(seeds) == 1 else seeds
    return hints.fixed(coarse.detach(), samples, seeds, None, law="uniform")


def count_of(samples: int | str) -> int | None:
    """A number of samples, or None for all. Raises `ValueError` for anything else."""
    if samples == ALL:
        return None
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 0:
        raise ValueError(f"samples: expected a whole number of at least 0, or {ALL!r}, got {samples!r}")
    return samples
