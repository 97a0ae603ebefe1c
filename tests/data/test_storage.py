"""Failures of storage and of the machine are reported as such, not as bad images."""

import os
import resource
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.cluster import failure
from harness.data import node, pipeline, write
from harness.data import threads as threads_module
from harness.data.catalog import MANIFEST
from harness.data.dataset_file import read_dataset
from harness.data.datasets import load
from harness.data.ffcv import require_memory
from harness.data.loader import make_loader
from harness.data.threads import STALL_SECONDS, Stalled, Threads
from harness.errors import UserError
from harness.run_schema import RunConfig
from harness.store.claims import STALE_SECONDS

PHOTOS = Path(__file__).with_name("photos.yaml")
CONFIG = read_dataset(str(PHOTOS))
CPU = torch.device("cpu")


@pytest.fixture
def own_tree(tree, tmp_path):
    """A root with a copy of the tree, which the test may change."""
    shutil.copytree(tree / "photos", tmp_path / "photos")
    return tmp_path


@pytest.fixture
def loader_of():
    """A function that opens a loader; all loaders are closed at the end of the test."""
    loaders = []

    def make(root, threads=2, config=CONFIG, **how):
        dataset = load(config, str(root), **how)
        loaders.append(make_loader(dataset, RunConfig(loader_threads=threads), 12, 0, 1, CPU))
        return loaders[-1]

    yield make
    for loader in loaders:
        loader.close()


def first_image(loader):
    """Return the path of an image in the first batch of an epoch."""
    images = loader._splits["train"].images
    ids = loader._dataset.train.ids.tolist()
    sample = next(loader.epoch(0, 0)).ids[0]
    return images._root / images._paths[ids.index(sample)]


def test_a_file_that_cannot_be_read_is_a_transport_failure(own_tree, loader_of):
    loader = loader_of(own_tree)
    path = first_image(loader)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(Stalled, match=r"cannot be read .*symbolic links") as caught:
        list(loader.epoch(0, 0))
    assert str(path) in str(caught.value)
    assert failure.classify(caught.value) == "transport"


def test_an_image_that_does_not_decode_is_a_mistake_in_the_data(own_tree, loader_of):
    loader = loader_of(own_tree)
    path = first_image(loader)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"does not decode .*: replace it") as caught:
        list(loader.epoch(0, 0))
    assert str(path) in str(caught.value)


