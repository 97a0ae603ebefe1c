"""Jobs that come after a job: of trees longer than one, and where requeueing is forbidden.

There a job that is stopped or fails submits its successor. Most of it strikes one training on two
ranks, one after the other, and the last of these tests ends with that one complete.
"""

import json
import os
import shutil
import signal

import pytest

from harness.files import read_lines
from harness.store.claims import look

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
NO_REQUEUE = "cluster.slurm.requeue=false"
DENSE_EPOCHS = 20
HELD = "cluster.slurm.extra={begin: now+1hour}"


@pytest.fixture(scope="module")
def training(make_training):
    return make_training(60, "cluster.resources=[{where:'depth > 0',processes:2}]")


def kill_a_rank(training):
    training.bed.wait(lambda: len(training.bed.workers(training.store)) >= 2)
    os.kill(training.bed.workers(training.store)[-1], signal.SIGKILL)


def test_where_requeueing_is_forbidden_a_stopped_job_submits_its_successor(training):
    """With two ranks: the other stays until the first, whom its exit would end, has done it."""
    job, bed = training.under_way(NO_REQUEUE), training.bed
    bed.slurm("scancel", "--signal=USR2", job)
    bed.wait(lambda: set(bed.jobs()) - {job})
    assert not training.results()
    bed.wait(lambda: job not in bed.jobs())
    assert len(bed.jobs()) == 1
    training.go_on()


def test_of_two_ranks_that_fail_at_most_one_submits_a_successor(training):
    job, bed = training.under_way(NO_REQUEUE), training.bed
    kill_a_rank(training)
    bed.wait(lambda: job not in bed.jobs())
    assert len(bed.jobs()) <= 1
    training.go_on()


def test_a_dead_node_gives_its_job_to_another_by_the_next_launch(training):
    training.under_way(NO_REQUEUE)
    bed = training.bed
    (node,) = bed.slurm("squeue", "--noheader", "--format=%N").split()
    bed.testbed("kill-node", node)
    assert "done" not in training.run("status").splitlines()[1]
    bed.wait(lambda: not bed.jobs())
    assert not training.results()
    bed.testbed("revive-node", node)
    training.go_on()


def test_one_rank_of_two_killed_ends_the_other_and_the_job_starts_afresh(training):
    job, bed = training.under_way("cluster.slurm.requeue=true"), training.bed
    (path,) = training.store.glob("stages/*/*/attempts.jsonl")
    attempts, past = len(read_lines(path)), len(training.failures())
    kill_a_rank(training)
    bed.wait(lambda: bed.jobs().get(job) != "RUNNING")  # not idle to its time limit
    assert not training.results()
    training.finish()
    assert set(training.failures()[past:]) <= {"transport", "lost", "preempted"}
    assert len(training.results()) == 1
    assert len(read_lines(path)) > attempts
    scripts = list(training.store.glob("sweeps/*/logs/*/*/*_submission.sh"))
    assert scripts
    assert all("--kill-on-bad-exit=1" in script.read_text() for script in scripts)


@pytest.fixture(scope="module")
def measured(make_training):
    """A store with one dense stage, trained on this machine."""
    dense = make_training(DENSE_EPOCHS)
    dense.bed.run("harness.launch", f"grid={dense.grid}", f"store={dense.store}", seconds=600)
    return dense.store


@pytest.fixture
def make_chains(bed, measured, make_sweep, tmp_path):
    """(seconds, ...) -> a sweep whose first dense stage is done, as if it had taken so long."""

    def make(seconds, *more, **grid):
        shutil.copytree(measured, tmp_path / "store")
        sweep = make_sweep(*more, epochs=DENSE_EPOCHS, seeds="0, 1, 2", **grid)
        (done,) = sweep.results()
        result = json.loads(done.read_text())
        result["timing"]["gpu_seconds"] = seconds
        done.write_text(json.dumps(result))
        return sweep

    return make


def test_without_requeueing_a_stopped_job_takes_the_rest_of_its_chain_along(bed, make_chains):
    half = "cluster.timeout_min=40"  # of which a dense stage fills a job of its own
    sweep = make_chains(1500.0, NO_REQUEUE, half, level_epochs=1, sparsity="0.5")
    assert "queued 5 jobs" in sweep.run("launch")
    before = bed.jobs()
    long = min(before, key=lambda job: [int(part) for part in job.split("_")])  # they come first

    def saved():
        folders = [path.parent for path in sweep.store.glob("stages/*/*/claim")]
        seen = [(folder, look(folder)) for folder in folders]
        mine = [folder for folder, claim in seen if claim is not None and claim.job == long]
        return any(list(folder.glob("checkpoint/step-*.pt")) for folder in mine)

    bed.wait(saved, pause=0.05)
    with bed.frozen(sweep.store):  # it shall not end before it is told
        bed.slurm("scancel", "--signal=USR2", long)
    bed.wait(lambda: long not in bed.jobs())
    bed.wait(lambda: len(set(bed.jobs()) - set(before)) == 2)  # a successor, what waits for it
    bed.drain()
    assert len(sweep.results()) == 6, sweep.failures()  # no launch was needed
    paths = sweep.store.glob("sweeps/*/logs/*/*/submission.json")
    written = [json.loads(path.read_text()) for path in paths]
    queued = [submission["attempts"] for submission in written if submission["snapshot"]]
    assert sorted(queued) == [0, 0, 0, 1]


def test_trees_longer_than_a_job_become_dependent_jobs(bed, make_chains):
    limit = "cluster.timeout_min=120"
    sweep = make_chains(3600.0, HELD, limit, level_epochs=DENSE_EPOCHS, sparsity="0.75")
    assert "queued 8 jobs" in sweep.run("launch")  # one dense stage is there: 2 x 3 + 2
    shown = bed.slurm("squeue", "--noheader", "--array", "--format=%i %E").split("\n")
    dependent = [line for line in shown if "after" in line]
    assert len(dependent) == 5
    (done,) = sweep.results()
    done.write_text(done.read_text()[:40])
    assert "1 damaged file(s) were moved aside" in sweep.run("launch", code=1)
