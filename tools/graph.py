"""What each notebook depends on, read from its text: nothing is imported, nothing runs.

The Snakefile turns the answer into rule inputs, so that an edit reruns what depends on it and nothing else. Try
`python tools/graph.py` to see the graph.

A notebook needs three things: the `ctlib` modules it reaches by import, directly or through other modules; the TOML
files and the trained weights that those modules or the notebook name; and the results of each notebook whose stem
stands in a string of its code, as in `results.read("10_statistics_transfer")`.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "ctlib"
MAGIC = re.compile(r"^(\s*)[%!].*$", re.MULTILINE)


@dataclass(frozen=True)
class Notebook:
    """One node of the graph; paths are relative to the repository root."""

    stem: str
    path: str
    modules: tuple[str, ...]
    reads: tuple[str, ...]


def code_cells(path: Path) -> list[dict]:
    """The code cells of a notebook, each with its source as one string; cell magics such as `%%bash` are left out."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [{**cell, "source": "".join(cell["source"])} for cell in cells if cell["cell_type"] == "code"]
    return [cell for cell in code if not cell["source"].startswith("%%")]


def parse(path: Path) -> ast.Module:
    """Syntax tree of a module or of all code cells of a notebook.

    Raises:
        SyntaxError: the code does not parse; the message names the file.
    """
    text = path.read_text(encoding="utf-8") if path.suffix == ".py" else None
    if text is None:
        text = "\n".join(MAGIC.sub(r"\1pass", cell["source"]) for cell in code_cells(path))
    return ast.parse(text, filename=str(path))


def strings(tree: ast.AST) -> set[str]:
    """Every string literal of the tree."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that the tree may import; `package` is where its relative imports start."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
    # importlib.import_module("ctlib.x"): a lazy import hides in a string
    yield from (text for text in strings(tree) if re.fullmatch(rf"{PACKAGE}(\.\w+)+", text))


def module_files(name: str, root: Path) -> Iterator[Path]:
    """Files that `import name` runs inside the package: each parent's `__init__.py`, then the module."""
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return
    for end in range(1, len(parts) + 1):
        stem = root.joinpath(*parts[:end])
        yield from (path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file())


@cache
def direct(path: Path, root: Path) -> tuple[frozenset[Path], frozenset[Path]]:
    """Package modules that one file imports, and the TOML files and weights it names."""
    tree = parse(path)
    package = ".".join(path.relative_to(root).parent.parts)
    modules = {file for name in imported(tree, package) for file in module_files(name, root)}
    plain = [text for text in strings(tree) if re.fullmatch(r"[\w.-]+", text)]
    tables = {root / "data" / text for text in plain if text.endswith(".toml")}
    tables |= {root / "data" / "pretrained" / text / "model.safetensors" for text in plain}
    if path.suffix == ".ipynb":  # a record that no notebook of the book makes, such as a benchmark's
        records = {root / "book" / "results" / f"{text}.json" for text in plain}
        tables |= {record for record in records if not (path.parent / f"{record.stem}.ipynb").is_file()}
    return frozenset(modules - {path}), frozenset(table for table in tables if table.is_file())


def closure(path: Path, root: Path = ROOT) -> tuple[Path, ...]:
    """Every file of the package that `path` reaches by import, and the tables those files name, sorted."""
    found: set[Path] = set()
    queue = [path]
    while queue:
        modules, tables = direct(queue.pop(), root)
        queue += modules - found
        found |= modules | tables
    return tuple(sorted(found))


def scan(root: Path = ROOT) -> dict[str, Notebook]:
    """All notebooks in run order."""
    paths = {path.stem: path for path in sorted((root / "notebooks").glob("*.ipynb"))}
    graph = {}
    for stem, path in paths.items():
        modules = tuple(file.relative_to(root).as_posix() for file in closure(path, root))
        reads = tuple(sorted((strings(parse(path)) & set(paths)) - {stem}))
        graph[stem] = Notebook(stem, path.relative_to(root).as_posix(), modules, reads)
    return graph


def parameters(path: Path) -> dict[str, ast.expr]:
    """Names in the cell tagged `parameters`, with the expression each is set to."""
    found = {}
    for cell in code_cells(path):
        if "parameters" in cell["metadata"].get("tags", []):
            for node in ast.parse(cell["source"]).body:
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                found |= {target.id: node.value for target in targets if isinstance(target, ast.Name)}
    return found


def overlay(stem: str, profile: str, root: Path = ROOT) -> str | None:
    """The notebook's profile file relative to the root, or None where the values in its own cell hold."""
    path = Path("notebooks/profiles", profile, f"{stem}.yml")
    return path.as_posix() if (root / path).is_file() else None


def values(stem: str, profile: str, root: Path = ROOT) -> dict:
    """A notebook's parameters as a profile sets them, for what runs beside it."""
    own = parameters(root / "notebooks" / f"{stem}.ipynb")
    path = overlay(stem, profile, root)
    changed = yaml.safe_load((root / path).read_text(encoding="utf-8")) or {} if path else {}
    return {name: ast.literal_eval(value) for name, value in own.items()} | changed


def problems(profile: str, root: Path = ROOT) -> list[str]:
    """What is wrong with a profile, one line each. papermill itself lets an unknown parameter pass."""
    folder = root / "notebooks" / "profiles"
    known = sorted({"quick", *(path.name for path in folder.glob("*") if path.is_dir())})
    if profile not in known:
        return [f"unknown profile {profile!r}: choose one of {', '.join(known)}"]
    found = []
    for path in sorted((folder / profile).glob("*.yml")):
        shown = path.relative_to(root).as_posix()
        notebook = root / "notebooks" / f"{path.stem}.ipynb"
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not notebook.is_file():
            found.append(f"{shown}: there is no notebooks/{notebook.name}; rename or remove the profile file")
        elif not isinstance(values, dict):
            found.append(f"{shown}: must hold `name: value` lines")
        else:
            names = parameters(notebook)
            found += [
                f"{shown}: unknown parameter {key!r}; {path.stem} has {', '.join(names) or 'none'}"
                for key in values
                if key not in names
            ]
    return found


if __name__ == "__main__":
    for book in scan().values():
        print(f"{book.path}\n  modules  {' '.join(book.modules) or '-'}\n  reads    {' '.join(book.reads) or '-'}")
    sys.exit("\n".join(problems(sys.argv[1] if len(sys.argv) > 1 else "quick")) or 0)
