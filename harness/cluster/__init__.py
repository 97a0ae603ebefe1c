"""Run a sweep's stages on SLURM or on this machine: submission, workers, failures, states."""

from harness.cluster import environment  # first: it removes what submitit reads when imported
from harness.cluster.job_registry import Scheduler
from harness.cluster.selection import names_of_trials, value_of
from harness.cluster.settlement import read_settlement
from harness.cluster.state import stage_states
from harness.cluster.sweep_view import Sweep, read_again, read_states, read_sweep

__all__ = [
    "Scheduler",
    "Sweep",
    "environment",
    "names_of_trials",
    "read_again",
    "read_settlement",
    "read_states",
    "read_sweep",
    "stage_states",
    "value_of",
]
