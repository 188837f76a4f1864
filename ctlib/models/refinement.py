r"""The colorization sub-net of exemplar colorization (Xu et al. 2020): L\* and sampled colors to a and b everywhere.

It is the network of Zhang et al. 2017 with local hints, ten blocks and a 1 x 1 convolution, without the head of bins:
34,051,074 parameters at full width. Where the hints are those that a user would give there, here they are taken from
the coarse colors that the transfer sub-net gives; without any it colors from its own experience, which is how the
chain `ctlib.exemplars.chain` begins.

Source: Xu, Wang, Fang, Sheng, Zhang, Stylization-Based Architecture for Fast Deep Exemplar Colorization, CVPR 2020;
the network: Zhang et al., SIGGRAPH 2017.
Taught in: notebooks/51_exemplar_colorization.
"""

import torch
from torch import Tensor

from ctlib.hints import Hints
from ctlib.models.zhang2017 import Zhang2017

BLOCKS = (4, 10)


class Refinement(Zhang2017):
    """The network. All options are plain values.

    Args:
        width, mask_cent, init: of `ctlib.models.zhang2017.Zhang2017`; the mask is 0 and 1 as the paper has it.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(self, width: float = 1.0, mask_cent: float = 0, init: str = "normal"):
        super().__init__("local", width, mask_cent, init)
        del self.model_class

    def forward(
        self, lightness: Tensor, hints: Hints | Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        r"""Colors; None stands where `Zhang2017` has logits.

        Args:
            lightness: `(B, 1, H, W)` L\* in [0, 100], sides that 8 divides.
            hints: `Hints`, or their `ab (B, 2, H, W)` with `mask (B, 1, H, W)`; None for no hint.

        Returns:
            a and b `(B, 2, H, W)` in CIELAB units, within +-110; None.

        Raises:
            ValueError: other shapes.
        """
        return super().forward(lightness, hints, mask)

    def _logits(self, _: Tensor) -> None:
        return None

    def suggest(self, *_, **__):
        """Not here. Raises `ValueError`: this network has no head of bins."""
        raise ValueError("suggest: this network has no head of bins; take Zhang2017")

    @torch.no_grad()
    def begin_from(self, other: Zhang2017, blocks: int = 10) -> "Refinement":
        """Take the weights of a trained network of Zhang 2017.

        Args:
            other: with local hints, of the same width and `mask_cent`.
            blocks: the first 4, as the paper does, or all 10 with the head, as the student does.

        Raises:
            ValueError: another number of blocks, or a network that differs in more than the head of bins.
        """
        if blocks not in BLOCKS:
            raise ValueError(f"blocks: expected 4, the paper's, or 10, all of them, got {blocks!r}")
        own, found = self.state_dict(), other.state_dict()
        if other.hints != "local" or any(found[name].shape != value.shape for name, value in own.items()):
            raise ValueError("begin: expected a network with local hints and of the same width")
        if other.mask_cent != self.mask_cent:
            raise ValueError(f"mask_cent: {self.mask_cent:g}, but the weights were trained with {other.mask_cent:g}")
        heads = tuple(f"model{number}." for number in range(1, blocks + 1))
        chosen = {name: found[name] for name in own if blocks == 10 or name.startswith(heads)}
        self.load_state_dict(own | chosen)
        return self

    @classmethod
    def from_pretrained(cls, name, **options):
        """As `Pretrained`'s; an official file is of `Zhang2017`, see `begin_from`."""
        return super(Zhang2017, cls).from_pretrained(name, **options)
