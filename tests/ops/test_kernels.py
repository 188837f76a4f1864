"""The Triton kernels on a machine without a GPU: interpreted, a value at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ctlib.ops import launch


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are tested on the GPU itself")
@pytest.mark.skipif(launch.triton is None, reason="Triton has no build for this system")
@pytest.mark.skipif(launch.INTERPRET, reason="this is the run inside")
def test_kernels_under_the_interpreter():
    """Triton decides when a kernel is defined whether it will be interpreted: hence a process of its own."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-m", "kernel", "-p", "no:cacheprovider", str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-400:]
