"""Milliseconds of palette recoloring on 12 megapixels: `python benchmarks/bench_palette.py`.

The picture is one of scikit-image's photographs enlarged to 4000 x 3000 with sensor noise, which gives it as many
distinct colors as a real photograph of that size.
"""

import time

import numpy as np
import torch
from PIL import Image
from skimage import data

from ctlib import distinct, lut
from ctlib.classical import palette


def best(function, repeats: int = 3):
    """The result and the least milliseconds of several calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append((time.perf_counter() - start) * 1e3)
    return result, min(times)


def main() -> None:
    large = np.asarray(Image.fromarray(data.coffee()).resize((4000, 3000), Image.Resampling.BICUBIC), np.float32)
    noise = np.random.default_rng(0).normal(0, 2, large.shape)
    image = (large + noise).clip(0, 255).round().astype(np.uint8)
    colors = distinct.distinct(image)[0]
    print(f"12 megapixels, {len(colors)} distinct colors, {torch.get_num_threads()} threads")
    for variant in palette.VARIANTS:
        old, elapsed = best(lambda variant=variant: palette.extract_uint8(image, 5, variant))
        print(f"{variant:6s} palette            {elapsed:8.1f} ms")
        new = old.clone()
        new[-2, 1] += 20
        nodes = palette.VARIANTS[variant].nodes or 13
        color_map, elapsed = best(lambda variant=variant, old=old, new=new, nodes=nodes: palette.transfer(
            old, new, variant=variant, nodes=nodes))  # fmt: skip
        print(f"{variant:6s} edit, {nodes}^3 nodes     {elapsed:8.1f} ms")
    rgb = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    print(f"       look-up, float32   {best(lambda: color_map(rgb))[1]:8.1f} ms")
    print(f"       33^3 table         {best(lambda: lut.sample(color_map, 33))[1]:8.1f} ms")


if __name__ == "__main__":
    main()
