"""Time and memory of recoloring a 12-megapixel photograph, 8 bits in and 8 bits out, beside other libraries.

Run `python benchmarks/bench_recolor.py`; it prints tables and writes nothing. `--all` measures the memory of every
method on two pictures, which takes far longer. See README.md for how it measures.
"""

import argparse
import gc
import json
import os
import re
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

THREADS = os.environ.setdefault("OMP_NUM_THREADS", "2")
for name in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = THREADS  # before numpy and torch start their pools

import numpy as np  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(int(THREADS))

from PIL import Image  # noqa: E402
from skimage import color as skimage_color  # noqa: E402

from ctlib import methods  # noqa: E402
from ctlib.classical import palette  # noqa: E402
from ctlib.data import photos  # noqa: E402

PATIENCE = 30  # s; a contender that has taken longer sits out the later rounds
MAXRSS_PER_MB = 1 << 20 if sys.platform == "darwin" else 1 << 10  # ru_maxrss: bytes on macOS, kilobytes elsewhere
STATUS = Path("/proc/self/status")  # Linux only
GOAL_MEMORY = 2048  # MB, whole process
GOAL_PALETTE = 0.3  # s
GOAL_SPEEDUP = 3.0  # over scikit-image


def picture(kind: str, width: int, height: int) -> np.ndarray:
    """A bundled photograph enlarged, with the noise of a sensor (2 levels); or nothing but uniform noise."""
    generator = np.random.default_rng(0)
    if kind == "noise":
        return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(photos.load(kind)).resize((width, height), Image.Resampling.LANCZOS))
    out = np.empty_like(image)
    for top in range(0, height, 64):  # by strips, so that the picture does not set the peak of memory
        strip = image[top : top + 64]
        grain = generator.normal(0, 2, strip.shape).astype(np.float32)
        out[top : top + 64] = (strip + grain).round().clip(0, 255).astype(np.uint8)
    return out


