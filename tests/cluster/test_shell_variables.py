"""Variables and ignored signals of a user's shell: no worker takes ranks or numbers from them."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FAMILY, write_grid

from harness.cluster import environment
from harness.cluster.stop_flag import StopFlag
from harness.commands import difficulty, pilot
from harness.errors import UserError

ROOT = Path(__file__).parents[2]
SHELL = {
    "RANK": "1", "WORLD_SIZE": "", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "x",
    "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "port", "OMPI_COMM_WORLD_LOCAL_RANK": "7",
    "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "none", "DEEPSPEED_TIMEOUT": "",
    "DS_ACCELERATOR": "xpu", "AZUREML_EXPERIMENT_ID": "1", "TORCH_DIST_INIT_BARRIER": "",
    "SUBMITIT_PREEMPT_SIGNAL": "USR1", "SUBMITIT_LOG_LEVEL": "quiet", "_TEST_CLUSTER_": "slurm",
    "SUBMITIT_DEBUG_JOB_ID": "1", "SUBMITIT_EXECUTOR": "slurm",
}  # fmt: skip
READS = re.compile(
    r"""(?:environ(?:\.\w+)?[(\[]|getenv\(|get_env\w*\()\s*["']([A-Z_0-9]+)["']"""
    r"""|["']([A-Z][A-Z0-9]*_[A-Z0-9_]+)["']\s+(?:not\s+)?in os\.environ"""
)


def sources():
    """Return the files of submitit, torch.distributed, DeepSpeed and timm that run in a worker."""
    submitit, torch, deepspeed, timm = (
        Path(importlib.util.find_spec(name).origin).parent
        for name in ("submitit", "torch", "deepspeed", "timm")
    )
    parts = ("comm/*.py", "utils/*.py", "runtime/engine.py", "runtime/config.py", "constants.py",
             "runtime/utils.py", "runtime/zero/stage_1_and_2.py", "accelerator/c*_accelerator.py",
             "accelerator/real_accelerator.py", "accelerator/abstract_accelerator.py",
             "__init__.py")  # fmt: skip
    files = [*submitit.rglob("*.py"), *(torch / "distributed").glob("*.py")]
    files += [*timm.glob("models/*.py"), *timm.glob("layers/*.py")]
    files += [file for part in parts for file in deepspeed.glob(part)]
    return [file for file in files if "test_" not in file.name and file.name != "debug.py"]


def test_the_table_has_every_variable_that_the_installed_libraries_read():
    names = {
        name
        for file in sources()
        for match in READS.findall(file.read_text())
        for name in match
        if name
    }
    assert {"RANK", "SUBMITIT_FOLDER", "DS_ACCELERATOR", "OMPI_COMM_WORLD_LOCAL_RANK"} <= names
    assert not {name for name in names if environment.rule_for(name) is None}


def test_a_worker_removes_what_the_table_says(monkeypatch, capsys):
    for name in [name for name in os.environ if environment.rule_for(name)]:
        monkeypatch.delenv(name)
    passed = {"NCCL_SOCKET_IFNAME": "ib0", "OMP_NUM_THREADS": "1", "SUBMITIT_EXECUTOR": "slurm"}
    numeric = "NVIDIA_TF32_OVERRIDE", "TORCH_CUDNN_V8_API_DISABLED", "TORCH_MKLDNN_MATMUL_MIN_DIM"
    for name, value in {**SHELL, **dict.fromkeys(numeric, "1"), **passed}.items():
        monkeypatch.setenv(name, value)
    environment.clean_worker()
    names = (*SHELL, *numeric, *passed)
    remaining = {name: os.environ[name] for name in names if name in os.environ}
    assert remaining == passed
    assert "NVIDIA_TF32_OVERRIDE, OMPI_COMM_WORLD_LOCAL_RANK, RANK" in capsys.readouterr().out


@pytest.mark.parametrize("command", [pilot, difficulty])
def test_measurements_take_no_numbers_from_the_shell(command, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(UserError):
        command.main([])
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ


def test_a_single_process_is_rank_0_whatever_the_shell_says():
    """In a process of its own: torch has one default process group, which other tests create."""
    code = """
import json, os
from harness.cluster import environment
from harness.run_schema import RunConfig
from harness.train.distributed import connected

with connected(RunConfig(device="cpu")) as world:
    names = environment.RANKS.split()
    print(json.dumps([world.rank, world.size, {name: os.environ.get(name) for name in names}]))
"""
    names = environment.RANKS.split()
    shell = {name: SHELL[name] for name in names}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **shell}, capture_output=True,
        text=True, check=True, timeout=300,
    )  # fmt: skip
    rank, size, remaining = json.loads(done.stdout.splitlines()[-1])
    assert (rank, size) == (0, 1)
    assert remaining == {**dict.fromkeys(names), "LOCAL_RANK": "0"}


def test_signals_that_were_ignored_on_entry_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopFlag() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
            signal.raise_signal(signal.SIGUSR1)
            assert stop.signal == "SIGUSR1"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["run.engine=deepspeed", "run.processes=2"])
def test_a_launch_here_trains_whatever_the_shell_holds(tmp_path, words):
    grid, store = write_grid(tmp_path / "tiny.yaml", epochs=1), tmp_path / "store"
    done = subprocess.run(
        [sys.executable, "-m", "harness.launch", f"grid={grid}", f"store={store}", words],
        cwd=ROOT, env={**os.environ, **SHELL}, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(store.glob("stages/*/*/result.json"))) == 1
    (log,) = store.glob("sweeps/tiny/logs/*/*_0_log.out")
    assert "note: not used in a worker: AZUREML_EXPERIMENT_ID" in log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_job_hears_both_signals_and_is_requeued_whatever_the_shell_holds(bed, make_sweep):
    """The shell's variables reach a job through sbatch, and through the profile's own lines."""
    setup = "cluster.slurm.setup=['export RANK=1 WORLD_SIZE= SUBMITIT_PREEMPT_SIGNAL=USR1']"
    sweep = make_sweep(setup, epochs=3000, family=FAMILY)
    bed.pace.set(0.25)
    before = dict(bed.env)
    bed.env.update(SHELL)
    try:
        sweep.run("launch")
    finally:
        bed.env.clear()
        bed.env.update(before)
    (script,) = sweep.store.glob("sweeps/*/logs/*/*/*_submission.sh")
    assert "#SBATCH --signal=USR2@30\n" in script.read_text()
    for number, name in enumerate(("USR2", "USR1"), start=1):
        saved = sweep.step()
        bed.wait(lambda saved=saved: sweep.step() > saved)
        (job,) = bed.jobs()
        bed.slurm("scancel", f"--signal={name}", job)
        bed.wait(lambda job=job: bed.jobs().get(job) == "PENDING")
        assert sweep.failures("message")[-1] == f"job {job} was stopped by SIG{name}"
        assert sweep.failures() == ["preempted"] * number
    sweep.run("cancel")
    bed.wait(lambda: not bed.jobs())
    assert f"job {job} was cancelled" in sweep.run("status")
