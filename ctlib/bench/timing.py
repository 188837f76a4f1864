"""How we measure: interleaved rounds, medians, bytes against a copy of as many, memory, error against float64."""

import gc
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux only
SHORT = 50.0  # ms; such a call runs once off the clock before: nobody pays for what a neighbor left in the caches
PATIENCE = 4.0  # s; a contender that has taken longer sits out the later rounds


@dataclass(frozen=True)
class Contender:
    """One library's way.

    Attributes:
        name: library and mode, `"kornia, compiled"`.
        call: of one set of the case's inputs.
        read: its result as a tensor that can be compared with the truth; `None` if it computes something else.
    """

    name: str
    call: Callable
    read: Callable[..., Tensor] | None = None


@dataclass(frozen=True)
class Case:
    """A task: the same for all contenders, of which the first is ours.

    Attributes:
        op: what is computed.
        size: how the inputs are called in tables.
        inputs: one or more sets, equal in shape; a GPU turns through them, as a cache would serve a single one.
        contenders: who takes part.
        bytes: the least that must be read and written.
        truth: in float64, of a set of inputs; `None` where contenders compute different things.
    """

    op: str
    size: str
    inputs: Sequence[tuple]
    contenders: Sequence[Contender]
    bytes: int
    truth: Callable[..., Tensor] | None = None


@dataclass
class Result:
    """What was measured of a contender."""

    name: str
    first_s: float  # the first call, compilation included
    peak_mb: float | None  # beyond the inputs, in one call
    error: float | None  # largest difference from the truth
    times_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return median(self.times_ms)


def run(case: Case, rounds: int = 15) -> list[Result]:
    """Measure a case. Rounds are interleaved: what slows the machine slows all contenders alike."""
    results = []
    truth = case.truth(*case.inputs[0]) if case.truth else None
    for contender in case.contenders:
        seconds = clock(contender.call, case.inputs[0]) / 1e3
        peak, result = peak_of(contender.call, case.inputs[0])
        error = None
        if truth is not None and contender.read is not None:
            error = float((contender.read(result).detach().double().cpu() - truth.cpu()).abs().max())
        results.append(Result(contender.name, seconds, peak, error))
        del result
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            for contender, result in zip(case.contenders, results, strict=True):
                if sum(result.times_ms) < 1e3 * PATIENCE:
                    inputs = case.inputs[turn % len(case.inputs)]
                    if result.times_ms and result.times_ms[-1] < SHORT:
                        clock(contender.call, inputs)
                    result.times_ms.append(clock(contender.call, inputs))
    finally:
        gc.enable()
    return results


def clock(call: Callable, inputs: tuple) -> float:
    """Milliseconds of one call."""
    if any(isinstance(x, Tensor) and x.is_cuda for x in inputs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        torch.cuda._sleep(1_000_000)  # so that the launches wait in line, and their cost is not counted
        start.record()
        call(*inputs)
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end)
    start = time.perf_counter()
    call(*inputs)
    return (time.perf_counter() - start) * 1e3


def peak_of(call: Callable, inputs: tuple) -> tuple[float | None, object]:
    """Most memory, in MB, that a call holds beyond what was there before; and its result."""
    gc.collect()
    if any(isinstance(x, Tensor) and x.is_cuda for x in inputs):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call(*inputs)
        return (torch.cuda.max_memory_allocated() - before) / 1e6, result
    try:
        _CLEAR.write_text("5")  # the peak begins anew
        before = _resident("VmRSS")
        result = call(*inputs)
        return max(0.0, _resident("VmHWM") - before), result
    except OSError:
        return None, call(*inputs)


def _resident(what: str) -> float:
    return int(re.search(rf"^{what}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)[1]) * 1024 / 1e6


def copy_bandwidth(device: str = "cpu", megabytes: int = 144, rounds: int = 15) -> float:
    """Gigabytes a second, read and written, of a copy between two buffers that are there already."""
    count = megabytes * 250_000
    source = torch.rand(count, device=device)
    target = torch.empty_like(source).copy_(source)
    times = [clock(lambda a, b: b.copy_(a), (source, target)) for _ in range(rounds)]
    return 8 * count / min(times[1:]) / 1e6
