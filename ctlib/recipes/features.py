r"""How the compact encoder learned to see: it imitates VGG19, layer by layer.

At five layers the encoder's features, through a linear map that is trained beside it and thrown away, shall be the
teacher's:

$$L = \frac15 \sum_l \frac{\operatorname{mean} (M_l f_l - t_l)^2}{\operatorname{mean} (t_l - \bar t_l)^2}$$

The denominator is the teacher's energy about the mean of each channel in the batch, so a term says what share of what
varies was missed. The maps begin as the least-squares solution on some of the photographs. In the saved encoder each
channel is multiplied by the length of its column in $M_l$: it then weighs in a distance of features as much as what it
says about the teacher's.

The teacher is VGG19, "normalized" as for style transfer, up to relu3_1; for relu4_1 and relu5_1 it is an encoder of a
16th of the size that was itself distilled from VGG19 (Wang et al. 2020), mapped to VGG19's channels by its own maps.
Neither comes with the book: this recipe needs their two files, see `TEACHERS`.

Sources: Hinton, Vinyals, Dean 2015 for the idea; Li et al. 2017 (Universal Style Transfer) and Wang et al. 2020
(Collaborative Distillation) for the teachers.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import default_collate

from ctlib import ops, paths, train
from ctlib.checkpoints import load_weights
from ctlib.data import pairs
from ctlib.data.registry import DataError
from ctlib.models.features import Features
from ctlib.recipes import histogram_analogy
from ctlib.recipes.distill import fingerprint
from ctlib.settings import parse_settings, whole

#: files in `$CTLIB_DATA/weights`
TEACHERS = (
    "vgg19_normalised_conv1_1-conv3_1.safetensors",
    "collab_distill_small16x_vgg19_wct_fp16.safetensors",
)
LEVELS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
FIRST = 16  # pictures that the maps begin from
SETS = ("imagenet_samples", "scenes256", "bsds500", "coco")


class Teacher(nn.Module):
    """VGG19 to relu3_1 and the distilled one behind it: sRGB `(B, 3, H, W)` to five layers in VGG19's channels.

    Args:
        large, small: tensors of the two files of `TEACHERS`.
    """

    def __init__(self, large: dict[str, Tensor], small: dict[str, Tensor]):
        super().__init__()
        layers = {"0": "preprocess"} | {
            name: f"features.{place}" for name, place in (("11", 0), ("12", 2), ("21", 5), ("22", 7), ("31", 10))
        }
        self.large = nn.ParameterDict(
            {f"{to}_{kind}": large[f"{name}.{kind}"] for to, name in layers.items() for kind in ("weight", "bias")}
        )
        self.small = nn.ParameterDict(
            {
                name.removeprefix("enc5.conv").replace(".", "_"): value.float()
                for name, value in small.items()
                if name.startswith("enc5.")
            }
        )
        self.requires_grad_(False)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        large = _run(self.large, rgb, ("11", "12", "pool", "21", "22", "pool", "31"))
        names = ("11", "12", "pool", "21", "22", "pool", "31", "32", "33", "34", "pool", "41", "42", "43", "44")
        small = _run(self.small, rgb, (*names, "pool", "51"))
        mapped = [
            functional.conv2d(small[name], self.small[f"{name}_aux_weight"], self.small[f"{name}_aux_bias"])
            for name in ("41", "51")
        ]
        found = dict(zip(LEVELS, [*(large[name] for name in ("11", "21", "31")), *mapped], strict=True))
        return list(_thinned(found).values())


def _run(weights: nn.ParameterDict, rgb: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    features, found = functional.conv2d(rgb, weights["0_weight"], weights["0_bias"]), {}
    for layer in layers:
        if layer == "pool":
            features = functional.max_pool2d(features, 2)
            continue
        features = functional.pad(features, (1, 1, 1, 1), mode="reflect")
        features = functional.relu(functional.conv2d(features, weights[f"{layer}_weight"], weights[f"{layer}_bias"]))
        found[layer] = features
    return found


def _thinned(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every second row and column of the finest layer: neighbors say nearly the same, and it is most of the work."""
    return {name: value[..., ::2, ::2] if name == "relu1_1" else value for name, value in found.items()}


