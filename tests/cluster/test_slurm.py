"""Submission to a real SLURM: arrays, limits, profiles, shared stages, snapshots, verbs."""

import json
import re
import resource
import shutil
from pathlib import Path

import pytest
from pace import FAMILY

from harness.cluster.job_registry import GAVE_UP
from harness.store.records import read_lines

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
HELD = "cluster.slurm.extra={begin: now+1hour}"


def args(grid, store, *more):
    return f"grid={grid}", f"store={store}", "cluster=testbed", *more


def seeds(count):
    return ", ".join(map(str, range(count)))


def stage_parts(store):
    lines = [line for path in store.glob("sweeps/*/jobs.jsonl") for line in read_lines(path)]
    return [part for line in lines for part in line.get("parts", [])]


def newest(store):
    """Return the last step that is saved."""
    return max(int(path.name[5:13]) for path in store.glob("stages/*/*/checkpoint/step-*.pt"))


def test_a_thousand_stages_are_queued_and_shown_with_little_work(bed, make_grid, tmp_path):
    """Measured in CPU seconds of the command and its children: other processes do not count."""
    grid, store = make_grid(seeds=seeds(1000)), tmp_path / "store"
    spent = []
    for verb, more in (("launch", [HELD]), ("status", [])):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = bed.run(f"harness.{verb}", *args(grid, store, *more), seconds=240)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert "1,000" in said
    launch, status = spent  # 2.4 and 1.8 s with eight times as many processes as cores
    assert launch < 10
    assert status < 3, f"{status:.1f} s; to be under 2 on an idle machine"


def test_many_stages_are_split_at_the_sites_limit_and_queued_once(bed, make_grid, tmp_path):
    grid, store = make_grid(seeds=seeds(3000)), tmp_path / "store"
    said = bed.run("harness.launch", *args(grid, store, HELD))
    assert "queued 3,000 jobs" in said
    jobs = bed.jobs()
    assert len(jobs) == 3000
    assert len({job.partition("_")[0] for job in jobs}) == 2  # MaxArraySize is 2001
    status = bed.run("harness.status", *args(grid, store))
    assert "jobs: 3,000 PENDING" in status
    again = bed.run("harness.launch", *args(grid, store, HELD))
    assert "nothing to add" in again
    assert len(bed.jobs()) == 3000
    parts = stage_parts(store)
    assert len(parts) == len({stage for part in parts for stage in part}) == 3000
    planned = [line["stages"] for line in read_lines(store / "sweeps/tiny/trials.jsonl")]
    assert parts != planned  # in random order
    assert sorted(parts) == sorted(planned)
    cancelled = bed.run("harness.cancel", *args(grid, store, "where=seed >= 10"))
    assert "cancelled 2,990 jobs" in cancelled
    bed.wait(lambda: len(bed.jobs()) == 10)
    listed = json.loads(bed.run("harness.status", *args(grid, store, "format=json")))
    states = {trial["seed"]: trial["state"] for trial in listed["trials"]}
    assert {seed for seed, state in states.items() if state == "queued"} == set(range(10))


def test_limits_on_submitted_jobs_leave_the_rest_for_later(bed, make_grid, tmp_path):
    grid, store = make_grid(seeds=seeds(10)), tmp_path / "store"
    account = ("cluster.slurm.account=few",)
    user = bed.slurm("id", "-un").strip()
    bed.slurm("sacctmgr", "-i", "add", "account", "few")
    bed.slurm("sacctmgr", "-i", "add", "user", user, "account=few", "MaxSubmitJobs=4")
    bed.testbed("enforce", "limits")
    try:
        said = bed.run("harness.launch", *args(grid, store, HELD, *account))
        assert "SLURM refused jobs for 6 stages" in said
        assert len(bed.jobs()) == 4
        modify = ("sacctmgr", "-i", "modify")
        bed.slurm(*modify, "user", user, "where", "account=few", "set", "MaxSubmitJobs=-1")
        bed.slurm(*modify, "account", "few", "set", "GrpSubmitJobs=4")  # the same for all its users
        bed.slurm("scancel", *list(bed.jobs())[:2])
        bed.wait(lambda: len(bed.jobs()) == 2)
        said = bed.run("harness.launch", *args(grid, store, HELD, *account))
        assert "queued 2 jobs" in said
        assert "SLURM refused jobs for 6 stages" in said
    finally:
        bed.slurm("scancel", "--me")
        bed.testbed("enforce", "none")


