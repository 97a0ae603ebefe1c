"""Classes of failures: which are tried again, and with what memory and batch."""

from dataclasses import replace

import pytest

from harness.cluster import failure
from harness.errors import UserError
from harness.files import append_line
from harness.store.claims import ClaimState
from harness.store.store import Store


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
    seen = ClaimState("t", "4", 0, 500.0, dead=False, log=str(log))
    record = failure.describe_lost(Store(tmp_path), seen, step=3)
    assert record["class"] == name
    foreign = replace(seen, log=str(elsewhere))  # not a log of this store: never opened
    assert failure.describe_lost(Store(tmp_path), foreign, step=3)["class"] == "lost"
    assert "job 4" in record["message"]


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


def signature_of(error):
    try:
        raise error
    except (ValueError, OSError) as caught:
        return failure.signature(failure.describe(caught))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cannot open <_io.BytesIO object at 0x7f12>", "cannot open <_io.BytesIO object at 0x9a>"),
        ("the image /d/train/a b/cat (1).JPEG does not decode (truncated): replace it.",
         "the image /d/val/n014/dog.png does not decode (broken data stream): replace it."),
        ("image 17 of 'imagenet' has 3 channels", "image 9,041 of 'imagenet' has 4 channels"),
        ("caf\udce9.JPEG is not an image", "n01440764_10026.JPEG is not an image"),
    ],
)  # fmt: skip
def test_one_cause_has_one_signature_whichever_image_it_strikes(first, second):
    assert signature_of(ValueError(first)) == signature_of(ValueError(second))


def test_different_causes_have_different_signatures():
    errors = [
        ValueError("the image /d/a.png does not decode"), OSError("the image /d/a.png is gone"),
        ValueError("the image /d/a.png is gone"), ValueError("loss is not finite"),
    ]  # fmt: skip
    assert len({signature_of(error) for error in errors}) == len(errors)


def test_a_recorded_message_is_the_same_in_every_process():
    error = ValueError(f"cannot read {object()!r}")
    assert failure.describe(error)["message"] == "cannot read <object object>"
