"""The kernels for a GPU give the bits of plain torch; where they cannot be built, that serves."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.augment import kernels
from harness.augment.apply import gpu_executor

HERE = Path(__file__).parent
PICTURES = HERE.parents[1] / "benchmarks"
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton does not come with this torch"
)


@pytest.mark.slow
@needs_triton
def test_fused_kernels_give_the_bits_of_plain_torch():
    said = subprocess.run(
        [sys.executable, HERE / "interpreted.py"],
        env={**os.environ, "PYTHONPATH": str(PICTURES)},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr[-2000:]
    assert int(said.stdout.split()[0]) > 300


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU that Triton builds for")
def test_plain_torch_serves_a_device_that_triton_cannot_build_for_and_says_so_once(capsys):
    gpu_executor.cache_clear()
    for _ in range(2):
        assert gpu_executor(torch.device("cpu")) is kernels.run
    said = capsys.readouterr().err
    assert said.count("note: Triton cannot build kernels") == 1
    assert "C compiler" in said
    gpu_executor.cache_clear()
