r"""How PaletteNet is trained, in two stages, on hue variants of photographs (see `ctlib.data.palettes`).

1. Encoder and decoder with the Euclidean loss, $L_E = \frac{1}{N} \lVert \widehat{ab} - ab_t \rVert^2$.
2. From the weights of stage 1, with the encoder frozen, the decoder against a discriminator that sees a picture $I$ and
   a palette. Real is a photograph with its own palette $P$; fakes are the recolored $\hat I$ with the palette $P_t$ it
   was asked for, $\hat I$ with $P$, and $I$ with $P_t$:

   $$L_D = -\tfrac{1}{4} [\log D(I, P) + \log(1 - D(\hat I, P_t)) + \log(1 - D(\hat I, P)) + \log(1 - D(I, P_t))]$$

   $$L_G = \lambda L_E - \log D(\hat I, P_t), \quad \lambda = 10$$

   Implementations take a step for one player, then for the other. Here both take it at once, by one optimizer, see
   `Adversarial`. They share a learning rate: as Adam divides by the size of the gradient, weighing $L_D$ would not
   change the pace of the discriminator.

Source: Cho et al., PaletteNet, 2017, as its re-implementations read it.
"""

import inspect
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import default_collate

from ctlib import ops, train
from ctlib.data import artbench, cache
from ctlib.data.palettes import PalettePair, PalettePhotos, hue_pairs
from ctlib.data.registry import DataError
from ctlib.models.palettenet import KINDS, PAD, Discriminator, PaletteNet
from ctlib.recipes import histogram_analogy
from ctlib.recipes.distill import fingerprint
from ctlib.settings import flag, number, parse_settings, share, whole


class Objective(nn.Module):
    r"""Stage 1: a batch of the loader to one number, for `ctlib.train.fit`.

    Args:
        model: to be trained.
        side: pixels of the training squares. crop, saturation: see `ctlib.data.palettes.hue_pairs`.
        weight_decay: adds half of this times the sum of squares of the trained weights (L2).
        frozen: the encoder is not trained, and stays in evaluation mode.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        side: int = 256,
        crop: float = 0.0,
        saturation: bool = False,
        weight_decay: float = 0.0,
        frozen: bool = False,
    ):
        super().__init__()
        if side < 2 * PAD or side % PAD:
            raise ValueError(f"side: four halvings need squares of at least 32 pixels that 16 divides, got {side}")
        self.model, self.side, self.frozen = model, side, frozen
        self.crop, self.saturation = number("crop", crop, 1), flag("saturation", saturation)
        self.weight_decay = number("weight_decay", weight_decay)
        if frozen:
            self.generator.encoder.requires_grad_(False)
            self.begun = fingerprint(self.generator)  # a run from other weights is another run

    @property
    def generator(self) -> PaletteNet:
        return self.model

    def train(self, mode: bool = True) -> "Objective":
        super().train(mode)
        if self.frozen:  # a norm of batches would go on learning
            self.generator.encoder.eval()
        return self

    def forward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its terms, of `{"rgb": uint8 (B, H, W, 3), "palette": (B, k, 3), "seed": (B,)}`."""
        pair = self.pair(batch)
        out = self.generator(self.generator.view(pair.source), self.generator.view(pair.palette))
        terms = {"euclidean": self.euclidean(out, pair.target)} | self.decay()
        return sum(terms.values()), {name: term.detach() for name, term in terms.items()}

    @torch.no_grad()
    def pair(self, batch: dict) -> PalettePair:
        """The pictures of a batch, in full precision whatever the network computes in."""
        seeds = batch["seed"].tolist()
        with torch.autocast(batch["rgb"].device.type, enabled=False):
            options = {"crop": self.crop, "saturation": self.saturation}
            return hue_pairs(batch["rgb"], batch["palette"], seeds, self.side, **options)

    def euclidean(self, out: Tensor, target: Tensor) -> Tensor:
        """$L_E$ of an output with a target in CIELAB: of a and b, in a `bug_compat` network of R, G and B."""
        wanted = self.generator.view(target)
        return functional.mse_loss(out.float(), wanted if self.generator.bug_compat else wanted[:, 1:])

    def decay(self) -> dict[str, Tensor]:
        if not self.weight_decay:
            return {}
        squares = [weight.square().sum() for weight in self.model.parameters() if weight.requires_grad]
        return {"decay": self.weight_decay / 2 * torch.stack(squares).sum()}


