"""Every fault that SLURM can deal a job, on a real one: what the next look, or launch, makes of it.

Each test trains for real and ends with the sweep complete.
"""

import json
import os
import signal
import time

import pytest

from harness.store.claims import look
from harness.store.files import read_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LONG = {"epochs": 60}
LONGER = {"epochs": 200}  # outlasts waits for the scheduler


def args(grid, store, *more):
    return f"grid={grid}", f"store={store}", "cluster=testbed", *more


def results(store):
    return sorted(store.glob("stages/*/*/result.json"))


def step(store):
    names = [path.name for path in store.glob("stages/*/*/checkpoint/step-*.pt")]
    return max((int(name[5:13]) for name in names), default=0)


def failures(store):
    """Classes of all failures of the sweep's stages, oldest first."""
    found = [json.loads(path.read_text()) for path in store.glob("stages/*/*/failures/*.json")]
    return [record["class"] for record in sorted(found, key=lambda record: record["time"])]


@pytest.fixture
def training(bed, make_grid, tmp_path):
    """A long stage that has just begun to train and save, in partition `main` or another."""

    def start(*more, **grid):
        path = make_grid(**(LONG | grid))
        store = tmp_path / "store"
        bed.run("harness.launch", *args(path, store, *more))
        bed.wait(lambda: step(store) > 0)
        (job,) = bed.jobs()
        return path, store, job

    return start


def until(words, file, seconds=120.0):
    """Wait until a command has said something."""
    end = time.monotonic() + seconds
    while words not in file.read_text():
        assert time.monotonic() < end, file.read_text()
        time.sleep(0.1)


def finish(bed, grid, store, *more):
    """Wait for SLURM; launch again until nothing is left."""
    for _ in range(4):
        bed.drain()
        if "nothing left to do" in bed.run("harness.launch", *args(grid, store, *more)):
            return
    pytest.fail(f"something is left to do: {failures(store)}")


def test_the_signal_before_a_time_limit_saves_and_requeues(bed, training):
    grid, store, job = training(epochs=120)
    before = step(store)
    for _ in range(4):  # more than submitit lets pass, left to itself
        bed.slurm("scancel", "--signal=USR2", job)
        bed.wait(lambda: bed.jobs().get(job) == "PENDING")
        assert not results(store)
        resumed = step(store)
        bed.wait(lambda resumed=resumed: step(store) > resumed)
        assert bed.jobs().get(job) == "RUNNING"
    assert step(store) > before
    bed.drain()
    assert len(results(store)) == 1
    assert failures(store) == ["preempted"] * 4
    said = bed.run("harness.status", *args(grid, store))
    assert "so far: 4 preempted" in said


def test_a_real_time_limit_saves_requeues_and_goes_on(bed, training):
    """SLURM looks at limits every 30 s or so, and gives the signal up to a minute early."""
    grid, store, job = training(
        "cluster.timeout_min=1", "cluster.slurm.signal_seconds=20", epochs=3000
    )
    with bed.slowed(store):
        bed.wait(lambda: bed.jobs().get(job) == "PENDING", 240)
    saved = step(store)
    assert failures(store) == ["time_limit"]
    assert saved > 0
    bed.wait(lambda: step(store) > saved, 240)
    assert not results(store)
    bed.run("harness.cancel", *args(grid, store))


@pytest.fixture(params=["signal", "term"])
def warning(request, bed):
    """What a site sends to jobs that it preempts."""
    bed.testbed("preempt", request.param)
    yield
    bed.testbed("preempt", "signal")


@pytest.mark.parametrize("partition", ["main", "grace"])
def test_a_preempted_job_saves_and_comes_back(bed, warning, training, partition):
    _, store, job = training(f"cluster.slurm.partition={partition}", **LONGER)
    bed.slurm(
        "sbatch", "-p", "high", "-N", "2", "--exclusive", "-t", "1", "-o", "/dev/null",
        "--wrap", "sleep 3",
    )  # fmt: skip
    bed.wait(lambda: bed.jobs().get(job) != "RUNNING")
    assert not results(store)
    before = step(store)
    bed.wait(lambda: bed.jobs().get(job) == "RUNNING")
    bed.wait(lambda: step(store) > before)
    assert not results(store)
    bed.drain()
    assert len(results(store)) == 1
    assert set(failures(store)) == {"preempted"}


def test_an_admin_may_requeue(bed, training):
    grid, store, job = training()
    bed.slurm("scontrol", "requeue", job)
    bed.wait(lambda: bed.jobs().get(job) != "RUNNING")
    assert not results(store)
    finish(bed, grid, store)
    assert failures(store).count("preempted") == 1


@pytest.mark.parametrize("requeue", ["true", "false"])
def test_a_dead_node_gives_its_job_to_another(bed, training, requeue):
    grid, store, job = training(f"cluster.slurm.requeue={requeue}")
    (node,) = bed.slurm("squeue", "--noheader", "--format=%N").split()
    bed.testbed("kill-node", node)
    status = bed.run("harness.status", *args(grid, store))
    assert "done" not in status.splitlines()[1]
    bed.wait(lambda: bed.jobs().get(job) in (None, "PENDING"))
    assert not results(store)
    bed.testbed("revive-node", node)
    finish(bed, grid, store, f"cluster.slurm.requeue={requeue}")
    assert len(results(store)) == 1


