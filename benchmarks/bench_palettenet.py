"""How long PaletteNet takes for one picture on this machine, beside the palette method without a network.

    python benchmarks/bench_palettenet.py

Contenders are interleaved, the median over rounds counts. The result, `bench_palettenet.json`, goes to
`_build/lab/results`; a reviewed copy is the record in `book/results`, which notebooks/30_train_palettenet shows.
"""

import argparse

import torch
from bench_networks import rounds

from ctlib import methods, ops, results
from ctlib.data import photos
from ctlib.evaluate_palettes import areas
from ctlib.models.palettenet import PaletteNet

NETWORKS = (("tiny", "film"), ("tiny", "instance"), ("small", "film"), ("small", "instance"), ("paper", "instance"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512, help="pixels of the square picture")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    run = results.start("bench_palettenet", side=options.side, rounds=options.rounds)
    source = photos.tensor("astronaut", options.side)
    wish = areas(photos.load("coffee"), 6)[0]
    contenders = {"chang, no network": lambda: methods.recolor("chang", source, palette=wish)}
    for variant, decoder in NETWORKS:
        net = PaletteNet(6, decoder, variant).eval()
        contenders[f"{variant}, {decoder}"] = lambda net=net: net.recolor(source, wish)
        if decoder == "film":
            fast = PaletteNet(6, decoder, variant).eval()
            fast.compile()

            def compiled(net=fast):
                with ops.compile_cpu():
                    net.recolor(source, wish)

            contenders[f"{variant}, {decoder}, compiled"] = compiled
    seconds = rounds(contenders, options.rounds)
    rows = [{"case": f"{options.side} px", "method": n, "milliseconds": 1000 * value} for n, value in seconds.items()]
    for row in rows:
        print(f"{row['method']:28} {row['milliseconds']:8.1f} ms")
    print(run.write(rows, threads=torch.get_num_threads(), data=photos.manifest(["astronaut", "coffee"])))


if __name__ == "__main__":
    main()
