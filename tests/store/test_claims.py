import json
import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from harness.store import claims
from harness.store.claims import ClaimLost, look, try_claim


def test_second_claim_is_refused_until_release(tmp_path):
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
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def _race(folder, barrier, wins):
    barrier.wait()
    if try_claim(folder, job=str(os.getpid())) is not None:
        wins.put(os.getpid())
        time.sleep(1.0)  # stay alive: a dead owner's claim may be taken over


@pytest.mark.slow
@pytest.mark.parametrize("stale", [False, True], ids=["free", "stale"])
def test_of_many_takers_exactly_one_wins(tmp_path, stale):
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


def test_claim_of_a_dead_process_is_taken_over_at_once(tmp_path):
    _claim_and_die(tmp_path)
    seen = look(tmp_path)
    assert seen is not None
    assert seen.dead
    assert try_claim(tmp_path, job="2") is not None


def test_claim_of_another_machine_is_stale_only_when_its_heartbeat_stops(tmp_path):
    claim = try_claim(tmp_path, job="far")
    content = json.loads((tmp_path / "claim").read_text())
    (tmp_path / "claim").write_text(json.dumps({**content, "boot": "another", "pid": 1}))
    assert try_claim(tmp_path, job="2") is None
    old = time.time() - claims.STALE_SECONDS - 5
    os.utime(tmp_path / "claim", (old, old))
    taken = try_claim(tmp_path, job="2")
    assert taken is not None
    with pytest.raises(ClaimLost):
        claim.heartbeat(force=True)
    claim.release()  # does not touch the new owner's
    taken.heartbeat(force=True)


def test_heartbeat_renews_the_claim(tmp_path):
    claim = try_claim(tmp_path, job="1")
    old = time.time() - 60
    os.utime(claim.path, (old, old))
    claim.heartbeat(force=True)
    assert look(tmp_path).age < 30


def test_half_written_claim_does_not_hold_the_stage_for_ever(tmp_path):
    (tmp_path / "claim").write_text("")
    old = time.time() - 60
    os.utime(tmp_path / "claim", (old, old))
    assert try_claim(tmp_path, job="1") is not None
