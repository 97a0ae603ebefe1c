"""The environment of commands and workers: variables of jobs and shells, a busy controller."""

import os
import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.cluster import enqueue, rendezvous, sbatch, slurm, slurm_jobs
from harness.cluster.job_registry import Scheduler, submission_lock
from harness.cluster.job_script import TRY
from harness.cluster.launch_folder import new_launch_folder, take_snapshot
from harness.cluster.submission import Submission
from harness.cluster_schema import KEYS, ClusterConfig, SlurmConfig
from harness.commands import preflight
from harness.config import Launch
from harness.errors import UserError
from harness.run_schema import RunConfig
from harness.store.provenance import code_version
from harness.store.store import Store


@pytest.fixture
def inside(monkeypatch):
    """The variables of an interactive job of the user's, as `salloc` sets them."""
    for key, value in {
        "SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": "2", "SLURM_NTASKS": "4",
        "SLURM_CONF": "/etc/slurm.conf", "SQUEUE_STATES": "RUNNING", "SBATCH_JOB_NAME": "mine",
        "SBATCH_PARTITION": "mine", "SBATCH_ACCOUNT": "mine",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    return monkeypatch


def test_workers_of_a_launch_inside_a_job_do_not_treat_it_as_theirs(inside):
    inside.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert (slurm.this_job(), slurm.restarts()) == ("77", 2)
    inside.setenv("SUBMITIT_EXECUTOR", "local")
    assert (slurm.this_job(), slurm.restarts()) == (None, 0)  # or a stop would requeue it


def test_sbatch_sees_the_profile_and_not_the_shell(inside):
    profile = ClusterConfig(name="p", slurm=SlurmConfig(partition="ours"))
    with sbatch.as_from_login_node(profile):
        lines = slurm.call("env").splitlines()
    seen = {line for line in lines if line.startswith(("SLURM", "SBATCH", "SQUEUE"))}
    assert seen == {"SLURM_CONF=/etc/slurm.conf", "SBATCH_ACCOUNT=mine"}


@pytest.mark.parametrize(
    "answer",
    [
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "slurm_load_jobs error: Zero Bytes were transmitted or received",
        "slurm_load_jobs error: Slurm backup controller in standby mode",
    ],
)
def test_a_busy_controller_is_asked_again(answer):
    with pytest.raises(slurm.SlurmDown):
        slurm.call("sh", "-c", f"echo '{answer}' >&2; exit 1")


@pytest.mark.parametrize(
    "option", ["arr", "wra", "depend", "job", "ntasks", "wait", "no", "cluster"]
)
def test_beginnings_of_the_harness_own_options_are_refused(option):
    with pytest.raises(ValidationError, match="set by the harness itself"):
        SlurmConfig(extra={option: "1"})
    assert SlurmConfig(extra={"nodelist": "n1", "time-min": "9"}).extra


def test_a_launch_says_that_cancelled_jobs_are_still_ending(capsys):
    jobs = {
        "26": slurm.QueuedJob("COMPLETING", "None", "n"),
        "27": slurm.QueuedJob("RUNNING", "", "n"),
    }
    enqueue.release_held(Scheduler({"a": ("26", jobs["26"]), "b": ("27", jobs["27"])}, jobs=jobs))
    assert "1 jobs are ending" in capsys.readouterr().out


def test_a_launch_whose_lock_was_taken_stops_with_a_message(tmp_path):
    def launch():
        with submission_lock(tmp_path) as lock:
            lock.path.write_text('{"token": "another"}')
            lock.heartbeat(force=True)

    with pytest.raises(UserError, match="another took its lock"):
        launch()


def test_a_rank_gets_a_free_port_and_keeps_the_gpu_that_slurm_gave_it(monkeypatch, tmp_path):
    for key, value in {
        "SLURM_JOB_ID": "5", "SLURM_NTASKS": "2", "SLURM_JOB_NUM_NODES": "1", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "CUDA_VISIBLE_DEVICES": "3",
        "SUBMITIT_EXECUTOR": "slurm",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(key, "unset")
    ports = set()
    for restart in range(3):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        rendezvous.export_rank_variables(tmp_path)
        ports.add(os.environ["MASTER_PORT"])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", int(os.environ["MASTER_PORT"])))
    assert len(ports) > 1  # not computed from the job's id
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert [os.environ[key] for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK")] == ["0", "2", "0"]
    monkeypatch.setenv(TRY, "2")  # of the same job: srun could not start every task at first
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setattr(rendezvous, "WAIT_SECONDS", 0.0)
    with pytest.raises(UserError, match="rank 0 of job 5 did not write"):
        rendezvous.export_rank_variables(tmp_path)


def script(tmp_path, processes=1, gpus_per_node=0, **requested):
    """Return the text that sbatch gets."""
    profile = ClusterConfig(name="p", gpus_per_node=gpus_per_node, slurm=SlurmConfig(**requested))
    run = RunConfig(processes=processes)
    submission = Submission(
        store=tmp_path, sweep="s", run=run, cluster=profile, stages={}, parts=[], snapshot=tmp_path
    )
    executor = slurm_jobs._executor(submission, tmp_path, "name")
    return executor._make_submission_file_text("true", "1")


def test_jobs_do_not_run_code_that_a_store_already_holds(tmp_path):
    planted = tmp_path / "sweeps/g/code" / code_version() / "harness"
    planted.mkdir(parents=True)
    (planted / "__init__.py").write_text("raise SystemExit('planted')\n")
    folders = [new_launch_folder(Store(tmp_path).sweep_folder("g")) for _ in range(2)]
    first, second = map(take_snapshot, folders)
    assert first != second  # nor the copy of an earlier launch, which others may have changed
    for code in (first, second):
        assert planted.parent not in (code, *code.parents)
        assert code.stat().st_mode & 0o077 == 0
        mine = Path(slurm_jobs.__file__).read_bytes()
        assert (code / "harness/cluster/slurm_jobs.py").read_bytes() == mine


def test_a_store_whose_sweeps_are_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store/sweeps").symlink_to(tmp_path / "elsewhere")
    profile = ClusterConfig(name="s", executor="slurm")
    launch = Launch(None, RunConfig(), profile, tmp_path / "store")
    (sentence,) = preflight.linked_sweeps(launch)
    assert "move the whole store" in sentence


def test_what_a_job_asks_for_reaches_sbatch_and_srun(tmp_path):
    text = script(tmp_path, 2, cpus_per_task=3, gpus_per_node=2)
    for line in ("--cpus-per-task=3", "--ntasks-per-node=2", "--gpus-per-node=2", "--requeue"):
        assert f"#SBATCH {line}\n" in text
    (srun,) = [line for line in text.splitlines() if line.startswith("srun")]
    assert "--kill-on-bad-exit=1" in srun
    assert "--cpus-per-task=3" in srun
    assert "#SBATCH --mem=1M\n" in script(tmp_path, mem_gb=0.0005)  # 0M would be a whole node


def test_no_option_of_sbatch_is_written_twice_or_unasked(tmp_path):
    extra = {"exclusive": False, "nice": 0, "contiguous": True}
    text = script(tmp_path, 2, gpus_per_node=2, gpu_type="a100", extra=extra)
    options = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    names = [line.partition("=")[0] for line in options]
    assert len(names) == len(set(names))
    assert "#SBATCH --gpus-per-node=a100:2" in options
    assert "#SBATCH --nice=0" in options
    assert "#SBATCH --contiguous" in options
    assert not {"#SBATCH --exclusive", "#SBATCH --wckey"} & set(names)
    assert "#SBATCH --wckey=mine\n" in script(tmp_path, extra={"wckey": "mine"})
    for option in KEYS:
        for beginning in (option, option[:-1]):
            if beginning != "me":  # the beginning of several options
                with pytest.raises(ValidationError, match=f"{beginning}: set cluster"):
                    SlurmConfig(extra={beginning: "1"})
    assert SlurmConfig(extra={"gpus": "1", "mem-per-cpu": "2G"}).extra


def test_an_array_is_waited_for_as_a_whole_where_several_of_its_elements_are():
    assert sorted(slurm_jobs._shortened({"7_1", "7_2", "8_5", "9"})) == ["7", "8_5", "9"]


def test_a_controller_that_is_down_is_asked_again(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    answers = iter([slurm.SlurmDown("away"), slurm.SlurmDown("away"), 7])
    beats = []

    def ask():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert slurm.until_up(ask, lambda: beats.append(1)) == 7
    assert len(beats) == 2  # the launch's lock is kept alive meanwhile
