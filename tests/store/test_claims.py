"""Claims: one owner at a time, taken over after its death or without its heartbeat."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.store import claims
from harness.store.claims import ClaimLost, look, try_claim


def test_a_second_claim_is_refused_until_the_first_is_released(tmp_path):
    claim = try_claim(tmp_path, job="1")
    assert claim is not None
    assert try_claim(tmp_path, job="2") is None
    claim.release()
    assert try_claim(tmp_path, job="2") is not None


def _claim_and_die(folder):
    script = (
        "from harness.store.claims import try_claim; from pathlib import Path; "
        f"assert try_claim(Path({str(folder)!r}), 'dead')"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def _race(folder, barrier, wins):
    barrier.wait()
    if try_claim(folder, job=str(os.getpid())) is not None:
        wins.put(os.getpid())
        time.sleep(1.0)  # stay alive: a dead owner's claim may be taken over


@pytest.mark.slow
@pytest.mark.parametrize("stale", [False, True], ids=["free", "stale"])
def test_exactly_one_of_many_workers_gets_the_claim(tmp_path, stale):
    if stale:
        _claim_and_die(tmp_path)
    context = multiprocessing.get_context("fork")
    barrier, wins = context.Barrier(8), context.Queue()
    racers = [context.Process(target=_race, args=(tmp_path, barrier, wins)) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(30)
    assert wins.qsize() == 1


def test_the_claim_of_a_dead_process_is_taken_over_at_once(tmp_path):
    _claim_and_die(tmp_path)
    state = look(tmp_path)
    assert state is not None
    assert state.dead
    assert try_claim(tmp_path, job="2") is not None


def test_the_claim_of_another_machine_is_stale_only_when_its_heartbeat_stops(tmp_path):
    claim = try_claim(tmp_path, job="far")
    content = json.loads((tmp_path / "claim").read_text())
    elsewhere = {"boot": "another", "pid": 2**31 - 1}  # no process here has this PID
    (tmp_path / "claim").write_text(json.dumps({**content, **elsewhere}))
    assert try_claim(tmp_path, job="2") is None
    old = time.time() - claims.STALE_SECONDS - 5
    os.utime(tmp_path / "claim", (old, old))
    taken = try_claim(tmp_path, job="2")
    assert taken is not None
    with pytest.raises(ClaimLost):
        claim.heartbeat(force=True)
    claim.release()  # does not touch the new owner's
    taken.heartbeat(force=True)


def test_a_heartbeat_renews_the_claim(tmp_path):
    claim = try_claim(tmp_path, job="1")
    old = time.time() - 60
    os.utime(claim.path, (old, old))
    claim.heartbeat(force=True)
    assert look(tmp_path).age < 30


def test_an_empty_claim_can_be_taken_over_after_a_minute(tmp_path):
    """The worker died after it had created the file and before it wrote the content."""
    (tmp_path / "claim").write_text("")
    old = time.time() - 60
    os.utime(tmp_path / "claim", (old, old))
    assert try_claim(tmp_path, job="1") is not None


def test_a_claim_and_a_lock_with_a_time_far_in_the_future_are_stale(tmp_path):
    """The clock of the file server was ahead when they were touched, and was then corrected."""
    claim = try_claim(tmp_path, job="far")
    content = json.loads(claim.path.read_text())
    claim.path.write_text(json.dumps({**content, "boot": "another"}))
    ahead = time.time() + 3600
    os.utime(claim.path, (ahead, ahead))
    assert not look(tmp_path).live
    lock = tmp_path / f"claim.takeover.{claim.token}"
    lock.touch()
    os.utime(lock, (ahead, ahead))
    assert try_claim(tmp_path, job="2") is None  # this call removes the lock
    assert try_claim(tmp_path, job="2") is not None


def test_a_token_cannot_lead_to_files_outside_of_the_stage(tmp_path):
    stage = tmp_path / "store" / "stage"
    stage.mkdir(parents=True)
    (tmp_path / "outside").write_text("precious")
    old = time.time() - 3600
    os.utime(tmp_path / "outside", (old, old))
    claim = try_claim(stage, job="1")
    (stage / "claim.takeover.x").mkdir()
    content = json.loads(claim.path.read_text())
    for token in ("x/../../../outside", "", "A" * 32, "0" * 31, 7, None):
        claim.path.write_text(json.dumps({**content, "token": token}))
        os.utime(claim.path, (old, old))
        taken = try_claim(stage, job="2")
        assert taken is not None
        assert (tmp_path / "outside").read_text() == "precious"
        taken.release()


@pytest.mark.parametrize("kind", ["dangling link", "link", "folder", "pipe"])
def test_a_claim_or_lock_that_is_not_a_regular_file_is_moved_aside(tmp_path, kind):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    stage = tmp_path / "stage"
    stage.mkdir()

    def plant(path):
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(outside if kind == "link" else tmp_path / "nowhere")

    plant(stage / "claim")
    plant(stage / "claim.takeover.")
    assert not look(stage).live
    assert try_claim(stage, job="1") is None  # this call moves the lock aside
    claim = try_claim(stage, job="1")
    claim.heartbeat(force=True)
    assert (stage / "claim.damaged-1").exists() or kind == "dangling link"
    assert outside.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


INSIDE = """
import os, sys
from pathlib import Path
from harness.store.claims import has_ended, look, process_start, try_claim
outer, inner = map(Path, sys.argv[1:])
started = process_start(os.getpid())
print(look(outer).live, try_claim(outer, "inside") is not None, started != "", flush=True)
assert not has_ended(os.getpid(), started)
assert try_claim(inner, "inside") is not None
print("claimed", flush=True)
sys.stdin.read()
"""
"""Program of the process in the other PID namespace; it ends when its input is closed."""


@pytest.mark.parametrize("mounts_proc", [True, False])
def test_only_its_heartbeat_shows_that_a_process_of_another_pid_namespace_lives(
    tmp_path, mounts_proc
):
    """They are like two containers on one host. The inner one may see the outer one's /proc."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir(), inner.mkdir()
    assert try_claim(outer, "outside") is not None
    options = ["--mount-proc"] if mounts_proc else []
    with subprocess.Popen(
        ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", *options,
         sys.executable, "-c", INSIDE, str(outer), str(inner)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline().split() == ["True", "False", str(mounts_proc)]
        assert process.stdout.readline() == "claimed\n"
        assert look(inner).live
        assert try_claim(inner, "outside") is None
        process.stdin.close()
        assert process.wait(300) == 0
    old = time.time() - claims.STALE_SECONDS - 5
    os.utime(inner / "claim", (old, old))
    assert try_claim(inner, "outside") is not None


def test_a_process_may_have_a_name_of_any_bytes(tmp_path):
    comm = Path("/proc/self/comm")
    before = comm.read_bytes()
    comm.write_bytes(b"entra\xee) 9 (")
    try:
        assert try_claim(tmp_path, job="1") is not None
        assert look(tmp_path).live
        assert not claims.has_ended(os.getpid(), claims.process_start(os.getpid()))
    finally:
        comm.write_bytes(before)


def test_only_old_temporary_files_are_removed(tmp_path):
    old = time.time() - claims.LEFTOVER_SECONDS - 5
    for name in (".result.json.123.tmp", ".claim.abc.tmp", "result.json", ".new.tmp"):
        (tmp_path / name).touch()
        if name != ".new.tmp":
            os.utime(tmp_path / name, (old, old))
    claims.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new.tmp", "result.json"]


def test_the_new_owner_of_a_stage_removes_temporary_files_of_the_last_owner_at_once(tmp_path):
    """It keeps those of other workers and launches, which look at the claim or write the config."""
    kept = [
        ".claim.abc.tmp",
        ".config.json.abc.tmp",
        ".now.abc.tmp",
        "claim",
        "claim.takeover.abc",
        "result.json",
    ]
    for name in (*kept, ".result.json.abc.tmp", ".correct.npz.abc.tmp"):
        (tmp_path / name).touch()
    claims.remove_leftovers(tmp_path, is_claimed=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
