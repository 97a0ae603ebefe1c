"""A real SLURM for the tests, which runs the commands of the harness as a user runs them."""

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pace import Pace, separate_registries

from harness.errors import command

ROOT = Path(__file__).parents[2]
TESTBED = ROOT / "slurm/testbed/testbed"
TAKE_JOBS = {"idle", "mix", "alloc", "comp", "plnd"}  # sinfo's states of nodes that accept jobs


class Bed:
    """A SLURM of two nodes in its own folder; see slurm/testbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = dict(os.environ)
        self.processes: list[subprocess.Popen] = []
        self.disturbed = False
        self.pace = Pace(folder.with_name("pace"))

    def testbed(self, *verb: str) -> str:
        """Run a verb of the testbed; returns its output."""
        self.disturbed = True
        done = subprocess.run(
            [str(TESTBED), "--dir", str(self.folder), *verb],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self) -> None:
        """Start it, and use it in the commands of this object."""
        self.testbed("up")
        self.enter()
        self.disturbed = False

    def daemon(self, name: str) -> int:
        """Return the PID of a daemon: `slurmctld`, or that of a node."""
        record = json.loads((self.folder / "testbed.json").read_text())
        return record["processes"][name][0]

    def enter(self) -> None:
        """Use this SLURM in the commands of this object."""
        line = self.testbed("env").strip().removeprefix("export ")
        key, _, value = line.partition("=")
        self.env[key] = value

    def mend(self) -> None:
        """Start daemons again that were killed, and resume nodes that SLURM has drained."""
        states = ("sinfo", "--noheader", "-N", "-p", "main", "-o", "%t")
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            are_up = {state.rstrip("-") for state in self.slurm(*states).split()} <= TAKE_JOBS
            if are_up and not self.disturbed:
                return
        self.testbed("up")
        self.disturbed = False

    def settle(self) -> None:
        """End all processes and jobs that tests started, and leave a SLURM that works."""
        self.pace.set(0)
        for process in self.processes:
            if process.poll() is None:
                self.end(process)
        self.processes.clear()
        self.mend()
        self.empty()

    def slurm(self, *words: str) -> str:
        """Return the output of a command of SLURM, which must succeed."""
        done = subprocess.run(
            words, env=self.env, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, (words, done.stdout + done.stderr)
        return done.stdout

    def attempt(self, *words: str) -> bool:
        """Return whether a command of SLURM succeeds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(words, env=self.env, capture_output=True, check=False, timeout=60)
            return done.returncode == 0
        return False

    def jobs(self) -> dict[str, str]:
        """Return the state of every job in the queue, by id; a busy controller is asked again."""
        ask = ("squeue", "--noheader", "--array", "--format=%i %T")
        for _ in range(5):
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                return dict(line.split() for line in self.slurm(*ask).splitlines() if line.strip())
            time.sleep(2.0)
        pytest.fail("squeue does not answer")

    def command(self, module: str, *args: object, **options) -> subprocess.Popen:
        """Start a command of the harness."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, args)],
            cwd=options.pop("cwd", ROOT), env=options.pop("env", self.env), text=True,
            stdout=options.pop("stdout", subprocess.PIPE), stderr=subprocess.STDOUT, **options,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def save_state(self) -> None:
        """Wait until the controller has saved what it knows, such as that older jobs have ended.

        A held job makes it save, within some 5 s; `start_controller` cancels that job. Once in a
        dozen runs the file kept its time, so this does not wait longer than 30 s.
        """
        began = time.time()
        self.slurm("sbatch", "--hold", "--job-name=probe", "--output=/dev/null", "--wrap=true")
        end = time.monotonic() + 30
        state = self.folder / "state/job_state"
        while time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError):  # at first, and while it is replaced
                if state.stat().st_mtime > began:
                    return
            time.sleep(0.3)

    def start_controller(self) -> None:
        """Start the controller again, with the state that it saved last."""
        self.testbed("start-controller")
        self.wait(lambda: self.attempt("scancel", "--me", "--name=probe"))

    def end(self, process: subprocess.Popen) -> str:
        """End a command that may still run; returns the rest of its output."""
        output = None
        for end in (process.terminate, process.kill):  # a launch stops its workers first
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, _ = process.communicate(timeout=300)
                break
        return output or ""

    def run(self, module: str, *args: object, code: int = 0, **options) -> str:
        """Run a command of the harness to its end; returns its output.

        With options it runs in a process of its own, as a launch that trains on this machine must.
        Without, it runs in this process, which saves the imports: half of a command's time.
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
        output = io.StringIO()
        main = importlib.import_module(module.replace("harness.", "harness.commands.")).main
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [module, *args])
            patch.setenv("SLURM_CONF", self.env["SLURM_CONF"])
            for key, value in env.items() - self.env.items():
                patch.setenv(key, value)
            patch.setattr(sys, "stdout", output)
            patch.setattr(sys, "stderr", output)
            with separate_registries(), pytest.raises(SystemExit) as ended:
                command(main)
        assert ended.value.code == code, output.getvalue()
        return output.getvalue()

    @contextlib.contextmanager
    def frozen(self, store: Path):
        """Suspend the workers of a store."""
        with self.frozen_when(store, lambda: True, seconds=0.0):
            yield

    @contextlib.contextmanager
    def frozen_when(self, store: Path, test, seconds: float = 240.0):
        """Wait until `test` holds while the workers of a store are suspended; then leave them so.

        They run between two tests only. So what the test sees cannot be over before it is used,
        however busy the machine is.
        """
        end = time.monotonic() + seconds
        while True:
            pids = self.workers(store)
            self.send(pids, signal.SIGSTOP)
            try:
                if pids and test():
                    yield
                    return
            finally:
                self.send(pids, signal.SIGCONT)
            assert time.monotonic() < end, f"waited {seconds:.0f} s\n" + self.slurm("squeue")
            time.sleep(0.05)

    def send(self, pids: list[int], number: signal.Signals) -> None:
        """Send a signal to processes, of which some may have ended."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def workers(self, store: Path) -> list[int]:
        """Return the PIDs of the tasks that submitit runs for a store."""
        pids = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            is_task = b"submitit.core._submit" in words
            is_ours = str(store).encode() in b" ".join(words)
            if is_task and is_ours and Path(words[0].decode()).name.startswith("python"):
                pids.append(int(process.name))
        return pids

    def empty(self) -> None:
        """End all jobs; where the controller lists a job that no longer runs, restart the nodes."""
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

    def wait(self, test, seconds: float = 600.0, pause: float = 0.3) -> None:
        """Wait until `test` returns true, with a deadline for hangs."""
        end = time.monotonic() + seconds
        while not test():
            assert time.monotonic() < end, (
                f"waited {seconds:.0f} s\n" + self.slurm("squeue") + self.slurm("sinfo", "-N")
            )
            time.sleep(pause)

    def wait_for_text(self, text: str, file: Path, seconds: float = 600.0) -> None:
        """Wait until a command has written `text` to a file, whether SLURM runs or not."""
        end = time.monotonic() + seconds
        while text not in file.read_text():
            assert time.monotonic() < end, file.read_text()
            time.sleep(0.1)
