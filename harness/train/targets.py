"""Evaluates finished networks on targets beside their clean images, such as corrupted ones.

The images of a target are made once and shown to all networks, because corrupting an image often
takes longer than judging it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harness.augment.batch_transform import BatchTransform, eval_batch
from harness.corrupt import CORRUPTIONS, SEVERITIES, corrupt
from harness.data.types import Batch, SplitName
from harness.files import Damaged
from harness.schema import RecipeConfig, StageConfig
from harness.sweep.targets import Target
from harness.train import checkpoint
from harness.train.engine_base import autocast
from harness.train.evaluate import BATCH
from harness.train.gang import Evaluated, Gang
from harness.train.network import finished_module

SPLITS: dict[str, SplitName] = {"val": "validation", "test": "test"}
Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """A network to evaluate: its module, the recipe with its precision, its normalisation."""

    module: nn.Module
    recipe: RecipeConfig
    transform: BatchTransform


def load_judged(folder: Path, stage: str, config: StageConfig, sha256: str, gang: Gang) -> Judged:
    """Return the network of a finished stage with its final weights, on the gang's device.

    Raises Damaged if the weights are missing or damaged, or their SHA-256 is another one.
    """
    weights = checkpoint.read_final(folder, stage)["model"]
    if checkpoint.weights_hash(weights) != sha256:
        raise Damaged(f"the weights in {folder / 'checkpoint'} are not those of the stage's result")
    info = gang.dataset.info
    module = finished_module(config, weights, info.num_classes, gang.dataset.resolution)
    module.to(gang.world.device)
    if gang.run.channels_last:  # as in training, so that the same kernels give the same bits
        module.to(memory_format=torch.channels_last)
    return Judged(module, config.recipe, BatchTransform(mean=info.mean, std=info.std))


@torch.no_grad()
def evaluate_on(
    target: Target,
    networks: Sequence[Judged],
    gang: Gang,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Evaluated] | None:
    """Return the record of each network, on every rank; None if `should_stop` is true on any rank.

    The bits are those of `evaluate` on the same images. `seconds` of a record are the
    device-seconds of all networks together, divided by their number.
    """
    started = time.monotonic()
    world = gang.world
    for network in networks:
        world.share_buffers(network.module)
    modes = [network.module.training for network in networks]
    bits: list[dict[str, Bits]] = [{} for _ in networks]
    try:
        for network in networks:
            network.module.eval()
        for side, split in SPLITS.items():
            judged = _judge_split(target, networks, gang, split, should_stop)
            if judged is None:
                return None
            for of_network, of_split in zip(bits, judged, strict=True):
                of_network |= {f"{side}_{name}": values for name, values in of_split.items()}
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.module.train(mode)
    seconds = (time.monotonic() - started) * world.size / len(networks)
    is_cuda = world.device.type == "cuda"
    about = {
        "on": dict(target.content),
        "split_hash": gang.dataset.split_hash,
        "device": torch.cuda.get_device_name(world.device) if is_cuda else "cpu",
        "seconds": round(seconds, 3),
    }
    return [Evaluated({**about, **_scores(of_network)}, of_network) for of_network in bits]


def _judge_split(
    target: Target,
    networks: Sequence[Judged],
    gang: Gang,
    split: SplitName,
    should_stop: Callable[[], bool],
) -> list[dict[str, Bits]] | None:
    """Return for each network its bits [N] on all images of a split, by name; None if stopped."""
    world = gang.world
    parts: list[dict[str, list[torch.Tensor]]] = [{} for _ in networks]
    batches = iter(gang.loader.evaluate(split, BATCH))
    threads = gang.run.loader_threads or 1
    with ThreadPoolExecutor(threads) as pool:
        # A rank may have one batch less than the others. Then it only votes with them.
        while any(world.gather((batch := next(batches, None)) is not None)):
            for corruption in CORRUPTIONS:
                for severity in SEVERITIES:
                    if world.any(should_stop())[0]:
                        return None
                    if batch is None:
                        continue
                    images = _corrupted(batch, corruption, severity, pool, threads)
                    for network, of_network in zip(networks, parts, strict=True):
                        judged = of_network.setdefault(f"{corruption}_{severity}", [])
                        judged.append(_correct(network, images, batch, gang))
                    gang.heartbeat()
    gathered = world.gather(
        [{name: torch.cat(p).numpy() for name, p in of.items()} for of in parts]
    )
    return [
        {name: np.concatenate([rank[at][name] for rank in gathered if name in rank[at]])
         for name in _names()}
        for at in range(len(networks))
    ]  # fmt: skip


def _names() -> list[str]:
    return [f"{corruption}_{s}" for corruption in CORRUPTIONS for s in SEVERITIES]


def _corrupted(
    batch: Batch, corruption: str, severity: int, pool: ThreadPoolExecutor, threads: int
) -> torch.Tensor:
    """Return the corrupted images of a batch, uint8 [n, 3, H, W], on its device."""
    images = np.ascontiguousarray(batch.images.cpu().permute(0, 2, 3, 1).numpy())
    pieces = [piece for piece in np.array_split(np.arange(len(images)), threads) if len(piece)]
    made = pool.map(lambda p: corrupt(images[p], batch.ids[p], corruption, severity), pieces)
    corrupted = torch.from_numpy(np.concatenate(list(made)))
    return corrupted.permute(0, 3, 1, 2).to(batch.images.device)


def _correct(network: Judged, images: torch.Tensor, batch: Batch, gang: Gang) -> torch.Tensor:
    """Return whether each image is classified correctly, bool [n] on the host."""
    prepared = eval_batch(images, transform=network.transform, channels_last=gang.run.channels_last)
    with autocast(network.recipe, gang.world.device):
        logits = network.module(prepared).float()
    return (logits.argmax(1) == batch.labels).cpu()


def _scores(bits: dict[str, Bits]) -> dict[str, Any]:
    """Return what a record holds: means over corruptions and severities, and each of them.

    Accuracies are not divided by those of another network (AlexNet in the paper), because only the
    networks of a sweep are compared.
    """
    accuracies = {name: float(values.mean()) for name, values in bits.items()}
    scores: dict[str, Any] = {"images": sum(map(len, bits.values()))}
    for side in SPLITS:
        table = {
            corruption: [accuracies[f"{side}_{corruption}_{s}"] for s in SEVERITIES]
            for corruption in CORRUPTIONS
        }
        means = [np.mean(row) for row in table.values()]
        scores[side] = {"top1": float(np.mean(means)), "corruptions": table}
    return scores
