"""Source notebooks are clean, thin and in order. `make book` runs each of them, nbmake some."""

import ast
import re

import graph
import nbformat
import pytest

PATHS = sorted((graph.ROOT / "notebooks").glob("*.ipynb"))
notebooks = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks_and_each_reads_only_earlier_ones():
    assert PATHS
    for stem, node in graph.scan().items():
        assert all(other < stem for other in node.reads), f"{stem} reads {node.reads}, which run after it"


def test_nbmake_collects_them_in_run_order(request):
    stems = [item.path.stem for item in request.session.items if item.path.suffix == ".ipynb"]
    if not stems:
        pytest.skip("only `make test` passes --nbmake")
    assert stems == sorted(stems) and set(stems) <= {path.stem for path in PATHS}


@notebooks
def test_clean(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in code(notebook):
        assert not cell.outputs and cell.execution_count is None, f"{cell.id} holds outputs: run nbstripout"


@notebooks
def test_thin(path):
    notebook = nbformat.read(path, as_version=4)
    lines = {cell.id: len(cell.source.splitlines()) for cell in code(notebook)}
    long = [line for cell in code(notebook) for line in cell.source.splitlines() if len(line) > 160]
    definitions = [
        node
        for node in ast.walk(graph.parse(path))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
    ]
    assert len(notebook.cells) <= 30 and len(lines) <= 15
    assert sum(lines.values()) <= 150
    assert all(line.startswith(("- ", "| ")) for line in long), "beside text, no line of more than 160 characters"
    assert not {cell: count for cell, count in lines.items() if count > 25}
    assert len(definitions) <= 1


@notebooks
def test_tells_its_title_parameters_and_stem(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    first = code(notebook)[0]
    assert "parameters" in first.metadata.get("tags", [])
    for line in filter(None, first.source.splitlines()):
        assert re.match(r"\w+: [\w\[\], |.]+ = .+  # \S", line), f"not `name: type = value  # what`: {line}"
    assert f'results.start("{path.stem}"' in "\n".join(cell.source for cell in code(notebook))


@notebooks
def test_names_no_path(path):
    for text in graph.strings(graph.parse(path)):
        assert not re.match(r"(\.{1,2}/|/|~/|[A-Z]:\\)\w", text), f"{text!r}: paths come from ctlib"


@notebooks
def test_the_result_file_knows_every_parameter(path):
    """A result without the parameters that made it cannot be made again."""
    calls = [node for node in ast.walk(graph.parse(path)) if isinstance(node, ast.Call)]
    start = next(call for call in calls if ast.unparse(call.func) == "results.start")
    assert {keyword.arg for keyword in start.keywords} == set(graph.parameters(path))


def test_every_result_that_is_read_is_made_or_recorded():
    """A record that nobody committed would stop the book on every machine but one."""
    stems = {path.stem for path in PATHS} | {path.stem for path in (graph.ROOT / "book" / "results").glob("*.json")}
    for path in PATHS:
        asked = re.findall(
            r'results\.read\("(\w+)"\)', "\n".join("".join(cell["source"]) for cell in graph.code_cells(path))
        )
        assert set(asked) <= stems, path.stem
