"""Pictures of any size through a network: how near each way of enlarging comes to the untiled network, and its cost.

    python benchmarks/bench_any_size.py                     # both tables
    python benchmarks/bench_any_size.py --only cost         # anew; the other table stays

    python benchmarks/bench_any_size.py --drawn 14          # and drawn regions, from $CTLIB_DATA

The network itself on the whole picture is the truth; at 12 megapixels that takes minutes and many GB, so the error is
measured at 3, with a small copy that is smaller by as much. Time and memory are those at 12 megapixels. All is done
without labels and with those of superpixels; peers get both at the small size. About a quarter of an hour on two idle
cores. The result goes to `_build/lab/results/bench_any_size.json`; the reviewed copy in `book/results` is the record.
See README.md.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median

THREADS = os.environ.setdefault("OMP_NUM_THREADS", "2")  # before torch starts its pool

import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench_recolor import peak_memory  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from ctlib import evaluate, images, lut, ops, results  # noqa: E402
from ctlib.classical.distribution import spread  # noqa: E402
from ctlib.data import photos  # noqa: E402
from ctlib.enlarge import fit  # noqa: E402
from ctlib.metrics.fidelity import ciede2000_lab  # noqa: E402
from ctlib.models.histogram_analogy import HistogramAnalogy  # noqa: E402
from ctlib.segment import drop_small, match, segment  # noqa: E402
from ctlib.segment.regions import resized  # noqa: E402

NETWORKS = {"film": "histogram-analogy-film-tiny", "film, curves": "histogram-analogy-film-curves-tiny"}
NETWORKS["distilled"] = "histogram-analogy-distilled-tiny"
KINDS = ("grain", "mosaic", "mirrored")
DEFAULT = "color and place"
GOAL_ERROR, GOAL_SECONDS, GOAL_MEMORY = 1.0, 6.0, 3072  # mean CIEDE2000, s, MB of the whole process
SAMPLES = 1 << 18  # pixels on which pictures are compared
REGIONS = 8  # of a picture at most
CELL, BINS, RIDGE = 8, 16, 1e-5  # of the bilateral grid: pixels of the small copy, bins of lightness, pull to no slope

Labels = tuple[Tensor, Tensor] | None


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


def small_case(net: HistogramAnalogy, source: Tensor, reference: Tensor, labels: Labels, long_side: int):
    """The small copy of the peers, and what the network makes of it."""
    small = averaged(source, long_side)
    if labels is not None:
        labels = resized(labels[0], tuple(small.shape[2:])), labels[1]
    return small, net.recolor(small, reference, labels=labels)


def bilinear(net: HistogramAnalogy, source: Tensor, reference: Tensor, labels: Labels, long_side: int) -> Tensor:
    """The change of the small copy, enlarged."""
    small, result = small_case(net, source, reference, labels, long_side)
    change = functional.interpolate(ops.rgb_to_lab(result) - ops.rgb_to_lab(small), source.shape[2:], mode="bilinear")
    return ops.lab_to_rgb(ops.rgb_to_lab(source).add_(change))


def table(net: HistogramAnalogy, source: Tensor, reference: Tensor, labels: Labels, long_side: int) -> Tensor:
    """A look-up table of 33 nodes: for each the mean of the colors that fall near it, or of its neighbors."""
    small, result = small_case(net, source, reference, labels, long_side)
    change = result - small
    rough = fit(small[0], change[0], 9)[None]  # what nodes get that no color is near
    whole = functional.interpolate(rough, (33,) * 3, mode="trilinear", align_corners=True)[0]
    node = (small[0].flatten(1) * 32).round().long()
    place = (node[0] * 33 + node[1]) * 33 + node[2]
    count = torch.bincount(place, minlength=33**3)
    sums = torch.stack([torch.bincount(place, channel, 33**3) for channel in change[0].flatten(1)])
    filled = torch.where(count > 0, sums / count.clamp(min=1), whole.flatten(1)).view_as(whole)
    return lut.apply(filled.float(), source).add_(source).clamp_(0, 1)


def with_one(rgb: Tensor) -> Tensor:
    return torch.cat([rgb, torch.ones_like(rgb[:, :1])], 1)


def grid(net: HistogramAnalogy, source: Tensor, reference: Tensor, labels: Labels, long_side: int) -> Tensor:
    """A bilateral grid: in each cell of place and lightness the affine function of color that fits the change best.

    As in Chen, Adams, Wadhwa and Hasinoff, Bilateral Guided Upsampling, SIGGRAPH Asia 2016, with moments smoothed over
    neighboring cells in place of their solver.
    """
    small, result = small_case(net, source, reference, labels, long_side)
    color, change, level = with_one(small), result - small, small.mean(1, keepdim=True) * (BINS - 1)
    pairs = torch.einsum("bihw,bjhw->bijhw", color, torch.cat([color, change], 1)).flatten(1, 2)
    cells = [-(-side // CELL) for side in small.shape[2:]]
    shares = [(1 - (level - number).abs()).clamp(min=0) for number in range(BINS)]
    moments = torch.stack([functional.interpolate(pairs * share, cells, mode="area") for share in shares], 2)
    moments = (
        functional.avg_pool3d(moments, 3, 1, 1, count_include_pad=False)[0]
        .unflatten(0, (4, 7))
        .movedim((0, 1), (-2, -1))
    )
    pull = torch.diag(torch.tensor([RIDGE, RIDGE, RIDGE, RIDGE / 100]))
    affine = torch.linalg.solve(moments[..., :4] + pull, moments[..., 4:]).flatten(-2).movedim(-1, 0)[None]
    out, (height, width) = torch.empty_like(source), source.shape[2:]
    across = (torch.arange(width) + 0.5) / width * 2 - 1
    for top in range(0, height, 64):
        strip = source[:, :, top : top + 64]
        down = (torch.arange(top, top + strip.shape[2]) + 0.5) / height * 2 - 1
        depth = (strip.mean(1) * (BINS - 1) + 0.5) / BINS * 2 - 1
        place = torch.stack([across.expand_as(depth), down[None, :, None].expand_as(depth), depth], -1)[:, None]
        found = functional.grid_sample(affine, place, padding_mode="border", align_corners=False)[:, :, 0]
        change = (found.unflatten(1, (4, 3)) * with_one(strip)[:, :, None]).sum(1)
        out[:, :, top : top + 64] = (strip + change).clamp(0, 1)
    return out


def default(net: HistogramAnalogy, source: Tensor, reference: Tensor, labels: Labels, long_side: int) -> Tensor:
    """What `recolor` does: a table of colors and the rest by place, see `ctlib.enlarge`."""
    return net.recolor(source, reference, labels=labels, long_side=long_side)


CONTENDERS: dict[str, Callable] = {
    "bilinear change": bilinear,
    "33-node LUT": table,
    "bilateral grid": grid,
    DEFAULT: default,
}


def network(name: str) -> HistogramAnalogy:
    return HistogramAnalogy.from_pretrained(NETWORKS[name])


def case(kind: str, size: str) -> tuple[Tensor, Tensor]:
    width, height = map(int, size.split("x"))
    return images.to_tensor(picture(kind, width, height)), photos.tensor("china")


def labels_of(source: Tensor, reference: Tensor) -> Labels:
    """Superpixels and their partners, however far."""
    regions = [drop_small(segment(rgb, k=REGIONS)) for rgb in (source, reference)]
    return match(*regions, source, reference, limit=100.0)


def lab_samples(rgb: Tensor) -> np.ndarray:
    flat = rgb.flatten(2)[:, :, spread(rgb[0, 0].numel(), SAMPLES)]
    return ops.rgb_to_lab(flat)[0].T.double().numpy()


def apart(first: Tensor, truth: Tensor) -> np.ndarray:
    return ciede2000_lab(lab_samples(first), lab_samples(truth))


def errors(size: str, long_side: int) -> list[dict]:
    """CIEDE2000 of each contender from the untiled network, without regions and with them."""
    rows = []
    for kind in KINDS:
        source, reference = case(kind, size)
        known = {"": None, ", regions": labels_of(source, reference)}
        for name, (what, labels) in ((name, item) for name in NETWORKS for item in known.items()):
            net = network(name)
            truth = net.recolor(source, reference, labels=labels, long_side=max(source.shape[2:]))
            for method, work in {"none": lambda _, source, *rest: source, **CONTENDERS}.items():
                found = apart(work(net, source, reference, labels, long_side), truth)
                number = {"ciede2000": found.mean(), "ciede2000_p95": np.quantile(found, 0.95)}
                rows.append({"case": f"{name}: {kind}{what}, {size}", "method": method, **number})
                print(
                    f"{rows[-1]['case']:44} {method:18} {found.mean():7.2f} {number['ciede2000_p95']:7.2f}", flush=True
                )
    return sorted(rows, key=lambda row: list(NETWORKS).index(row["case"].partition(":")[0]))


def drawn(count: int) -> list[dict]:
    """The same for photographs of 512 pixels whose regions people drew, by way of 256: means over the pairs."""
    rows, cases = [], evaluate.labelled_cases("dpst", 512)[:: max(1, 40 // count)]
    for name in NETWORKS:
        net, found = network(name), {method: [] for method in CONTENDERS}
        for pair, labels in cases:
            truth = net.recolor(pair.source, pair.reference, labels=labels)
            for method, work in CONTENDERS.items():
                found[method].append(apart(work(net, pair.source, pair.reference, labels, 256), truth))
        for method, values in found.items():
            number = {key: np.mean([step(value) for value in values]) for key, step in STEPS.items()}
            rows.append({"case": f"{name}: drawn regions, {len(cases)} pairs", "method": method, **number})
            print(f"{rows[-1]['case']:44} {method:18} {number['ciede2000']:7.2f}", flush=True)
    return rows


STEPS = {"ciede2000": np.mean, "ciede2000_p95": functools.partial(np.quantile, q=0.95)}


def costs(size: str, long_side: int, count: int) -> list[dict]:
    """Seconds on the wall and of CPU in interleaved rounds, and the peak memory of a fresh process."""
    rows, (source, reference) = [], case("grain", size)
    labels = labels_of(source, reference)
    ways = {name: (name, None) for name in CONTENDERS} | {f"{DEFAULT}, regions": (DEFAULT, labels)}
    for name in NETWORKS:
        net = network(name)
        calls: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for number in range(count + 1):
            for way, (method, known) in ways.items():
                wall, cpu = time.perf_counter(), time.process_time()
                if number:
                    CONTENDERS[method](net, source, reference, known, long_side)
                    calls[way].append((time.perf_counter() - wall, time.process_time() - cpu))
                else:  # on a corner, pays for imports and pools
                    CONTENDERS[method](net, source[..., :300, :400], reference, None, 100)
        for way in ways:
            wall, cpu = (median(values) for values in zip(*calls[way], strict=True))
            command = [sys.executable, __file__, "--one", way, name, "--size", size, "--long-side", str(long_side)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            memory = json.loads(done.stdout.splitlines()[-1])
            row = {"seconds": wall, "least_seconds": min(calls[way])[0], "cpu_seconds": cpu, **memory}
            rows.append({"case": f"{name}: cost, {size}", "method": way, **row})
            print(
                f"{rows[-1]['case']:36} {way:24} {wall:6.1f} s {cpu:6.1f} s CPU {memory['peak_mb']:6.0f} MB", flush=True
            )
    return rows


@torch.no_grad()
def one(way: str, name: str, size: str, long_side: int) -> None:
    """What a subprocess does: one call, then its peak memory as JSON."""
    net, (source, reference) = network(name), case("grain", size)
    method, _, regions = way.partition(", ")
    labels = None
    if regions:  # drawn in squares: looking for them would set the peak
        labels = tuple(squares(*rgb.shape[2:]) for rgb in (source, reference))
    before = peak_memory()
    CONTENDERS[method](net, source, reference, labels, long_side)
    print(json.dumps({"peak_mb": peak_memory(), "before_mb": before, "regions": REGIONS if regions else 0}))


def squares(height: int, width: int) -> Tensor:
    rows, columns = (torch.arange(side) * parts // side for side, parts in ((height, REGIONS // 4), (width, 4)))
    return rows[:, None] * 4 + columns


def verdicts(rows: list[dict]) -> None:
    goals = (("ciede2000", GOAL_ERROR), ("seconds", GOAL_SECONDS), ("peak_mb", GOAL_MEMORY))
    for row in rows:
        for key, goal in goals:
            if row["method"].startswith(DEFAULT) and key in row:
                met = "reached" if row[key] <= goal else "MISSED"
                print(f"{met:8} {row['case']:44} {row['method']:24} {key} {row[key]:.3g} (goal <= {goal:g})")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("error", "cost"), help="the other table stays as it was")
    parser.add_argument("--size", default="4000x3000", help="width x height for time and memory")
    parser.add_argument("--long-side", type=int, default=1024, help="of the small copy at that size")
    parser.add_argument("--error-size", default="2000x1500", help="width x height for the error")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--drawn", type=int, default=0, help="pairs of dpst in $CTLIB_DATA, 1 to 40")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(int(THREADS))
    warnings.simplefilter("ignore")  # label maps are scaled on purpose
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
        rows = errors(options.error_size, small) + (drawn(options.drawn) if options.drawn else []) + rows
    if options.only != "error":
        rows += costs(options.size, options.long_side, options.rounds)
    verdicts(rows)
    print(run.write(rows, data=photos.manifest(photos.names()), threads=torch.get_num_threads()))


if __name__ == "__main__":
    main()
