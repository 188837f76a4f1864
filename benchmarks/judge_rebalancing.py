"""Train Zhang 2016 with more and less weight on rare colors, and judge each at every temperature: for chapter 41.

    CTLIB_DATA=<folder with scenes256/, imagenet_samples/ and weights/> OMP_NUM_THREADS=1 \\
        python benchmarks/judge_rebalancing.py

Lambda 0.5 is the paper's, with 1 all colors weigh alike; all else is equal. LPIPS is that of SqueezeNet; its column is
left out where that cannot be had. What is finished stays in `_build/lab/checkpoints` and is not trained again. The
result, `judge_rebalancing.json`, goes to `_build/lab/results`; a reviewed copy is the record in `book/results`.
"""

import argparse
import time
from functools import partial

from ctlib import evaluate_colorization, results
from ctlib.perceptual_losses import lpips_column
from ctlib.recipes import zhang2016

WANTED = ("psnr", "ab_rmse", "colorfulness")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["scenes256", "imagenet_samples"], help="folders in $CTLIB_DATA")
    parser.add_argument("--lams", nargs="+", type=float, default=[0.5, 0.9, 1.0], help="share of the uniform part")
    parser.add_argument("--temperatures", nargs="+", type=float, default=[0.05, 0.2, 0.38, 0.6, 0.8, 1.0])
    parser.add_argument("--steps", type=int, default=400, help="updates of the weights in each training")
    parser.add_argument("--side", type=int, default=64, help="pixels of the training squares")
    parser.add_argument("--width", type=float, default=0.125, help="factor on the channels")
    parser.add_argument("--limit", type=int, default=20, help="pictures of each set to judge on, of those held back")
    chosen = parser.parse_args()
    training = {"sets": chosen.sets, "size": 96, "side": chosen.side, "width": chosen.width, "steps": chosen.steps}
    training |= {"batch": 8, "lr": 2e-3, "weight_decay": 0.0, "schedule": "cosine", "precision": "bf16", "seed": 0}
    run = results.start("judge_rebalancing", lams=chosen.lams, temperatures=chosen.temperatures, limit=chosen.limit,
                        **training)  # fmt: skip
    cases = evaluate_colorization.cases(chosen.sets, 128, limit=chosen.limit)
    began, made, colorizers = time.perf_counter(), {}, {}
    for lam in chosen.lams:
        options = training | {"lam": lam}
        network, history = zhang2016.run(run.checkpoints(**options), log_every=100, **options)
        print(f"{time.perf_counter() - began:6.0f} s, lambda {lam:g}: {history[-1]['cross_entropy']:.3f}", flush=True)
        for temperature in chosen.temperatures:
            name = f"lambda {lam:g}, T {temperature:g}"
            colorizers[name] = partial(network.eval().colorize, temperature=temperature, side=128)
            made[name] = {"lam": lam, "temperature": temperature}
    judged = evaluate_colorization.judge(colorizers, cases, wanted=WANTED, also=lpips_column())
    rows = [{**row, **made.get(row["method"], {})} for row in judged]
    print(run.write(rows, data={f"{case.set}/{case.name}": case.sha256 for case in cases}))
    for row in evaluate_colorization.summary(judged):
        print(f"{row['method']:20}", *(f"{key} {value:7.3f}" for key, value in row.items() if key != "method"))


if __name__ == "__main__":
    main()
