"""The transfer sub-net as a student built it after Xu et al. 2020: AdaIN once, and batch norms.

It differs from the paper's in two things: features are normalized at one place, between encoder and decoder; and the
decoder is made of units of convolution, BatchNorm and ReLU in four slices, each of which takes what comes up and, but
for the first, the last features of the encoder at its scale. How many units a slice has is not told; here the
deepest has one and the others two.

Source: a student's report on Xu et al. 2020, chapters 3 to 6.

Taught in: notebooks/50_train_transfer_subnet.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctlib.checkpoints import Pretrained
from ctlib.models import style_encoders
from ctlib.models.features import Pyramid
from ctlib.models.stylization import Encoded, begin_near_gray, check_sides, encode, normalizer, recolored
from ctlib.segment.guides import Guide
from ctlib.settings import number


class StylizationOnce(nn.Module, Pretrained):
    """Encoder, AdaIN, decoder with norms. A new network knows nothing: see `load_encoder`.

    Args:
        encoder: of `ctlib.models.style_encoders.ENCODERS`; the student's is `"vgg19"`.

    Raises:
        ValueError: an unknown encoder.
    """

    def __init__(self, encoder: str = "compact"):
        super().__init__()
        self.encoder_name = encoder
        plan = style_encoders.plan(encoder)
        self.encoder = Pyramid(*plan).requires_grad_(False)
        self.slices = nn.ModuleList(_slices(plan.widths))
        self.head = begin_near_gray(nn.Conv2d(plan.widths[0], 3, 3, padding=1))

    def load_encoder(self, file: Path | str = "", *, download: bool = True) -> "StylizationOnce":
        """As `ctlib.models.stylization.Stylization.load_encoder`."""
        found = style_encoders.load(self.encoder_name, file, download=download)
        self.encoder.load_state_dict(found.state_dict())
        return self

    def decode(self, encoded: Encoded) -> Tensor:
        """Features to a picture `(B, 3, H, W)`, not clamped."""
        features = self.slices[0](encoded.levels[-1])
        for part, last in zip(self.slices[1:], encoded.lasts[::-1], strict=True):
            features = part(torch.cat([last, functional.interpolate(features, scale_factor=2, mode="nearest")], dim=1))
        return self.head(features)

    def reconstruct(self, rgb: Tensor) -> Tensor:
        """A picture through encoder and decoder, without AdaIN."""
        return self.decode(encode(self.encoder, rgb))

    def forward(self, rgb: Tensor, reference: Tensor, labels: Guide | None = None, *, alpha: float = 1.0) -> Tensor:
        """Pictures `(B, 3, H, W)` in the colors of references, not clamped; as `Stylization.forward`.

        Raises:
            ValueError: sides that do not fit, or an alpha out of range.
        """
        check_sides(rgb, "rgb", self.encoder)
        check_sides(reference, "reference", self.encoder)
        encoded = encode(self.encoder, rgb)
        deepest = f"relu{len(self.encoder.counts)}_1"
        wanted = self.encoder(reference, [deepest])[deepest]
        changed = normalizer(labels, number("alpha", alpha, 1))(encoded.levels[-1], wanted)
        return self.decode(encoded._replace(levels=(*encoded.levels[:-1], changed)))

    @torch.no_grad()
    def recolor(
        self,
        rgb: Tensor,
        reference: Tensor,
        *,
        labels: tuple[Tensor, Tensor] | None = None,
        alpha: float = 1.0,
        side: int = 256,
    ) -> Tensor:
        """Pictures of any size, as `ctlib.models.stylization.Stylization.recolor`."""
        return recolored(self, rgb, reference, labels, side, alpha=alpha)


def _slices(widths: Sequence[int]) -> list[nn.Sequential]:
    """From the deepest to the finest: one unit from scale to scale, then concatenations back to each scale's width."""
    found = [_unit(widths[-1], widths[-2])]
    for level in range(len(widths) - 2, -1, -1):
        below = widths[max(level - 1, 0)]
        found.append(nn.Sequential(_unit(2 * widths[level], widths[level]), _unit(widths[level], below)))
    return found


def _unit(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())
