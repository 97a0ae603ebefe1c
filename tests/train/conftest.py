"""Toy stages on the digits, and real process groups: one in this process, or two of their own."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.files import write_json
from harness.run_schema import RunConfig
from harness.schema import Continues, StageConfig
from harness.store.identity import stage_id
from harness.sweep.trunk import trunk_stage
from harness.train import Member, checkpoint, train_gang

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


class Stages:
    """Stages with their folders below `root`, and functions that train some of them."""

    def __init__(self, root, world):
        self.root, self.world = root, world
        self.keeps_last = False  # whether stages keep what others need to continue them

    @staticmethod
    def toy(changes=None):
        """A stage's config; nested keys by dots, as in `{"recipe.epochs": 3}`."""
        values = json.loads(json.dumps(TOY))
        for name, value in (changes or {}).items():
            at = values
            *path, last = name.split(".")
            for key in path:
                at = at[key]
            at[last] = value
        return StageConfig.model_validate(values)

    def child(self, parent, sparsity=0.5, changes=None):
        """A stage that prunes what `parent` ends with."""
        prune = {**PRUNE, "sparsity": sparsity}
        return self.toy({**(changes or {}), "parent": stage_id(parent), "prune": prune})

    def trunk(self, *ends, **changes):
        """The stages of a trunk that is cut after the epochs `ends`, and its cooled-down end."""
        whole = self.toy({"recipe.schedule": {"name": "trunk", "cooldown": 0.5}, **changes})
        stages, continues = [], None
        for epochs in (*ends, None):
            config = whole if epochs is None else trunk_stage(whole, epochs)
            stages.append(config.model_copy(update={"continues": continues}))
            continues = Continues(stage=stage_id(config), epoch=config.recipe.epochs)
        return stages

    def member(self, config):
        folder = self.root / stage_id(config)
        folder.mkdir(parents=True, exist_ok=True)
        origin = self.root / config.origin if config.origin else None
        return Member(stage_id(config), config, folder, origin)

    def folder(self, config):
        return self.member(config).folder

    def train(self, *configs, stop=lambda: False, beat=lambda: None, **run):
        run = RunConfig(**{"engine": "ddp", "processes": self.world.size, **run})
        members = [self.member(config) for config in configs]
        outcomes = train_gang(members, run, self.world, stop, beat)
        for member, outcome in zip(members, outcomes, strict=True):
            if outcome.status != "stopped" and self.world.rank == 0:
                # as a worker does after it wrote the result
                checkpoint.drop_steps(member.folder, self.keeps_last)
                if self.keeps_last:
                    write_json(member.folder / "result.json", outcome.result)
        if self.keeps_last:
            self.world.gather(None)  # the other ranks read what rank 0 has written
        return outcomes

    def train_for(self, steps, *configs, **run):
        """Train until `should_stop` is true after this many steps."""
        remaining = [steps]

        def stop():
            remaining[0] -= 1
            return remaining[0] <= 0

        return self.train(*configs, stop=stop, **run)

    def record(self, config, outcome):
        """Return what must repeat to the bit: outcome, metrics, and the file of final weights."""
        correct = {split: bits.tolist() for split, bits in (outcome.correct or {}).items()}
        result = {k: v for k, v in (outcome.result or {}).items() if k != "timing"}
        folder = self.folder(config)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        losses = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
        final = folder / "checkpoint" / "final.pt"
        return outcome.status, result, correct, losses, final.exists() and final.read_bytes()

    def saved(self, config):
        """Names of the files in the checkpoint folder."""
        return sorted(path.name for path in (self.folder(config) / "checkpoint").glob("*"))


class Code:
    """Runs when it is unpickled: makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def make_code():
    """(path) -> an object whose pickle makes that folder when it is loaded."""
    return Code


@pytest.fixture
def stages(tmp_path, world):
    return Stages(tmp_path / "stages", world)


@pytest.fixture
def others(tmp_path, world):
    """A second folder, in which the same stages are trained in another way."""
    return Stages(tmp_path / "others", world)


class Ranks:
    """Processes of a program in this folder; `close` ends all that still run."""

    def __init__(self):
        self.started = []

    def start(self, program, *arguments, count=2, **environment):
        """Start ranks 0 to count - 1, with the variables that a launcher would set."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        for rank in range(count):
            env = {**os.environ, **environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            env.update(WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            command = [sys.executable, "-W", "error", str(Path(__file__).parent / program)]
            command += map(str, arguments)
            both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            self.started.append(subprocess.Popen(command, env=env, text=True, **both))
        return self.started

    def ended(self, seconds):
        """Return what each rank printed, after all have ended within `seconds`."""
        deadline = time.monotonic() + seconds
        return [p.communicate(timeout=deadline - time.monotonic())[0] for p in self.started]

    def close(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(300)
            process.stdout.close()


@pytest.fixture
def ranks():
    ranks = Ranks()
    yield ranks
    ranks.close()


@pytest.fixture(scope="module")
def module_ranks():
    ranks = Ranks()
    yield ranks
    ranks.close()
