"""Weights of others in torch's cache: found there, or downloaded once. Offline it takes two seconds to say so.

The files bear the head of their SHA-256 at the end of their name, as torch's own do.
"""

import functools
import hashlib
import logging
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

PATIENCE = 1.5  # seconds to wait for a first answer of the server


class MissingWeights(RuntimeError):  # noqa: N818  it reads as what it is
    """The weights of a network are not here and cannot be had; the message names the file and the remedy."""


def fetch(name: str, address: str | Callable[[], str], what: str, *, download: bool = True) -> Path:
    """Where a file lies in torch's cache, after downloading it if need be.

    Args:
        name: of the file, `"<stem>-<head of its SHA-256>.pth"`.
        address: where to download it, or what gives that.
        what: begins the message, e.g. `"LPIPS (alex): the trunk weights"`.
        download: whether a missing file may be fetched; not tried twice in one process if there is no connection.

    Raises:
        MissingWeights: it is not there and not to be had.
    """
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / name
    if file.is_file():
        return file
    advice = f"put the file into {folder} ($TORCH_HOME/hub/checkpoints), or go online and start again"
    if not download:
        raise MissingWeights(f"{what} {name} are missing; {advice}")
    url = address if isinstance(address, str) else address()
    if not answers(url):
        raise MissingWeights(f"{what} {name} are missing, and there is no network to fetch them; {advice}")
    logging.getLogger(__name__).info("downloading %s to %s", name, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=hash_of_name(file), progress=True)
    except (OSError, RuntimeError) as error:
        raise MissingWeights(f"{what} {name} were not downloaded ({error}); {advice}") from error
    return file


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_of_name(file: Path) -> str:
    """The head of its SHA-256 that a file's name ends with."""
    return file.stem.rpartition("-")[2]


@functools.cache
def answers(url: str) -> bool:
    """Whether the server answers soon. In a thread, since looking up a name offline can hang beyond any timeout."""
    answer = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
                answer.append(True)
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE + 0.3)
    return bool(answer)
