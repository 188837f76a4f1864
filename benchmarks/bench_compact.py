"""What a network costs, by width: parameters, multiplications, seconds and memory for a picture of 512 x 512.

    python benchmarks/bench_compact.py                       # every width and the student, five idle minutes
    python benchmarks/bench_compact.py --only paper tiny

All are what a distillation and its teacher are: FiLM with curves. The weights are random, they change nothing here; the
teacher is `small`, and its student, `distilled`, the shipped one. Every contender recolors once a round, rounds are
interleaved, and the median of at least seven counts. Memory is the peak of a process of its own, less
that of one that has loaded the same libraries and pictures and no network. The result goes to
`_build/lab/results/bench_compact.json`; the reviewed copy in `book/results` is the record.
"""

import argparse
import contextlib
import copy
import re
import resource
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from ctlib import results
from ctlib.models.histogram_analogy import CONDITIONINGS, WIDTHS, HistogramAnalogy

STUDENT = "distilled"
LEAST = 7  # rounds: a median of fewer is one slow spell away from another
MAXRSS_PER_MB = 1 << 20 if sys.platform == "darwin" else 1 << 10  # ru_maxrss: bytes on macOS, kilobytes elsewhere
NAMES = (*WIDTHS, STUDENT)
STATUS = Path("/proc/self/status")  # Linux only


def count(part: torch.nn.Module) -> int:
    return sum(weights.numel() for weights in part.parameters())


@cache
def network(name: str, conditioning: str) -> HistogramAnalogy:
    if name == STUDENT:
        return HistogramAnalogy.from_pretrained("histogram-analogy-distilled-tiny")
    return HistogramAnalogy(conditioning, name, curves=True).eval()


def sizes(width: str, conditioning: str, side: int) -> dict[str, int]:
    """Parameters, and multiplications with an addition in convolutions, linear layers and attention."""
    net = copy.deepcopy(network(width, conditioning)).to("meta")  # shapes alone
    unit, histogram = (torch.empty(1, *size, device="meta") for size in ((3, side, side), (9, net.bins, net.bins)))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(unit, histogram, histogram, unit)
    whole, encoder, hen = count(net), count(net.ctn.encoder), count(net.hen)
    return {
        "parameters": whole,
        "encoder_parameters": encoder,
        "other_parameters": whole - encoder,  # histogram encoder, attention, decoder, refinement
        "ctn_parameters": whole - hen,
        "macs": counter.get_total_flops() // 2,
    }


def pictures(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    source, reference = torch.rand(2, 1, 3, side, side, generator=torch.Generator().manual_seed(0)).unbind(0)
    return source, reference


def latency(widths: list[str], conditioning: str, side: int, count: int) -> dict[str, float]:
    """Median milliseconds of `recolor`, from sRGB to sRGB, after a first call that does not count."""
    nets = {width: network(width, conditioning) for width in widths}
    source, reference = pictures(side)
    seconds = {width: [] for width in widths}
    for net in nets.values():
        net.recolor(source, reference)
    for _ in range(count):
        for width, net in nets.items():
            began = time.perf_counter()
            net.recolor(source, reference)
            seconds[width].append(time.perf_counter() - began)
    return {width: 1000 * median(values) for width, values in seconds.items()}


def peak_memory() -> float:
    """Peak resident memory of this process in MB. On Linux `ru_maxrss` would be handed down from the parent."""
    if STATUS.is_file() and (found := re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)):
        return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MAXRSS_PER_MB


def in_this_process(width: str, conditioning: str, side: int) -> None:
    """What a subprocess does: print its peak after one picture by one network, or by none (`idle`)."""
    with contextlib.suppress(ImportError):
        import torchvision.models  # noqa: F401  for all alike; the networks that need it say so where it is missing
    source, reference = pictures(side)
    if width != "idle":
        network(width, conditioning).recolor(source, reference)
    print(peak_memory())


def memory(widths: list[str], conditioning: str, side: int) -> dict[str, float]:
    """Peak MB of each width above a process that does nothing."""
    found = {}
    for width in ("idle", *widths):
        command = [sys.executable, __file__, "--one", width, "--conditioning", conditioning, "--side", str(side)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{width}: {(done.stderr.strip().splitlines() or ['it was killed'])[-1]}")
        found[width] = float(done.stdout)
    return {width: found[width] - found["idle"] for width in widths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), help="widths")
    parser.add_argument("--conditioning", choices=CONDITIONINGS, default="film")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=LEAST, help=f"at least {LEAST}")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < LEAST:
        parser.error(f"--rounds: expected at least {LEAST}, got {options.rounds}")
    how = options.conditioning, options.side
    if options.one:
        in_this_process(options.one, *how)
        return
    run = results.start("bench_compact", rounds=options.rounds, conditioning=options.conditioning, side=options.side)
    peaks = memory(options.only, *how)
    times = latency(options.only, *how, options.rounds)
    print(f"{'':16} {'parameters':>12} {'encoder':>12} {'rest':>12} {'GMACs':>8} {'ms':>8} {'MB':>7}")
    rows = []
    for width in options.only:
        row = {"case": f"{options.conditioning}, curves, {options.side}", "method": width, **sizes(width, *how)}
        row |= {"milliseconds": times[width], "peak_memory_mb": peaks[width]}
        rows.append(row)
        print(
            f"{width:16} {row['parameters']:12,} {row['encoder_parameters']:12,} {row['other_parameters']:12,} "
            f"{row['macs'] / 1e9:8.2f} {times[width]:8.0f} {peaks[width]:7.0f}"
        )
    print(run.write(rows, threads=torch.get_num_threads()))


if __name__ == "__main__":
    main()
