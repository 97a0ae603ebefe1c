"""Run a sweep's stages on SLURM or on this machine: submission, workers, failures, states."""

from harness.cluster.job_registry import Scheduler, query_scheduler
from harness.cluster.state import stage_state, stage_states
from harness.cluster.sweep_view import Sweep, names_of_trials, read_again, read_sweep, value_of

__all__ = [
    "Scheduler",
    "Sweep",
    "names_of_trials",
    "query_scheduler",
    "read_again",
    "read_sweep",
    "stage_state",
    "stage_states",
    "value_of",
]
