"""Seconds per training step: the harness with each engine, against a bare PyTorch loop.

python benchmarks/train.py [cuda]

The harness and the bare loop alternate step by step in one process, so that other load on the
machine slows both. They have the same batches, augmentation and model. The harness's steps are
those of its real loop (`train_gang`): they include data, learning rate, seeds, metrics, heartbeat
and votes, but not checkpoints and evaluation. On a CPU there is one thread. The exit code is 1 if
the engine ddp takes more than `LIMIT` times as long as the bare loop.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from pictures import bench_set, fashion_mnist, write_bench
from torch.nn import functional as F

from harness.augment.batch_transform import BatchTransform, train_batch
from harness.augment.executors import choose_executor
from harness.augment.policy import parse_policy
from harness.data.datasets import load
from harness.data.loader import make_loader
from harness.models import registry
from harness.run_schema import RunConfig
from harness.schema import StageConfig
from harness.store.identity import stage_id
from harness.train import Member, train_gang
from harness.train.distributed import World, connected
from harness.train.optim import make_optimizer

STEPS = 100
WARM_UP = 20
LIMIT = 1.03  # the engine ddp against the bare loop
# Nats by which the mean losses may differ. On a GPU, TF32 and algorithms that depend on the memory
# layout change each step a little, and the differences grow in a hundred steps.
TOLERANCE = {"cpu": 1e-4, "cuda": 2e-2}
DECODED = "ResNet-8, JPEGs, batch 64"  # of 32 pixels, read through FFCV
SIZES: dict[str, dict[str, object]] = {
    "ResNet-8, batch 64": {"family": "cifar_resnet", "depth": 8, "width": 0.5},
    "ResNet-20, batch 64": {"family": "cifar_resnet", "depth": 20, "width": 1.0},
    "ViT-Lite-2, batch 64": {"family": "cifar_vit", "depth": 2, "width": 0.5},
    DECODED: {"family": "cifar_resnet", "depth": 8, "width": 0.5},
}
POLICIES = ("none", "randaug_strict(n=2, m=0.5)")
ENGINES = ("ddp", "deepspeed")


def stage(model: dict[str, object], policy: str, decoded: bool) -> StageConfig:
    resident = {"name": "fashion_mnist", "validation_size": 100, "test_size": 100}
    jpegs = {**bench_set((70 + 10) * 81), "resolution": 32, "crop_scale": [0.25, 1.0]}
    return StageConfig.model_validate(
        {
            "seed": 0,
            "dataset": {**(jpegs if decoded else resident), "train_size": 64 * STEPS},
            "model": model,
            "augment": {"policy": policy, "crop_padding": 2, "flip": True},
            "recipe": {
                "epochs": 1,
                "batch_size": 64,
                "optimizer": {"lr": 0.02, "weight_decay": 5e-4},
                "schedule": {"name": "constant"},
            },
        }
    )


class Bare:
    """A plain training loop that can do this training only."""

    def __init__(self, config: StageConfig, run: RunConfig, device: torch.device):
        dataset = load(config.dataset, run.data_root)
        info = dataset.info
        self.config, self.classes, self.device = config, info.num_classes, device
        self.policy = parse_policy(config.augment.policy)
        self.executor = choose_executor(device)
        self.transform = BatchTransform(crop_padding=2, flip=True, mean=info.mean, std=info.std)
        self.batches = make_loader(dataset, run, 64, 0, 1, device).epoch(0, 0)
        model = registry.build(config.model, self.classes, seed=0, resolution=info.resolution).to(
            device
        )
        self.model = model.to(memory_format=torch.channels_last).train()
        self.optimizer = make_optimizer(self.model, config.recipe.optimizer)
        self.losses = torch.zeros((), device=device)

    def step(self) -> None:
        """Train on the next batch."""
        batch = next(self.batches)
        images, targets = train_batch(
            batch.images,
            batch.labels,
            batch.ids,
            policy=self.policy,
            transform=self.transform,
            seed=0,
            epoch=0,
            num_classes=self.classes,
            channels_last=True,
            executor=self.executor,
        )
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(images), targets)
        loss.backward()
        self.optimizer.step()
        self.losses += loss.detach()


class Alternator:
    """A heartbeat that times each step of the harness and then runs and times a bare step."""

    def __init__(self, bare: Bare, device: torch.device):
        self.bare, self.device = bare, device
        self.harness_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self.last = time.perf_counter()

    def clock(self) -> float:
        """Return the time in seconds, after the device has finished its queued work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def __call__(self) -> None:
        """Record the seconds of the harness's step that just ended, and of a bare step."""
        ended = self.clock()
        if len(self.harness_seconds) == STEPS:  # evaluation calls the heartbeat too
            return
        self.bare.step()
        self.harness_seconds.append(ended - self.last)
        self.last = self.clock()
        self.bare_seconds.append(self.last - ended)


def measure(config: StageConfig, run: RunConfig, world: World) -> tuple[float, float, float]:
    """Return the median seconds of a harness step and of a bare step, and their median ratio.

    Raises AssertionError if the losses of the two trainings differ.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "stages" / "aa" / stage_id(config)
        folder.mkdir(parents=True)
        alternator = Alternator(Bare(config, run, world.device), world.device)
        member = Member(stage_id(config), config, folder, None)
        (outcome,) = train_gang([member], run, world, lambda: False, alternator)
        assert outcome.result is not None
        difference = abs(outcome.result["train"]["loss"] - float(alternator.bare.losses) / STEPS)
        tolerance = TOLERANCE[world.device.type]
        assert difference < tolerance, f"not the same training: losses differ by {difference}"
    harness = alternator.harness_seconds[WARM_UP:]
    bare = alternator.bare_seconds[WARM_UP:]
    ratios = [ours / theirs for ours, theirs in zip(harness, bare, strict=True)]
    return statistics.median(harness), statistics.median(bare), statistics.median(ratios)


def main() -> int:
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU, 1 thread"
    print(f"{where}; milliseconds per step, median of {STEPS - WARM_UP}; harness / bare loop")
    ratios = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fashion_mnist(folder)
        write_bench(folder, 70, 81, 128)
        settings = {"device": device, "checkpoint_seconds": 1e6, "data_root": str(folder)}
        settings |= {"loader_threads": 1} if device == "cpu" else {}
        runs = [RunConfig.model_validate({**settings, "engine": engine}) for engine in ENGINES]
        world = stack.enter_context(connected(runs[0]))
        for (name, model), policy, run in itertools.product(SIZES.items(), POLICIES, runs):
            harness, bare, ratio = measure(stage(model, policy, name == DECODED), run, world)
            ratios += [ratio] if run.engine == "ddp" else []
            print(
                f"  {name:<22} {policy:<28} {run.engine:<10}"
                f"{1e3 * harness:8.2f} /{1e3 * bare:8.2f} = {ratio:.3f}",
                flush=True,
            )
    print(
        f"engine ddp: median {100 * (statistics.median(ratios) - 1):+.1f} %, "
        f"largest {100 * (max(ratios) - 1):+.1f} % (limit {100 * (LIMIT - 1):.0f} % in each case)"
    )
    return 0 if max(ratios) <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
