"""The lines that are added to submitit's job script: the path of the code, and a repeated srun.

Where the controller or a node does not answer for some seconds, srun ends before it has started
every task. Then there is no worker that could requeue the job, and the job would leave the queue.
So the script calls srun again. Each task makes a file when SLURM has started it. If all files
exist, a worker failed: srun is not repeated, because a worker itself decides what follows.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.cluster.environment import READ_AT_IMPORT

TRY = "HARNESS_TRY"
"""Environment variable of a task: 1 if the first call of srun started it, 2 if the second, ..."""
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
        begun=({begun}-*)  # the files of the tasks that have started
        [ -e "${{begun[{last}]:-}}" ] && return $code
        echo "note: SLURM did not start all tasks (exit code $code of srun)"
    done
    return $code
}}"""
TASK = """trap '' USR2; : > {begun}-$SLURM_PROCID; exec "$0" "$@\""""
"""What a task runs first. SIGUSR2 would end a worker that does not listen to signals yet."""


def setup(folder: Path, snapshot: Path, tasks: int, own: Sequence[str]) -> list[str]:
    """Return the lines before submitit's call of srun.

    `folder` is that of the submission, `snapshot` the code to run, `own` the profile's own lines.
    """
    code = shlex.quote(str(snapshot))
    return [
        *own,
        f"unset {READ_AT_IMPORT}",
        # The copy of the code comes first, because a job may start in the folder of the checkout.
        # `:+` avoids an empty entry, which Python reads as the current folder.
        f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1",
        SRUN.format(TRY=TRY, begun=_begun(folder), last=tasks - 1),
    ]


def task_command(folder: Path, python: str) -> str:
    """Return the beginning of each task's command, to which submitit appends module and folder."""
    return f"bash -c {shlex.quote(TASK.format(begun=_begun(folder)))} {python}"


def _begun(folder: Path) -> str:
    """Return shell code for how the paths of the files begin that show which tasks started."""
    return f"{shlex.quote(str(folder))}/begun-$SLURM_JOB_ID"
