"""A store that is full, read-only or damaged: an error message, exit code 2, and nothing lost."""

import importlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cluster.job_registry import last_logs
from harness.cluster.state import stage_states
from harness.commands.remaining import set_aside
from harness.config import load
from harness.errors import command
from harness.store.claims import try_claim
from harness.store.store import Store
from harness.sweep.plan import make_plan

ROOT = Path(__file__).parents[2]
GRID = """# Two tiny trials.
defaults:
  - override /dataset: digits
  - override /recipe: quick
model: {depth: 8}
dataset: {train_size: 128, validation_size: 64, test_size: 64}
recipe: {epochs: 1, batch_size: 32}
compress: {level_share: 0.5, level_epochs: 1}
run: {engine: ddp}
axes:
  width: [0.25]
  sparsity: [0.0, 0.5]
"""
pytestmark = pytest.mark.slow


def finish_sweep(folder):
    """Train a small sweep in `folder`, and return the folder with its grid and its store."""
    (folder / "tiny.yaml").write_text(GRID)
    launch = verb("launch", folder / "tiny.yaml", folder / "store")
    assert launch.returncode == 0, launch.stdout + launch.stderr
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return finish_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture
def copy(sweep, tmp_path):
    shutil.copytree(sweep, tmp_path / "copy")
    return tmp_path / "copy"


def verb(name, grid, store, *more):
    return subprocess.run(
        [sys.executable, "-m", f"harness.{name}", f"grid={grid}", f"store={store}", *more],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture
def look(capsys, monkeypatch):
    """(name, grid, store, ...) -> the same as `verb`, run in this process."""

    def run(name, grid, store, *more):
        words = [f"harness.{name}", f"grid={grid}", f"store={store}", *more]
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            command(importlib.import_module(f"harness.commands.{name}").main)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, ended.value.code, said.out, said.err)

    return run


def results(store):
    found = {path.parent.name: json.loads(path.read_text()) for path in
             store.glob("stages/*/*/result.json")}  # fmt: skip
    for result in found.values():
        result.pop("timing"), result.pop("sha256")  # which covers the timing
    return found


def path_of(store):
    """Return the folders of the dense stage and of its child."""
    configs = {p.parent: json.loads(p.read_text()) for p in store.glob("stages/*/*/config.json")}
    return sorted(configs, key=lambda folder: configs[folder]["parent"] or "")


@pytest.mark.parametrize("name", ["result.json", "config.json"])
def test_a_truncated_file_is_moved_aside_and_its_stage_done_again(copy, look, name):
    before = results(copy / "store")
    damaged = path_of(copy / "store")[0]
    (damaged / name).write_bytes((damaged / name).read_bytes()[:40])
    for words in (["status"], ["launch", "dry_run=true"]):
        looked = look(words[0], copy / "tiny.yaml", copy / "store", *words[1:])
        assert looked.returncode == 1
        assert "damaged" in looked.stdout
        assert name in looked.stdout
    said = look("launch", copy / "tiny.yaml", copy / "store")
    assert said.returncode == 1, said.stdout + said.stderr
    assert "damaged file(s) were moved aside" in said.stdout
    assert "moved to" in said.stderr
    assert results(copy / "store") == before
    assert list(damaged.glob("*.damaged-1"))


def test_truncated_weights_of_a_parent_are_found_and_made_again(copy, look):
    before = results(copy / "store")
    dense, level = path_of(copy / "store")
    weights = dense / "checkpoint" / "final.pt"
    weights.write_bytes(weights.read_bytes()[:1000])
    (level / "result.json").unlink()
    said = look("launch", copy / "tiny.yaml", copy / "store")
    assert said.returncode == 1, said.stdout + said.stderr
    assert "1 damaged file(s) were moved aside" in said.stdout
    assert results(copy / "store") == before
    again = look("launch", copy / "tiny.yaml", copy / "store")
    assert again.returncode == 0
    assert "nothing left to do" in again.stdout