def test_a_thread_opens_one_file_at_a_time(tree, loader_of):
    loader = loader_of(tree)
    # The first epoch imports modules, which opens files of their own.
    assert len(list(loader.epoch(0, 0))) == 3
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    free = [number for number in range(len(taken) + 3) if number not in taken]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[2] + 1, hard))  # three files
    try:
        assert len(list(loader.epoch(0, 1))) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_that_cannot_be_read_is_not_left_out_as_a_bad_image(own_tree, tmp_path):
    path = own_tree / "photos/train/dog/dog_05.JPEG"
    path.unlink()
    path.symlink_to("/proc/self/mem")  # this file can be opened but not read
    words = [
        f"dataset={PHOTOS}",
        f"source={own_tree / 'photos'}",
        "validation_size=9",
        "skip_bad=true",
    ]
    with pytest.raises(UserError, match=r"not finished.*dog_05\.JPEG cannot be read"):
        write.main([*words, f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_for_a_file_that_hangs_the_loader_waits_only_once(own_tree, loader_of, monkeypatch):
    loader = loader_of(own_tree)
    path = first_image(loader)
    path.unlink()
    os.mkfifo(path)  # opening it for reading waits for a writer
    monkeypatch.setattr(pipeline, "STALL_SECONDS", 0.5)
    waited = []
    wait = Threads.wait

    def watched(self, done, what, seconds):
        waited.append(what)
        return wait(self, done, what, seconds)

    monkeypatch.setattr(Threads, "wait", watched)
    try:
        with pytest.raises(Stalled, match=r"the next batch did not come within 0\.5 s"):
            next(loader.epoch(0, 0))
    finally:
        path.open("wb").close()
    assert waited == ["the next batch"]


def test_a_wait_ends_before_another_worker_may_claim_the_stage():
    assert STALL_SECONDS < STALE_SECONDS


@pytest.mark.slow
def test_a_wait_goes_on_while_slow_storage_delivers(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(threads_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def read_slowly():
        clock[0] += 0.8

    threads, last = Threads(1), threading.Event()
    for _ in range(5):  # 4 s in all, none of them longer than the limit
        threads.submit(read_slowly)
    threads.submit(last.set)
    threads.wait(last, "the last job", seconds=1.0)
    threads.close()


def test_storage_that_hangs_ends_the_wait():
    threads, release = Threads(1), threading.Event()
    threads.submit(release.wait)
    with pytest.raises(Stalled, match=r"the image x\.jpg did not come within 0\.3 s"):
        threads.wait(threading.Event(), "the image x.jpg", seconds=0.3)
    release.set()
    threads.close()


def test_the_process_cache_gives_the_batches_of_the_page_cache(betons, loader_of):
    page, process = (loader_of(betons, cache=cache) for cache in ("page", "process"))
    for one, other in zip(page.epoch(1, 2), process.epoch(1, 2), strict=True):
        assert torch.equal(one.images, other.images)
        assert np.array_equal(one.ids, other.ids)


def test_data_sets_cut_from_one_folder_are_in_memory_once(betons):
    smaller = CONFIG.model_copy(update={"train_size": 20})
    one, other = (load(config, str(betons), cache="process") for config in (CONFIG, smaller))
    assert np.shares_memory(one.train.images._data, other.train.images._data)


@pytest.fixture
def machine(monkeypatch):
    """Return a function that sets this machine's usable cores, and its total and free bytes."""

    def set_machine(cores=8, total=10**9, free=10**9):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        monkeypatch.setattr(node, "host_memory", lambda: (total, free))
        monkeypatch.setattr(node, "memory_limit", lambda: None)

    for name in (node.WORKERS, "SLURM_CPUS_PER_TASK", "LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it if a test sets it
        monkeypatch.delenv(name)
    return set_machine


def test_a_process_cache_must_fit_for_all_processes_of_the_node(tmp_path, machine, monkeypatch):
    path = tmp_path / "x.beton"
    path.write_bytes(bytes(1000))
    machine(total=3000, free=3000)
    for ranks in ("1", "2"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        require_memory([path])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UserError, match=r"each of 3 processes .* use run\.data_cache=page"):
        require_memory([path])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("HARNESS_WORKERS", "2")  # two workers of a launch, with two ranks each
    with pytest.raises(UserError, match=r"each of 4 processes"):
        require_memory([path])
    monkeypatch.setenv("HARNESS_WORKERS", "1")
    monkeypatch.setattr(node, "memory_limit", lambda: 2000)  # less than the machine has
    with pytest.raises(UserError, match=r"may use 0\.0 GB"):
        require_memory([path])


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/job/step", {"job/memory.max": "5000", "job/step/memory.max": "max"}, 5000),
        ("0::/job/step", {"job/memory.max": "5000", "job/step/memory.max": "700"}, 700),
        ("5:cpu:/a\n4:memory:/job\n0::/", {"memory/job/memory.limit_in_bytes": "900"}, 900),
        ("0::/", {}, None),
    ],
)
def test_the_limit_of_a_job_is_that_of_its_control_groups(
    tmp_path, monkeypatch, membership, files, limit
):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda p, *a: membership if p.name == "cgroup" else read(p, *a)
    )
    monkeypatch.setattr(node, "CGROUPS", tmp_path)
    assert node.memory_limit() == limit


@pytest.mark.parametrize(
    ("environment", "cores"),
    [
        ({}, 8),
        ({"WORLD_SIZE": "2"}, 4),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, 4),  # two ranks are on another node
        ({"WORLD_SIZE": "16"}, 1),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "SLURM_CPUS_PER_TASK": "2"}, 2),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "SLURM_CPUS_PER_TASK": "8"}, 8),
        ({"SLURM_CPUS_PER_TASK": "64"}, 8),
        ({"SLURM_CPUS_PER_TASK": "8", "HARNESS_WORKERS": "4"}, 2),  # a local launch in a job
        ({"SLURM_CPUS_PER_TASK": "6", "HARNESS_WORKERS": "1", "LOCAL_WORLD_SIZE": "2"}, 3),
    ],
)
def test_a_rank_decodes_on_its_cores_of_slurm_or_its_share_of_the_node(
    machine, monkeypatch, environment, cores
):
    machine(cores=8)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert node.usable_cores() == cores


def test_the_workers_of_a_launch_share_the_cores_of_the_machine(machine, monkeypatch):
    machine(cores=8)
    node.share(2)
    assert node.usable_cores() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert node.usable_cores() == 2
    node.share(20)
    assert node.usable_cores() == 1


def test_a_rank_knows_how_many_ranks_share_its_node(tmp_path, monkeypatch):
    from harness.cluster import rendezvous

    variables = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_NTASKS": "3"}
    variables |= {"SUBMITIT_LOCAL_JOB_ID": "1", "SUBMITIT_LOCAL_LOCALID": "0"}
    variables |= {"SUBMITIT_LOCAL_GLOBALID": "0", "SUBMITIT_LOCAL_NODEID": "0"}
    variables |= {"SUBMITIT_LOCAL_NNODES": "1", "SUBMITIT_LOCAL_NODELIST": "here"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")  # so that monkeypatch restores them after the export
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "0")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    rendezvous.export_rank_variables(tmp_path)
    assert node.processes_here() == 3


@pytest.mark.skipif(sys.platform != "linux", reason="control groups")
def test_this_machines_memory_can_be_read():
    total, free = node.host_memory()
    assert 0 < free <= total
    assert node.memory_limit() is None or node.memory_limit() > 0


def test_variables_that_are_not_numbers_are_ignored(monkeypatch):
    monkeypatch.delenv(node.WORKERS, raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "all")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4(x2)")
    assert node.processes_here() == 1
    assert node.usable_cores() == len(os.sched_getaffinity(0))
