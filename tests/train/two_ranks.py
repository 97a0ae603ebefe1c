"""What two ranks do, in one start: `two_ranks.py FOLDER` leaves what it saw in FOLDER for the test.

Each block writes a part of `record`, which is written to FOLDER/rank<N>.json.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from conftest import Stages
from two_ranks_compressed import prune

from harness.augment.batch_transform import BatchTransform, train_batch
from harness.augment.policy import parse_policy
from harness.compress import masks as pruning
from harness.data.datasets import load
from harness.data.loader import make_loader
from harness.models import registry
from harness.run_schema import RunConfig
from harness.schema import OptimizerConfig
from harness.store.claims import ClaimLost
from harness.store.identity import stage_id
from harness.sweep.targets import find_target
from harness.train import checkpoint
from harness.train.distributed import connected
from harness.train.engine import make_engine
from harness.train.gang import load_data
from harness.train.targets import evaluate_on, load_judged

ENGINES = [("ddp", 0), ("deepspeed", 0), ("deepspeed", 1)]


def images(config, world, folder):
    """Every image and id that this rank is shown in two epochs."""
    dataset = load(config.dataset)
    loader = make_loader(dataset, RunConfig(), 32, world.rank, world.size, world.device)
    transform = BatchTransform(
        crop_padding=1, flip=True, mean=dataset.info.mean, std=dataset.info.std
    )
    policy = parse_policy(config.augment.policy)
    ids, shown = [], []
    for epoch in range(2):
        for batch in loader.epoch(config.seed, epoch):
            pictures, _ = train_batch(
                batch.images, batch.labels, batch.ids, policy=policy, transform=transform,
                seed=config.seed, epoch=epoch, num_classes=10,
            )  # fmt: skip
            ids.append(batch.ids)
            shown.append(pictures.numpy())
    np.savez(folder / f"images{world.rank}.npz", ids=np.stack(ids), shown=np.stack(shown))


def steps(config, world, kind, optimizer, precision, micro_batch_size=None, count=6):
    """Losses, revived weights, the hash of all weights and how one moved, under masks."""
    name, zero = kind
    run = RunConfig(engine=name, zero_stage=zero, processes=2, device="cpu")
    recipe = config.recipe.model_copy(update={"optimizer": optimizer, "precision": precision})
    module = registry.build(config.model, 10, seed=0)
    masks = pruning.magnitude_masks(
        module, 0.5, pruning.prunable(module, ("classifier",), {"classifier": ("fc",)})
    )
    pruning.apply_masks(module, masks)
    size = micro_batch_size or 16
    engine = make_engine(module, recipe, run, world, masks, -(-16 // size))
    generator = torch.Generator().manual_seed(2)
    losses, revived = [], 0
    for _ in range(count):
        pictures = torch.randn(32, 3, 8, 8, generator=generator)
        labels = torch.randint(0, 10, (32,), generator=generator)
        mine = slice(16 * world.rank, 16 * world.rank + 16)
        parts = zip(pictures[mine].split(size), labels[mine].split(size), strict=True)
        losses.append(float(engine.train_step(list(parts), optimizer.lr)))
        weights = dict(engine.module.named_parameters())
        revived += sum(int((weights[name][~mask] != 0).sum()) for name, mask in masks.items())
    weights = dict(engine.module.named_parameters())
    first = (module.fc.weight - registry.build(config.model, 10, seed=0).fc.weight).flatten()
    return {
        "losses": losses,
        "revived": revived,
        "weights": checkpoint.weights_hash(weights),
        "moved": first.tolist(),
    }


def corrupted(config, stages, world):
    """The evaluation of a trained stage on corrupted images, without its time."""
    run = RunConfig(processes=2, device="cpu")
    gang = load_data(config, run, world, lambda: None)
    stage = stage_id(config)
    weights = checkpoint.read_final(stages.folder(config), stage)["model"]
    sha256 = checkpoint.weights_hash(weights)
    network = load_judged(stages.folder(config), stage, config, sha256, gang)
    (evaluated,) = evaluate_on(find_target("corruptions"), [network], gang)
    gang.loader.close()
    bits = {name: values.tolist() for name, values in evaluated.bits.items()}
    return {**evaluated.record, "seconds": None, "bits": bits}


def main(folder, world):
    """All blocks, in an order that is the same on both ranks."""
    stages = Stages(folder / "stages", world)
    dense = stages.toy()
    images(dense, world, folder)
    record = {"any": world.any(world.rank == 1, False), "gather": world.gather(world.rank)}
    record["broadcast"] = world.broadcast(f"from {world.rank}")

    sgd = OptimizerConfig(lr=0.1, nesterov=True, weight_decay=5e-4)
    plain = OptimizerConfig(lr=1.0, momentum=0.0)
    for kind in ENGINES:
        for precision in ("fp32", "bf16_autocast"):
            record[f"{kind[0]} {kind[1]} {precision}"] = steps(dense, world, kind, sgd, precision)
        record[f"{kind[0]} {kind[1]} cut"] = steps(dense, world, kind, sgd, "fp32", 7)
        single = steps(dense, world, kind, plain, "bf16_autocast", count=1)
        record[f"{kind[0]} {kind[1]} gradient"] = single["moved"]
        calm = sgd.model_copy(update={"lr": 0.02})  # as in test_engine.py
        record[f"{kind[0]} {kind[1]} long"] = steps(dense, world, kind, calm, "fp32", count=50)
    adamw = OptimizerConfig(name="adamw", lr=0.001, weight_decay=0.05)
    record["adamw"] = steps(dense, world, ENGINES[2], adamw, "fp32")

    sparse = stages.child(dense)
    for kind in (ENGINES[0], ENGINES[2]):
        run = {"engine": kind[0], "zero_stage": kind[1]}
        where = (folder / f"unbroken-{kind[1]}", folder / f"broken-{kind[1]}")
        unbroken, broken = (Stages(path, world) for path in where)
        for name, config in (("dense", dense), ("sparse", sparse)):
            outcomes = unbroken.train(config, **run)
            broken.train_for(4, config, **run)
            broken.train_for(3, config, **run)
            again = broken.train(config, **run)
            same = [
                dataclasses.replace(
                    o, result={**o.result, "timing": None}, correct=None, classes=None
                )
                for o in (*outcomes, *again)
            ]
            record[f"{name} {kind[1]} repeats"] = same[0] == same[1]
            record[f"{name} {kind[1]}"] = {**same[0].result}
            record[f"{name} {kind[1]} correct"] = outcomes[0].correct["test"].tolist()
    record["corrupted"] = corrupted(dense, Stages(folder / "unbroken-0", world), world)

    for kind in (ENGINES[0], ENGINES[2]):
        run = {"engine": kind[0], "zero_stage": kind[1]}
        whole, cut = (Stages(folder / f"{name}-{kind[0]}-{kind[1]}", world) for name in "ab")
        cut.keeps_last = True
        *trunk, end = cut.trunk(1, **{"recipe.epochs": 2})
        outcomes = whole.train(end.model_copy(update={"continues": None}), **run)
        for config in trunk:
            cut.train(config, **run)
        cut.train_for(4, end, **run)
        outcomes += cut.train(end, **run)
        same = [{**o.result, "timing": None, "continued": None} for o in outcomes]
        record[f"{kind[0]} {kind[1]} trunk repeats"] = same[0] == same[1]
        record[f"{kind[0]} {kind[1]} trunk begins"] = outcomes[1].result["continued"]["epoch"]

    for kind in ENGINES:
        name = f"{kind[0]} {kind[1]} pruned"
        record[name] = prune(folder / name, world, *kind)

    # only one rank is told to stop, and only rank 0 learns that its claim is lost
    questions = iter(range(99))
    stopped = stages.train(dense, stop=lambda: next(questions) == 4 and world.rank == 1)
    record["stopped"] = [stopped[0].status, stages.saved(dense)]

    def beat():
        raise ClaimLost("taken over")

    lost = Stages(folder / "lost", world)
    try:
        record["lost"] = lost.train(dense, beat=beat)[0].status
    except ClaimLost:
        record["lost"] = "raised"
    stages.train_for(3, stages.toy({"seed": 3}), engine="deepspeed", zero_stage=1)
    record["sharded"] = stages.saved(stages.toy({"seed": 3}))
    record["id"] = stage_id(dense)
    (folder / f"rank{world.rank}.json").write_text(json.dumps(record))

    print("rank 1 dies", flush=True)
    calls = iter(range(10**6))

    def die():
        if world.rank == 1 and next(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    stages.train(stages.toy({"seed": 4, "recipe.epochs": 1000}), stop=die)


if __name__ == "__main__":
    with connected(RunConfig(processes=2, device="cpu")) as found:
        main(Path(sys.argv[1]), found)