def test_two_sweeps_that_share_stages_train_each_once(bed, make_grid, tmp_path):
    store = tmp_path / "a 'quoted' store"
    first = make_grid("first", sparsity="0.5", seeds="0, 1")
    second = make_grid("second", sparsity="0.5, 0.75", seeds="0, 1")
    both = [bed.command("harness.launch", *args(grid, store)) for grid in (first, second)]
    for process in both:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    for _ in range(3):
        bed.drain()
        said = [bed.run("harness.launch", *args(grid, store)) for grid in (first, second)]
        if all("nothing left to do" in text for text in said):
            break
    logs = [path.read_text() for path in store.glob("sweeps/*/logs/*/*/*_log.out")]
    lines = [line for text in logs for line in text.splitlines() if line.startswith("finished")]
    assert len(lines) == len(set(lines)) == len(list(store.glob("stages/*/*/result.json"))) == 6


def test_a_queued_job_runs_the_code_it_was_submitted_with(bed, make_grid, tmp_path):
    checkout = tmp_path / "checkout"
    for room in ("harness", "grids", "slurm"):
        shutil.copytree(ROOT / room, checkout / room)
    grid, store = make_grid(epochs=40), tmp_path / "store"
    bed.run("harness.launch", *args(grid, store, HELD), cwd=checkout)
    (snapshot,) = store.glob("sweeps/*/logs/*/code/snapshot.json")
    version = json.loads(snapshot.read_text())["code"]
    (checkout / "harness" / "cluster" / "worker.py").write_text("raise SystemExit(1)\n")
    (checkout / "logging.py").write_text("raise SystemExit(1)\n")  # where the job starts
    (job,) = bed.jobs()
    bed.slurm("scontrol", "update", f"jobid={job}", "StartTime=now")
    with bed.frozen_when(store, lambda: list(store.glob("stages/*/*/checkpoint/step-*"))):
        bed.slurm("scancel", "--signal=USR2", job)  # requeued, it runs the same code
    bed.wait(lambda: bed.jobs().get(job) == "PENDING")
    bed.drain()
    assert len(list(store.glob("stages/*/*/result.json"))) == 1
    (provenance,) = store.glob("stages/*/*/provenance.json")
    assert {r["code"] for r in json.loads(provenance.read_text())["records"]} == {version}


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("cluster.slurm.partition=nowhere", "invalid partition"),
        (
            "cluster.gpus_per_node=3 run.processes=3 recipe.batch_size=48",
            "Requested node configuration is not",
        ),
        (
            "cluster.gpus_per_node=1 cluster.slurm.gpu_type=other",
            "Requested node configuration is not",
        ),
        ("cluster.slurm.gpu_type='a 100'", "should match pattern"),
        ("cluster.gpus_per_node=1 cluster.slurm.extra={gres:'gpu:1'}", "ask for GPUs once"),
        ("cluster.slurm.extra={gpus-per-node:1}", "set cluster.gpus_per_node"),
        ("cluster.gpus_per_node=2", "set run.processes=2 or cluster.gpus_per_node=1"),
        ("cluster.timeout_min=1 cluster.slurm.signal_seconds=60", "jobs would only ever save"),
        ("cluster.slurm.extra={clusters: other}", "set by the harness itself"),
        ("cluster.slurm.extra={export-file: x}", "set by the harness itself"),
        ("cluster.slurm.qos='a b'", "should match pattern"),
        ("cluster.slurm.extra={comment: 'a b'}", "1 mistake"),
        ("cluster.slurm.setup=['true\n#SBATCH --x']", "should match pattern"),
        ("cluster.slurm.python='python\nrm'", "should match pattern"),
        ("cluster.slurm={extra: {hold: true}, cpus_per_task: 99}", "(PartitionConfig)"),
        ("cluster.slurm.mem_gb=4000", "Memory specification can not be satisfied"),
        ("cluster.slurm.partition=short", "cluster.timeout_min is 60 (Partition"),
        (
            "cluster.slurm.partition=short cluster.timeout_min=5 cluster.slurm.mem_gb=6",
            "cluster.slurm.mem_gb is 6",
        ),
        ("cluster.slurm.extra={reservation: night}", "Requested reservation is invalid"),
        ("cluster.timeout_min=0", "greater than 0"),
        ("cluster.timeout_min=soon", "valid integer"),
        ("cluster.slurm.account='a b'", "should match pattern"),
        ("cluster.slurm.constraint='a;rm'", "should match pattern"),
        ("cluster.slurm.partition='main\\n#SBATCH --x'", "should match pattern"),
        (f"cluster.slurm.qos={'q' * 201}", "at most 200 characters"),
        (f"cluster.slurm.extra={{{'o' * 42}: 1}}", "at most 41 characters"),
        (f"cluster.slurm.setup=['{'s' * 2001}']", "at most 2000 characters"),
        ("cluster.slurm.extra={array: 1-9}", "set by the harness itself"),
        ("cluster.slurm.extra={arr: 1-9}", "set by the harness itself"),
        ("cluster.slurm.extra={wait: true}", "set by the harness itself"),
        ("cluster.slurm.extra={no-such-option: 1}", "unrecognized option"),
        ("cluster.slurm.nodes=2", "make it a multiple"),
        ("cluster.resources=[{where: 'size > 1'}]", "uses the unknown name 'size'"),
    ],
)
def test_a_bad_profile_is_refused_before_anything_is_queued(
    bed, make_grid, tmp_path, word, sentence
):
    grid, store = make_grid(seeds=seeds(3)), tmp_path / "store"
    words = word.split() if word.count("=") > 1 else [word]
    said = bed.run("harness.launch", *args(grid, store, *words), code=2)
    assert sentence in said
    assert "Traceback" not in said
    assert not bed.jobs()
    assert not store.exists()


