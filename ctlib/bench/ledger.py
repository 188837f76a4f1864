"""The record of benchmark runs, `book/results/ops.csv`: a row a contender, appended, never rewritten."""

import csv
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import torch

from ctlib import paths
from ctlib.bench.timing import Case, Result

PATH = paths.record_dir() / "ops.csv"
PEERS = ("kornia", "opencv-python-headless", "scikit-image", "scikit-learn", "color-matcher", "numpy", "triton")


def device_name(device: str) -> str:
    """The GPU's name, or the processor's with the number of threads."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    threads = torch.get_num_threads()
    return f"{model}, {threads} thread{'s' * (threads > 1)}"


def versions() -> str:
    """`torch 2.14.1; kornia 0.9.0; ...` of what is installed."""
    found = [f"torch {torch.__version__}"]
    for name in PEERS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return "; ".join(found)


def table(case: Case, results: list[Result], bandwidth: float, device: str = "cpu") -> pd.DataFrame:
    """One row a contender; `ratio` is its time over ours."""
    rows = []
    for result in results:
        rows.append({
            "op": case.op, "size": case.size, "contender": result.name,
            "median_ms": round(result.median_ms, 4), "least_ms": round(min(result.times_ms), 4),
            "ratio": round(result.median_ms / results[0].median_ms, 3), "rounds": len(result.times_ms),
            "first_call_s": round(result.first_s, 2),
            "copy_share": round(case.bytes / result.median_ms / 1e6 / bandwidth, 4),
            "peak_mb": None if result.peak_mb is None else round(result.peak_mb, 1),
            "max_error": None if result.error is None else float(f"{result.error:.3g}"),
            "mbytes": round(case.bytes / 1e6, 3), "copy_gb_s": round(bandwidth, 1), "device": device_name(device),
        })  # fmt: skip
    return pd.DataFrame(rows)


def record(rows: pd.DataFrame, path: Path = PATH) -> None:
    """Append rows with date, commit and versions."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=paths.ROOT, capture_output=True, text=True
    ).stdout.strip()
    rows = rows.assign(date=date.today().isoformat(), commit=commit, versions=versions())
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(path, mode="a", header=not path.exists(), index=False, quoting=csv.QUOTE_MINIMAL)


def read(path: Path = PATH) -> pd.DataFrame:
    """All runs on record.

    Raises:
        FileNotFoundError: there is none.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no benchmark on record; make one with `make bench`")
    return pd.read_csv(path)


def latest(path: Path = PATH) -> pd.DataFrame:
    """The last row on record of each contender at each task, size and device."""
    return read(path).drop_duplicates(["device", "op", "size", "contender"], keep="last")
