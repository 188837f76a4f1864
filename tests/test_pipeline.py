"""The graph of notebooks, the runner, staging, and what may be committed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import graph
import nbformat
import pytest
import stage
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import ctlib

ROOT = graph.ROOT
BIN = Path(sys.executable).parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))

#: the rooms of ctlib from the ground up; CONTRIBUTING.md shows the same rows
ROOMS = (
    ("atomic", "paths", "hubcache", "check", "color", "deep", "distinct", "settings"),
    ("ops",),
    ("images", "lut", "checkpoints"),
    ("classical", "metrics"),
    ("segment",),
    ("regionwise", "enlarge", "chroma", "hints"),
    ("models", "losses", "perceptual_losses", "exemplars"),
    ("data", "methods"),
    ("evaluate", "evaluate_palettes", "evaluate_colorization", "evaluate_exemplars", "colorizers"),
    ("figures", "canvas"),
    ("train", "watch"),
    ("recipes",),
    ("bench",),
    ("results", "cli"),
)
LIBRARY = {
    "__init__.py": "",
    "shared.py": "",
    "warm.py": "from . import shared\nTABLE = 'warm.toml'\n",
    "cold.py": "def lazy():\n    import ctlib.shared\n",
}
CELL = """
import json, os, pathlib
from ctlib import {module}
target = pathlib.Path("../_build/" + os.environ["CTLIB_PROFILE"] + "/results/{stem}.json")
target.parent.mkdir(parents=True, exist_ok=True)
target.write_text(json.dumps({{"profile": os.environ["CTLIB_PROFILE"], "steps": steps, "read": {reads}}}))
"""


def save(root, stem, module, reads=(), last="steps"):
    cells = [
        new_markdown_cell(f"# {stem}"),
        new_code_cell("steps: int = 3  # how many, 1..9", metadata={"tags": ["parameters"]}),
        new_code_cell(CELL.format(module=module, stem=stem, reads=list(reads))),
        new_code_cell(last),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), root / "notebooks" / f"{stem}.ipynb")


@pytest.fixture
def tiny(tmp_path):
    """A repository of three notebooks with this Snakefile and these tools."""
    for name in ("ctlib", "notebooks/profiles/gpu", "data", "book"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "_config.yml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    for name, text in LIBRARY.items():
        (tmp_path / "ctlib" / name).write_text(text)
    (tmp_path / "data" / "warm.toml").write_text("a = 1\n")
    (tmp_path / "notebooks/profiles/gpu/10_warm.yml").write_text("steps: 7\n")
    (tmp_path / "book/_toc.yml").write_text("format: jb-book\nroot: book/intro\n")
    save(tmp_path, "10_warm", "warm")
    save(tmp_path, "11_cold", "cold")
    save(tmp_path, "70_compare", "shared", ["10_warm", "11_cold"])
    return tmp_path


def snakemake(root, *options):
    environment = {**os.environ, "PYTHONPATH": str(root), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    command = [BIN / "snakemake", "--cores", "2", "--nolock", "--rerun-incomplete", *options]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def planned(root, *options):
    done = snakemake(root, "--dry-run", *options)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"output: _build/\w+/executed/(\w+)\.ipynb", done.stdout + done.stderr))


def test_graph_follows_imports_tables_and_results(tiny):
    nodes = graph.scan(tiny)
    assert nodes["10_warm"].modules == ("ctlib/__init__.py", "ctlib/shared.py", "ctlib/warm.py", "data/warm.toml")
    assert nodes["11_cold"].modules == ("ctlib/__init__.py", "ctlib/cold.py", "ctlib/shared.py")
    assert nodes["70_compare"].reads == ("10_warm", "11_cold")


def test_graph_of_the_repository_targets_every_notebook():
    assert {path.stem for path in PATHS} == set(graph.scan())
    assert all("ctlib/results.py" in node.modules for node in graph.scan().values())


def test_each_point_of_the_sweep_is_a_job_of_its_own():
    """Twelve trainings side by side, with the values that the notebook's cell and its profile give."""
    target = "_build/quick/executed/32_sweep_hyperparameters.ipynb"
    done = snakemake(ROOT, "--dry-run", "--forceall", target)
    assert done.returncode == 0, done.stderr
    outputs = re.findall(r"output: _build/quick/sweep/(\S+)\.json", done.stdout + done.stderr)
    wanted = {
        f"lr{lr}-batch{batch}-shuffle{s}" for lr in (0.01, 0.0002) for batch in (8, 16, 32) for s in (True, False)
    }
    assert len(outputs) == 12 and set(outputs) == wanted
    values = graph.values("32_sweep_hyperparameters", "gpu")
    assert values["variant"] == "yongzx" and values["seeds"] == 3 and values["lrs"] == [0.01, 0.0002]


@pytest.mark.parametrize("profile", ["quick", "gpu", "paper"])
def test_profiles_of_the_repository_name_only_known_parameters(profile):
    if profile == "quick" or (ROOT / "notebooks/profiles" / profile).is_dir():
        assert graph.problems(profile) == []


