"""The lines of a job's script beside those of submitit: its code, and a patient srun.

Where the controller or a node does not answer for some seconds, srun ends before it has started
every task. Then there is no worker that could requeue the job, and the job would leave the queue.
So the script calls srun again. Each task makes a file when SLURM has started it: if all files are
there, a worker failed, which only the worker itself can judge.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.cluster.environment import READ_AT_IMPORT

TRY = "HARNESS_TRY"
"""Variable with the number of the call of srun that started a task."""
SRUN = """\
# srun, again where SLURM did not answer in time and so did not start every task
function srun {{
    local code begun
    for {TRY} in 1 2 3 4 5; do
        export {TRY}
        sleep $((5 * ({TRY} - 1)))
        rm -f {begun}-*
        command srun "$@" && return 0
        code=$?
        begun=({begun}-*)
        [ -e "${{begun[{last}]:-}}" ] && return $code
        echo "note: SLURM did not start all tasks (exit code $code of srun)"
    done
    return $code
}}"""
TASK = """trap '' USR2; : > {begun}-$SLURM_PROCID; exec "$0" "$@\""""
"""What a task runs first. SIGUSR2 would end a worker that does not listen to signals yet."""


def setup(folder: Path, snapshot: Path | None, tasks: int, own: Sequence[str]) -> list[str]:
    """Return the lines before submitit's call of srun.

    `folder` is that of the submission, `snapshot` the code to run, `own` the profile's own lines.
    """
    code = shlex.quote(str(snapshot))
    return [
        *own,
        f"unset {READ_AT_IMPORT}",
        # The copy of the code comes before the checkout in whose folder a job may start. An
        # empty entry would stand for that folder.
        f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1",
        SRUN.format(TRY=TRY, begun=_begun(folder), last=tasks - 1),
    ]


def task_command(folder: Path, python: str) -> str:
    """Return the beginning of each task's command, to which submitit appends module and folder."""
    return f"bash -c {shlex.quote(TASK.format(begun=_begun(folder)))} {python}"


def _begun(folder: Path) -> str:
    """Return how the paths begin of the files that the tasks of a job make, in shell code."""
    return f"{shlex.quote(str(folder))}/begun-$SLURM_JOB_ID"
