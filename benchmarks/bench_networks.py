"""Networks on this machine: how long one picture takes, and how fast training is beside a loop as students write it.

    python benchmarks/bench_networks.py                # both
    python benchmarks/bench_networks.py --only latency

Every contender runs once a round, rounds are interleaved, the median over rounds counts. The result goes to
`_build/lab/results/bench_networks.json`; the reviewed copy in `book/results` is the record.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from skimage import color as skcolor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from ctlib import images, ops, results
from ctlib.data import cache, pairs, photos
from ctlib.models.histogram_analogy import HistogramAnalogy, to_unit
from ctlib.recipes.histogram_analogy import Objective
from ctlib.train import Order


def rounds(contenders: dict, count: int) -> dict[str, float]:
    """Median seconds of each contender, called in turns after a first call that does not count."""
    seconds = {name: [] for name in contenders}
    for number in range(count + 1):
        for name, work in contenders.items():
            began = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: median(values) for name, values in seconds.items()}


def latency(side: int, count: int) -> list[dict]:
    """Recoloring one square picture by each network, from sRGB to sRGB; compiled: the U-Net alone, by torch.compile."""
    source, reference = torch.rand(2, 1, 3, side, side).unbind(0)
    contenders = {}
    for width, conditioning, curves in (
        ("tiny", "film", True), ("tiny", "film", False), ("tiny", "tile", False),
        ("small", "film", False), ("small", "tile", False),
    ):  # fmt: skip
        net = HistogramAnalogy(conditioning, width, curves=curves).eval()
        name = f"{conditioning}{', curves' if curves else ''}, {width}"
        contenders[name] = lambda net=net: net.recolor(source, reference)
        if conditioning == "film":
            fast = HistogramAnalogy(conditioning, width, curves=curves).eval()
            fast.ctn.compile()

            def compiled(net=fast, precision="no"):
                with ops.compile_cpu():
                    net.recolor(source, reference, precision=precision)

            contenders[f"{name}, bf16"] = lambda net=net: net.recolor(source, reference, precision="bf16")
            contenders[f"{name}, compiled"] = compiled
            contenders[f"{name}, compiled, bf16"] = partial(compiled, precision="bf16")
    return [
        {"case": f"latency {side}", "method": name, "milliseconds": 1000 * value}
        for name, value in rounds(contenders, count).items()
    ]


class StudentPairs(Dataset):
    """Hue-shift pairs as the rebuilt projects make them: Pillow, scikit-image and NumPy, one sample at a time."""

    def __init__(self, files: list[Path], side: int):
        self.files, self.side = files, side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        rgb = np.asarray(Image.open(self.files[index]).convert("RGB").resize((self.side, self.side))) / 255
        labs = [self.shifted(rgb) for _ in range(2)]
        return [torch.from_numpy(lab).permute(2, 0, 1).float() for lab in labs] + [self.histogram(lab) for lab in labs]

    def shifted(self, rgb: np.ndarray) -> np.ndarray:
        hsv = skcolor.rgb2hsv(rgb)
        hsv[..., 0] = (hsv[..., 0] + np.random.rand()) % 1
        hsv[..., 1] = (hsv[..., 1] * max(1.2 * np.random.rand(), 0.3)).clip(0, 1)
        lab = skcolor.rgb2lab(skcolor.hsv2rgb(hsv))
        lab[..., 0] = skcolor.rgb2lab(rgb)[..., 0]
        return lab

    def histogram(self, lab: np.ndarray) -> torch.Tensor:
        (a, b), lightness = ((lab[..., 1:].reshape(-1, 2).T + 110) / 220), lab[..., 0].ravel() / 100
        ab = np.histogram2d(b, a, bins=64, range=[[0, 1]] * 2)[0] / a.size
        tall = np.histogram(lightness, bins=8, range=(0, 1))[0] / a.size
        planes = [ab, *(np.full((64, 64), share) for share in tall)]
        return torch.from_numpy(np.stack(planes)).float()


def dense_histogram(unit: torch.Tensor, bins: int = 32) -> torch.Tensor:
    """A soft histogram by a matrix of pixels times bins."""
    centers = torch.arange(bins) / bins
    a, b = (
        (1 - (bins - 1) * ((plane.flatten(1)[..., None] + 1) / 2 - centers).abs()).clamp(min=0)
        for plane in unit[:, 1:].unbind(1)
    )
    return a.transpose(1, 2) @ b / a.shape[1]


def training(side: int, batch: int, count: int) -> list[dict]:
    """Images a second of one training step, the student's loop beside `ctlib.train`'s pieces, on the same network."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number in range(64):  # files as a dataset has them: 640 x 480 JPEG
            name = photos.names()[number % len(photos.names())]
            files.append(images.write(Path(folder) / f"{number}.jpg", images.resize(photos.load(name), 640)))
        ours = pairs.Photos(cache.build(files, Path(folder) / "cache", (side, side)))
        nets = {name: HistogramAnalogy("tile", "tiny", init="kaiming", root=True) for name in ("student", "ours")}
        optimizers = {name: torch.optim.Adam(net.parameters()) for name, net in nets.items()}
        objective = Objective(nets["ours"], side=side, shares=(0.0, 1.0, 0.0, 0.0))
        slow = iter(DataLoader(StudentPairs(files * 1000, side), batch))
        fast = iter(DataLoader(ours, batch_sampler=Order(len(ours), batch, 0)))
        kept = next(fast)

        def update(name: str, loss: torch.Tensor) -> None:
            loss.backward()
            optimizers[name].step()
            optimizers[name].zero_grad()

        def student() -> None:
            source, target, have, want = next(slow)
            out, sides = nets["student"](to_unit(source), have, want)
            unit = to_unit(target)
            small = [functional.interpolate(unit, one.shape[2:], mode="bilinear") for one in sides]
            loss = functional.mse_loss(out, unit)
            loss = loss + 1.5 * functional.mse_loss(dense_histogram(out), dense_histogram(unit))
            loss = loss + 0.5 * sum(map(functional.mse_loss, sides, small)) / 4
            update("student", loss)

        contenders = {
            "student": student,
            "ours": lambda: update("ours", objective(next(fast))[0]),
            "ours, one batch over and over": lambda: update("ours", objective(kept)[0]),
            "student, loader alone": lambda: next(slow),
            "ours, loader and pairs alone": lambda: objective.pair(next(fast)),
        }
        seconds = rounds(contenders, count)
    return [
        {"case": f"training {side}", "method": name, "images_per_second": batch / value}
        for name, value in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("latency", "training"))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    run = results.start("bench_networks", rounds=options.rounds)
    rows = []
    if options.only != "training":
        rows += latency(512, options.rounds)
    if options.only != "latency":
        rows += training(96, 8, options.rounds)
    for row in rows:
        number = row.get("milliseconds", row.get("images_per_second"))
        print(f"{row['case']:14} {row['method']:32} {number:10.1f} {'ms' if 'milliseconds' in row else 'images/s'}")
    print(run.write(rows, threads=torch.get_num_threads()))


if __name__ == "__main__":
    main()
