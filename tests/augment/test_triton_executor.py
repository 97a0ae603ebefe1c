"""Triton's kernels give the pixels of plain torch, which replaces them if they cannot be built."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.augment import torch_executor
from harness.augment.executors import triton_or_torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton does not come with this torch"
)


@pytest.mark.slow
@needs_triton
def test_tritons_kernels_give_the_pixels_of_plain_torch():
    result = subprocess.run(
        [sys.executable, HERE / "triton_interpreted.py"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout.split()[0]) > 300


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU that Triton builds for")
def test_plain_torch_replaces_kernels_that_cannot_be_built_with_one_note(capsys):
    triton_or_torch.cache_clear()
    for _ in range(2):
        assert triton_or_torch(torch.device("cpu")) is torch_executor.run
    note = capsys.readouterr().err
    assert note.count("note: Triton cannot build kernels") == 1
    assert "C compiler" in note
    triton_or_torch.cache_clear()