def test_one_rank_of_two_killed_ends_the_other_and_the_job_starts_afresh(bed, training):
    grid, store, job = training("run.processes=2")
    bed.wait(lambda: len(bed.workers(store)) >= 2)
    os.kill(bed.workers(store)[-1], signal.SIGKILL)
    bed.wait(lambda: bed.jobs().get(job) != "RUNNING")  # not idle to its time limit
    assert not results(store)
    finish(bed, grid, store, "run.processes=2")
    assert set(failures(store)) <= {"transport", "lost", "preempted"}
    assert len(results(store)) == 1
    (attempts,) = store.glob("stages/*/*/attempts.jsonl")
    assert len(read_lines(attempts)) > 1
    scripts = list(store.glob("sweeps/*/logs/*/*/*_submission.sh"))
    assert scripts
    assert all("--kill-on-bad-exit=1" in script.read_text() for script in scripts)


def test_out_of_host_memory_asks_for_more(bed, make_grid, tmp_path):
    grid, store = make_grid(), tmp_path / "store"
    small = ("cluster.slurm.mem_gb=0.3", "cluster.slurm.max_mem_gb=2.4")
    asked = []
    for _ in range(5):
        bed.run("harness.launch", *args(grid, store, *small))
        asked += bed.slurm("squeue", "--noheader", "--format=%m").split()
        bed.wait(lambda: not bed.jobs())
        if results(store):
            break
    assert results(store), failures(store)
    assert set(failures(store)) <= {"host_memory", "lost"}
    assert asked == sorted(
        asked, key=lambda text: float(text.rstrip("MG")) * (1 + 1023 * ("G" in text))
    )
    assert len(set(asked)) > 1


def test_a_controller_that_dies_takes_nothing_along(bed, training, tmp_path):
    grid, store, _ = training(**LONGER)
    said = tmp_path / "watch.txt"
    with said.open("w") as file:
        watch = bed.command("harness.status", *args(grid, store, "watch=true"), stdout=file)
    bed.wait(lambda: "1 RUNNING" in said.read_text())
    time.sleep(8)  # the controller saves its state every few seconds
    bed.testbed("kill-controller")
    once = bed.run("harness.status", *args(grid, store), code=2)
    assert "SLURM does not answer" in once
    assert "Traceback" not in once
    cancel = bed.run("harness.cancel", *args(grid, store), code=2)
    assert "SLURM does not answer" in cancel
    more = tmp_path / "launch.txt"
    with more.open("w") as file:
        launch = bed.command("harness.launch", *args(grid, store), stdout=file)
    until("trying again", more)
    until("SLURM does not answer", said)
    bed.testbed("start-controller")
    finish(bed, grid, store)
    assert len(results(store)) == 1
    assert watch.wait(120) == 0, said.read_text()
    assert launch.wait(120) == 0, more.read_text()
    assert "queued" not in more.read_text()


def test_a_job_that_the_controller_forgot_is_queued_again(bed, make_grid, tmp_path):
    """Killed before it saved its state, it gives the job's id to the next one."""
    grid, store = make_grid(**LONG), tmp_path / "store"
    bed.run("harness.launch", *args(grid, store))
    bed.testbed("kill-controller")
    bed.testbed("start-controller")

    def done():
        time.sleep(5)
        bed.testbed("up")  # an admin's part: a node whose job was forgotten is drained
        return "nothing left to do" in bed.run("harness.launch", *args(grid, store))

    bed.wait(done, 400)  # a job that is started twice is held for ever: launch releases it
    (log,) = [p for p in store.glob("sweeps/*/logs/*/*/*_log.out") if "\nfinished" in p.read_text()]
    assert log.read_text().count("\nfinished") == len(results(store)) == 1


def test_a_submission_waits_for_the_controller_and_leaves_nothing_behind(bed, make_grid, tmp_path):
    grid, store = make_grid(), tmp_path / "store"
    bed.testbed("kill-controller")
    said = tmp_path / "launch.txt"
    with said.open("w") as file:
        process = bed.command("harness.launch", *args(grid, store), stdout=file)
    until("trying again", said)
    bed.testbed("start-controller")
    assert process.wait(240) == 0, said.read_text()
    (submission,) = store.glob("sweeps/*/logs/*/*/submission.json")
    assert len(list(submission.parent.glob("*.pkl"))) == 1
    finish(bed, grid, store)


