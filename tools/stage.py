"""From executed notebooks to the site: stage a mirror of the repository, build it, check it.

    python tools/stage.py quick            # mirror in _build/quick/src, site in _build/quick/_build/html
    python tools/stage.py quick --no-build # the mirror only

jupyter-book runs with execution off and would print a traceback as calmly as a figure, so a notebook that papermill
did not finish is refused here. Every page gets a banner that names the profile, each notebook page a line that says how
its numbers were made.
"""

import argparse
import ast
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from graph import ROOT, scan
from nbformat.v4 import new_markdown_cell

BANNERS = {
    "quick": "<b>Quick profile.</b> Computed on an ordinary processor from the photographs that come with the "
    "installed packages: not the papers' numbers, which need the papers' data.",
    "gpu": "<b>GPU profile.</b> Larger pictures and longer trainings than the quick profile; notebooks without "
    "settings of their own run as in the quick profile.",
    "paper": "<b>Paper profile.</b> Chapters with settings of their own use the papers' kind of data, at the size at "
    "which it is usually compared; chapters without such settings run as in the quick profile.",
}
NOISE = ("papermill", "execution", "ExecuteTime", "widgets")


class StageError(RuntimeError):
    """The book cannot be staged or built; the message is one line that says what to do."""


def refusal(notebook: nbformat.NotebookNode) -> str | None:
    """Why a notebook may not enter the book, or None if papermill ran it to its end without an error."""
    record = notebook.metadata.get("papermill")
    if not record:
        return "papermill never ran it"
    if record.get("exception") or not record.get("end_time"):
        return "papermill did not finish it"
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None or cell.metadata.get("papermill", {}).get("status") != "completed":
            return f"cell {number} did not run"
        if any(output.output_type == "error" for output in cell.outputs):
            return f"cell {number} shows an error"
    return None


def merge_parameters(source: str, values: dict) -> str:
    """Write the profile's values into the lines of the parameters cell, comments kept."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        name = getattr(node.target if isinstance(node, ast.AnnAssign) else node.targets[0], "id", None)
        if name in values:
            first, last = node.value.lineno - 1, node.value.end_lineno - 1
            head = lines[first].encode()[: node.value.col_offset].decode()  # ast counts bytes, not characters
            tail = lines[last].encode()[node.value.end_col_offset :].decode()
            lines[first : last + 1] = [f"{head}{values[name]!r}{tail}"] + [None] * (last - first)
    return "\n".join(line for line in lines if line is not None)


def quiet(cell: nbformat.NotebookNode) -> None:
    """Drop run-time metadata, and the frames of a progress bar that its last frame overwrote."""
    for key in NOISE:
        cell.metadata.pop(key, None)
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)


def provenance(result: dict, stem: str) -> str:
    """The line at the foot of a notebook page, from its results file."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result.get("versions", {}).items()))
    facts = [
        f"{result['profile']} profile",
        f"commit `{result['commit']}`" if "commit" in result else None,
        result.get("date"),
        result.get("device"),
        f"{result['seconds']:.1f} s" if "seconds" in result else None,
        f"seed {result['parameters']['seed']}" if "seed" in result.get("parameters", {}) else None,
        versions,
    ]
    line = " · ".join(fact for fact in facts if fact)
    return f":::{{div}} ct-provenance\n{line} · {{download}}`all numbers as JSON <../results/{stem}.json>`\n:::"


def dress(notebook: nbformat.NotebookNode, stem: str, result: dict) -> nbformat.NotebookNode:
    """The notebook as a page: parameters in one cell, no run-time noise, provenance last."""
    values = notebook.metadata.papermill.get("parameters", {})
    cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for cell in cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = merge_parameters(cell.source, values)
        quiet(cell)
    cells.append(new_markdown_cell(provenance(result, stem), id="provenance"))
    for key in NOISE:
        notebook.metadata.pop(key, None)
    notebook.cells = cells
    return notebook


def exports(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """Figures that prose pages show: the picture of a cell tagged `export-<name>` becomes `book/figures/<name>.png`."""
    found = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            if tag.startswith("export-"):
                pictures = [
                    output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})
                ]
                if not pictures:
                    raise StageError(f"the cell tagged {tag!r} shows no picture: draw one or drop the tag")
                found[f"book/figures/{tag.removeprefix('export-')}.png"] = base64.b64decode(pictures[0])
    return found