def test_a_job_within_the_limits_of_one_of_its_partitions_is_queued(bed, make_grid, tmp_path):
    grid, store = make_grid(), tmp_path / "store"
    both = ("cluster.slurm.partition='short,main'", HELD)
    assert "queued 1 jobs" in bed.run("harness.launch", *args(grid, store, *both))
    bed.run("harness.cancel", *args(grid, store))
    bed.wait(lambda: not bed.jobs())
    short = ("cluster.slurm.partition=short", "cluster.timeout_min=10", HELD)
    assert "queued 1 jobs" in bed.run("harness.launch", *args(grid, store, *short))


def test_jobs_ask_for_gpus_of_a_type_where_arrays_are_switched_off(bed, make_grid, tmp_path):
    grid, store = make_grid(seeds="0, 1"), tmp_path / "store"
    bed.testbed("arrays", "off")
    try:
        gpus = ("cluster.gpus_per_node=1", "cluster.slurm.gpu_type=fake")
        dry = bed.run("harness.launch", *args(grid, store, HELD, *gpus, "dry_run=true"))
        assert "queued 2 jobs" in bed.run("harness.launch", *args(grid, store, HELD, *gpus))
        assert len(bed.jobs()) == 2
        (line,) = [line for line in dry.splitlines() if " x sbatch " in line]
        scripts = list(store.glob("sweeps/*/logs/*/*/*_submission.sh"))
        assert scripts
        for script in scripts:
            text = script.read_text()
            options = re.findall("^#SBATCH --([a-z-]+)", text, re.MULTILINE)
            assert len(options) == len(set(options))
            for option in line.split(" --")[1:]:
                assert f"\n#SBATCH --{option}\n" in text
        assert "--gpus-per-node=fake:1" in line
        assert "--begin=now+1hour" in line
        assert not any("_" in job for job in bed.jobs())
        details = bed.slurm("squeue", "--noheader", "--format=%b")
        assert details.split() == ["gres:gpu:fake:1"] * 2
    finally:
        bed.slurm("scancel", "--me")
        bed.testbed("arrays", "on")


