"""Rounds of a sweep that settles on a real SLURM: they go on without a process that waits."""

import contextlib
import json
import shutil
import signal
from collections import Counter

import pytest

from harness.cluster.job_registry import read_records, submission_lock

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
HELD = "cluster.slurm.extra={begin: now+1hour}"
GRID = """# A size whose magnitudes settle in a few rounds, for tests.
defaults:
  - override /dataset: digits
  - override /model: cifar_resnet
  - override /recipe: quick
model: {depth: 8, width: 0.25}
dataset: {train_size: 256, validation_size: 128, test_size: 128}
recipe: {epochs: 1, batch_size: 32}
run: {engine: ddp}
axes: {magnitude: [none, 0.5], seed: [0, 1, 2]}
settle: {within: 0.5, seeds: [1, 3]}
"""


class Rounds:
    """The grid and its store; its commands run as a user runs them."""

    def __init__(self, bed, folder):
        self.bed, self.store, self.grid = bed, folder / "store", folder / "rounds.yaml"
        self.grid.write_text(GRID)

    def run(self, verb, *more, code=0, **options):
        words = (f"grid={self.grid}", f"store={self.store}", "cluster=testbed", *more)
        return self.bed.run(f"harness.{verb}", *words, code=code, **options)

    def status(self, *more):
        return json.loads(self.run("status", "format=json", *more))

    def submissions(self):
        """Return the stages, or the name of the decision, of every job that was submitted."""
        records = [r for r in read_records(self.store) if "parts" in r]
        return [part for record in records for part in record["parts"]]

    def decisions(self):
        return [part for part in self.submissions() if part[0].startswith("decision-")]

    @contextlib.contextmanager
    def running_decision(self, results):
        """Wait until the queued decision runs, which cannot queue anything in this context.

        It waits for the lock that is taken after so many `results`, before the round's last one.
        Yields its job and its processes.
        """
        (job,) = self.status()["decisions"]
        finished = self.store.glob
        self.bed.wait(lambda: len(list(finished("stages/*/*/result.json"))) >= results)
        with submission_lock(self.store):
            self.bed.wait(lambda: self.bed.jobs().get(job) == "RUNNING")
            self.bed.wait(lambda: self.bed.workers(self.store))
            yield job, self.bed.workers(self.store)


@pytest.fixture
def rounds(bed, tmp_path):
    return Rounds(bed, tmp_path)


def test_rounds_go_on_by_themselves_and_end_at_a_failure(bed, rounds, tmp_path):
    empty = tmp_path / "broken/sklearn"  # without the digits
    empty.mkdir(parents=True)
    (empty / "__init__.py").touch()
    path = f"cluster.slurm.setup=['export PYTHONPATH={empty.parent}:$PYTHONPATH']"
    launched = rounds.run("launch", path)
    assert "decides the next round when the jobs of this one have ended" in launched
    bed.drain()
    assert len(rounds.decisions()) == 1  # a failure ends the rounds
    said = rounds.run("status")
    assert "round 1 is not queued (the rounds ended: round 1 cannot end, because 2 of its" in said
    assert "the rounds end here: round 1 cannot end" in rounds.run("logs")
    assert "correct the cause and launch with retry=failed" in rounds.run("launch", code=1)
    assert not bed.jobs()

    rounds.run("launch", "retry=failed")
    with rounds.running_decision(1) as (job, pids):
        bed.send(pids, signal.SIGKILL)
    bed.drain()
    said = rounds.run("status")
    assert f"round 2 is not queued (the decision's job {job} ended before it" in said

    rounds.run("launch")
    with rounds.running_decision(5) as (job, _):
        bed.slurm("scontrol", "requeue", job)
    rounds.grid.write_text("not a grid")  # the decisions do not read it
    bed.drain()
    rounds.grid.write_text(GRID)
    status = rounds.status()
    sizes = status["settle"]["sizes"]
    assert all(size["is_settled"] for size in sizes), rounds.run("logs")
    assert status["settle"]["trials"] == []
    number = status["settle"]["round"]
    assert number > 1
    assert len(rounds.decisions()) == 1 + number  # one of them after a failure
    stages = [s for part in rounds.submissions() for s in part if not s.startswith("decision-")]
    assert len(stages) == 2 + status["settle"]["chosen"]  # two were tried twice
    assert "nothing left to do" in rounds.run("launch")
    assert not bed.jobs()


def test_a_decision_is_queued_once_and_again_where_it_was_lost(bed, rounds):
    rounds.run("launch", HELD)
    (decision,) = rounds.status()["decisions"]
    before = bed.jobs()
    assert "nothing to add" in rounds.run("launch", HELD)
    assert bed.jobs() == before

    bed.slurm("scancel", decision)
    bed.wait(lambda: decision not in bed.jobs())
    said = rounds.run("status")
    assert "no job is queued that decides what follows round 1: launch again" in said
    assert "decides the next round" in rounds.run("launch", HELD)
    (second,) = rounds.status()["decisions"]
    assert second != decision
    assert len(bed.jobs()) == len(before)

    rounds.run("launch", HELD, "cluster.timeout_min=50")  # the newest words count
    bed.wait(lambda: second not in bed.jobs())
    (third,) = rounds.status()["decisions"]
    assert len(bed.jobs()) == len(before)
    said = rounds.run("cancel", HELD)
    assert f"and job {third}, which decides the next round" in said
    bed.wait(lambda: not bed.jobs())
    assert "round 1 is not queued (the decision's job" in rounds.run("status")
    assert "was cancelled): launch again" in rounds.run("status")


def test_the_number_of_calls_to_slurm_does_not_depend_on_the_number_of_trials(
    bed, rounds, tmp_path
):
    tools, calls = tmp_path / "bin", tmp_path / "calls"
    tools.mkdir()
    for name in ("sbatch", "squeue", "scancel", "scontrol", "sacct"):
        script = f'#!/bin/sh\necho {name} >> {calls}\nexec {shutil.which(name)} "$@"\n'
        (tools / name).write_text(script)
        (tools / name).chmod(0o700)
    env = {**bed.env, "PATH": f"{tools}:{bed.env['PATH']}"}
    counted = []
    for number, widths in enumerate(("[0.25]", "[0.25,0.5,0.75,1]")):
        rounds.store = tmp_path / f"store-{number}"
        for verb, more in (("launch", HELD), ("launch", HELD), ("status", ""), ("cancel", "")):
            calls.write_text("")
            rounds.run(verb, f"axes.width={widths}", *([more] if more else []), env=env)
            counted.append(Counter(calls.read_text().split()))
    assert counted[:4] == counted[4:]
    assert counted[0]["sbatch"] == 5  # three questions whether SLURM would take such jobs
    assert max(count["squeue"] for count in counted) <= 2
