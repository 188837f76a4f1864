r"""How both networks of exemplar colorization are trained together, as the student did.

The chain of `ctlib.exemplars.chain` runs on a picture made gray and a reference; a and b are sampled pixel by pixel and
refined, and the loss compares with the picture's own colors:

$$L = L_h\big((1 + \lambda M) \odot \widehat{ab}, (1 + \lambda M) \odot ab\big), \quad \lambda = 10, \delta = 1$$

(`ctlib.losses.hinted_huber_loss`, on a and b divided by 110). The gradient goes through the samples into the transfer
sub-net's decoder; the pre-colored picture is given, not learned from. Adam with 0.00001, batches of 4, one epoch.

Not told: the "mask probability" of 0.99 is read as that of a pixel to be hidden, so that 1 in 100 is revealed; with 1
none is, and the colorization sub-net alone is trained. Now and then there are no samples at all; how often is not said.
References are pictures whose colors are near, as the student's are; see `ctlib.data.exemplars`.

Two things that the student does not have, both off by default: a term for the coarse map itself, which is compared with
the true colors (`coarse`), since a hundredth of its pixels teaches the transfer sub-net little; and shares of pictures
that are their own reference, or get any other one (`own`, `stray`).

Source: a student's report on Xu et al. 2020, chapters 3 to 6.
Taught in: notebooks/51_exemplar_colorization.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from ctlib import chroma, ops, train
from ctlib.data.exemplars import Exemplars
from ctlib.exemplars.chain import PARTS, Exemplar
from ctlib.hints import Hints
from ctlib.losses import hinted_huber_loss
from ctlib.models.stylization import PAPER, Stylization, sites_of
from ctlib.recipes import histogram_analogy, refinement
from ctlib.recipes.distill import fingerprint
from ctlib.recipes.zhang2016 import rows, square, squares
from ctlib.settings import flag, number, parse_settings, positive, whole


class Objective(nn.Module):
    r"""A batch of the loader to one number, for `ctlib.train.fit`.

    Args:
        model: to be trained.
        side, crop: of the training squares, see `ctlib.recipes.zhang2016.Objective`.
        mask_probability: of a pixel to be hidden.
        none: share of the pictures of which all is hidden.
        weight, delta, scale: of `ctlib.losses.hinted_huber_loss`.
        sites: of AdaIN, for the paper's transfer sub-net.
        coarse: weight of the coarse map's error, the mean square of a and b divided by `scale`.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        model: Exemplar,
        *,
        side: int = 256,
        crop: float = 0.0,
        mask_probability: float = 0.99,
        none: float = 0.1,
        weight: float = 10.0,
        delta: float = 1.0,
        scale: float = 110.0,
        sites: Sequence[str] = PAPER,
        coarse: float = 0.0,
    ):
        super().__init__()
        self.model, self.side, self.crop = model, square(side), number("crop", crop, 1)
        self.mask_probability = number("mask_probability", mask_probability, 1)
        self.none, self.weight = number("none", none, 1), number("weight", weight)
        self.delta, self.scale = positive("delta", delta), positive("scale", scale)
        self.sites, self.coarse = sites_of(sites), number("coarse", coarse)
        self.begun = fingerprint(model)  # a run from other weights is another run

    def forward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and terms, of `{"rgb", "other": uint8 (B, H, W, 3), "seed": (B,)}`.

        Terms: `huber`; `coarse`, mean squared error of the transfer's a and b in CIELAB units.
        """
        with torch.no_grad(), torch.autocast(batch["rgb"].device.type, enabled=False):
            rgb, other = (
                squares({"rgb": batch[name], "seed": batch["seed"]}, self.side, self.crop) for name in ("rgb", "other")
            )
            lab = ops.rgb_to_lab(rgb)
            mask = self.mask(batch["seed"].tolist(), rgb)
        with torch.no_grad():
            known = self.model.refine.training
            self.model.refine.eval()  # its norms shall learn from each picture once
            precolored = self.model.precolor(lab[:, :1])
            self.model.refine.train(known)
        options = {"sites": self.sites} if isinstance(self.model.transfer, Stylization) else {}
        coarse = self.model.coarse(lab[:, :1], precolored, other, shrink=1, **options)
        ab = self.model.refine(lab[:, :1], Hints(coarse * mask, mask))[0]
        huber = {"weight": self.weight, "delta": self.delta, "scale": self.scale}
        loss = hinted_huber_loss(ab, lab[:, 1:], mask, **huber)
        missed = (coarse - lab[:, 1:]).square().mean()
        terms = {"huber": loss.detach(), "coarse": missed.detach()}
        return (loss + self.coarse * missed / self.scale**2 if self.coarse else loss), terms

    def mask(self, seeds: Sequence[int], like: Tensor) -> Tensor:
        """Where samples stand, `(B, 1, H, W)`, each a function of its seed."""
        found = []
        for seed in seeds:
            draws = np.random.default_rng((int(seed), 110))
            hidden = draws.random() < self.none
            shown = draws.random(like.shape[2:]) >= self.mask_probability
            found.append(np.zeros_like(shown) if hidden else shown)
        return torch.from_numpy(np.stack(found))[:, None].to(like)


def run(
    folder: Path | str,
    /,
    *,
    transfer: str = "",
    refine: str = "",
    pretrained: str = "",
    once: bool = False,
    sets: Sequence[str] = ("photos",),
    part: str = "train",
    size: int = 256,
    side: int = 256,
    crop: float = 0.0,
    near: int = 8,
    own: float = 0.0,
    stray: float = 0.0,
    mask_probability: float = 0.99,
    none: float = 0.1,
    weight: float = 10.0,
    delta: float = 1.0,
    scale: float = 110.0,
    sites: Sequence[str] = PAPER,
    coarse: float = 0.0,
    **settings,
) -> tuple[Exemplar, list[dict]]:
    """One training from its options, all plain values; the defaults are the student's, where they are known.

    Args:
        folder: see `ctlib.train.fit`; a run that was interrupted there goes on. It gets the weights in two folders,
            `transfer` and `refine`.
        transfer: weights of the transfer sub-net. once: whether it is the student's.
        refine: weights of the colorization sub-net; or `pretrained`, all of a `Zhang2017`'s.
        sets, part, size: see `ctlib.recipes.histogram_analogy.photographs`.
        near, own, stray: how references are drawn, see `ctlib.data.exemplars.Exemplars`.
        side, crop, mask_probability, none, weight, delta, scale, sites, coarse: of `Objective`.
        settings: of `ctlib.settings.Settings`; batch 4, a rate of 0.00001 and Adam's usual moments unless given.

    Returns:
        The trained networks and what was logged.

    Raises:
        ValueError: an unknown option, or no weights to begin from. DataError: no pictures.
        CheckpointError, TrainingError: see `ctlib.train.fit`.
    """
    published = {"batch": 4, "lr": 1e-5, "betas": (0.9, 0.999)}
    settings = parse_settings(also=histogram_analogy.options_of(run), **published | settings)
    whole("size", size, square(side))
    flag("once", once)
    if not transfer or not (refine or pretrained):
        raise ValueError("transfer, refine: name the weights of both networks; each is trained alone first")
    torch.manual_seed(settings.seed)
    model = Exemplar(PARTS["transfer"][once].from_pretrained(transfer), refinement.network(refine, pretrained))
    model.transfer.encoder.requires_grad_(False)
    options = {"mask_probability": mask_probability, "none": none, "weight": weight, "delta": delta, "scale": scale}
    objective = Objective(model.train(), side=side, crop=crop, sites=sites, coarse=coarse, **options)
    dataset = Exemplars(histogram_analogy.photographs(sets, size, part), near, own, stray)
    objective.near, objective.own, objective.stray = dataset.near, dataset.own, dataset.stray
    samples = grid(objective, dataset) if settings.sample_every else None
    return model, train.fit(objective, dataset, settings, folder, samples=samples)


def trained(
    chain: Exemplar, trainings: Mapping[str, tuple[ModuleType, dict]], common: dict, place: Callable[..., Path]
) -> tuple[dict[str, Exemplar], dict[str, list[dict]]]:
    """Several trainings one after the other, each as a chain on the CPU.

    Args:
        chain: what a training of the colorization sub-net alone is put into.
        trainings: name to the recipe, this one or `ctlib.recipes.refinement`, and its options.
        common: options of all.
        place: options of a training to its folder, e.g. `ctlib.results.Run.checkpoints`.

    Returns:
        The chains by name, `"shipped"` the given one; what was logged by name.
    """
    chains, histories = {"shipped": chain}, {}
    for name, (recipe, own) in trainings.items():
        options = common | own
        options |= {"log_every": max(1, options["steps"] // 30)}
        network, histories[name] = recipe.run(place(recipe=recipe.__name__, **options), **options)
        whole_chain = network if isinstance(network, Exemplar) else Exemplar(chain.transfer, network)
        chains[name] = whole_chain.eval().cpu()
    return chains, histories


def grid(objective: Objective, dataset: Exemplars, count: int = 6):
    """What TensorBoard shows: gray, pre-colored, coarse, refined, truth and reference, the same pictures each time."""
    batch = default_collate([dataset[number % len(dataset), number] for number in range(count)])

    @torch.no_grad()
    def picture(network: Exemplar) -> Tensor:
        device = next(network.parameters()).device
        rgb, other = (
            squares({"rgb": batch[name].to(device), "seed": batch["seed"]}, objective.side, 0.0)
            for name in ("rgb", "other")
        )
        made = network(chroma.lightness(rgb), other, seeds=batch["seed"].tolist(), spread=False, detail=False, shrink=1)
        shown = rows(rgb, made.precolored, made.coarse, made.refined)
        return torch.cat([shown, torch.cat(other.unbind(0), dim=2)], dim=1)

    return picture
