"""The notebooks as a graph of files: one rule, which calls papermill.

`make book` runs this for you. By hand, for one notebook or on a cluster with an executor plugin:

    snakemake --cores all --config profile=quick
    snakemake --cores all _build/gpu/executed/10_statistics_transfer.ipynb
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "tools"))
import graph  # noqa: E402

PROFILE = config.get("profile", "quick")
NOTEBOOKS = graph.scan()
# every profile, since a target may be named by its path
profiles = {PROFILE, *(path.name for path in Path(workflow.basedir, "notebooks", "profiles").glob("*"))}
if found := [line for profile in sorted(profiles) for line in graph.problems(profile)]:
    sys.exit("\n".join(found))


wildcard_constraints:
    profile=r"\w+",
    stem=r"\d\d_\w+",
    lr=r"[\d.e-]+",
    batch=r"\d+",
    shuffle="True|False",


# The grid of the sweep: each point is trained in a process of its own, before the notebook that compares them runs.
SWEEP = "32_sweep_hyperparameters"
POINT = "_build/{profile}/sweep/lr{lr}-batch{batch}-shuffle{shuffle}.json"


def points(profile):
    if SWEEP not in NOTEBOOKS:
        return []
    grid = graph.values(SWEEP, profile)
    return expand(POINT, profile=profile, lr=grid["lrs"], batch=grid["batches"], shuffle=grid["shuffles"])


rule all:
    input:
        expand("_build/{profile}/executed/{stem}.ipynb", profile=PROFILE, stem=NOTEBOOKS),


rule point:
    input:
        tool="tools/sweep.py",
        notebook=f"notebooks/{SWEEP}.ipynb",
        overlay=lambda wildcards: graph.overlay(SWEEP, wildcards.profile) or [],
        modules=lambda wildcards: NOTEBOOKS[SWEEP].modules,
    output:
        POINT,
    log:
        POINT.replace("sweep/", "logs/sweep-").replace(".json", ".log"),
    threads: 1
    resources:
        gpu=lambda wildcards: 0 if wildcards.profile == "quick" else 1,
    shell:
        "OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} python {input.tool} {wildcards.profile} {wildcards.lr}"
        " {wildcards.batch} {wildcards.shuffle} >{output} 2>{log}"
        " || {{ echo \"a point of the sweep failed: $(grep . {log} | tail -n 1)\" >&2; exit 1; }}"


# papermill writes beside the log; only a notebook that ran to its end is moved to where the book looks for it.
rule notebook:
    input:
        notebook="notebooks/{stem}.ipynb",
        overlay=lambda wildcards: graph.overlay(wildcards.stem, wildcards.profile) or [],
        modules=lambda wildcards: NOTEBOOKS[wildcards.stem].modules,
        results=lambda wildcards: [f"_build/{wildcards.profile}/results/{stem}.json" for stem in NOTEBOOKS[wildcards.stem].reads],
        points=lambda wildcards: points(wildcards.profile) if wildcards.stem == SWEEP else [],
    output:
        executed="_build/{profile}/executed/{stem}.ipynb",
        results="_build/{profile}/results/{stem}.json",
    log:
        "_build/{profile}/logs/{stem}.log",
    benchmark:
        "_build/{profile}/benchmarks/{stem}.tsv"
    # A notebook that compares others runs after them, on all cores; the rest share the cores, one each.
    threads: lambda wildcards: workflow.cores or 1 if NOTEBOOKS[wildcards.stem].reads else 1
    resources:
        gpu=lambda wildcards: 0 if wildcards.profile == "quick" else 1,
    params:
        overlay=lambda wildcards, input: f"-f {input.overlay}" if input.overlay else "",
    shell:
        r"""
        export CTLIB_PROFILE={wildcards.profile} MPLBACKEND=module://matplotlib_inline.backend_inline
        export OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} OPENBLAS_NUM_THREADS={threads}
        attempt=_build/{wildcards.profile}/logs/{wildcards.stem}.ipynb
        status=0
        papermill --cwd notebooks -k python3 --no-progress-bar {params.overlay} {input.notebook} "$attempt" \
            >{log} 2>&1 || status=1
        if [ $status = 0 ] && [ ! -s {output.results} ]
        then
            echo "it ended without run.write(...), so there is no {output.results}" >>{log}
            status=1
        fi
        if [ $status = 0 ]
        then
            mv "$attempt" {output.executed}
            echo "  {wildcards.stem} ran in $SECONDS s"
        else
            echo "{wildcards.stem} failed: $(grep . {log} | tail -n 1)" >&2
            echo "  its cells so far: $attempt   its log: {log}" >&2
            exit 1
        fi
        """
