r"""The training loop: one flat function for every network of the book.

What is random in a batch is a function of the run's seed and the sample's place in the stream, so that a run killed at
any moment and started again ends with the same bits (same threads, device and versions: they are stored and compared),
and several processes see together what one would have seen.

Taught in: notebooks/20_train_histogram_analogy.
"""

import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ctlib.checkpoints import CheckpointError, load_state, save_state
from ctlib.settings import Settings
from ctlib.watch import Watch

STATE = "resume.pt"
_FREE = ("save_every", "log_every", "sample_every")  # settings that change no bit of the result
_LEFTOVERS = (".resume-*.pt", ".model-*.safetensors", ".config-*.json")  # of writing that was killed


class TrainingError(RuntimeError):
    """A training that cannot go on; the message says where it stopped and what is kept."""


class Order:
    """The endless stream of samples: every epoch a new permutation (or none), every sample with a seed of its own.

    Yields lists of `(index, seed)`: the share of this process in one part of a batch. Its place is its whole state.
    """

    def __init__(self, count: int, batch: int, seed: int, rank: int = 0, world: int = 1, shuffle: bool = True):
        self.count, self.batch, self.seed, self.rank, self.world = count, batch, seed, rank, world
        self.shuffle = shuffle
        self.place = 0  # batches yielded

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self

    def __next__(self) -> list[tuple[int, int]]:
        own = self.batch // self.world
        first = self.place * self.batch + self.rank * own
        self.place += 1
        return [self.sample(first + offset) for offset in range(own)]

    def sample(self, number: int) -> tuple[int, int]:
        """Sample `number` of the stream: `(index, seed)`."""
        epoch, place = divmod(number, self.count)
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            permuted = np.random.default_rng((self.seed, epoch)).permutation if self.shuffle else np.arange
            self._permutation = permuted(self.count)
        seed = np.random.SeedSequence((self.seed, number)).generate_state(1, np.uint64)[0]
        return int(self._permutation[place]), int(seed >> 1)

    def state_dict(self) -> dict:
        return {"place": self.place}

    def load_state_dict(self, state: dict) -> None:
        self.place = state["place"]


