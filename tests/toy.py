"""A training that takes a moment: network, pictures and objective, and a script that trains them.

`python toy.py FOLDER '{"steps": 20, ...}' [RECORD]` trains in `FOLDER`; with a folder `RECORD`, each process leaves
there what it saw and wrote.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ctlib import train
from ctlib.checkpoints import Pretrained
from ctlib.settings import parse_settings


class Net(nn.Module, Pretrained):
    def __init__(self, width: int = 4, drop: float = 0.0):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.Conv2d(width, 3, 1)
        self.norm, self.drop = nn.InstanceNorm2d(width), nn.Dropout(drop)

    def forward(self, unit):
        return self.last(self.drop(functional.relu(self.norm(self.first(unit)))))


class Pictures:
    """Random uint8 pictures; notes the indices that it was asked for."""

    def __init__(self, count: int = 10, seed: int = 0, side: int = 6):
        self.rgb = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        self.seen: list[int] = []

    def __len__(self):
        return len(self.rgb)

    def __getitem__(self, place):
        index, seed = place
        self.seen.append(index)
        return {"rgb": torch.from_numpy(self.rgb[index].copy()), "seed": seed}

    @property
    def manifest(self):
        return {f"{n}.png": hashlib.sha256(rgb.tobytes()).hexdigest() for n, rgb in enumerate(self.rgb)}


class PowerCutError(Exception):
    """What stops a training in a test."""


class Objective(nn.Module):
    """Learn the negative of a noisy picture; at call `stop` of `forward`, `event` happens instead."""

    def __init__(self, model: nn.Module, *, noise: float = 0.1, stop: int | None = None, event=None):
        super().__init__()
        self.model, self.noise = model, noise
        self._stop, self._event, self._calls = stop, event or _cut, 0

    def forward(self, batch):
        weight = self.model.last.weight
        unit = batch["rgb"].permute(0, 3, 1, 2).to(weight) / 255
        noise = [
            torch.randn(unit.shape[1:], generator=torch.Generator().manual_seed(s)) for s in batch["seed"].tolist()
        ]
        loss = functional.mse_loss(self.model(unit + self.noise * torch.stack(noise).to(unit)), 1 - unit)
        self._calls += 1
        if self._calls == self._stop:
            loss = self._event(loss)
        return loss, {"twice": 2 * loss.detach()}


def _cut(_):
    raise PowerCutError


def fit(folder, *, data=None, model=Net, noise=0.1, stop=None, event=None, samples=None, dtype=None, **options):
    """A new training from its beginning, or on from where one stands: `(network, history)`."""
    torch.manual_seed(0)
    network = model().to(dtype)
    data = Pictures() if data is None else data
    options = {"steps": 12, "batch": 4, "lr": 0.01, "save_every": 5, "log_every": 3} | options
    objective = Objective(network, noise=noise, stop=stop, event=event)
    return network, train.fit(objective, data, parse_settings(**options), folder, samples=samples)


def main(folder: str, options: str = "{}", record: str | None = None) -> None:
    torch.set_num_threads(1)
    rank, written, data = os.environ.get("RANK", "0"), [], Pictures()
    options = json.loads(options)
    if "dtype" in options:
        options["dtype"] = getattr(torch, options["dtype"])
    if options.pop("dies", None) == int(rank):
        options |= {"stop": 12, "event": lambda _: os.kill(os.getpid(), signal.SIGKILL)}
    if record:

        def note(event, arguments):
            if event == "open" and str(arguments[0]).startswith(folder) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
                written.append(Path(arguments[0]).name)

        sys.addaudithook(note)
        (Path(record) / f"pid-{rank}").write_text(str(os.getpid()))
        saving, save = Path(record) / "saving", train.save_state

        def marked(*arguments):
            saving.touch()
            save(*arguments)
            saving.unlink()

        train.save_state = marked
        (Path(record) / "begun").touch()
    fit(folder, data=data, **options)
    if record:
        text = json.dumps({"seen": data.seen, "written": written})
        (Path(record) / f"rank-{rank}.json").write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
