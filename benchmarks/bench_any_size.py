"""Pictures of any size through a network: how near each way of enlarging comes to the untiled network, and its cost.

    python benchmarks/bench_any_size.py                     # both tables
    python benchmarks/bench_any_size.py --only cost         # anew; the other table stays

The network itself on the whole picture is the truth; at 12 megapixels that takes minutes and many GB, so the error is
measured at 3, with a small copy that is smaller by as much. Time and memory are those at 12 megapixels. The result goes
to `_build/lab/results/bench_any_size.json`; the reviewed copy in `book/results` is the record. See README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

THREADS = os.environ.setdefault("OMP_NUM_THREADS", "2")  # before torch starts its pool

import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench_recolor import peak_memory  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from ctlib import images, lut, ops, results  # noqa: E402
from ctlib.classical.distribution import spread  # noqa: E402
from ctlib.data import photos  # noqa: E402
from ctlib.enlarge import fit  # noqa: E402
from ctlib.metrics.fidelity import ciede2000_lab  # noqa: E402
from ctlib.models.histogram_analogy import HistogramAnalogy  # noqa: E402

NETWORKS = {"film": "histogram-analogy-film-tiny", "film, curves": "histogram-analogy-film-curves-tiny"}
KINDS = ("grain", "mosaic", "mirrored")
DEFAULT = "color and place"
GOAL_ERROR, GOAL_SECONDS, GOAL_MEMORY = 1.0, 6.0, 3072  # mean CIEDE2000, s, MB of the whole process
SAMPLES = 1 << 18  # pixels on which pictures are compared


def picture(kind: str, width: int, height: int) -> np.ndarray:
    """A large picture made of the bundled photographs.

    `"grain"`: one, enlarged, with coarse grain (6 levels); `"mosaic"`: pieces of all of them, 400 x 300, as they are;
    `"mirrored"`: one as it is, mirrored at its sides until it fills the picture: detail to the last pixel.
    """
    if kind == "grain":
        image = np.asarray(Image.fromarray(photos.load("coffee")).resize((width, height), Image.Resampling.LANCZOS))
        out, generator = np.empty_like(image), np.random.default_rng(0)
        for top in range(0, height, 64):  # by strips, so that the picture does not set the peak of memory
            strip = image[top : top + 64]
            grain = generator.normal(0, 6, strip.shape).astype(np.float32)
            out[top : top + 64] = (strip + grain).round().clip(0, 255).astype(np.uint8)
        return out
    if kind == "mirrored":
        photo = photos.load("motorcycle")
        missing = (max(0, wanted - have) for wanted, have in zip((height, width), photo.shape, strict=False))
        return np.pad(photo, [*((0, count) for count in missing), (0, 0)], mode="symmetric")[:height, :width].copy()
    out, names = np.empty((height, width, 3), np.uint8), photos.names()
    places = [(top, left) for top in range(0, height, 300) for left in range(0, width, 400)]
    for number, (top, left) in enumerate(places):
        cell = out[top : top + 300, left : left + 400]
        cell[:] = photos.load(names[number % len(names)])[: cell.shape[0], : cell.shape[1]]
    return out


def averaged(source: Tensor, long_side: int) -> Tensor:
    """The small copy of the peers: averages, as one shrinks a photograph."""
    size = [round(side * long_side / max(source.shape[2:])) for side in source.shape[2:]]
    return functional.interpolate(source, size, mode="bilinear", antialias=True).clamp(0, 1)


def bilinear(net: HistogramAnalogy, source: Tensor, reference: Tensor, long_side: int) -> Tensor:
    """The change of the small copy, enlarged."""
    small = averaged(source, long_side)
    change = ops.rgb_to_lab(net.recolor(small, reference)) - ops.rgb_to_lab(small)
    change = functional.interpolate(change, source.shape[2:], mode="bilinear")
    return ops.lab_to_rgb(ops.rgb_to_lab(source).add_(change))


def table(net: HistogramAnalogy, source: Tensor, reference: Tensor, long_side: int) -> Tensor:
    """A look-up table of 33 nodes: for each the mean of the colors that fall near it, or of its neighbors."""
    small = averaged(source, long_side)
    change = net.recolor(small, reference) - small
    rough = fit(small[0], change[0], 9)[None]  # what nodes get that no color is near
    whole = functional.interpolate(rough, (33,) * 3, mode="trilinear", align_corners=True)[0]
    node = (small[0].flatten(1) * 32).round().long()
    place = (node[0] * 33 + node[1]) * 33 + node[2]
    count = torch.bincount(place, minlength=33**3)
    sums = torch.stack([torch.bincount(place, channel, 33**3) for channel in change[0].flatten(1)])
    filled = torch.where(count > 0, sums / count.clamp(min=1), whole.flatten(1)).view_as(whole)
    return lut.apply(filled.float(), source).add_(source).clamp_(0, 1)


def default(net: HistogramAnalogy, source: Tensor, reference: Tensor, long_side: int) -> Tensor:
    """What `recolor` does: a table of colors and the rest by place, see `ctlib.enlarge`."""
    return net.recolor(source, reference, long_side=long_side)


def untiled(net: HistogramAnalogy, source: Tensor, reference: Tensor, long_side: int) -> Tensor:
    """The whole picture at once."""
    return net.recolor(source, reference, long_side=max(source.shape[2:]))


CONTENDERS: dict[str, Callable] = {"bilinear change": bilinear, "33-node LUT": table, DEFAULT: default}


def case(network: str, kind: str, size: str) -> tuple[HistogramAnalogy, Tensor, Tensor]:
    width, height = map(int, size.split("x"))
    net = HistogramAnalogy.from_pretrained(NETWORKS[network])
    return net, images.to_tensor(picture(kind, width, height)), photos.tensor("china")


def lab_samples(rgb: Tensor) -> np.ndarray:
    flat = rgb.flatten(2)[:, :, spread(rgb[0, 0].numel(), SAMPLES)]
    return ops.rgb_to_lab(flat)[0].T.double().numpy()


def errors(size: str, long_side: int) -> list[dict]:
    """CIEDE2000 of each contender from the untiled network."""
    rows = []
    for network in NETWORKS:
        for kind in KINDS:
            net, source, reference = case(network, kind, size)
            truth = lab_samples(untiled(net, source, reference, long_side))
            for name, work in {"none": lambda _, source, *rest: source, **CONTENDERS}.items():
                found = ciede2000_lab(lab_samples(work(net, source, reference, long_side)), truth)
                number = {"ciede2000": found.mean(), "ciede2000_p95": np.quantile(found, 0.95)}
                rows.append({"case": f"{network}: {kind}, {size}", "method": name, **number})
                print(f"{rows[-1]['case']:36} {name:18} {found.mean():7.2f} {number['ciede2000_p95']:7.2f}", flush=True)
    return rows


def costs(size: str, long_side: int, count: int) -> list[dict]:
    """Seconds on the wall and of CPU in interleaved rounds, and the peak memory of a fresh process."""
    rows = []
    for network in NETWORKS:
        net, source, reference = case(network, "grain", size)
        calls: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
        for number in range(count + 1):
            for name, work in CONTENDERS.items():
                wall, cpu = time.perf_counter(), time.process_time()
                work(net, source if number else source[..., :300, :400], reference, long_side if number else 100)
                if number:  # the first, on a corner, pays for imports and pools
                    calls[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        del net, source
        for name in CONTENDERS:
            wall, cpu = (median(values) for values in zip(*calls[name], strict=True))
            command = [sys.executable, __file__, "--one", name, network, "--size", size, "--long-side", str(long_side)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            memory = json.loads(done.stdout.splitlines()[-1])
            row = {"seconds": wall, "least_seconds": min(calls[name])[0], "cpu_seconds": cpu, **memory}
            rows.append({"case": f"{network}: cost, {size}", "method": name, **row})
            print(
                f"{rows[-1]['case']:36} {name:18} {wall:6.1f} s {cpu:6.1f} s CPU {memory['peak_mb']:6.0f} MB",
                flush=True,
            )
    return rows


@torch.no_grad()
def one(name: str, network: str, size: str, long_side: int) -> None:
    """What a subprocess does: one call, then its peak memory as JSON."""
    net, source, reference = case(network, "grain", size)
    before = peak_memory()
    CONTENDERS[name](net, source, reference, long_side)
    print(json.dumps({"peak_mb": peak_memory(), "before_mb": before}))


def verdicts(rows: list[dict]) -> None:
    goals = (("ciede2000", GOAL_ERROR), ("seconds", GOAL_SECONDS), ("peak_mb", GOAL_MEMORY))
    for row in rows:
        for key, goal in goals:
            if row["method"] == DEFAULT and key in row:
                met = "reached" if row[key] <= goal else "MISSED"
                print(f"{met:8} {row['case']:36} {key} {row[key]:.3g} (goal <= {goal:g})")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("error", "cost"), help="the other table stays as it was")
    parser.add_argument("--size", default="4000x3000", help="width x height for time and memory")
    parser.add_argument("--long-side", type=int, default=1024, help="of the small copy at that size")
    parser.add_argument("--error-size", default="2000x1500", help="width x height for the error")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(int(THREADS))
    if options.one:
        return one(*options.one, options.size, options.long_side)
    widths = [max(map(int, size.split("x"))) for size in (options.error_size, options.size)]
    small = round(options.long_side * widths[0] / widths[1])
    parameters = {key: value for key, value in vars(options).items() if key not in ("one", "only")}
    run, rows = results.start("bench_any_size", **parameters, error_long_side=small), []
    if options.only:
        before = results.read("bench_any_size")
        if before["parameters"] != run.parameters:
            parser.error(f"the result so far has {before['parameters']}; measure both tables anew")
        rows = [row for row in before["rows"] if ("ciede2000" in row) == (options.only == "cost")]
    if options.only != "cost":
        rows = errors(options.error_size, small) + rows
    if options.only != "error":
        rows += costs(options.size, options.long_side, options.rounds)
    verdicts(rows)
    print(run.write(rows, data=photos.manifest(photos.names()), threads=torch.get_num_threads()))


if __name__ == "__main__":
    main()
