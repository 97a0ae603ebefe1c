"""Toy stages on the digits, and real process groups: one in this process, or two of their own."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.schema import RunConfig, StageConfig
from harness.store.identity import stage_id
from harness.train.distributed import connected
from harness.train.loop import Member, train_gang

TOY = {
    "seed": 0,
    "dataset": {"name": "digits", "train_size": 192, "validation_size": 100, "test_size": 60},
    "model": {"family": "cifar_resnet", "depth": 8, "width": 0.25},
    "augment": {"policy": "randaug(n=2, m=0.3)", "crop_padding": 1, "flip": True},
    "recipe": {
        "epochs": 2,
        "batch_size": 32,
        "optimizer": {"lr": 0.1, "weight_decay": 5e-4, "nesterov": True},
        "schedule": {"warmup_epochs": 0.5},
        "label_smoothing": 0.1,
    },
}  # 6 steps an epoch, 12 in all
PRUNE = {
    "sparsity": 0.5,
    "method": "magnitude",
    "scope": "global",
    "protect": ["classifier"],
    "rewind": "learning_rate",
    "reestimate_batch_norm": True,
}


def toy(**changes):
    """A stage's config; nested keys by dots, as in `{"recipe.epochs": 3}`."""
    values = json.loads(json.dumps(TOY))
    for name, value in changes.items():
        at = values
        *path, last = name.split(".")
        for key in path:
            at = at[key]
        at[last] = value
    return StageConfig.model_validate(values)


class Stages:
    """A folder of stages, as the store lays them out, and a way to train some of them."""

    def __init__(self, root, world):
        self.root, self.world = root, world

    def member(self, config):
        folder = self.root / stage_id(config)
        folder.mkdir(parents=True, exist_ok=True)
        parent = self.root / config.parent if config.parent else None
        return Member(stage_id(config), config, folder, parent)

    def train(self, *configs, stop=lambda: False, beat=lambda: None, **run):
        run = RunConfig(**{"engine": "ddp", "processes": self.world.size, **run})
        members = [self.member(config) for config in configs]
        return train_gang(members, run, self.world, stop, beat)

    def folder(self, config):
        return self.member(config).folder


def after(calls):
    """A `should_stop` that turns true at its `calls`-th call, which is after as many steps."""
    left = [calls]

    def stop():
        left[0] -= 1
        return left[0] <= 0

    return stop


def timeless(outcome):
    """All of an outcome that must repeat to the last bit."""
    correct = {split: bits.tolist() for split, bits in (outcome.correct or {}).items()}
    result = {k: v for k, v in (outcome.result or {}).items() if k != "timing"}
    return outcome.stage_id, outcome.status, result, correct


def metrics(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="session")
def world():
    with connected(RunConfig(device="cpu")) as found:
        yield found


@pytest.fixture
def stages(tmp_path, world):
    return Stages(tmp_path / "stages", world)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def processes(program, *arguments, count):
    """`count` ranks of a program of this folder, ended by their PIDs whatever happens."""
    port = str(free_port())
    started = []
    try:
        for rank in range(count):
            env = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            env.update(WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            started.append(
                subprocess.Popen(
                    [sys.executable, "-W", "error", Path(__file__).parent / program, *arguments],
                    env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                )  # fmt: skip
            )
        yield started
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait(10)
            process.stdout.close()


def outputs(started, seconds):
    """What each process printed, once all have ended well within `seconds`."""
    deadline = time.monotonic() + seconds
    said = [process.communicate(timeout=deadline - time.monotonic())[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), "\n".join(said)
    return said
