"""Estimate what a sweep still costs, from its finished stages or from short measurements.

`python -m harness.pilot` trains each size of a grid for a few steps and keeps a `Measurement` of
it in the store. An estimate is the device-seconds per epoch of a size, times epochs.
`run.gang=auto` also uses the measured memory, and the share of a step that waits for data.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic.dataclasses import dataclass

from harness.cluster_schema import ClusterConfig
from harness.errors import UserError
from harness.files import Damaged, make_folder, write_json
from harness.run_schema import RunConfig
from harness.schema import DatasetConfig, ModelConfig, StageConfig, StageSurplus, TeacherConfig
from harness.states import UNDER_WAY, StageState
from harness.store.identity import digest
from harness.store.records import Count, Record, Seconds, read_json
from harness.store.store import own_epochs
from harness.sweep.plan import Joins, Plan, lineage, without_trunk

MEMORY_SHARE = 0.8  # of a device's memory that a gang may fill
LARGEST_GANG = 8
WAITS_FOR_DATA = 0.2
"""`run.gang=auto` forms gangs where at least this share of a step waits for data: the stages of a
gang share the loading of data and nothing else."""


class Size(NamedTuple):
    """The parts of a stage's config that decide how long one epoch takes."""

    dataset: DatasetConfig
    model: ModelConfig
    batch_size: int
    precision: str
    optimizer: str
    surplus: StageSurplus | None
    teacher: TeacherConfig | None


def size_key(config: StageConfig) -> Size:
    """Return the size of a stage. Stages of equal size take equally long per epoch.

    Channels that pruning removed are not counted: the time of the dense model is an upper bound.
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


def describe_size(size: Size) -> str:
    """Return a size in words, for example `digits cifar_resnet-8 width 0.5 batch 64`."""
    model = size.model
    depth = f"-{model.depth}" if model.depth else ""
    added = f" with {size.surplus.form}" if size.surplus else ""
    return (
        f"{size.dataset.name} {model.family}{depth} width {model.width:g}{added} "
        f"batch {size.batch_size}"
    )


@dataclass(config=Record.model_config)
class Measurement:
    """Time and memory of a few steps of one size on one device (`python -m harness.pilot`)."""

    seconds_per_epoch: Seconds  # device-seconds: seconds times ranks
    data_share: float  # share of a step's time that it waits for its batch
    memory_bytes: Count  # used by one stage
    device_bytes: Count  # total of the device, or of the host for one worker
    device: str
    engine: str = ""  # from here on: settings of the run; files of older versions lack them
    zero_stage: int = 0
    micro_batch_size: int | None = None
    loader: str = ""
    data_cache: str = ""

    def matches(self, run: RunConfig) -> bool:
        """Return whether memory and waiting, as measured here, apply to `run`.

        They do when the settings that they depend on are equal. A measurement on a CPU does not
        apply to a run that requires a GPU.
        """
        if self.device == "cpu" and run.device == "cuda":
            return False
        return all(getattr(self, name) == value for name, value in run_settings(run).items())


def run_settings(run: RunConfig) -> dict[str, Any]:
    """Return the settings of a run that memory and waiting for data depend on."""
    return {
        "engine": run.engine,
        "zero_stage": run.zero_stage,
        "micro_batch_size": run.micro_batch_size,
        "loader": run.loader,
        "data_cache": run.data_cache,
    }


def measurement_path(store: Path, config: StageConfig) -> Path:
    """Return the file in which the measurement of a stage's size is kept."""
    parts = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in size_key(config)._asdict().items()
    }
    return store / "pilots" / f"{digest(parts)}.json"


def write_measurement(store: Path, config: StageConfig, measurement: Measurement) -> None:
    """Keep the measurement of a stage's size in the store."""
    path = measurement_path(store, config)
    make_folder(path.parent)
    write_json(path, asdict(measurement))


def read_measurements(store: Path, plan: Plan) -> dict[Size, Measurement]:
    """Return the measurements that the store has of the sizes of a plan."""
    measured: dict[Size, Measurement] = {}
    if not (store / "pilots").is_dir():
        return measured
    for size, config in {size_key(config): config for config in plan.stages.values()}.items():
        path = measurement_path(store, config)
        with contextlib.suppress(FileNotFoundError, Damaged, ValidationError):
            measured[size] = Measurement(**read_json(path))
    return measured