class Imitator(nn.Module):
    """The encoder and its maps to VGG19's channels, as one module to be trained; saved is the encoder alone."""

    def __init__(self, encoder: Features):
        super().__init__()
        self.encoder = encoder
        self.maps = nn.ModuleList(
            nn.Conv2d(encoder.channels(layer), width, 1)
            for layer, width in zip(LEVELS, (64, 128, 256, 512, 512), strict=True)
        )
        self._hub_mixin_config = dict(encoder._hub_mixin_config)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        found = _thinned(self.encoder(rgb, LEVELS)).values()
        return [one(features) for features, one in zip(found, self.maps, strict=True)]

    @torch.no_grad()
    def begin(self, rgb: Tensor, teacher: Teacher) -> None:
        """Set the maps to what fits best, in the sense of least squares with a slight pull to 0, on some pictures."""
        found = _thinned(self.encoder(rgb, LEVELS)).values()
        for features, taught, one in zip(found, teacher(rgb), self.maps, strict=True):
            given, wanted = (layer.transpose(0, 1).flatten(1).double() for layer in (features, taught))
            mean, aim = given.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
            given, wanted = given - mean, wanted - aim
            spread = given @ given.T
            pull = 0.01 * spread.diagonal().mean() * torch.eye(len(spread), dtype=torch.double)
            weight = torch.linalg.solve(spread + pull, given @ wanted.T).T
            one.weight.copy_(weight[:, :, None, None])
            one.bias.copy_((aim - weight @ mean).flatten())

    @torch.no_grad()
    def balanced(self) -> Features:
        """A copy of the encoder whose channels have the scale that the maps give them; its deeper layers say the same.

        A layer of ReLUs that is multiplied by a positive number can be divided by it again in the next.
        """
        encoder = copy.deepcopy(self.encoder)
        for level, one in enumerate(self.maps, 1):
            length = one.weight.flatten(1).norm(dim=0)
            length = length.clamp(min=max(0.01 * length.max().item(), 1e-6))  # deeper layers may live on the others
            conv = encoder.get_submodule(f"conv{level}_1")
            conv.weight.mul_(length[:, None, None, None])
            conv.bias.mul_(length)
            if level < len(self.maps):
                encoder.get_submodule(f"conv{level}_2").weight.div_(length[:, None, None])
        return encoder

    def save_pretrained(self, folder: Path | str, **options) -> Path:
        return self.balanced().save_pretrained(folder, **options)


class Objective(nn.Module):
    """A batch of the loader to one number, for `ctlib.train.fit`.

    Args:
        model: to be trained.
        teacher: what it imitates.
        side: pixels of the training squares.

    Raises:
        ValueError: a side that is too small.
    """

    def __init__(self, model: Imitator, teacher: Teacher, *, side: int = 128):
        super().__init__()
        if side < 32:
            raise ValueError(f"side: four halvings need squares of at least 32 pixels, got {side}")
        self.model, self.side = model, side
        self.teacher = teacher
        self.teacher_sha256 = fingerprint(teacher)  # a run with another teacher is another run

    def forward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its terms, of `{"rgb": uint8 (B, H, W, 3), "seed": (B,)}`: the share missed at each layer."""
        rgb = self.pictures(batch).contiguous(memory_format=torch.channels_last)  # faster on a CPU, and no other number
        with torch.no_grad():
            taught = self.teacher(rgb)
        terms = dict(zip(LEVELS, map(missed, self.model(rgb), taught), strict=True))
        return torch.stack(list(terms.values())).mean(), {name: term.detach() for name, term in terms.items()}

    @torch.no_grad()
    def pictures(self, batch: dict) -> Tensor:
        """Random squares of photographs; in two of five, a and b are multiplied by 0 to 1.6.

        Gray and dull pictures are among what a loss for colorization must see.
        """
        with torch.autocast(batch["rgb"].device.type, enabled=False):
            uniform, _ = pairs.draw(batch["seed"].tolist(), batch["rgb"].device)
            rgb = pairs.crop(batch["rgb"], uniform, self.side)
            factor = torch.where(uniform[:, 4] < 0.4, 1.6 * uniform[:, 5], 1.0)[:, None, None, None]
            lab = ops.rgb_to_lab(rgb)
            changed = ops.lab_to_rgb(torch.cat([lab[:, :1], factor * lab[:, 1:]], dim=1)).clamp(0, 1)
            return torch.where(factor == 1, rgb, changed)


def missed(result: Tensor, taught: Tensor) -> Tensor:
    """Share of the energy of `taught` `(B, C, H, W)` about its channels' means that `result` does not explain."""
    result, taught = result.float(), taught.float()
    around = taught - taught.mean(dim=(0, 2, 3), keepdim=True)
    return (result - taught).square().mean() / around.square().mean()


