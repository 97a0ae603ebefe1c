"""Faults of a job on a real SLURM: what the job, the next `status` or the next `launch` does.

Most of them hit one training, one after the other. The last of these tests ends when that training
is complete.
"""

import os
import signal
import sys
import time

import pytest
from pace import FAMILY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LONG = 20  # epochs: a job that is cancelled at its start cannot have ended
SUBMITIT_PASSES = 3  # stops that submitit allows a job by default
LONGEST = 140  # epochs


@pytest.fixture(scope="module")
def training(make_training):
    return make_training(LONGEST)


def preempt(bed):
    """Submit a job of higher priority on all nodes."""
    bed.slurm(
        "sbatch", "-p", "high", "-N", "2", "--exclusive", "-t", "1", "-o", "/dev/null",
        "--wrap", "sleep 3",
    )  # fmt: skip


def test_a_hanging_job_is_disputed(training):
    training.under_way()
    with training.bed.frozen(training.store):
        (claim,) = training.store.glob("stages/*/*/claim")
        old = time.time() - 3600
        os.utime(claim, (old, old))
        said = training.run("status")
        assert "disputed" in said
        assert "silent for 36" in said
        assert "scancel" in said
        again = training.run("launch")
        assert "queued" not in again.splitlines()[-1]
    training.go_on()


def test_the_job_of_a_dead_node_goes_to_another_node(training):
    job, bed = training.under_way(), training.bed
    (node,) = bed.slurm("squeue", "--noheader", "--format=%N").split()
    bed.testbed("kill-node", node)
    assert "done" not in training.run("status").splitlines()[1]
    bed.wait(lambda: bed.jobs().get(job) in (None, "PENDING"))
    assert not training.results()
    bed.testbed("revive-node", node)
    training.go_on()


def test_a_stopped_job_saves_and_comes_back_whoever_stops_it_and_however_often(training):
    """Without a grace time a preempted job gets SIGTERM, with either setting of the site."""
    job, bed = training.under_way(), training.bed
    limit = ("scancel", "--signal=USR2", job)  # as SLURM sends it before a time limit
    admin = ("scontrol", "requeue", job)
    stops = [  # a command, or None for a preemption; partition; how the site warns of a preemption
        (limit, "main", "signal"),
        (limit, "main", "signal"),
        (limit, "main", "signal"),
        (None, "main", "signal"),
        (None, "grace", "signal"),
        (None, "grace", "term"),
        (admin, "main", "signal"),
    ]
    begun = past = len(training.failures())
    try:
        for stop, following in zip(stops, [*stops[1:], stops[0]], strict=True):
            command, _, warning = stop
            before = training.step()
            if command is None:
                preempt(bed)
            else:
                bed.slurm(*command)
            bed.wait(lambda: bed.jobs().get(job) != "RUNNING")
            assert not training.results()
            saved = training.step()
            assert saved >= before
            move = ("scontrol", "update", f"jobid={job}", f"partition={following[1]}")
            bed.wait(lambda move=move: bed.attempt(*move))  # refused while the job is ending
            if following[2] != warning:
                bed.testbed("preempt", following[2])
            bed.wait(lambda: set(bed.jobs()) == {job})
            bed.wait(lambda: bed.jobs().get(job) == "RUNNING")
            training.go_on()
            assert training.step() > saved
            found = training.failures()[past:]
            past += len(found)
            assert set(found) == {"preempted"}, stop
            assert command is None or len(found) == 1
    finally:
        bed.testbed("preempt", "signal")
    messages = training.failures("message")[begun:]
    assert messages.count(f"job {job} was stopped by SIGUSR2") > SUBMITIT_PASSES
    count = training.failures().count("preempted")
    assert f"{count} preempted" in training.run("status")