def seconds_per_epoch(
    plan: Plan, states: Mapping[str, StageState], store: Path | None = None
) -> dict[Size, float]:
    """Return device-seconds per epoch of each size: the mean of its finished stages, else measured.

    Sizes without a finished stage and without a measurement are absent.
    """
    measured = {} if store is None else read_measurements(store, plan)
    rates = {size: measurement.seconds_per_epoch for size, measurement in measured.items()}
    sums: dict[Size, tuple[float, int]] = {}
    for stage, config in plan.stages.items():
        result = states[stage].result
        if result and states[stage].name == "done":
            seconds, epochs = sums.get(size_key(config), (0.0, 0))
            spent = result["timing"]["gpu_seconds"]
            own = own_epochs(result, config.recipe.epochs)
            sums[size_key(config)] = (seconds + spent, epochs + own)
    return rates | {size: seconds / epochs for size, (seconds, epochs) in sums.items() if epochs}


def stage_seconds(config: StageConfig, rates: Mapping[Size, float]) -> float | None:
    """Return the estimated device-seconds of a stage, or None for a size without an estimate."""
    rate = rates.get(size_key(config))
    return None if rate is None else rate * config.own_epochs


def _known_costs(
    plan: Plan, states: Mapping[str, StageState], remaining: Sequence[str], store: Path | None
) -> list[float]:
    """Return the estimated device-seconds of the `remaining` stages that have an estimate."""
    rates = seconds_per_epoch(plan, states, store)
    estimates = [stage_seconds(plan.stages[stage], rates) for stage in remaining]
    return [seconds for seconds in estimates if seconds is not None]


def describe_remaining_cost(
    plan: Plan,
    states: Mapping[str, StageState],
    remaining: Sequence[str],
    workers: int,
    store: Path | None = None,
) -> str:
    """Return a sentence with the estimated cost of the `remaining` stages."""
    if not remaining:
        return "nothing left to spend"
    costs = _known_costs(plan, states, remaining, store)
    if not costs:
        return "cost unknown: no stage of these sizes was measured (python -m harness.pilot)"
    text = f"about {sum(costs) / 3600:.2f} device-hours still to be spent"
    if len(costs) < len(remaining):
        unknown = len(remaining) - len(costs)
        return f"{text} on {len(costs)} stages; {unknown} stages are of sizes never measured"
    return f"{text}, {sum(costs) / 3600 / workers:.2f} hours with {workers} worker(s)"


def describe_sharing(
    plan: Plan, states: Mapping[str, StageState], store: Path | None = None
) -> str:
    """Return a sentence with what sharing stages saves: epochs and, where known, device-hours."""
    rates = seconds_per_epoch(plan, states, store)
    uses = Counter(stage for path in plan.paths.values() for stage in without_trunk(plan, path))
    epochs, seconds = 0, 0.0
    for stage, config in plan.stages.items():
        spared = uses[stage] * config.recipe.epochs - config.own_epochs
        epochs += spared
        seconds += spared * rates.get(size_key(config), 0.0)
    if not epochs:
        return "no stage is shared"
    text = f"sharing saves {epochs:,} epochs of training"
    return f"{text}, {seconds / 3600:.2f} device-hours" if seconds else text


def describe_trunks(plan: Plan) -> list[str]:
    """Return a line with the epochs of dense stages that are cut into trunks; none without any."""
    own = {stage for path in plan.paths.values() for stage in without_trunk(plan, path)}
    cut: dict[str, list[int]] = {}  # by the first stage: epochs, and those without trunks
    for stage, config in plan.stages.items():
        if config.parent is None:
            *_, first = lineage(plan.stages, stage)
            epochs = cut.setdefault(first, [0, 0])
            epochs[0] += config.own_epochs
            if stage in own:
                epochs[1] += config.recipe.epochs
    trunks = [(epochs, alone) for epochs, alone in cut.values() if epochs < alone]
    if not trunks:
        return []
    total, alone = (sum(numbers) for numbers in zip(*trunks, strict=True))
    is_uniform = len(set(trunks)) == 1
    each = f" ({trunks[0][0]:,} instead of {trunks[0][1]:,} each)" if is_uniform else ""
    count = f"{len(trunks):,} trunk(s) of several lengths"
    return [f"  {count}: {total:,} epochs instead of {alone:,}{each}"]


