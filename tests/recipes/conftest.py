"""What the tests of all recipes share."""

import pytest
import torch

from ctlib.recipes import histogram_analogy


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """No cache and no data outside the test's folder; one thread, for bits are compared."""
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.setattr(histogram_analogy, "cache_dir", lambda name: tmp_path / "caches" / name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path / "caches"
    torch.set_num_threads(threads)
