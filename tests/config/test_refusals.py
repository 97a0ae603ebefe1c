"""Every error that training can raise is refused by a launch, or can only be known in the job.

The table below has each function of the packages of a job that raises an error: which check of a
launch comes before it, or why there is none. A function that raises and is not in it fails here.
"""

import ast
from pathlib import Path

import pytest

import harness
from harness.models import registry
from harness.schema import ModelConfig

ROOT = Path(harness.__file__).parent
PACKAGES = ("train", "data", "models", "compress", "augment", "cluster")
INTERNAL = {
    "AttributeError", "SystemExit", "Full", "SlurmDown", "Stalled", "BadImage",
    "pickle.UnpicklingError",
}  # fmt: skip
"""What the code catches itself, or what ends a process on purpose."""

# Why only the job can know it.
DAMAGE = "a file of the store was damaged, or is of another run"
FILES = "an image or file of the data set vanished, or is not what it was when launch looked"
MEMORY = "the memory of the node"
PEERS = "another process: a rank, SLURM, the network"
VALUES = "it depends on losses or weights"
# Why it is not for training.
CALLER = "a mistake in code that calls it; no config leads there"
COMMAND = "the message of another command"
LAUNCH = "raised by the launch itself, before or while it queues"
REASONS = {DAMAGE, FILES, MEMORY, PEERS, VALUES, CALLER, COMMAND, LAUNCH}

PRUNED = ["compress.sparsity=0.5", "compress.pruning=one_shot"]
TIMM = ["model.depth=null", "model.width=1"]

# What a launch and its dry run refuse: words, data set, part of the sentence.
REFUSALS = {
    "images": (["dataset.validation_size=1437"], "digits", "leaves nothing to train on"),
    "batch": (["recipe.batch_size=1400"], "digits", "more than the 1237 training images"),
    "shares": (["run.processes=3"], "digits", "16 cannot be shared equally"),
    "pairs": (["recipe.batch_size=6", "run.processes=2", "augment.mixup=1"], "digits", "pair"),
    "single image": (["model.width=0.25", "model.family=cifar_mobilenetv2", "model.depth=null",
                      "recipe.batch_size=1"], "digits", "a single image at once"),
    "sync_bn": (["recipe.sync_bn=true", "run.processes=2"], "digits", "between GPUs only"),
    "teacher": (["teacher.name=0123456789abcdef", "teacher.labels=soft"], "digits", "no stage"),
    "family": (["model.family=cifar_resent"], "digits", "did you mean 'cifar_resnet'"),
    "timm": ([*TIMM, "model.family='timm:inception_v3'", "dataset.resolution=32"], "imagenet",
             "does not take images of 32 pixels"),
    "standardised": ([*PRUNED, *TIMM, "model.family='timm:nf_resnet26'", "dataset.resolution=64"],
                     "imagenet", "so zeros would not last"),
    "protect": ([*PRUNED, "compress.protect=[no.weight]"], "digits", "neither a role"),
    "protect all": ("PROTECT", "digits", "every convolution and linear layer"),
    "none left": (["compress.sparsity=0.99999", "compress.pruning=one_shot", "model.width=0.05"],
                  "digits", "leaves none of the"),
    "nm": ([*PRUNED, "compress.method=nm", "model.width=0.04",
            "compress.protect=[classifier,conv1.weight]"], "digits", "nm finds no layer"),
    "channel": ([*PRUNED, "compress.method=channel", "compress.scope=layer", "model.depth=10",
                 "model.family=wide_resnet", "model.width=2"], "digits", "layers that share them"),
    "slice": (["surplus.form=slice", "model.width=0.05", "surplus.widths=[1.01]"], "digits",
              "not wider than the small one"),
    "fuse": (["surplus.form=fuse", "model.family=cifar_vit", "model.depth=2"], "digits",
             "surplus fuse does not suit the family cifar_vit"),
    "policy": (["augment.policy='randaug(n=0)'", "augment.magnitude=0.5"], "digits", "n is a"),
    "space": (["augment.policy='randaug(n=1, space=nix)'", "augment.magnitude=0.5"], "digits",
              "augment.policy"),
    "loader": (["run.loader=imagefolder"], "digits", "is not one: use resident or auto"),
}  # fmt: skip
# What a launch refuses, and a dry run prints as a note.
HINDRANCES = {
    "device": (["run.device=cuda"], "digits", "see no GPU without cluster.gpus_per_node"),
    "no data": (["run.data_root=/dev/null"], "imagenet", "the data set imagenet is not there"),
    "tracker": (["run.tracker=mlflow"], "digits", "needs the package mlflow"),
}

