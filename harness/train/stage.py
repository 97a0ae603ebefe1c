"""One stage in training: its model, from its seed or its parent, its masks, engine and metrics."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch

from harness import rng
from harness.augment.batch_transform import BatchTransform, eval_batch, train_batch
from harness.augment.policy import parse_policy
from harness.compress import batchnorm
from harness.compress import masks as pruning
from harness.compress.surplus import Graph, make_graph
from harness.data.types import Batch, Dataset, Loader, SplitName
from harness.errors import UserError
from harness.files import append_line, atomic_write, read_lines
from harness.models import registry
from harness.models.counts import Counts, count
from harness.schema import RunConfig
from harness.train import checkpoint
from harness.train import teacher as teachers
from harness.train.distributed import World
from harness.train.engine import Engine, make_engine
from harness.train.evaluate import Scores, evaluate
from harness.train.judge import judged
from harness.train.optim import learning_rate
from harness.train.pruner import Pruner
from harness.train.teacher import Teacher
from harness.train.trackers import Tracker

if TYPE_CHECKING:
    from harness.train.loop import Member

REESTIMATE_IMAGES = 2048  # un-augmented training images that batch norm is re-estimated on
REESTIMATE_BATCH = 256


class Stage:
    """Built at its first step or at its newest checkpoint; `step` counts what it has trained.

    `beat` is called while it evaluates. `seconds` of its steps, and what went by `besides` since
    this process took it on (start-up, evaluation), are the loop's to count.
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
        self.transform = BatchTransform(
            crop_padding=self.config.augment.crop_padding,
            flip=self.config.augment.flip,
            erasing=self.config.augment.erasing,
            mixup=self.config.augment.mixup,
            cutmix=self.config.augment.cutmix,
            mean=dataset.info.mean,
            std=dataset.info.std,
        )
        self.sharded = run.engine == "deepspeed" and run.zero_stage > 0
        self.total_steps = loader.steps_per_epoch * self.config.recipe.epochs
        self.step = 0
        self.seconds = self.besides = 0.0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=world.device)
        self.last_loss: float | None = None
        self.diverged = False
        self.val_before: dict[str, float] | None = None
        self.masks: pruning.Masks | None = None
        self.rewind: dict[str, torch.Tensor] | None = None  # the weights of `rewind_epoch`
        self.rewound = False
        # of one image's forward, by what is trained at a step and the image's side
        self.macs: dict[tuple[str, int], int] = {}
        self.macs_sum = self.judging_sum = 0  # of the network and the teacher, over all steps
        self.counts: Counts | None = None  # of the network with the masks of now
        self.complete: torch.nn.Module | None = None  # see `deployed`
        module = self._built().to(world.device)
        self.teacher: Teacher | None = None
        if (asked := self.config.teacher) is not None and asked.name is not None:
            self.teacher = teachers.load(asked.name, member.root, dataset.config, world.device)
        self.pruner = Pruner(self.config, module, dataset.resolution, world, self._built)
        found = checkpoint.load_newest(self.folder, self.id, world, self.sharded)
        if found is None:
            self._begin(module, member)
        else:
            self.pruner.reshape(module, found[1]["engine"]["model"])
            saved = found[1]["masks"]
            self.masks = None if saved is None else pruning.unpack(saved, module)
        self.graph: Graph | None = None
        if self.config.surplus is not None:
            module = self._with_surplus(module)
        self.engine: Engine = make_engine(
            module, self.config.recipe, run, world, self.masks, self._micro_batches()
        )
        self.module = self.engine.module
        if self.config.surplus is not None:
            self.graph = cast(Graph, self.module)
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

    def _built(self, times: float = 1.0) -> torch.nn.Module:
        """The stage's model from its seed, `times` as wide."""
        config = self.config.model
        return registry.build(
            config.model_copy(update={"width": round(config.width * times, 9)}),
            self.dataset.info.num_classes,
            seed=self.config.seed,
            resolution=self.dataset.resolution,
        )

    def _with_surplus(self, module: torch.nn.Module) -> torch.nn.Module:
        assert self.config.surplus is not None
        seed = rng.derive(self.config.seed, "surplus")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            graph = make_graph(
                self.config.surplus,
                module,
                lambda times: self._built(times).to(self.world.device),
            )
        return graph

    def _begin(self, module: torch.nn.Module, member: Member) -> None:
        """Start from the parent's final weights, pruned, or from the seed."""
        if member.parent_folder is None or member.config.parent is None:
            return
        prune = self.config.prune
        parent = checkpoint.read_final(member.parent_folder, member.config.parent)
        self.rewind = parent.get("rewind")
        start = None
        if prune is not None and prune.sparsity > 0.0 and prune.rewind == "weights":
            early = {name: t.clone() for name, t in module.state_dict().items()}
            start = early if self.config.rewind_epoch is None else self.rewind
            self.rewound = True
        self.pruner.reshape(module, parent["model"])
        module.load_state_dict(parent["model"])
        inherited = None if parent["masks"] is None else pruning.unpack(parent["masks"], module)
        if prune is None or prune.sparsity == 0.0:
            self.masks = inherited
            return
        self.masks = self.pruner.prune(module, prune.sparsity, inherited)
        if start is not None:
            module.load_state_dict(start)
        if self.masks is not None:
            pruning.apply_masks(module, self.masks)
        if prune.reestimate_batch_norm:
            self._reestimate(module)
        self.val_before = self._evaluate(module, "validation").summary()

    def _reestimate(self, module: torch.nn.Module) -> None:
        images = self.loader.fixed(REESTIMATE_IMAGES, REESTIMATE_BATCH)
        batchnorm.reestimate(module, (self._plain(batch) for batch in images))

    def _plain(self, batch: Batch) -> torch.Tensor:
        return eval_batch(
            batch.images, transform=self.transform, channels_last=self.run.channels_last
        )

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
        self.rewind, self.rewound = state["rewind"], state["rewound"]
        self.macs_sum, self.judging_sum = state["macs_sum"], state.get("judging_sum", 0)

    def train_on(self, batch: Batch, epoch: int) -> None:
        """One optimizer step on this rank's share of a global batch."""
        draw = functools.partial(self._augmented, batch, epoch)
        side = batch.images.shape[-1]
        if self.teacher is None or self.config.teacher is None:
            images, targets = draw(0)
        else:
            asked = self.config.teacher
            self.judging_sum += asked.candidates * self.teacher.macs(side)
            images, targets = judged(asked, self.teacher, draw, batch.labels, self.transform)
        size = self.run.micro_batch_size or len(images)
        lr = self._lr(self.step)
        if self.graph is not None:
            self.graph.begin_step(self.config.seed, self.step, self.total_steps)
        self.macs_sum += self._step_macs(side)
        # what draws inside a model (dropout) is a function of the step too, and of nothing before
        seed = rng.derive(self.config.seed, f"step {self.step} rank {self.world.rank}")
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 0.1 ms for all devices
        if self.world.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        self.loss_sum += self.engine.train_step(
            list(zip(images.split(size), targets.split(size), strict=True)), lr
        )
        self.step += 1
        self._prune_further()

    def _augmented(self, batch: Batch, epoch: int, later: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch as `later` epochs from now would augment it."""
        return train_batch(
            batch.images,
            batch.labels,
            batch.ids,
            policy=self.policy,
            transform=self.transform,
            seed=self.config.seed,
            epoch=epoch + later,
            num_classes=self.dataset.info.num_classes,
            channels_last=self.run.channels_last,
        )

    def _lr(self, step: int) -> float:
        """Rewound weights meet the learning rates that followed them in the dense stage."""
        per_epoch = self.loader.steps_per_epoch
        skipped = (self.config.rewind_epoch or 0) * per_epoch if self.rewound else 0
        recipe, total = self.config.recipe, self.total_steps + skipped
        return learning_rate(recipe.optimizer, recipe.schedule, step + skipped, total, per_epoch)

    def _step_macs(self, side: int) -> int:
        """Multiply-adds of the forward pass of one image of this side at this step."""
        key = ("" if self.graph is None else self.graph.active(), side)
        if key not in self.macs:
            if self.graph is not None:
                self.macs[key] = self.graph.macs(side)
            elif side == self.dataset.resolution:
                self.macs[key] = self._counted().macs_nonzero
            else:
                self.macs[key] = count(self.deployed(), side, self.masks).macs_nonzero
        return self.macs[key]

    def _counted(self) -> Counts:
        """Of the network of the result; counting takes a tenth of a second."""
        if self.counts is None:
            self.counts = count(self.deployed(), self.dataset.resolution, self.masks)
        return self.counts

    def _prune_further(self) -> None:
        """Gradual pruning: new masks, where they are due."""
        masks = self.pruner.prune_gradually(self.module, self.step, self.total_steps, self.masks)
        if masks is not None:
            self.masks = masks
            self.engine.mask(masks)
            self.macs.clear()
            self.counts = None

    def end_epoch(self, epoch: int) -> None:
        """Write the epoch's line; notice a loss that is no number any more."""
        per_epoch = self.loader.steps_per_epoch
        mean = sum(self.world.gather(float(self.loss_sum))) / self.world.size / per_epoch
        self.loss_sum.zero_()
        if mean == 0.0 and self.config.teacher is not None and self.config.teacher.cap is not None:
            raise UserError(
                f"teacher.cap: the teacher's loss on every image of epoch {epoch + 1} is above "
                f"{self.config.teacher.cap:g}, so none was learned from; raise the cap."
            )
        if not math.isfinite(mean):
            self.diverged = True
        self.last_loss = None if self.diverged else mean
        if self.config.parent is None and epoch + 1 == self.config.rewind_epoch:
            state = self.module.state_dict()
            self.rewind = {name: tensor.cpu().clone() for name, tensor in state.items()}
        if self.world.rank == 0:
            line = {
                "epoch": epoch + 1,
                "step": self.step,
                "lr": self._lr(self.step - 1),
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
            "rewind": self.rewind,
            "rewound": self.rewound,
            "macs_sum": self.macs_sum,
            "judging_sum": self.judging_sum,
            "seconds": self.seconds,
        }
        checkpoint.save(self.folder, self.id, self.step, state, self.world, self.sharded)

    def evaluate(self, split: SplitName) -> Scores:
        """Scores of the weights as they are."""
        return self._evaluate(self.deployed(), split)

    def deployed(self) -> torch.nn.Module:
        """The network of the result: after its training, without any additional parameters."""
        if self.graph is None:
            return self.module
        if self.complete is None:
            self.world.share_buffers(self.module)
            self.complete = self.graph.deployed()
            if self.graph.reestimate:
                self._reestimate(self.complete)
        return self.complete

    def _evaluate(self, module: torch.nn.Module, split: SplitName) -> Scores:
        return evaluate(
            module,
            self.loader,
            split,
            self.config.recipe,
            self.transform,
            self.world,
            self.run.channels_last,
            self.beat,
        )

    def write_final(self) -> str:
        """Final weights and masks, for children, by rank 0; returns the weights' SHA-256."""
        packed = None if self.masks is None else pruning.pack(self.masks)
        weights = self.deployed().state_dict()
        if self.world.rank == 0:
            checkpoint.write_final(self.folder, self.id, weights, packed, self.rewind)
        return checkpoint.weights_hash(weights)

    def _train_macs(self) -> int:
        """Backward costs about two forwards; a teacher only goes forward, for each candidate."""
        return (3 * self.macs_sum + self.judging_sum) * self.config.recipe.batch_size

    def summary(self) -> dict[str, Any]:
        """Everything of a result but the scores."""
        batch_size = self.config.recipe.batch_size
        return {
            "epochs": self.config.recipe.epochs,
            "steps": self.step,
            "examples": self.step * batch_size,
            "counts": dataclasses.asdict(self._counted()),
            "params_training": sum(p.numel() for p in self.module.parameters()),
            "train_macs": self._train_macs(),
            "sparsity": self.pruner.sparsity(self.deployed(), self.masks),
            "mask_hash": None if self.masks is None else pruning.mask_hash(self.masks),
            "protected": self.pruner.protected,
            "val_before": self.val_before,
            "split_hash": self.dataset.split_hash,
            "timing": {
                "seconds": self.seconds,
                "gpu_seconds": (self.seconds + self.besides) * self.world.size,
                "steps_per_second": self.step / self.seconds if self.seconds else None,
            },
        }
