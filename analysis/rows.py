"""Rows: a line per trial, from a sweep's store or from anyone's file; all that the analysis reads.

python -m analysis.rows grid=quickstart out=out/quickstart      # rows.csv and rows.parquet
python -m analysis.table rows=out/quickstart/rows.csv
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.checks import SCORES, STATES, check
from harness.arguments import Option, split_list, split_options
from harness.errors import UserError, command, nearest
from harness.verb import callable_module

if TYPE_CHECKING:
    import pandas as pd

OPTIONS = {"rows": Option(), "out": Option()}
COLUMNS = {
    "grid": "name of the sweep",
    "trial": "id of the trial: digest of its config",
    "state": "done, diverged, failed, damaged, disputed, running, queued or waiting",
    "why": "what stands between the trial and its result, where that needs a word",
    "dataset": "name of the data set",
    "family": "model family",
    "depth": "layers, where the family has a choice",
    "width": "channel multiplier",
    "sparsity": "share of the prunable weights that are to go (channel: of the width)",
    "dense_long": "for the dense control: the sparsity whose training budget it spends",
    "policy": "augmentation policy without its magnitude",
    "magnitude": "none, or a share in [0, 1] of the policy's scale",
    "seed": "replicate",
    "precision": "fp32 or bf16_autocast",
    "batch_size": "global batch, where the sweep varies it",
    "lr": "peak learning rate, where varied",
    "weight_decay": "where varied",
    "label_smoothing": "where varied",
    "train_size": "training images, where varied",
    "method": "what chooses the weights to prune: magnitude, random, nm or channel, where varied",
    "pruning": "iterative, one_shot or gradual, where varied",
    "schedule": "magnitude along the levels: constant, falling, rising, ..., where varied",
    "surplus": "additional parameters: none, or their form, where varied",
    "calibrated": "whether magnitude is difficulty in this space, where varied",
    "difficulty": "a teacher's loss on images augmented this way, nats, where measured",
    "stage": "id of the trial's last stage",
    "sparsity_achieved": "share that is gone of the weights (channel: of the outputs) pruned from",
    "params_total": "parameters of the deployed model",
    "params_nonzero": "of them not pruned",
    "params_prunable": "weights that pruning chooses from",
    "macs_dense": "multiply-adds for one image, as if nothing were pruned",
    "macs_nonzero": "multiply-adds for one image of the weights that are left (theoretical)",
    "val_top1": "accuracy on validation, a share",
    "val_loss": "cross entropy on validation, nats",
    "test_top1": "accuracy on test, a share",
    "test_loss": "cross entropy on test, nats",
    "epochs": "epochs that the trial's whole path of stages is to take",
    "examples": "training examples seen along the path",
    "train_macs": "multiply-adds of training along the path: 3 x forward",
    "gpu_seconds": "device-seconds along the path, shared stages counted in full",
    "estimated_seconds": "device-seconds that a pilot of each stage's size makes one expect",
    "code": "digest of the harness's source",
    "engine": "deepspeed or ddp",
    "zero_stage": "ZeRO stage",
    "world_size": "ranks",
    "micro_batch_size": "of a rank, where set",
    "loader": "what fed the images",
    "stored": "what a writer did to them: sizes, JPEG quality, images left out; or original",
    "split_hash": "of the ids of the images in train, validation and test",
    "memory_format": "contiguous or channels_last",
    "device": "cpu, or the GPU's name",
    "threads": "torch threads of a rank on CPU",
    "deterministic": "whether algorithms were asked for that repeat their bits",
    "torch": "version",
    "deepspeed": "version",
    "flags": "semicolon-separated: mixed_<column> where the path's stages differ in it",
}
"""Every column that a sweep writes, apart from axes under a dotted name."""
AXES = (
    "dataset", "family", "depth", "width", "sparsity", "dense_long", "policy", "precision",
    "batch_size", "lr", "weight_decay", "label_smoothing", "train_size", "method", "pruning",
    "schedule", "surplus", "calibrated", "epochs",
)  # fmt: skip
"""Columns that may tell trials apart besides magnitude and seed; dotted names may, too."""
TEXT = (
    "magnitude", "trial", "stage", "code", "why", "stored", "split_hash", "torch", "deepspeed",
)  # fmt: skip


def choice(own: Mapping[str, str], key: str, valid: Collection[str], default: str) -> str:
    """The word given for `key`. Raises UserError with the nearest of `valid`."""
    word = own.get(key, default)
    if word not in valid:
        raise UserError(f"{key}={word} is not known{nearest(word, valid)}")
    return word


def is_axis(name: str) -> bool:
    """Whether a column tells trials apart: a known axis, or a dotted key of the config."""
    return name in AXES or "." in name


def load(rest: Sequence[str], files: str | None) -> pd.DataFrame:
    """Rows of `rows=FILE[,FILE]` or, without files, of the sweeps that `rest` names; checked."""
    import pandas as pd

    from harness.rows import rows_of_grid

    if files is not None:
        if rest:
            words = ", ".join(arg.partition("=")[0] for arg in rest)
            raise UserError(f"with rows=FILE these words mean nothing: {words}")
        if not names(files):
            raise UserError(f"'{files}' names no file: say rows=FILE (CSV or Parquet)")
        return together({name: check(read(Path(name)), name) for name in names(files)})
    grids = [name for arg in rest if arg.startswith("grid=") for name in names(arg[5:])]
    if not grids:
        raise UserError("no rows are named: add grid=NAME, or rows=FILE (CSV or Parquet)")
    others = [arg for arg in rest if not arg.startswith("grid=")]
    found = {grid: pd.DataFrame(rows_of_grid([f"grid={grid}", *others])) for grid in grids}
    return together({grid: check(frame, f"grid {grid}") for grid, frame in found.items()})


def names(text: str) -> list[str]:
    """`a,b` and `[a, b]` as a list."""
    return split_list(text)


def read(path: Path) -> pd.DataFrame:
    """A CSV or Parquet file as it is."""
    import pandas as pd

    if not path.is_file():
        raise UserError(f"there is no rows file {path}: check the path (from {Path.cwd()})")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        frame = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), low_memory=False)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as rows: {' '.join(str(error).split())}") from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes what is too much for an index
        raise UserError(f"{path} cannot be read as rows: its lines have more cells than its header")
    return frame


def together(sources: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows of several files or sweeps; a trial that is in several counts once.

    Raises UserError where it has different results: pooled, they would pass for two seeds.
    """
    import pandas as pd

    frames = list(sources.values())
    if len(frames) == 1:
        return frames[0]
    order = [name for frame in frames for name in frame.columns]
    columns = {
        name: [v for f in frames for v in (f[name].tolist() if name in f else [None] * len(f))]
        for name in dict.fromkeys(order)
    }
    frame = pd.DataFrame(columns)
    frame["magnitude"] = frame["magnitude"].astype(object)
    if "trial" not in frame.columns:
        return frame
    done = frame[(frame["state"] == "done") & frame["trial"].notna()]
    results = done.drop_duplicates(["trial", *SCORES])
    differing = results[results.duplicated("trial")]
    if len(differing):
        raise UserError(
            f"trial {differing['trial'].iloc[0]} has different results in {', '.join(sources)}: "
            "choose one of them, or compare them"
        )
    first = frame["state"].map(STATES.index).sort_values(kind="stable").index
    again = frame.loc[first, "trial"].duplicated() & frame.loc[first, "trial"].notna()
    return frame[~again.sort_index()].reset_index(drop=True)


def write(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """`rows.csv` and `rows.parquet` in `folder`, each whole or not at all."""
    import io

    from harness.files import atomic_write, make_folder

    make_folder(folder)
    table = frame.assign(magnitude=frame["magnitude"].astype(str))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    atomic_write(folder / "rows.csv", table.to_csv(index=False).encode())
    atomic_write(folder / "rows.parquet", buffer.getvalue())
    return [folder / "rows.csv", folder / "rows.parquet"]


def usage() -> str:
    """The help text: the command and every column."""
    columns = [f"  {name:<17} {meaning}" for name, meaning in COLUMNS.items()]
    return "\n".join([str(__doc__), *columns])


def main(args: list[str]) -> int:
    """The command: write the rows, or print them as CSV."""
    rest, options = split_options(args, OPTIONS)
    frame = load(rest, options["rows"])
    if options["out"] is not None:
        print("\n".join(str(path) for path in write(frame, Path(options["out"]))))
    else:
        frame.to_csv(sys.stdout, index=False)
    return 0


callable_module(__name__)
if __name__ == "__main__":
    command(main, usage)