TABLE = {
    "train/checkpoint.py": {"*": DAMAGE},
    "train/distributed.py": {"pick_device": "device", "_ranks_from_environment": PEERS},
    "train/engine.py": {"make_engine": "sync_bn"},
    "train/engine_deepspeed.py": {"DeepSpeed.train_step": CALLER},
    "train/loop.py": {"_check": "tracker"},
    "train/pruner.py": {"Pruner.prune": "none left"},
    "train/stage.py": {
        "Stage.train_step": "single image", "Stage.end_epoch": VALUES,
        "Stage._end_of_continued": DAMAGE,
    },
    "train/step_timing.py": {"measure_steps_in_new_process": COMMAND},
    "train/targets.py": {"load_judged": DAMAGE},
    "train/teacher.py": {"load_teacher": "teacher", "_from_stage": DAMAGE, "_from_timm": PEERS},
    "train/trackers.py": {"Tracker.__init__": "tracker"},
    "data/beton.py": {"_check_file": FILES, "beton_splits": FILES, "_cut": FILES},
    "data/catalog.py": {"check_counts": FILES, "read_file": FILES, "info_of": CALLER},
    "data/dataset_file.py": {"file_of": COMMAND, "read_values": COMMAND, "parse": COMMAND},
    "data/describe.py": {
        "_find_places": COMMAND, "_statistics": COMMAND, "describe": COMMAND, "main": COMMAND,
    },
    "data/cifar.py": {"_read_batch": FILES},
    "data/datasets.py": {"load": "images", "read_official": "no data", "_verify": FILES},
    "data/download.py": {"download": LAUNCH, "main": COMMAND},
    "data/fashion_mnist.py": {"read_idx": FILES},
    "data/ffcv.py": {"BetonImages.decoder.decode": FILES, "require_memory": MEMORY},
    "data/imagefolder.py": {
        "scan": FILES, "scan_parts": FILES, "read_bytes": FILES, "_named": FILES,
    },
    "data/loader.py": {"make_loader": ("shares", "batch")},
    "data/manifest.py": {
        "Manifest._ids_exist": FILES, "read_manifest": FILES, "read_fitting": FILES,
        "_check_size": FILES,
    },
    "data/pipeline.py": {"encoded": CALLER},
    "data/resident.py": {"_on_device": CALLER},
    "data/source.py": {"choose": "loader", "problem": LAUNCH},
    "data/tree.py": {"*": FILES},
    "data/write.py": {"*": COMMAND},
    "data/writer.py": {"*": COMMAND},
    "models/conversions.py": {"synchronise_batch_norm": LAUNCH},
    "models/from_timm.py": {"_build": "timm"},
    "models/registry.py": {"_checked": "family", "build": CALLER},
    "models/trial_forward.py": {"check_forward": LAUNCH},
    "compress/batchnorm.py": {"reestimate": CALLER},
    "compress/channels.py": {"_target": "channel"},
    "compress/fuse_graph.py": {"Fused.__init__": "fuse"},
    "compress/layers.py": {"_try": LAUNCH, "to_prune": "standardised"},
    "compress/masks.py": {
        "protected": "protect", "prunable": "protect all", "lowest": CALLER, "_lowest": CALLER,
        "unpack": DAMAGE,
    },
    "compress/methods/nm.py": {"NM.suited": "nm"},
    "compress/quantise_deployed.py": {"unpack": CALLER},
    "compress/quantise_layers.py": {"*": CALLER},  # no grid has a key for it yet
    "compress/slice_graph.py": {"Sliced.__init__": "slice"},
    "augment/__main__.py": {"*": COMMAND},
    "augment/batch_transform.py": {"train_batch": CALLER},
    "augment/calibrate.py": {"refuse_chains": COMMAND},
    "augment/executors.py": {"apply": CALLER, "check_images": CALLER},
    "augment/mix.py": {"mix": "pairs"},
    "augment/ops.py": {"register_op": LAUNCH, "find_op": "space", "check_value": "space"},
    "augment/plan.py": {"*": CALLER},
    "augment/policy.py": {"*": "policy"},
    "augment/replay.py": {"replay": CALLER},
    "augment/sheet.py": {"by_op": COMMAND},
    "augment/spaces.py": {"*": "space"},
    "cluster/enqueue.py": {"*": LAUNCH},
    "cluster/job_registry.py": {"*": LAUNCH},
    "cluster/local.py": {"*": LAUNCH},
    "cluster/launch_folder.py": {"*": LAUNCH},
    "cluster/sbatch.py": {"*": LAUNCH},
    "cluster/rendezvous.py": {"export_rank_variables": PEERS},
    "cluster/slurm.py": {"*": PEERS},
    "cluster/slurm_jobs.py": {"*": LAUNCH},
    "cluster/state.py": {"_ended": LAUNCH},
    "cluster/selection.py": {"*": LAUNCH},
    "cluster/sweep_view.py": {"*": LAUNCH},
}  # fmt: skip


