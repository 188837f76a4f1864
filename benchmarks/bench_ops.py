"""The ops beside other libraries: time, bytes against a copy, memory, error. `python benchmarks/bench_ops.py`.

Prints a table a task and size, then what was to be reached. With `--record` the rows are appended to
`book/results/ops.csv`, which the notebook 71_ops draws.
"""

import argparse
import os

THREADS = os.environ.setdefault("OMP_NUM_THREADS", "2")
for name in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = THREADS  # before numpy and torch start their pools

import pandas as pd  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(int(THREADS))

from ctlib.bench import contenders, goals, ledger, timing  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", choices=list(contenders.TASKS), default=list(contenders.TASKS))
    sizes = sorted({size for task in contenders.TASKS.values() for size in (*task[1], *task[2])})
    parser.add_argument("--sizes", nargs="+", choices=sizes, help="of those of each task; all by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--record", action="store_true", help="append the rows to book/results/ops.csv")
    options = parser.parse_args()

    bandwidth = timing.copy_bandwidth(options.device)
    print(f"{ledger.device_name(options.device)}; {ledger.versions()}\na copy moves {bandwidth:.1f} GB/s\n")
    tables = []
    for task in options.only:
        make, on_cpu, on_gpu = contenders.TASKS[task]
        for size in on_cpu if options.device == "cpu" else on_gpu:
            if options.sizes and size not in options.sizes:
                continue
            case = make(size, options.device)
            table = ledger.table(case, timing.run(case, options.rounds), bandwidth, options.device)
            shown = [
                "contender",
                "median_ms",
                "least_ms",
                "ratio",
                "copy_share",
                "peak_mb",
                "max_error",
                "first_call_s",
            ]
            print(f"{case.op}, {case.size}\n{table[shown].to_string(index=False)}\n", flush=True)
            if options.record:
                ledger.record(table)
            tables.append(table)
    print(goals.verdicts(pd.concat(tables), options.device).to_string(index=False))


if __name__ == "__main__":
    main()
