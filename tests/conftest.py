"""Shared by all tests: one torch thread, so that figures and bits do not depend on the machine."""

import gc
import json
import os
import subprocess
import sys

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

LONGEST = ("test_chaos.py", "test_faults.py")


def pytest_collection_modifyitems(items):
    """What takes longest begins first, so that no process of several is left alone with it."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish():
    """Collect garbage less often, and not among all that was imported: a sixth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_unconfigure():
    """What is left is collected, as in any process that ends."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def world():
    """The one process group that a test process can have."""
    from harness.run_schema import RunConfig
    from harness.train.distributed import connected

    with connected(RunConfig(device="cpu")) as found:
        yield found


# Runs the code of each line in a child that has torch and nothing else; tells its exit code and
# what it printed.
CHILDREN = """
import atexit, gc, json, os, sys, tempfile, traceback
gc.disable()
import torch
gc.enable()
def run(code):
    try:
        exec(code, {"__name__": "__main__"})
        return 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return 1 if isinstance(ended.code, str) else ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
for line in sys.stdin:
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(said.fileno(), stream.fileno())
            code = run(json.loads(line))
            atexit._run_exitfuncs()
            sys.stdout.flush()
            os._exit(code)  # taking torch apart takes as long as most of what is run
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        print(json.dumps([code, said.read().decode()]), flush=True)
"""


@pytest.fixture(scope="session")
def in_child():
    """(code) -> what it prints, run in a process of its own that has torch already, which is most
    of what a start takes. Not for ranks: forked ones would share a seed of hashes.
    """
    words, pipes = [sys.executable, "-c", CHILDREN], {"stdin": subprocess.PIPE, "text": True}
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment, **pipes) as parent:

        def run(code):
            print(json.dumps(code), file=parent.stdin, flush=True)
            code, said = json.loads(parent.stdout.readline())
            assert code == 0, (code, said)
            return said

        yield run
        parent.stdin.close()


@pytest.fixture(autouse=True)
def same_environment():
    """Undo what commands that run in the tests' own process change in its environment."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)
