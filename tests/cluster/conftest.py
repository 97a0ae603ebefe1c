"""A real SLURM for the tests, and commands run against it as a user runs them."""

import contextlib
import importlib
import io
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

    def testbed(self, *verb: str) -> str:
        """Run a verb of the testbed."""
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

    def enter(self) -> None:
        """Have SLURM's commands mean it."""
        line = self.testbed("env").strip().removeprefix("export ")
        key, _, value = line.partition("=")
        self.env[key] = value

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

        With options in a process of its own, as all that trains here has to; else in this one,
        which has imported it already: half of the time that a verb takes.
        """
        if not options:
            return self._run_here(module, [str(arg) for arg in args], code)
        seconds = options.pop("seconds", 240)
        process = self.command(module, *args, **options)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{module} took over {seconds:.0f} s: {self.end(process)}")
        assert process.returncode == code, output
        return output

    def _run_here(self, module: str, args: list[str], code: int) -> str:
        said = io.StringIO()
        main = importlib.import_module(module).main
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [module, *args])
            patch.setenv("SLURM_CONF", self.env["SLURM_CONF"])
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
                    for pid in pids:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, how)
                    if how == signal.SIGSTOP:
                        over.wait(0.9)

        thread = threading.Thread(target=slow)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

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

    def wait(self, test, seconds: float = 240.0) -> None:
        """Wait for something, with a deadline."""
        end = time.monotonic() + seconds
        while not test():
            assert time.monotonic() < end, (
                f"waited {seconds:.0f} s\n" + self.slurm("squeue") + self.slurm("sinfo", "-N")
            )
            time.sleep(0.3)


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
    _bed.testbed("up")
    yield _bed
    for process in _bed.processes:
        if process.poll() is None:
            _bed.end(process)
    _bed.processes.clear()
    _bed.testbed("up")
    _bed.empty()


@pytest.fixture
def make_grid(tmp_path):
    """(name, epochs, ...) -> path of a grid file of few small stages."""

    def make(name="tiny", epochs=4, level_epochs=2, sparsity="0.0", seeds="0"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            GRID.format(epochs=epochs, level_epochs=level_epochs, sparsity=sparsity, seeds=seeds)
        )
        return path

    return make
