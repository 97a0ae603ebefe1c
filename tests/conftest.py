"""Settings and fixtures of all tests. One torch thread makes results independent of the machine."""

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
    """Start the longest files first, so that in the end no worker runs one of them alone."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish():
    """Collect garbage less often, and without the imported modules. It took a sixth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_unconfigure():
    """Undo `gc.freeze`, so that the process ends like any other."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def world():
    """Return the process group on the CPU; a test process can have only one."""
    from harness.run_schema import RunConfig
    from harness.train.distributed import connected

    with connected(RunConfig(device="cpu")) as process_group:
        yield process_group


# Program of a process that has imported torch. For each line of its input, a piece of code, it
# forks a child that runs the code, and prints the child's exit code and output.
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
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(output.fileno(), stream.fileno())
            code = run(json.loads(line))
            atexit._run_exitfuncs()
            sys.stdout.flush()
            os._exit(code)  # an ordinary exit, with torch, takes as long as most of the code
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        print(json.dumps([code, output.read().decode()]), flush=True)
"""


@pytest.fixture(scope="session")
def in_child():
    """Return a function that runs code in a process of its own and returns what the code prints.

    The process has already imported torch, which is most of the time of a start. Do not use it for
    ranks: they are forks of one process, so all have the same seed of Python's hashes.
    """
    words, pipes = [sys.executable, "-c", CHILDREN], {"stdin": subprocess.PIPE, "text": True}
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment, **pipes) as parent:

        def run(code):
            print(json.dumps(code), file=parent.stdin, flush=True)
            code, output = json.loads(parent.stdout.readline())
            assert code == 0, (code, output)
            return output

        yield run
        parent.stdin.close()


@pytest.fixture(autouse=True)
def same_environment():
    """Restore the environment variables that a command changed in the process of the tests."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)
