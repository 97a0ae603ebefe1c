"""One stage in training: its model, from its seed or its parent, its masks, engine and metrics."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from harness.augment.policy import parse_policy
from harness.augment.tail import Tail, eval_batch, train_batch
from harness.compress import batchnorm
from harness.compress import masks as pruning
from harness.data.datasets import Dataset
from harness.data.loader import Batch, Loader, SplitName
from harness.models import registry
from harness.models.counts import count
from harness.schema import RunConfig
from harness.store.files import append_line, atomic_write, read_lines
from harness.train import checkpoint, rng
from harness.train.distributed import World
from harness.train.engine import Engine, make_engine
from harness.train.evaluate import Scores, evaluate
from harness.train.optim import learning_rate
from harness.train.trackers import Tracker

if TYPE_CHECKING:
    from harness.train.loop import Member

REESTIMATE_IMAGES = 2048  # un-augmented training images that batch norm is re-estimated on
REESTIMATE_BATCH = 256


class Stage:
    """Built at its first step or at its newest checkpoint; `step` counts what it has trained.

    `beat` is called while it evaluates. `seconds` is the loop's to count.
    """

    def __init__(
        self,
        member: Member,
        dataset: Dataset,
        loader: Loader,
        run: RunConfig,
        world: World,
        beat: Callable[[], None],
    ):
        self.id = member.stage_id
        self.config = member.config
        self.folder = member.folder
        self.dataset, self.loader, self.run, self.world = dataset, loader, run, world
        self.beat = beat
        self.policy = parse_policy(self.config.augment.policy)
        self.tail = Tail(
            crop_padding=self.config.augment.crop_padding,
            flip=self.config.augment.flip,
            mean=dataset.info.mean,
            std=dataset.info.std,
        )
        self.sharded = run.engine == "deepspeed" and run.zero_stage > 0
        self.total_steps = loader.steps_per_epoch * self.config.recipe.epochs
        self.step = 0
        self.seconds = 0.0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=world.device)
        self.last_loss: float | None = None
        self.diverged = False
        self.val_before: dict[str, float] | None = None
        self.masks: pruning.Masks | None = None
        module = registry.build(
            self.config.model,
            dataset.info.num_classes,
            seed=self.config.seed,
            resolution=dataset.resolution,
        )
        module = module.to(world.device)
        prune = self.config.prune
        self.protected = (
            pruning.protected(module, prune.protect, registry.roles(self.config.model))
            if prune
            else []
        )
        found = checkpoint.load_newest(self.folder, self.id, world, self.sharded)
        if found is None:
            self._begin(module, member)
        else:
            saved = found[1]["masks"]
            self.masks = None if saved is None else pruning.unpack(saved, module)
        self.engine: Engine = make_engine(
            module, self.config.recipe, run, world, self.masks, self._micro_batches()
        )
        self.module = self.engine.module
        if found is not None:
            self._resume(*found)
        self._truncate_metrics()
        self.tracker = Tracker(
            run.tracker if world.rank == 0 else "none",
            self.folder.parents[2],  # the store
            self.id,
            self.config.model_dump(mode="json"),
            self.step,
        )

    def close(self) -> None:
        """Give back what the stage holds besides its weights."""
        self.tracker.close()
        self.engine.close()

    def _micro_batches(self) -> int:
        share = self.config.recipe.batch_size // self.world.size
        return -(-share // (self.run.micro_batch_size or share))

    def _begin(self, module: torch.nn.Module, member: Member) -> None:
        """Start from the parent's final weights, pruned, or from the seed."""
        if member.parent_folder is None or member.config.parent is None:
            return
        parent = checkpoint.read_final(member.parent_folder, member.config.parent)
        module.load_state_dict(parent["model"])
        inherited = None if parent["masks"] is None else pruning.unpack(parent["masks"], module)
        prune = self.config.prune
        if prune is None or prune.sparsity == 0.0:
            self.masks = inherited
            return
        names = pruning.prunable(module, prune.protect, registry.roles(self.config.model))
        self.masks = pruning.magnitude_masks(module, prune.sparsity, names, inherited)
        hashes = set(self.world.gather(pruning.mask_hash(self.masks)))
        if len(hashes) > 1:
            raise RuntimeError(f"ranks made different masks for stage {self.id}: {hashes}")
        pruning.apply_masks(module, self.masks)
        if prune.reestimate_batch_norm:
            images = self.loader.fixed(REESTIMATE_IMAGES, REESTIMATE_BATCH)
            batchnorm.reestimate(module, (self._plain(batch) for batch in images))
        self.val_before = self._evaluate(module, "validation").summary()

    def _plain(self, batch: Batch) -> torch.Tensor:
        return eval_batch(batch.images, tail=self.tail, channels_last=self.run.channels_last)

    def _resume(self, step: int, state: dict[str, Any]) -> None:
        self.engine.load_state(state["engine"])
        self.step = step
        sums = state["loss_sums"]
        if len(sums) == self.world.size:
            self.loss_sum.fill_(sums[self.world.rank])
        elif self.world.rank == 0:  # another number of ranks: the mean over them stays the same
            self.loss_sum.fill_(math.fsum(sums) / len(sums) * self.world.size)
        self.seconds = state["seconds"]
        self.last_loss = state["last_loss"]
        self.val_before = state["val_before"]

    def train_on(self, batch: Batch, epoch: int) -> None:
        """One optimizer step on this rank's share of a global batch."""
        recipe = self.config.recipe
        images, targets = train_batch(
            batch.images,
            batch.labels,
            batch.ids,
            policy=self.policy,
            tail=self.tail,
            seed=self.config.seed,
            epoch=epoch,
            num_classes=self.dataset.info.num_classes,
            channels_last=self.run.channels_last,
        )
        size = self.run.micro_batch_size or len(images)
        lr = learning_rate(
            recipe.optimizer,
            recipe.schedule,
            self.step,
            self.total_steps,
            self.loader.steps_per_epoch,
        )
        # what draws inside a model (dropout) is a function of the step too, and of nothing before
        seed = rng.derive(self.config.seed, f"step {self.step} rank {self.world.rank}")
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 0.1 ms for all devices
        if self.world.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        self.loss_sum += self.engine.train_step(
            list(zip(images.split(size), targets.split(size), strict=True)), lr
        )
        self.step += 1

    def end_epoch(self, epoch: int) -> None:
        """Write the epoch's line; notice a loss that is no number any more."""
        per_epoch = self.loader.steps_per_epoch
        mean = sum(self.world.gather(float(self.loss_sum))) / self.world.size / per_epoch
        self.loss_sum.zero_()
        if not math.isfinite(mean):
            self.diverged = True
        self.last_loss = None if self.diverged else mean
        recipe = self.config.recipe
        lr = learning_rate(
            recipe.optimizer, recipe.schedule, self.step - 1, self.total_steps, per_epoch
        )
        if self.world.rank == 0:
            line = {
                "epoch": epoch + 1,
                "step": self.step,
                "lr": lr,
                "train_loss": self.last_loss,
                "seconds": round(self.seconds, 3),
            }
            append_line(self.folder / "metrics.jsonl", line)
            self.tracker.log(line)

    def _truncate_metrics(self) -> None:
        """Forget lines of steps that are trained again."""
        path = self.folder / "metrics.jsonl"
        if self.world.rank != 0 or not path.exists():
            return
        kept = [line for line in read_lines(path) if line["step"] <= self.step]
        atomic_write(path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def save(self) -> None:
        """Write a checkpoint of this step; a diverged stage needs none."""
        if self.diverged:
            return
        state = {
            "engine": self.engine.state(),
            "masks": None if self.masks is None else pruning.pack(self.masks),
            "loss_sums": self.world.gather(float(self.loss_sum)),
            "last_loss": self.last_loss,
            "val_before": self.val_before,
            "seconds": self.seconds,
        }
        checkpoint.save(self.folder, self.id, self.step, state, self.world, self.sharded)

    def evaluate(self, split: SplitName) -> Scores:
        """Scores of the weights as they are."""
        return self._evaluate(self.module, split)

    def _evaluate(self, module: torch.nn.Module, split: SplitName) -> Scores:
        return evaluate(
            module,
            self.loader,
            split,
            self.config.recipe,
            self.tail,
            self.world,
            self.run.channels_last,
            self.beat,
        )

    def write_final(self) -> str:
        """Final weights and masks, for children, by rank 0; returns the weights' SHA-256."""
        packed = None if self.masks is None else pruning.pack(self.masks)
        weights = self.module.state_dict()
        if self.world.rank == 0:
            checkpoint.write_final(self.folder, self.id, weights, packed)
        return checkpoint.weights_hash(weights)

    def summary(self) -> dict[str, Any]:
        """Everything of a result but the scores."""
        counts = count(self.module, self.dataset.resolution, self.masks)
        examples = self.step * self.config.recipe.batch_size
        return {
            "epochs": self.config.recipe.epochs,
            "steps": self.step,
            "examples": examples,
            "counts": dataclasses.asdict(counts),
            "train_macs": 3 * counts.macs_nonzero * examples,  # backward costs about two forwards
            "sparsity": 0.0 if self.masks is None else pruning.achieved(self.masks),
            "mask_hash": None if self.masks is None else pruning.mask_hash(self.masks),
            "protected": self.protected,
            "val_before": self.val_before,
            "split_hash": self.dataset.split_hash,
            "timing": {
                "seconds": self.seconds,
                "gpu_seconds": self.seconds * self.world.size,
                "steps_per_second": self.step / self.seconds if self.seconds else None,
            },
        }