def test_a_job_that_is_stopped_while_a_node_is_slow_to_pass_a_signal_on_comes_back(training):
    """SLURM sends SIGCONT before SIGTERM; until the node answers, squeue says SIGNALING."""
    job, bed = training.under_way(), training.bed
    (node,) = bed.slurm("squeue", "--noheader", "--format=%N").split()
    (worker,) = bed.workers(training.store)
    os.kill(bed.daemon(node), signal.SIGSTOP)
    try:
        bed.slurm("scancel", "--signal=CONT", job)
        assert bed.jobs() == {job: "SIGNALING"}
        os.kill(worker, signal.SIGUSR2)
        bed.wait(lambda: not bed.workers(training.store))
    finally:
        os.kill(bed.daemon(node), signal.SIGCONT)
    training.go_on()
    assert set(bed.jobs()) == {job}
    assert training.failures()[-1] == "preempted"


def test_jobs_survive_a_controller_that_dies(training, tmp_path):
    training.under_way()
    bed, said, more = training.bed, tmp_path / "watch.txt", tmp_path / "launch.txt"
    with said.open("w") as file:
        words = training.args("watch=true")
        watch = bed.command("harness.status", *words, stdout=file, env=training.env())
    bed.wait(lambda: "1 RUNNING" in said.read_text())
    bed.save_state()
    bed.testbed("kill-controller")
    once = training.run("status")
    assert "note: SLURM does not answer" in once
    assert "grid long: 1 trials" in once  # what the store says
    cancel = training.run("cancel", code=2)
    assert "SLURM does not answer" in cancel
    with more.open("w") as file:
        launch = bed.command("harness.launch", *training.args(), stdout=file, env=training.env())
    bed.wait_for_text("trying again", more)
    bed.wait_for_text("SLURM does not answer", said)
    bed.start_controller()
    training.finish()
    assert len(training.results()) == 1
    assert watch.wait(300) == 0, said.read_text()
    assert launch.wait(300) == 0, more.read_text()
    assert "queued" not in more.read_text()


def test_a_job_starts_although_the_controller_does_not_answer_at_first(bed, make_sweep):
    """srun gives up after 10 s, the default of a site, too."""
    controller = bed.daemon("slurmctld")
    sweep = make_sweep(f"cluster.slurm.setup=['kill -STOP {controller}']")
    sweep.run("launch")
    try:
        bed.wait(lambda: any("did not start all tasks" in text for text in sweep.logs()))
    finally:
        os.kill(controller, signal.SIGCONT)
    bed.drain()
    assert len(sweep.results()) == 1
    assert not sweep.failures()


def test_a_job_of_two_nodes_starts_although_one_answers_late(bed, make_sweep, tmp_path):
    """A node refuses to start tasks with a credential that is older than `cred_expire`, 10 s."""
    node = bed.daemon("n2")
    once = f"mkdir {tmp_path / 'once'} && kill -STOP {node}"  # not after SLURM requeued the job
    setup = f"cluster.slurm.setup=['{once}','(sleep 12; kill -CONT {node}) &']"
    sweep = make_sweep(setup, "run.processes=2", "cluster.slurm.nodes=2")
    sweep.run("launch")
    bed.drain()
    assert len(sweep.results()) == 1, sweep.logs()
    assert not sweep.failures()


def test_a_signal_before_a_worker_listens_does_not_end_its_job(bed, make_sweep, tmp_path):
    """As at a preemption just after the start; SLURM requeues that job when its grace time ends."""
    waits, gate, python = (tmp_path / name for name in ("waits", "gate", "python"))
    lines = f"touch {waits}", f"until [ -e {gate} ]; do sleep 0.1; done", f'{sys.executable} "$@"'
    python.write_text("\n".join(["#!/bin/bash", *lines, ""]))
    python.chmod(0o700)
    sweep = make_sweep(f"cluster.slurm.python={python}")
    sweep.run("launch")
    bed.wait(waits.exists)
    (job,) = bed.jobs()
    bed.slurm("scancel", "--signal=USR2", job)
    gate.touch()
    bed.drain()
    assert len(sweep.results()) == 1, sweep.logs()


