"""The columns of rows: what each one means, which are axes, which are metrics that are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from harness.store.provenance import RECORDED

COLUMNS = {
    "grid": "name of the sweep",
    "trial": "id of the trial: digest of its config",
    "state": "done, diverged, running, queued, disputed, failed, damaged, waiting or ruled out",
    "why": "why the trial has no result yet, where the state does not say it",
    "dataset": "name of the data set",
    "family": "model family",
    "depth": "layers, where the family has a choice",
    "width": "channel multiplier",
    "sparsity": "requested share of the prunable weights, or channels, that are zero",
    "dense_long": "for the dense control: the sparsity whose training budget it matches",
    "policy": "augmentation policy without its magnitude",
    "magnitude": "none, or a share in [0, 1] of the policy's scale",
    "seed": "replicate",
    "precision": "fp32 or bf16_autocast",
    "batch_size": "global batch",
    "lr": "peak learning rate",
    "weight_decay": "where varied",
    "label_smoothing": "where varied",
    "train_size": "training images; empty for all that are not validation",
    "method": "the method that chooses the weights to prune, where varied",
    "pruning": "how sparsity rises along the path, where varied",
    "schedule": "the schedule of the magnitude along the levels, where varied",
    "surplus": "additional parameters: none, or their form, where varied",
    "calibrated": "whether magnitude is difficulty in this space, where varied",
    "difficulty": "a teacher's loss on images augmented this way, nats, where measured",
    "stage": "id of the trial's last stage",
    "sparsity_achieved": "share of the prunable weights, or channels, that is pruned",
    "params_total": "parameters of the deployed model",
    "params_nonzero": "parameters of the deployed model that are not pruned",
    "params_prunable": "weights that pruning chooses from",
    "macs_dense": "multiply-adds for one image, as if nothing were pruned",
    "macs_nonzero": "multiply-adds for one image of the remaining weights (theoretical)",
    "latency_ms": "milliseconds for one image, the median, where measured (harness.latency)",
    "latency_spread_ms": "distance between the quartiles of the latency",
    "throughput": "images per second in batches of 64, where measured",
    "latency_device": "the device of these times",
    "val_top1": "accuracy on validation, a share",
    "val_loss": "cross entropy on validation, nats",
    "val_top5": "top-5 accuracy on validation, where the set has 20 classes or more",
    "val_calibration_error": "expected calibration error on validation, a share",
    "val_worst_class": "accuracy of the worst class on validation",
    "val_class_spread": "standard deviation of the accuracy over classes on validation",
    "val_corrupted": "accuracy on corrupted validation images, mean of 15 corruptions x 5",
    "test_top1": "accuracy on test, a share",
    "test_loss": "cross entropy on test, nats",
    "test_top5": "top-5 accuracy on test, where the set has 20 classes or more",
    "test_calibration_error": "expected calibration error on test, a share",
    "test_worst_class": "accuracy of the worst class on test",
    "test_class_spread": "standard deviation of the accuracy over classes on test",
    "test_corrupted": "accuracy on corrupted test images, mean of 15 corruptions x 5",
    "epochs": "epochs of all stages of the trial's path, as configured",
    "examples": "training examples seen along the path",
    "test_images": "images in test, which accuracies on test are shares of",
    "train_macs": "multiply-adds of training along the path: 3 x forward",
    "gpu_seconds": "device-seconds along the path, shared stages counted in full",
    "estimated_seconds": "device-seconds expected from a pilot of each stage's size",
    **RECORDED,
    "code_files": "source files of the row's stage that other rows of the sweep have otherwise",
    "flags": "semicolon-separated: mixed_<column> where the path's stages differ in it",
}
"""Every column that a sweep writes, except axes that have a dotted name."""
AXES = (
    "dataset", "family", "depth", "width", "sparsity", "dense_long", "policy", "precision",
    "batch_size", "lr", "weight_decay", "label_smoothing", "train_size", "method", "pruning",
    "schedule", "surplus", "calibrated", "epochs",
)  # fmt: skip
"""Columns that can distinguish trials, as magnitude, seed and all columns with dotted names do."""
TEXT = (
    "magnitude", "trial", "stage", "code", "why", "stored", "split_hash", "torch", "deepspeed",
    "code_files",
)  # fmt: skip
"""Columns that are read from CSV as text, even where they look like numbers."""
REQUIRED = ("state", "magnitude", "seed", "val_top1", "test_top1")
SCORES = ("val_top1", "test_top1")
CLASS_METRICS = ("worst_class", "class_spread")
"""Metrics that follow from the bits per example and the labels."""
EVALUATED = {"corrupted": "corruptions"}
"""Metrics of evaluations that `harness.evaluate` makes, and what is evaluated on for each."""
FURTHER_SCORES = ("top5", "calibration_error", *CLASS_METRICS, *EVALUATED)
"""Metrics that results of older versions lack."""
FURTHER_COLUMNS = tuple(f"{side}_{name}" for name in FURTHER_SCORES for side in ("val", "test"))
COUNTS = (
    "params_total", "params_nonzero", "params_prunable", "macs_dense", "macs_nonzero", "epochs",
    "examples", "test_images", "train_macs", "gpu_seconds", "estimated_seconds",
)  # fmt: skip

TIMES = ("latency_ms", "throughput")
"""Columns that are measured on a machine, so that the seeds of one size differ in them."""


class Range(NamedTuple):
    """Which numbers of a column are valid, from 0 to `highest`, and what the others are."""

    highest: float
    inclusive: Literal["both", "left"]  # "left": `highest` itself is not valid
    otherwise: str


RANGES = {
    **dict.fromkeys(SCORES, Range(1, "both", "outside [0, 1]; accuracies are shares")),
    **dict.fromkeys(FURTHER_COLUMNS, Range(1, "both", "outside [0, 1]; it is a share")),
    **dict.fromkeys(("sparsity", "dense_long"), Range(1, "left", "outside [0, 1); it is a share")),
    "sparsity_achieved": Range(1, "both", "outside [0, 1]; it is a share"),
    **dict.fromkeys(COUNTS, Range(math.inf, "left", "not a count")),
    **dict.fromkeys(("val_loss", "test_loss"), Range(math.inf, "both", "below 0")),
    **dict.fromkeys((*TIMES, "latency_spread_ms"), Range(math.inf, "left", "not a time or a rate")),
    "difficulty": Range(math.inf, "left", "not finite, or below 0"),
    "seed": Range(math.inf, "left", "not a whole number of 0 or more"),
}
"""The columns of numbers."""
RESULTS = (
    *SCORES, "val_loss", "test_loss", *FURTHER_COLUMNS, "params_nonzero", "macs_nonzero",
    "sparsity_achieved", "gpu_seconds", "estimated_seconds", "why", *TIMES,
    "latency_spread_ms", "latency_device",
)  # fmt: skip
"""Columns in which trials of one config may differ."""
HEADERS = {
    "dense_long": "dense control of",
    "lr": "learning rate",
    "train_size": "training images",
    "params_total": "parameters",
    "params_nonzero": "non-zero parameters",
    "macs_dense": "multiply-adds",
    "macs_nonzero": "non-zero multiply-adds",
    "train_macs": "training multiply-adds",
    "latency_ms": "latency (ms)",
    "latency_spread_ms": "latency spread (ms)",
    "throughput": "images per second",
}
"""What tables call a column whose name is not made of words; for others see `header_of`."""
COUNTED = ("epochs", "examples", "parameters", "multiply-adds", "images", "bits", "seconds")
"""Last words of headers that name a number of things."""
NONE = "none"  # no augmentation: a level of magnitude of its own; no additional parameters


@dataclass(frozen=True)
class Metric:
    """A metric: columns `val_<name>` and `test_<name>`; numbers are shown times `scale`."""

    name: str
    sign: int  # 1 where higher is better, -1 where lower is
    scale: float
    digits: int  # decimals shown
    words: str
    unit: str  # of results
    difference_unit: str


METRICS = {
    "top1": Metric("top1", 1, 100.0, 1, "Top-1 accuracies in percent", "%", "points"),
    "loss": Metric("loss", -1, 1.0, 3, "Cross entropies in nats", "nats", "nats"),
    "top5": Metric("top5", 1, 100.0, 1, "Top-5 accuracies in percent", "%", "points"),
    "calibration_error": Metric(
        "calibration_error", -1, 100.0, 1, "Expected calibration errors in percent", "%", "points"
    ),
    "worst_class": Metric(
        "worst_class", 1, 100.0, 1, "Accuracies of the worst class in percent", "%", "points"
    ),
    "class_spread": Metric(
        "class_spread",
        -1,
        100.0,
        1,
        "Standard deviations of the accuracy over classes in percent",
        "%",
        "points",
    ),
    "corrupted": Metric(
        "corrupted",
        1,
        100.0,
        1,
        "Accuracies on corrupted images in percent, mean of corruptions and severities",
        "%",
        "points",
    ),
}
TOP1 = METRICS["top1"]


def is_axis(name: str) -> bool:
    """Return whether a column distinguishes trials: a known axis, or a dotted key of the config."""
    return name in AXES or "." in name


def header_of(name: str) -> str:
    """Return what tables call a column: `weight_decay` is `weight decay`, a key its last part."""
    return HEADERS.get(name) or name.rpartition(".")[2].replace("_", " ") or name


def in_singular(name: str) -> str:
    """Return the words for one value of a column: `number of epochs`, `width`."""
    header = header_of(name)
    return f"number of {header}" if header.rpartition(" ")[2] in COUNTED else header


def is_missing(value: Any) -> bool:
    """Return whether a cell of a table is empty: None or NaN."""
    return value is None or (not isinstance(value, np.ndarray) and value != value)


def values_of(frame: pd.DataFrame, name: str) -> list[Any]:
    """Return a column as Python values, None where one is missing or the frame lacks the column.

    NaN becomes None because NaN is not equal to itself, so that it would split groups.
    """
    if name not in frame.columns:
        return [None] * len(frame)
    values = frame[name].tolist()
    if not frame[name].hasnans:
        return values
    is_empty = frame[name].isna().tolist()
    return [None if empty else value for value, empty in zip(values, is_empty, strict=True)]


def on_one_line(text: str) -> str:
    """Return the text without line breaks and control characters, which a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
