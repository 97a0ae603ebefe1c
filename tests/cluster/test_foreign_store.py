"""A store with links in it, one that was moved, and one that two containers share."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pace import FAMILY, Pace
from test_bad_store import GRID, ROOT, finish_sweep, path_of, results, verb

from harness.store.records import read_lines

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finish_sweep(tmp_path_factory.mktemp("finished"))


def test_links_in_a_store_are_moved_aside_and_their_stages_trained_again(finished, tmp_path):
    before = results(finished / "store")
    store, outside = tmp_path / "store", tmp_path / "outside"
    subprocess.run(["cp", "-r", finished / "store", store], check=True)
    dense, level = path_of(store)
    (dense / "result.json").unlink()
    (dense / "attempts.jsonl").unlink()
    (dense / "checkpoint").rename(outside)
    (outside / "step-00000001.pt").write_text("precious")
    (tmp_path / "lines").write_text("precious")
    (dense / "checkpoint").symlink_to(outside)
    (dense / "attempts.jsonl").symlink_to(tmp_path / "lines")
    (dense / "claim").symlink_to(tmp_path / "nowhere")
    os.mkfifo(dense / "correct.npz.new")
    level.rename(tmp_path / "level")
    level.symlink_to(tmp_path / "level")
    untouched = {p: p.read_bytes() for p in (*outside.iterdir(), *(tmp_path / "level").glob("*.*"))}
    status = verb("status", finished / "tiny.yaml", store)
    assert f"{level} is a link" in status.stdout
    launch = verb("launch", finished / "tiny.yaml", store)
    assert launch.returncode == 1, launch.stdout + launch.stderr
    assert "were moved aside" in launch.stdout
    trained = results(store)
    assert trained.pop(f"{level.name}.damaged-1")  # the link
    assert trained == before
    assert {path: path.read_bytes() for path in untouched} == untouched
    assert (tmp_path / "lines").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()
    assert verb("launch", finished / "tiny.yaml", store).returncode == 0


def test_a_store_that_was_moved_keeps_its_logs(finished, tmp_path):
    """Also one in which an older version recorded absolute paths."""
    subprocess.run(["cp", "-r", finished / "store", tmp_path / "moved"], check=True)
    for stage in path_of(tmp_path / "moved"):
        (attempt,) = read_lines(stage / "attempts.jsonl")
        assert not Path(attempt["log"]).is_absolute()
    attempt["log"] = f"/old/place/{attempt['log']}"
    (stage / "attempts.jsonl").write_text(json.dumps(attempt))
    logs = verb("logs", finished / "tiny.yaml", tmp_path / "moved")
    assert logs.stdout.count("==>") == 1  # one worker trained both
    assert f"{stage.name} done" in logs.stdout
    (log,) = (finished / "store").glob("sweeps/tiny/logs/*/*_log.out")
    assert str(tmp_path / "moved" / log.relative_to(finished / "store")) in logs.stdout


def test_two_containers_on_one_host_train_every_stage_once(tmp_path):
    """Each sees only its own processes; the stage is under way until both have looked at it."""
    (tmp_path / "tiny.yaml").write_text(GRID)
    pace, store = Pace(tmp_path / "pace"), tmp_path / "store"
    pace.set(1)  # 400 steps
    words = [f"grid={tmp_path / 'tiny.yaml'}", f"store={store}", f"model.family={FAMILY}",
             "recipe.epochs=100", "axes.sparsity=[0.0]"]  # fmt: skip
    launch = shlex.join([sys.executable, "-m", "harness.launch", *words])
    environment = pace.environment(dict(os.environ))
    outputs = [tmp_path / f"out{number}" for number in range(2)]
    containers = []
    try:
        for output in outputs:
            with output.open("w") as file:
                containers.append(subprocess.Popen(
                    ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child",
                     "--mount-proc", "sh", "-c", f"{launch} & wait $!"],
                    cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT,
                ))  # fmt: skip
            wait_for(lambda: list(store.glob("stages/*/*/attempts.jsonl")))
        wait_for(lambda: "1 running" in outputs[1].read_text())
        wait_for(lambda: len(list(store.glob("sweeps/tiny/logs/*/*_log.out"))) == 2)
        status = subprocess.run(
            [sys.executable, "-m", "harness.status", *words, "format=json"],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        assert [trial["state"] for trial in json.loads(status.stdout)["trials"]] == ["running"]
        pace.set(0)
        assert [container.wait(300) for container in containers] == [0, 0]
    finally:
        for container in containers:
            container.kill()
    (attempts,) = store.glob("stages/*/*/attempts.jsonl")
    assert len(read_lines(attempts)) == 1


def wait_for(is_reached):
    """Wait until `is_reached` returns something true."""
    deadline = time.monotonic() + 120
    while not is_reached():
        assert time.monotonic() < deadline
        time.sleep(0.1)