def test_a_real_time_limit_saves_requeues_and_goes_on(bed, make_sweep):
    """SLURM checks limits about every 30 s, and sends the signal up to a minute early."""
    words = ("cluster.timeout_min=1", "cluster.slurm.signal_seconds=20")
    sweep = make_sweep(*words, epochs=3000, family=FAMILY)
    bed.pace.set(1)
    sweep.run("launch")
    bed.wait(lambda: sweep.step() > 0)
    (job,) = bed.jobs()
    bed.wait(lambda: bed.jobs().get(job) == "PENDING")
    saved = sweep.step()
    assert sweep.failures() == ["time_limit"]
    assert saved > 0
    bed.wait(lambda: sweep.step() > saved)
    assert not sweep.results()
    sweep.run("cancel")


def test_out_of_host_memory_asks_for_more(bed, make_sweep):
    sweep = make_sweep("cluster.slurm.mem_gb=0.3", "cluster.slurm.max_mem_gb=2.4")
    asked = []
    for _ in range(5):
        sweep.run("launch")
        asked += bed.slurm("squeue", "--noheader", "--format=%m").split()
        bed.wait(lambda: not bed.jobs())
        if sweep.results():
            break
    assert sweep.results(), sweep.failures()
    assert set(sweep.failures()) <= {"host_memory", "lost"}
    assert asked == sorted(
        asked, key=lambda text: float(text.rstrip("MG")) * (1 + 1023 * ("G" in text))
    )
    assert len(set(asked)) > 1


def test_cancelled_elements_running_or_pending_are_queued_again(bed, make_sweep):
    sweep = make_sweep(seeds="0, 1, 2", epochs=LONG)
    sweep.run("launch", "cluster.workers=1")
    bed.wait(lambda: "RUNNING" in bed.jobs().values())
    jobs = bed.jobs()
    assert sorted(jobs.values()) == ["PENDING", "PENDING", "RUNNING"]  # the cap
    running = next(job for job, state in jobs.items() if state == "RUNNING")
    pending = next(job for job, state in jobs.items() if state == "PENDING")
    bed.slurm("scancel", running, pending)
    bed.wait(lambda: not {running, pending} & set(bed.jobs()))
    assert len(bed.jobs()) == 1
    assert "queued 2 jobs" in sweep.run("launch")
    bed.slurm("scancel", "--me")
    bed.wait(lambda: not bed.jobs())
    sweep.grid.write_text(sweep.grid.read_text().replace("seed: [0, 1, 2]", "seed: [0]"))
    sweep.finish()


def test_status_says_that_a_cancelled_stage_continues_from_its_last_step(bed, make_sweep):
    """Whether `cancel` or scancel ended its job, an element of an array or a single job."""
    sweep = make_sweep(seeds="0, 1", epochs=3000, family=FAMILY)
    bed.pace.set(0.5)
    sweep.run("launch")
    saved = "stages/*/*/checkpoint/step-*.pt"
    bed.wait(lambda: len({path.parent for path in sweep.store.glob(saved)}) == 2)
    jobs = set(bed.jobs())
    assert "cancelled 1 jobs" in sweep.run("cancel", "where=seed == 0")
    bed.wait(lambda: len(bed.jobs()) == 1)
    (second,) = bed.jobs()
    (first,) = jobs - {second}
    bed.slurm("scancel", second)
    bed.wait(lambda: not bed.jobs())
    status = sweep.run("status")
    assert f"tried before, job {first} was cancelled; continues from its last step" in status
    assert f"tried before, job {second} " in status
    assert status.count("; continues from its last step") == 2
    assert "before it began" not in status

    sweep.run("launch", "where=seed == 0")
    (single,) = bed.jobs()
    bed.wait(lambda: bed.workers(sweep.store))
    sweep.run("cancel")
    bed.wait(lambda: not bed.jobs())
    assert f"job {single} was cancelled; continues from its last step" in sweep.run("status")
