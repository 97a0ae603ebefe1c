"""Measure each size of a grid for a few steps, so that launch and status know what it costs.

python -m harness.pilot grid=quickstart
python -m harness.pilot grid=imagenet_resnet50 steps=50 where="width >= 1"

Run it on the machine, or in an interactive job (`srun --gpus=1 --pty ...`), whose device the sweep
will use; on one where another process is busy it measures that, too. Each size is measured in a
process of its own, for `steps` steps (20) and a minute at most, with the run's engine, its loader
and its micro-batches, or those of the cluster's rule for the size. Sizes that have such a pilot are
left out (`again=true` measures them all). One that has not ended after an hour is ended.
"""

from __future__ import annotations

from harness import describe
from harness.arguments import Option
from harness.augment.policy import parse_policy
from harness.cluster.select import look_at
from harness.errors import UserError, command
from harness.schema import RunConfig, StageConfig
from harness.sweep import cost
from harness.sweep.jobs import asked_for

OPTIONS = {
    "steps": Option(int, default=20, low=1, high=10_000),
    "again": Option(bool, default=False),
}


def main(args: list[str]) -> int:
    """The command; returns its exit code."""
    sweep = look_at(args, OPTIONS, trains=True)
    if sweep.launch.run.processes > 1:
        raise UserError("a pilot measures one process: say run.processes=1")
    root = sweep.store.root
    known = cost.read_measurements(root, sweep.plan)
    sizes: dict[cost.Size, StageConfig] = {}
    runs: dict[cost.Size, RunConfig] = {}
    for stage in sweep.stages():
        config = sweep.plan.stages[stage]
        size = cost.size_key(config)
        # the strongest augmentation is the slowest; later stages of a size take no longer
        known_strength = _strength(sizes[size]) if size in sizes else (False, -1.0)
        if config.parent is None and _strength(config) > known_strength:
            sizes[size] = config
            _, run = asked_for(sweep.plan, stage, sweep.launch.cluster, sweep.launch.run)
            runs[size] = run.model_copy(update={"processes": 1})
    todo = {
        size: config
        for size, config in sizes.items()
        if sweep.launch.options["again"] or size not in known or not known[size].matches(runs[size])
    }
    if not todo:
        print("every size is known already; again=true measures them anew")
        return 0
    from harness.train.step_timing import measure_alone

    for size, config in todo.items():
        pilot = measure_alone(config, runs[size], sweep.launch.options["steps"], root)
        cost.write_measurement(root, config, pilot)
        model = config.model
        print(
            f"{config.dataset.name} {model.family} width {model.width:g}: "
            f"{pilot.seconds_per_epoch:.2f} s per epoch, {pilot.data_share:.0%} of it waiting for "
            f"data, {pilot.memory_bytes / 1e9:.2f} GB, on {pilot.device}",
            flush=True,
        )
    left = [stage for stage, state in sweep.states.items() if state.result is None]
    for line in describe.gang_lines(sweep.launch, sweep.plan, left):
        print(line)
    print(cost.describe_remaining_cost(sweep.plan, sweep.states, left, 1, root))
    return 0


def _strength(config: StageConfig) -> tuple[bool, float]:
    """Orders stages of a size by the strength of their augmentation, no policy first."""
    policy = parse_policy(config.augment.policy)
    return bool(policy.space.rows), policy.m


if __name__ == "__main__":
    command(main, __doc__)
