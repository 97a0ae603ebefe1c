"""The training loop: one stream of batches, from which each stage of a gang learns.

Every rank calls `train_gang` with the same gang. The batches and draws of a stage are a pure
function of its config, so a stage ends in the same bits alone or in a gang, unbroken or resumed at
any step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from harness.augment.ops import OPS
from harness.compress.methods import METHODS
from harness.compress.surplus import FORMS
from harness.errors import UserError
from harness.models.registry import find_family
from harness.run_schema import RunConfig
from harness.store import provenance
from harness.sweep.plan import stream_key
from harness.sweep.targets import find_target
from harness.sweep.teachers import stage_config, stage_folder
from harness.train import trackers
from harness.train.distributed import World
from harness.train.gang import Evaluated, Gang, Member, Outcome, load_data
from harness.train.heartbeat import Heartbeat
from harness.train.stage import Stage
from harness.train.targets import evaluate_on
from harness.train.teacher import Teacher


def train_gang(
    members: Sequence[Member],
    run: RunConfig,
    world: World,
    should_stop: Callable[[], bool],
    heartbeat: Callable[[], None],
) -> list[Outcome]:
    """Train every member to its end, or until `should_stop` is true on any rank.

    `heartbeat` is called on rank 0 at every step. Checkpoints of all members are written every
    `run.checkpoint_seconds` of rank 0's clock, when stopping, and after the last step.

    Raises:
        UserError: members that do not share data, seed, batch size and length; missing data; a
            checkpoint that cannot continue under this `run`.
        Damaged: a parent's weights.
        ClaimLost: from `heartbeat`, on rank 0; the other ranks return "stopped".
    """
    started = time.monotonic()
    _check(members, run)
    beat = Heartbeat(world, heartbeat)
    with beat.in_background():
        gang = load_data(members[0].config, run, world, beat)
    stages: list[Stage] = []
    try:
        if world.rank == 0 and gang.loader.name != "resident":
            print(f"loader {gang.dataset.loader_choice}", flush=True)
        for member in members:
            stages.append(Stage(member, gang))
            if world.rank == 0:
                facts = _provenance(gang, stages[-1].teacher)
                provenance.record(member.folder, _modules(member), facts)
        for stage in stages:
            stage.overhead_seconds = (time.monotonic() - started) / len(stages)
        is_finished = _train(stages, gang, beat, should_stop)
        outcomes = [_outcome(stage, is_finished, beat) for stage in stages]
        outcomes = _evaluate_on_targets(stages, members, outcomes, should_stop)
        if beat.lost is not None:
            raise beat.lost
        return outcomes
    finally:
        for stage in stages:
            stage.close()
        gang.loader.close()


def _check(members: Sequence[Member], run: RunConfig) -> None:
    """Raise UserError, on all ranks, before any of them waits for another."""
    first = members[0]
    for member in members:
        if stream_key(member.config) != stream_key(first.config):
            raise UserError(
                f"stages {first.stage_id} and {member.stage_id} cannot train side by side: "
                "a gang shares data, seed, batch size and epochs."
            )
    if message := trackers.missing(run.tracker):
        raise UserError(message)


def _modules(member: Member) -> set[str]:
    """Return the modules of the family, method, form and ops that a stage uses."""
    config = member.config
    families = [find_family(config.model.family)]
    teacher = config.teacher.name if config.teacher is not None else None
    if teacher is not None:
        folder = stage_folder(teacher, member.teacher_store or member.store)
        families += [find_family(stage_config(folder).model.family)] if folder else []
    builds = [family.build for family in families if family is not None]
    modules = {getattr(build, "func", build).__module__ for build in builds}
    if config.prune is not None:
        modules.add(type(METHODS.get(config.prune.method)).__module__)
    if config.surplus is not None:
        modules.add(type(FORMS.get(config.surplus.form)).__module__)
    if config.augment.policy != "none":
        functions = [f for op in OPS.values() for f in (op.table, op.matrix, op.kernel)]
        modules |= {"harness.augment.ops", *(f.__module__ for f in functions if f is not None)}
    return modules


def _provenance(gang: Gang, teacher: Teacher | None) -> dict[str, Any]:
    """Return what is recorded beside a result: it may change low bits, but not the identity."""
    run, world = gang.run, gang.world
    is_cuda = world.device.type == "cuda"
    return {
        "engine": run.engine,
        "zero_stage": run.zero_stage if run.engine == "deepspeed" else 0,
        "world_size": world.size,
        "micro_batch_size": run.micro_batch_size,
        "loader": gang.loader.name,
        "stored": gang.dataset.stored,
        "split_hash": gang.dataset.split_hash,
        "memory_format": "channels_last" if run.channels_last else "contiguous",
        "device": torch.cuda.get_device_name(world.device) if is_cuda else "cpu",
        "threads": None if is_cuda else run.threads,
        "deterministic": run.deterministic or not is_cuda,
        **({} if teacher is None else {"teacher": teacher.normalisation()}),
    }


def _train(
    stages: list[Stage], gang: Gang, beat: Heartbeat, should_stop: Callable[[], bool]
) -> bool:
    """Do all remaining steps; return False if stopped, or if the claim was lost, before the end."""
    config, world = stages[0].config, gang.world
    per_epoch = gang.loader.steps_per_epoch
    step = min(stage.progress.step for stage in stages)
    saved = clock = time.monotonic()
    for epoch in range(step // per_epoch, config.recipe.epochs):
        for batch in gang.loader.epoch(config.seed, epoch, step - epoch * per_epoch):
            # a stage whose checkpoint is of a later step waits until the others are there
            active = [
                stage
                for stage in stages
                if stage.progress.step == step and not stage.progress.has_diverged
            ]
            for stage in active:
                stage.train_step(batch, epoch)
            step += 1
            for stage in active:
                if step % per_epoch == 0:
                    stage.end_epoch(epoch)
                stage.progress.seconds += (time.monotonic() - clock) / len(active)
            clock = time.monotonic()
            beat()
            is_due = step == stages[0].total_steps or clock - saved >= gang.run.checkpoint_seconds
            stopping, saving, lost = world.any(
                should_stop(), world.rank == 0 and is_due, beat.lost is not None
            )
            if lost:
                return False
            if stopping or saving:
                for stage in active:
                    stage.save()
                saved = time.monotonic()
            if stopping:
                return False
        if all(stage.progress.has_diverged for stage in stages):
            break
    return True


def _outcome(stage: Stage, is_finished: bool, beat: Heartbeat) -> Outcome:
    """Evaluate a finished stage, once, and write its final weights."""
    progress = stage.progress
    if progress.has_diverged:
        return Outcome(stage.id, "diverged", {**stage.result(), "train": {"loss": None}})
    if not is_finished:
        return Outcome(stage.id, "stopped")
    started = time.monotonic()
    validation = stage.evaluate("validation")
    stage.metrics.copy_scores(progress.step, validation.top1, validation.loss)
    test = stage.evaluate("test")
    if stage.gang.world.any(beat.lost is not None)[0]:
        return Outcome(stage.id, "stopped")
    weights_hash = stage.write_final()
    stage.overhead_seconds += time.monotonic() - started
    result = {
        "val": validation.summary(),
        "test": test.summary(),
        "train": {"loss": progress.last_loss},
        "weights_sha256": weights_hash,
        **stage.result(),
    }
    return Outcome(
        stage.id,
        "done",
        result,
        correct={"validation": validation.correct, "test": test.correct},
        classes={"validation": validation.classes, "test": test.classes},
    )


def _evaluate_on_targets(
    stages: Sequence[Stage],
    members: Sequence[Member],
    outcomes: Sequence[Outcome],
    should_stop: Callable[[], bool],
) -> list[Outcome]:
    """Return the outcomes of finished stages with the evaluations on their members' targets.

    Once `should_stop` is true on any rank, the remaining evaluations are left out: they can be made
    later, from the weights (`harness.evaluate`), and the results are not delayed.
    """
    evaluations: dict[str, dict[str, Evaluated]] = {outcome.stage_id: {} for outcome in outcomes}
    for name in sorted({name for member in members for name in member.targets}):
        judged = [
            stage
            for stage, member, outcome in zip(stages, members, outcomes, strict=True)
            if outcome.status == "done" and name in member.targets
        ]
        if not judged:
            continue
        target = find_target(name)
        networks = [stage.as_judged() for stage in judged]
        evaluated = evaluate_on(target, networks, judged[0].gang, should_stop)
        for stage, of_stage in zip(judged, evaluated or (), strict=False):
            evaluations[stage.id][target.id] = of_stage
    return [replace(o, evaluations=evaluations[o.stage_id]) for o in outcomes]
