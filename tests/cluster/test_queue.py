"""What SLURM's queue says: foreign names, jobs that wait for ever, cancelled jobs, no answer."""

import json
import os
import re
import subprocess

import pytest
from pace import FAMILY, separate_registries

from analysis.table import main as table
from harness.cluster import slurm
from harness.cluster.job_registry import (
    GAVE_UP,
    query_scheduler,
    read_records,
    record_job_id,
    record_submission,
)
from harness.files import append_line, make_folder
from harness.store.records import read_lines
from harness.store.store import Store

HELD = "cluster.slurm.extra={begin: now+1hour}"


def answer(folder, command, text, code=0):
    """Write a command of SLURM that prints `text`, for sites that this machine is not."""
    folder.mkdir(exist_ok=True)
    (folder / "text").write_bytes(text)
    (folder / command).write_text(f"#!/bin/sh\ncat {folder}/text\nexit {code}\n")
    (folder / command).chmod(0o755)


def test_names_in_the_queue_may_be_any_bytes(tmp_path, monkeypatch):
    rows = (
        b"7|PENDING|JobHeldUser|N/A|entra\xeenement a|b\x0b\xc2\x85\n"
        b"8_1|RUNNING|None|2026-12-01T03:00:00|ours\n\n"
    )
    answer(tmp_path / "bin", "squeue", rows)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    jobs = slurm.queue()
    assert list(jobs) == ["7", "8_1"]
    assert (jobs["7"].state, jobs["7"].reason) == ("PENDING", "JobHeldUser")
    assert jobs["8_1"] == slurm.QueuedJob("RUNNING", "None", "ours", "2026-12-01T03:00:00")
    assert jobs["7"].start == ""
    assert jobs["7"].name.encode()  # can be printed


def test_a_finished_sweep_does_not_ask_a_controller_that_is_gone(tmp_path, monkeypatch, capsys):
    folder = str(tmp_path / "sweeps/g/logs/1/0")
    record = {"name": "g-1-0", "parts": [["a"], ["b"]], "folder": folder}
    (tmp_path / "sweeps/g").mkdir(parents=True)
    (tmp_path / "sweeps/g/jobs.jsonl").write_text(json.dumps(record) + "\n")
    answer(tmp_path / "bin", "squeue", b"", code=1)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert not query_scheduler(tmp_path, {"c"}).was_queried
    scheduler = query_scheduler(tmp_path, {"a"}, must_answer=False)
    assert "SLURM does not answer" in scheduler.problem
    assert "note: SLURM does not answer" in capsys.readouterr().err


def test_a_record_from_elsewhere_names_no_other_job_of_this_user(tmp_path):
    folder = str(make_folder(tmp_path / "sweeps/g/logs/1/0"))
    lines = [
        {"name": "g-1-0", "parts": [["a"]], "folder": folder},
        {"name": "g-1-0", "job": "7"},
        {"name": "thesis", "parts": [["a"]], "folder": folder},
        {"name": "thesis", "job": "8"},
        {"name": "thesis", "cancelled": ["8"]},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "sweeps/g/jobs.jsonl").write_text(text)
    assert [record["name"] for record in read_records(tmp_path)] == ["g-1-0", "g-1-0"]


def test_jobs_over_a_limit_of_single_jobs_do_not_hold_their_stages(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "sweeps/g/logs/1/0")
    name = record_submission(tmp_path / "sweeps/g", [["a"], ["b"]], folder)
    rows = "".join(
        f"7_{element}|PENDING|AssocMax{limit}Limit|N/A|{name}\n"
        for element, limit in enumerate(["CpuPerJob", "Jobs"])
    )
    answer(tmp_path / "bin", "squeue", rows.encode())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    scheduler = query_scheduler(tmp_path, {"a", "b"})
    assert (scheduler.stuck.keys(), scheduler.stages.keys()) == ({"a"}, {"b"})


