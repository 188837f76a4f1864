"""Judge the compact encoder: what it misses of its teacher, and whether its distance ranks pictures as LPIPS does.

    CTLIB_DATA=<folder with scenes256/, imagenet_samples/ and weights/> python benchmarks/judge_features.py

Photographs of the test parts, which the encoder has not seen, are spoiled in 14 ways, most of them errors of color.
Printed are Spearman's rank correlations with LPIPS (SqueezeNet), over all pictures and ways, and over the ways of one
picture, mean over pictures; beside them those of the same encoder with random weights, and of the squared error. The
result, `judge_features.json`, goes to `_build/lab/results`; a reviewed copy is the record in `book/results`.
"""

import argparse
import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from ctlib import evaluate_colorization, images, ops, results
from ctlib.models.features import Features
from ctlib.perceptual_losses import SEEN, CompactPerceptual, Lpips
from ctlib.recipes import features, histogram_analogy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["scenes256", "imagenet_samples"], help="folders in $CTLIB_DATA")
    parser.add_argument("--limit", type=int, default=15, help="pictures of each set, of those held back")
    parser.add_argument("--weights", default="features-compact", help="name in data/pretrained, or a folder")
    chosen = parser.parse_args()
    run = results.start("judge_features", sets=chosen.sets, limit=chosen.limit, weights=chosen.weights)
    encoder = Features.from_pretrained(chosen.weights)
    cases = evaluate_colorization.cases(chosen.sets, 160, limit=chosen.limit)
    torch.manual_seed(0)
    lpips, nets = Lpips("squeeze"), {"compact": encoder, "random weights": Features(encoder.widths)}
    judges = {net: [CompactPerceptual(one, [layer]) for layer in SEEN] for net, one in nets.items()}
    found: dict[str, list] = {}
    with torch.no_grad():
        for case, other in zip(cases, cases[1:] + cases[:1], strict=True):
            truth = case.truth.float()
            made = torch.cat(list(spoiled(truth, other.truth.float()))).clamp(0, 1)
            given = {"LPIPS": lpips(made, truth.expand_as(made))}
            for net, layers in judges.items():
                each = [judge(made, truth.expand_as(made)) for judge in layers]
                given[net] = torch.stack(each).mean(0)
                given |= {f"{net}, {layer}": one for layer, one in zip(SEEN, each, strict=True) if net == "compact"}
            given["squared error"] = (made - truth).square().mean((1, 2, 3))
            for name, value in given.items():
                found.setdefault(name, []).append(value.double().numpy())
    values = {name: np.stack(rows) for name, rows in found.items()}
    rows = []
    for name in list(values)[1:]:
        within = [spearmanr(a, b).statistic for a, b in zip(values[name], values["LPIPS"], strict=True)]
        every = spearmanr(values[name].ravel(), values["LPIPS"].ravel()).statistic
        rows.append({"case": "rank correlation", "method": name, "all": every, "within": float(np.mean(within))})
        print(f"{name:18} {every:.3f} over all, {rows[-1]['within']:.3f} within a picture")
    dataset = histogram_analogy.photographs(features.SETS, 160, "test")
    missed = features.validate(encoder, dataset)
    rows += [{"case": layer, "method": "compact", "missed": share} for layer, share in missed.items()]
    print(*(f"{layer} {share:.3f} missed" for layer, share in missed.items()), sep=", ")
    print(run.write(rows, data={f"{case.set}/{case.name}": case.sha256 for case in cases}))


def spoiled(rgb: Tensor, other: Tensor) -> Iterator[Tensor]:
    """Errors of color first, then of everything; `other` is a picture whose color is put in its place."""
    lab = ops.rgb_to_lab(rgb)
    light, ab = lab[:, :1], lab[:, 1:]

    def with_ab(changed: Tensor) -> Tensor:
        return ops.lab_to_rgb(torch.cat([light, changed], dim=1))

    for factor in (0.0, 0.3, 0.7, 1.6):
        yield with_ab(factor * ab)
    for turn in (0.1, 0.5):
        angle = torch.tensor(turn * 2 * torch.pi)
        turned = torch.stack(
            [ab[:, 0] * angle.cos() - ab[:, 1] * angle.sin(), ab[:, 0] * angle.sin() + ab[:, 1] * angle.cos()], 1
        )
        yield with_ab(turned)
    yield with_ab(ab + torch.tensor([12.0, -12.0])[:, None, None])
    yield with_ab(gaussian_blur(ab, 31, 8.0))
    yield with_ab(functional.interpolate(ops.rgb_to_lab(other)[:, 1:], ab.shape[2:], mode="bilinear"))
    coarse = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    yield with_ab(ab + 15 * functional.interpolate(coarse, ab.shape[2:], mode="bicubic"))
    yield gaussian_blur(rgb, 9, 1.5)
    yield rgb + 0.05 * torch.randn(rgb.shape, generator=torch.Generator().manual_seed(1))
    yield rgb.clamp(min=1e-4) ** 0.7
    stream = io.BytesIO()
    Image.fromarray(images.to_uint8(rgb)).save(stream, "JPEG", quality=15)
    yield images.to_tensor(np.asarray(Image.open(stream))).float()


if __name__ == "__main__":
    main()
