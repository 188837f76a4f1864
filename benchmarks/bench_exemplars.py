"""How long exemplar colorization takes by resolution: the chain, each of its links, and methods without a network.

    python benchmarks/bench_exemplars.py --rounds 3       # 256 to 2048 pixels, ten minutes and more on two cores
    python benchmarks/bench_exemplars.py --device cuda    # the same, and pictures a second in batches

Contenders are interleaved, the median over rounds counts; one that has taken long sits out the later rounds. Pictures
are squares from sRGB to sRGB. The chain runs in two ways: its networks see the picture at its own size, as the paper
measures, or at about 256 x 256 pixels, as this book uses them at any size; only color is enlarged then. The result,
`bench_exemplars.json`, goes to `_build/lab/results`; a reviewed copy is the record in `book/results`.

Goals: the chain at 256 x 256 in 400 ms on two cores; 60 pictures a second at 512 x 512 on a graphics card.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ctlib import chroma, results
from ctlib.bench import timing
from ctlib.bench.timing import Case, Contender
from ctlib.data import photos
from ctlib.exemplars.chain import DOUBT, SAMPLES, SHRINK, Exemplar, sample
from ctlib.exemplars.matching import compared, matched, weighed
from ctlib.exemplars.superpixels import superpixel_transfer
from ctlib.exemplars.welsh import welsh
from ctlib.hints import spread

CHAIN, SMALL = "full chain", "full chain, networks at 256"
GOALS = {"cpu": (256, "milliseconds", 400.0), "cuda": (512, "images_per_second", 60.0)}
PICTURES = ("astronaut", "coffee")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 512, 1024, 2048], help="pixels, multiples of 16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16, help="pictures at once on a graphics card")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--transfer", default="stylization-compact", help="weights of the transfer sub-net")
    parser.add_argument("--refine", default="refinement-quarter", help="weights of the colorization sub-net")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("no graphics card here: nothing was measured")
        return
    run = results.start("bench_exemplars", **vars(chosen))
    chain = Exemplar.from_pretrained(chosen.transfer, chosen.refine).to(chosen.device)
    rows = []
    for side in chosen.sides:
        rows += by_contender(chain, side, chosen.rounds)
        if chosen.device == "cuda":
            rows.append(throughput(chain, side, chosen.batch, chosen.rounds))
    goal = reached(rows, chosen.device)
    print(run.write(rows, goal=goal, threads=torch.get_num_threads(), data=photos.manifest(PICTURES)))
    if goal:
        print(f"goal: {CHAIN} at {goal['side']}, {goal['measure']} {goal['goal']:g}: {goal['measured']:.1f}, "
              f"{'reached' if goal['reached'] else 'MISSED'}")  # fmt: skip


def by_contender(chain: Exemplar, side: int, rounds: int) -> list[dict]:
    """The chain, its links and its peers on one picture, as rows with `ratio`, their time over the chain's."""
    rgb, reference = pictures(side, next(chain.parameters()).device)
    with torch.inference_mode():
        made = case(chain, rgb, reference)
        found = timing.run(made, rounds)
    whole = next(one for one in found if one.name == CHAIN).median_ms
    rows = []
    for one in found:
        rows.append({
            "case": f"{side} px", "side": side, "method": one.name, "milliseconds": one.median_ms,
            "ratio": one.median_ms / whole, "rounds": len(one.times_ms), "first_seconds": one.first_s,
            "peak_mb": one.peak_mb,
        })  # fmt: skip
        print(f"{side:5} px  {one.name:30} {one.median_ms:10.1f} ms  {one.median_ms / whole:6.3f}", flush=True)
    return rows


def case(chain: Exemplar, rgb: Tensor, reference: Tensor) -> Case:
    """What competes, each with what it needs made beforehand."""
    side = rgb.shape[2]
    lightness = chroma.lightness(rgb)
    before = chain.precolor(lightness)
    coarse = chain.coarse(lightness, before, reference, shrink=SHRINK)
    sampled = sample(coarse, SAMPLES, [0])
    ab = chain.refine.ab(lightness, sampled)
    contenders: dict[str, Callable[[Tensor, Tensor], object]] = {
        CHAIN: lambda rgb, reference: chain.colorize(rgb, reference, side=side),
        SMALL: lambda rgb, reference: chain.colorize(rgb, reference, side=256),
        f"{CHAIN}, matching": lambda rgb, reference: chain.colorize(rgb, reference, side=side, by="matching"),
        "link 1, pre-color": lambda *_: chain.precolor(lightness),
        "link 2, transfer": lambda *_: chain.coarse(lightness, before, reference, shrink=SHRINK),
        "weigh the reference": lambda *_: weighed(chain.transfer.encoder, lightness, reference),
        "link 2, matching": lambda *_: matched(compared(chain.transfer.encoder, lightness, reference), reference),
        "link 3, sample": lambda *_: sample(coarse, SAMPLES, [0]),
        "link 4, refine": lambda *_: chain.refine.ab(lightness, sampled),
        "spread the samples": lambda *_: spread(lightness, ab, sampled, doubt=DOUBT),
        "to sRGB": lambda *_: chroma.shown(lightness, ab),
    }
    if rgb.device.type == "cpu":
        contenders |= {"welsh": welsh, "superpixels": superpixel_transfer}
    made = [Contender(name, call) for name, call in contenders.items()]
    return Case("exemplar colorization", f"{side} px", [(rgb, reference)], made, rgb.nbytes * 2)


def throughput(chain: Exemplar, side: int, batch: int, rounds: int) -> dict:
    """Pictures a second of the whole chain, from sRGB to sRGB, each with a reference of its own."""
    rgb, reference = (one.expand(batch, -1, -1, -1).contiguous() for one in pictures(side, "cuda"))
    call = Contender(CHAIN, lambda rgb, reference: chain.colorize(rgb, reference, side=side))
    (found,) = timing.run(Case("batch", f"{side} px", [(rgb, reference)], [call], rgb.nbytes * 2), rounds)
    speed = 1e3 * batch / found.median_ms
    print(f"{side:5} px  {batch} at once {speed:20.1f} pictures a second", flush=True)
    return {"case": f"{side} px", "side": side, "method": f"{CHAIN}, {batch} at once", "images_per_second": speed}


def reached(rows: list[dict], device: str) -> dict:
    """The goal of a device beside what was measured; empty if its size was not."""
    side, measure, goal = GOALS[device]
    found = [row[measure] for row in rows if row["side"] == side and measure in row and row["method"].startswith(CHAIN)]
    if not found:
        return {}
    kept = found[0] <= goal if device == "cpu" else found[0] >= goal
    return {"side": side, "measure": measure, "goal": goal, "measured": found[0], "reached": kept}


def pictures(side: int, device: torch.device | str) -> list[Tensor]:
    """A photograph and its reference as squares."""
    found = [photos.tensor(name) for name in PICTURES]
    squares = [functional.interpolate(one, (side, side), mode="bilinear", antialias=True) for one in found]
    return [one.clamp(0, 1).to(device) for one in squares]


if __name__ == "__main__":
    main()
