r"""How Zhang 2017 is trained: first colors as classes, then a and b with simulated hints.

Two stages, as in the authors' re-implementation in PyTorch (which calls itself approximate):

1. `stage="classification"`, no hints: the loss of the bins trains the trunk, that of a and b its own branch only.
   Without it trainings turned yellow there.
2. `stage="regression"` from those weights, with hints: the loss of a and b trains the trunk, that of the bins its head.

$$L = \lambda_A \mathrm{CE}_{529} + 10 \operatorname{mean}_{h,w} \sum_c \ell(\widehat{ab} - ab)$$

of a and b divided by 110, with the absolute value as $\ell$, or (`loss="huber"`) the Huber loss of the paper with
$\delta = 1$ in CIELAB units, scaled so that its slope far from 0 is that of the absolute value. Pictures with hardly
any color are left out of both.

With global hints each picture is given its own histogram and saturation, either of them now and then: how often is not
published (unverified), here in half of the cases.

Source: Zhang et al., Real-Time User-Guided Image Colorization with Learned Deep Priors, SIGGRAPH 2017.
Taught in: notebooks/42_user_guided_colorization.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import default_collate

from ctlib import chroma, hints, ops, train
from ctlib.data import pairs
from ctlib.models.zhang2017 import SCALE, Zhang2017, class_of
from ctlib.recipes import histogram_analogy
from ctlib.recipes.distill import fingerprint
from ctlib.recipes.zhang2016 import network_of, rows, square, squares
from ctlib.settings import number, parse_settings, whole

STAGES = ("classification", "regression")
LOSSES = ("l1", "huber")
PALE = 5.0  # pictures whose ranges of a and of b add up to less are left out


class Objective(nn.Module):
    r"""A batch of the loader to one number, for `ctlib.train.fit`.

    Args:
        model: to be trained.
        stage: which loss trains the trunk, see the head of this file.
        side, crop: see `ctlib.recipes.zhang2016.Objective`.
        p: of the local hints, see `ctlib.hints.simulate`; None is 1 (no hints) when classifying, else 1/8.
        law, everything: of the same.
        reveal: how often the histogram is given, and how often the saturation, with global hints.
        loss: `"l1"` or `"huber"`. weight: of it. classes: $\lambda_A$.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        model: Zhang2017,
        *,
        stage: str = "regression",
        side: int = 176,
        crop: float = 1.0,
        p: float | None = None,
        law: str = "normal",
        everything: float = 0.0,
        reveal: float = 0.5,
        loss: str = "l1",
        weight: float = 10.0,
        classes: float = 1.0,
    ):
        super().__init__()
        for name, value, known in (("stage", stage, STAGES), ("loss", loss, LOSSES), ("law", law, hints.LAWS)):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        self.model, self.stage, self.side, self.loss, self.law = model, stage, square(side), loss, law
        self.crop, self.everything = number("crop", crop, 1), number("everything", everything, 1)
        self.reveal, self.weight = number("reveal", reveal, 1), number("weight", weight)
        self.classes = number("classes", classes)
        usual = 1.0 if stage == "classification" else 1 / 8
        self.p = usual if p is None else number("p", p, 1)
        if not self.p:
            raise ValueError("p: with 0 hints never end; take a small number")

    def forward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its terms `ab` and `classes`, unweighted, of `{"rgb": uint8 (B, H, W, 3), "seed": (B,)}`."""
        with torch.no_grad(), torch.autocast(batch["rgb"].device.type, enabled=False):
            rgb = squares(batch, self.side, self.crop)
            lab = ops.rgb_to_lab(rgb)
            given = self.hints(rgb, lab[:, 1:], batch["seed"].tolist())
            target, classes = lab[:, 1:] / SCALE, class_of(lab[:, 1:, ::4, ::4])
            ranges = lab[:, 1:].flatten(2).amax(2) - lab[:, 1:].flatten(2).amin(2)
            kept = (ranges.sum(1) >= PALE).float()
            kept = kept / kept.sum().clamp(min=1)
        ab, logits = self.model(lab[:, :1], given, classification=self.stage == "classification")
        error = (ab.float() / SCALE, target)
        if self.loss == "l1":
            error = functional.l1_loss(*error, reduction="none")
        else:
            error = functional.smooth_l1_loss(*error, beta=1 / SCALE, reduction="none")
        flat = logits.float().movedim(1, -1).flatten(0, 2)  # bins last, as they lie in memory
        entropy = functional.cross_entropy(flat, classes.flatten(), reduction="none").view_as(classes)
        terms = {"ab": error.sum(1), "classes": entropy}
        terms = {name: (kept * each.mean((1, 2))).sum() for name, each in terms.items()}
        loss = self.weight * terms["ab"] + self.classes * terms["classes"]
        return loss, {name: term.detach() for name, term in terms.items()}

    def hints(self, rgb: Tensor, ab: Tensor, seeds: Sequence[int]):
        """What the network is told of each picture, a function of its seed."""
        if self.model.hints == "local":
            return hints.simulate(ab, seeds, self.p, law=self.law, everything=self.everything)
        draws = np.stack([np.random.default_rng((int(seed), hints.GLOBAL)).random(2) for seed in seeds])
        shown = torch.from_numpy(draws < self.reveal).to(rgb.device)
        return hints.without(hints.global_hints(rgb), *shown.unbind(1))


@torch.no_grad()
def validate(
    network: Zhang2017,
    dataset: pairs.Photos,
    *,
    side: int = 176,
    counts: Sequence[int] = (0, 10),
    batch: int = 8,
    seed: int = 0,
) -> dict[str, float]:
    """Errors of a and b in CIELAB units over the pictures of a data set, whole ones.

    Returns:
        `gray_ab_rmse`, of the gray picture; for local hints `ab_rmse_0`, `ab_rmse_10`, ... by the number of hints of
        6 x 6 pixels; for global ones `ab_rmse_0` without and `ab_rmse_1` with the picture's own.
    """
    network.eval()
    counts = counts if network.hints == "local" else (0, 1)
    device, sums = next(network.parameters()).device, torch.zeros(len(counts) + 1, dtype=torch.float64)
    for start in range(0, len(dataset), batch):
        numbers = range(start, min(start + batch, len(dataset)))
        items = default_collate([dataset[number, (seed << 32) + number] for number in numbers])
        rgb = squares({**items, "rgb": items["rgb"].to(device)}, side, 0.0)
        lab = ops.rgb_to_lab(rgb)
        found = [torch.zeros_like(lab[:, 1:])]
        for count in counts:
            if network.hints == "local":
                given = hints.fixed(lab[:, 1:], count, items["seed"].tolist())
            else:
                given = hints.global_hints(rgb, histogram=count > 0, saturation=count > 0)
            found.append(network.ab(lab[:, :1], given))
        errors = [(ab - lab[:, 1:]).square().mean() for ab in found]
        sums += len(numbers) * torch.stack(errors).cpu().double()
    gray, *errors = (sums / len(dataset)).sqrt().tolist()
    return {"gray_ab_rmse": gray} | {f"ab_rmse_{count}": error for count, error in zip(counts, errors, strict=True)}


def run(
    folder: Path | str,
    /,
    *,
    begin: str = "",
    stage: str = "regression",
    sets: Sequence[str] = ("photos",),
    part: str = "train",
    size: int = 256,
    side: int = 176,
    crop: float = 1.0,
    kind: str | None = None,
    width: float | None = None,
    mask_cent: float | None = None,
    init: str | None = None,
    p: float | None = None,
    law: str = "normal",
    everything: float = 0.0,
    reveal: float = 0.5,
    loss: str = "l1",
    weight: float = 10.0,
    classes: float = 1.0,
    **settings,
) -> tuple[Zhang2017, list[dict]]:
    """One training from its options, all plain values; the defaults are those of the authors' re-implementation.

    Args:
        folder: see `ctlib.train.fit`; a run that was interrupted there goes on.
        begin: weights to start from, see `Zhang2017.from_pretrained`; they say kind, width, mask_cent and init.
        stage, side, crop, p, law, everything, reveal, loss, weight, classes: of `Objective`.
        sets, part, size: pictures, see `ctlib.recipes.histogram_analogy.photographs`, kept as squares of `size` pixels.
        kind: `hints` of `Zhang2017`, local or global. width, mask_cent, init: of the same.
        settings: of `ctlib.settings.Settings`; batch 25, betas (0.9, 0.999) and a rate of 1e-4 for classification, 1e-5
            for regression, unless given.

    Returns:
        The trained network and what was logged.

    Raises:
        ValueError: an unknown option, or one that contradicts the weights to begin from.
        DataError, CheckpointError, TrainingError: see `ctlib.train.fit`.
    """
    published = {"batch": 25, "lr": 1e-4 if stage == "classification" else 1e-5, "betas": (0.9, 0.999)}
    settings = parse_settings(also=histogram_analogy.options_of(run), **published | settings)
    whole("size", size, square(side))
    torch.manual_seed(settings.seed)
    network = network_of(Zhang2017, begin, hints=kind, width=width, mask_cent=mask_cent, init=init)
    if network.hints == "global" and settings.batch // settings.accumulate < 2:
        raise ValueError(f"batch: global hints are normalized over pictures, of which it takes 2, got {settings.batch}")
    options = {"stage": stage, "side": side, "crop": crop, "p": p, "law": law, "everything": everything}
    options |= {"reveal": reveal, "loss": loss, "weight": weight, "classes": classes}
    objective = Objective(network, **options)
    if begin:
        objective.begun = fingerprint(network)  # a run from other weights is another run
    dataset = histogram_analogy.photographs(sets, size, part)
    samples = grid(objective, dataset) if settings.sample_every else None
    return network, train.fit(objective, dataset, settings, folder, samples=samples)


def grid(objective: Objective, dataset: pairs.Photos, count: int = 6):
    """What TensorBoard shows: gray picture, result without and with hints, and truth, the same pictures each time."""
    batch = default_collate([dataset[number % len(dataset), number] for number in range(count)])

    def picture(network: Zhang2017) -> Tensor:
        rgb = batch["rgb"].to(next(network.parameters()).device)
        rgb = squares({**batch, "rgb": rgb}, objective.side, 0.0)
        lightness, ab = chroma.lightness(rgb), ops.rgb_to_lab(rgb)[:, 1:]
        given = hints.global_hints(rgb) if network.hints == "global" else hints.fixed(ab, 10, batch["seed"].tolist())
        return rows(rgb, network.ab(lightness), network.ab(lightness, given))

    return picture
