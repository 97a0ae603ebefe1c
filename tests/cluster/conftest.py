"""A real SLURM for the tests, and commands run against it as a user runs them."""

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from harness.errors import command

ROOT = Path(__file__).parents[2]
TESTBED = ROOT / "slurm/testbed/testbed"
TAKE_JOBS = {"idle", "mix", "alloc", "comp", "plnd"}  # sinfo's words for nodes
GRID = """# A few small trials on the digits, for tests.
defaults:
  - override /dataset: digits
  - override /model: cifar_resnet
  - override /recipe: quick
model: {{depth: 8}}
dataset: {{train_size: 256, validation_size: 128, test_size: 128}}
recipe: {{epochs: {epochs}, batch_size: 32}}
compress: {{level_share: 0.5, level_epochs: {level_epochs}}}
run: {{engine: ddp, checkpoint_seconds: 0.2}}
axes:
  width: [0.25]
  sparsity: [{sparsity}]
  magnitude: [none]
  seed: [{seeds}]
"""


class Bed:
    """A SLURM of two nodes in a folder of its own; see slurm/testbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = dict(os.environ)
        self.processes: list[subprocess.Popen] = []
        self.disturbed = False

    def testbed(self, *verb: str) -> str:
        """Run a verb of the testbed."""
        self.disturbed = True
        said = subprocess.run(
            [str(TESTBED), "--dir", str(self.folder), *verb],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    def up(self) -> None:
        """Start it."""
        self.testbed("up")
        self.enter()
        self.disturbed = False

    def enter(self) -> None:
        """Have SLURM's commands mean it."""
        line = self.testbed("env").strip().removeprefix("export ")
        key, _, value = line.partition("=")
        self.env[key] = value

    def mend(self) -> None:
        """Start again what was ended, and nodes that SLURM has drained."""
        states = ("sinfo", "--noheader", "-N", "-p", "main", "-o", "%t")
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            well = {word.rstrip("-") for word in self.slurm(*states).split()} <= TAKE_JOBS
            if well and not self.disturbed:
                return
        self.testbed("up")
        self.disturbed = False

    def settle(self) -> None:
        """End all that tests started, on a SLURM that works."""
        for process in self.processes:
            if process.poll() is None:
                self.end(process)
        self.processes.clear()
        self.mend()
        self.empty()

    def slurm(self, *words: str) -> str:
        """Output of a command of SLURM, which must succeed."""
        said = subprocess.run(
            words, env=self.env, capture_output=True, text=True, check=False, timeout=60
        )
        assert said.returncode == 0, (words, said.stdout + said.stderr)
        return said.stdout

    def attempt(self, *words: str) -> bool:
        """Whether a command of SLURM succeeds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            said = subprocess.run(words, env=self.env, capture_output=True, check=False, timeout=15)
            return said.returncode == 0
        return False

    def jobs(self) -> dict[str, str]:
        """State of every job in the queue, by id. A busy controller is asked again."""
        ask = ("squeue", "--noheader", "--array", "--format=%i %T")
        for _ in range(5):
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                return dict(line.split() for line in self.slurm(*ask).splitlines() if line.strip())
            time.sleep(2.0)
        pytest.fail("squeue does not answer")

    def command(self, module: str, *args: object, **options) -> subprocess.Popen:
        """Start a verb of the harness."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, args)],
            cwd=options.pop("cwd", ROOT), env=options.pop("env", self.env), text=True,
            stdout=options.pop("stdout", subprocess.PIPE), stderr=subprocess.STDOUT, **options,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def end(self, process: subprocess.Popen) -> str:
        """End a verb that may still run; what it said last."""
        output = None
        for how in (process.terminate, process.kill):  # a launch tells its workers first
            how()
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, _ = process.communicate(timeout=30)
                break
        return output or ""

    def run(self, module: str, *args: object, code: int = 0, **options) -> str:
        """Run a verb of the harness to its end.

        With options in a process of its own, as all that trains here has to; else, whatever its
        environment, in this one, which has imported it already: half of the time that a verb takes.
        """
        if options.keys() <= {"env"}:
            env = options.get("env", self.env)
            return self._run_here(module, [str(arg) for arg in args], code, env)
        seconds = options.pop("seconds", 240)
        process = self.command(module, *args, **options)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{module} took over {seconds:.0f} s: {self.end(process)}")
        assert process.returncode == code, output
        return output

    def _run_here(self, module: str, args: list[str], code: int, env: dict[str, str]) -> str:
        said = io.StringIO()
        main = importlib.import_module(module.replace("harness.", "harness.commands.")).main
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [module, *args])
            patch.setenv("SLURM_CONF", self.env["SLURM_CONF"])
            for key, value in env.items() - self.env.items():
                patch.setenv(key, value)
            patch.setattr(sys, "stdout", said)
            patch.setattr(sys, "stderr", said)
            with pytest.raises(SystemExit) as ended:
                command(main)
        assert ended.value.code == code, said.getvalue()
        return said.getvalue()

    @contextlib.contextmanager
    def slowed(self, store: Path):
        """What trains for a store runs a tenth of the time, so that it lasts at little cost."""
        over = threading.Event()

        def slow() -> None:
            while not over.wait(0.1):
                pids = self.workers(store)
                for how in (signal.SIGSTOP, signal.SIGCONT):
                    self.tell(pids, how)
                    if how == signal.SIGSTOP:
                        over.wait(0.9)

        thread = threading.Thread(target=slow)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextlib.contextmanager
    def frozen(self, store: Path):
        """What trains for a store does not go on for a while."""
        pids = self.workers(store)
        assert pids
        self.tell(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            self.tell(pids, signal.SIGCONT)

    def tell(self, pids: list[int], how: signal.Signals) -> None:
        """Send a signal to processes, of which some may have ended."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)

    def workers(self, store: Path) -> list[int]:
        """Processes that train for jobs of a store: the tasks that submitit runs."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            ours = b"submitit.core._submit" in words and str(store).encode() in b" ".join(words)
            if ours and Path(words[0].decode()).name.startswith("python"):
                found.append(int(process.name))
        return found

    def empty(self) -> None:
        """End all jobs; one that a controller only believes to run ends with its node."""
        for nodes in ((), ("n1", "n2")):
            for node in nodes:
                self.testbed("kill-node", node)
                self.testbed("revive-node", node)
            self.attempt("scancel", "--me")
            with contextlib.suppress(AssertionError):
                self.wait(lambda: not self.jobs(), 60)
                return
        pytest.fail("jobs do not end: " + self.slurm("squeue"))

    def drain(self, seconds: float = 900.0) -> None:
        """Wait until the queue is empty; a requeued job is held for 11 s."""
        self.wait(lambda: not self.jobs(), seconds)

    def wait(self, test, seconds: float = 240.0, pause: float = 0.3) -> None:
        """Wait for something, with a deadline."""
        end = time.monotonic() + seconds
        while not test():
            assert time.monotonic() < end, (
                f"waited {seconds:.0f} s\n" + self.slurm("squeue") + self.slurm("sinfo", "-N")
            )
            time.sleep(pause)

    def until_said(self, words: str, file: Path, seconds: float = 120.0) -> None:
        """Wait until a command has written something to a file, whether SLURM runs or not."""
        end = time.monotonic() + seconds
        while words not in file.read_text():
            assert time.monotonic() < end, file.read_text()
            time.sleep(0.1)


class Sweep:
    """A grid and its store. What is said of stages is said of all that the store has."""

    def __init__(self, bed: Bed, grid: Path, store: Path, *more: str) -> None:
        self.bed, self.grid, self.store, self.more = bed, grid, store, more

    def args(self, *more: str) -> tuple[str, ...]:
        """The command line of every verb."""
        return f"grid={self.grid}", f"store={self.store}", "cluster=testbed", *self.more, *more

    def run(self, verb: str, *more: str, code: int = 0) -> str:
        """What a verb says of it."""
        return self.bed.run(f"harness.{verb}", *self.args(*more), code=code)

    def results(self) -> list[Path]:
        """Files of the stages that are done."""
        return sorted(self.store.glob("stages/*/*/result.json"))

    def step(self) -> int:
        """The newest one that is saved."""
        names = [path.name for path in self.store.glob("stages/*/*/checkpoint/step-*.pt")]
        return max((int(name[5:13]) for name in names), default=0)

    def is_training(self, finished: int) -> bool:
        """Whether a stage trains and has saved a step, after so many that are done."""
        folders = [path.parent for path in self.store.glob("stages/*/*/claim")]
        saved = [folder for folder in folders if list(folder.glob("checkpoint/step-*.pt"))]
        has_open = any(not (folder / "result.json").exists() for folder in saved)
        return has_open and len(self.results()) == finished

    def failures(self, key: str = "class") -> list[str]:
        """Classes of all failures, or what else is recorded of them, oldest first."""
        found = [
            json.loads(path.read_text()) for path in self.store.glob("stages/*/*/failures/*.json")
        ]
        return [record[key] for record in sorted(found, key=lambda record: record["time"])]

    def finish(self) -> None:
        """Wait for SLURM; launch again until nothing is left."""
        for _ in range(4):
            self.bed.drain()
            if "nothing left to do" in self.run("launch"):
                return
        pytest.fail(f"something is left to do: {self.failures()}")


class Training(Sweep):
    """One long stage that the tests of a file disturb in turn, each wherever the last left it.

    A job's start takes longer than all that a test has to see of its training. Any test may be
    the first one, or the only one.
    """

    def __init__(self, bed: Bed, folder: Path, epochs: int, *always: str) -> None:
        super().__init__(bed, write_grid(folder / "long.yaml", epochs=epochs), folder / "store-0")
        self.always = always

    def under_way(self, *more: str) -> str:
        """The id of its one job, which trains: launched with `more` where none is."""
        self.bed.mend()
        wanted = (*self.always, *more)
        if self.more != wanted or self.results() or len(self.bed.jobs()) != 1:
            self.more = wanted
            self.bed.empty()
            if self.results():
                self.store = self.store.with_name(f"store-{len(list(self.store.parent.iterdir()))}")
        self.go_on()
        self.bed.wait(lambda: len(self.bed.jobs()) == 1)  # one that went before may be ending
        return next(iter(self.bed.jobs()))

    def go_on(self) -> None:
        """Wait until it has trained and saved; launch it where a fault left no job."""
        before = self.step()
        if not self.bed.jobs():
            self.run("launch")
        self.bed.wait(lambda: self.step() > before, pause=0.05)  # much is to happen before it ends
        assert not self.results(), "it is too short for what happens to it"


@pytest.fixture(scope="session")
def _bed():
    with tempfile.TemporaryDirectory(prefix="bed-") as folder:
        bed = Bed(Path(folder) / "slurm")
        try:
            bed.up()
            yield bed
        finally:
            bed.testbed("down")


@pytest.fixture
def bed(_bed):
    """The running SLURM, with an empty queue and healthy nodes before and after."""
    _bed.mend()
    if _bed.jobs():  # of a training, which its tests left early
        _bed.empty()
    yield _bed
    _bed.settle()


def write_grid(path, epochs=4, level_epochs=2, sparsity="0.0", seeds="0"):
    """A grid file of few small stages."""
    path.write_text(
        GRID.format(epochs=epochs, level_epochs=level_epochs, sparsity=sparsity, seeds=seeds)
    )
    return path


@pytest.fixture
def make_grid(tmp_path):
    """(name, epochs, ...) -> path of a grid file of few small stages."""
    return lambda name="tiny", *args, **more: write_grid(tmp_path / f"{name}.yaml", *args, **more)


@pytest.fixture
def make_sweep(bed, make_grid, tmp_path):
    """(epochs, ...) -> a sweep that has yet to be launched."""
    return lambda *more, **grid: Sweep(bed, make_grid(**grid), tmp_path / "store", *more)


@pytest.fixture(scope="module")
def make_training(_bed, tmp_path_factory):
    """(epochs, words of every launch) -> a training that the tests of a file share.

    They take no `bed`, which would end its job with each of them.
    """
    yield lambda epochs, *always: Training(_bed, tmp_path_factory.mktemp("long"), epochs, *always)
    _bed.settle()