def test_unknown_parameter_and_profile_stop_before_anything_runs(tiny):
    (tiny / "notebooks/profiles/gpu/10_warm.yml").write_text("stepz: 7\n")
    done = snakemake(tiny, "--quiet", "all", "--config", "profile=gpu")
    assert done.returncode and "unknown parameter 'stepz'; 10_warm has steps" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    done = snakemake(tiny, "--quiet", "all", "--config", "profile=gpux")
    assert done.returncode and "unknown profile 'gpux': choose one of gpu, quick" in done.stderr + done.stdout
    assert not (tiny / "_build").exists()


@pytest.mark.slow
def test_run_rerun_and_failure(tiny):
    """One run of the graph, then every reason to run again and every reason not to."""
    assert planned(tiny) == {"10_warm", "11_cold", "70_compare"}
    done = snakemake(tiny, "--quiet", "all")
    assert done.returncode == 0, done.stderr
    assert json.loads((tiny / "_build/quick/results/10_warm.json").read_text())["steps"] == 3
    assert planned(tiny) == set()

    for path in (tiny / "ctlib").glob("*.py"):
        path.touch()
    assert planned(tiny) == set(), "a touch is no change"
    (tiny / "ctlib/warm.py").write_text(LIBRARY["warm.py"] + "MORE = 1\n")
    assert planned(tiny) == {"10_warm", "70_compare"}
    (tiny / "ctlib/warm.py").write_text(LIBRARY["warm.py"])
    assert planned(tiny) == set(), "the old content is back"
    (tiny / "data/warm.toml").write_text("a = 2\n")
    assert planned(tiny) == {"10_warm", "70_compare"}
    (tiny / "data/warm.toml").write_text("a = 1\n")

    save(tiny, "11_cold", "cold", last="raise ValueError('the cell is cold')")
    done = snakemake(tiny, "--quiet", "all")
    assert done.returncode and "11_cold failed: ValueError: the cell is cold" in done.stderr
    assert not (tiny / "_build/quick/executed/11_cold.ipynb").exists()
    assert not (tiny / "_build/quick/results/11_cold.json").exists()
    assert (tiny / "_build/quick/logs/11_cold.ipynb").exists()


