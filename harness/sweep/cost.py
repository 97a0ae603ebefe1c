"""What is still to be spent, from what stages of the same size took, or a pilot of that size."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from harness.cluster_schema import ClusterConfig
from harness.errors import UserError
from harness.files import Damaged, make_folder, read_json, write_json
from harness.schema import (
    DatasetConfig,
    ModelConfig,
    RunConfig,
    StageConfig,
    StageSurplus,
    TeacherConfig,
)
from harness.store.identity import digest
from harness.sweep.plan import Joins, Plan

if TYPE_CHECKING:
    from harness.sweep.states import StageState

MEMORY_SHARE = 0.8  # of a device's memory that a gang may fill
LARGEST_GANG = 8
WAITS_FOR_DATA = 0.2  # share of a step from which a gang pays: it shares data and nothing else


class Size(NamedTuple):
    """What decides how long an epoch of a stage takes."""

    dataset: DatasetConfig
    model: ModelConfig
    batch_size: int
    precision: str
    optimizer: str
    surplus: StageSurplus | None
    teacher: TeacherConfig | None


def size_key(config: StageConfig) -> Size:
    """Stages with equal keys take equally long per epoch.

    Narrowed channels are not told apart: what the dense model takes is an upper bound for them.
    """
    recipe = config.recipe
    return Size(
        config.dataset,
        config.model,
        recipe.batch_size,
        recipe.precision,
        recipe.optimizer.name,
        config.surplus,
        config.teacher,
    )


@dataclass(frozen=True)
class Pilot:
    """A short measurement of one size on one device (`python -m harness.pilot`)."""

    seconds_per_epoch: float  # device-seconds: seconds times ranks
    data_share: float  # of a step's time that went by waiting for its batch
    memory_bytes: int  # of one stage
    device_bytes: int  # that the device has, or the host for one worker
    device: str
    engine: str = ""  # and the rest as the run had them; those of old pilots are not known
    zero_stage: int = 0
    micro_batch_size: int | None = None
    loader: str = ""
    data_cache: str = ""

    def suits(self, run: RunConfig) -> bool:
        """Whether `run` trains and loads as this did: memory and waiting depend on it.

        What was measured on a CPU says nothing of a GPU that a run insists on.
        """
        if self.device == "cpu" and run.device == "cuda":
            return False
        return all(getattr(self, name) == value for name, value in kind_of(run).items())


def kind_of(run: RunConfig) -> dict[str, Any]:
    """The settings of a run that a pilot's memory and waiting depend on."""
    return {
        "engine": run.engine,
        "zero_stage": run.zero_stage,
        "micro_batch_size": run.micro_batch_size,
        "loader": run.loader,
        "data_cache": run.data_cache,
    }


def pilot_path(store: Path, config: StageConfig) -> Path:
    """Where the pilot of a stage's size is kept."""
    parts = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in size_key(config)._asdict().items()
    }
    return store / "pilots" / f"{digest(parts)}.json"


def write_pilot(store: Path, config: StageConfig, pilot: Pilot) -> None:
    """Keep a pilot for `launch` and `status`."""
    path = pilot_path(store, config)
    make_folder(path.parent)
    write_json(path, asdict(pilot))


def pilots(store: Path, plan: Plan) -> dict[Size, Pilot]:
    """The pilots that there are of a plan's sizes."""
    found: dict[Size, Pilot] = {}
    if not (store / "pilots").is_dir():
        return found
    for config in {size_key(config): config for config in plan.stages.values()}.values():
        with contextlib.suppress(FileNotFoundError, Damaged, TypeError):
            found[size_key(config)] = Pilot(**read_json(pilot_path(store, config)))
    return found


def seconds_per_epoch(
    plan: Plan, states: Mapping[str, StageState], store: Path | None = None
) -> dict[Size, float]:
    """Mean device-seconds per epoch of each size: of its finished stages, else of its pilot."""
    measured = {} if store is None else pilots(store, plan)
    known = {size: pilot.seconds_per_epoch for size, pilot in measured.items()}
    sums: dict[Size, tuple[float, int]] = {}
    for stage, config in plan.stages.items():
        result = states[stage].result
        if result and states[stage].name == "done":
            seconds, epochs = sums.get(size_key(config), (0.0, 0))
            spent = result["timing"]["gpu_seconds"]
            sums[size_key(config)] = (seconds + spent, epochs + result["epochs"])
    return known | {size: seconds / epochs for size, (seconds, epochs) in sums.items() if epochs}


def sentence(
    plan: Plan,
    states: Mapping[str, StageState],
    left: Sequence[str],
    workers: int,
    store: Path | None = None,
) -> str:
    """The estimate in words; sizes that were never measured are said to be unknown."""
    if not left:
        return "nothing left to spend"
    known = seconds_per_epoch(plan, states, store)
    costs = [
        known[size_key(plan.stages[s])] * plan.stages[s].recipe.epochs
        for s in left
        if size_key(plan.stages[s]) in known
    ]
    if not costs:
        return "cost unknown until stages of these sizes were measured: python -m harness.pilot"
    text = f"about {sum(costs) / 3600:.2f} device-hours still to be spent"
    if len(costs) < len(left):
        return f"{text} on {len(costs)} stages; {len(left) - len(costs)} of sizes never measured"
    return f"{text}, {sum(costs) / 3600 / workers:.2f} hours with {workers} worker(s)"


