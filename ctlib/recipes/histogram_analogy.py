r"""How Histogram Analogy is trained.

- `"paper"`: $L_{image} + \lambda_1 L_{hist} + \lambda_2 L_{multi}$ on the pairs as they come (Lee et al. 2020).
- `"official-history"`: what the authors' training code optimised before it was removed: both directions of each pair,
  and for each an identity pass, in which the source's own histogram is the reference; the sum of three side outputs.

Taught in: notebooks/20_train_histogram_analogy.
"""

import inspect
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctlib import ops, paths, train
from ctlib.data import augment, cache, fivek, pairs, photos, splits
from ctlib.data.registry import DataError
from ctlib.losses import histogram_loss, multi_scale_loss
from ctlib.models.histogram_analogy import HistogramAnalogy, from_unit, to_unit
from ctlib.settings import flag, names, number, parse_settings, whole

RECIPES = ("paper", "official-history")


class Objective(nn.Module):
    r"""A batch of the loader to one number, for `ctlib.train.fit`.

    Args:
        model: to be trained.
        side: pixels of the training squares.
        recipe: see the head of this file.
        histogram, multi_scale: $\lambda_1$ and $\lambda_2$.
        centers: of the soft histogram, see `ctlib.losses.histogram_loss`.
        shares: of the kinds of pairs made from single photographs, see `ctlib.data.pairs.photo_pairs`.
        hue: whether pairs of renditions get hue and saturation changes.
        luts: basis tables of the FiveK 3D-LUT model.

    Raises:
        ValueError: an unknown recipe.
    """

    def __init__(
        self,
        model: HistogramAnalogy,
        *,
        side: int = 256,
        recipe: str = "paper",
        histogram: float = 1.5,
        multi_scale: float = 0.5,
        centers: str = "official",
        shares: tuple[float, ...] = (0.55, 0.2, 0.1, 0.15),
        hue: bool = True,
        luts: Tensor | None = None,
    ):
        super().__init__()
        if recipe not in RECIPES:
            raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, got {recipe!r}")
        if side < 64:
            raise ValueError(f"side: five halvings need squares of at least 64 pixels, got {side}")
        self.model, self.side, self.recipe = model, side, recipe
        self.histogram, self.multi_scale, self.centers = histogram, multi_scale, centers
        self.shares, self.hue = tuple(shares), hue
        self.register_buffer("luts", luts, persistent=False)

    def forward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its terms, of `{"rgb": uint8 (B, H, W, 3), "seed": (B,)}`, for renditions with `"other"`."""
        pair = self.pair(batch)
        terms = self.terms(pair.source, pair.target, pair.reference)
        if self.recipe == "official-history":
            back = self.terms(pair.target, pair.source, pair.source.flatten(2))
            terms = {name: terms[name] + back[name] for name in terms}
            for lab in (pair.source, pair.target):
                same, _ = self.model.transfer(lab, lab)
                terms["identity"] = terms.get("identity", 0) + functional.mse_loss(same.float(), to_unit(lab))
        weights = {"image": 1.0, "histogram": self.histogram, "multi_scale": self.multi_scale, "identity": 1.0}
        loss = sum(weights[name] * term for name, term in terms.items())
        return loss, {name: term.detach() for name, term in terms.items()}

    @torch.no_grad()
    def pair(self, batch: dict) -> pairs.Pair:
        """The pictures of a batch, in full precision whatever the network computes in."""
        seeds = batch["seed"].tolist()
        with torch.autocast(batch["rgb"].device.type, enabled=False):
            if "other" in batch:
                return pairs.rendition_pairs(batch["rgb"], batch["other"], seeds, self.side, hue=self.hue)
            return pairs.photo_pairs(batch["rgb"], seeds, self.side, shares=self.shares, luts=self.luts)

    def terms(self, source: Tensor, target: Tensor, reference: Tensor) -> dict[str, Tensor]:
        """The three losses of one direction, unweighted."""
        out, sides = self.model.transfer(source, reference)
        out, sides, wanted = out.float(), [side.float() for side in sides], to_unit(target)
        with torch.autocast(out.device.type, enabled=False):
            return {
                "image": functional.mse_loss(out, wanted),
                "histogram": histogram_loss(out, wanted, centers=self.centers),
                "multi_scale": multi_scale_loss(sides, wanted, self.recipe),
            }


def photographs(sets: Sequence[str], size: int, part: str = "all") -> pairs.Photos:
    """Photographs, see `caches`, all or a part of them.

    Raises:
        ValueError: an unknown part. DataError: as `caches`, or no picture falls into the part.
    """
    found = pairs.Photos(*caches(sets, size), part=part)
    if not len(found):
        raise DataError(f"part: no colored picture falls into {part!r}; add pictures, or take 'all'")
    return found


def caches(sets: Sequence[str], size: int) -> list[cache.Cache]:
    """Photographs of folders, kept as squares of `size` pixels, see `cache_dir`.

    Args:
        sets: `"photos"` for the bundled ones, else names of folders in `$CTLIB_DATA` (their `images` if there is one);
            of an official layout the part is named, too: `"imagenet/train"`, `"coco/train2017"`, of COCO if need be
            with categories: `"coco/train2017:giraffe,zebra"`.
        size: pixels.

    Raises:
        ValueError: what cannot be names. DataError: a folder is missing or holds no picture.
    """
    if not sets:
        raise DataError("sets: name at least one folder of photographs, or photos for the bundled ones")
    found = []
    for name in names("sets", sets):
        files = list(photos.files(name).values())
        found.append(cache.build(files, cache_dir(f"{name}-{size}"), (size, size)))
    return found


def renditions(size: int) -> pairs.Renditions:
    """MIT-Adobe FiveK in six renditions, kept as squares of `size` pixels, see `cache_dir`.

    Every fifth photograph is held out, see `ctlib.data.splits.every_fifth`; `ctlib.evaluate` judges on those.

    Raises:
        DataError: FiveK is not in the data folder; the message says how to get it.
    """
    dataset = fivek.FiveK()
    ids = splits.every_fifth(dataset.ids)["train"]
    if len(ids) < 100:
        warnings.warn(f"fivek: {len(ids)} photographs to train on, of thousands: is this a sample?", stacklevel=2)
    found = [
        cache.build(dataset.paths_of(name, ids), cache_dir(f"fivek-{name}-{size}"), (size, size))
        for name in dataset.renditions
    ]
    return pairs.Renditions(*found)


def cache_dir(name: str) -> Path:
    """Where decoded pictures are kept. It is ours to write, which `$CTLIB_DATA` may not be."""
    return paths.ROOT / "_build" / "cache" / re.sub(r"[^\w.-]+", "_", name)


def fivek_luts() -> Tensor | None:
    """Tables of the FiveK 3D-LUT model if they lie in the data folder; without them retouching does without."""
    path = paths.data_dir() / "weights" / "fivek_3dlut_paired_srgb.safetensors"
    return augment.fivek_luts(path) if path.is_file() else None


def options_of(function: Callable) -> tuple[str, ...]:
    """Names of the options that a `run` takes, for the message about an unknown one."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)


