"""What to train: a grid, its trials, the stages that they share, and the plan of all of it.

Nothing here imports torch: status and analysis rest on it.
"""

from harness.sweep.grid import Grid, make_grid
from harness.sweep.plan import Plan, gangs, lineage, make_plan, todo
from harness.sweep.trial import Trial

__all__ = ["Grid", "Plan", "Trial", "gangs", "lineage", "make_grid", "make_plan", "todo"]
