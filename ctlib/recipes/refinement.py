r"""How the colorization sub-net of exemplar colorization is trained: sampled truth, then empty maps.

The loss is `ctlib.losses.hinted_huber_loss`, with $\lambda = 10$. Hints are patches of the true colors at random
places; in the last 5 epochs there are none, so that the same network can pre-colorize. The paper, as retold: ImageNet,
the first four blocks from weights that were trained before, Adam with 0.00001, a tenth of that after 10 epochs. How
many hints there are, batch and crop are not known; here their number is geometric as in Zhang et al. 2017, with all
places equally likely; batch 40 and squares of 176 pixels are what the authors' code has for another loss.

Source: Xu, Wang, Fang, Sheng, Zhang, Stylization-Based Architecture for Fast Deep Exemplar Colorization, CVPR 2020.
Taught in: notebooks/51_exemplar_colorization.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ctlib import hints, ops, train
from ctlib.losses import hinted_huber_loss
from ctlib.models.refinement import Refinement
from ctlib.models.zhang2017 import Zhang2017
from ctlib.recipes import histogram_analogy
from ctlib.recipes.distill import fingerprint
from ctlib.recipes.stylization import stairs, steps_of
from ctlib.recipes.zhang2016 import network_of, square, squares
from ctlib.recipes.zhang2017 import grid
from ctlib.settings import number, parse_settings, positive, whole


class Objective(nn.Module):
    r"""A batch of the loader to one number, for `ctlib.train.fit`.

    Args:
        model: to be trained.
        side, crop: of the training squares, see `ctlib.recipes.zhang2016.Objective`.
        p, law, everything: of the hints, see `ctlib.hints.simulate`.
        weight, delta, scale: of `ctlib.losses.hinted_huber_loss`.
        empty: steps at the end of the training without hints.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        model: Refinement,
        *,
        side: int = 176,
        crop: float = 1.0,
        p: float = 1 / 8,
        law: str = "uniform",
        everything: float = 0.0,
        weight: float = 10.0,
        delta: float = 1 / 110,
        scale: float = 110.0,
        empty: int = 0,
    ):
        super().__init__()
        if law not in hints.LAWS:
            raise ValueError(f"law: expected one of {', '.join(hints.LAWS)}, got {law!r}")
        self.model, self.side, self.law = model, square(side), law
        self.crop, self.everything = number("crop", crop, 1), number("everything", everything, 1)
        self.p, self.empty = positive("p", p, 1), whole("empty", empty, 0)
        self.weight = number("weight", weight)
        self.delta, self.scale = positive("delta", delta), positive("scale", scale)
        self.begun = fingerprint(model)  # a run from other weights is another run
        self._bare = False

    def at(self, step: int, steps: int) -> None:
        """Whether hints are given at a step; `ctlib.train.fit` calls this before each update."""
        self._bare = step >= steps - self.empty

    def forward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its one term, of `{"rgb": uint8 (B, H, W, 3), "seed": (B,)}`."""
        with torch.no_grad(), torch.autocast(batch["rgb"].device.type, enabled=False):
            lab = ops.rgb_to_lab(squares(batch, self.side, self.crop))
            p = 1.0 if self._bare else self.p
            everything = 0.0 if self._bare else self.everything
            given = hints.simulate(lab[:, 1:], batch["seed"].tolist(), p, law=self.law, everything=everything)
        ab = self.model(lab[:, :1], given)[0]
        options = {"weight": self.weight, "delta": self.delta, "scale": self.scale}
        loss = hinted_huber_loss(ab, lab[:, 1:], given.mask, **options)
        return loss, {"huber": loss.detach()}


def run(
    folder: Path | str,
    /,
    *,
    begin: str = "",
    pretrained: str = "",
    blocks: int = 4,
    sets: Sequence[str] = ("photos",),
    part: str = "train",
    size: int = 256,
    side: int = 176,
    crop: float = 1.0,
    width: float | None = None,
    mask_cent: float | None = None,
    init: str | None = None,
    p: float = 1 / 8,
    law: str = "uniform",
    everything: float = 0.0,
    weight: float = 10.0,
    delta: float = 1 / 110,
    scale: float = 110.0,
    every: float = 10,
    empty: float = 5,
    **settings,
) -> tuple[Refinement, list[dict]]:
    """One training from its options, all plain values; the defaults are the paper's, where they are known.

    Args:
        folder: see `ctlib.train.fit`; a run that was interrupted there goes on.
        begin, pretrained, blocks, width, mask_cent, init: see `network`.
        sets, part, size: see `ctlib.recipes.histogram_analogy.photographs`.
        side, crop, p, law, everything, weight, delta, scale: of `Objective`.
        every: epochs after which the rate falls to a tenth, unless there is a `schedule`.
        empty: epochs at the end without hints.
        settings: of `ctlib.settings.Settings`; batch 40, a rate of 0.00001 and Adam's usual moments unless given.

    Returns:
        The trained network and what was logged.

    Raises:
        ValueError: an unknown option, or fewer steps than the epochs without hints take.
        DataError, CheckpointError, TrainingError: see `ctlib.train.fit`.
    """
    chosen = "schedule" in settings
    published = {"batch": 40, "lr": 1e-5, "betas": (0.9, 0.999)}
    settings = parse_settings(also=histogram_analogy.options_of(run), **published | settings)
    whole("size", size, square(side))
    every, empty = number("every", every), number("empty", empty)
    torch.manual_seed(settings.seed)
    model = network(begin, pretrained, blocks, width=width, mask_cent=mask_cent, init=init)
    objective = Objective(
        model.train(),
        side=side,
        crop=crop,
        p=p,
        law=law,
        everything=everything,
        weight=weight,
        delta=delta,
        scale=scale,
    )
    dataset = histogram_analogy.photographs(sets, size, part)
    if every and not chosen:
        settings = stairs(settings, "tenth", every, len(dataset))
    objective.empty = steps_of(settings, empty, len(dataset)) if empty else 0
    if objective.empty > settings.steps:
        raise ValueError(
            f"empty: {empty:g} epochs without hints take {objective.empty} steps, and there are {settings.steps}; "
            "take more steps, or fewer epochs"
        )
    samples = grid(objective, dataset) if settings.sample_every else None
    return model, train.fit(objective, dataset, settings, folder, samples=samples)


def network(begin: str = "", pretrained: str = "", blocks: int = 10, **own) -> Refinement:
    """The network that a training begins from.

    Args:
        begin: weights of a `Refinement`; they say everything.
        pretrained: weights of a `Zhang2017` with local hints, see `Refinement.begin_from`; they say width, `mask_cent`
            and init. A file of the authors is `"siggraph17"`.
        blocks: how many of its blocks are taken, 4 or 10.
        own: options of a new `Refinement`, None for its default.

    Raises:
        ValueError: both, or options that contradict the weights. CheckpointError: no such weights.
    """
    if begin and pretrained:
        raise ValueError("begin, pretrained: give one of the two; a network begins from one set of weights")
    if not pretrained:
        return network_of(Refinement, begin, **own)
    other = network_of(Zhang2017, pretrained, **own)
    config = other._hub_mixin_config or {}
    told = {name: config[name] for name in ("width", "mask_cent", "init") if name in config}
    return Refinement(**told).begin_from(other, blocks)