def saving(plan: Plan, states: Mapping[str, StageState], store: Path | None = None) -> str:
    """What sharing stages saves, in epochs, and in device-hours of the sizes that are known."""
    known = seconds_per_epoch(plan, states, store)
    uses = Counter(stage for path in plan.paths.values() for stage in path)
    epochs, seconds = 0, 0.0
    for stage, config in plan.stages.items():
        spared = (uses[stage] - 1) * config.recipe.epochs
        epochs += spared
        seconds += spared * known.get(size_key(config), 0.0)
    if not epochs:
        return "no stage is shared"
    text = f"sharing saves {epochs:,} epochs of training"
    return f"{text}, {seconds / 3600:.2f} device-hours" if seconds else text


def by_size(
    plan: Plan, states: Mapping[str, StageState], left: Sequence[str], store: Path
) -> list[str]:
    """A line per size: stages and device-hours to go; with a pilot, its estimate of the past."""
    known, measured = seconds_per_epoch(plan, states, store), pilots(store, plan)
    open_stages = set(left)
    to_go: dict[Size, tuple[int, int]] = {}
    past: dict[Size, tuple[float, float]] = {}
    for stage, config in plan.stages.items():
        size = size_key(config)
        if stage in open_stages:
            count, epochs = to_go.get(size, (0, 0))
            to_go[size] = count + 1, epochs + config.recipe.epochs
        elif (result := states[stage].result) and size in measured:
            estimate, actual = past.get(size, (0.0, 0.0))
            estimate += measured[size].seconds_per_epoch * result["epochs"]
            past[size] = estimate, actual + result["timing"]["gpu_seconds"]
    lines = []
    for size in dict.fromkeys([*to_go, *past]):
        count, epochs = to_go.get(size, (0, 0))
        text = f"  {named(size)}: {count:,} stages to go"
        if size in known:
            text += f", {known[size] * epochs / 3600:.2f} device-hours"
        if size in past:
            estimate, actual = past[size]
            text += f"; so far {actual / 3600:.2f}, by the pilot {estimate / 3600:.2f}"
        lines.append(text)
    return lines


def named(size: Size) -> str:
    """A size in words."""
    model = size.model
    depth = f"-{model.depth}" if model.depth else ""
    added = f" with {size.surplus.form}" if size.surplus else ""
    return (
        f"{size.dataset.name} {model.family}{depth} width {model.width:g}{added} "
        f"batch {size.batch_size}"
    )


def check_budget(
    plan: Plan,
    states: Mapping[str, StageState],
    left: Sequence[str],
    store: Path,
    hours: float,
) -> None:
    """Raise UserError where the stages `left` would cost more device-hours, or nobody knows.

    What is queued or running already is among `left`, and counts in full.
    """
    known = seconds_per_epoch(plan, states, store)
    unknown = sum(size_key(plan.stages[stage]) not in known for stage in left)
    if unknown:
        raise UserError(
            f"budget={hours:g} cannot be kept: {unknown:,} stages are of sizes never measured; run "
            "python -m harness.pilot with the same words first, or leave the budget out"
        )
    needed = sum(known[size_key(plan.stages[s])] * plan.stages[s].recipe.epochs for s in left)
    if needed / 3600 > hours:
        raise UserError(
            f"the {len(left):,} stages that are not done would cost about {needed / 3600:.2f} "
            f"device-hours and budget={hours:g}: narrow the grid, shorten recipe.epochs, or raise "
            "the budget; nothing was queued"
        )


def company(
    plan: Plan, run: RunConfig, cluster: ClusterConfig, measured: Mapping[Size, Pilot]
) -> Joins:
    """Who trains beside whom: `run.gang` stages, or by `auto` what pilots show to fit and to pay.

    What a gang shares is waiting for data; members that hardly wait train alone.
    """
    most = run.gang if isinstance(run.gang, int) else LARGEST_GANG

    def joins(gang: Sequence[str], stage: str) -> bool:
        if len(gang) >= most:
            return False
        if isinstance(run.gang, int):
            return True
        found = [measured.get(size_key(plan.stages[member])) for member in (*gang, stage)]
        pays = [p for p in found if p and p.suits(run) and p.data_share >= WAITS_FOR_DATA]
        if len(pays) < len(found):
            return False
        needed = sum(pilot.memory_bytes for pilot in pays)
        return needed <= MEMORY_SHARE * min(room(pilot, run, cluster) for pilot in pays)

    return joins


def room(pilot: Pilot, run: RunConfig, cluster: ClusterConfig) -> float:
    """Bytes of the device, or of the host on a CPU, that one process may count on."""
    here = float(pilot.device_bytes)
    if cluster.executor == "local":
        return here / math.ceil(cluster.workers / max(1, cluster.gpus_per_node))
    if pilot.device != "cpu":
        return here
    if cluster.slurm.mem_gb is not None:  # of a node, whatever machine the pilot ran on
        here = cluster.slurm.mem_gb * 2**30
    return here / math.ceil(run.processes / cluster.slurm.nodes)