class Players(nn.Module):
    """PaletteNet and its adversary, as one module: what stage 2 trains and keeps in its checkpoints.

    Saved are the weights of PaletteNet alone, so the folder of a finished training reads like that of stage 1.
    """

    def __init__(self, generator: PaletteNet, discriminator: Discriminator, **options):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        judge = {f"discriminator_{name}": value for name, value in options.items()}
        self._hub_mixin_config = dict(generator._hub_mixin_config) | judge

    def compile(self, *args, **options) -> None:
        """Each player for itself, as the loss calls them."""
        self.generator.compile(*args, **options)
        self.discriminator.compile(*args, **options)

    def save_pretrained(self, folder: Path | str, **options) -> Path:
        return self.generator.save_pretrained(folder, **options)


class Adversarial(Objective):
    r"""Stage 2, both players in one backward pass.

    Where the decoder learns from the discriminator's opinion, that is computed with detached weights of the
    discriminator: the gradient flows through it to the picture, and not into it. Where the discriminator learns, it
    sees a detached picture. So each weight gets the gradient of its own player's loss and nothing else, and the sum of
    both losses is an objective like any other: one Adam, one checkpoint, one place to go on from. What differs from
    steps in turn: both players answer to the same state of the other.

    Args:
        model: see `Players`.
        fidelity: $\lambda$.
        options: of `Objective`; the encoder is frozen.
    """

    def __init__(self, model: Players, *, fidelity: float = 10.0, **options):
        super().__init__(model, **options | {"frozen": True})
        self.fidelity = number("fidelity", fidelity)

    @property
    def generator(self) -> PaletteNet:
        return self.model.generator

    def forward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """As that of `Objective`. `real` and `fake` are what the discriminator believes of photographs and of results.

        `loss` is a sum over two players, who want opposite things: it need not fall. Look at the terms.
        """
        pair, judge = self.pair(batch), self.model.discriminator
        view, own, wanted = (self.generator.view(lab) for lab in (pair.source, pair.own, pair.palette))
        out = self.generator(view, wanted)
        made = self.generator.whole(out, view)
        still = {name: weight.detach() for name, weight in judge.named_parameters()}
        opinion = torch.func.functional_call(judge, still, (made, wanted)).float()
        real = judge(view, own).float()
        fakes = [(made.detach(), wanted), (made.detach(), own), (view, wanted)]
        fakes = [judge(*fake).float() for fake in fakes]
        terms = {
            "euclidean": self.euclidean(out, pair.target),
            "fooling": functional.softplus(-opinion).mean(),  # -log of the sigmoid of a logit
            "discriminator": (functional.softplus(-real) + sum(map(functional.softplus, fakes))).mean() / 4,
        } | self.decay()
        loss = sum(terms.values()) + (self.fidelity - 1) * terms["euclidean"]
        terms |= {"real": real.sigmoid().mean(), "fake": fakes[0].sigmoid().mean()}
        return loss, {name: term.detach() for name, term in terms.items()}


