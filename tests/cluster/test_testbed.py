"""The testbed: a second start changes nothing, it is local, and it ends only its own processes."""

import contextlib
import json
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from harness.store.claims import has_ended, process_start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LOOPBACK = {"0100007F", "00000000000000000000000001000000"}  # 127.0.0.1 and ::1, as /proc has them
LISTENING = "0A"


def daemons(bed):
    """Return PID and start time of every daemon of a testbed, by name."""
    record = json.loads((bed.folder / "testbed.json").read_text())
    return {name: (pid, process_start(pid)) for name, (pid, _) in record["processes"].items()}


def listening(pid):
    """Return the TCP addresses at which a process listens, in hexadecimal."""
    links = [link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {found[1] for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", link))}
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return [
        words[1].partition(":")[0]
        for words in lines
        if words[3] == LISTENING and words[9] in inodes
    ]


@pytest.fixture
def three(bed):
    """A second testbed, of three nodes, beside the first."""
    with tempfile.TemporaryDirectory(prefix="bed-") as folder:
        second = type(bed)(Path(folder) / "slurm")
        try:
            second.testbed("--nodes", "3", "up")
            second.enter()
            yield second
        finally:
            second.testbed("down")


def test_two_testbeds_keep_to_themselves(bed, three):
    first, second = daemons(bed), daemons(three)
    assert len(second) == len(first) + 1
    assert three.slurm("sinfo", "--noheader", "-p", "main", "--format=%D").strip() == "3"
    three.testbed("up")
    assert daemons(three) == second  # nothing was started again

    addresses = [address for pid, _ in second.values() for address in listening(pid)]
    assert len(addresses) >= 5  # a controller, its accounting, three nodes
    assert set(addresses) <= LOOPBACK

    bystander = subprocess.Popen(["sleep", "600"], env={**three.env, "SLURM_CONF": "other"})
    try:
        job = three.slurm("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600").strip()
        three.wait(lambda: three.jobs().get(job) == "RUNNING")
        mark = f"SLURM_CONF={three.env['SLURM_CONF']}".encode()
        three.wait(lambda: jobs_of(mark))  # SLURM lists it as running before it does
        theirs = jobs_of(mark)
        three.testbed("down")
        ended = [pid for pid, _ in second.values()] + theirs
        assert [pid for pid in ended if not has_ended(pid, "")] == []
        assert bystander.poll() is None
        assert daemons(bed) == first
        assert bed.jobs() == {}  # it answers
        assert str(three.folder) not in Path("/etc/hosts").read_text()
        assert str(bed.folder) in Path("/etc/hosts").read_text()
    finally:
        bystander.kill()
        bystander.wait()


def test_a_node_that_is_reserved_for_a_waiting_job_counts_as_up(bed):
    """While the job waits, sinfo shows the reserved node as `plnd` instead of idle."""
    quiet = ("-p", "high", "-o", "/dev/null")
    bed.slurm("sbatch", *quiet, "-t", "5", "--wrap", "sleep 300")
    bed.wait(lambda: "RUNNING" in bed.jobs().values())
    bed.slurm("sbatch", *quiet, "-t", "1", "-N", "2", "--exclusive", "--wrap", "true")
    states = ("sinfo", "--noheader", "-p", "main", "-o", "%t")
    bed.wait(lambda: "plnd" in bed.slurm(*states).split())
    bed.testbed("up")
    assert "plnd" in bed.slurm(*states).split()  # it was, all the while


def jobs_of(mark):
    """Return the PIDs of job processes that have `mark` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended, or another user's
            words = (process / "environ").read_bytes().split(b"\0")
            if mark in words and any(word.startswith(b"SLURM_JOB_ID=") for word in words):
                found.append(int(process.name))
    return found
