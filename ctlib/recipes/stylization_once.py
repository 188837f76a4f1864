r"""How the student trained the transfer sub-net: with AdaIN and references, and a loss of style.

$$L = 0.2\,\big(L_{content} + 10^6 L_{style}\big) + 0.8\,L_{rec}, \quad
L_{content} = \tfrac1{CHW} \lVert \phi(\hat y) - \phi(x) \rVert^2, \quad
L_{style} = \sum_l w_l \lVert G_l(\hat y) - G_l(r) \rVert_F^2, \quad G = \tfrac1{CHW} \phi \phi^\top$$

for a picture x and a reference r, with weights 1, 0.75, 0.2, 0.2, 0.2 of conv1_1 to conv5_1, so that the network that
judges is deeper than the one that encodes. Adam with 0.001, batches of 4, one epoch. Not told, and chosen here: the
layer of content, conv4_2, which goes with these weights in a well-known tutorial; layers are taken behind their ReLU;
$L_{rec}$ is the mean squared error to the picture x, not to the reference.

Source: a student's report on Xu et al. 2020, chapters 3 to 6.

Taught in: notebooks/50_train_transfer_subnet.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctlib import train
from ctlib.data.exemplars import Exemplars
from ctlib.models import style_encoders
from ctlib.models.features import Pyramid
from ctlib.models.stylization_once import StylizationOnce
from ctlib.recipes import histogram_analogy
from ctlib.recipes.distill import fingerprint
from ctlib.recipes.stylization import grid
from ctlib.recipes.zhang2016 import network_of, square, squares
from ctlib.settings import number, parse_settings, whole

STYLE = {"relu1_1": 1.0, "relu2_1": 0.75, "relu3_1": 0.2, "relu4_1": 0.2, "relu5_1": 0.2}
CONTENT = "relu4_2"


class Objective(nn.Module):
    """A batch of the loader to one number, for `ctlib.train.fit`.

    Args:
        model: to be trained, with its encoder loaded.
        judge: to relu5_1, see `ctlib.models.style_encoders.load`.
        side, crop: of the training squares, see `ctlib.recipes.zhang2016.Objective`.
        content, style: weights within the perceptual loss. perceptual, reconstruction: weights of both losses.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        model: StylizationOnce,
        judge: Pyramid,
        *,
        side: int = 256,
        crop: float = 0.0,
        content: float = 1.0,
        style: float = 1e6,
        perceptual: float = 0.2,
        reconstruction: float = 0.8,
    ):
        super().__init__()
        self.model, self.judge = model, judge.requires_grad_(False)
        self.side, self.crop = square(side), number("crop", crop, 1)
        self.content, self.style = number("content", content), number("style", style)
        self.perceptual = number("perceptual", perceptual)
        self.reconstruction = number("reconstruction", reconstruction)
        self.begun, self.judged = fingerprint(model), fingerprint(judge)

    def forward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its terms, unweighted, of `{"rgb", "other": uint8 (B, H, W, 3), "seed": (B,)}`."""
        rgb, other = (
            squares({"rgb": batch[name], "seed": batch["seed"]}, self.side, self.crop) for name in ("rgb", "other")
        )
        result = self.model(rgb, other).float()
        with torch.no_grad():
            wanted = self.judge(rgb, [CONTENT])[CONTENT].float()
            styles = {name: gram(layer) for name, layer in self.judge(other, list(STYLE)).items()}
        seen = self.judge(result, [*STYLE, CONTENT])
        terms = {
            "content": functional.mse_loss(seen[CONTENT].float(), wanted),
            "style": sum(
                weight * (gram(seen[name]) - styles[name]).square().sum((1, 2)).mean() for name, weight in STYLE.items()
            ),
            "reconstruction": functional.mse_loss(result, rgb),
        }
        perceptual = self.content * terms["content"] + self.style * terms["style"]
        loss = self.perceptual * perceptual + self.reconstruction * terms["reconstruction"]
        return loss, {name: term.detach() for name, term in terms.items()}


def gram(features: Tensor) -> Tensor:
    """How channels go together: `(B, C, h, w)` to `(B, C, C)`, divided by C h w."""
    with torch.autocast(features.device.type, enabled=False):  # a million times their difference is the loss
        flat = features.float().flatten(2)
        return flat @ flat.mT / flat[0].numel()


def run(
    folder: Path | str,
    /,
    *,
    begin: str = "",
    sets: Sequence[str] = ("photos",),
    part: str = "train",
    size: int = 256,
    side: int = 256,
    crop: float = 0.0,
    near: int = 0,
    encoder: str | None = None,
    encoder_file: str = "",
    judge: str | None = None,
    judge_file: str = "",
    content: float = 1.0,
    style: float = 1e6,
    perceptual: float = 0.2,
    reconstruction: float = 0.8,
    **settings,
) -> tuple[StylizationOnce, list[dict]]:
    """One training from its options, all plain values; the defaults are the student's, but for the encoder.

    Args:
        folder: see `ctlib.train.fit`; a run that was interrupted there goes on.
        begin: weights to start from; they say the encoder.
        sets, part, size: see `ctlib.recipes.histogram_analogy.photographs`.
        side, crop, content, style, perceptual, reconstruction: of `Objective`.
        near: how references are drawn, see `ctlib.data.exemplars.Exemplars`.
        encoder: of `StylizationOnce`. encoder_file: its weights.
        judge: of `ctlib.models.style_encoders.DEEP`; the name of the encoder unless given. judge_file: its weights,
            those of the encoder unless given.
        settings: of `ctlib.settings.Settings`; batch 4, a rate of 0.001 and Adam's usual moments unless given.

    Returns:
        The trained network and what was logged.

    Raises:
        ValueError: an unknown option. DataError: no pictures. MissingWeights: no encoder.
        CheckpointError, TrainingError: see `ctlib.train.fit`.
    """
    published = {"batch": 4, "lr": 1e-3, "betas": (0.9, 0.999)}
    settings = parse_settings(also=histogram_analogy.options_of(run), **published | settings)
    whole("size", size, square(side))
    torch.manual_seed(settings.seed)
    network = network_of(StylizationOnce, begin, encoder=encoder)
    if not begin:
        network.load_encoder(encoder_file)
    name = network.encoder_name if judge is None else judge
    file = judge_file or (encoder_file if name == network.encoder_name else "")
    options = {"side": side, "crop": crop, "content": content, "style": style}
    options |= {"perceptual": perceptual, "reconstruction": reconstruction}
    objective = Objective(network.train(), style_encoders.load(name, file, deep=True), **options)
    dataset = Exemplars(histogram_analogy.photographs(sets, size, part), near)
    objective.near = dataset.near
    samples = grid(objective, dataset) if settings.sample_every else None
    return network, train.fit(objective, dataset, settings, folder, samples=samples)
