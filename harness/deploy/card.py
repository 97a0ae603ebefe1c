"""The model card of an exported network, a README.md with the metadata that model hubs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.schema import StageConfig

LIMITS = """- The scores hold for images like those of this data set. Other images, also of the same
  classes, may give other scores.
- The test images took no part in the training or in the choice of the magnitude.
- A network that masks pruned has zeros in tensors of full size. Ordinary runtimes multiply them as
  any other number, so it is not faster than the dense network. Removed channels are gone.
- The probabilities (softmax of the logits) were not calibrated.
"""


def card(
    row: Mapping[str, Any],
    config: StageConfig,
    path: Sequence[StageConfig],
    description: Mapping[str, Any],
    how: str,
    record: Mapping[str, Any],
) -> str:
    """Return the card in Markdown.

    `row` is the trial's row, `config` its last stage, `path` all of its stages, `description` the
    folder's `config.json`, `how` says how the trial was chosen, `record` is the last provenance.
    """
    image, parameters = description["input"], description["parameters"]
    width, depth = config.model.width, config.model.depth
    model = f"{config.model.family}{f', depth {depth}' if depth else ''}, width {width:g}"
    packages = record.get("packages") or {}
    versions = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
    lines = [
        "---",
        "pipeline_tag: image-classification",
        "library_name: pytorch",
        "---",
        "",
        f"# {config.model.family} on {config.dataset.name}, magnitude {row['magnitude']}",
        "",
        f"{model}: {parameters['total']:,} parameters, {parameters['nonzero']:,} of them not zero, "
        f"{description['num_classes']} classes.",
        "",
        "## Use",
        "",
        "```python",
        "from harness.export import load",
        'network = load("THIS_FOLDER")  # torch.nn.Module in eval mode',
        "```",
        "",
        f"The input is fp32 [N, {image['channels']}, {image['resolution']}, "
        f"{image['resolution']}], RGB scaled to [0, 1], then (x - mean) / std for each channel, "
        f"with mean {_numbers(image['mean'])} and std {_numbers(image['std'])}. The output is "
        f"logits fp32 [N, {description['num_classes']}]. `model.onnx`, if it is there, has the "
        "input `images`, normalised in the same way, and the output `logits`, for any N.",
        "",
        "## Data",
        "",
        f"Data set {config.dataset.name}; validation is {config.dataset.validation_size:,} images "
        f"of the official training set (split seed {config.dataset.split_seed}); "
        f"split {row.get('split_hash')}.",
        "",
        "## Training",
        "",
        *(f"{number}. {_stage(stage)}" for number, stage in enumerate(path, start=1)),
        "",
        f"Policy {row['policy']}, magnitude {row['magnitude']}, seed {row['seed']}.",
        "",
        "## Scores of this network",
        "",
        "| | top-1 | cross entropy |",
        "| --- | --- | --- |",
        *(
            f"| {words} | {_score(row.get(f'{side}_top1'))} | {_score(row.get(f'{side}_loss'))} |"
            for side, words in (("val", "validation"), ("test", "test"))
        ),
        "",
        "## Choice of the magnitude",
        "",
        how,
        "",
        "## Provenance",
        "",
        f"Grid {row['grid']}, trial {row['trial']}, stage {row['stage']}; source {row['code']}, "
        f"commit {record.get('commit')}; trained on {row.get('device')}.",
        "",
        f"Versions: {versions}.",
        "",
        "## Limits",
        "",
        LIMITS,
    ]
    return "\n".join(lines)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _stage(config: StageConfig) -> str:
    """Return what one stage trains, in a clause."""
    recipe = config.recipe
    parts = [
        f"{recipe.epochs} epochs with {recipe.optimizer.name}, batch size {recipe.batch_size}, "
        f"learning rate {recipe.optimizer.lr:g} ({recipe.schedule.name}), weight decay "
        f"{recipe.optimizer.weight_decay:g}, label smoothing {recipe.label_smoothing:g}, "
        f"{recipe.precision}; augmentation {config.augment.policy}, flip {config.augment.flip}"
    ]
    if config.prune is not None and config.prune.sparsity:
        parts.append(f"pruned to sparsity {config.prune.sparsity:g} by {config.prune.method}")
    if config.surplus is not None:
        parts.append(f"with additional parameters ({config.surplus.form}), discarded at the end")
    if config.teacher is not None and config.teacher.name is not None:
        parts.append(f"with the teacher {config.teacher.name}")
    return "; ".join(parts) + "."
