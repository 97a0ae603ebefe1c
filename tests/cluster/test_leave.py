"""A job's process leaves at once, with its own exit code, when all is closed."""

import os
import subprocess
import sys

import pytest
import submitit

from harness.cluster.leave import Leave

CODE = """
import atexit, sys, types
from harness.cluster.leave import JOB, Leave

class Global:
    def __del__(self):
        print("taken apart")

held = Global()
sys.modules["__main__"].__spec__ = types.SimpleNamespace(name={main})
leave = Leave().install()
leave.keep_imports()
atexit.register(print, "closed")
"""


def ended(rest, main="JOB"):
    words = [sys.executable, "-c", CODE.format(main=main) + rest]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.split("\n")[:-1], done.stderr


@pytest.mark.parametrize("code", [0, 85])
def test_all_is_closed_and_nothing_taken_apart(code):
    assert ended(f"leave.code = {code}\nraise SystemExit({code})") == (code, ["closed"], "")


@pytest.mark.parametrize(
    ("rest", "main", "code"),
    [
        ("raise SystemExit(3)", "JOB", 3),
        ("leave.code = 0\nraise OSError('no space for the result')", "JOB", 1),
        ("leave.code = 0\nraise SystemExit(4)", "'a.notebook'", 4),
    ],
    ids=["unknown", "an exception after", "no job"],
)
def test_otherwise_it_ends_as_python_does(rest, main, code):
    found, said, errors = ended(rest, main)
    assert (found, said) == (code, ["closed", "taken apart"])
    assert ("no space for the result" in errors) == ("OSError" in rest)


@pytest.mark.parametrize("at_once", [True, False])
def test_jobs_of_submitit_are_told_by_their_main_module(tmp_path, at_once):
    class Global:
        def __del__(self, create=os.mkdir, path=str(tmp_path / "taken apart")):
            create(path)  # modules are gone by now

    def work():
        globals()["held"] = Global()
        if at_once:
            leave = Leave().install()
            leave.keep_imports()
            leave.code = 0

    job = submitit.LocalExecutor(tmp_path).submit(work)
    assert job.result() is None
    job._process.wait(60)  # the task's own end, not only its result
    assert (tmp_path / "taken apart").exists() == (not at_once)
