"""Whole sweeps through the commands, in processes of their own, as a user starts them."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from processes import ROOT, alive, command, descendants, run, training

GRID = """# Eight small trials on the digits, for tests.
defaults:
  - override /dataset: digits
  - override /model: cifar_resnet
  - override /recipe: quick
model: {depth: 8}
dataset: {train_size: 256, validation_size: 128, test_size: 128}
recipe: {epochs: 4, batch_size: 32}
compress: {level_share: 0.5, level_epochs: 2}
run: {engine: ddp, checkpoint_seconds: 0.2}
axes:
  width: [0.25]
  sparsity: [0.0, 0.75]
  magnitude: [none, 0.5]
  seed: [0, 1]
"""
STAGES = 12  # 2 magnitudes x 2 seeds x (dense, 0.5, 0.75)


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(GRID)
    return path


def rows(grid, store, out):
    run("analysis.rows", f"grid={grid}", f"store={store}", f"out={out}")
    with (out / "rows.csv").open() as file:
        return [
            {k: v for k, v in row.items() if k != "gpu_seconds"} for row in csv.DictReader(file)
        ]


def trained(store):
    """Return every stage that a worker finished, from the workers' logs."""
    lines = [
        line.split()
        for log in store.glob("sweeps/*/logs/*/*_log.out")
        for line in log.read_text().splitlines()
    ]
    return sorted(words[1] for words in lines if words[:1] == ["finished"])


KILLS = 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments_a_sweep_ends_in_the_same_bits(grid, tmp_path):
    """With the default engine; test_chaos trains with the other one."""
    text = GRID.replace("epochs: 4", "epochs: 10").replace("epochs: 2}", "epochs: 6}")
    text = text.replace("engine: ddp", "engine: deepspeed")
    grid.write_text(text.replace("magnitude: [none, 0.5]", "magnitude: [0.5]"))
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    run("harness.launch", f"grid={grid}", f"store={calm}")
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(2**31)))
    print(f"CHAOS_SEED={seed}")
    chance = random.Random(seed)
    for kills in range(KILLS):
        workers = f"cluster.workers={1 + kills % 2}"
        process = command("harness.launch", f"grid={grid}", f"store={wild}", workers)
        tree = [process.pid]
        end = time.monotonic() + 90
        while process.poll() is None and not training(wild) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, 0.5))
        assert process.poll() is None, f"ended after {kills} kills (CHAOS_SEED={seed})"
        tree = [process.pid, *descendants(process.pid)]
        everything = chance.random() < 0.5
        for pid in tree if everything else [chance.choice(tree)]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate(timeout=300)
        deadline = time.monotonic() + 60
        while any(alive(pid) for pid in tree) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(alive(pid) for pid in tree), "workers outlive their launcher"
    run("harness.launch", f"grid={grid}", f"store={wild}")
    expected = rows(grid, calm, tmp_path / "a")
    assert len(expected) == 4
    assert rows(grid, wild, tmp_path / "b") == expected
    for result in calm.glob("stages/*/*/result.json"):
        other = wild / result.relative_to(calm)
        a, b = (json.loads(path.read_text()) for path in (result, other))
        a.pop("timing"), a.pop("sha256")
        b.pop("timing"), b.pop("sha256")
        assert a == b  # the hash of the weights among it
        bits = [(path.parent / "correct.npz").read_bytes() for path in (result, other)]
        assert bits[0] == bits[1]


def trained_or_begun(store):
    return any(store.glob("stages/*/*/checkpoint/*"))


@pytest.mark.slow
def test_two_launchers_at_once_train_each_stage_once(grid, tmp_path):
    store, stages = tmp_path / "store", STAGES // 2
    grid.write_text(GRID.replace("seed: [0, 1]", "seed: [0]"))
    both = [command("harness.launch", f"grid={grid}", f"store={store}") for _ in range(2)]
    for process in both:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    assert len(trained(store)) == stages
    assert len(set(trained(store))) == stages
    again = run("harness.launch", f"grid={grid}", f"store={store}")
    assert "nothing left to do" in again
    assert len(trained(store)) == stages


