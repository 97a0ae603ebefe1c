"""python -m harness.evaluate grid=NAME on=corruptions [key=value ...]

Evaluate finished networks on other images than their own validation and test images
(docs/evaluation.md). It runs on this machine, and trains nothing.

    python -m harness.evaluate grid=quickstart on=corruptions dry_run=true
    python -m harness.evaluate grid=quickstart on=corruptions where="sparsity == 0"

The results are those of trials: their last stages. What is evaluated already is left out, so the
same command continues after an interruption, and several may run at once.

    on=NAME,...       what to evaluate on: corruptions; by default the key evaluate of the grid
    where=CONDITION   the trials whose networks are evaluated, as in harness.status
    dry_run=true      print what would be evaluated and what it takes
    networks=N        networks that are judged on each batch of images, in memory together (16)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.arguments import Option
from harness.cluster import Sweep, environment, read_sweep
from harness.errors import UserError
from harness.files import Damaged
from harness.run_schema import RunConfig
from harness.schema import DatasetConfig, StageConfig
from harness.store.evaluations import read_evaluation, write_evaluation
from harness.store.store import Store
from harness.sweep import evaluation_cost
from harness.sweep.targets import Target, find_target

OPTIONS = {
    "on": Option(list, example="corruptions"),
    "dry_run": Option(bool, default=False),
    "networks": Option(int, default=16, low=1, high=10_000),
}


@dataclass(frozen=True)
class Work:
    """The finished stages of a sweep and what is left to do for one target."""

    target: Target
    done: Sequence[str]  # have a record
    missing: Sequence[str]  # have weights and no record
    weightless: Sequence[str]  # have neither


def main(args: list[str]) -> int:
    """Evaluate what is not evaluated yet; return the exit code, 1 if weights are missing."""
    environment.clean_worker()
    sweep = read_sweep(args, OPTIONS)
    launch = sweep.launch
    names = launch.options["on"] or launch.evaluate
    if not names:
        raise UserError(
            "it is not said what to evaluate on: add on=corruptions, or the key "
            f"evaluate: [corruptions] to the grid {launch.grid.name}"
        )
    works = [find_work(sweep, find_target(name)) for name in dict.fromkeys(names)]
    for work in works:
        for line in describe(sweep, work):
            print(line)
    if launch.options["dry_run"]:
        return 0
    from harness.train import connected

    run = launch.run.model_copy(update={"processes": 1})
    if any(work.missing for work in works):
        with connected(run) as world:
            for work in works:
                _evaluate(sweep, work, run, world)
    return 1 if any(work.weightless for work in works) else 0


def find_work(sweep: Sweep, target: Target) -> Work:
    """Return which results of the selected trials lack a record of the target."""
    stages = dict.fromkeys(trial["stages"][-1] for trial in sweep.trials)
    done, missing, weightless = [], [], []
    for stage in stages:
        if sweep.states[stage].name != "done":
            continue
        if has_record(sweep.store, stage, target):
            done.append(stage)
        elif sweep.store.has_weights(stage):
            missing.append(stage)
        else:
            weightless.append(stage)
    return Work(target, done, missing, weightless)


def describe_planned(sweep: Sweep, remaining: Collection[str]) -> list[str]:
    """Return lines on the evaluations of a launch: those of `remaining` stages, and those missing.

    A launch evaluates the stages that it trains. Results that were there before are not evaluated.
    """
    lines = []
    for name in sweep.launch.evaluate:
        target = find_target(name)
        planned = sweep.launch.targets_of(sweep.plan, remaining)
        configs = {stage: sweep.plan.stages[stage] for stage in planned}
        if configs:
            text = evaluation_cost.describe(configs, target, {})
            lines.append(f"{name} of {len(configs):,} results: {text}")
        work = find_work(sweep, target)
        if count := len({*work.missing, *work.weightless}.difference(remaining)):
            lines.append(
                f"note: {count:,} results are not evaluated on {name}: "
                + sweep.launch.command("harness.evaluate", f"on={name}")
            )
    return lines


def has_record(store: Store, stage: str, target: Target) -> bool:
    """Return whether a stage has a valid record; a damaged one is made again."""
    try:
        return read_evaluation(store, stage, target.id) is not None
    except Damaged as error:
        print(f"warning: {error}; it is evaluated again")
        return False


def describe(sweep: Sweep, work: Work) -> list[str]:
    """Return sentences on what is evaluated, what it takes, and what cannot be evaluated."""
    name, count = work.target.name, len(work.missing)
    lines = [
        f"{name}: {len(work.done):,} results are evaluated, {count:,} are left"
        + (f"; {evaluation_cost.describe(_configs(sweep, work), work.target, sweep.states)}"
           if count else "")
    ]  # fmt: skip
    unfinished = {
        trial["stages"][-1] for trial in sweep.trials if trial["state"] not in ("done", "diverged")
    }
    if unfinished:
        lines.append(f"{name}: {len(unfinished):,} results are not there yet")
    if work.weightless:
        store = f"store={sweep.launch.store}-with-weights"
        again = sweep.launch.command(
            "harness.launch", "run.keep_weights=all", f"evaluate=[{name}]", store
        )
        lines.append(
            f"{name}: the weights of {len(work.weightless):,} results, such as "
            f"{work.weightless[0]}, were not kept, so they cannot be evaluated: `{again}` trains "
            "them into another store and keeps them"
        )
    return lines


def _configs(sweep: Sweep, work: Work) -> dict[str, StageConfig]:
    return {stage: sweep.plan.stages[stage] for stage in work.missing}


def _evaluate(sweep: Sweep, work: Work, run: RunConfig, world: Any) -> None:
    """Evaluate the missing stages, those on one data set together, and write their records."""
    groups: dict[DatasetConfig, list[str]] = {}
    for stage, config in _configs(sweep, work).items():
        groups.setdefault(config.dataset, []).append(stage)
    together, count = sweep.launch.options["networks"], 0
    for stages in groups.values():
        for start in range(0, len(stages), together):
            # another process may have written some of them since
            group = [
                stage
                for stage in stages[start : start + together]
                if not has_record(sweep.store, stage, work.target)
            ]
            if group:
                _evaluate_group(sweep, work.target, group, run, world)
            count += len(stages[start : start + together])
            print(f"{work.target.name}: {count:,} of {len(work.missing):,} results", flush=True)


def _evaluate_group(
    sweep: Sweep, target: Target, stages: Sequence[str], run: RunConfig, world: Any
) -> None:
    """Evaluate stages on one data set together, and write their records."""
    from harness.train.gang import load_data
    from harness.train.targets import evaluate_on, load_judged

    store, configs = sweep.store, sweep.plan.stages
    gang = load_data(configs[stages[0]], run, world, lambda: None)
    try:
        hashes = {stage: _weights_hash(sweep.states[stage].result) for stage in stages}
        try:
            networks = [
                load_judged(store.folder(stage), stage, configs[stage], hashes[stage], gang)
                for stage in stages
            ]
        except Damaged as error:
            raise UserError(
                f"{error}: copy the file again, or delete that stage's folder and launch the grid"
            ) from error
        evaluated = evaluate_on(target, networks, gang)
    finally:
        gang.loader.close()
    assert evaluated is not None  # nothing stops it
    for stage, of_stage in zip(stages, evaluated, strict=True):
        record = {**of_stage.record, "weights_sha256": hashes[stage]}
        write_evaluation(store, stage, target.id, record, of_stage.bits)


def _weights_hash(result: Mapping[str, Any] | None) -> str:
    return str((result or {}).get("weights_sha256"))
