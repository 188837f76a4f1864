"""The chain with one thing changed: where AdaIN acts, and what the encoder sees. For ablations.

Taught in: notebooks/61_ablate_adain.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache, partial

import torch
from torch import Tensor

from ctlib.exemplars.chain import PAPERS, Exemplar
from ctlib.models.stylization import PAPER
from ctlib.models.stylization_once import StylizationOnce

COARSE, FULL = "transfer only", "full chain"
LINKS = {COARSE: "coarse", FULL: "refined"}  # how results are called, and the link of `Exemplar.steps` they are from
BOTH = "encoder + decoder"
ONCE, STUDENT, GRAY = "once", "the student's once", "gray picture"
SITES = {
    "encoder": ("encoder",),
    "decoder": ("decoder",),
    BOTH: PAPER,
    f"{BOTH} + skip": (*PAPER, "skip"),
    ONCE: ("deepest",),
}

Way = Callable[..., dict[str, Tensor]]  # of a picture, a reference and options, see `Exemplar.steps`


class GrayFirst(Exemplar):
    """The chain without its first link: the transfer sub-net's encoder, made for color, sees the gray picture.

    The paper's own ablation, as retold, has an encoder for gray pictures there.
    """

    def precolor(self, lightness: Tensor) -> Tensor:
        """No color: `(B, 2, H, W)`."""
        return torch.zeros_like(lightness).expand(-1, 2, -1, -1)


def with_norms(chain: Exemplar, other: Exemplar) -> Exemplar:
    """A copy of a chain whose colorization sub-net has the running statistics of another's.

    Raises:
        ValueError: sub-nets of different widths.
    """
    copy, own = deepcopy(chain), chain.refine.state_dict()
    kept = {key: value for key, value in other.refine.state_dict().items() if "running" in key}
    if any(value.shape != own[key].shape for key, value in kept.items()):
        raise ValueError("other: its colorization sub-net has another width; take one of the same")
    copy.refine.load_state_dict(kept, strict=False)
    return copy


def remembered(chain: Exemplar, **options) -> Way:
    """`Exemplar.steps` with some options, run once for the methods that share it.

    Pictures are told apart by who they are, not by their pixels.
    """

    @lru_cache(maxsize=16)
    def steps(rgb: Tensor, reference: Tensor, **more) -> dict[str, Tensor]:
        return chain.steps(rgb, reference, **options | more)

    return steps


def variants(chain: Exemplar, student: StylizationOnce | None = None, **options) -> dict[str, Way]:
    """A chain with AdaIN at each choice of sites, and one whose encoder sees the gray picture.

    They have nothing that the paper has not, see `PAPERS`, so that nothing but the place differs; see
    `ctlib.exemplars.chain`.

    Args:
        chain: trained.
        student: a transfer sub-net of its own kind, trained with AdaIN once.
        options: of `Exemplar.steps`, for all of them.

    Returns:
        By name: those of `SITES`, the student's if there is one, `"gray picture"`.
    """
    options, gray = PAPERS | options, GrayFirst(chain.transfer, chain.refine)
    found = {name: remembered(chain, sites=sites, **options) for name, sites in SITES.items()}
    if student is not None:
        found[STUDENT] = remembered(Exemplar(student, chain.refine).eval(), **options)
    return found | {GRAY: remembered(gray.eval(), **options)}


def by_link(chains: Mapping[str, Way]) -> dict[str, Callable[..., Tensor]]:
    """Two methods for each chain, `"transfer only, NAME"` and `"full chain, NAME"`; without a name the link's alone.

    They take a picture, a reference and perhaps label maps of both, see `ctlib.evaluate_exemplars.judge`.
    """
    return {
        f"{link}, {name}" if name else link: partial(_picture, steps, key)
        for name, steps in chains.items()
        for link, key in LINKS.items()
    }


def with_samples(chain: Exemplar, counts: Sequence[int | str], **options) -> dict[str, Callable[..., Tensor]]:
    """The full chain with more samples and fewer, `"full chain, N samples"`; with none it is the first link."""
    return {
        f"{FULL}, {count} samples": partial(_picture, remembered(chain, samples=count, **options), LINKS[FULL])
        for count in counts
    }


def _picture(steps: Way, key: str, rgb: Tensor, reference: Tensor, labels=None) -> Tensor:
    return steps(rgb, reference, **({} if labels is None else {"labels": labels}))[key]
