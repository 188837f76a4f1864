"""Order and division of the suite, the browser, and the one built site that the tests of the book share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
# Notebooks run by nbmake write to _build/test, so they neither use nor spoil the results of a book.
os.environ.setdefault("CTLIB_PROFILE", "test")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores

FIRST = ("test_book.py", "test_site.py", ".ipynb")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: the site, then the notebooks in their order."""

    def place(item: pytest.Item) -> tuple[int, str]:
        rank = next((i for i, end in enumerate(FIRST) if item.path.name.endswith(end)), len(FIRST))
        return rank, item.path.name if item.path.suffix == ".ipynb" else ""

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """What shares something expensive stays in one worker.

    The site is built once, for two files; later notebooks read the results of earlier ones; else a file is a unit.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Shared(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.endswith(".ipynb"):
                return "notebooks"
            return "site" if file.endswith(("test_book.py", "test_site.py")) else file

    return Shared(config, log)


@pytest.fixture(scope="session")
def site() -> Path:
    """HTML folder of the quick book, made by `make book` itself: nothing is built twice."""
    environment = {key: value for key, value in os.environ.items() if key not in ("CTLIB_PROFILE", "MAKEFLAGS")}
    done = subprocess.run(
        ["make", "--no-print-directory", "book", "PROFILE=quick"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.fail(f"make book stopped:\n{(done.stdout + done.stderr)[-4000:]}", pytrace=False)
    return ROOT / "_build" / "quick" / "_build" / "html"


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium, or a skip that says why."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on this machine (Debian: apt install chromium)")
