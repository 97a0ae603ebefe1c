"""What the testbed needs from the machine: programs, processes, ports, host names."""

from __future__ import annotations

import contextlib
import fcntl
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HOSTS = Path("/etc/hosts")
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
PACKAGES = "slurmctld slurmd slurmdbd slurm-client munge mariadb-server"
PROGRAMS = "slurmctld slurmd slurmdbd sinfo sacctmgr munged munge mariadbd mariadb-install-db"
PORTS = range(17000, 32000, 8)  # 8 for each testbed; kernels give higher ports to clients


class Problem(Exception):
    """A problem that the user can solve; printed without a traceback, exit code 2."""


def wait(seconds: float, test: Callable[[], bool], problem: str) -> None:
    """Return as soon as `test` is true; raise `Problem` if it is not true within `seconds`."""
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            raise Problem(f"{problem} (waited {seconds:.0f} s)")
        time.sleep(0.1)


def start_time(pid: int) -> str:
    """Return when a process started, or "" if it has ended.

    PID and start time together identify a process.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"tick {fields[19]} of boot {BOOT}"


def job_processes(spool: Path, config: str) -> list[int]:
    """Return the PIDs of a node's step daemons and of the processes that its jobs started.

    `spool` is the working folder of the node's slurmd. Step daemons are found by this folder, which
    is theirs too, because their process title overwrites their environment. Processes of jobs are
    found by the configuration file and the node's name in their environment.
    """
    variables = {f"SLURM_CONF={config}".encode(), f"SLURMD_NODENAME={spool.name}".encode()}
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            program = (process / "exe").readlink().name
            is_daemon = program.startswith("slurm") and (process / "cwd").readlink() == spool
            if is_daemon or variables <= set((process / "environ").read_bytes().split(b"\0")):
                pids.append(int(process.name))
    return pids


def install(path: str) -> None:
    """Install missing programs with apt, or raise Problem with the names of the packages."""
    if missing := [name for name in PROGRAMS.split() if not shutil.which(name, path=path)]:
        subprocess.run(["sh", PROJECT / ".ci/packages", *PACKAGES.split()], check=False)
        missing = [name for name in missing if not shutil.which(name, path=path)]
    if missing:
        raise Problem(
            f"missing programs: {', '.join(missing)}. Install SLURM 22.05 or later, MUNGE and "
            f"MariaDB; on Debian and Ubuntu, as root: apt-get install {PACKAGES}"
        )


def free_ports() -> int:
    """Return the first of eight consecutive ports of 127.0.0.1 that are free."""
    # in a random order, so that two testbeds that start at once do not choose the same ports
    for first in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + PORTS.step):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise Problem(f"no {PORTS.step} consecutive ports are free from {PORTS.start} to {PORTS.stop}")


def lock(file: int, what: Path) -> None:
    """Lock an open file or folder until it is closed. `what` names it in the message.

    Raises Problem if another process keeps it locked for two minutes.
    """

    def attempt() -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    wait(120, attempt, f"another testbed command keeps {what} locked")


def edit_hosts(folder: Path, nodes: list[str]) -> None:
    """Put this testbed's line at the top of /etc/hosts; without `nodes`, remove the line.

    The line has the names of the nodes, by which ranks find each other, and this machine's own
    name. With NoInAddrAny, SLURM listens at the address of the latter (slurm_setup_addr), which
    often is a LAN address. The line makes it 127.0.0.1.
    """
    mark, name = f"# testbed {folder}\n", socket.gethostname()
    try:
        with HOSTS.open("r+") as file:
            lock(file.fileno(), HOSTS)
            old = file.readlines()
            new = [line for line in old if not line.endswith(mark)]
            if nodes:
                new.insert(0, f"127.0.0.1 localhost {' '.join(nodes)} {name} {mark}")
            if new != old:
                file.seek(0)
                file.write("".join(new))
                file.truncate()
    except OSError as error:
        if nodes:
            print(
                f"note: {HOSTS}: {error.strerror}, so the names {', '.join(nodes)} do not resolve"
            )
    try:
        address = socket.gethostbyname(name)
    except OSError:
        address = "nowhere"
    if nodes and address != "127.0.0.1":
        raise Problem(
            f"this machine's name, {name}, has the address {address}, where SLURM would listen. "
            f"As root, put the line `127.0.0.1 {name}` at the top of {HOSTS}"
        )
