"""Rows: a line per trial, from a sweep's store or from anyone's file; all that the analysis reads.

python -m analysis.rows grid=quickstart out=out/quickstart      # rows.csv and rows.parquet
python -m analysis.table rows=out/quickstart/rows.csv
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError, command, nearest

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "grid": "name of the sweep",
    "trial": "id of the trial: digest of its config",
    "state": "done, diverged, failed, damaged, running or waiting",
    "dataset": "name of the data set",
    "family": "model family",
    "depth": "layers, where the family has a choice",
    "width": "channel multiplier",
    "sparsity": "share of the prunable weights that are zero",
    "dense_long": "for the dense control: the sparsity whose training budget it spends",
    "policy": "augmentation policy without its magnitude",
    "magnitude": "none, or a share in [0, 1] of the policy's scale",
    "seed": "replicate",
    "precision": "fp32 or bf16_autocast",
    "stage": "id of the trial's last stage",
    "params_total": "parameters of the deployed model",
    "params_nonzero": "of them not pruned",
    "params_prunable": "weights that pruning chooses from",
    "macs_dense": "multiply-adds for one image, as if nothing were pruned",
    "macs_nonzero": "multiply-adds for one image of the weights that are left (theoretical)",
    "val_top1": "accuracy on validation, a share",
    "val_loss": "cross entropy on validation, nats",
    "test_top1": "accuracy on test, a share",
    "test_loss": "cross entropy on test, nats",
    "epochs": "epochs along the trial's whole path of stages",
    "examples": "training examples seen along the path",
    "train_macs": "multiply-adds of training along the path: 3 x forward",
    "gpu_seconds": "device-seconds along the path, shared stages counted in full",
    "code": "digest of the harness's source",
    "engine": "deepspeed or ddp",
    "zero_stage": "ZeRO stage",
    "world_size": "ranks",
    "micro_batch_size": "of a rank, where set",
    "loader": "what fed the images",
    "memory_format": "contiguous or channels_last",
    "device": "cpu, or the GPU's name",
    "threads": "torch threads of a rank on CPU",
    "torch": "version",
    "deepspeed": "version",
    "flags": "semicolon-separated: mixed_<column> where the path's stages differ in it",
}
"""Every column that a sweep writes; others are further axes under their own name."""
REQUIRED = ("state", "magnitude", "seed", "val_top1", "test_top1")
SCORES = ("val_top1", "test_top1")
STATES = ("done", "diverged", "failed", "damaged", "running", "waiting")


def split_args(args: Sequence[str], knobs: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Words for the sweep's config, and the command's own knobs. Raises UserError."""
    rest: list[str] = []
    own: dict[str, str] = {}
    for arg in args:
        key, equals, value = arg.partition("=")
        if not equals:
            raise UserError(f"'{arg}' is no key=value: write grid=NAME or rows=FILE, format=latex")
        if key in knobs:
            if not value:
                raise UserError(f"{key} has no value")
            own[key] = value
        else:
            rest.append(arg)
    return rest, own


def load(rest: Sequence[str], files: str | None) -> pd.DataFrame:
    """Rows of `rows=FILE[,FILE]` or, without files, of the sweep that `rest` names; checked."""
    import pandas as pd

    if files is None:
        if not any(arg.startswith("grid=") for arg in rest):
            raise UserError("whose rows? Say grid=NAME, or rows=FILE (CSV or Parquet)")
        from harness.store.rows import rows_of_grid

        return check(pd.DataFrame(rows_of_grid(list(rest))), "the sweep")
    if rest:
        words = ", ".join(arg.partition("=")[0] for arg in rest)
        raise UserError(f"with rows=FILE these words mean nothing: {words}")
    frames = [read(Path(name.strip())) for name in files.strip("[]").split(",")]
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    return check(frame, files)


def read(path: Path) -> pd.DataFrame:
    """A CSV or Parquet file as it is."""
    import pandas as pd

    if not path.is_file():
        raise UserError(f"there is no rows file {path}: check the path (from {Path.cwd()})")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype={"magnitude": str, "trial": str, "stage": str, "code": str})
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as rows: {' '.join(str(error).split())}") from error


def check(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows with their types, or a UserError about every mistake in them."""
    import pandas as pd

    problems = []
    for column in REQUIRED:
        if column not in frame.columns:
            problems.append(f"column '{column}' is missing{nearest(column, map(str, frame))}")
    if problems or frame.empty:
        problems = problems or ["it holds no row"]
        raise UserError("\n  ".join([f"{name} cannot be used as rows:", *problems]))
    frame = frame.copy()
    unknown = sorted(set(frame["state"].astype(str)) - set(STATES))
    if unknown:
        problems.append(f"state '{unknown[0]}' is none{nearest(unknown[0], STATES)}")
    for column in SCORES:
        numbers = pd.to_numeric(frame[column], errors="coerce")
        bad = frame[column].notna() & numbers.isna() & (frame[column].astype(str) != "nan")
        if bad.any():
            problems.append(f"{column}: {frame.loc[bad, column].iloc[0]!r} is no number")
        outside = numbers[(numbers < 0) | (numbers > 1)]
        if len(outside):
            problems.append(
                f"{column}: {outside.iloc[0]:g} is outside [0, 1]; accuracies are shares, so "
                "divide percentages by 100"
            )
        frame[column] = numbers
    try:
        frame["magnitude"] = [_magnitude(value) for value in frame["magnitude"]]
    except ValueError as error:
        problems.append(f"magnitude: {error}")
    if "trial" in frame.columns:
        keys = ["grid", "trial"] if "grid" in frame.columns else ["trial"]
        twice = frame[frame.duplicated(keys, keep=False) & frame["trial"].notna()]
        if len(twice):
            problems.append(f"trial {twice['trial'].iloc[0]} is there {len(twice)} times")
    lacking = frame[(frame["state"] == "done") & frame[list(SCORES)].isna().any(axis=1)]
    if len(lacking):
        problems.append(f"{len(lacking)} rows are done and have no accuracy")
    if problems:
        raise UserError("\n  ".join([f"{name} cannot be used as rows:", *problems]))
    return frame


def _magnitude(value: object) -> float | str:
    text = str(value).strip()
    if text == "none":
        return "none"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"'{text}' is neither `none` nor a number") from None
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{text} is outside [0, 1]")
    return number


def write(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """`rows.csv` and `rows.parquet` in `folder`, each whole or not at all."""
    import io

    from harness.store.files import atomic_write, make_folder

    make_folder(folder)
    table = frame.assign(magnitude=frame["magnitude"].astype(str))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    atomic_write(folder / "rows.csv", table.to_csv(index=False).encode())
    atomic_write(folder / "rows.parquet", buffer.getvalue())
    return [folder / "rows.csv", folder / "rows.parquet"]


def main(args: list[str]) -> int:
    """The command: write the rows, or print them as CSV."""
    if not args or args[0] in ("--help", "-h"):
        print(__doc__)
        print("\n".join(f"  {name:<17} {meaning}" for name, meaning in COLUMNS.items()))
        return 0
    rest, own = split_args(args, ("rows", "out"))
    frame = load(rest, own.get("rows"))
    if "out" in own:
        print("\n".join(str(path) for path in write(frame, Path(own["out"]))))
    else:
        frame.to_csv(sys.stdout, index=False)
    return 0


if __name__ == "__main__":
    command(main)