def pictures(
    data: str = "photos",
    sets=("photos",),
    size: int = 256,
    *,
    part: str = "train",
    colors: int = 6,
    palettes: str = "chang",
) -> PalettePhotos:
    """Photographs or paintings with their palettes, kept as squares of `size` pixels.

    Args:
        data: `"photos"`, pictures of `sets`, see `ctlib.recipes.histogram_analogy.caches`: 80 % train, 10 % validate,
            10 % test; or `"artbench"`, ArtBench-10 in its 256-pixel edition, or `"artbench32"`, in its 32-pixel one:
            its own test split is the test, and 10 % of its train split validate. (The ArtBench report trained on the
            test split: `part="test"`.)
        part: `"train"`, `"val"`, `"test"` or `"all"`; for ArtBench the last is its whole train split.
        colors, palettes: number of colors and how they are found, see `ctlib.data.palettes.palette_of`.

    Raises:
        ValueError: an unknown option. DataError: pictures are missing, or none fall into the part.
    """
    if data not in ("photos", "artbench", "artbench32"):
        raise ValueError(f"data: expected photos, artbench or artbench32, got {data!r}")
    fractions = None
    if data != "photos":
        official = "test" if part == "test" else "train"
        folder = histogram_analogy.cache_dir(f"{data}-{official}-{size}")
        if data == "artbench":
            kept = [cache.build(artbench.ArtBench(split=official), folder, (size, size))]
        elif size != 32:
            raise ValueError(f"size: the pictures of artbench32 have 32 pixels, got {size}; set size=32 and side=32")
        else:
            small = artbench.ArtBench32(split=official)
            kept = [cache.keep(small.images, [str(name) for name in small.names], folder)]
        part, fractions = "all" if part == "test" else part, {"train": 0.9, "val": 0.1}
    else:
        kept = histogram_analogy.caches(sets, size)
    found = PalettePhotos(*kept, colors=colors, method=palettes, part=part, fractions=fractions)
    if not len(found):
        raise DataError(f"part: no colored picture falls into {part!r}; add pictures, or take 'all'")
    return found


@torch.no_grad()
def validate(
    network: PaletteNet, dataset: PalettePhotos, *, side: int = 256, batch: int = 8, seed: int = 0
) -> dict[str, float]:
    """Means over one pair of each picture, the same pairs each time.

    Returns:
        `euclidean`, the loss; `ab_rmse`, the error of a and b in CIELAB units; `identity_ab_rmse`, that of the source.
    """
    network.eval()
    objective, device = Objective(network, side=side), next(network.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(dataset), batch):
        numbers = range(start, min(start + batch, len(dataset)))
        items = default_collate([dataset[number, (seed << 32) + number] for number in numbers])
        pair = objective.pair({name: value.to(device) for name, value in items.items()})
        out = network(network.view(pair.source), network.view(pair.palette))
        ab = [
            (lab - pair.target)[:, 1:].square().mean()
            for lab in (network.transfer(pair.source, pair.palette), pair.source)
        ]
        sums += len(numbers) * torch.stack([objective.euclidean(out, pair.target), *ab]).cpu().double()
    euclidean, ab_rmse, identity = (sums / len(dataset)).tolist()
    return {"euclidean": euclidean, "ab_rmse": ab_rmse**0.5, "identity_ab_rmse": identity**0.5}