def test_a_job_that_trained_a_stage_did_not_end_before_it_began(tmp_path, monkeypatch):
    """Its attempt tells it from a job that ended before, and from an earlier job of the stage."""
    folder = make_folder(tmp_path / "sweeps/g/logs/1/0")
    trained, earlier, never = "a" * 16, "b" * 16, "c" * 16
    name = record_submission(tmp_path / "sweeps/g", [[trained], [earlier, never]], folder)
    record_job_id(tmp_path / "sweeps/g", name, "7")
    store = Store(tmp_path)
    for stage, job in ((trained, "7_0"), (earlier, "6")):
        append_line(make_folder(store.folder(stage)) / "attempts.jsonl", {"job": job})
    answer(tmp_path / "bin", "squeue", b"")
    answer(tmp_path / "bin", "sacct", b"", code=1)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert query_scheduler(tmp_path, {trained, earlier, never}).ended == {
        trained: "job 7_0 stopped while it trained this",
        earlier: "job 7_1 ended before it began this: see harness.logs",
        never: "job 7_1 ended before it began this: see harness.logs",
    }


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("Priority", ""),
        ("JobHeldUser", "scontrol release 7"),
        ("AssocGrpCPUMinutesLimit", "a limit of your account"),
        ("QOSMaxJobsPerUserLimit", "a limit of the quality of service"),
        ("AssocMaxWallDurationPerJobLimit", "launch cancels it and queues another"),
        ("QOSMinGRES", "never starts: launch cancels it"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "nodes are down or reserved"),
        ("BadConstraints", "launch cancels it and queues another"),
        (
            "PartitionTimeLimit",
            "lower cluster.timeout_min, or choose another partition; such a job",
        ),
        ("launch failed requeued held", "launch releases it"),
        ("SomethingNew", "2 jobs wait, such as 7: SomethingNew"),
    ],
)
def test_reasons_for_which_jobs_wait_are_explained(reason, sentence):
    jobs = {job: slurm.QueuedJob("PENDING", reason, "n") for job in ("7", "8")}
    assert sentence in "".join(slurm.describe_waiting(jobs))
    assert bool(sentence) == bool(slurm.describe_waiting(jobs))