def run(
    folder: Path | str,
    make: Callable[..., Objective] = Objective,
    /,
    *,
    data: str = "fivek",
    sets: Sequence[str] = ("photos",),
    size: int = 286,
    side: int = 256,
    conditioning: str = "tile",
    width: str = "paper",
    bins: int = 64,
    root: bool = False,
    residual: bool = False,
    curves: bool = False,
    init: str = "normal",
    recipe: str = "paper",
    histogram: float = 1.5,
    multi_scale: float = 0.5,
    centers: str = "official",
    shares: Sequence[float] = (0.55, 0.2, 0.1, 0.15),
    **settings,
) -> tuple[HistogramAnalogy, list[dict]]:
    """One training from its options, all plain values; the defaults are the paper's.

    Args:
        folder: see `ctlib.train.fit`; a run that was interrupted there goes on.
        make: no option: what makes the objective of the network, for recipes that build on this one.
        data: `"fivek"`, pairs of its renditions, or `"photos"`, retouched photographs of `sets`.
        sets: see `photographs`.
        size: of the cached squares in pixels; `side` of the training squares cut out of them.
        conditioning, width, bins, root, residual, curves, init: of `HistogramAnalogy`.
        recipe, histogram, multi_scale, centers, shares: of `Objective`.
        settings: of `ctlib.settings.Settings`.

    Returns:
        The trained network and what was logged.

    Raises:
        ValueError: an unknown option. DataError, CheckpointError, TrainingError: see `ctlib.train.fit`.
    """
    settings = parse_settings(also=options_of(run), **settings)
    size, side, bins = whole("size", size), whole("side", side), whole("bins", bins)
    root, residual, curves = flag("root", root), flag("residual", residual), flag("curves", curves)
    histogram, multi_scale = number("histogram", histogram), number("multi_scale", multi_scale)
    shares = [number("shares", share) for share in (shares if isinstance(shares, list | tuple) else [shares])]
    if data not in ("fivek", "photos"):
        raise ValueError(f"data: expected fivek or photos, got {data!r}")
    if size < side:
        raise ValueError(f"size, side: squares of {side} pixels cannot be cut out of {size}")
    if len(shares) != len(pairs.KINDS) or abs(sum(shares) - 1) > 1e-6 or min(shares) < 0:
        raise ValueError(f"shares: expected one for each of {', '.join(pairs.KINDS)}, adding up to 1, got {shares}")
    torch.manual_seed(settings.seed)
    model = HistogramAnalogy(conditioning, width, bins, root, residual, curves, init)
    objective = make(
        model,
        side=side,
        recipe=recipe,
        histogram=histogram,
        multi_scale=multi_scale,
        centers=centers,
        shares=tuple(shares),
        luts=fivek_luts() if data == "photos" else None,
    )
    dataset = renditions(size) if data == "fivek" else photographs(sets, size)
    samples = grid(objective, dataset) if settings.sample_every else None
    return model, train.fit(objective, dataset, settings, folder, samples=samples)


def grid(objective: Objective, dataset, count: int = 6):
    """What TensorBoard shows while a network is trained: source, result and target of the same pairs each time."""
    batch = torch.utils.data.default_collate([dataset[number % len(dataset), number] for number in range(count)])

    def picture(network: HistogramAnalogy) -> Tensor:
        device = next(network.parameters()).device
        pair = objective.pair({name: value.to(device) for name, value in batch.items()})
        with torch.no_grad():
            result, _ = network.transfer(pair.source, pair.reference)
        rows = [torch.cat(lab.unbind(0), dim=2) for lab in (pair.source, from_unit(result.float()), pair.target)]
        return ops.lab_to_rgb(torch.cat(rows, dim=1)[None]).clamp(0, 1)[0]

    return picture
