"""Training a colorizer: images a second of the loss study's loop beside `ctlib.train`'s pieces, on the same network.

    python benchmarks/bench_colorization_training.py [--device cuda]

The study's loop opens a JPEG, scales it and turns it into CIELAB by scikit-image in float64, one picture at a time in
the process that trains, float32 all the way. Ours takes squares from a cache of bytes, converts the batch where the
network is, and computes in bfloat16. Both are measured with and without what precedes the network. Contenders are
interleaved, the median over rounds counts. The result, `bench_colorization_training.json`, goes to
`_build/lab/results`; a reviewed copy is the record in `book/results`, which notebooks/71_ops shows.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from bench_networks import rounds
from skimage import color, io, transform
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from ctlib import images, results
from ctlib.data import cache, pairs, photos
from ctlib.models.resnet_colorizer import ResnetColorizer
from ctlib.recipes.resnet_colorizer import Objective
from ctlib.train import Order

GOAL = 8  # times the study's loop, on an H200


class StudyPictures(Dataset):
    """Lightness and color as the study's data set gives them."""

    def __init__(self, files: list[Path], side: int):
        self.files, self.side = files, side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rgb = transform.resize(io.imread(self.files[index]), (self.side, self.side))
        lab = color.rgb2lab(rgb)
        lightness, ab = lab[..., :1] / 100, (lab[..., 1:] + 128) / 256
        return tuple(torch.from_numpy(np.moveaxis(one, -1, 0)).float() for one in (lightness, ab))


def contenders(folder: Path, device: str, side: int, batch: int, workers: int) -> dict:
    """Name to a call that trains one batch, or only prepares it."""
    files = []
    for number in range(64):  # files as a dataset has them: 640 x 480 JPEG
        name = photos.names()[number % len(photos.names())]
        files.append(images.write(folder / f"{number}.jpg", images.resize(photos.load(name), 640)))
    kept = pairs.Photos(cache.build(files, folder / "cache", (side, side)))
    nets = {name: ResnetColorizer("lab", "frozen-random").to(device).train() for name in ("study", "ours")}
    optimizers = {
        name: torch.optim.Adam([one for one in net.parameters() if one.requires_grad]) for name, net in nets.items()
    }
    objective = Objective(nets["ours"], loss="l2", side=side)
    slow = iter(DataLoader(StudyPictures(files * 4000, side), batch, shuffle=True, num_workers=workers))
    fast = iter(DataLoader(kept, batch_sampler=Order(len(kept), batch, 0)))

    def loaded() -> dict:
        return {name: value.to(device) for name, value in next(fast).items()}

    same = loaded()

    def update(name: str, loss: torch.Tensor) -> None:
        loss.backward()
        optimizers[name].step()
        optimizers[name].zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    def study() -> None:
        lightness, ab = (one.to(device) for one in next(slow))
        update("study", functional.mse_loss(nets["study"](100 * lightness), ab))

    def ours(batch: dict) -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = objective(batch)[0]
        update("ours", loss)

    return {
        "study": study,
        "ours": lambda: ours(loaded()),
        "ours, one batch over and over": lambda: ours(same),
        "study, loader alone": lambda: next(slow),
        "ours, loader and conversion alone": lambda: objective.pair(loaded()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--side", type=int, default=256, help="pixels of the squares, the study's")
    parser.add_argument("--batch", type=int, default=8, help="the study's")
    parser.add_argument("--workers", type=int, default=0, help="of the study's loader, which has none")
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no GPU here")
    run = results.start("bench_colorization_training", **vars(chosen))
    with tempfile.TemporaryDirectory() as folder:
        work = contenders(Path(folder), chosen.device, chosen.side, chosen.batch, chosen.workers)
        seconds = rounds(work, chosen.rounds)
    rows = [
        {"case": f"{chosen.side} px", "method": name, "images_per_second": chosen.batch / value}
        for name, value in seconds.items()
    ]
    for row in rows:
        print(f"{row['method']:34} {row['images_per_second']:8.1f} images/s")
    ratio = seconds["study"] / seconds["ours"]
    print(f"ours: {ratio:.1f} times as fast on {chosen.device}; the goal is {GOAL} on an H200")
    print(run.write(rows, threads=torch.get_num_threads(), ratio=ratio))


if __name__ == "__main__":
    main()