def fit(objective: nn.Module, dataset, settings: Settings, folder: Path | str, *, samples=None) -> list[dict]:
    """Train, or go on where an earlier call with the same settings was interrupted.

    Args:
        objective: a module that holds the network as `.model` and maps a batch to `(loss, {name: term})`. If it has a
            method `at(step, steps)`, that is called before each update, for what changes in the course of a training.
        dataset: items by `(index, seed)`; `manifest` names its files and their hashes.
        settings: see `Settings`.
        folder: gets `resume.pt`, TensorBoard's files and, at the end, the weights: `model.safetensors`, `config.json`.
        samples: the network to a picture grid `(3, H, W)` in [0, 1], for TensorBoard every `sample_every` steps.

    Returns:
        What was logged: dicts with `step`, `loss`, its terms, `lr` and `images_per_second`, means since the last one.

    Raises:
        ValueError: a batch that cannot be divided among processes and parts, or no samples.
        CheckpointError: the folder holds a run with other settings, data or environment, or a damaged state.
        TrainingError: the loss or a weight is not finite; the last good state is kept.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from torchdata.stateful_dataloader import StatefulDataLoader

    folder, path = Path(folder), Path(folder) / STATE
    AcceleratorState._reset_state()  # a kernel may train in float32 first and in bf16 later
    accelerator = Accelerator(
        cpu=_several_on_cpu(), mixed_precision=settings.precision, gradient_accumulation_steps=settings.accumulate
    )
    device, on_gpu = accelerator.device, accelerator.device.type == "cuda"
    world, rank, first = accelerator.num_processes, accelerator.process_index, accelerator.is_main_process
    if settings.batch % (world * settings.accumulate):
        raise ValueError(
            f"batch: {settings.batch} samples cannot be divided among {world} processes x {settings.accumulate} parts"
        )
    if not len(dataset):
        raise ValueError("dataset: holds no samples")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder: {folder} is a file; name another")
    for name, weight in objective.named_parameters():
        if weight.requires_grad and not name.startswith("model."):
            raise ValueError(f"objective: {name} is to be trained outside objective.model, and no checkpoint holds it")

    if first:
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in _LEFTOVERS:
            for stale in folder.glob(pattern):
                stale.unlink()
    network = objective.model
    trained = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=settings.lr, betas=settings.betas)
    order = Order(len(dataset), settings.batch // settings.accumulate, settings.seed, rank, world, settings.shuffle)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'set_vital' is deprecated")  # torchdata's, about torch
        loader = StatefulDataLoader(dataset, batch_sampler=order, num_workers=settings.workers, pin_memory=on_gpu)
    identity = _identity(objective, dataset, settings, accelerator)
    step, history, batches = 0, [], loader
    accelerator.wait_for_everyone()
    state = load_state(path) if path.exists() else None
    if state is not None:
        _check(state, identity, folder)
        try:
            network.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            for weight, own in optimizer.state.items():
                if own["exp_avg"].shape != weight.shape or own["exp_avg_sq"].shape != weight.shape:
                    raise ValueError("the moments do not fit the weights")
            step, history = state["step"], state["history"]
            if step != history[-1]["step"]:
                raise ValueError(f"step {step}, but the log ends at {history[-1]['step']}")
            if step < settings.steps:
                loader.load_state_dict(state["loader"])
                batches = iter(loader)  # draws, so it comes before the generators are set
                torch.set_rng_state(state["rng"])
                if on_gpu:
                    torch.cuda.set_rng_state(state["cuda_rng"], device)
        except Exception as error:  # what it is depends on what is amiss
            raise CheckpointError(f"{path}: not whole ({error!r:.200}); remove it and start anew") from error
    places = accelerator.gather(torch.tensor([step], device=device)).tolist()
    if len(set(places)) > 1:
        raise CheckpointError(f"{folder}: the processes stand at steps {places}; give all of them one shared folder")
    if settings.compile:
        network.compile()
    prepare_step = getattr(objective, "at", None)  # several processes wrap the objective, and hide it
    objective, optimizer = accelerator.prepare(objective, optimizer)
    objective.train()
    if state is not None:
        for own in optimizer.state.values():
            own["step"] = own["step"].cpu()  # on a GPU, Adam would wait for it at each update

    losses, sums, began = [], {}, time.perf_counter()
    with closing(Watch(settings, folder, step)) if first else nullcontext() as watch:
        for batch in batches if step < settings.steps else ():
            batch = {n: x if n == "seed" else x.to(device, non_blocking=True) for n, x in batch.items()}
            for group in optimizer.param_groups:
                group["lr"] = settings.lr_at(step)
            if prepare_step:
                prepare_step(step, settings.steps)
            with accelerator.accumulate(objective):
                loss, terms = objective(batch)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.detach())
            for name, term in {"loss": loss.detach(), **terms}.items():
                sums[name] = sums.get(name, 0) + term
            if not accelerator.sync_gradients:
                continue

            step += 1
            last = step == settings.steps
            keep = step % settings.save_every == 0 or last
            if not keep and step % settings.log_every:  # what is summed up between two lines is in no checkpoint
                continue  # looking at a number would make a GPU wait
            bad = ~torch.isfinite(accelerator.reduce(torch.stack(losses), "mean"))
            spoiled = keep and not all(torch.isfinite(weight).all() for weight in network.parameters())
            if bad.any() or spoiled:  # a gradient can spoil the weights while the loss is still a number
                back = int(bad.nonzero()[0]) if bad.any() else len(losses) - 1
                where = step - len(losses) // settings.accumulate + back // settings.accumulate + 1
                kept = f"{path} keeps an earlier step" if path.exists() else "nothing was saved yet"
                what = "loss is" if bad.any() else "weights are"
                raise TrainingError(f"the {what} not finite at step {where}; {kept}; lower lr or look at the data")
            losses = []
            done = step - (history[-1]["step"] if history else 0)
            means = accelerator.reduce(torch.stack([term.float() for term in sums.values()]), "mean")
            row = dict(zip(sums, (means / done / settings.accumulate).tolist(), strict=True))
            speed = settings.batch * done / (time.perf_counter() - began)
            history.append({"step": step, **row, "lr": settings.lr_at(step - 1), "images_per_second": speed})
            sums, began = {}, time.perf_counter()
            if watch:
                watch.show(history, samples, network)
            if keep and first:  # after the show, for what is saved is not shown again
                rng = {"rng": torch.get_rng_state(), "cuda_rng": torch.cuda.get_rng_state(device) if on_gpu else None}
                place = {"identity": identity, "step": step, "loader": loader.state_dict(), "history": history}
                weights = {"model": network.state_dict(), "optimizer": optimizer.optimizer.state_dict()}
                save_state(path, place | weights | rng)
            if last:
                break
    if first and hasattr(network, "save_pretrained"):
        network.save_pretrained(folder)
    accelerator.wait_for_everyone()
    network.eval()
    return history


def launch(work: Callable[[], object], count: int) -> None:
    """Call `work` in `count` processes from a notebook, one a graphics card; 1 is this process."""
    from accelerate import notebook_launcher

    notebook_launcher(work, num_processes=count)


def _several_on_cpu() -> bool:
    """Whether torchrun started several processes without GPUs, which Accelerate overlooks unless told."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torch.cuda.is_available()


def _identity(objective: nn.Module, dataset, settings: Settings, accelerator) -> dict:
    """All that the bits of a run depend on, as plain values."""
    fixed = {name: value for name, value in asdict(settings).items() if name not in _FREE}
    options = {name: value for name, value in vars(objective).items() if name[0] != "_" and name != "training"}
    options = {name: value for name, value in options.items() if isinstance(value, int | float | str | tuple)}
    tables = {name: float(table.double().sum()) for name, table in objective.named_buffers() if "." not in name}
    manifest = getattr(dataset, "manifest", {})
    return {
        "settings": json.loads(json.dumps(fixed)),
        "objective": json.loads(json.dumps(options | tables)),
        "network": dict(getattr(objective.model, "_hub_mixin_config", None) or {}),
        "data": json.dumps(manifest),  # in its order: an index is a place in it
        "environment": {
            "torch": str(torch.__version__),
            "machine": platform.machine(),
            "device": accelerator.device.type,
            "processes": accelerator.num_processes,
            "threads": torch.get_num_threads(),
        },
    }


def _check(state: dict, identity: dict, folder: Path) -> None:
    found = state.get("identity")
    if not isinstance(found, dict):
        raise CheckpointError(f"{folder / STATE}: not the state of a training run; remove it and start anew")
    for part, wanted in identity.items():
        finished = part == "environment" and state.get("step") == identity["settings"]["steps"]
        if found.get(part) == wanted or finished:  # what is finished can be looked at anywhere
            continue
        if not isinstance(wanted, dict):
            detail = "other files"
        else:
            other = found.get(part) if isinstance(found.get(part), dict) else {}
            keys = [key for key in wanted if wanted[key] != other.get(key)]
            detail = ", ".join(f"{key} was {other.get(key)!r} and is {wanted[key]!r}" for key in keys) or "other keys"
        raise CheckpointError(
            f"{folder / STATE}: begun with a different {part} ({detail}); go on as it was begun, or take another folder"
        )