def teacher() -> Teacher:
    """The teacher from its files.

    Raises:
        DataError: they are not there.
    """
    files = [paths.data_dir() / "weights" / name for name in TEACHERS]
    if missing := [file.name for file in files if not file.is_file()]:
        raise DataError(
            f"{', '.join(missing)}: no such teacher in {files[0].parent}; put both files of "
            "ctlib.recipes.features.TEACHERS there, or set CTLIB_DATA to the folder that holds weights/"
        )
    return Teacher(*map(load_weights, files))


@torch.no_grad()
def validate(
    encoder: Features, dataset: pairs.Photos, *, side: int = 128, batch: int = 16, batches: int = 4
) -> dict[str, float]:
    """What an encoder misses of the teacher at each layer, through the best linear maps that there are.

    The maps are the least-squares solution on the first half of the batches, the shares are means over the second.

    Raises:
        ValueError: fewer pictures than that. DataError: no teacher.
    """
    if len(dataset) < batch * batches or batches < 2:
        raise ValueError(f"dataset: {len(dataset)} pictures; two batches or more were asked for, {batches} of {batch}")
    model, sums = Imitator(encoder).eval(), dict.fromkeys(LEVELS, 0.0)
    objective = Objective(model, teacher(), side=side)
    places = torch.arange(batch * batches) * len(dataset) // (batch * batches)  # evenly over all sets
    order = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(0))].tolist()
    items = [objective.pictures(default_collate([dataset[place, place]])) for place in order]
    half = batch * (batches // 2)
    model.begin(torch.cat(items[:half]), objective.teacher)
    rest = torch.cat(items[half:]).split(batch)
    for rgb in rest:
        for layer, own, wanted in zip(LEVELS, model(rgb), objective.teacher(rgb), strict=True):
            sums[layer] += missed(own, wanted).item() / len(rest)
    return sums


def run(
    folder: Path | str,
    /,
    *,
    sets: Sequence[str] = SETS,
    part: str = "train",
    size: int = 160,
    side: int = 128,
    widths: Sequence[int] = (24, 48, 96, 192, 192),
    **settings,
) -> tuple[Features, list[dict]]:
    """One training from its options, all plain values.

    Args:
        folder: see `ctlib.train.fit`; a run that was interrupted there goes on.
        sets, part, size: see `ctlib.recipes.histogram_analogy.photographs`.
        side: of `Objective`. widths: of `Features`.
        settings: of `ctlib.settings.Settings`; a rate of 0.001 that falls to 0 unless given.

    Raises:
        ValueError: an unknown option. DataError: no teacher, or no pictures.
        CheckpointError, TrainingError: see `ctlib.train.fit`.
    """
    usual = {"lr": 1e-3, "betas": (0.9, 0.999), "schedule": "cosine"}
    settings = parse_settings(also=histogram_analogy.options_of(run), **usual | settings)
    for name, value in (("size", size), ("side", side)):
        whole(name, value)
    if size < side:
        raise ValueError(f"size, side: squares of {side} pixels are not to be had from {size}")
    taught = teacher()
    torch.manual_seed(settings.seed)
    model = Imitator(Features(list(widths)))
    dataset = histogram_analogy.photographs(sets, size, part)
    objective = Objective(model, taught, side=side)
    model.begin(objective.pictures(default_collate([dataset[n % len(dataset), n] for n in range(FIRST)])), taught)
    history = train.fit(objective, dataset, settings, folder)
    return model.balanced().eval(), history
