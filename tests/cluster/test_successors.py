"""Jobs that go on with the work of a job: requeued, or successors where requeueing is forbidden.

Most faults strike one training on two ranks, one after the other, and the last test of it ends with
that training complete.
"""

import json
import os
import signal

import pytest

from harness.store.records import read_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
NO_REQUEUE = "cluster.slurm.requeue=false"
STAGE_EPOCHS = 60  # of a stage that is saved and stopped while it trains


@pytest.fixture(scope="module")
def training(make_training):
    return make_training(60, "cluster.resources=[{where:'depth > 0',processes:2}]")


def kill_a_rank(training):
    training.bed.wait(lambda: len(training.bed.workers(training.store)) >= 2)
    os.kill(training.bed.workers(training.store)[-1], signal.SIGKILL)


def test_where_requeueing_is_forbidden_a_stopped_job_submits_its_successor(training):
    """With two ranks: the second must not exit, which would end the first, before that is done."""
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


def test_the_next_launch_queues_the_job_of_a_dead_node_again(training):
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
    bed.wait(lambda: bed.jobs().get(job) != "RUNNING")  # it does not hang until its time limit
    assert not training.results()
    training.finish()
    assert set(training.failures()[past:]) <= {"transport", "lost", "preempted"}
    assert len(training.results()) == 1
    assert len(read_lines(path)) > attempts
    scripts = list(training.store.glob("sweeps/*/logs/*/*/*_submission.sh"))
    assert scripts
    assert all("--kill-on-bad-exit=1" in script.read_text() for script in scripts)


@pytest.mark.parametrize("requeue", [True, False])
def test_a_tree_that_takes_several_jobs_goes_on_until_it_is_done(bed, make_sweep, requeue):
    """Stopped in its dense stage and in its level, as at a time limit; launched only once."""
    words = f"cluster.slurm.requeue={requeue}"
    sweep = make_sweep(words, epochs=STAGE_EPOCHS, level_epochs=STAGE_EPOCHS, sparsity="0.5")
    assert "queued 1 jobs" in sweep.run("launch")
    (first,) = bed.jobs()
    for finished in (0, 1):
        with bed.frozen_when(sweep.store, lambda done=finished: sweep.is_training(done)):
            (job,) = [job for job, state in bed.jobs().items() if state == "RUNNING"]
            bed.slurm("scancel", "--signal=USR2", job)
        bed.wait(lambda job=job: bed.jobs().get(job) != "RUNNING")
        assert len(sweep.results()) == finished
        assert (set(bed.jobs()) == {first}) == requeue
    bed.drain()
    assert len(sweep.results()) == 2, sweep.failures()
    assert sweep.failures() == ["preempted", "preempted"]
    paths = sweep.store.glob("sweeps/*/logs/*/*/submission.json")
    attempts = [json.loads(path.read_text())["attempts"] for path in paths]
    assert sorted(attempts) == ([0] if requeue else [0, 1, 2])
