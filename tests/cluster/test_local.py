"""Workers of this machine: the GPUs that each sees, and how the launch ends after them."""

import signal

import pytest

from harness.cluster.resources import assign_gpus, local_problems
from harness.cluster.stop_flag import SIGNALS, StopFlag
from harness.cluster.supervisor import Progress, supervise
from harness.cluster_schema import ClusterConfig
from harness.errors import UserError
from harness.schema import RunConfig
from harness.store.store import Store


def cluster(gpus, workers):
    return ClusterConfig(name="local", gpus_per_node=gpus, workers=workers)


@pytest.mark.parametrize(
    ("visible", "gpus", "workers", "processes", "expected"),
    [
        (None, 0, 2, 1, [(), ()]),
        (None, 2, 2, 1, [(0,), (1,)]),
        (None, 4, 2, 2, [(0, 1), (2, 3)]),
        (None, 1, 2, 1, [(0,), (0,)]),  # they share it
        (None, 2, 2, 2, [(0, 1), (0, 1)]),
        (None, 2, 1, 1, [(0, 1)]),
        ("3,1", 2, 2, 1, [(3,), (1,)]),
        ("3, 1, 0", 2, 1, 2, [(3, 1)]),
        ("", 0, 1, 1, [()]),
    ],
)
def test_each_worker_sees_gpus_of_its_own(monkeypatch, visible, gpus, workers, processes, expected):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert assign_gpus(cluster(gpus, workers), processes) == expected


@pytest.mark.parametrize(
    ("visible", "message"),
    [("0", "lists 1"), ("", "lists 0 GPUs"), (",", "lists 0"), ("GPU-1f,GPU-2a", "by number")],
)
def test_gpus_that_the_user_hid_are_not_taken(monkeypatch, visible, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError, match=message):
        assign_gpus(cluster(2, 1), 1)
    (sentence,) = local_problems(cluster(2, 1), RunConfig())
    assert message in sentence


@pytest.mark.parametrize(
    ("gpus", "run", "message"),
    [
        (0, {"device": "cuda"}, "set cluster.gpus_per_node=N"),
        (1, {"processes": 2}, "need a GPU each"),
        (1000, {}, "on this machine: set cluster.gpus_per_node="),
        (1000, {"device": "cpu"}, ""),
        (0, {"processes": 2}, ""),
    ],
)
def test_gpus_that_workers_here_cannot_get_are_named(monkeypatch, gpus, run, message):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert message in "".join(local_problems(cluster(gpus, 1), RunConfig(**run)))
    assert bool(message) == bool(local_problems(cluster(gpus, 1), RunConfig(**run)))


class Ends:
    """Workers that end between two looks: alive at the first, dead when they are counted."""

    def __init__(self, how):
        self.how, self.jobs, self.number_of, self.looks = how, [], {}, 0
        self.job_id = "1"

    def start(self, number):
        self.jobs.append(self)

    def done(self):
        self.looks += 1
        return self.looks > 1

    def outcome(self, job):
        return self.how

    def stop(self):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (("finished", ""), "finished"),
        (("gave up", "three alike"), "gave up"),
        (("storage", "full"), "storage"),
        (("stopped", "by SIGUSR2"), "interrupted"),
    ],
)
def test_the_outcome_of_a_worker_that_ends_between_two_looks_counts(tmp_path, how, expected):
    progress = Progress(Store(tmp_path), {}, [])
    end, why = supervise(Ends(how), 1, progress, StopFlag())
    assert end == expected
    assert how[1] in why


def test_signal_handlers_are_restored():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with StopFlag() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop()
        assert stop.signal == "SIGINT"
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