def describe_sizes(
    plan: Plan, states: Mapping[str, StageState], remaining: Sequence[str], store: Path
) -> list[str]:
    """Return a line per size: remaining stages and hours; spent hours beside their estimate."""
    rates, measured = seconds_per_epoch(plan, states, store), read_measurements(store, plan)
    by_size: dict[Size, list[str]] = {}
    for stage, config in plan.stages.items():
        by_size.setdefault(size_key(config), []).append(stage)
    remaining_stages = set(remaining)
    lines = []
    for size, stages in by_size.items():
        to_go = [stage for stage in stages if stage in remaining_stages]
        results = {
            stage: result
            for stage in stages
            if stage not in remaining_stages and (result := states[stage].result)
        }
        if not to_go and not (results and size in measured):
            continue
        text = f"  {describe_size(size)}: {len(to_go):,} stages to go"
        if size in rates:
            epochs = sum(plan.stages[stage].own_epochs for stage in to_go)
            text += f", {rates[size] * epochs / 3600:.2f} device-hours"
        if results and size in measured:
            actual = sum(result["timing"]["gpu_seconds"] for result in results.values())
            epochs = sum(own_epochs(r, plan.stages[s].recipe.epochs) for s, r in results.items())
            estimate = measured[size].seconds_per_epoch * epochs
            text += f"; spent {actual / 3600:.2f}, estimated by the pilot {estimate / 3600:.2f}"
        lines.append(text)
    return lines


def check_budget(
    plan: Plan,
    states: Mapping[str, StageState],
    remaining: Sequence[str],
    store: Path,
    hours: float | None,
    spent: float = 0.0,
) -> str:
    """Return why a budget of device-hours does not pay for the `remaining` stages, or ''.

    Stages that are queued or running count in full. `spent` are the device-hours that count in
    addition, of earlier rounds of the sweep. None: there is no budget.

    Raises:
        UserError: nothing was spent yet and the budget is too small, or a size was never measured.
    """
    if hours is None:
        return ""
    under_way = [stage for stage, state in states.items() if state.name in UNDER_WAY]
    counted = list(dict.fromkeys([*remaining, *under_way]))
    costs = _known_costs(plan, states, counted, store)
    if unknown := len(counted) - len(costs):
        raise UserError(
            f"budget={hours:g} cannot be checked: {unknown:,} stages are of sizes never measured. "
            "Run python -m harness.pilot with the same words first, or leave the budget out"
        )
    needed = sum(costs) / 3600
    if needed + spent <= hours:
        return ""
    if spent:
        return (
            f"the next round would cost about {needed:.2f} device-hours, with the {spent:.2f} that "
            f"were spent more than budget={hours:g}; raise the budget to go on"
        )
    raise UserError(
        f"the {len(counted):,} stages that are not done would cost about {needed:.2f} "
        f"device-hours, more than budget={hours:g}; nothing was queued. Make the grid smaller, "
        "shorten recipe.epochs, or raise the budget"
    )


def join_rule(
    plan: Plan, run: RunConfig, cluster: ClusterConfig, measured: Mapping[Size, Measurement]
) -> Joins:
    """Return the rule by which stages form gangs, as `run.gang` sets it.

    A number allows gangs of up to that many stages. `auto` allows a stage only where measurements
    show that all members fit into memory and wait for data long enough for sharing it to pay.
    """
    largest = run.gang if isinstance(run.gang, int) else LARGEST_GANG

    def joins(gang: Sequence[str], stage: str) -> bool:
        if len(gang) >= largest:
            return False
        if isinstance(run.gang, int):
            return True
        memory, available = 0, math.inf
        for member in (*gang, stage):
            measurement = measured.get(size_key(plan.stages[member]))
            if measurement is None or not measurement.matches(run):
                return False
            if measurement.data_share < WAITS_FOR_DATA:
                return False
            memory += measurement.memory_bytes
            available = min(available, usable_memory(measurement, run, cluster))
        return memory <= MEMORY_SHARE * available

    return joins


def usable_memory(measurement: Measurement, run: RunConfig, cluster: ClusterConfig) -> float:
    """Return how many bytes one process may use: of the device, or of the host on a CPU."""
    available = float(measurement.device_bytes)
    if cluster.executor == "local":
        return available / math.ceil(cluster.workers / max(1, cluster.gpus_per_node))
    if measurement.device != "cpu":
        return available
    if cluster.slurm.mem_gb is not None:  # per node; the pilot may have run on another one
        available = cluster.slurm.mem_gb * 2**30
    return available / math.ceil(run.processes / cluster.slurm.nodes)
