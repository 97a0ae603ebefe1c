"""Seconds per training step: the harness with each engine against a bare PyTorch loop.

python benchmarks/train.py [cuda]

Harness and bare loop take turns step by step in one process, on the same batches, with the same
augmentation and the same model, so that a noisy machine is noisy for both. The harness's steps are
those of its real loop (`train_gang`): data, learning rate, seeds, metrics, heartbeat and votes
included; checkpoints and evaluation are not. One thread on CPU.
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
from pictures import fashion_mnist, write_bench
from torch.nn import functional as F

from harness.augment.batch_transform import BatchTransform, train_batch
from harness.augment.policy import parse_policy
from harness.data.datasets import load
from harness.data.loader import make_loader
from harness.models import registry
from harness.schema import RunConfig, StageConfig
from harness.store.identity import stage_id
from harness.train.distributed import World, connected
from harness.train.loop import Member, train_gang
from harness.train.optim import make_optimizer

STEPS = 100
WARM_UP = 20
LIMIT = 1.03  # the engine ddp against the bare loop
# Nats that the mean losses may differ by. On a GPU, TF32 and other algorithms for another layout of
# memory move each step a little, and a hundred steps move the loss more.
SAME = {"cpu": 1e-4, "cuda": 2e-2}
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
    coded = {"name": "bench", "validation_size": 10, "resolution": 32, "crop_scale": [0.25, 1.0]}
    return StageConfig.model_validate(
        {
            "seed": 0,
            "dataset": {**(coded if decoded else resident), "train_size": 64 * STEPS},
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
    """What one would write for this one training and no other."""

    def __init__(self, config: StageConfig, run: RunConfig, device: torch.device):
        dataset = load(config.dataset, run.data_root)
        info = dataset.info
        self.config, self.classes, self.device = config, info.num_classes, device
        self.policy = parse_policy(config.augment.policy)
        self.transform = BatchTransform(crop_padding=2, flip=True, mean=info.mean, std=info.std)
        self.batches = make_loader(dataset, run, 64, 0, 1, device).epoch(0, 0)
        model = registry.build(config.model, self.classes, seed=0, resolution=info.resolution).to(
            device
        )
        self.model = model.to(memory_format=torch.channels_last).train()
        self.optimizer = make_optimizer(self.model, config.recipe.optimizer)
        self.losses = torch.zeros((), device=device)

    def step(self) -> None:
        """The next batch."""
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
        )
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(images), targets)
        loss.backward()
        self.optimizer.step()
        self.losses += loss.detach()


class Turns:
    """The heartbeat of the harness's loop, once a step: takes its time, then a bare step."""

    def __init__(self, bare: Bare, device: torch.device):
        self.bare, self.device = bare, device
        self.harness: list[float] = []
        self.alone: list[float] = []
        self.last = time.perf_counter()

    def clock(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def __call__(self) -> None:
        """The harness has made a step."""
        ended = self.clock()
        if len(self.harness) == STEPS:  # evaluation beats too
            return
        self.bare.step()
        self.harness.append(ended - self.last)
        self.last = self.clock()
        self.alone.append(self.last - ended)


def measure(config: StageConfig, run: RunConfig, world: World) -> tuple[float, float, float]:
    """Median seconds of a step, by the harness and alone, and of their ratio in each turn.

    Fails if the two trained differently.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "stages" / "aa" / stage_id(config)
        folder.mkdir(parents=True)
        turns = Turns(Bare(config, run, world.device), world.device)
        member = Member(stage_id(config), config, folder, None)
        (outcome,) = train_gang([member], run, world, lambda: False, turns)
        assert outcome.result is not None
        difference = abs(outcome.result["train"]["loss"] - float(turns.bare.losses) / STEPS)
        assert difference < SAME[world.device.type], f"not the same training: off by {difference}"
    harness, bare = turns.harness[WARM_UP:], turns.alone[WARM_UP:]
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
        said = {"device": device, "checkpoint_seconds": 1e6, "data_root": str(folder)}
        said |= {"loader_threads": 1} if device == "cpu" else {}
        runs = [RunConfig.model_validate({**said, "engine": engine}) for engine in ENGINES]
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
        f"engine ddp: {100 * (statistics.median(ratios) - 1):+.1f} % in the middle, "
        f"{100 * (max(ratios) - 1):+.1f} % at most (limit {100 * (LIMIT - 1):.0f} % in each case)"
    )
    return 0 if max(ratios) <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
