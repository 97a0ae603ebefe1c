"""One stage in training: build, train_step, end_epoch, save, evaluate, result."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from harness import rng
from harness.augment.batch_transform import BatchTransform, eval_batch, train_batch
from harness.augment.executors import choose_executor
from harness.augment.policy import parse_policy
from harness.compress import batchnorm
from harness.compress import masks as pruning
from harness.data.types import Batch, SplitName
from harness.errors import UserError
from harness.files import Damaged
from harness.models.counts import count
from harness.models.trial_forward import SINGLE, single_image
from harness.store.records import read_json
from harness.store.store import gpu_seconds
from harness.train import checkpoint
from harness.train.engine import make_engine
from harness.train.engine_base import Engine
from harness.train.evaluate import Scores, evaluate
from harness.train.gang import Gang, Member
from harness.train.judge import judge_batch
from harness.train.metrics import Metrics
from harness.train.network import Network
from harness.train.optim import learning_rate
from harness.train.progress import Progress
from harness.train.targets import Judged
from harness.train.teacher import Teacher, load_teacher

REESTIMATE_IMAGES = 2048  # un-augmented training images that batch norm is re-estimated on
REESTIMATE_BATCH = 256


class Stage:
    """A stage at its newest checkpoint, or else at its first step.

    `progress` says how far it is; its `seconds` are added by the training loop, as are
    `overhead_seconds`: start-up and evaluation in this process, divided by the gang's members.
    """

    def __init__(self, member: Member, gang: Gang):
        self.id = member.stage_id
        self.config = member.config
        self.folder = member.folder
        self.gang = gang
        self.total_steps = gang.loader.steps_per_epoch * self.config.recipe.epochs
        self.overhead_seconds = 0.0
        augment = self.config.augment
        self.policy = parse_policy(augment.policy)
        self.executor = choose_executor(gang.world.device)
        self.transform = BatchTransform(
            crop_padding=augment.crop_padding,
            flip=augment.flip,
            erasing=augment.erasing,
            mixup=augment.mixup,
            cutmix=augment.cutmix,
            mean=gang.dataset.info.mean,
            std=gang.dataset.info.std,
        )
        self.teacher = self._load_teacher(member)
        loss_sum = torch.zeros((), dtype=torch.float64, device=gang.world.device)
        self.progress = Progress(loss_sum)
        self.network = Network(self.config, gang.dataset, gang.world, self._reestimate_batch_norm)
        self.engine = self._build_engine(member)
        self.metrics = Metrics(member, gang, self.progress.step)

    def _load_teacher(self, member: Member) -> Teacher | None:
        config = self.config.teacher
        if config is None or config.name is None:
            return None
        store = member.teacher_store or member.store
        return load_teacher(config.name, store, self.gang.dataset.config, self.gang.world.device)

    def _build_engine(self, member: Member) -> Engine:
        """Return the engine, with the network at the newest checkpoint or at its first step."""
        run, world, network = self.gang.run, self.gang.world, self.network
        saved = checkpoint.load_newest(self.folder, self.id, world, self._is_sharded())
        if saved is None or saved[0] < self.config.begin_epoch * self.gang.loader.steps_per_epoch:
            saved = self._end_of_continued(member) or saved
        step, state = saved or (0, None)
        if state is None:
            self._begin(member)
        else:
            network.take_shapes_and_masks(state["engine"]["model"], state["masks"])
        network.add_surplus()
        micro_batches = run.micro_batches(self.config.recipe.batch_size // world.size)
        engine = make_engine(
            network.module, self.config.recipe, run, world, network.masks, micro_batches
        )
        network.module = engine.module
        if state is not None:
            engine.load_state(state["engine"])
            self.progress.restore(step, state, world)
        return engine

    def _end_of_continued(self, member: Member) -> tuple[int, dict[str, Any]] | None:
        """Return step and state at the end of the stage that this one continues, if there is one.

        Raises:
            Damaged: its checkpoint or result is damaged or missing.
            UserError: its optimizer was saved in other parts than this run has (ZeRO 1).
        """
        continues, folder = self.config.continues, member.origin_folder
        if continues is None or folder is None:
            return None
        step = continues.epoch * self.gang.loader.steps_per_epoch
        world = self.gang.world
        state = checkpoint.load_end(folder, continues.stage, step, world, self._is_sharded())
        try:
            spent = gpu_seconds(read_json(folder / "result.json"))
        except FileNotFoundError as error:  # another worker has just set it aside
            raise Damaged(f"{error.filename} is missing") from error
        continued = {**continues.model_dump(), "gpu_seconds": spent}
        return step, {**state, "seconds": 0.0, "continued": continued}

    def _begin(self, member: Member) -> None:
        """Start from the parent's final weights, pruned; without a parent, from the seed."""
        if member.origin_folder is None or self.config.parent is None:
            return
        parent = checkpoint.read_final(member.origin_folder, self.config.parent)
        self.progress.rewind_weights = parent.get("rewind")
        self.progress.is_rewound = self.network.is_rewound
        self.network.start_from_parent(parent)
        if self.config.prune is not None and self.config.prune.sparsity > 0.0:
            before = evaluate(
                self.network.module, self.gang, "validation", self.config.recipe, self.transform
            )
            self.progress.val_before = before.summary()

    def _is_sharded(self) -> bool:
        """Return whether each rank has its own part of the optimizer's state."""
        return self.gang.run.engine == "deepspeed" and self.gang.run.zero_stage > 0

    def train_step(self, batch: Batch, epoch: int) -> None:
        """Make one optimizer step on this rank's share of a global batch."""
        progress, network = self.progress, self.network
        images, targets = self._augment_and_judge(batch, epoch)
        if network.surplus is not None:
            network.surplus.begin_step(self.config.seed, progress.step, self.total_steps)
        progress.forward_macs += network.forward_macs(batch.images.shape[-1])
        self._seed_generators()
        pieces = self.gang.run.micro_batches(len(images))
        micro_batches = list(
            zip(images.tensor_split(pieces), targets.tensor_split(pieces), strict=True)
        )
        # forward, loss, backward, optimizer step, masks
        try:
            progress.loss_sum += self.engine.train_step(micro_batches, self._lr(progress.step))
        except ValueError as error:
            if SINGLE in str(error):  # after micro-batches were halved for lack of memory
                raise single_image(images.shape[-1]) from error
            raise
        progress.step += 1
        masks = network.prune_gradually(progress.step, self.total_steps)
        if masks is not None:
            self.engine.set_masks(masks)

    def _augment_and_judge(self, batch: Batch, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return augmented images and targets, which a teacher may choose, label or weigh."""

        def augment(epochs_later: int) -> tuple[torch.Tensor, torch.Tensor]:
            return train_batch(
                batch.images,
                batch.labels,
                batch.ids,
                policy=self.policy,
                transform=self.transform,
                seed=self.config.seed,
                epoch=epoch + epochs_later,
                num_classes=self.gang.dataset.info.num_classes,
                channels_last=self.gang.run.channels_last,
                executor=self.executor,
            )

        config = self.config.teacher
        if self.teacher is None or config is None:
            return augment(0)
        macs = self.teacher.macs(batch.images.shape[-1])
        self.progress.teacher_macs += config.candidates * macs
        return judge_batch(config, self.teacher, augment, batch.labels, self.transform)

    def _seed_generators(self) -> None:
        """Seed torch for this step, so that dropout does not depend on draws of earlier steps."""
        world = self.gang.world
        seed = rng.derive(self.config.seed, f"step {self.progress.step} rank {world.rank}")
        # torch.manual_seed would seed all kinds of devices, which takes 0.1 ms
        torch.default_generator.manual_seed(seed)
        if world.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _lr(self, step: int) -> float:
        """Return the learning rate of a step.

        Rewound weights get the learning rates that followed them in the dense stage.
        """
        per_epoch = self.gang.loader.steps_per_epoch
        is_rewound = self.progress.is_rewound
        skipped = (self.config.rewind_epoch or 0) * per_epoch if is_rewound else 0
        recipe, total = self.config.recipe, self.total_steps + skipped
        return learning_rate(recipe.optimizer, recipe.schedule, step + skipped, total, per_epoch)

    def end_epoch(self, epoch: int) -> None:
        """Write the row of the epoch; a mean loss that is not finite marks the stage as diverged.

        Raises:
            UserError: the teacher's cap dropped every image of the epoch.
        """
        progress, teacher = self.progress, self.config.teacher
        mean = progress.end_epoch(self.gang.world, self.gang.loader.steps_per_epoch)
        if mean == 0.0 and teacher is not None and teacher.cap is not None:
            raise UserError(
                f"teacher.cap: the teacher's loss on every image of epoch {epoch + 1} is above "
                f"{teacher.cap:g}, so the stage learned from none of them; raise the cap."
            )
        if self.config.parent is None and epoch + 1 == self.config.rewind_epoch:
            weights = self.network.module.state_dict()
            progress.rewind_weights = {name: t.cpu().clone() for name, t in weights.items()}
        self.metrics.write_epoch(
            {
                "epoch": epoch + 1,
                "step": progress.step,
                "lr": self._lr(progress.step - 1),
                "train_loss": progress.last_loss,
                "seconds": round(progress.seconds, 3),
            }
        )

    def save(self) -> None:
        """Write a checkpoint of this step; a diverged stage is not saved."""
        if self.progress.has_diverged:
            return
        world = self.gang.world
        state = {
            "engine": self.engine.state(),
            "masks": self.network.packed_masks(),
            **self.progress.state(world),
        }
        step, is_sharded = self.progress.step, self._is_sharded()
        checkpoint.save(self.folder, self.id, step, state, world, is_sharded)

    def evaluate(self, split: SplitName) -> Scores:
        """Return the scores of the deployed network; call it after the last step only."""
        deployed = self.network.deployed()
        return evaluate(deployed, self.gang, split, self.config.recipe, self.transform)

    def as_judged(self) -> Judged:
        """Return the deployed network, to be evaluated on other images after the last step."""
        return Judged(self.network.deployed(), self.config.recipe, self.transform)

    def _reestimate_batch_norm(self, module: torch.nn.Module) -> None:
        """Replace the module's batch-norm statistics by those of un-augmented training images."""
        channels_last = self.gang.run.channels_last
        batches = self.gang.loader.fixed(REESTIMATE_IMAGES, REESTIMATE_BATCH)
        batchnorm.reestimate(
            module,
            (
                eval_batch(batch.images, transform=self.transform, channels_last=channels_last)
                for batch in batches
            ),
        )

    def write_final(self) -> str:
        """Write final weights and masks for children, on rank 0; return the weights' SHA-256."""
        weights = self.network.deployed().state_dict()
        if self.gang.world.rank == 0:
            masks, rewind = self.network.packed_masks(), self.progress.rewind_weights
            checkpoint.write_final(self.folder, self.id, weights, masks, rewind)
        return checkpoint.weights_hash(weights)

    def result(self) -> dict[str, Any]:
        """Return everything of the result except the scores and the hash of the weights."""
        progress, network = self.progress, self.network
        deployed, batch_size = network.deployed(), self.config.recipe.batch_size
        counts = count(deployed, self.gang.dataset.resolution, network.masks)
        seconds = progress.seconds + self.overhead_seconds
        continued = progress.continued
        per_epoch = self.gang.loader.steps_per_epoch
        own_steps = progress.step - (continued["epoch"] * per_epoch if continued else 0)
        return {
            "epochs": self.config.recipe.epochs,
            "steps": progress.step,
            "examples": progress.step * batch_size,
            "counts": dataclasses.asdict(counts),
            "params_training": sum(p.numel() for p in network.module.parameters()),
            # a backward pass costs about two forward passes; a teacher makes forward passes only
            "train_macs": (3 * progress.forward_macs + progress.teacher_macs) * batch_size,
            "sparsity": network.pruner.sparsity(deployed, network.masks),
            "mask_hash": None if network.masks is None else pruning.mask_hash(network.masks),
            "unpruned": network.pruner.unpruned,
            "val_before": progress.val_before,
            "split_hash": self.gang.dataset.split_hash,
            "continued": continued,
            "timing": {
                "seconds": progress.seconds,
                "gpu_seconds": seconds * self.gang.world.size,
                "steps_per_second": own_steps / progress.seconds if progress.seconds else None,
            },
        }

    def close(self) -> None:
        """Release everything that the stage holds except its weights."""
        self.metrics.tracker.close()
        self.engine.close()
