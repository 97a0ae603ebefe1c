"""Classes of failures: which are tried again, and with what memory and batch."""

from dataclasses import replace

import pytest

from harness.cluster import failure
from harness.cluster.job_registry import reason_to_give_up
from harness.cluster.submission import Submission, trip_breaker
from harness.cluster_schema import ClusterConfig
from harness.errors import UserError
from harness.files import append_line
from harness.run_schema import RunConfig
from harness.store.claims import ClaimState
from harness.store.store import Store
from harness.sweep.grid import make_grid
from harness.sweep.plan import make_plan


def records(*classes, step=7):
    return [{"class": name, "step": step} for name in classes]


@pytest.mark.parametrize(
    ("past", "blocked"),
    [
        ([], False),
        (records("preempted") * 100, False),
        (records("code"), True),
        (records("unreadable"), False),
        (records("code", "unreadable"), True),
        (records("config"), True),
        (records("out_of_memory"), True),
        ([{"class": "out_of_memory", "again": True, "micro_batch_size": 8}], False),
        (records("lost") * 4, False),
        (records("lost") * 5, True),
        (records("lost") * 4 + records("preempted") + records("lost"), False),
        (records("lost") * 4 + records("lost", step=8), False),
        (records("time_limit") * 3, True),
        (records("time_limit", step=1) + records("time_limit") * 2, False),
        (records("host_memory") * 3, True),
        (records("transport") * 5, True),
        (records("code", "retry"), False),
        (records("lost") * 4 + records("retry") + records("lost"), False),
    ],
)
def test_what_blocks_a_stage(past, blocked):
    assert failure.blocks(past) == blocked


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (UserError("no"), "config"),
        (ValueError("bug"), "code"),
        (MemoryError(), "out_of_memory"),
        (ConnectionResetError("peer"), "transport"),
        (RuntimeError("NCCL error: unhandled system error"), "transport"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"), "transport"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "code"),
    ],
)
def test_classes_of_exceptions(error, name):
    assert failure.classify(error) == name


def test_torch_says_out_of_memory_in_a_class_of_its_own():
    import torch

    assert failure.classify(torch.OutOfMemoryError("CUDA out of memory")) == "out_of_memory"
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert failure.classify(caught.value) == "out_of_memory"


@pytest.mark.parametrize(
    ("tail", "name"),
    [
        (
            "slurmstepd: error: StepId=4.0 exceeded memory limit (66 > 21), being killed",
            "host_memory",
        ),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=4.0", "host_memory"),
        ("epoch 3 of 4", "lost"),
        (  # first a GPU was too small, which was solved; then the node failed
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n"
            "slurmstepd: error: *** STEP 4.0 ON n1 CANCELLED DUE TO NODE FAILURE ***",
            "lost",
        ),
        ("killed by the cgroup out-of-memory handler.", "host_memory"),
    ],
)
def test_the_log_tells_why_an_owner_is_gone(tmp_path, tail, name):
    log = tmp_path / "sweeps" / "tiny" / "logs" / "4_0_log.out"
    log.parent.mkdir(parents=True)
    elsewhere = tmp_path / "4_0_log.out"
    for path in (log, elsewhere):
        path.write_text("x" * 10_000 + tail)
    store, stage = Store(tmp_path), "0123456789abcdef"
    store.folder(stage).mkdir(parents=True)
    owner = ClaimState("t", "4", 0, 500.0, dead=False, log=str(log))
    foreign = replace(owner, log=str(elsewhere))  # not a log of this store: never opened
    for claim in (owner, foreign):
        failure.record_lost(store, stage, claim, "5")
    records = store.failures(stage)
    assert [record["class"] for record in records] == [name, "lost"]
    assert all("job 4" in record["message"] for record in records)


def test_smaller_micro_batches_and_more_memory_last_until_a_retry():
    past = [
        {"class": "out_of_memory", "again": True, "micro_batch_size": 64},
        {"class": "out_of_memory", "again": True, "micro_batch_size": 32},
        *records("host_memory", "host_memory"),
    ]
    assert failure.micro_batch_size(past, None) == 32
    assert failure.micro_batch_size(past, 16) == 16
    assert failure.memory_factor(past) == 4
    assert failure.pause_seconds([*past, *records("transport", "transport")]) == 4.0
    again = [*past, *records("retry")]
    assert failure.micro_batch_size(again, None) is None
    assert failure.memory_factor(again) == 1


