"""The ledger: every executed notebook writes one JSON file, and comparison notebooks read nothing else.

Files of the running profile lie in `_build/<profile>/results`; the reviewed record of published runs is committed in
`book/results`.
"""

import hashlib
import json
import math
import os
import platform
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from ctlib import paths
from ctlib.atomic import replacing

# code that a training's bits come from
_TRAINING = (
    "train.py",
    "settings.py",
    "losses.py",
    "perceptual_losses.py",
    "color.py",
    "classical",
    "recipes",
    "models",
    "data",
    "ops",
)
_PACKAGES = ("torch", "numpy", "scikit-image", "scikit-learn", "scipy", "pillow")


@dataclass
class Run:
    """One run of one notebook; made by `start`."""

    stem: str
    parameters: dict
    began: float = field(default_factory=time.perf_counter)

    def write(self, rows: list[dict], data: dict | None = None, **extra) -> Path:
        """Write the result file, atomically.

        Args:
            rows: one dict a row: `"case"`, `"method"` and numbers. NaN becomes an honest blank (`null`).
            data: manifest of the pictures used, name to sha256.
            extra: further JSON values worth keeping, by name.

        Returns:
            The path written.
        """
        record = {
            "stem": self.stem,
            "profile": paths.profile(),
            "rows": rows,
            "metrics": _described(rows),
            "parameters": self.parameters,
            "seed": self.parameters.get("seed"),
            "data": data or {},
            **provenance(),
            "seconds": round(time.perf_counter() - self.began, 1),
            "peak_memory_mb": _peak_memory_mb(),
            **extra,
        }
        path = paths.results_dir() / f"{self.stem}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(_plain(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @property
    def folder(self) -> Path:
        """Where files that this run makes for its reader are kept, `_build/<profile>/results/<stem>`."""
        folder = paths.results_dir() / self.stem
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def checkpoints(self, **options) -> Path:
        """Where a training of this run is kept, `_build/<profile>/checkpoints/<stem>/<hash>`.

        The hash is of the training's options and of the code that trains: the same training goes on where it was
        interrupted, and a changed one begins anew.
        """
        digest = hashlib.sha256(json.dumps(_plain(options), sort_keys=True).encode())
        for room in _TRAINING:
            place = paths.ROOT / "ctlib" / room
            for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
                digest.update(path.read_bytes())
        folder = paths.results_dir().parent / "checkpoints" / self.stem / digest.hexdigest()[:12]
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def start(stem: str, **parameters) -> Run:
    """Begin a notebook's run: seed every generator, set the figure style, print one line of provenance.

    Args:
        stem: the notebook's name without suffix.
        parameters: what its parameters cell holds; `seed` seeds Python, NumPy and torch.
    """
    from ctlib import figures  # matplotlib is slow to import, and only notebooks need it here

    seed = int(parameters.get("seed", 0))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    figures.style()
    now = provenance()
    threads = torch.get_num_threads()
    print(
        f"{stem} · profile {paths.profile()} · seed {seed} · commit {now['commit']} · "
        f"torch {now['versions']['torch']} · {now['device']}, {threads} thread{'s' * (threads > 1)}"
    )
    return Run(stem, parameters)


def read(stem: str) -> dict:
    """Result file of a notebook: the running profile's own, else the quick book's, else the committed record.

    Only a person at a notebook gets the quick book's: a build never mixes profiles.

    Returns:
        The JSON as a dict; `"source"` says `"this build"`, `"quick book"` or `"record"`.

    Raises:
        FileNotFoundError: neither exists; the message says how to make it.
    """
    places = {"this build": paths.results_dir(), "quick book": paths.results_dir("quick"), "record": paths.record_dir()}
    if paths.profile() != "lab":
        del places["quick book"]
    for source, folder in places.items():
        path = folder / f"{stem}.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8")) | {"source": source}
    maker = f"notebooks/{stem}.ipynb" if stem[:2].isdigit() else f"benchmarks/{stem}.py"
    raise FileNotFoundError(f"no results of {stem}: run {maker} first, or `make book`")


def provenance() -> dict:
    """Commit, date, device and versions of this process."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": device,
        "versions": versions,
    }


def _commit() -> str:
    """Short hash of the checkout, with `+` when files differ from it; "unknown" outside git."""
    try:
        command = ["git", "-C", str(paths.ROOT), "describe", "--always", "--dirty=+", "--abbrev=9", "--exclude=*"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("CTLIB_COMMIT", "unknown")
    return done.stdout.strip()


def _peak_memory_mb() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def _described(rows: list[dict]) -> dict:
    """Unit and direction of every metric that stands in the rows."""
    from ctlib.metrics import METRICS

    used = {key for row in rows for key in row}
    return {
        key: {"unit": metric.unit, "better": metric.better, "compares": metric.compares}
        for key, metric in METRICS.items()
        if key in used
    }


def _plain(value):
    """JSON has no NaN, no infinity, no NumPy and no tensors."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "inf" if value == math.inf else None
    return value
