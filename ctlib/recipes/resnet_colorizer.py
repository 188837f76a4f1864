r"""How the network of the loss study is trained: the code of a picture, and three opinions on what is near.

- `"l2"`: mean squared error of the code, R, G and B in [-1, 1] or (ab + 128) / 256: the study's.
- `"huber"`: the same, but linear beyond `delta`, in gray levels / 127.5 or in CIELAB units / 256.
- `"lpips"`: LPIPS of the picture, with SqueezeNet, whose file is small (the study took VGG).
- `"compact"`: the distance of features that comes with the book, see `ctlib.perceptual_losses`.

The last two see a Lab code through a differentiable conversion to sRGB, with the true lightness.

Source: the training code of "Image Colorization and Mood Transfer": Adam, a rate of 0.001, batches of 8, pictures of
256 x 256 as they are.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import default_collate

from ctlib import train
from ctlib.data import pairs
from ctlib.models.resnet_colorizer import ResnetColorizer
from ctlib.perceptual_losses import CompactPerceptual, Lpips
from ctlib.recipes import histogram_analogy
from ctlib.recipes.distill import fingerprint
from ctlib.settings import flag, number, parse_settings, whole

LOSSES = ("l2", "huber", "lpips", "compact")
#: the rows of the study's table, and ours: `lpips` is that of SqueezeNet
COMBOS = {
    f"{output}_{name}": {"output": output, "loss": loss}
    for output in ("rgb", "lab")
    for name, loss in (("l2", "l2"), ("lpips_squeeze", "lpips"), ("compact", "compact"))
}


class Objective(nn.Module):
    r"""A batch of the loader to one number, for `ctlib.train.fit`.

    Args:
        model: to be trained.
        loss: of `LOSSES`.
        side: pixels of the training squares.
        augment: take random squares of 60 to 100 % of the pictures, perhaps mirrored; else the whole pictures.
        delta: of the Huber loss, in gray levels (0 to 255) or CIELAB units.
        vivid: for Lab, `"l2"` or `"huber"`: a pixel counts 1 + `vivid` C / 50 times, C its chroma, for gray pixels are
            the most, and a network that errs toward gray is right most often.
        judge: measures the pictures, for `"lpips"` and `"compact"`; what they say unless given.

    Raises:
        ValueError: an unknown loss, or an option out of its range. MissingWeights: no trunk for LPIPS.
    """

    def __init__(
        self,
        model: ResnetColorizer,
        *,
        loss: str = "l2",
        side: int = 256,
        augment: bool = False,
        delta: float = 1.0,
        vivid: float = 0.0,
        judge: nn.Module | None = None,
    ):
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}")
        if side < 32 or side % model.multiple:
            raise ValueError(f"side: expected at least 32 pixels that {model.multiple} divides, got {side}")
        self.delta, self.vivid = number("delta", delta), number("vivid", vivid)
        if self.delta < 1e-3:
            raise ValueError(f"delta: expected a number of at least 0.001, got {delta!r}")
        if self.vivid and (model.output != "lab" or loss not in ("l2", "huber")):
            raise ValueError("vivid: weighs a and b of pixels; it goes with output lab and loss l2 or huber")
        self.model, self.loss, self.side, self.augment = model, loss, side, augment
        if judge is None and loss in ("lpips", "compact"):
            judge = Lpips("squeeze") if loss == "lpips" else CompactPerceptual()
        self.judge = judge
        if judge is not None:
            self.judge_sha256 = fingerprint(judge)  # a run with another judge is another run
        self.begun = fingerprint(model)  # and so is one from other weights

    def forward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its one term, of `{"rgb": uint8 (B, H, W, 3), "seed": (B,)}`."""
        rgb, given, wanted = self.pair(batch)
        term = self.compare(self.model(given).float(), wanted, given, rgb)
        return term, {self.loss: term.detach()}

    @torch.no_grad()
    def pair(self, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures of a batch `(B, 3, side, side)` sRGB, what the network is given, and the right code."""
        with torch.autocast(batch["rgb"].device.type, enabled=False):
            if self.augment:
                uniform, _ = pairs.draw(batch["seed"].tolist(), batch["rgb"].device)
                rgb = pairs.crop(batch["rgb"], uniform, self.side)
            else:
                rgb = batch["rgb"].permute(0, 3, 1, 2).float() / 255
                if rgb.shape[2:] != (self.side, self.side):
                    size = (self.side, self.side)
                    rgb = functional.interpolate(rgb, size, mode="bilinear", align_corners=False, antialias=True)
            return rgb, *self.model.encode(rgb)

    def compare(self, code: Tensor, wanted: Tensor, given: Tensor, rgb: Tensor) -> Tensor:
        """The loss of a code: its right value, what the network was given, and the picture `(B, 3, H, W)`."""
        if self.loss in ("lpips", "compact"):
            with torch.autocast(code.device.type, enabled=False):
                picture = self.model.decode(code, given)
            return self.judge(picture, rgb).mean()
        if self.loss == "l2":
            each = (code - wanted).square()
        else:
            delta = self.delta / (127.5 if self.model.output == "rgb" else 256)
            each = functional.huber_loss(code, wanted, reduction="none", delta=delta) / delta
        if self.vivid:
            chroma = (256 * wanted - 128).square().sum(1, keepdim=True).sqrt()
            each = each * (1 + self.vivid * chroma / 50)
        return each.mean()


def run(
    folder: Path | str,
    /,
    *,
    sets: Sequence[str] = ("photos",),
    part: str = "train",
    size: int = 256,
    side: int = 256,
    augment: bool = False,
    output: str = "rgb",
    encoder: str = "frozen-random",
    weights: str = "",
    bn: str = "moving",
    skips: bool = False,
    width: float = 1.0,
    bug_compat: bool = False,
    loss: str = "l2",
    delta: float = 1.0,
    vivid: float = 0.0,
    **settings,
) -> tuple[ResnetColorizer, list[dict]]:
    """One training from its options, all plain values; the defaults are the study's, which trained for 10 epochs.

    Args:
        folder: see `ctlib.train.fit`; a run that was interrupted there goes on.
        sets, part, size: see `ctlib.recipes.histogram_analogy.photographs`.
        output, encoder, bn, skips, width, bug_compat: of `ResnetColorizer`.
        weights: file with ImageNet's, see `ctlib.models.imagenet.weights`; found or downloaded unless given.
        side, augment, loss, delta, vivid: of `Objective`.
        settings: of `ctlib.settings.Settings`; a rate of 0.001 and Adam's usual moments unless given.

    Returns:
        The trained network and what was logged.

    Raises:
        ValueError: an unknown option. DataError: no pictures. MissingWeights: no ImageNet weights, or no LPIPS.
        CheckpointError, TrainingError: see `ctlib.train.fit`.
    """
    settings = parse_settings(also=histogram_analogy.options_of(run), **{"lr": 1e-3, "betas": (0.9, 0.999)} | settings)
    for name, value in (("augment", augment), ("skips", skips), ("bug_compat", bug_compat)):
        flag(name, value)
    if whole("size", size) < whole("side", side):
        raise ValueError(f"size, side: squares of {side} pixels are not to be had from {size}")
    torch.manual_seed(settings.seed)
    network = ResnetColorizer(output, encoder, bn, skips, width, bug_compat)
    if weights or not network.random:  # which takes none, and says so
        network.load_imagenet(weights)
    objective = Objective(network, loss=loss, side=side, augment=augment, delta=delta, vivid=vivid)
    dataset = histogram_analogy.photographs(sets, size, part)
    samples = grid(objective, dataset) if settings.sample_every else None
    history = train.fit(objective, dataset, settings, folder, samples=samples)
    return network.eval(), history


def grid(objective: Objective, dataset: pairs.Photos, count: int = 6):
    """What TensorBoard shows while a network is trained: gray, result and truth of the same pictures each time."""
    batch = default_collate([dataset[number % len(dataset), number] for number in range(count)])

    def picture(network: ResnetColorizer) -> Tensor:
        device = next(network.parameters()).device
        rgb, given, _ = objective.pair({name: value.to(device) for name, value in batch.items()})
        with torch.no_grad():
            result = network.decode(network(given).float(), given).clamp(0, 1)
        gray = (given / (1 if network.output == "rgb" else 100)).expand(-1, 3, -1, -1)
        return torch.cat([torch.cat(row.unbind(0), dim=2) for row in (gray, result, rgb)], dim=1)

    return picture