def raising(path):
    """Yield the qualified names of the functions of a file that raise an error for a user."""

    def visit(node, names):
        for child in ast.iter_child_nodes(node):
            is_scope = isinstance(child, ast.FunctionDef | ast.ClassDef)
            error = child.exc if isinstance(child, ast.Raise) else None
            if isinstance(error, ast.Call) and ast.unparse(error.func) not in INTERNAL:
                yield ".".join(names)
            yield from visit(child, [*names, child.name] if is_scope else names)

    yield from visit(ast.parse(path.read_text()), [])


FILES_OF_JOBS = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES_OF_JOBS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_error_of_a_job_is_checked_by_a_launch_or_can_only_be_known_there(path):
    entries = TABLE.get(str(path.relative_to(ROOT)), {})
    unknown = {name for name in raising(path) if name not in entries and "*" not in entries}
    assert not unknown, f"add to the table what a launch checks before {sorted(unknown)} raise"


def test_the_table_names_checks_and_reasons_that_exist():
    named = set()
    for entries in TABLE.values():
        for value in entries.values():
            named.update(value if isinstance(value, tuple) else {value})
    assert named == REASONS | REFUSALS.keys() | HINDRANCES.keys()


@pytest.mark.parametrize("name", REFUSALS)
def test_what_the_table_says_is_refused_by_a_launch_and_its_dry_run(refusal, name):
    words, dataset, sentence = REFUSALS[name]
    if words == "PROTECT":
        config = ModelConfig(family="cifar_resnet", depth=8, width=0.25)
        names = [f"{name}.weight" for name in layers_of(registry.build(config, 10, seed=0))]
        words = [*PRUNED, f"compress.protect=[{','.join(names)}]"]
    assert sentence in refusal(words, dataset)


def layers_of(model):
    kinds = ("Conv2d", "Linear", "StridedPointwise")
    return [name for name, module in model.named_modules() if type(module).__name__ in kinds]


@pytest.mark.parametrize("name", HINDRANCES)
def test_what_this_machine_lacks_is_refused_by_a_launch_and_noted_by_its_dry_run(
    hindrance, monkeypatch, tmp_path, name
):
    words, dataset, sentence = HINDRANCES[name]
    monkeypatch.chdir(tmp_path)  # where no folder data/ holds images
    if name == "tracker":
        monkeypatch.setattr("harness.train.trackers.PACKAGES", {"mlflow": "no_such_package"})
        sentence = sentence.replace("mlflow", "no_such_package")
    assert sentence in hindrance(words, dataset)
