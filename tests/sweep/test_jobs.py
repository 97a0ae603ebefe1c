"""How stages become jobs: packed by cost, with resources by size."""

import pytest

from harness.cluster_schema import ClusterConfig, ResourceRule, SlurmConfig
from harness.errors import UserError
from harness.run_schema import RunConfig
from harness.sweep.grid import make_grid
from harness.sweep.jobs import make_jobs, stages_of
from harness.sweep.plan import make_plan

RUN = RunConfig()


def cluster(**options):
    slurm = SlurmConfig(**options.pop("slurm", {}))
    return ClusterConfig(
        name="c", executor="slurm", workers=4, timeout_min=60, slurm=slurm, **options
    )


@pytest.fixture
def plan():
    """Twelve trees of three stages each: dense, 0.5, 0.75."""
    return make_plan(make_grid("test", {
        "dataset": {"name": "digits", "validation_size": 200},
        "model": {"family": "cifar_resnet", "depth": 8},
        "recipe": {"epochs": 2, "batch_size": 32, "optimizer": {"lr": 0.1}},
        "compress": {"level_share": 0.5, "level_epochs": 1},
        "augment": {"policy": "randaug(n=2)"},
        "axes": {
            "width": [0.5, 1, 2], "sparsity": [0.0, 0.75], "magnitude": ["none", 0.5],
            "seed": [0, 1],
        },
    }))  # fmt: skip


def jobs_of(plan, cluster, seconds, run=RUN, **options):
    groups = make_jobs(plan, list(plan.stages), cluster, run, seconds, **options)
    return groups, [job for group in groups for job in group.jobs]


def test_each_stage_is_in_one_job_after_its_parent(plan):
    for seconds in (lambda s: None, lambda s: 10.0, lambda s: 1000.0, lambda s: 5000.0):
        _, jobs = jobs_of(plan, cluster(), seconds)
        place = {}
        for number, job in enumerate(jobs):
            order = stages_of(job)
            assert not set(order) & set(place)
            place.update((stage, (number, at)) for at, stage in enumerate(order))
        assert set(place) == set(plan.stages)
        for stage, config in plan.stages.items():
            if config.parent:
                assert place[config.parent][0] == place[stage][0]
                assert place[config.parent][1] < place[stage][1]


def test_what_was_never_measured_gets_a_job_a_tree(plan):
    _, jobs = jobs_of(plan, cluster(), lambda s: None)
    roots = [stage for stage, config in plan.stages.items() if config.parent is None]
    assert len(jobs) == len(roots)


def test_small_stages_share_jobs_but_all_workers_have_one(plan):
    _, jobs = jobs_of(plan, cluster(), lambda s: 10.0)
    assert len(jobs) == 4  # 36 stages of 10 s: no fewer jobs than workers
    sizes = [len(stages_of(job)) for job in jobs]
    assert max(sizes) - min(sizes) <= 3  # about equally long
    _, jobs = jobs_of(plan, cluster(), lambda s: 590.0)  # a tree: 1770 s, half of the limit
    assert len(jobs) == 12


@pytest.mark.parametrize("seconds", [1000.0, 1500.0, 99999.0])  # a job is filled with 1800 s
def test_a_tree_longer_than_a_job_is_one_job_that_is_requeued(plan, seconds):
    _, jobs = jobs_of(plan, cluster(), lambda s: seconds)
    assert [len(stages_of(job)) for job in jobs] == [3] * 12


def test_sizes_get_resources_by_the_first_rule_that_holds(plan):
    rules = (
        ResourceRule(where="width > 1", mem_gb=64.0, timeout_min=120, processes=2),
        ResourceRule(where="width > 0.5", partition="big"),
    )
    groups, _ = jobs_of(plan, cluster(resources=rules, slurm={"mem_gb": 8.0}), lambda s: None)
    resources = {}
    for group in groups:
        for job in group.jobs:
            for stage in stages_of(job):
                profile = group.cluster
                resources.setdefault(plan.stages[stage].model.width, set()).add(
                    (profile.slurm.mem_gb, profile.timeout_min, profile.slurm.partition,
                     group.run.processes)
                )  # fmt: skip
    assert resources == {
        0.5: {(8.0, 60, None, 1)}, 1.0: {(8.0, 60, "big", 1)}, 2.0: {(64.0, 120, None, 2)},
    }  # fmt: skip


