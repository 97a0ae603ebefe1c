"""Sweeps of several lengths through the commands: here, and on a real SLURM."""

import csv
import json
import shutil

import pytest
from bed import Bed

from harness.commands import launch, preflight
from harness.config import load
from harness.errors import UserError
from harness.sweep.plan import make_plan

GRID = """# Trunks of a few epochs on the digits, for tests.
defaults:
  - override /dataset: digits
  - override /model: cifar_resnet
  - override /recipe: quick
model: {depth: 8, width: 0.25}
dataset: {train_size: 256, validation_size: 128, test_size: 128}
recipe: {batch_size: 32, schedule: {name: trunk, cooldown: 0.5, warmup_epochs: 0.5}}
compress: {level_share: 0.5, level_epochs: 1}
run: {engine: ddp, checkpoint_seconds: 0.2}
axes:
  epochs: [2, 4, 8]
  magnitude: [none]
"""
COLUMNS = ("epochs", "examples", "train_macs", "val_loss", "test_loss", "sparsity", "state")


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "lengths.yaml"
    path.write_text(GRID)
    return path


class Here:
    """Launches of a grid on this machine, in processes of their own."""

    def __init__(self, grid, store):
        self.grid, self.store = grid, store

    def launch(self, *words, code=0):
        """Return the output of a launch, and the epochs that its workers trained."""
        logs = set(self.store.glob("sweeps/*/logs/*/*_log.out"))
        output = self.run("launch", *words, code=code)
        new = set(self.store.glob("sweeps/*/logs/*/*_log.out")) - logs
        lines = [line for log in new for line in log.read_text().splitlines()]
        return output, sum(" epoch " in line and ": loss " in line for line in lines)

    def run(self, verb, *words, code=0):
        bed = Bed(self.store / "none")
        words = (f"grid={self.grid}", f"store={self.store}", *words)
        return bed.run(f"harness.{verb}", *words, code=code, seconds=300)

    def rows(self, *words):
        """Return the rows by length and sparsity, without what depends on the machine."""
        out = self.store.with_name("rows")
        bed = Bed(self.store / "none")
        words = (f"grid={self.grid}", f"store={self.store}", *words, f"out={out}")
        bed.run("analysis.rows", *words, seconds=300)
        with (out / "rows.csv").open() as file:
            table = list(csv.DictReader(file))
        return {(row["epochs"], row["sparsity"]): row for row in table}

    def results(self):
        """Return the results by schedule and length."""
        found = {}
        for path in self.store.glob("stages/*/*/result.json"):
            config = json.loads((path.parent / "config.json").read_text())
            key = config["recipe"]["schedule"]["name"], config["recipe"]["epochs"]
            found[key] = json.loads(path.read_text())
        return found


@pytest.fixture
def here(grid, tmp_path):
    return Here(grid, tmp_path / "store")


@pytest.mark.slow
def test_lengths_train_their_common_epochs_once(here, tmp_path):
    """Each part of this test goes on from the store that the one before it has left."""
    output, trained = here.launch()
    assert trained == 4 + 1 + 2 + 4  # 0 to 4 in three pieces, and three cool-downs
    assert "3 trials, 6 stages" in output
    rows = here.rows()
    assert [int(row["examples"]) for row in rows.values()] == [256 * e for e in (2, 4, 8)]

    # another length trains what is new only
    words = "axes.epochs=[2,4,6,8]"
    assert "1 trunk(s) of several lengths: 14 epochs instead of 20" in here.run(
        "launch", words, "dry_run=true"
    )
    output, trained = here.launch(words)
    assert trained == 1 + 3  # from 2 to 3, and the cool-down: the trunk from 3 to 4 is there
    longer = here.rows(words)
    for key, row in rows.items():
        assert {name: row[name] for name in COLUMNS} == {n: longer[key][n] for n in COLUMNS}
    assert float(longer["6", "0.0"]["gpu_seconds"]) > 0
    assert "nothing left to do" in here.launch(words)[0]

    status = here.run("status", words)
    assert "stages: 8 of 8 done" in status

    # the longest alone ends in the same bits, and serves the others
    alone = Here(here.grid, tmp_path / "alone")
    assert alone.launch("axes.epochs=[8]")[1] == 8
    _, trained = alone.launch(words)
    assert trained == 3 + 1 + 2 + 3  # the trunk to 3 in pieces, and three cool-downs
    everything = here.results()
    for key, result in alone.results().items():
        for name in ("weights_sha256", "val", "test", "train", "examples", "train_macs"):
            assert result[name] == everything[key][name], (key, name)


@pytest.mark.slow
def test_a_trunk_stage_whose_optimizer_is_gone_is_trained_again(here):
    here.launch("axes.epochs=[4]")
    before = here.results()
    for path in here.store.glob("stages/*/*/checkpoint/step-*.pt"):
        path.unlink()
    dry_run = here.run("launch", "axes.epochs=[4,8]", "dry_run=true")
    assert "1 of the done stages are trained again: other stages start from their" in dry_run
    _, trained = here.launch("axes.epochs=[4,8]")
    assert trained == 4 + 4  # 0 to 2 again, 2 to 4, and the cool-down
    assert (
        here.results()["constant", 2]["weights_sha256"] == (before["constant", 2]["weights_sha256"])
    )


