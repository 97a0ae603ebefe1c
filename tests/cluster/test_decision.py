"""What the job that decides a round gets of a launch, and what it asks SLURM for."""

from dataclasses import replace

import pytest

from harness.cluster import decision
from harness.cluster.job_registry import Scheduler
from harness.cluster.state import stage_states
from harness.cluster.sweep_view import Sweep
from harness.cluster_schema import ClusterConfig, SlurmConfig
from harness.config import load
from harness.store.store import Store
from harness.sweep.plan import make_plan
from harness.sweep.settle import SettleConfig

RULE = SettleConfig(within=0.5, seeds=(1, 2))


@pytest.mark.parametrize("name", ["quickstart", "imagenet_resnet50", "pruning_schedules"])
def test_a_decision_continues_the_very_trials_and_settings_of_its_launch(name, tmp_path):
    words = [f"grid={name}", f"store={tmp_path / 'store'}", "cluster=preemptible"]
    launch = replace(load([*words, "cluster.slurm.setup=['module load x']"]), settle=RULE)
    launch = replace(launch, options={"where": None, "budget": 3.5, "retry": "all"})
    plan, store = make_plan(launch.grid), Store(launch.store)
    sweep = Sweep(launch, plan, store, Scheduler(), {}, ())
    sweep = sweep.with_states(stage_states(store, plan.stages))
    decision.write(tmp_path, sweep, ["recipe.epochs=2"])
    (tmp_path / "job").mkdir()
    read = decision.read(tmp_path / "job")
    assert make_plan(read.launch.grid) == plan
    assert [t.cell for t in read.launch.grid.trials] == [t.cell for t in launch.grid.trials]
    same = ("run", "cluster", "settle", "resolved")
    assert all(getattr(read.launch, key) == getattr(launch, key) for key in same)
    assert read.launch.store == store.root
    assert read.launch.options == {"where": None, "budget": 3.5, "retry": None, "dry_run": False}
    assert (read.words, read.number) == (["recipe.epochs=2"], 1)
    assert decision.has_settings_of(sweep, tmp_path / "job")
    other = replace(sweep, launch=replace(launch, options={"where": None, "budget": 4.0}))
    assert not decision.has_settings_of(other, tmp_path / "job")


def test_a_decision_asks_for_one_core_and_no_gpu():
    extra = {"gres": "gpu:a100:2", "mem-per-gpu": "8G", "exclusive": True, "reservation": "night"}
    slurm = SlurmConfig(
        partition="gpu", constraint="a100", nodes=2, mem_gb=256.0, qos="long", extra=extra
    )
    profile = ClusterConfig(name="x", executor="slurm", gpus_per_node=8, slurm=slurm)
    cluster, run = decision.job_settings(profile)
    assert (cluster.gpus_per_node, cluster.timeout_min, run.processes) == (0, 30, 1)
    wanted = {"partition": "gpu", "qos": "long", "nodes": 1, "cpus_per_task": 1, "mem_gb": 4.0}
    assert cluster.slurm.model_dump().items() >= wanted.items()
    assert cluster.slurm.extra == {"reservation": "night"}
    assert cluster.slurm.constraint is None
    named = slurm.model_copy(update={"decision_partition": "cpu", "mem_gb": None})
    cluster, _ = decision.job_settings(profile.model_copy(update={"slurm": named}))
    assert (cluster.slurm.partition, cluster.slurm.mem_gb) == ("cpu", None)