def run(
    folder: Path | str,
    /,
    *,
    begin: str = "",
    adversary: bool = True,
    data: str = "photos",
    sets=("photos",),
    part: str = "train",
    size: int = 256,
    side: int = 256,
    palettes: str = "chang",
    crop: float = 0.0,
    saturation: bool = False,
    colors: int | None = None,
    decoder_norm: str | None = None,
    variant: str | None = None,
    init: str | None = None,
    dropout: float | None = None,
    bug_compat: bool | None = None,
    weight_decay: float = 0.0,
    fidelity: float = 10.0,
    discriminator: str = "pooled",
    norms: str = "inner",
    forget: float = 0.0,
    **settings,
) -> tuple[PaletteNet, list[dict]]:
    """One training from its options, all plain values; the defaults are those that most implementations share.

    Args:
        folder: see `ctlib.train.fit`; a run that was interrupted there goes on.
        begin: weights of stage 1, a folder or a name in `data/pretrained`: train stage 2 from them. Empty for stage 1.
        adversary: in stage 2; without it, the decoder alone is trained on, with the Euclidean loss: what to compare
            the adversary with.
        data, sets, part, size, palettes: see `pictures`.
        side, crop, saturation, weight_decay: of `Objective`.
        colors, decoder_norm, variant, init, dropout, bug_compat: of `PaletteNet`, whose defaults hold; in stage 2 the
            weights say them.
        fidelity: of `Adversarial`. discriminator, norms, forget: kind, norms and dropout of `Discriminator`.
        settings: of `ctlib.settings.Settings`; a batch of 12 and a rate of 0.0002 unless given.

    Returns:
        The trained network and what was logged.

    Raises:
        ValueError: an unknown option, or one that contradicts the weights to begin from.
        DataError, CheckpointError, TrainingError: see `ctlib.train.fit`.
    """
    own = {"colors": colors, "decoder_norm": decoder_norm, "variant": variant, "init": init}
    own |= {"dropout": None if dropout is None else share("dropout", dropout)}
    own |= {"bug_compat": None if bug_compat is None else flag("bug_compat", bug_compat)}
    settings = parse_settings(also=histogram_analogy.options_of(run), **{"lr": 2e-4, "batch": 12} | settings)
    adversary, size, side = flag("adversary", adversary), whole("size", size), whole("side", side)
    fidelity, forget = number("fidelity", fidelity), share("forget", forget)
    if discriminator not in KINDS:  # which calls it `kind`
        raise ValueError(f"discriminator: expected one of {', '.join(KINDS)}, got {discriminator!r}")
    chosen = {"adversary": adversary, "fidelity": fidelity, "discriminator": discriminator, "norms": norms}
    chosen |= {"forget": forget}
    for name, value in chosen.items() if not begin or not adversary else ():
        usual = inspect.signature(run).parameters[name].default
        if value != usual and not (begin and name == "adversary"):
            needs = "an adversary; leave it out" if begin else "stage 2; name in begin the weights to start from"
            raise ValueError(f"{name}: {value!r} belongs to {needs}")
    if size < side:
        raise ValueError(f"size, side: squares of {side} pixels are not to be had from {size}")
    if begin:
        network = PaletteNet.from_pretrained(begin)
        config = network._hub_mixin_config
        for name, value in own.items():
            if value not in (None, config[name]):
                raise ValueError(f"{name}: {begin} has {config[name]!r}, not {value!r}; leave it out in stage 2")
    torch.manual_seed(settings.seed)
    options = {"side": side, "crop": crop, "saturation": saturation, "weight_decay": weight_decay}
    if not begin:
        network = PaletteNet(**{name: value for name, value in own.items() if value is not None})
        objective = Objective(network, **options)
    elif not adversary:
        objective = Objective(network, frozen=True, **options)
    else:
        chosen = {"kind": discriminator, "norms": norms, "dropout": forget}
        judge = Discriminator(network.colors, size=(side, side), **chosen)
        objective = Adversarial(Players(network, judge, **chosen), fidelity=fidelity, **options)
    dataset = pictures(data, sets, size, part=part, colors=network.colors, palettes=palettes)
    samples = grid(objective, dataset) if settings.sample_every else None
    history = train.fit(objective, dataset, settings, folder, samples=samples)
    return network.eval().requires_grad_(True), history


def grid(objective: Objective, dataset: PalettePhotos, count: int = 6):
    """What TensorBoard shows while a network is trained: source, result and target, each above its palette."""
    batch = default_collate([dataset[number % len(dataset), number] for number in range(count)])

    def picture(network: nn.Module) -> Tensor:
        network = getattr(network, "generator", network)
        device = next(network.parameters()).device
        pair = objective.pair({name: value.to(device) for name, value in batch.items()})
        with torch.no_grad():
            result = network.transfer(pair.source, pair.palette).float()
        side, colors = objective.side, network.colors
        columns = torch.arange(side, device=device) * colors // side
        rows = []
        for lab, palette in ((pair.source, pair.own), (result, pair.palette), (pair.target, pair.palette)):
            bar = palette[:, :, columns][:, :, None].expand(-1, -1, side // 8, -1)
            rows.append(torch.cat(torch.cat([lab, bar], dim=2).unbind(0), dim=2))
        return ops.lab_to_rgb(torch.cat(rows, dim=1)[None]).clamp(0, 1)[0]

    return picture
