r"""How a small Histogram Analogy learns from a large one: $L = \alpha L_{soft} + (1 - \alpha) L_{hard}$.

Both parts have the three terms of the paper, $\lambda_0 L_{image} + \lambda_1 L_{hist} + \lambda_2 L_{multi}$. The hard
part compares the student with the true target, the soft part with what a frozen teacher makes of the same pair: its
picture and its side outputs.

- `phases="project"`: the schedule of the project that these networks were first made small in (Wp-Zhang,
  Deep-Color-Transfer). Its 25 epochs are shares of the training here, see `PHASES`.
- `phases="constant"`: the weights that are given as options, from the first step to the last.

In that project the student keeps the teacher's histogram encoder, frozen. Here it has a smaller one of its own: the
published one alone, 1.6 million parameters, would be most of a file that shall stay below 5 MB. So teacher and student
need not share anything but what goes in and out; `width`, `conditioning`, `curves` and `bins` may differ.

Source: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015, for the idea; the README of that
project for the weights.

Taught in: notebooks/22_compact_and_distilled.
"""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctlib.data import pairs
from ctlib.losses import histogram_loss, multi_scale_loss
from ctlib.models.histogram_analogy import HistogramAnalogy, to_unit
from ctlib.recipes import histogram_analogy
from ctlib.recipes.histogram_analogy import Objective
from ctlib.settings import number, parse_settings


class Phase(NamedTuple):
    r"""What holds for a part of the training.

    Attributes:
        share: its length, in any unit that the phases have in common.
        soft: $\alpha$, the share of the soft part; 0 needs no teacher.
        identical: $\lambda_0$ of pairs whose source and target are one picture; it is 1 for the others.
        histogram, multi_scale: $\lambda_1$ and $\lambda_2$.
    """

    share: float
    soft: float
    identical: float
    histogram: float
    multi_scale: float


PHASES = (Phase(10, 0.5, 0.5, 10.0, 10.0), Phase(9, 0.0, 0.5, 10.0, 10.0), Phase(6, 0.0, 1.0, 1.5, 0.5))
SCHEDULES = ("project", "constant")


