"""python -m harness.pilot grid=NAME [steps=20] [where=CONDITION] [again=true]

Measure each size of a grid for a few steps, so that launch and status know what it costs.

    python -m harness.pilot grid=quickstart
    python -m harness.pilot grid=imagenet_resnet50 steps=50 where="width >= 1"

Run it on the machine, or in an interactive job (`srun --gpus=1 --pty ...`), whose device the sweep
will use, while no other process is busy there. Each size is measured in a process of its own, for
`steps` steps and a minute at most, with the run's engine, its loader and its micro-batches, or
those of the cluster's rule for the size. Sizes that were measured with these settings are left out;
again=true measures them again. A measurement that has not ended after an hour is stopped.
"""

from __future__ import annotations

from harness.arguments import Option
from harness.augment.policy import parse_policy
from harness.cluster import Sweep, environment, read_sweep
from harness.commands.summary import describe_gangs
from harness.errors import UserError
from harness.run_schema import RunConfig
from harness.schema import StageConfig
from harness.sweep import cost

OPTIONS = {
    "steps": Option(int, default=20, low=1, high=10_000),
    "again": Option(bool, default=False),
}


def main(args: list[str]) -> int:
    """Measure the sizes that have no measurement; return the exit code."""
    environment.clean_worker()
    sweep = read_sweep(args, OPTIONS, trains=True)
    options, root = sweep.launch.options, sweep.store.root
    if sweep.launch.run.processes > 1:
        raise UserError("a pilot measures one process: set run.processes=1")
    stages = _slowest_stages(sweep)
    if not options["again"]:
        measured = cost.read_measurements(root, sweep.plan)
        stages = {
            size: (config, run)
            for size, (config, run) in stages.items()
            if size not in measured or not measured[size].matches(run)
        }
    if not stages:
        print("every size was measured already; again=true measures them again")
        return 0
    from harness.train import measure_steps_in_new_process

    for config, run in stages.values():
        measurement = measure_steps_in_new_process(config, run, options["steps"], root)
        cost.write_measurement(root, config, measurement)
        model = config.model
        print(
            f"{config.dataset.name} {model.family} width {model.width:g}: "
            f"{measurement.seconds_per_epoch:.2f} s per epoch, "
            f"{measurement.data_share:.0%} of it waiting for data, "
            f"{measurement.memory_bytes / 1e9:.2f} GB, on {measurement.device}",
            flush=True,
        )
    remaining = [stage for stage, state in sweep.states.items() if state.result is None]
    for line in describe_gangs(sweep.launch, sweep.plan, remaining):
        print(line)
    print(cost.describe_remaining_cost(sweep.plan, sweep.states, remaining, 1, root))
    return 0


def _slowest_stages(sweep: Sweep) -> dict[cost.Size, tuple[StageConfig, RunConfig]]:
    """Return, for each selected size, its slowest stage and the settings of the run it will have.

    The stage with the strongest augmentation is the slowest. Stages that continue another one are
    left out: they take no longer.
    """
    stages: dict[cost.Size, tuple[StageConfig, RunConfig]] = {}
    for stage in sweep.stages():
        config = sweep.plan.stages[stage]
        size = cost.size_key(config)
        if config.origin is not None:
            continue
        if size not in stages or _strength(config) > _strength(stages[size][0]):
            _, run = sweep.launch.job_settings(config)
            stages[size] = config, run.model_copy(update={"processes": 1})
    return stages


def _strength(config: StageConfig) -> tuple[bool, float]:
    """Return a key that orders stages by the strength of their augmentation, no policy first."""
    policy = parse_policy(config.augment.policy)
    return bool(policy.space.rows), policy.m
