"""How the ranks of a job connect: the environment variables that torch and DeepSpeed read.

Rank 0 takes a port that is free on its node and writes address and port to a file in the job's
folder; the other ranks wait for that file, with a deadline. Ports computed from job ids clash.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from harness.cluster import slurm
from harness.cluster.job_script import TRY
from harness.errors import UserError
from harness.files import write_json

WAIT_SECONDS = 120.0


def export_rank_variables(folder: Path, message: str | None = None) -> str | None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT of a task.

    A job of one task runs without them (`environment.clean_worker` removes them). Every rank
    returns the `message` that rank 0 passed in.
    Raises UserError when rank 0 does not write its address in time.
    """
    from submitit import JobEnvironment

    job = JobEnvironment()
    if job.num_tasks == 1:
        return message
    attempt = f"{slurm.restarts()}-{os.environ.get(TRY, '1')}"
    path = folder / f"rendezvous-{job.job_id}-{attempt}.json"
    if job.global_rank == 0:
        address = "127.0.0.1" if job.num_nodes == 1 else socket.gethostname()
        with socket.socket() as probe:
            probe.bind(("", 0) if job.num_nodes > 1 else (address, 0))
            port = probe.getsockname()[1]
            write_json(path, {"address": address, "port": port, "message": message})
    deadline = time.monotonic() + WAIT_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise UserError(
                f"rank 0 of job {job.job_id} did not write {path} within {WAIT_SECONDS:.0f} s: "
                "see its log; is the store visible from every node?"
            )
        time.sleep(0.1)
    rank_0 = json.loads(path.read_bytes())
    os.environ.update(
        RANK=str(job.global_rank),
        WORLD_SIZE=str(job.num_tasks),
        LOCAL_RANK=str(job.local_rank),
        LOCAL_WORLD_SIZE=str(-(-job.num_tasks // job.num_nodes)),
        MASTER_ADDR=rank_0["address"],
        MASTER_PORT=str(rank_0["port"]),
    )
    message = rank_0["message"]
    return None if message is None else str(message)
