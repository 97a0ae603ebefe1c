"""What launch checks before anything is trained or queued; a dry run reports the same sentences."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence

from harness.config import Launch
from harness.errors import UserError
from harness.schema import DatasetConfig
from harness.states import UNDER_WAY, StageState
from harness.store.store import Store
from harness.sweep import cost, teachers
from harness.sweep.check import depends_on_layers
from harness.sweep.mistakes import Mistakes
from harness.sweep.plan import Plan


def check_budget(
    launch: Launch,
    plan: Plan,
    store: Store,
    states: Mapping[str, StageState],
    remaining: Sequence[str],
) -> None:
    """Raise UserError if the `remaining` stages and those under way cost more than `budget`."""
    hours = launch.options["budget"]
    if hours is None:
        return
    under_way = [
        stage
        for stage, state in states.items()
        if state.name in UNDER_WAY and stage not in remaining
    ]
    cost.check_budget(plan, states, [*remaining, *under_way], store.root, hours)


def check_layers(plan: Plan, remaining: Sequence[str]) -> list[str]:
    """Raise UserError if a model has no layers that suit its pruning or surplus, naming each.

    Returns a note where this cannot be checked because torch cannot be imported.
    """
    configs = [plan.stages[stage] for stage in remaining if depends_on_layers(plan.stages[stage])]
    if not configs:
        return []
    try:
        from harness.compress import layers
    except ImportError:
        return ["torch cannot be imported here, so whether every model has layers that suit its "
                "pruning and surplus was not checked"]  # fmt: skip
    mistakes = Mistakes()
    for sentence in layers.misfits(configs):
        key, _, rest = sentence.partition(": ")
        mistakes.add(key, rest)
    mistakes.raise_any("the grid has")
    return []


def missing_packages(launch: Launch) -> str | None:
    """Return a sentence if packages that training needs are not installed here; else None.

    Jobs in a container (cluster.slurm.python) have packages of their own.
    """
    if launch.cluster.slurm.python is not None:
        return None
    packages = ["torch", "deepspeed"] if launch.run.engine == "deepspeed" else ["torch"]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return (
        f"training needs {' and '.join(missing)}, which {sys.executable} does not have: run make "
        "setup in the checkout, or install the wheel with its extra [train]"
    )


def provide_data(launch: Launch) -> None:
    """Download missing data sets here, where there may be a network. Raises UserError.

    The error is the one that a worker would meet later.
    """
    from harness.data.catalog import CATALOG, missing

    can_download = importlib.util.find_spec("torchvision") is not None
    for config, problem in _data_problems(launch):
        info = CATALOG[config.name]
        is_missing = problem == missing(info, launch.run.data_root)
        if info.torchvision is None or not can_download or not is_missing:
            raise UserError(problem)
        from harness.data.download import download

        print(f"the data set {info.name} is not there, downloading it", flush=True)
        download(info, launch.run.data_root)


def unchecked(launch: Launch) -> list[str]:
    """Return a sentence for each property of a teacher that cannot be checked on this machine."""
    configs = {trial.config.teacher for trial in launch.grid.trials}
    sentences = [teachers.unchecked(str(config.name)) for config in configs if config.acts]
    return sorted({sentence for sentence in sentences if sentence})


def dry_run_notes(launch: Launch) -> list[str]:
    """Return what would keep the sweep from running on this machine, and what is not checked."""
    from harness.train import trackers

    sentences = [missing_packages(launch) or ""]
    sentences += [problem for _, problem in _data_problems(launch)]
    sentences.append(trackers.missing(launch.run.tracker) or "")
    sentences += unchecked(launch)
    return [sentence for sentence in dict.fromkeys(sentences) if sentence]


def _data_problems(launch: Launch) -> Iterator[tuple[DatasetConfig, str]]:
    """Yield the grid's data sets whose images this run cannot read, each with the reason."""
    from harness.data.source import ffcv_absent, problem

    run = launch.run
    # in a container FFCV may be installed although it is not installed here
    in_container = launch.cluster.slurm.python is not None
    find_trouble = (lambda: None) if in_container else ffcv_absent
    for config in sorted({trial.config.dataset for trial in launch.grid.trials}, key=str):
        if sentence := problem(config, run.data_root, run.loader, find_trouble):
            yield config, sentence
