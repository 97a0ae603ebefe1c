"""Plug-ins in SLURM jobs."""

import hashlib
import json

import pytest

from harness.plugins import PLUGINS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
METHOD = """
import torch
from harness.compress import Method, register_method

class FirstHalf(Method):
    name = "first_half"

    def compress(self, model, request):
        shapes = {name: model.get_parameter(name).shape for name in request.names}
        return {
            name: (torch.arange(shape.numel()) < shape.numel() // 2).reshape(shape)
            for name, shape in shapes.items()
        }

register_method(FirstHalf())
"""


def test_a_job_runs_the_plugin_as_it_was_when_the_job_was_queued(bed, make_grid, tmp_path):
    grid, store = make_grid(sparsity="0.5"), tmp_path / "store"
    plugin = tmp_path / "first_half.py"
    plugin.write_text(METHOD)
    words = [f"grid={grid}", f"store={store}", "cluster=testbed", "compress.method=first_half"]
    environment = {**bed.env, PLUGINS: plugin.name}
    held = "cluster.slurm.extra={begin: now+1hour}"
    bed.run("harness.launch", *words, held, cwd=tmp_path, env=environment)
    plugin.write_text("raise SystemExit(1)\n")
    for job in bed.jobs():
        bed.slurm("scontrol", "update", f"jobid={job}", "StartTime=now")
    bed.drain()
    results = [json.loads(path.read_text()) for path in store.glob("stages/*/*/result.json")]
    assert sorted(result["sparsity"] for result in results) == [0.0, 0.5]
    for path in store.glob("stages/*/*/provenance.json"):
        (entry,) = json.loads(path.read_text())["records"]
        (used,) = entry["plugins"]
        assert used["sha256"] == hashlib.sha256(METHOD.encode()).hexdigest()
