"""Commands of the harness in processes of their own, and the processes that they start."""

import subprocess
import sys
from pathlib import Path

from harness.store.claims import look

ROOT = Path(__file__).parents[2]


def command(module, *args, **options):
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, args)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options,
    )  # fmt: skip


def run(module, *args, code=0, timeout=300):
    process = command(module, *args)
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == code, output
    return output


def descendants(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        direct = [int(p) for p in children.read_text().split()]
    except OSError:
        return []
    return direct + [q for p in direct for q in descendants(p)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def training(store):
    """Return whether a worker has begun to train: there is a live claim."""
    claims = store.glob("stages/*/*/claim")
    return any((state := look(claim.parent)) is not None and state.live for claim in claims)
