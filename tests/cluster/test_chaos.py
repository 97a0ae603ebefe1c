"""A sweep under everything that a cluster does to one ends in the bits of an undisturbed sweep."""

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.store.claims import look

FAULTS = 32
LASTS = 900.0
KINDS = (
    "signal", "time_limit", "requeue", "preemption", "kill_rank", "kill_batch", "kill_node",
    "kill_controller", "cancel", "read_only", "full",
)  # fmt: skip


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own for the store, which can be filled and made read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]).returncode:
        pytest.skip("no right to mount a file system: needs a privileged user")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


class Chaos:
    """Deals faults to the jobs of one store."""

    def __init__(self, bed, store, disk, chance):
        self.bed, self.store, self.disk, self.chance = bed, store, disk, chance
        self.dealt = []

    def running(self):
        """Jobs that train at this moment."""
        claims = [look(path.parent) for path in self.store.glob("stages/*/*/claim")]
        jobs = self.bed.jobs()
        live = sorted({claim.job for claim in claims if claim is not None and claim.live})
        return [job for job in live if jobs.get(job) == "RUNNING"]

    def deal(self, kind):
        """One fault, to a job that trains now where it is meant for one."""
        jobs = self.running()
        assert jobs
        getattr(self, kind)(self.chance.choice(jobs))
        self.dealt.append(kind)

    def pause(self, low, high):
        """Let it work for a moment."""
        time.sleep(self.chance.uniform(low, high))

    def signal(self, job):
        self.bed.slurm("scancel", "--signal=USR2", job, check=False)

    def time_limit(self, job):
        self.bed.slurm("scontrol", "update", f"jobid={job}", "TimeLimit=1", check=False)

    def requeue(self, job):
        self.bed.slurm("scontrol", "requeue", job, check=False)

    def preemption(self, job):
        self.bed.slurm(
            "sbatch", "-p", "high", "-N", "2", "--exclusive", "-t", "1", "-o", "/dev/null",
            "--wrap", "sleep 1",
        )  # fmt: skip

    def kill_rank(self, job):
        pids = [int(json.loads(path.read_text())["pid"])
                for path in self.store.glob("stages/*/*/claim")]  # fmt: skip
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(self.chance.choice(pids), signal.SIGKILL)

    def kill_batch(self, job):
        self.bed.slurm("scancel", "--batch", "--signal=KILL", job, check=False)

    def kill_node(self, job):
        node = self.chance.choice(["n1", "n2"])
        self.bed.testbed("kill-node", node)
        self.pause(0, 3)
        self.bed.testbed("revive-node", node)

    def kill_controller(self, job):
        self.bed.testbed("kill-controller")
        self.pause(0, 3)
        self.bed.testbed("start-controller")

    def cancel(self, job):
        self.bed.slurm("scancel", job, check=False)

    def read_only(self, job):
        # refused while a file is open for writing: so the logs' file systems stay writable
        subprocess.run(["mount", "-o", "remount,ro", self.disk], capture_output=True)
        self.pause(1, 3)
        subprocess.run(["mount", "-o", "remount,rw", self.disk], check=True)

    def full(self, job):
        ballast = self.disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
        self.pause(1, 3)
        ballast.unlink()


def rows(bed, grid, store, out):
    bed.run("analysis.rows", f"grid={grid}", f"store={store}", f"out={out}")
    with (out / "rows.csv").open() as file:
        return [
            {k: v for k, v in row.items() if k != "gpu_seconds"} for row in csv.DictReader(file)
        ]


@pytest.mark.slow
@pytest.mark.timeout(LASTS * 2)
def test_chaos(small_disk, bed, make_grid, tmp_path):  # the disk goes last, after all jobs
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(2**31)))
    print(f"CHAOS_SEED={seed}")
    chance = random.Random(seed)
    grid = make_grid("chaos", 100, 60, sparsity="0.75", seeds="0, 1, 2, 3, 4, 5, 6, 7")
    calm, wild = tmp_path / "calm", small_disk / "wild"
    bed.run("harness.launch", f"grid={grid}", f"store={calm}", "cluster.workers=2", seconds=400)
    stages = len(list(calm.glob("stages/*/*/result.json")))
    assert stages == 24

    def launch():
        partition = f"cluster.slurm.partition={chance.choice(['main', 'grace'])}"
        words = (f"grid={grid}", f"store={wild}", "cluster=testbed", "cluster.workers=2", partition)
        return bed.run("harness.launch", *words)

    chaos = Chaos(bed, wild, small_disk, chance)
    first_seen = {}

    def results():
        for path in wild.glob("stages/*/*/result.json"):
            first_seen.setdefault(path, path.stat().st_ino)
        return first_seen

    kinds = []
    healed = time.monotonic()
    end = healed + LASTS
    while len(results()) < stages:
        assert time.monotonic() < end, (seed, chaos.dealt, bed.slurm("squeue"))
        if not bed.jobs() or chance.random() < 0.1:
            launch()  # what is queued already is not queued again
        if len(chaos.dealt) < FAULTS and chaos.running():
            kinds = kinds or chance.sample(KINDS, len(KINDS))
            chaos.pause(0, 1.5)
            if chaos.running():
                chaos.deal(kinds.pop())
        if time.monotonic() - healed > 20:  # what an admin does: drained nodes come back
            bed.testbed("up")
            healed = time.monotonic()
        time.sleep(0.3)
    bed.wait(lambda: not bed.jobs(), 120)
    print(chaos.dealt)
    assert len(chaos.dealt) >= 30, f"only {len(chaos.dealt)} faults fitted in (CHAOS_SEED={seed})"
    assert "nothing left to do" in launch()

    expected = rows(bed, grid, calm, tmp_path / "a")
    assert rows(bed, grid, wild, tmp_path / "b") == expected, f"CHAOS_SEED={seed}"
    for path, inode in first_seen.items():
        assert path.stat().st_ino == inode  # written once
        mine, theirs = (
            json.loads(p.read_text()) for p in (path, calm / Path(path).relative_to(wild))
        )
        mine.pop("timing")
        theirs.pop("timing")
        assert mine == theirs, f"CHAOS_SEED={seed}"
    logs = "\n".join(path.read_text() for path in wild.glob("sweeps/*/logs/*/*/*.out"))
    finished = [line for line in logs.splitlines() if line.startswith("finished")]
    assert len(finished) == len(set(finished))
