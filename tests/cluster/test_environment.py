"""What is around a verb or a worker: variables of jobs and shells, answers of a busy controller."""

import pytest
from pydantic import ValidationError

from harness.cluster import arrays, handover, slurm
from harness.cluster.queued import Scheduler, submitting
from harness.errors import UserError
from harness.schema import ClusterConfig, SlurmConfig


@pytest.fixture
def inside(monkeypatch):
    """An allocation of the user's, as `salloc` makes it."""
    for key, value in {
        "SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": "2", "SLURM_NTASKS": "4",
        "SLURM_CONF": "/etc/slurm.conf", "SQUEUE_STATES": "RUNNING", "SBATCH_JOB_NAME": "mine",
        "SBATCH_PARTITION": "mine", "SBATCH_ACCOUNT": "mine",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    return monkeypatch


def test_workers_of_a_launch_inside_a_job_do_not_take_it_for_theirs(inside):
    inside.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert (slurm.this_job(), slurm.restarts()) == ("77", 2)
    inside.setenv("SUBMITIT_EXECUTOR", "local")
    assert (slurm.this_job(), slurm.restarts()) == (None, 0)  # or a stop would requeue it


def test_sbatch_sees_the_profile_and_not_the_shell(inside):
    profile = ClusterConfig(name="p", slurm=SlurmConfig(partition="ours"))
    with arrays.as_from_login_node(profile):
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


@pytest.mark.parametrize("option", ["arr", "wra", "depend", "job", "ntasks", "wait", "no"])
def test_beginnings_of_options_are_no_way_around_the_harness(option):
    with pytest.raises(ValidationError, match="set by the harness itself"):
        SlurmConfig(extra={option: "1"})
    assert SlurmConfig(extra={"nodelist": "n1", "time-min": "9"}).extra


def test_a_launch_says_that_cancelled_jobs_are_still_ending(capsys):
    jobs = {"26": slurm.Queued("COMPLETING", "None", "n"), "27": slurm.Queued("RUNNING", "", "n")}
    handover.release(Scheduler({"a": ("26", jobs["26"]), "b": ("27", jobs["27"])}, jobs))
    assert "1 jobs are ending" in capsys.readouterr().out


def test_a_launch_whose_place_was_taken_stops_in_a_sentence(tmp_path):
    def launch():
        with submitting(tmp_path) as lock:
            lock.path.write_text('{"token": "another"}')
            lock.heartbeat(force=True)

    with pytest.raises(UserError, match="another took its place"):
        launch()


def test_without_squeue_nothing_is_queued_that_could_be_there_already(tmp_path, monkeypatch):
    for name in ("sbatch", "srun"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="squeue is not installed here"):
        handover.require_sbatch(ClusterConfig(name="p"))
