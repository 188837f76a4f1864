"""How long and how fast to train, from plain values to numbers that are what they say.

Taught in: notebooks/20_train_histogram_analogy.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields

SCHEDULES = ("constant", "linear", "cosine", "step")
STAIRS = {"halve": 0.5, "tenth": 0.1}  # and "halve-500": halved after each 500 steps
_FROM_ZERO = ("seed", "workers", "sample_every")  # the other whole numbers are at least 1
_CHOICES = {"schedule": SCHEDULES, "precision": ("no", "bf16"), "shuffle": (True, False), "compile": (False, True)}
_STAIR = re.compile(rf"({'|'.join(STAIRS)})-[1-9]\d*")


@dataclass(frozen=True)
class Settings:
    """How long and how fast to train.

    Attributes:
        steps: updates of the weights.
        batch: samples an update, over all processes.
        lr, betas: of Adam; the defaults are Histogram Analogy's.
        schedule: `"constant"`; `"linear"`: constant for half the steps, then straight down to 0; `"cosine"`: down to 0
            after a warm-up of 2 %; `"step"`: a tenth after half the steps, and a hundredth after three quarters;
            `"halve-N"`, `"tenth-N"`: half or a tenth after each N steps.
        seed: of order and augmentation.
        shuffle: whether each epoch has an order of its own; else the samples come as they lie in the data.
        precision: `"no"` (float32) or `"bf16"`.
        accumulate: parts of a batch that are computed one after the other.
        workers: processes that read samples; 0 reads in this one.
        save_every, log_every, sample_every: in steps; 0 switches off samples and histograms of the weights.
        compile: whether `torch.compile` translates the network first.
    """

    steps: int
    batch: int = 8
    lr: float = 5e-5
    betas: tuple[float, float] = (0.5, 0.999)
    schedule: str = "constant"
    seed: int = 0
    shuffle: bool = True
    precision: str = "no"
    accumulate: int = 1
    workers: int = 0
    save_every: int = 500
    log_every: int = 20
    sample_every: int = 0
    compile: bool = False

    def __post_init__(self):
        for name, value in list(vars(self).items()):
            object.__setattr__(self, name, _plain(name, value))

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, 0 to `steps - 1`."""
        if self.schedule == "linear":
            return self.lr * min(1.0, 2 * (1 - step / self.steps))
        if self.schedule == "cosine":
            warm = min(1.0, (step + 1) / max(1, 0.02 * self.steps))
            return self.lr * warm * (1 + math.cos(math.pi * step / self.steps)) / 2
        if self.schedule == "step":
            return self.lr * 0.1 ** ((2 * step >= self.steps) + (4 * step >= 3 * self.steps))
        if "-" in self.schedule:
            name, _, every = self.schedule.partition("-")
            return self.lr * STAIRS[name] ** (step // int(every))
        return self.lr


def parse_settings(also: Iterable[str] = (), **options) -> Settings:
    """`Settings` from plain values, as a parameters cell, a command line or a YAML file has them.

    Args:
        also: further names to list beside a misspelled one.
        options: see `Settings`.

    Raises:
        ValueError: an unknown or a missing name, or a wrong value; the message names it.
    """
    known = {field.name for field in fields(Settings)}
    if unknown := sorted(set(options) - known):
        names = sorted({*known, *also} - {"settings", "folder", "samples"})
        raise ValueError(f"unknown option {unknown[0]!r}; known are {', '.join(names)}")
    if "steps" not in options:
        raise ValueError("steps: say how many updates of the weights to make, e.g. steps=1000")
    return Settings(**options)


def _plain(name: str, value):
    """A setting as what it stands for: 1e-3 is a word to YAML, a bare `no` is false, NumPy has numbers of its own."""
    number = math.nan if isinstance(value, bool) else value
    try:
        if name in _CHOICES:
            expected = "one of " + ", ".join(map(str, _CHOICES[name]))
            expected += f", {', '.join(f'{one}-N' for one in STAIRS)}" if name == "schedule" else ""
            plain = "no" if name == "precision" and value is False else value
            fine = plain in _CHOICES[name] or (name == "schedule" and bool(_STAIR.fullmatch(plain)))
        elif name == "betas":
            expected = "two numbers, at least 0 and below 1"
            plain = tuple(map(float, value))
            fine = len(plain) == 2 and all(0 <= beta < 1 for beta in plain)
        elif name == "lr":
            expected = "a positive number"
            plain = float(number)
            fine = 0 < plain < math.inf
        else:
            least = 0 if name in _FROM_ZERO else 1
            expected = f"at least {least}, a whole number"
            plain = int(number)
            fine = least <= plain == float(number)
    except (TypeError, ValueError, OverflowError):
        fine = False
    if not fine:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return plain


def whole(name: str, value, least: float = -math.inf, most: float = math.inf) -> int:
    """An option that is a whole number. Raises `ValueError` that names it, as all below."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        limits = (
            "" if least == -math.inf else f" of at least {least}" if most == math.inf else f" from {least} to {most}"
        )
        raise ValueError(f"{name}: expected a whole number{limits}, got {value!r}")
    return value


def flag(name: str, value) -> bool:
    """An option that is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {value!r}")
    return value


def number(name: str, value, most: float = math.inf) -> float:
    """An option that is a number from 0 to `most`; 1e-3 is a word to YAML."""
    plain = _float(value)
    if not 0 <= plain <= most or plain == math.inf:
        raise ValueError(
            f"{name}: expected a number from 0 {'on' if most == math.inf else f'to {most}'}, got {value!r}"
        )
    return plain


def positive(name: str, value, most: float = math.inf) -> float:
    """An option that is a number above 0, and at most `most`."""
    plain = number(name, value, most)
    if not plain:
        raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    return plain


def share(name: str, value) -> float:
    """An option that is a part of a whole, and not all of it."""
    plain = _float(value)
    if not 0 <= plain < 1:
        raise ValueError(f"{name}: expected a share from 0 to below 1, got {value!r}")
    return plain


def _float(value) -> float:
    """What is no number becomes one that no bounds hold."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


def names(name: str, value) -> list[str]:
    """An option that is a list of names, or one name."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"{name}: expected a list of names, e.g. {name}=[photos], got {value!r}")
    return list(found)