@pytest.fixture
def heard():
    """Let commands hear Ctrl-C, also where the tests themselves run in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_the_next_launch_goes_on(heard, grid, tmp_path):
    store = tmp_path / "store"
    grid.write_text(GRID.replace("epochs: 4", "epochs: 400").replace("seed: [0, 1]", "seed: [0]"))
    process = command("harness.launch", f"grid={grid}", f"store={store}", start_new_session=True)
    deadline = time.monotonic() + 90
    while not trained_or_begun(store) and time.monotonic() < deadline:
        time.sleep(0.1)
    tree = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert not any(alive(pid) for pid in tree)
    assert not list(store.glob("stages/*/*/claim"))
    assert not list(store.glob("stages/*/*/failures/*"))
    saved = sorted(store.glob("stages/*/*/checkpoint/step-*"))
    assert saved
    steps = {path.parents[1]: int(path.stem.partition("-")[2]) for path in saved}  # the newest
    status = json.loads(run("harness.status", f"grid={grid}", f"store={store}", "format=json"))
    assert {trial["state"] for trial in status["trials"]} == {"waiting"}
    process = command("harness.launch", f"grid={grid}", f"store={store}", start_new_session=True)
    later = dict.fromkeys(steps, 0)
    deadline = time.monotonic() + 90
    while not any(later[stage] > steps[stage] for stage in steps) and time.monotonic() < deadline:
        time.sleep(0.1)
        for stage in steps:
            names = [path.stem for path in stage.glob("checkpoint/step-*")]
            found = [int(name.partition("-")[2]) for name in names]
            later[stage] = max([later[stage], *found])
            assert not found or max(found) >= steps[stage]  # it did not begin again
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=300)
    assert any(later[stage] > steps[stage] for stage in steps)


@pytest.mark.slow
def test_a_launch_under_nohup_outlives_its_terminal(grid, tmp_path):
    """A terminal that closes sends SIGHUP to every process of its session."""
    store = tmp_path / "store"
    grid.write_text(GRID.replace("epochs: 4", "epochs: 100").replace("seed: [0, 1]", "seed: [0]"))
    words = [sys.executable, "-m", "harness.launch", f"grid={grid}", f"store={store}"]
    more = ["axes.sparsity=[0.0]", "axes.magnitude=[none]"]
    process = subprocess.Popen(
        ["nohup", *words, *more],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    while not trained_or_begun(store) and process.poll() is None:
        time.sleep(0.1)
    tree = [process.pid, *descendants(process.pid)]
    assert len(tree) >= 3  # the launch, submitit's controller of the worker, the worker
    for pid in tree:
        os.kill(pid, signal.SIGHUP)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "1 trials: 1 done" in output
    assert len(list(store.glob("sweeps/*/logs/*/*_log.out"))) == 1  # no worker was replaced


@pytest.mark.slow
def test_a_launch_whose_worker_is_stopped_by_others_does_not_report_success(grid, tmp_path):
    """submitit stops a worker like that at `cluster.timeout_min`."""
    store = tmp_path / "store"
    grid.write_text(GRID.replace("epochs: 4", "epochs: 400").replace("seed: [0, 1]", "seed: [0]"))
    process = command("harness.launch", f"grid={grid}", f"store={store}")
    deadline = time.monotonic() + 90
    while not trained_or_begun(store) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(descendants(process.pid)[-1], signal.SIGUSR2)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2, output
    assert "interrupted" in output
    assert "SIGUSR2" in output
    assert "same command continues from here" in output


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_its_stage_goes_on(grid, tmp_path):
    store = tmp_path / "store"
    process = command("harness.launch", f"grid={grid}", f"store={store}")
    end = time.monotonic() + 90
    while not training(store) and time.monotonic() < end:
        time.sleep(0.02)
    worker = descendants(process.pid)[-1]
    os.kill(worker, signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert sorted(set(trained(store))) == trained(store)
    assert len(list(store.glob("stages/*/*/result.json"))) == STAGES


@pytest.mark.slow
def test_two_ranks_and_gangs_through_the_launcher(grid, tmp_path):
    store = tmp_path / "store"
    text = GRID.replace("engine: ddp", "engine: deepspeed, processes: 2, gang: 2")
    grid.write_text(text.replace("seed: [0, 1]", "seed: [0]"))
    output = run("harness.launch", f"grid={grid}", f"store={store}")
    assert "4 trials: 4 done" in output
    for path in store.glob("stages/*/*/provenance.json"):
        (record,) = json.loads(path.read_text())["records"]
        assert record["world_size"] == 2
        assert record["engine"] == "deepspeed"
