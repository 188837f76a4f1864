r"""How Zhang 2016 is trained: each pixel's color is a class, rare colors count more.

The target of a pixel is a soft one, the k nearest of 313 bins, at every fourth pixel along both sides. The loss is

$$L = -\operatorname{mean}_{h,w} v(Z_{hw}) \sum_q Z_{hwq} \log \hat Z_{hwq}, \qquad v(Z) = w_{\arg\max_q Z_q}$$

with the weights $w$ of `ctlib.data.colors.rebalanced`, measured on the pictures that are trained on. In the released
code the weights act on the gradient alone, so that the loss it reports is the plain one (`boost="gradient"`); a picture
without color has the weight 0.

Source: Zhang, Isola, Efros, Colorful Image Colorization, ECCV 2016; solver and layers of the released Caffe network.
Taught in: notebooks/41_classification_colorization.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from ctlib import chroma, ops, train
from ctlib.atomic import replacing
from ctlib.data import colors, pairs
from ctlib.models.zhang2016 import MULTIPLE, TEMPERATURE, Zhang2016
from ctlib.recipes import histogram_analogy
from ctlib.recipes.distill import fingerprint
from ctlib.settings import number, parse_settings, whole

BOOSTS = ("gradient", "loss")


class Objective(nn.Module):
    r"""A batch of the loader to one number, for `ctlib.train.fit`.

    Args:
        model: to be trained.
        weights: `(313,)` of the bins, see `ctlib.data.colors.rebalanced`; None weighs all alike.
        side: pixels of the training squares, that 8 divides.
        crop: 0 takes the whole picture, 1 a random square of 60 to 100 % of it; mirrored or not in any case.
        k: how many bins a color is spread over; the paper says 5, the released code takes 10.
        boost: `"gradient"`, the weights act on the gradient and the loss is reported without; `"loss"`, on both.
        weight_decay: adds half of this times the sum of squares of the kernels (L2).

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        model: Zhang2016,
        weights: Tensor | None = None,
        *,
        side: int = 176,
        crop: float = 1.0,
        k: int = 5,
        boost: str = "gradient",
        weight_decay: float = 0.0,
    ):
        super().__init__()
        whole("k", k, 1, 313)
        if boost not in BOOSTS:
            raise ValueError(f"boost: expected one of {', '.join(BOOSTS)}, got {boost!r}")
        self.model, self.side, self.k, self.boost = model, square(side), k, boost
        self.crop, self.weight_decay = number("crop", crop, 1), number("weight_decay", weight_decay)
        weights = torch.ones(colors.BINS) if weights is None else weights.float()
        if not torch.isfinite(weights).all():  # a Gaussian leaves far bins shares of 1e-300: no float32 holds 1 / that
            raise ValueError("lam: with 0, colors that hardly occur weigh infinitely; take more, e.g. 0.1")
        self.register_buffer("weights", weights, persistent=False)  # its sum is part of what a run is known by

    def forward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its terms, of `{"rgb": uint8 (B, H, W, 3), "seed": (B,)}`.

        Terms: `cross_entropy`, plain, to be compared between runs; `rebalanced`, weighted; `decay` if there is one.
        """
        with torch.no_grad(), torch.autocast(batch["rgb"].device.type, enabled=False):
            lab = ops.rgb_to_lab(squares(batch, self.side, self.crop))
            ab = lab[:, 1:, ::4, ::4].contiguous()
            index, share = ops.encode_ab(ab, self.k)
            boost = self.weights[index[:, 0]] * ~colors.is_gray(ab)[:, None, None]
        each = cross_entropy(self.model(lab[:, :1]), index, share)
        plain, weighted = each.mean(), (boost * each).mean()
        loss = weighted
        if self.boost == "gradient":  # the value of one with the gradient of the other
            loss = weighted + (plain - weighted).detach()
        terms = {"cross_entropy": plain, "rebalanced": weighted} | decay(self.model, self.weight_decay)
        return loss + terms.get("decay", 0), {name: term.detach() for name, term in terms.items()}


def cross_entropy(logits: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """Cross-entropy of each pixel with what `ctlib.ops.encode_ab` returns, `(B, H, W)`; no planes of all bins."""
    # bins last, as they lie in memory: half the time
    index, share = index.movedim(1, -1), share.movedim(1, -1)
    return -(share * logits.float().movedim(1, -1).log_softmax(-1).gather(-1, index)).sum(-1)


def squares(batch: dict, side: int, crop: float) -> Tensor:
    """The pictures of a batch, each a function of its seed: `(B, 3, side, side)` sRGB in [0, 1]."""
    uniform, _ = pairs.draw(batch["seed"].tolist(), batch["rgb"].device)
    uniform[:, 0] = 1 - crop * (1 - uniform[:, 0])
    return pairs.crop(batch["rgb"], uniform, side)


def decay(network: nn.Module, strength: float) -> dict[str, Tensor]:
    """L2 of the kernels, as a term by its name; none with a strength of 0."""
    if not strength:
        return {}
    kernels = [weight for weight in network.parameters() if weight.requires_grad and weight.ndim > 1]
    return {"decay": strength / 2 * torch.stack([kernel.square().sum() for kernel in kernels]).sum()}


@torch.no_grad()
def validate(
    network: Zhang2016,
    dataset: pairs.Photos,
    *,
    side: int = 176,
    k: int = 5,
    temperature: float = TEMPERATURE,
    batch: int = 8,
    seed: int = 0,
) -> dict[str, float]:
    """Means over the pictures of a data set, whole ones.

    Returns:
        `cross_entropy`, plain; `ab_rmse`, the error of a and b in CIELAB units after decoding; `gray_ab_rmse`, that of
        the gray picture.
    """
    network.eval()
    device, sums = next(network.parameters()).device, torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(dataset), batch):
        numbers = range(start, min(start + batch, len(dataset)))
        items = default_collate([dataset[number, (seed << 32) + number] for number in numbers])
        lab = ops.rgb_to_lab(squares({**items, "rgb": items["rgb"].to(device)}, side, 0.0))
        index, share = ops.encode_ab(lab[:, 1:, ::4, ::4].contiguous(), k)
        logits = network(lab[:, :1]).float()
        ab = chroma.resize(ops.annealed_mean(logits, temperature / network.folded), lab.shape[2:])
        errors = [cross_entropy(logits, index, share).mean()]
        errors += [(found - lab[:, 1:]).square().mean() for found in (ab, torch.zeros_like(ab))]
        sums += len(numbers) * torch.stack(errors).cpu().double()
    entropy, error, gray = (sums / len(dataset)).tolist()
    return {"cross_entropy": entropy, "ab_rmse": error**0.5, "gray_ab_rmse": gray**0.5}


def run(
    folder: Path | str,
    /,
    *,
    begin: str = "",
    sets: Sequence[str] = ("photos",),
    part: str = "train",
    size: int = 256,
    side: int = 176,
    crop: float = 1.0,
    width: float | None = None,
    init: str | None = None,
    k: int = 5,
    lam: float = 0.5,
    sigma: float = 5.0,
    support: str = "all",
    counted: int = 10_000,
    boost: str = "gradient",
    weight_decay: float = 1e-3,
    **settings,
) -> tuple[Zhang2016, list[dict]]:
    r"""One training from its options, all plain values; the defaults are the published ones, where they are known.

    Args:
        folder: see `ctlib.train.fit`; a run that was interrupted there goes on. At the end it also holds `prior.json`,
            the shares and the weights of the bins.
        begin: weights to start from, see `Zhang2016.from_pretrained`; they say width and init.
        sets, part, size: pictures, see `ctlib.recipes.histogram_analogy.photographs`, kept as squares of `size` pixels.
        side, crop, k, boost, weight_decay: of `Objective`.
        width, init: of `Zhang2016`.
        lam, support: of `ctlib.data.colors.rebalanced`; lam=1 weighs all colors alike.
        sigma: of `ctlib.data.colors.smoothed`.
        counted: pictures at most that colors are counted on.
        settings: of `ctlib.settings.Settings`; batch 40, lr 3e-5 and betas (0.9, 0.99) unless given.

    Returns:
        The trained network and what was logged.

    Raises:
        ValueError: an unknown option, or one that contradicts the weights to begin from.
        DataError, CheckpointError, TrainingError: see `ctlib.train.fit`.
    """
    published = {"batch": 40, "lr": 3e-5, "betas": (0.9, 0.99)}
    settings = parse_settings(also=histogram_analogy.options_of(run), **published | settings)
    whole("counted", counted, 1)
    whole("size", size, square(side))
    lam, sigma = number("lam", lam, 1), number("sigma", sigma)
    torch.manual_seed(settings.seed)
    network = network_of(Zhang2016, begin, width=width, init=init)
    options = {"side": side, "crop": crop, "k": k, "boost": boost, "weight_decay": number("weight_decay", weight_decay)}
    Objective(network, **options)  # a wrong option is said before the pictures are read
    dataset = histogram_analogy.photographs(sets, size, part)
    shares = colors.smoothed(colors.prior(dataset, limit=counted), sigma)
    weights = colors.rebalanced(shares, lam, support=support)
    objective = Objective(network, weights, **options)
    if begin:
        objective.begun = fingerprint(network)  # a run from other weights is another run
    samples = grid(objective, dataset) if settings.sample_every else None
    history = train.fit(objective, dataset, settings, folder, samples=samples)
    if int(os.environ.get("RANK", 0)) == 0:
        with replacing(Path(folder) / "prior.json") as temporary:
            temporary.write_text(json.dumps({"prior": shares.tolist(), "weights": weights.tolist()}) + "\n")
    return network, history


def network_of(kind: type[nn.Module], begin: str, **own) -> nn.Module:
    """A network from its options (None is the default), or from weights that these may not contradict.

    A `.pth` file does not say what it is of; there the options do.
    """
    own = {name: value for name, value in own.items() if value is not None}
    if not begin:
        return kind(**own)
    network = kind.from_pretrained(begin, **(own if begin.endswith(".pth") else {}))
    config = network._hub_mixin_config or {}
    for name, value in own.items():
        if value != config.get(name, value):
            raise ValueError(f"{name}: {begin} has {config[name]!r}, not {value!r}; leave it out with begin")
    return network


def square(side) -> int:
    """The side of training squares."""
    if whole("side", side, 4 * MULTIPLE) % MULTIPLE:
        raise ValueError(f"side: three halvings need squares that 8 divides, got {side}")
    return side


def grid(objective: Objective, dataset: pairs.Photos, count: int = 6):
    """What TensorBoard shows: gray picture, result and truth, the same pictures each time."""
    batch = default_collate([dataset[number % len(dataset), number] for number in range(count)])

    def picture(network: Zhang2016) -> Tensor:
        rgb = batch["rgb"].to(next(network.parameters()).device)
        rgb = squares({**batch, "rgb": rgb}, objective.side, 0.0)
        return rows(rgb, network.ab(chroma.lightness(rgb)))

    return picture


def rows(rgb: Tensor, *results: Tensor) -> Tensor:
    """Gray pictures, results in a and b, and the truth, one below the other: `(3, H, W)` sRGB."""
    lightness = chroma.lightness(rgb)
    gray = torch.zeros_like(rgb[:, :2])
    shown = [chroma.join(lightness, ab.float()) for ab in (gray, *results)] + [rgb]
    return torch.cat([torch.cat(one.unbind(0), dim=2) for one in shown], dim=1)