def test_a_stage_takes_its_devices_seconds_shared_by_the_processes_of_its_rule(plan):
    rules = (ResourceRule(where="width > 0.5", processes=4),)
    profile = cluster(resources=rules, slurm={"pack_share": 1.0})  # of an hour
    groups, _ = jobs_of(plan, profile, lambda s: 1000.0)  # a tree: 3000 s, or 750
    shapes = {
        group.run.processes: sorted(len(stages_of(job)) for job in group.jobs) for group in groups
    }
    assert shapes == {1: [3] * 4, 4: [6] * 4}  # one tree fills a job, or two trees do


def test_where_jobs_ask_for_gpus_no_stage_falls_back_to_a_cpu(plan):
    for gpus, device, expected in ((1, "auto", "cuda"), (0, "auto", "auto"), (1, "cpu", "cpu")):
        profile = cluster(gpus_per_node=gpus)
        groups, _ = jobs_of(
            plan, profile, lambda s: None, RUN.model_copy(update={"device": device})
        )
        assert {group.run.device for group in groups} == {expected}


def test_a_rule_that_asks_for_an_unknown_name_is_refused(plan):
    with pytest.raises(UserError, match="sparsty"):
        jobs_of(plan, cluster(resources=(ResourceRule(where="sparsty > 0"),)), lambda s: None)


def test_memory_is_raised_for_what_ran_out_up_to_the_cap(plan):
    poor = next(iter(plan.stages))
    for factor, expected in ((1, {8.0}), (2, {8.0, 16.0}), (8, {8.0, 20.0})):
        groups, _ = jobs_of(
            plan, cluster(slurm={"mem_gb": 8.0, "max_mem_gb": 20.0}), lambda s: None,
            memory_factor=lambda stage, factor=factor: factor if stage == poor else 1,
        )  # fmt: skip
        assert {group.cluster.slurm.mem_gb for group in groups} == expected


def test_children_of_what_another_sweep_trains_wait_for_its_job(plan):
    parent = next(s for s, config in plan.stages.items() if config.parent is None)
    remaining = [stage for stage in plan.stages if stage != parent]
    groups = make_jobs(plan, remaining, cluster(), RUN, lambda s: None, held_by={parent: "7_3"})
    waiting = [group for group in groups if group.after]
    assert [set(group.after) for group in waiting] == [{"7_3"}]
    stages = [s for group in waiting for job in group.jobs for s in stages_of(job)]
    assert any(plan.stages[stage].parent == parent for stage in stages)
    assert sum(len(group.jobs) for group in groups) == 12


def test_however_many_jobs_are_waited_for_the_running_cap_is_one(plan):
    parents = [s for s, config in plan.stages.items() if config.parent is None]
    held = {parent: f"7_{number}" for number, parent in enumerate(parents)}
    remaining = [stage for stage in plan.stages if stage not in held]
    (group,) = make_jobs(plan, remaining, cluster(), RUN, lambda s: None, held_by=held)
    assert group.after == set(held.values())
    assert len(group.jobs) == 12


def test_rules_are_about_the_dense_stage_when_only_levels_are_left(plan):
    dense = {c.recipe.epochs for c in plan.stages.values() if c.parent is None}
    remaining = [stage for stage, config in plan.stages.items() if config.parent is not None]
    assert dense == {2}
    assert all(plan.stages[stage].recipe.epochs != 2 for stage in remaining)
    rules = (ResourceRule(where="epochs == 2", mem_gb=64.0),)
    (group,) = make_jobs(plan, remaining, cluster(resources=rules), RUN, lambda s: None)
    assert group.cluster.slurm.mem_gb == 64.0


def test_gangs_are_kept_together(plan):
    run = RunConfig(gang=3)
    _, jobs = jobs_of(plan, cluster(), lambda s: None, run)
    sizes = [len(gang) for job in jobs for gang in job]
    assert sum(sizes) == len(plan.stages)
    assert max(sizes) == 3
    assert len(jobs) == 4  # 12 trees, one stream for 3 of them