def test_a_controller_that_stays_away_ends_the_launch_in_a_sentence(
    bed, make_grid, tmp_path, monkeypatch
):
    from harness.cluster import slurm
    from harness.errors import UserError
    from harness.launch import main

    grid, store = make_grid(), tmp_path / "store"
    monkeypatch.setenv("SLURM_CONF", bed.env["SLURM_CONF"])
    monkeypatch.setattr(slurm, "DOWN_SECONDS", 0.0)
    bed.testbed("kill-controller")
    try:
        with pytest.raises(UserError, match=r"did not answer for 0 s .*launch again"):
            main(list(args(grid, store)))
        assert not list(store.glob("sweeps/*/logs/*/*"))
    finally:
        bed.testbed("start-controller")
    bed.drain()  # a job of before, which ended after the controller had last saved its state
    assert not list(store.glob("stages/*/*"))


def test_cancelled_elements_running_or_pending_are_queued_again(bed, make_grid, tmp_path):
    grid, store = make_grid(seeds="0, 1, 2, 3", **LONG), tmp_path / "store"
    bed.run("harness.launch", *args(grid, store, "cluster.workers=2"))
    bed.wait(lambda: list(bed.jobs().values()).count("RUNNING") == 2)
    assert list(bed.jobs().values()).count("PENDING") == 2  # the cap
    jobs = bed.jobs()
    running = next(job for job, state in jobs.items() if state == "RUNNING")
    pending = next(job for job, state in jobs.items() if state == "PENDING")
    bed.slurm("scancel", running, pending)
    bed.wait(lambda: not {running, pending} & set(bed.jobs()))
    assert len(bed.jobs()) == 2
    said = bed.run("harness.launch", *args(grid, store))
    assert "queued 2 jobs" in said
    bed.slurm("scancel", "--me")
    bed.wait(lambda: not bed.jobs())
    grid.write_text(grid.read_text().replace("seed: [0, 1, 2, 3]", "seed: [0]"))
    finish(bed, grid, store)


def test_where_requeueing_is_forbidden_a_stopped_job_submits_its_successor(bed, training):
    """With two ranks: the other stays until the first, whom its exit would end, has done it."""
    more = ("cluster.slurm.requeue=false", "run.processes=2")
    grid, store, job = training(*more)
    bed.slurm("scancel", "--signal=USR2", job)
    bed.wait(lambda: set(bed.jobs()) - {job})
    assert not results(store)
    bed.drain()
    assert len(results(store)) == 1
    assert "nothing left to do" in bed.run("harness.launch", *args(grid, store, *more))


def test_without_requeueing_a_stopped_job_takes_the_rest_of_its_chain_along(
    bed, make_grid, tmp_path
):
    store = tmp_path / "store"
    bed.run("harness.launch", f"grid={make_grid('chain', **LONG)}", f"store={store}", seconds=600)
    (done,) = results(store)
    result = json.loads(done.read_text())
    result["timing"]["gpu_seconds"] = 1500.0  # so that a dense stage fills a job of its own
    done.write_text(json.dumps(result))
    grid = make_grid("chain", level_epochs=1, sparsity="0.5", seeds="0, 1, 2", **LONG)
    words = args(grid, store, "cluster.slurm.requeue=false", "cluster.timeout_min=40")
    assert "queued 5 jobs" in bed.run("harness.launch", *words)
    before = bed.jobs()
    long = min(before, key=lambda job: [int(part) for part in job.split("_")])  # they come first

    def saved():
        folders = [path.parent for path in store.glob("stages/*/*/claim")]
        seen = [(folder, look(folder)) for folder in folders]
        mine = [folder for folder, claim in seen if claim is not None and claim.job == long]
        return any(list(folder.glob("checkpoint/step-*.pt")) for folder in mine)

    bed.wait(saved)
    bed.slurm("scancel", "--signal=USR2", long)
    bed.wait(lambda: long not in bed.jobs())
    bed.wait(lambda: len(set(bed.jobs()) - set(before)) == 2)  # a successor, what waits for it
    bed.drain()
    assert len(results(store)) == 6, failures(store)  # no launch was needed
    written = [
        json.loads(path.read_text()) for path in store.glob("sweeps/*/logs/*/*/submission.json")
    ]
    queued = [submission["attempts"] for submission in written if submission["snapshot"]]
    assert sorted(queued) == [0, 0, 0, 1]


def test_of_two_ranks_that_fail_one_submits_the_successor(bed, training):
    more = ("run.processes=2", "cluster.slurm.requeue=false")
    grid, store, job = training(*more)
    bed.wait(lambda: len(bed.workers(store)) >= 2)
    os.kill(bed.workers(store)[-1], signal.SIGKILL)
    bed.wait(lambda: job not in bed.jobs())
    assert len(bed.jobs()) <= 1
    finish(bed, grid, store, *more)
    assert len(results(store)) == 1


def test_a_hanging_job_is_disputed_not_believed(bed, training):
    grid, store, _ = training()
    bed.wait(lambda: bed.workers(store))
    frozen = bed.workers(store)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        (claim,) = store.glob("stages/*/*/claim")
        old = time.time() - 3600
        os.utime(claim, (old, old))
        said = bed.run("harness.status", *args(grid, store))
        assert "disputed" in said
        assert "silent for 36" in said
        assert "scancel" in said
        again = bed.run("harness.launch", *args(grid, store))
        assert "queued" not in again.splitlines()[-1]
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    finish(bed, grid, store)
