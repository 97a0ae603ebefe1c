"""What two ranks prune, each way: a part of what they do in `two_ranks.py`."""

from conftest import Stages

from harness.compress.methods import METHODS, Request
from harness.compress.methods.magnitude import Magnitude

PRUNE = {"sparsity": 0.5, "method": "magnitude", "scope": "layer", "protect": ["classifier"]}
PRUNE |= {"rewind": "learning_rate", "reestimate_batch_norm": True}
WIDE = {"model.width": 0.5, "dataset.train_size": 96}  # 3 steps an epoch, 6 in all


def prune(folder, world, engine, zero):
    """Results of a stage of every kind; the last one is pruned differently by rank 1."""
    stages = Stages(folder, world)
    run = {"engine": engine, "zero_stage": zero}
    dense = stages.toy(WIDE)
    stages.train(dense, **run)
    configs = {"gradual": stages.toy({"prune": {**PRUNE, "gradual_end": 0.75}, **WIDE})}
    for method in ("nm", "random", "channel"):
        child = stages.child(dense, changes=WIDE).model_dump(mode="json")
        child["prune"] = {**PRUNE, "method": method}
        configs[method] = type(dense).model_validate(child)
    early = stages.toy({**WIDE, "rewind_epoch": 1})
    stages.train(early, **run)
    for name, parent, epoch in (("rewound", early, 1), ("fine_tuning", dense, None)):
        child = stages.child(parent, changes={**WIDE, "rewind_epoch": epoch})
        child = child.model_dump(mode="json")
        child["prune"] |= {"rewind": "weights" if epoch else name}
        if epoch is None:
            child["recipe"]["optimizer"]["lr"] = 0.01
            child["recipe"]["schedule"] = {"name": "constant"}
        configs[name] = type(dense).model_validate(child)
    for form in (
        {"form": "slice", "widths": [1.5, 2.0], "share": 0.5},
        {"form": "fuse", "expand": 2},
    ):
        configs[form["form"]] = stages.toy({"surplus": form, "dataset.train_size": 96})
    results = {}
    for name, config in configs.items():
        (outcome,) = stages.train(config, **run)
        results[name] = {**outcome.result, "timing": None}

    class DiffersByRank(Magnitude):
        def compress(self, model, request):
            return super().compress(model, Request(0.5 + 0.1 * world.rank, request.names))

    METHODS.items["magnitude"] = DiffersByRank()
    try:
        child = stages.child(dense, changes={**WIDE, "recipe.epochs": 1})
        stages.train(child, **run)
    except RuntimeError as error:
        results["error"] = str(error)
    finally:
        METHODS.items["magnitude"] = Magnitude()
    return results