def test_everything_works_without_accounting_and_without_scontrol(bed, make_grid, tmp_path):
    grid, store = make_grid(epochs=3000, family=FAMILY), tmp_path / "store"
    bed.pace.set(0.5)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel", "sh", "bash", "env"):
        (tools / name).symlink_to(shutil.which(name))
    poor = bed.pace.environment({**bed.env, "PATH": str(tools)})
    bed.testbed("accounting", "off")
    try:
        bed.run("harness.launch", *args(grid, store), env=poor)
        bed.wait(lambda: list(store.glob("stages/*/*/checkpoint/step-*")))
        said = bed.run("harness.status", *args(grid, store), env=poor)
        assert "1 RUNNING; elapsed -" in said
        assert "nothing to add" in bed.run("harness.launch", *args(grid, store), env=poor)
        assert "begin" in bed.run("harness.logs", *args(grid, store), env=poor)
        doctor = bed.run("harness.doctor", *args(grid, store), env=poor)
        assert "scontrol: not installed: a stopped job submits its successor" in doctor
        assert "sacct does not answer: status shows no elapsed hours" in doctor
        (job,) = bed.jobs()
        bed.slurm("scancel", "--signal=USR2", job)  # without scontrol it cannot requeue itself
        bed.wait(lambda: set(bed.jobs()) - {job})
        saved = newest(store)
        bed.wait(lambda: newest(store) > saved)
        bed.run("harness.cancel", *args(grid, store), env=poor)
        bed.wait(lambda: not bed.jobs())
    finally:
        bed.testbed("accounting", "on")


def test_deepspeed_over_two_nodes_with_two_ranks_each(bed, make_grid, tmp_path):
    grid, store = make_grid(epochs=1), tmp_path / "store"
    wide = (
        "cluster.slurm.nodes=2", "run.processes=4", "cluster.gpus_per_node=2",
        "run.engine=deepspeed", "run.device=cpu",
    )  # fmt: skip
    bed.run("harness.launch", *args(grid, store, *wide))
    bed.drain()
    logs = "\n".join(path.read_text() for path in store.glob("sweeps/*/logs/*/*/*.out"))
    assert len(list(store.glob("stages/*/*/result.json"))) == 1, logs[-4000:]
    (provenance,) = store.glob("stages/*/*/provenance.json")
    (record,) = json.loads(provenance.read_text())["records"]
    assert (record["world_size"], record["engine"], record["zero_stage"]) == (4, "deepspeed", 0)


def test_the_commands_show_follow_and_stop_a_sweep(bed, make_grid, tmp_path):
    grid, store = make_grid(seeds="0, 1"), tmp_path / "store"
    assert "there are no logs yet" in bed.run("harness.logs", *args(grid, store))
    bed.run("harness.launch", *args(grid, store, HELD))
    said = tmp_path / "watch.txt"
    with said.open("w") as file:
        watch = bed.command("harness.status", *args(grid, store, "watch=true"), stdout=file)
    follow = bed.command("harness.logs", *args(grid, store, "follow=true", "where=seed == 0"))
    bed.wait_for_text("grid tiny: 2 trials", said)
    for job in bed.jobs():
        bed.slurm("scontrol", "update", f"jobid={job}", "StartTime=now")
    bed.drain()
    assert watch.wait(300) == 0
    watched = said.read_text()
    followed, _ = follow.communicate(timeout=300)
    assert watched.count("grid tiny: 2 trials") > 1
    assert "elapsed 0.0" in watched
    assert followed.count("\nfinished ") == 1
    assert bed.run("harness.doctor", *args(grid, store)).endswith("nothing stands in the way\n")
    bad = bed.run("harness.doctor", *args(grid, store, "cluster.slurm.partition=nope"), code=1)
    assert "invalid partition" in bad
    rule = "cluster.resources=[{where: 'width > 1', partition: nope}]"
    bad = bed.run("harness.doctor", *args(grid, store, rule), code=1)
    assert "profile testbed, width > 1: " in bad
    assert "invalid partition" in bad
    short = ("cluster.timeout_min=1", "cluster.slurm.signal_seconds=40")
    bad = bed.run("harness.doctor", *args(grid, store, *short), code=1)
    assert "more than half of timeout_min" in bad
    nothing = {**bed.env, "PATH": str(tmp_path)}
    bad = bed.run("harness.doctor", *args(grid, store), env=nothing, code=1)
    assert "sbatch, srun, squeue is not installed here: launch from a login node" in bad