class Distillation(Objective):
    """`Objective` with a teacher, which is neither trained nor saved.

    Args:
        model: the student.
        teacher: a trained network; it is frozen, and stays in evaluation mode.
        phases: `"project"` or `"constant"`, see the head of this file.
        soft, identical: see `Phase`; with `"project"` the phases say these and `histogram` and `multi_scale`.
        options: of `Objective`.

    Raises:
        ValueError: an unknown option, or a recipe other than `"paper"`.
    """

    def __init__(
        self,
        model: HistogramAnalogy,
        teacher: HistogramAnalogy,
        *,
        phases: str = "project",
        soft: float = 0.5,
        identical: float = 1.0,
        **options,
    ):
        super().__init__(model, **options)
        _check(phases, soft, identical, self.recipe)
        constant = Phase(1, number("soft", soft, 1), number("identical", identical), self.histogram, self.multi_scale)
        self.phases = PHASES if phases == "project" else (constant,)
        self.teacher = teacher.requires_grad_(False).eval()
        self.teacher_sha256 = fingerprint(teacher)  # a run with another teacher is another run
        self.at(0, 1)

    def train(self, mode: bool = True) -> "Distillation":
        super().train(mode)
        self.teacher.eval()  # a norm of batches would learn from each
        return self

    def at(self, step: int, steps: int) -> None:
        """Take the weights of the phase that a step falls into; `ctlib.train.fit` calls this before each update."""
        total, end = sum(phase.share for phase in self.phases), 0.0
        for phase in self.phases:
            end += phase.share
            if step * total < end * steps:
                break
        _, self.soft, self.identical, self.histogram, self.multi_scale = phase

    def forward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and terms: `image`, `histogram`, `multi_scale` of the hard part, `soft_image`, ... of the soft one."""
        pair = self.pair(batch)
        result, wanted = _outputs(self.model, pair), to_unit(pair.target)
        same = (pair.source == pair.target).flatten(1).all(1)
        image = torch.where(same, self.identical, 1.0)
        terms = self.compare(result, wanted, None, image)
        loss = (1 - self.soft) * self._weighted(terms)
        if self.soft:
            with torch.no_grad():
                taught = _outputs(self.teacher, pair)
            soft = self.compare(result, *taught, image)
            loss = loss + self.soft * self._weighted(soft)
            terms |= {f"soft_{name}": term for name, term in soft.items()}
        return loss, {name: term.detach() for name, term in terms.items()}

    def compare(
        self, result: tuple[Tensor, list[Tensor]], wanted: Tensor, sides: list[Tensor] | None, image: Tensor
    ) -> dict[str, Tensor]:
        """The three terms of one part.

        Args:
            result: the student's picture `(B, 3, H, W)` in about [-1, 1], and its side outputs.
            wanted: `(B, 3, H, W)`; `sides`: side outputs to compare with; `None` for `wanted` at their size.
            image: `(B,)`, how much each pair counts in the image term.
        """
        out, own = result
        with torch.autocast(out.device.type, enabled=False):
            if sides is None:
                multi_scale = multi_scale_loss(own, wanted)
            else:
                errors = [functional.mse_loss(one, _sized(side, one)) for one, side in zip(own, sides, strict=True)]
                multi_scale = torch.stack(errors).mean()
            return {
                "image": ((out - wanted).square().flatten(1).mean(1) * image).mean(),
                "histogram": histogram_loss(out, wanted, centers=self.centers),
                "multi_scale": multi_scale,
            }

    def _weighted(self, terms: dict[str, Tensor]) -> Tensor:
        return terms["image"] + self.histogram * terms["histogram"] + self.multi_scale * terms["multi_scale"]


def _outputs(network: HistogramAnalogy, pair: pairs.Pair) -> tuple[Tensor, list[Tensor]]:
    out, sides = network.transfer(pair.source, pair.reference)
    return out.float(), [side.float() for side in sides]


def _sized(side: Tensor, like: Tensor) -> Tensor:
    """Another encoder may round odd sizes another way."""
    if side.shape == like.shape:
        return side
    return functional.interpolate(side, like.shape[2:], mode="bilinear", align_corners=False)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of what a network computes with: its configuration, and the names and values of its weights."""
    digest = hashlib.sha256(json.dumps(getattr(network, "_hub_mixin_config", None) or {}, sort_keys=True).encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def run(
    folder: Path | str,
    /,
    *,
    teacher: str = "",
    phases: str = "project",
    soft: float = 0.5,
    identical: float = 1.0,
    **options,
) -> tuple[HistogramAnalogy, list[dict]]:
    """One distillation from its options, all plain values.

    Args:
        folder: of the student, see `ctlib.train.fit`; a run that was interrupted there goes on.
        teacher: a name in `data/pretrained`, a folder with a finished training, or an id on the Hugging Face hub.
        phases, soft, identical: of `Distillation`.
        options: of `ctlib.recipes.histogram_analogy.run`, for the student.

    Returns:
        The trained student and what was logged.

    Raises:
        ValueError: an unknown option, or no teacher.
        CheckpointError: there is no such teacher, or `folder` holds another training.
        DataError, TrainingError: see `ctlib.train.fit`.
    """
    of_student = histogram_analogy.options_of(histogram_analogy.run)
    known = of_student + histogram_analogy.options_of(run)
    parse_settings(also=known, **{name: value for name, value in options.items() if name not in of_student})
    _check(phases, soft, identical, options.get("recipe", "paper"))
    if not teacher:
        raise ValueError("teacher: name the network to learn from, one of data/pretrained or a folder with weights")
    make = partial(
        Distillation,
        teacher=HistogramAnalogy.from_pretrained(teacher),  # before the seed is set: it may draw
        phases=phases,
        soft=soft,
        identical=identical,
    )
    return histogram_analogy.run(folder, make, **options)


def _check(phases: str, soft: float, identical: float, recipe: str) -> None:
    if phases not in SCHEDULES:
        raise ValueError(f"phases: expected one of {', '.join(SCHEDULES)}, got {phases!r}")
    number("soft", soft, 1)
    number("identical", identical)
    if recipe != "paper":
        raise ValueError(f"recipe: a distillation follows the paper's, got {recipe!r}")