@pytest.mark.slow
def test_a_diverged_trunk_keeps_no_checkpoint_that_a_retry_would_go_on_from(here):
    words = ("recipe.optimizer.lr=1e12", "run.checkpoint_seconds=0.001", "axes.epochs=[4,8]")
    output, _ = here.launch(*words)
    assert "2 trials: 2 diverged" in output
    ((key, result),) = here.results().items()
    assert (key, result["status"]) == (("constant", 2), "diverged")
    assert "checkpoint" in {path.name for path in here.store.glob("stages/*/*/*")}
    assert not list(here.store.glob("stages/*/*/checkpoint/*"))
    assert f"stage {result['stage']}, which it continues, diverged" in {
        row["why"] for row in here.rows(*words).values()
    }


@pytest.mark.slow
def test_a_constant_rate_trial_of_a_trunk_can_be_trained_alone(here):
    block = "also=[{set: {recipe.schedule.name: constant, epochs: 2, magnitude: none}}]"
    _, trained = here.launch(block, "where=recipe.schedule.name == 'constant'")
    assert trained == 2
    assert here.results()["constant", 2]["continued"]["epoch"] == 1
    output, trained = here.launch(block)
    assert "4 trials: 4 done" in output
    assert trained == 9


@pytest.mark.slow
def test_weights_that_nothing_starts_from_are_dropped(here):
    here.launch("run.keep_weights=needed", "axes.epochs=[2,4]", "axes.sparsity=[0.5]")
    kept = {}
    for path in here.store.glob("stages/*/*/result.json"):
        config = json.loads((path.parent / "config.json").read_text())
        kind = "level" if config["parent"] else config["recipe"]["schedule"]["name"]
        kept.setdefault(kind, set()).update(p.name for p in path.parent.glob("checkpoint/*"))
    assert kept["level"] == set()
    assert kept["trunk"] == {"final.pt"}
    assert kept["constant"] == {"step-00000008.pt", "step-00000016.pt"}


@pytest.mark.slow
def test_a_trunk_of_other_ranks_under_zero_1_is_refused_before_anything_starts(here, capsys):
    words = [f"grid={here.grid}", f"store={here.store}", "run.engine=deepspeed"]
    here.launch("run.engine=deepspeed", "run.zero_stage=1", "axes.epochs=[4]")
    messages = []
    for dry_run in ("true", "false"):
        for more in (["run.zero_stage=0"], ["run.zero_stage=1", "run.processes=2"]):
            with pytest.raises(UserError) as caught:
                launch.main([*words, *more, "axes.epochs=[4,8]", f"dry_run={dry_run}"])
            messages.append(str(caught.value))
    assert messages[:2] == messages[2:]
    assert "a run without ZeRO 1 cannot continue stage" in messages[0]
    assert "a trunk of 2 epochs that ZeRO 1 with 1 process(es) has trained" in messages[1]
    (folder,) = {path.parent for path in here.store.glob("stages/*/*/checkpoint/step-*.pt")}
    assert f"or delete {folder} to train that trunk again" in messages[0]
    shutil.rmtree(folder)  # as the message says
    assert here.launch("run.engine=deepspeed", "axes.epochs=[4,8]")[1] == 4 + 4


def test_checks_of_a_trunk_use_the_settings_of_its_job(grid):
    """A resource rule sees the longest training of a job, not the piece that is checked."""
    rule = "cluster.resources=[{where: 'epochs >= 8', micro_batch_size: 16}]"
    sweep = load([f"grid={grid}", "cluster=testbed", "axes.epochs=[2,8]", rule])
    plan = make_plan(sweep.grid)
    runs = preflight.job_runs(sweep, plan, plan.stages)
    assert {run.micro_batch_size for run in runs.values()} == {16}
    assert set(runs) == set(plan.stages)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_slurm_a_longer_grid_continues_a_trunk_that_is_under_way(bed, grid, tmp_path):
    """Its job waits for the one that trains the trunk, and a requeued job goes on."""
    here, slurm = Here(grid, tmp_path / "here"), Here(grid, tmp_path / "slurm")
    axes = ("axes.magnitude=[none,0.5]", "axes.sparsity=[0.0,0.5]")
    words = (f"grid={grid}", f"store={slurm.store}", "cluster=testbed", *axes)
    bed.run("harness.launch", *words, "axes.epochs=[2,4]")
    first = set(bed.jobs())
    bed.run("harness.launch", *words)
    assert set(bed.jobs()) - first
    for job in bed.jobs():
        bed.attempt("scontrol", "requeue", job)  # those that run
    for _ in range(3):
        bed.drain()
        if "nothing left to do" in bed.run("harness.launch", *words):
            break
    here.launch(*axes)
    paths = sorted(here.store.glob("stages/*/*/result.json"))
    assert len(paths) == 2 * (3 + 3 + 3)  # trunk stages, cool-downs and their levels
    for path in paths:
        twin = slurm.store / path.relative_to(here.store)
        results = [json.loads(result.read_text()) for result in (path, twin)]
        assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert "stages: 18 of 18 done" in bed.run("harness.status", *words)
