"""python -m harness.difficulty grid=NAME teacher=TEACHER [key=value ...]

Measure how difficult augmentations are for a trained network, the teacher (docs/difficulty.md).

    python -m harness.difficulty grid=quickstart teacher=0123456789abcdef out=out/difficulty
    python -m harness.difficulty grid=... teacher=timm:resnet50.a1_in1k images=2000 draws=2
    python -m harness.difficulty grid=... teacher=... calibrated=calibrated.yaml

On validation images it measures, for each op and magnitude of a policy: the teacher's loss, its
accuracy, its probability of the true class, the KL divergence from its prediction on the clean
image, and the spread of its mean probability. It also measures the loss on every policy of the
grid. The sweep's rows then have this loss in the column `difficulty`.

    teacher=ID|timm:NAME|timm:NAME@weights.pt|path/checkpoint/final.pt
    where=CONDITION   the trials whose policies and images are measured, as in harness.status
    policy=TEXT       the policy whose ops are measured (the grid's first): "randaug_strict(n=2)"
    images=N          number of validation images (1000)
    draws=N           number of augmentations of each image (1)
    out=FOLDER        also write ops.csv, policies.csv, correlations.csv and heatmap.png
    calibrated=FILE   write an augmentation space in which equal magnitude is equal loss
"""

from __future__ import annotations

from dataclasses import replace

from harness.arguments import Option
from harness.cluster import environment, read_sweep
from harness.config import Launch
from harness.errors import UserError
from harness.files import make_folder, user_path

OPTIONS = {
    "teacher": Option(required=True, example="timm:resnet50.a1_in1k"),
    "policy": Option(),
    "images": Option(int, default=1000, low=2, high=10**7),  # one image has no spread
    "draws": Option(int, default=1, low=1, high=10**7),
    "out": Option(),
    "calibrated": Option(),
}


def main(args: list[str]) -> int:
    """Measure the policies, write and print the results; return the exit code."""
    environment.clean_worker()
    launch = _selected(args)
    policy = _check_inputs(launch)
    _check_outputs(launch, policy)
    from harness.commands import difficulty_report as report
    from harness.commands.difficulty_measure import calibrate, measure_policies

    results = measure_policies(launch, policy)
    correlations = report.correlations(launch, results.policies)
    report.write(launch, policy, results, correlations)
    if launch.options["calibrated"]:
        path = user_path(launch.options["calibrated"], "calibrated")
        n = calibrate(path, policy, launch.options["teacher"], results.ops)
        print(f"wrote {path}: augment.policy={path}(n={n})")
    for text in report.screen(launch.options["teacher"], results):
        print(text)
    for text in report.describe_correlations(correlations):
        print(text)
    return 0


def _selected(args: list[str]) -> Launch:
    """Return the launch that the arguments describe, with only the trials that meet `where`."""
    sweep = read_sweep(args, OPTIONS)
    selected = {trial["trial"] for trial in sweep.trials}
    trials = tuple(trial for trial in sweep.launch.grid.trials if trial.id in selected)
    return replace(sweep.launch, grid=replace(sweep.launch.grid, trials=trials))


def _check_inputs(launch: Launch) -> str:
    """Return the policy whose ops are measured. Raises UserError, also for the teacher."""
    from harness.augment.policy import with_magnitude
    from harness.sweep.teachers import misfit

    configs = [trial.config for trial in launch.grid.trials]
    names = sorted({config.dataset.name for config in configs})
    if len(names) > 1:
        raise UserError(
            f"the grid {launch.grid.name} has several data sets ({', '.join(names)}), and "
            "difficulty is measured on one at a time: choose it with "
            f"where=\"dataset.name == '{names[0]}'\""
        )
    policy = launch.options["policy"] or configs[0].augment.policy
    if policy == "none":
        raise UserError("the policy is none, so there is no op whose difficulty can be measured")
    with_magnitude(policy, 1.0)
    if problem := misfit(launch.options["teacher"], launch.store, configs[0].dataset):
        raise UserError(f"teacher: {problem}")
    return policy


def _check_outputs(launch: Launch, policy: str) -> None:
    """Raise UserError for outputs that cannot be written, before minutes are spent on measuring."""
    from harness.augment.calibrate import refuse_chains
    from harness.augment.spaces import find_space

    if launch.options["out"]:
        make_folder(user_path(launch.options["out"], "out"))
    if launch.options["calibrated"]:
        table = user_path(launch.options["calibrated"], "calibrated")
        if table.suffix not in (".yaml", ".yml"):
            raise UserError(
                f"calibrated={table}: a space is a YAML file, so name it {table.stem}.yaml"
            )
        refuse_chains(find_space(policy.partition("(")[0].strip()))
        make_folder(table.parent)