def to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def scikit_image(source: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Reinhard in CIELAB as one writes it with scikit-image and numpy, in float64."""
    lab, wanted = skimage_color.rgb2lab(source), skimage_color.rgb2lab(reference)
    lab = (lab - lab.mean((0, 1))) * (wanted.std((0, 1)) / lab.std((0, 1))) + wanted.mean((0, 1))
    return to_uint8(skimage_color.lab2rgb(lab) * 255)


def color_matcher(method: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def run(source: np.ndarray, reference: np.ndarray) -> np.ndarray:
        from color_matcher import ColorMatcher

        warnings.simplefilter("ignore")  # its reinhard takes the logarithm of black: NaN
        return to_uint8(ColorMatcher().transfer(src=source, ref=reference, method=method))

    return run


def ours(name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda source, reference: methods.recolor_uint8(name, source, reference)


#: name: function of source and reference
CONTENDERS: dict[str, Callable] = {name: ours(name) for name in methods.METHODS}
CONTENDERS["palette of 5"] = lambda source, reference: palette.extract_uint8(source, 5)
CONTENDERS["scikit-image Lab + numpy"] = scikit_image
if find_spec("color_matcher"):
    CONTENDERS |= {f"color-matcher {name}": color_matcher(name) for name in ("mkl", "reinhard", "hm-mkl-hm")}
TIMED = [
    "reinhard_lab", "mkl_rgb", "histogram_rgb", "hm_mkl_hm", "idt", "sliced_ot", "swatch", "chang", "palette of 5",
    "color-matcher mkl", "color-matcher reinhard", "color-matcher hm-mkl-hm", "scikit-image Lab + numpy",
]  # fmt: skip

#: whose memory is measured without --all: fast ones of each family, and one run of the slowest
WEIGHED = ["reinhard_lab", "mkl_rgb", "histogram_rgb", "swatch", "chang", "idt"]


def measure(names: list[str], rounds: int, width: int, height: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds on the wall and of CPU of each call. Rounds are interleaved: what slows the machine slows all alike."""
    source, reference = picture("coffee", width, height), picture("china", width, height)
    colors = [len(np.unique(image.reshape(-1, 3) @ [1 << 16, 1 << 8, 1])) for image in (source, reference)]
    print(f"source: coffee, {colors[0]:,} distinct colors; reference: china, {colors[1]:,}\n", flush=True)
    small = picture("coffee", 200, 150)
    for name in names:
        CONTENDERS[name](small, small)  # imports and thread pools start here
    calls: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    gc.disable()
    for _ in range(rounds):
        for name in names:
            if sum(wall for wall, _ in calls[name]) > PATIENCE:
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            CONTENDERS[name](source, reference)
            calls[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            gc.collect()
    gc.enable()
    return calls


def report_times(names: list[str], rounds: int, width: int, height: int) -> None:
    calls = measure(names, rounds, width, height)
    wall = {name: median(wall for wall, _ in pairs) for name, pairs in calls.items()}
    cpu = {name: median(cpu for _, cpu in pairs) for name, pairs in calls.items()}
    print(f"{'':26}{'median s':>10}{'least s':>10}{'x reinhard_lab':>16}{'CPU s':>10}{'x':>7}")
    for name in names:
        ratios = wall[name] / wall["reinhard_lab"], cpu[name] / cpu["reinhard_lab"]
        least = min(calls[name])[0]
        print(f"{name:26}{wall[name]:10.3f}{least:10.3f}{ratios[0]:16.2f}{cpu[name]:10.3f}{ratios[1]:7.2f}")
    print()
    verdict("palette of 5", wall["palette of 5"], "<=", GOAL_PALETTE, "s")
    for peer, goal in (("scikit-image Lab + numpy", GOAL_SPEEDUP), ("color-matcher mkl", 1.0)):
        if peer in wall:
            verdict(f"{peer} / reinhard_lab", wall[peer] / wall["reinhard_lab"], ">=", goal, "x")


def report_error(width: int, height: int) -> None:
    """Largest distance of our Reinhard from scikit-image in float64, in gray levels."""
    source, reference = picture("coffee", width, height), picture("china", width, height)
    difference = CONTENDERS["reinhard_lab"](source, reference).astype(int) - scikit_image(source, reference)
    verdict("Reinhard, largest error", float(np.abs(difference).max()), "<=", 1, "gray levels")


def verdict(what: str, value: float, relation: str, goal: float, unit: str) -> None:
    reached = value <= goal if relation == "<=" else value >= goal
    print(f"{'reached' if reached else 'MISSED':8} {what}: {value:.3g} {unit} (goal {relation} {goal:g})")


def report_memory(names: list[str], kinds: list[str], width: int, height: int) -> None:
    """Peak memory of a fresh process for each contender and picture."""
    for kind in kinds:
        print(f"\n{kind}: peak MB of the whole process, of it before the call, s of a first call")
        worst = 0.0
        for name in names:
            command = [sys.executable, __file__, "--one", name, "--kind", kind, "--size", f"{width}x{height}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:] or [f"killed, exit code {done.returncode}"]
                print(f"{name:28} failed: {last[0]}")
                worst = float("inf") if name in methods.METHODS else worst
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            print(f"{name:28}{row['peak']:9.0f}{row['before']:9.0f}{row['seconds']:9.2f}", flush=True)
            worst = max(worst, row["peak"]) if name in methods.METHODS else worst
        verdict(f"ours on {kind}, highest peak", worst, "<=", GOAL_MEMORY, "MB")


def peak_memory() -> float:
    """Most memory this process has held so far, MB.

    Linux hands ru_maxrss down from the process that started this one, which is large after the table of times; VmHWM
    begins anew with each program.
    """
    if STATUS.is_file() and (found := re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)):
        return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MAXRSS_PER_MB


def one(name: str, kind: str, width: int, height: int) -> None:
    """What a subprocess does: one call, then its peak memory as JSON."""
    source, reference = picture(kind, width, height), picture("china", width, height)
    before = peak_memory()
    start = time.perf_counter()
    CONTENDERS[name](source, reference)
    seconds = time.perf_counter() - start
    print(json.dumps({"peak": peak_memory(), "before": before, "seconds": seconds}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="4000x3000", help="width x height in pixels")
    parser.add_argument("--all", action="store_true", help="5 rounds; the memory of every method, on noise as well")
    parser.add_argument("--rounds", type=int, help="calls of each contender (3)")
    parser.add_argument("--only", nargs="+", choices=["time", "error", "memory"], default=["time", "error", "memory"])
    parser.add_argument("--kinds", nargs="+", help="pictures of the memory table: noise, or photographs (coffee)")
    parser.add_argument("--methods", nargs="+", choices=list(CONTENDERS), help=f"of that table ({' '.join(WEIGHED)})")
    parser.add_argument("--one", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--kind", default="coffee", help=argparse.SUPPRESS)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    if options.one:
        return one(options.one, options.kind, width, height)
    rounds = options.rounds or (5 if options.all else 3)
    print(f"{width} x {height} pixels, {THREADS} threads, torch {torch.__version__}, {rounds} rounds")
    if "time" in options.only:
        report_times([name for name in TIMED if name in CONTENDERS], rounds, width, height)
    if "error" in options.only:
        report_error(width, height)
    if "memory" in options.only:
        weighed = options.methods or (list(CONTENDERS) if options.all else WEIGHED)
        report_memory(weighed, options.kinds or ["coffee", "noise"][: 2 if options.all else 1], width, height)


if __name__ == "__main__":
    main()