@pytest.mark.parametrize(("gang", "name"), [(["a", "b"], "gang"), (None, "host_memory")])
def test_a_gang_that_took_too_much_host_memory_goes_on_as_single_stages(tmp_path, gang, name):
    store, stage = Store(tmp_path), "0123456789abcdef"
    log = store.sweep_folder("mine") / "logs" / "4_0_log.out"
    log.parent.mkdir(parents=True)
    log.write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=4.0")
    folder = store.folder(stage)
    folder.mkdir(parents=True)
    line = {"job": "4", "attempt": 1, "log": str(log)} | ({"gang": gang} if gang else {})
    append_line(folder / "attempts.jsonl", {"job": "4", "attempt": 0, "gang": ["a", "c"]})
    append_line(folder / "attempts.jsonl", line)
    seen = ClaimState("t", "4", 1, 500.0, dead=False, log=str(log))
    failure.record_lost(store, stage, seen, "5")
    (record,) = store.failures(stage)
    assert record["class"] == name
    assert "out of host memory" in record["message"]
    assert failure.must_train_alone([record]) == (name == "gang")
    assert failure.memory_factor([record]) == (1 if name == "gang" else 2)
    assert not failure.blocks([record] * 3) or name == "host_memory"


def signature_of(read, name):
    with pytest.raises((ValueError, OSError, UserError)) as caught:
        read(name)
    return failure.signature(failure.describe(caught.value))


def decode(name):
    if name.endswith("!"):
        raise OSError(f"the image {name} is gone")
    raise ValueError(f"the image {name} does not decode")


def test_one_cause_has_one_signature_whichever_image_it_strikes():
    names = ["/d/a b/cat (1).JPEG", "17 of 'x'", "x\udce9.JPEG", "cat", "big dog", str(object())]
    (one,) = {signature_of(decode, name) for name in names}
    assert one != signature_of(decode, "dog!")


def test_lost_processes_have_one_signature(tmp_path):
    store, signatures = Store(tmp_path), set()
    for number in range(2):
        stage = f"{number:016x}"
        owner = ClaimState("", f"{number}", 0, 1e6, dead=True, log=f"sweeps/t/logs/{number}.out")
        failure.record_lost(store, stage, owner, "other")
        signatures |= {failure.signature(record) for record in store.failures(stage)}
    assert len(signatures) == 1


def test_a_recorded_message_is_the_same_in_every_process():
    error = ValueError(f"cannot read {object()!r}")
    assert failure.describe(error)["message"] == "cannot read <object object>"


def test_a_data_set_that_fails_on_different_images_stops_the_launch(tmp_path):
    plan = make_plan(make_grid("test", {
        "dataset": {"name": "digits", "validation_size": 200},
        "model": {"family": "cifar_resnet", "depth": 8},
        "recipe": {"epochs": 2, "batch_size": 32, "optimizer": {"lr": 0.1}},
        "axes": {"width": [0.5], "sparsity": [0.0], "magnitude": ["none"], "seed": [0, 1, 2, 3]},
    }))  # fmt: skip
    store, stages = Store(tmp_path), list(plan.stages)
    submission = Submission(
        store=tmp_path, sweep="test", run=RunConfig(), cluster=ClusterConfig(name="c"),
        stages=plan.stages, parts=[[[stage]] for stage in stages],
    )  # fmt: skip
    folders = [store.sweep_folder("test") / f"logs/1/{number}" for number in range(2)]
    for folder in folders:  # two arrays of one launch
        folder.mkdir(parents=True)
        submission.write(folder / "submission.json")
    for number, stage in enumerate(stages[:3]):
        assert reason_to_give_up(folders[0]) is None
        error = UserError(f"the image /d/{number}/x{number}.png does not decode (byte {number})")
        record = failure.describe(error)
        store.prepare(stage, plan.stages[stage])
        store.record_failure(stage, record)
        trip_breaker(submission, folders[0], record)
    for folder in folders:
        reason = reason_to_give_up(folder)
        assert reason == f"3 stages failed alike and none is done: {error}"
