r"""How the transfer sub-net of exemplar colorization is trained: its decoder learns to give pictures back.

$$L = 0.8\,\tfrac{1}{3HW} \lVert \hat I - I \rVert^2 + 0.2 \operatorname{mean} (\Phi(\hat I) - \Phi(I))^2$$

$\Phi$ is the deepest layer of the encoder, which is not trained. There is no AdaIN in training and no reference: the
objective has no term for style, and what normalization does to features is left to the decoder's continuity. The paper,
as retold, has this loss, MS COCO, Adam with 0.0001, halved every 5 epochs; batch, crop and length are not known.

Source: Xu, Wang, Fang, Sheng, Zhang, Stylization-Based Architecture for Fast Deep Exemplar Colorization, CVPR 2020.

Taught in: notebooks/50_train_transfer_subnet.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import default_collate

from ctlib import train
from ctlib.data import pairs
from ctlib.models.stylization import Stylization
from ctlib.recipes import histogram_analogy
from ctlib.recipes.distill import fingerprint
from ctlib.recipes.zhang2016 import network_of, square, squares
from ctlib.settings import Settings, number, parse_settings, whole


class Objective(nn.Module):
    """A batch of the loader to one number, for `ctlib.train.fit`.

    Args:
        model: to be trained, with its encoder loaded.
        side, crop: of the training squares, see `ctlib.recipes.zhang2016.Objective`.
        reconstruction, perceptual: weights of the two terms.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        model: Stylization,
        *,
        side: int = 256,
        crop: float = 1.0,
        reconstruction: float = 0.8,
        perceptual: float = 0.2,
    ):
        super().__init__()
        self.model, self.side, self.crop = model, square(side), number("crop", crop, 1)
        self.reconstruction = number("reconstruction", reconstruction)
        self.perceptual = number("perceptual", perceptual)
        self.begun = fingerprint(model)  # a run with another encoder, or from other weights, is another run

    def forward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its terms, unweighted, of `{"rgb": uint8 (B, H, W, 3), "seed": (B,)}`."""
        rgb = squares(batch, self.side, self.crop)
        with torch.no_grad():
            encoded = self.model.encode(rgb)
        result = self.model.decoder(encoded)[0]
        deepest = f"relu{len(self.model.encoder.counts)}_1"
        seen = self.model.encoder(result, [deepest])[deepest]
        terms = {
            "reconstruction": functional.mse_loss(result.float(), rgb),
            "perceptual": functional.mse_loss(seen.float(), encoded.levels[-1].float()),
        }
        loss = self.reconstruction * terms["reconstruction"] + self.perceptual * terms["perceptual"]
        return loss, {name: term.detach() for name, term in terms.items()}


@torch.no_grad()
def validate(network: nn.Module, dataset: pairs.Photos, *, side: int = 256, batch: int = 8) -> dict[str, float]:
    """How well a network gives pictures back, without AdaIN.

    Returns:
        `psnr`, mean of the pictures' dB; their `rmse` in units of [0, 1].
    """
    network.eval()
    device, errors = next(network.parameters()).device, []
    for start in range(0, len(dataset), batch):
        numbers = range(start, min(start + batch, len(dataset)))
        items = default_collate([dataset[index, index] for index in numbers])
        rgb = squares({**items, "rgb": items["rgb"].to(device)}, side, 0.0)
        errors.append((network.reconstruct(rgb).clamp(0, 1) - rgb).square().mean((1, 2, 3)).cpu().double())
    error = torch.cat(errors)
    return {"psnr": (-10 * error.clamp(min=1e-10).log10()).mean().item(), "rmse": error.mean().sqrt().item()}


def run(
    folder: Path | str,
    /,
    *,
    begin: str = "",
    sets: Sequence[str] = ("photos",),
    part: str = "train",
    size: int = 256,
    side: int = 256,
    crop: float = 1.0,
    encoder: str | None = None,
    encoder_file: str = "",
    reconstruction: float = 0.8,
    perceptual: float = 0.2,
    every: float = 5,
    **settings,
) -> tuple[Stylization, list[dict]]:
    """One training from its options, all plain values; the defaults are the paper's, where they are known.

    Args:
        folder: see `ctlib.train.fit`; a run that was interrupted there goes on.
        begin: weights to start from, see `Stylization.from_pretrained`; they say the encoder.
        sets, part, size: see `ctlib.recipes.histogram_analogy.photographs`.
        side, crop, reconstruction, perceptual: of `Objective`.
        encoder: of `Stylization`. encoder_file: its weights, see `Stylization.load_encoder`.
        every: epochs after which the rate is halved, unless there is a `schedule`.
        settings: of `ctlib.settings.Settings`; a rate of 0.0001 and Adam's usual moments unless given.

    Returns:
        The trained network and what was logged.

    Raises:
        ValueError: an unknown option. DataError: no pictures. MissingWeights: no encoder.
        CheckpointError, TrainingError: see `ctlib.train.fit`.
    """
    chosen = "schedule" in settings
    published = {"lr": 1e-4, "betas": (0.9, 0.999)}
    settings = parse_settings(also=histogram_analogy.options_of(run), **published | settings)
    whole("size", size, square(side))
    every = number("every", every)
    torch.manual_seed(settings.seed)
    network = network_of(Stylization, begin, encoder=encoder)
    if not begin:
        network.load_encoder(encoder_file)
    options = {"side": side, "crop": crop, "reconstruction": reconstruction, "perceptual": perceptual}
    objective = Objective(network.train(), **options)
    dataset = histogram_analogy.photographs(sets, size, part)
    if every and not chosen:
        settings = stairs(settings, "halve", every, len(dataset))
    samples = grid(objective, dataset) if settings.sample_every else None
    return network, train.fit(objective, dataset, settings, folder, samples=samples)


def stairs(settings: Settings, name: str, epochs: float, count: int) -> Settings:
    """Settings whose rate falls after each so many epochs over `count` pictures, see `ctlib.settings.STAIRS`."""
    return replace(settings, schedule=f"{name}-{steps_of(settings, epochs, count)}")


def steps_of(settings: Settings, epochs: float, count: int) -> int:
    """Steps that so many epochs take, at least one."""
    return max(1, round(epochs * count / settings.batch))


def grid(objective: nn.Module, dataset, count: int = 6):
    """What TensorBoard shows while a network is trained: picture and reconstruction, the same ones each time."""
    batch = default_collate([dataset[number % len(dataset), number] for number in range(count)])

    def picture(network: nn.Module) -> Tensor:
        rgb = squares({**batch, "rgb": batch["rgb"].to(next(network.parameters()).device)}, objective.side, 0.0)
        with torch.no_grad():
            result = network.reconstruct(rgb).float().clamp(0, 1)
        return torch.cat([torch.cat(row.unbind(0), dim=2) for row in (rgb, result)], dim=1)

    return picture
