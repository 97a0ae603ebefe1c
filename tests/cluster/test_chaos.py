"""A sweep under all kinds of faults of a cluster ends in the same bits as an undisturbed one."""

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter

import pytest
from pace import FAMILY

from harness.cluster import job_registry
from harness.store.claims import look, process_start

FAULTS = 30
LASTS = 2700.0  # seconds
HELD = 5.0  # seconds that a step lasts while more stages are done than faults were dealt
KINDS = (
    "signal", "time_limit", "requeue", "preemption", "kill_rank", "kill_batch", "kill_node",
    "kill_controller", "cancel", "read_only", "full",
)  # fmt: skip
OF_THE_DISK = ("read_only", "full")


@pytest.fixture
def small_disk(tmp_path):
    """A separate file system for a store's stages, which can be filled and made read-only.

    The logs are elsewhere: jobs keep them open for writing, which prevents a read-only remount.
    Yields the folder and whether it is mounted. Where mounting is forbidden it is a plain folder,
    and the faults of the disk are left out.
    """
    folder = tmp_path / "wild" / "stages"
    folder.mkdir(parents=True)
    mount = ("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder)
    mounted = subprocess.run(mount, check=False).returncode == 0
    yield folder, mounted
    if mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Chaos:
    """Causes faults in the jobs of one store; each kind is a method that returns its success."""

    def __init__(self, bed, store, disk, kinds, chance):
        self.bed, self.store, self.disk, self.kinds, self.chance = bed, store, disk, kinds, chance
        self.dealt = Counter()
        self.tried = Counter()

    def claims(self):
        """Return the claims of the stages that train now."""
        claims = [look(path.parent) for path in self.store.glob("stages/*/*/claim")]
        return [claim for claim in claims if claim is not None and claim.live]

    def running(self):
        """Return the ids of the jobs that train now."""
        jobs = self.bed.jobs()
        live = sorted({claim.job for claim in self.claims()})
        return [job for job in live if jobs.get(job) == "RUNNING"]

    def owed(self):
        """Return whether more faults are needed, in number or in kind."""
        return self.dealt.total() < FAULTS or set(self.dealt) < set(self.kinds)

    def deal(self, jobs):
        """Cause a fault of the kind that was tried least, in one of the `jobs`."""
        kind = min(self.kinds, key=lambda kind: (self.tried[kind], self.chance.random()))
        self.tried[kind] += 1
        if getattr(self, kind)(self.chance.choice(jobs)):
            self.dealt[kind] += 1

    def pause(self, low, high):
        """Let the sweep go on for a moment."""
        time.sleep(self.chance.uniform(low, high))

    def signal(self, job):
        return self.bed.attempt("scancel", "--signal=USR2", job)

    def time_limit(self, job):
        return self.bed.attempt("scontrol", "update", f"jobid={job}", "TimeLimit=1")

    def requeue(self, job):
        return self.bed.attempt("scontrol", "requeue", job)

    def preemption(self, job):
        return self.bed.attempt(
            "sbatch", "-p", "high", "-N", "2", "--exclusive", "-t", "1", "-o", "/dev/null",
            "--wrap", "sleep 1",
        )  # fmt: skip

    def kill_rank(self, job):
        """Kill a process that holds a claim, if it is still the process that made the claim."""
        for path in self.chance.sample(
            claims := list(self.store.glob("stages/*/*/claim")), len(claims)
        ):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
                owner = json.loads(path.read_text())
                handle = os.pidfd_open(owner["pid"])
                try:
                    if process_start(owner["pid"]) == owner["started"]:
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                        return True
                finally:
                    os.close(handle)
        return False

    def kill_batch(self, job):
        return self.bed.attempt("scancel", "--batch", "--signal=KILL", job)

    def kill_node(self, job):
        node = self.chance.choice(["n1", "n2"])
        self.bed.testbed("kill-node", node)
        self.pause(0, 3)
        self.bed.testbed("revive-node", node)
        return True

    def kill_controller(self, job):
        self.bed.testbed("kill-controller")
        self.pause(0, 3)
        self.bed.testbed("start-controller")
        return True

    def cancel(self, job):
        return self.bed.attempt("scancel", job)

    def read_only(self, job):
        """The system refuses this while a file is open for writing, so it is tried repeatedly."""
        again = ["mount", "-o", "remount,ro", self.disk]
        end = time.monotonic() + 5
        while subprocess.run(again, capture_output=True, check=False).returncode:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        self.pause(1, 3)
        subprocess.run(["mount", "-o", "remount,rw", self.disk], check=True)
        return True

    def full(self, job):
        ballast = self.disk / "ballast"
        was_full = False
        try:
            with ballast.open("wb") as file:
                while True:
                    file.write(bytes(1 << 20))
        except OSError:
            was_full = True
        self.pause(1, 3)
        ballast.unlink()
        return was_full


def rows(bed, grid, store, out, env):
    bed.run("analysis.rows", f"grid={grid}", f"store={store}", f"out={out}", env=env)
    with (out / "rows.csv").open() as file:
        return [
            {k: v for k, v in row.items() if k != "gpu_seconds"} for row in csv.DictReader(file)
        ]


@pytest.mark.slow
@pytest.mark.timeout(LASTS * 3)
def test_chaos(small_disk, bed, make_grid, tmp_path):  # in this order: jobs end before the disk
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(2**31)))
    print(f"CHAOS_SEED={seed}")
    chance = random.Random(seed)
    disk, mounted = small_disk
    kinds = [kind for kind in KINDS if mounted or kind not in OF_THE_DISK]
    seeds = "0, 1, 2, 3, 4, 5, 6, 7"
    grid = make_grid("chaos", 16, 10, sparsity="0.75", seeds=seeds, family=FAMILY)
    env = bed.pace.environment(bed.env)
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    bed.run("harness.launch", f"grid={grid}", f"store={calm}", seconds=1800, env=env)
    stages = len(list(calm.glob("stages/*/*/result.json")))
    assert stages == 24

    def launch():
        partition = f"cluster.slurm.partition={chance.choice(['main', 'grace'])}"
        words = (f"grid={grid}", f"store={wild}", "cluster=testbed", "cluster.workers=2", partition)
        return bed.run("harness.launch", *words, "cluster.timeout_min=10", env=env)

    chaos = Chaos(bed, wild, disk, kinds, chance)
    first_seen = {}

    def results():
        for path in wild.glob("stages/*/*/result.json"):
            first_seen.setdefault(path, path.stat().st_ino)
        return first_seen

    healed = time.monotonic()
    end = healed + LASTS
    while len(results()) < stages:
        assert time.monotonic() < end, (seed, chaos.dealt, bed.slurm("squeue"))
        behind = chaos.owed() and chaos.dealt.total() / FAULTS < len(results()) / stages
        bed.pace.set(HELD if behind else 0)
        if not bed.jobs() or chance.random() < 0.04:
            launch()  # queues nothing twice
        if chaos.owed() and (jobs := chaos.running()):
            chaos.deal(jobs)
            if not behind:
                chaos.pause(0, 1.5)
        if time.monotonic() - healed > 20:  # as an admin does: resume drained nodes
            bed.testbed("up")
            healed = time.monotonic()
        time.sleep(0.3)
    bed.slurm("scancel", "--me", "--state=PENDING")  # they would find nothing to train
    # a controller that was killed before it saved may list an ended job as running
    gone = {"RUNNING", "COMPLETING"}
    bed.wait(lambda: not bed.workers(wild) and set(bed.jobs().values()) <= gone)
    bed.empty()
    print(chaos.dealt, "tried:", chaos.tried)
    assert job_registry.read_records(wild)  # launches recorded what they queued
    assert chaos.dealt.total() >= 30, f"too few faults fitted in (CHAOS_SEED={seed}): {chaos.dealt}"
    assert set(chaos.dealt) == set(kinds), f"CHAOS_SEED={seed}: {chaos.dealt} of {chaos.tried}"
    assert "nothing left to do" in launch()

    expected = rows(bed, grid, calm, tmp_path / "a", env)
    assert rows(bed, grid, wild, tmp_path / "b", env) == expected, f"CHAOS_SEED={seed}"
    for path, inode in first_seen.items():
        assert path.stat().st_ino == inode  # written once
        both = (path, calm / path.relative_to(wild))
        mine, theirs = (json.loads(result.read_text()) for result in both)
        mine.pop("timing"), mine.pop("sha256")
        theirs.pop("timing"), theirs.pop("sha256")
        assert mine == theirs, f"CHAOS_SEED={seed}"
        bits = [(result.parent / "correct.npz").read_bytes() for result in both]
        assert bits[0] == bits[1], f"CHAOS_SEED={seed}"
    logs = "\n".join(path.read_text() for path in wild.glob("sweeps/*/logs/*/*/*.out"))
    finished = [line for line in logs.splitlines() if line.startswith("finished")]
    assert len(finished) == len(set(finished))
