"""Weights and training states on disk: whole or not at all, and never a program.

Weights are safetensors with a `config.json` beside them, in a folder or on the Hugging Face hub. The state of a
training run is a `torch.save` file that is read with `weights_only=True`, so that nothing in it can run.

Taught in: notebooks/20_train_histogram_analogy.
"""

import hashlib
import json
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ctlib import paths
from ctlib.atomic import replacing

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # in a notebook its progress bars ask for ipywidgets, which the book does without
    from huggingface_hub import PyTorchModelHubMixin

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SHIPPED = paths.ROOT / "data" / "pretrained"  # our own weights, one folder a model


class CheckpointError(RuntimeError):
    """Weights or a training state that cannot be used; the message names the file and the remedy."""


def save_state(path: Path | str, state: dict) -> None:
    """Write a training state atomically: after a crash at any moment the old file or the new one is there.

    Args:
        path: the file; its folder must exist.
        state: tensors, numbers, strings, and lists and dicts of them.
    """
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path | str) -> dict:
    """Read a training state; nothing in it is executed.

    Raises:
        CheckpointError: missing, truncated, damaged, no training state, or a pickle that asks for code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no checkpoint; start the training anew")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch comments on odd files before it refuses them
            # torch compares no sums, and leaves memory as it was for what a flipped bit marks as a folder
            with zipfile.ZipFile(path) as archive:
                marked = [entry.filename for entry in archive.infolist() if entry.external_attr]
                if damaged := archive.testzip() or " ".join(marked):
                    raise ValueError(f"{damaged} is not what was written")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader lets out whatever the damage leads to
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason}); remove it and start anew") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds {type(state).__name__}, not the state of a training run; remove it")
    return state


def load_weights(path: Path | str) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: missing, truncated or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there are no weights; download the folder again")
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError, RuntimeError, OverflowError, KeyError) as error:
        raise CheckpointError(f"{path}: not readable as safetensors ({error}); download it again") from error


class Pretrained(PyTorchModelHubMixin):
    """What gives a network `from_pretrained` and `save_pretrained`; its `__init__` takes plain JSON values only."""

    @classmethod
    def from_pretrained(cls, name: str | Path, **options):
        """Build a network with trained weights, in float32, on the CPU, in evaluation mode.

        Args:
            name: a name in `data/pretrained`, a folder, or an id on the Hugging Face hub (`"owner/name"`).
            options: of the hub: `revision`, `cache_dir`, `token`, `local_files_only`, ...

        Raises:
            CheckpointError: no such weights, damaged ones, weights of another network, or no network to fetch them.
        """
        folder = _folder(str(name), options)
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            model = cls(**config)
        except Exception as error:  # what a wrong value leads to depends on the network
            raise CheckpointError(f"{folder / CONFIG}: no configuration of {cls.__name__} ({error})") from error
        weights = load_weights(folder / WEIGHTS)
        try:
            model.load_state_dict(weights)  # copies, in the type of the network
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{folder}: weights and config.json do not fit together ({reason})") from error
        if bad := [key for key, value in model.state_dict().items() if not torch.isfinite(value).all()]:
            raise CheckpointError(f"{folder / WEIGHTS}: {bad[0]} holds NaN or infinite values; download it again")
        return model.eval()

    def save_pretrained(self, folder: Path | str, *, dtype: torch.dtype = torch.float16, **_) -> Path:
        """Write `model.safetensors` and `config.json`, each atomically.

        Args:
            folder: made if missing. A hub id is not taken: see `push_to_hub`.
            _: what `push_to_hub` passes on; the card is written by hand.
            dtype: of the stored weights, but for the statistics of norms. float16 halves the file; the network
                computes in float32 either way.

        Raises:
            CheckpointError: weights that are not finite in `dtype`; nothing is written then.
        """
        folder = Path(folder)
        weights = {key: value.detach().cpu().contiguous() for key, value in self.state_dict().items()}
        # what norms know of their inputs is little to store, and may be too large for float16
        counted = {key for key, _ in self.named_buffers()}
        weights = {
            key: value.to(dtype) if value.is_floating_point() and key not in counted else value
            for key, value in weights.items()
        }
        if bad := [key for key, value in weights.items() if not torch.isfinite(value).all()]:
            raise CheckpointError(
                f"{folder}: {bad[0]} holds values that are not finite in {dtype}; nothing was written; "
                "dtype=torch.float32 takes what is only large"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS) as temporary:
            save_file(weights, temporary, metadata={"format": "pt"})
        with replacing(folder / CONFIG) as temporary:
            temporary.write_text(json.dumps(self._hub_mixin_config or {}, indent=1) + "\n", encoding="utf-8")
        return folder


def _folder(name: str, options: dict) -> Path:
    """Folder with the weights that `name` stands for; those in `data/pretrained` are checked against their hash."""
    shipped = sorted(folder.name for folder in SHIPPED.glob("*/"))
    if name in shipped:
        _check_hash(SHIPPED / name / WEIGHTS)
        return SHIPPED / name
    if name and Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or Path(name).parent.is_dir():
        known, missing = ", ".join(shipped) or "none", "folder" if "/" in name else "weights"
        raise CheckpointError(f"{name}: no such {missing}; shipped are {known}; a folder or a hub id do too")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[WEIGHTS, CONFIG], **options))
    except Exception as error:  # network, rights, a wrong id: the hub has many ways to say no
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"{name}: no such folder on this machine, and the hub did not give it ({reason})"
        ) from error


def _check_hash(path: Path) -> None:
    """Hold a shipped file against `data/pretrained/SHA256SUMS`, which `sha256sum --check` reads too."""
    sums, found = SHIPPED / "SHA256SUMS", path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest()
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []
    if f"{found}  {path.parent.name}/{path.name}" not in lines:
        raise CheckpointError(f"{path}: missing, or not the file of SHA256SUMS; restore it with git checkout")