def test_a_selector_chooses_what_launch_queues_and_tries_again(bed, make_grid, tmp_path):
    grid, store = make_grid(seeds="0, 1, 2"), tmp_path / "store"
    empty = tmp_path / "broken/sklearn"  # without the digits
    empty.mkdir(parents=True)
    (empty / "__init__.py").touch()
    path = f"cluster.slurm.setup=['export PYTHONPATH={empty.parent}:$PYTHONPATH']"
    broken = (path, "where=seed < 2")
    assert "queued 2 jobs" in bed.run("harness.launch", *args(grid, store, *broken))
    bed.drain()
    listed = json.loads(bed.run("harness.status", *args(grid, store, "format=json")))
    states = {trial["seed"]: trial["state"] for trial in listed["trials"]}
    assert states == {0: "failed", 1: "failed", 2: "waiting"}
    again = ("retry=all", "where=state == 'failed' and seed == 1")
    assert "queued 1 jobs" in bed.run("harness.launch", *args(grid, store, *again))
    bed.drain()
    listed = json.loads(bed.run("harness.status", *args(grid, store, "format=json")))
    states = {trial["seed"]: trial["state"] for trial in listed["trials"]}
    assert states == {0: "failed", 1: "done", 2: "waiting"}
    said = bed.run("harness.launch", *args(grid, store, "where=seed == 1"))
    assert "queued" not in said


def test_levels_added_to_a_sweep_under_way_are_one_array_with_one_cap(bed, make_grid, tmp_path):
    store = tmp_path / "store"
    bed.run("harness.launch", *args(make_grid(seeds=seeds(9)), store, HELD))
    before = set(bed.jobs())
    grid = make_grid(sparsity="0.0, 0.5", seeds=seeds(9))
    assert "queued 9 jobs" in bed.run("harness.launch", *args(grid, store, HELD))
    new = set(bed.jobs()) - before
    assert len({job.partition("_")[0] for job in new}) == 1
    shown = bed.slurm("squeue", "--noheader", "--array", "--format=%i %E").splitlines()
    waiting = [line for line in shown if line.split()[0] in new]
    assert all("afterany" in line for line in waiting)


def test_a_submission_that_died_half_way_is_not_forgotten(bed, make_grid, tmp_path):
    """Killed between sbatch and the record of the id: the job is still in the queue by name."""
    grid, store = make_grid(), tmp_path / "store"
    bed.run("harness.launch", *args(grid, store, HELD))
    (notes,) = store.glob("sweeps/*/jobs.jsonl")
    lines = notes.read_text().splitlines(keepends=True)
    notes.write_text(lines[0])  # the id was never written
    assert "nothing to add" in bed.run("harness.launch", *args(grid, store, HELD))
    assert len(bed.jobs()) == 1


def test_stages_that_fail_alike_stop_all_arrays_of_their_launch(bed, make_grid, tmp_path):
    """Two stages are too few to stop their array; failures of the other sizes count, too."""
    grid, store = make_grid(seeds="0, 1"), tmp_path / "store"
    rules = "cluster.resources=[{where: 'width > 1', mem_gb: 3}]"
    broken = "run.device=cuda"  # there is none: a UserError
    words = ("axes.width=[0.25,0.5,2]", rules, broken, "cluster.workers=1")
    assert "queued 6 jobs" in bed.run("harness.launch", *args(grid, store, *words))
    bed.drain()
    assert len(list(store.glob("sweeps/*/logs/*/*/submission.json"))) == 2
    assert len(list(store.glob(f"sweeps/*/logs/*/*/{GAVE_UP}"))) == 2
    assert not list(store.glob("stages/*/*/result.json"))
    begun = list(store.glob("stages/*/*/failures"))
    assert 3 <= len(begun) < 6
    said = bed.run("harness.status", *args(grid, store, *words[:1]))
    assert "A worker sees the GPUs that its job requests" in said
    assert "ended with all jobs of its launch: 3 stages failed alike" in said
    logs = [path.read_text() for path in store.glob("sweeps/*/logs/*/*/*_log.out")]
    assert sum("the job gave up: 3 stages failed alike" in text for text in logs) >= 1


def test_a_job_that_dies_before_it_begins_is_reported(bed, make_grid, tmp_path):
    grid, store = make_grid(), tmp_path / "store"
    bed.run("harness.launch", *args(grid, store, "cluster.slurm.python=/none/python"))
    bed.drain()
    said = bed.run("harness.status", *args(grid, store))
    assert "ended before it began this: see harness.logs" in said
    assert "was cancelled" not in said
    assert "/none/python: No such file" in bed.run("harness.logs", *args(grid, store))


def test_a_path_that_slurm_would_expand_is_refused(bed, make_grid, tmp_path):
    said = bed.run("harness.launch", *args(make_grid(), tmp_path / "store%j", HELD), code=2)
    assert "'%' in its path" in said
    assert not bed.jobs()
