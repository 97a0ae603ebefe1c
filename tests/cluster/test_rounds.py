"""A sweep that settles on this machine: rounds, and the same trials whatever interrupts it."""

import json
import os
import random
import signal
import sys
import time

import pytest
from pace import FAMILY, Pace
from processes import alive, command, descendants, run, training

KILLS = 10
GRID = """# A size whose magnitudes settle in a few rounds, for tests.
defaults:
  - override /dataset: digits
  - override /model: cifar_resnet
  - override /recipe: quick
model: {depth: 8}
dataset: {train_size: 256, validation_size: 128, test_size: 128}
recipe: {epochs: 2, batch_size: 32}
run: {engine: ddp, checkpoint_seconds: 0.2}
axes: {width: [0.25], magnitude: [none, 0.3, 0.6], seed: [0, 1, 2, 3]}
settle: {within: 0.5, seeds: [2, 4]}
"""
PATIENCE = 120.0  # seconds until a launch must have begun to train


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "rounds.yaml"
    path.write_text(GRID)
    return path


def results(store):
    """Return the files of the finished stages of a store, by their place in it."""
    return {path.relative_to(store): path for path in store.glob("stages/*/*/result.json")}


def bits(path):
    """Return a result without the times, and the answers to all images."""
    content = json.loads(path.read_text())
    del content["timing"], content["sha256"]
    return content, (path.parent / "correct.npz").read_bytes()


def settled(words):
    """Return what status says about the rounds, and the state of every trial."""
    status = json.loads(run("harness.status", *words, "format=json"))
    return status["settle"], {trial["trial"]: trial["state"] for trial in status["trials"]}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_at_random_moments_it_makes_the_same_choices(grid, tmp_path, monkeypatch):
    """Other sweeps have trained some cells before, which the rule must not look at too early."""
    pace = Pace(tmp_path / "pace")
    for name, value in pace.environment({}).items():
        monkeypatch.setenv(name, value)
    grid.write_text(GRID.replace("model: {depth: 8}", f"model: {{family: {FAMILY}, depth: 8}}"))
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    once = run("harness.launch", f"grid={grid}", f"store={calm}")
    assert once.count("round ") > 1, once
    expected, states = settled([f"grid={grid}", f"store={calm}"])
    assert expected["trials"] == []
    total = len(results(calm))
    assert total == expected["chosen"]

    other = tmp_path / "other.yaml"
    other.write_text(grid.read_text())
    some = ("settle=false", "axes.magnitude=[0.3, 0.6]", "axes.seed=[0, 3]")
    run("harness.launch", f"grid={other}", f"store={wild}", *some)
    before = set(results(wild))
    words = [f"grid={grid}", f"store={wild}"]
    chosen = set(results(calm))
    missing = len(chosen - before)

    seed = int(os.environ.get("CHAOS_SEED", random.randrange(2**31)))
    print(f"CHAOS_SEED={seed}")
    chance = random.Random(seed)
    for kill in range(KILLS):
        process = command("harness.launch", *words)
        target = kill * (missing - 1) // KILLS  # finished stages at the time of this kill
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and process.poll() is None:
            is_far = len(results(wild).keys() - before) >= target
            pace.set(0.5 if is_far else 0)  # so that the sweep cannot end before the kill
            if is_far and training(wild):
                break
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, 0.5))
        assert process.poll() is None, f"{process.communicate()} (CHAOS_SEED={seed})"
        tree = [process.pid, *descendants(process.pid)]
        for pid in tree if chance.random() < 0.7 else [process.pid]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=300)
        deadline = time.monotonic() + 60
        while any(alive(pid) for pid in tree) and time.monotonic() < deadline:
            time.sleep(0.05)
    pace.set(0)
    run("harness.launch", *words)
    again = run("harness.launch", *words)
    assert "nothing left to do" in again
    assert "1 of 1 sizes have all trials that they need" in again

    found, states_now = settled(words)
    assert found == expected, f"CHAOS_SEED={seed}"
    extra = {trial for trial, state in states_now.items() if state != states[trial]}
    assert all(states_now[trial] == "done" for trial in extra)  # those of the other sweep
    assert set(results(wild)) == chosen | before
    for place in chosen:
        assert bits(results(wild)[place]) == bits(results(calm)[place]), f"CHAOS_SEED={seed}"

    full = run("harness.launch", *words, "settle=false", "dry_run=true")
    assert f"{12 - len(chosen | before):>8} stages to train" in full


@pytest.mark.slow
def test_a_failed_trial_ends_the_rounds_and_a_small_budget_refuses(grid, tmp_path, monkeypatch):
    store = tmp_path / "store"
    words = [f"grid={grid}", f"store={store}"]
    empty = tmp_path / "broken/sklearn"  # without the digits
    empty.mkdir(parents=True)
    (empty / "__init__.py").touch()
    with monkeypatch.context() as broken:
        broken.setenv("PYTHONPATH", os.pathsep.join([str(empty.parent), *sys.path]))
        said = run("harness.launch", *words, "axes.magnitude=[none,0.3]", "settle.seeds=[1,2]",
                   code=1)  # fmt: skip
    assert said.count("round 1 cannot end, because 2 of its trials failed") == 1
    assert "correct the cause and launch with retry=failed" in said
    assert "2 failed" in run("harness.launch", *words, "axes.magnitude=[none,0.3]",
                             "settle.seeds=[1,2]", code=1)  # fmt: skip
    done = run("harness.launch", *words, "settle=false", "axes.seed=[3]", "axes.magnitude=[0.6]")
    assert "1 trials: 1 done" in done
    refused = run("harness.launch", *words, "retry=failed", "budget=1e-6", code=2)
    assert "more than budget=1e-06; nothing was queued" in refused
    assert len(results(store)) == 1