def remote(root: Path) -> str:
    """Address that git knows as `origin`; empty in a downloaded archive, and where git is not installed."""
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def configuration(root: Path, profile: str) -> bytes:
    """_config.yml with the profile's banner for every page, and the address of this clone's GitHub repository.

    Where git tells no such address, the one in _config.yml stays.
    """
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    config["html"]["announcement"] = BANNERS.get(profile, "")
    if match := re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(\.git)?/?$", remote(root)):
        config["repository"]["url"] = f"https://github.com/{match[1]}"
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()


def mirror(profile: str, root: Path = ROOT) -> dict[str, bytes]:
    """Every file of the staged tree, by path relative to its root.

    Raises:
        StageError: a notebook is missing, unfinished or failed.
    """
    build = root / "_build" / profile
    prose = [path for path in (root / "book").rglob("*") if path.is_file() and not path.name.startswith(".")]
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in prose}
    files["_toc.yml"] = files.pop("book/_toc.yml")
    files["_config.yml"] = configuration(root, profile)
    for stem in scan(root):
        executed, results = build / "executed" / f"{stem}.ipynb", build / "results" / f"{stem}.json"
        for path in (executed, results):
            if not path.is_file():
                raise StageError(f"{path.relative_to(root)} is missing; `make book PROFILE={profile}` makes it")
        notebook = nbformat.read(executed, as_version=4)
        if reason := refusal(notebook):
            raise StageError(f"{executed.relative_to(root)} is unfinished ({reason}); remove it and run again")
        files |= exports(notebook)
        page = dress(notebook, stem, json.loads(results.read_text(encoding="utf-8")))
        files[f"notebooks/{stem}.ipynb"] = nbformat.writes(page).encode()
        files[f"results/{stem}.json"] = results.read_bytes()
    return files


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Make `folder` hold exactly `files`; a file that is right already is not touched."""
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            part.write_bytes(content)
            os.replace(part, path)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def entries(toc: dict | list) -> list[str]:
    """Pages that the table of contents names, in order."""
    if isinstance(toc, list):
        return [page for item in toc for page in entries(item)]
    own = [toc[key] for key in ("root", "file") if key in toc]
    return own + [page for key in ("parts", "chapters", "sections") for page in entries(toc.get(key, []))]


def site(source: Path, folder: Path, files: dict[str, bytes], root: Path = ROOT) -> Path:
    """Build the staged tree into HTML; skipped when nothing changed since the last good build.

    Sphinx repeats no warning about a page that it does not read again, so any change builds all pages: otherwise
    `-W` would fail once and pass the second time.
    """
    html, seal = folder / "_build" / "html", folder / "site.sha256"
    digest = hashlib.sha256((root / "requirements.lock").read_bytes())
    for name in sorted(files):
        digest.update(name.encode() + hashlib.sha256(files[name]).digest())
    index = html / "index.html"
    if index.is_file() and seal.is_file() and seal.read_text() == digest.hexdigest():
        return index
    seal.unlink(missing_ok=True)
    shutil.rmtree(folder / "_build", ignore_errors=True)
    tool = Path(sys.executable).with_name("jupyter-book")
    command = [tool, "build", source, "--path-output", folder, "-q", "-W", "-n", "--keep-going"]
    if subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL).returncode:  # warnings go to stderr
        raise StageError("jupyter-book stopped; each warning above counts as an error")
    pages = entries(yaml.safe_load(files["_toc.yml"]))
    if missing := [page for page in pages if not (html / f"{Path(page).with_suffix('')}.html").is_file()]:
        raise StageError(f"no HTML page for {', '.join(missing)}: is the name in book/_toc.yml right?")
    seal.write_text(digest.hexdigest())
    return index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", help="quick, gpu or paper")
    parser.add_argument("--no-build", action="store_true", help="stage the mirror and stop")
    options = parser.parse_args()
    folder = ROOT / "_build" / options.profile
    try:
        files = mirror(options.profile)
        write(folder / "src", files)
        if not options.no_build:
            print(f"The book is ready: open {site(folder / 'src', folder, files)}")
    except StageError as error:
        sys.exit(f"stage: {error}")


if __name__ == "__main__":
    main()
