"""The state of a stage, by one rule for status, progress and workers, and what a worker claims."""

from types import SimpleNamespace

import pytest

from harness.cluster.gang_queue import GangQueue
from harness.cluster.state import stage_states
from harness.files import write_json
from harness.store.claims import try_claim
from harness.store.store import Store
from harness.sweep.grid import make_grid
from harness.sweep.plan import make_plan


@pytest.fixture
def plan():
    """Two trees of two stages each."""
    return make_plan(make_grid("test", {
        "dataset": {"name": "digits", "validation_size": 200},
        "model": {"family": "cifar_resnet", "depth": 8},
        "recipe": {"epochs": 2, "batch_size": 32, "optimizer": {"lr": 0.1}},
        "compress": {"level_share": 0.5, "level_epochs": 1},
        "axes": {"width": [0.5], "sparsity": [0.5], "magnitude": ["none"], "seed": [0, 1]},
    }))  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def finish(store, plan, stage, status="done"):
    folder = store.prepare(stage, plan.stages[stage])
    result = {"stage": stage, "status": status, "timing": {"gpu_seconds": 1.0}}
    write_json(folder / "result.json", result)
    return folder / "result.json"


def queue(store, plan, *gangs, job="7"):
    """The queue of a worker of one job."""
    submission = SimpleNamespace(stages=plan.stages, parts=[list(map(list, gangs))])
    return GangQueue(SimpleNamespace(
        submission=submission, part=0, store=store, job=job, attempt=0, log="", in_slurm=False,
    ))  # fmt: skip


def names(store, plan, **known):
    return [state.name for state in stage_states(store, plan.stages, **known).values()]


def test_a_child_takes_the_state_of_a_parent_that_failed_or_diverged(store, plan):
    (first, child), (second, _) = plan.paths.values()
    store.prepare(child, plan.stages[child])
    store.record_failure(child, {"class": "lost", "message": "m", "step": 0})
    assert names(store, plan) == ["waiting"] * 4
    store.prepare(first, plan.stages[first])
    store.record_failure(first, {"class": "code", "message": "m"})
    finish(store, plan, second, "diverged")
    states = stage_states(store, plan.stages)
    assert [states[path[1]].name for path in plan.paths.values()] == ["failed", "diverged"]
    assert states[child].why == f"its parent {first} failed"
    gangs = queue(store, plan, *([stage] for stage in plan.stages))
    assert not gangs.has_work()
    assert gangs.claim_next() == ({}, False)


def test_states_that_are_known_are_not_read_again(store, plan):
    first = next(iter(plan.stages))
    path = finish(store, plan, first)
    known = {first: stage_states(store, plan.stages)[first]}
    path.unlink()
    assert names(store, plan)[0] == "waiting"
    assert names(store, plan, known=known)[0] == "done"


def test_a_worker_trains_parents_first_and_waits_for_those_of_others(store, plan):
    parent, child = next(iter(plan.paths.values()))
    gangs = queue(store, plan, [child])  # another job has the parent
    other = try_claim(store.prepare(parent, plan.stages[parent]), "8")
    assert gangs.claim_next() == ({}, True)
    other.release()
    claims, _ = gangs.claim_next()
    assert list(claims) == [parent]
    finish(store, plan, parent)
    claims[parent].release()
    assert list(gangs.claim_next()[0]) == [child]


def test_a_damaged_result_is_set_aside_by_the_worker_that_claims_its_stage(store, plan):
    parent, child = next(iter(plan.paths.values()))
    path = finish(store, plan, parent)
    gangs = queue(store, plan, [parent], [child])
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    assert names(store, plan)[0] == "damaged"
    claims, _ = gangs.claim_next()
    assert list(claims) == [parent]
    assert list(path.parent.glob("result.json.damaged-1"))
    path.write_bytes(whole)
    claims[parent].release()
    assert list(gangs.claim_next()[0]) == [child]


def test_stages_of_a_gang_that_failed_train_one_by_one(store, plan):
    gang = [path[0] for path in plan.paths.values()]
    claims, _ = queue(store, plan, gang).claim_next()
    assert list(claims) == gang
    for stage, claim in claims.items():
        store.record_failure(stage, {"class": "gang", "message": "m", "again": True})
        claim.release()
    assert list(queue(store, plan, gang).claim_next()[0]) == gang[:1]