@pytest.mark.slow
def test_profile_values_reach_the_page(tiny):
    for stem in ("11_cold", "70_compare"):
        (tiny / "notebooks" / f"{stem}.ipynb").unlink()
    done = snakemake(tiny, "--quiet", "all", "--config", "profile=gpu")
    assert done.returncode == 0, done.stderr
    assert json.loads((tiny / "_build/gpu/results/10_warm.json").read_text())["steps"] == 7
    files = stage.mirror("gpu", tiny)
    page = nbformat.reads(files["notebooks/10_warm.ipynb"].decode(), as_version=4)
    assert page.cells[1].source == "steps: int = 7  # how many, 1..9"
    assert b"GPU profile" in files["_config.yml"] and "ct-provenance" in page.cells[-1].source
    assert not [cell for cell in page.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert "papermill" not in json.dumps(page)


def executed():
    cell = new_code_cell("1", execution_count=1, metadata={"papermill": {"status": "completed"}})
    return new_notebook(cells=[cell], metadata={"papermill": {"exception": None, "end_time": "2026-01-01"}})


def test_staging_refuses_what_papermill_did_not_finish():
    assert stage.refusal(executed()) is None
    assert stage.refusal(new_notebook()) == "papermill never ran it"
    for change, reason in (
        (lambda book: book.metadata.papermill.update(exception=True), "did not finish"),
        (lambda book: book.metadata.papermill.update(end_time=None), "did not finish"),
        (lambda book: book.cells[0].update(execution_count=None), "did not run"),
        (lambda book: book.cells[0].metadata.papermill.update(status="pending"), "did not run"),
        (lambda book: book.cells[0].outputs.append(new_output("error", ename="E", evalue="", traceback=[])), "error"),
    ):
        book = executed()
        change(book)
        assert reason in stage.refusal(book)


def test_staging_stops_at_a_missing_or_unfinished_notebook(tiny):
    with pytest.raises(stage.StageError, match=r"10_warm\.ipynb is missing"):
        stage.mirror("quick", tiny)
    for name in ("executed", "results"):
        (tiny / "_build/quick" / name).mkdir(parents=True)
    shutil.copy(tiny / "notebooks/10_warm.ipynb", tiny / "_build/quick/executed")
    (tiny / "_build/quick/results/10_warm.json").write_text("{}")
    with pytest.raises(stage.StageError, match="unfinished"):
        stage.mirror("quick", tiny)


def test_parameters_are_merged_by_value_and_comments_kept():
    source = "steps: int = 3  # é, steps\nnames: list = [\n    'a',\n]  # which\nseed = 0"
    merged = stage.merge_parameters(source, {"steps": 9, "names": ["b"], "other": 1})
    assert merged == "steps: int = 9  # é, steps\nnames: list = ['b']  # which\nseed = 0"


def test_progress_bars_keep_their_last_frame():
    cell = new_code_cell("", outputs=[new_output("stream", name="stderr", text="10%\r50%\r100%\ndone\n")])
    stage.quiet(cell)
    assert cell.outputs[0].text == "100%\ndone\n"


def test_mirror_touches_only_what_changed(tmp_path):
    stage.write(tmp_path, {"a": b"1", "deep/b": b"2"})
    before = (tmp_path / "a").stat().st_mtime_ns
    stage.write(tmp_path, {"a": b"1"})
    assert (tmp_path / "a").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


def room(name: str) -> str:
    """The file or folder of `ctlib` that a dotted name lies in: `ctlib.data.photos` gives `data`."""
    return name.split(".")[1] if "." in name else ""


def imports_within() -> dict[str, set[str]]:
    """Which modules of `ctlib` each of its modules imports, at the top or later; `ctlib.metrics` is its __init__.py."""
    found = {}
    for path in (ROOT / "ctlib").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        package = ".".join(path.relative_to(ROOT).parent.parts)
        found[name] = set(graph.imported(graph.parse(path), package))
    for name, used in found.items():
        # `from ctlib.metrics import table` counts for the module, not for the package on the way to it
        leaves = {one for one in used if not any(other.startswith(f"{one}.") for other in used)}
        modules = {one if one in found else one.rpartition(".")[0] for one in leaves if one.split(".")[0] == "ctlib"}
        found[name] = (modules & set(found)) - {name, "ctlib"}
        outside = {one.split(".")[0] for one in used} & {"notebooks", "tools", "tests", "benchmarks"}
        assert not outside, f"{name} imports {outside}"
    return found


def test_ctlib_imports_point_one_way():
    """Each module imports from its own row of ROOMS or from rows before it, and no chain of imports closes."""
    rank = {name: place for place, row in enumerate(ROOMS) for name in row}
    within = imports_within()
    assert {room(name) for name in within} - {""} == set(rank), "ROOMS and the files of ctlib differ"
    assert not within.pop("ctlib"), "ctlib/__init__.py imports nothing of its own, so that `import ctlib` stays light"
    upward = [
        f"{name} imports {other}"
        for name, used in within.items()
        for other in used
        if rank[room(other)] > rank[room(name)]
    ]
    assert not upward
    TopologicalSorter(within).prepare()  # CycleError names the chain


def test_the_map_of_rooms_is_the_order_of_imports():
    rows = re.findall(r"^\| (`ctlib/[^|]+) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = [re.findall(r"`(?:ctlib/)?(\w+)(?:\.py|/)`", row) for row in rows]
    assert [sorted(row) for row in named] == [sorted(row) for row in ROOMS]


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == ctlib.__version__ == citation["version"]


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_papermill_prints_typed_help(path):
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "--help-notebook", path], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for name in graph.parameters(path):
        assert re.search(rf"{name}: (?!Unknown)[^ ]+.* \(default ", text), (
            f"no typed help for {name} (an `=` in its comment hides it):\n{done.stdout}"
        )


def committed():
    if shutil.which("git") is None:
        pytest.skip("git is not installed, so nobody knows which files are committed")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in done.stdout.splitlines()]
    if done.returncode or not files:
        pytest.skip("not a git checkout, so nobody knows which files are committed")
    return [path for path in files if path.is_file() and path != Path(__file__).resolve()]


def texts():
    for path in committed():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(ROOT), content.decode("utf-8")


def test_committed_files_name_no_machine_and_no_registry():
    private = re.compile(
        r"(?<![\w.])/(work|farm|root|home/\w+|Users/\w+)/|--(extra-)?index-url https?://(?!download\.pytorch\.org)"
        r"|find-links|\bpython[h]osted\.org|https?://[^/\s]*:\d{4,5}/simple|^(index-url|trusted-host)",
        re.MULTILINE,
    )
    found = [f"{path}: {match[0]!r}" for path, text in texts() if (match := private.search(text))]
    assert not found
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_committed_files_are_tidy():
    for path, text in texts():
        assert text == "" or text.endswith("\n"), f"{path}: no newline at the end"
        assert not text.endswith("\n\n"), f"{path}: blank lines at the end"
        assert not re.search(r"[ \t]+$", text, re.MULTILINE) or path.suffix == ".ipynb", f"{path}: trailing blanks"
        assert not re.search(r"^(<{7} |>{7} |={7}$)", text, re.MULTILINE), f"{path}: merge marks"
        if path.suffix in (".yml", ".yaml", ".cff"):
            yaml.safe_load(text)
        if path.suffix == ".toml":
            tomllib.loads(text)
    large = [path.name for path in committed() if path.stat().st_size > 2_000_000 and "pretrained" not in path.parts]
    assert not large, f"larger than 2 MB: {large}"


def test_make_help_lists_at_most_twelve_verbs():
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True)
    verbs = re.findall(r"^  make (\w+) +\S", done.stdout, re.MULTILINE)
    assert done.returncode == 0 and {"help", "book", "test", "lab", "check", "clean"} <= set(verbs)
    assert len(verbs) <= 12


def test_environment_file_takes_everything_from_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert python == "python=3.11" and pip == "pip" and packages == {"pip": ["-r requirements.lock"]}
