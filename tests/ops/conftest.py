"""Where the kernels run in a test, and memory that shows what a kernel forgot to write."""

import pytest
import torch

from ctlib.ops import launch


@pytest.fixture
def device() -> str:
    """A device on which the ops take their Triton kernels."""
    if torch.cuda.is_available() and launch.triton is not None:
        return "cuda"
    if launch.INTERPRET:
        return "cpu"
    pytest.skip("no NVIDIA GPU; test_kernels.py runs this test with TRITON_INTERPRET=1")


@pytest.fixture
def poison(monkeypatch):
    """Fresh memory holds NaN, or the smallest integer, as long as the test runs."""

    def poisoned(make):
        def run(*args, **kwargs):
            fresh = make(*args, **kwargs)
            if fresh.dtype == torch.bool:
                return fresh.fill_(True)
            return fresh.fill_(torch.nan if fresh.is_floating_point() else torch.iinfo(fresh.dtype).min)

        return run

    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, poisoned(getattr(torch, name)))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))
