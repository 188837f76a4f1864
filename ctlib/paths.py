"""Where things lie. Notebooks run in different folders (JupyterLab, papermill, nbmake), so no path is relative."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def data_dir() -> Path:
    """Folder with the datasets: `$CTLIB_DATA`, else `data/cache` in the repository.

    A leading `~` is the home folder; a relative path counts from the repository, wherever the process runs.
    """
    return ROOT / Path(os.environ.get("CTLIB_DATA") or "data/cache").expanduser()


def profile() -> str:
    """Name of the running profile: `$CTLIB_PROFILE` (set by the runner), else `"lab"` (a person at a notebook)."""
    return os.environ.get("CTLIB_PROFILE") or "lab"


def results_dir(name: str | None = None) -> Path:
    """Folder of the result files of one profile, `_build/<profile>/results`."""
    return ROOT / "_build" / (name or profile()) / "results"


def record_dir() -> Path:
    """Folder of the reviewed results that are committed with the book."""
    return ROOT / "book" / "results"