def test_the_first_expected_start_of_waiting_jobs_is_named():
    starts = ["2026-12-01T04:00:00", "2026-12-01T03:00:00", ""]
    jobs = {
        str(job): slurm.QueuedJob("PENDING", "Priority", "n", start)
        for job, start in enumerate(starts)
    }
    jobs["9"] = slurm.QueuedJob("RUNNING", "None", "n", "2026-12-01T02:00:00")
    sentence = "the next job is expected to start at 2026-12-01T03:00:00"
    assert slurm.describe_waiting(jobs) == [sentence]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_status_shows_how_far_each_stage_is_and_when_waiting_jobs_start(bed, make_sweep):
    sweep = make_sweep(seeds="0, 1", epochs=3000, family=FAMILY)
    bed.pace.set(0.1)
    sweep.run("launch", "where=seed == 0")
    sweep.run("launch", HELD)

    def has_ended_two_epochs():
        rows = [read_lines(path) for path in sweep.store.glob("stages/*/*/metrics.jsonl")]
        return any(len(row) > 1 for row in rows)

    with bed.frozen_when(sweep.store, has_ended_two_epochs):
        status = sweep.run("status", "trials=true")
        content = json.loads(sweep.run("status", "format=json"))
    pattern = r"epoch (\d+) of 3000 done, loss \d+\.\d{4}, \d+\.\d s an epoch"
    lines = [line for line in status.splitlines() if "sparsity 0.0" in line]
    first, second, stage = lines
    cell = "width 0.25, sparsity 0.0, magnitude none, seed"
    assert re.fullmatch(rf"  {cell} 0: running, 0 of 1 stages done; {pattern}", first)
    (waiting,) = [job for job in content["jobs"] if job["state"] == "PENDING"]
    why = f"job {waiting['job']} PENDING (BeginTime)"
    assert second == f"  {cell} 1: queued, 0 of 1 stages done; {why}"
    (running,) = content["running"]
    assert re.fullmatch(rf"  {running['stage']} \({cell} 0\): {pattern}", stage)
    assert running["epoch"] == int(re.search(pattern, first)[1]) >= 2
    assert (running["epochs"], running["trial"]) == (3000, content["trials"][0]["trial"])
    assert running["seconds_per_epoch"] >= 8 * 0.1
    assert f"the next job is expected to start at {waiting['start']}" in status


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_held_and_cancelled_jobs_are_named_and_those_that_never_start_replaced(bed, make_sweep):
    sweep = make_sweep(seeds="0, 1")
    foreign = ("sbatch", "--hold", "-J", b"entra\xeenement", "-o", "/dev/null", "--wrap", "false")
    subprocess.run(foreign, env=bed.env, check=True, capture_output=True, timeout=300)
    (other,) = bed.jobs()
    assert "queued 2 jobs" in sweep.run("launch", "cluster.slurm.extra={hold: true}")
    (first, second) = (job for job in bed.jobs() if job != other)
    said = sweep.run("status")
    assert f"2 jobs wait, such as {first}: JobHeldUser" in said
    again = sweep.run("launch")
    assert "nothing to add" in again
    assert f"scontrol release {first}" in again

    bed.slurm("scontrol", "release", other)  # it fails
    bed.wait(lambda: other not in bed.jobs())
    for job in (first, second):
        bed.slurm("scontrol", "update", f"jobid={job}", f"Dependency=afterok:{other}")
        bed.attempt("scontrol", "release", job)
    reasons = ("squeue", "--noheader", "--array", "--format=%r")
    bed.wait(lambda: set(bed.slurm(*reasons).split()) == {"DependencyNeverSatisfied"})
    assert f"job {first} can never start" in sweep.run("status")
    replaced = sweep.run("launch", HELD)
    assert "queued 2 jobs" in replaced
    assert "cancelled 2 jobs that could never start" in replaced
    bed.wait(lambda: not {first, second} & set(bed.jobs()))
    assert len(bed.jobs()) == 2

    assert "cancelled 1 jobs" in sweep.run("cancel", "where=seed == 0")
    bed.wait(lambda: len(bed.jobs()) == 1)
    assert "1 x waiting: tried before, job" in sweep.run("status")
    assert "was cancelled" in sweep.run("status")
    sweep.run("launch", HELD)
    (single,) = (job for job in bed.jobs() if "_" not in job)
    bed.slurm("scancel", "--me")  # by hand: accounting knows of it, but for elements of arrays
    bed.wait(lambda: not bed.jobs())
    bed.wait(lambda: f"job {single} was cancelled" in sweep.run("status"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_without_a_controller_the_store_still_tells_what_it_has(bed, make_grid, make_sweep, capsys):
    sweep = make_sweep(seeds="0, 1", epochs=1)
    sweep.run("launch", "where=seed == 0")
    bed.drain()
    assert len(sweep.results()) == 1, sweep.failures("message")
    sweep.run("launch", HELD)
    bed.save_state()
    bed.testbed("kill-controller")
    try:
        said = sweep.run("status")
        assert "note: SLURM does not answer" in said
        assert "stages: 1 of 2 done" in said
        assert "SLURM does not answer" in sweep.run("cancel", code=2)
        sweep.run("logs")
        sweep.grid = make_grid("finished", seeds="0", epochs=1)  # needs no answer
        assert "note: SLURM" not in sweep.run("status")
        assert "nothing left to do" in sweep.run("launch")
        with separate_registries():
            table(list(sweep.args()[:2]))
        output = capsys.readouterr()
        assert "note: SLURM" not in output.out + output.err
    finally:
        bed.start_controller()
    assert Store(sweep.store).ids()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_jobs_of_a_submission_that_gave_up_keep_no_stage_from_being_queued(
    bed, make_grid, tmp_path
):
    grid, store = make_grid(seeds="0, 1"), tmp_path / "store"
    bed.run("harness.launch", f"grid={grid}", f"store={store}", "cluster=testbed", HELD)
    (submission,) = store.glob("sweeps/*/logs/*/*/submission.json")
    (submission.parent / GAVE_UP).write_text("3 stages failed and none is done")
    assert "queued 2 jobs" in bed.run(
        "harness.launch", f"grid={grid}", f"store={store}", "cluster=testbed", HELD
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_variables_of_the_users_shell_do_not_hide_jobs_from_the_next_launch(
    bed, make_grid, tmp_path
):
    grid, store = make_grid(), tmp_path / "store"
    shell = {"SQUEUE_STATES": "RUNNING", "SBATCH_JOB_NAME": "mine", "SBATCH_PARTITION": "nowhere"}
    words = f"grid={grid}", f"store={store}", "cluster=testbed", HELD
    env = {**bed.env, **shell}
    bed.run("harness.launch", *words, env=env)
    assert "nothing to add" in bed.run("harness.launch", *words, env=env)
    assert len(bed.jobs()) == 1
