"""What a person sees of a training.

Taught in: notebooks/20_train_histogram_analogy.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from ctlib import paths
from ctlib.settings import Settings


class Watch:
    """What a person sees: a bar and a live curve in a notebook, a bar in a terminal, TensorBoard anywhere."""

    def __init__(self, settings: Settings, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter  # slow to import
        from tqdm import tqdm

        from ctlib import figures

        self.settings, self.sampled = settings, step // max(1, settings.sample_every)
        self.board = SummaryWriter(str(folder), purge_step=step + 1)
        by_hand = paths.profile() == "lab"  # a batch run needs no bar in its log
        in_notebook = by_hand and figures.in_notebook()
        watched = in_notebook or (by_hand and sys.stderr.isatty())
        self.bar = tqdm(total=settings.steps, initial=step, disable=not watched)
        self.curve = figures.LiveCurve() if in_notebook else None

    def show(self, history: list[dict], samples, network: nn.Module) -> None:
        row, step = history[-1], history[-1]["step"]
        self.bar.update(step - self.bar.n)
        self.bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
        for name, value in row.items():
            if name != "step":
                self.board.add_scalar(name, value, step)
        if self.curve:
            self.curve.update(history)
        every = self.settings.sample_every
        looked = every and step // every > self.sampled
        if looked:
            self.sampled = step // every
            for name, weight in network.named_parameters():
                self.board.add_histogram(name, weight.detach().float().cpu(), step)
        if looked and samples:
            device = next(network.parameters()).device
            before = {module: module.training for module in network.modules()}
            network.eval()
            with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
                self.board.add_image("samples", samples(network), step)
            for module, mode in before.items():  # a part that is frozen stays in evaluation mode
                module.training = mode
        self.board.flush()

    def close(self) -> None:
        self.bar.close()
        self.board.close()