def test_a_config_of_another_stage_is_reported_and_not_believed(copy, look):
    dense, level = path_of(copy / "store")
    shutil.copy(level / "config.json", dense / "config.json")
    status = look("status", copy / "tiny.yaml", copy / "store")
    assert "does not match its stage" in status.stdout
    rows = subprocess.run(
        [sys.executable, "-m", "analysis.rows", f"grid={copy / 'tiny.yaml'}",
         f"store={copy / 'store'}"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert ",damaged," in rows.stdout


def test_exactly_the_missing_stages_are_run(copy, look):
    store = copy / "store"
    times = {p: p.stat().st_mtime_ns for p in store.glob("stages/*/*/result.json")}
    again = look("launch", copy / "tiny.yaml", store)
    assert again.returncode == 0
    assert "nothing left to do" in again.stdout
    grown = look("launch", copy / "tiny.yaml", store, "axes.seed=[0,1]")
    assert "4 stages: 2 done, 2 to train" in grown.stdout
    assert len(results(store)) == 4
    fewer = look("launch", copy / "tiny.yaml", store, "axes.sparsity=[0.0]")
    assert "nothing left to do" in fewer.stdout
    changed = look("launch", copy / "tiny.yaml", store, "recipe.label_smoothing=0.1")
    assert "2 stages: 0 done, 2 to train" in changed.stdout
    assert len(results(store)) == 6
    assert {p: p.stat().st_mtime_ns for p in times} == times  # nothing was touched or deleted


def test_a_failure_is_reported_and_tried_again_only_on_request(copy, look):
    from harness.train import checkpoint

    store, few = copy / "store", ["axes.seed=[5]", "axes.sparsity=[0.0]"]
    plan = make_plan(load([f"grid={copy / 'tiny.yaml'}", *few]).grid)
    (stage,) = plan.stages
    # an error that only a worker finds: a checkpoint of another engine
    saved = Store(store).prepare(stage, plan.stages[stage]) / "checkpoint" / "step-00000001.pt"
    step = {"step": 1, "world_size": 2, "sharded": True, "state": {}}
    checkpoint.write(saved, {"stage": stage, **step})
    first = look("launch", copy / "tiny.yaml", store, *few)
    assert first.returncode == 1, first.stdout + first.stderr
    assert "cannot continue under an engine without ZeRO 1" in first.stdout
    again = look("launch", copy / "tiny.yaml", store, *few)
    assert again.returncode == 1
    assert "retry=failed" in again.stdout
    status = look("status", copy / "tiny.yaml", store, *few)
    assert "1 x failed: config: the checkpoint" in status.stdout
    foreseen = look("launch", copy / "tiny.yaml", store, *few, "retry=failed", "dry_run=true")
    assert "1 stages to train" in foreseen.stdout
    retried = look("launch", copy / "tiny.yaml", store, *few, "retry=failed")
    assert retried.returncode == 1
    assert "1 to train" in retried.stdout
    assert len(list(store.glob("stages/*/*/failures/*.json"))) == 3  # failed, retry, failed
    saved.unlink()
    mended = look("launch", copy / "tiny.yaml", store, *few, "retry=failed")
    assert mended.returncode == 0, mended.stdout + mended.stderr


def test_logs_of_invalid_jobs_or_outside_of_the_store_are_not_read(tmp_path):
    store, stage = tmp_path / "store", "0123456789abcdef"
    (tmp_path / "secret_0_log.out").write_text("the secret")
    logs = store / "sweeps/tiny/logs/x"
    logs.mkdir(parents=True)
    (logs / "7_0_log.out").symlink_to(tmp_path / "secret_0_log.out")
    (logs / "8_0_log.out").write_text("its own")
    jobs = {}
    for job in ("../../../../../secret", "7", "8"):
        name = "tiny-logs-x"
        lines = {"name": name, "parts": [[stage]], "folder": str(logs)}, {"name": name, "job": job}
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (store / "sweeps/tiny/jobs.jsonl").write_text(text)
        jobs[job] = last_logs(store, [stage])
    assert [job for job, logs_of in jobs.items() if logs_of] == ["8"]
    assert jobs["8"] == {stage: ("8", (logs / "8_0_log.out").resolve())}


def test_logs_outside_of_the_store_are_not_shown(copy, look):
    (copy / "secret").write_text("the secret")
    for folder in path_of(copy / "store"):
        line = {"job": "1", "attempt": 0, "log": str(copy / "secret"), "time": 0.0}
        (folder / "attempts.jsonl").write_text(json.dumps(line) + "\n")
    said = look("logs", copy / "tiny.yaml", copy / "store")
    assert said.returncode == 0
    assert "secret" not in said.stdout


def test_a_result_that_was_made_since_is_not_moved_aside(copy):
    """Two launches may find the same damage; the later one must not undo the first one's work."""
    store, dense = Store(copy / "store"), path_of(copy / "store")[0]
    whole = (dense / "result.json").read_bytes()
    (dense / "result.json").write_bytes(whole[:40])
    plan = make_plan(load([f"grid={copy / 'tiny.yaml'}"]).grid)
    states = stage_states(store, plan.stages)
    assert states[dense.name].name == "damaged"
    (dense / "result.json").write_bytes(whole)
    set_aside(store, plan, [dense.name], states)
    assert (dense / "result.json").read_bytes() == whole
    (dense / "result.json").write_bytes(whole[:40])
    claim = try_claim(dense, "another")
    set_aside(store, plan, [dense.name], states)
    assert not list(dense.glob("*.damaged-*"))  # that is up to the owner of the claim
    claim.release()
    set_aside(store, plan, [dense.name], states)
    assert list(dense.glob("result.json.damaged-1"))


INSIDE = """
set -e
mkdir -p {store}
mount -t tmpfs -o size=96k tmpfs {store}
set +e
for how in remount,size=50m,ro remount,rw none; do
    {python} -m harness.launch grid={grid} store={store}/inner
    echo "CODE $?"
    echo "END" >&2
    [ $how = none ] || mount -o $how {store}
done
"""


def test_a_full_and_a_read_only_disk_are_reported_and_the_next_launch_goes_on(tmp_path):
    """In a mount namespace, on a separate file system."""
    (tmp_path / "tiny.yaml").write_text(GRID)
    script = INSIDE.format(
        store=tmp_path / "fs", grid=tmp_path / "tiny.yaml", python=sys.executable
    )
    said = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    codes = [line for line in said.stdout.splitlines() if line.startswith("CODE")]
    assert codes == ["CODE 2", "CODE 2", "CODE 0"], said.stdout + said.stderr
    full, read_only, _, _ = said.stderr.split("END\n")
    assert "the disk is full" in full
    assert "Nothing that was finished is lost" in full
    assert "read-only" in read_only
    assert "Traceback" not in said.stderr


MIDWAY = """
set -e
mkdir -p {fs}
mount -t tmpfs -o size=60m tmpfs {fs}
set +e
{python} -m harness.launch grid={grid} store={fs}/inner recipe.epochs=1 axes.sparsity=[0.0]
before=$(cat {fs}/inner/stages/*/*/result.json | md5sum)
{python} -m harness.launch grid={grid} store={fs}/inner recipe.epochs=2000 \\
    run.checkpoint_seconds=0.2 axes.sparsity=[0.0] &
pid=$!
for i in $(seq 600); do
    ls {fs}/inner/stages/*/*/checkpoint/step-*.pt >/dev/null 2>&1 && break
    sleep 0.1
done
head -c 100m /dev/zero > {fs}/filler 2>/dev/null
wait $pid
echo "CODE $?"
rm {fs}/filler
[ "$before" = "$(cat {fs}/inner/stages/*/*/result.json | md5sum)" ] && echo "KEPT"
{python} -m harness.launch grid={grid} store={fs}/inner recipe.epochs=1 axes.sparsity=[0.0]
"""


def test_a_disk_that_fills_up_while_a_worker_trains_is_reported(tmp_path):
    (tmp_path / "tiny.yaml").write_text(GRID)
    script = MIDWAY.format(fs=tmp_path / "fs", grid=tmp_path / "tiny.yaml", python=sys.executable)
    said = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert "CODE 2\nKEPT\nnothing left to do" in said.stdout, said.stdout + said.stderr
    assert "the disk is full" in said.stderr
    assert "same command continues from here" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_refused_last_write_does_not_repeat_the_training(tmp_path, look):
    """The result cannot be written; the checkpoint stays and no step is trained again."""
    (tmp_path / "tiny.yaml").write_text(GRID)
    few = ["axes.sparsity=[0.0]", "recipe.epochs=3"]
    plan = make_plan(load([f"grid={tmp_path / 'tiny.yaml'}", *few]).grid)
    (stage,) = plan.stages
    folder = Store(tmp_path / "store").prepare(stage, plan.stages[stage])
    correct = folder / "correct.npz"
    correct.touch()
    launch = [sys.executable, "-m", "harness.launch", f"grid={tmp_path / 'tiny.yaml'}",
              f"store={tmp_path / 'store'}", *few]  # fmt: skip
    # nothing can replace a file that is mounted
    script = f"mount --bind {correct} {correct} && exec {shlex.join(launch)}"
    refused = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "correct.npz: Device or resource busy" in refused.stderr
    trained = (folder / "metrics.jsonl").read_bytes()
    assert list(folder.glob("checkpoint/step-*"))
    assert not (folder / "result.json").exists()
    said = look("launch", tmp_path / "tiny.yaml", tmp_path / "store", *few)
    assert said.returncode == 0, said.stdout + said.stderr
    assert (folder / "metrics.jsonl").read_bytes() == trained  # including the seconds of each epoch
    assert not list(folder.glob("checkpoint/step-*"))
    assert look("launch", tmp_path / "tiny.yaml", tmp_path / "calm", *few).returncode == 0
    assert results(tmp_path / "store") == results(tmp_path / "calm")


def test_a_logs_folder_that_others_can_write_is_refused(copy, look):
    logs = copy / "store" / "sweeps" / "tiny" / "logs"
    logs.chmod(0o777)
    said = look("launch", copy / "tiny.yaml", copy / "store", "axes.seed=[7]")
    assert said.returncode == 2
    assert "writable by others" in said.stderr


def test_weights_that_were_not_kept_are_made_again_for_a_new_child(copy, look):
    store, lean = copy / "store", copy / "lean"
    few = ["run.keep_weights=needed", "axes.sparsity=[0.0]"]
    assert look("launch", copy / "tiny.yaml", lean, *few).returncode == 0
    assert not list(lean.glob("stages/*/*/checkpoint/*"))
    said = look("launch", copy / "tiny.yaml", lean)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "2 to train" in said.stdout
    assert results(lean) == results(store)


def test_a_missing_data_set_is_reported_before_anything_is_written(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy"):  # the download fails on this machine
        monkeypatch.setenv(
            name, "http://127.0.0.1:9"
        )  # a process of its own, because it would keep these
    grid = tmp_path / "far.yaml"
    grid.write_text(GRID.replace("/dataset: digits", "/dataset: cifar10"))
    said = verb("launch", grid, tmp_path / "store", f"run.data_root={tmp_path}")
    assert said.returncode == 2
    assert "cifar10" in said.stderr
    assert "run.data_root" in said.stderr
    assert not (tmp_path / "store").exists()
