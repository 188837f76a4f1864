"""The book holds together: pages, citations, and a build without a single warning."""

import re

import graph
import pytest
import stage
import yaml

ROOT = graph.ROOT
PAGES = stage.entries(yaml.safe_load((ROOT / "book" / "_toc.yml").read_text()))


def source(page):
    return next((path for end in (".md", ".ipynb") if (path := ROOT / f"{page}{end}").is_file()), None)


def prose(page):
    path = source(page)
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = stage.nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_every_entry_of_the_contents_exists_and_every_page_is_listed():
    assert not [page for page in PAGES if source(page) is None]
    assert len(set(PAGES)) == len(PAGES)
    written = [
        path for folder, end in (("book", "*.md"), ("notebooks", "*.ipynb")) for path in (ROOT / folder).glob(end)
    ]
    assert {path.relative_to(ROOT).with_suffix("").as_posix() for path in written} == set(PAGES)


def test_every_citation_is_in_the_bibliography():
    keys = re.findall(
        r"^@\w+\{([^,\s]+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(set(keys)) == len(keys)
    for page in PAGES:
        cited = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", prose(page))
        missing = {key.strip() for group in cited for key in group.split(",")} - set(keys)
        assert not missing, f"{page} cites {missing}"


def test_config_holds_the_only_address_of_the_repository():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "off"
    assert yaml.safe_load(stage.configuration(ROOT, "quick"))["repository"]["url"].startswith("https://github.com/")


def test_staging_needs_no_git(monkeypatch, tmp_path):
    """A downloaded archive on a machine without git keeps the address that stands in _config.yml."""
    written = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert stage.remote(ROOT) == ""
    assert yaml.safe_load(stage.configuration(ROOT, "quick"))["repository"]["url"] == written


@pytest.mark.parametrize(("profile", "name"), [("quick", "Quick"), ("gpu", "GPU"), ("paper", "Paper")])
def test_every_profile_has_a_banner(profile, name):
    banner = yaml.safe_load(stage.configuration(ROOT, profile))["html"]["announcement"]
    assert banner.startswith(f"<b>{name} profile.</b>")
    assert profile == "quick" or "run as in the quick profile" in banner


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_book_builds_without_a_warning(site):
    """`make book` builds with -W -n; a second build of an unchanged tree would change nothing."""
    assert all((site / f"{page}.html").is_file() for page in PAGES)
    assert (site / "index.html").is_file() and (site / "search.html").is_file()
    for page in PAGES:
        text = (site / f"{page}.html").read_text(encoding="utf-8")
        assert "Quick profile." in text, f"{page} does not say which profile made it"
        if page.startswith("notebooks/"):
            assert "ct-provenance" in text, page
        assert "Traceback (most recent call last)" not in text, page
