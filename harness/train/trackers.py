"""Copies of a stage's metrics for TensorBoard, Weights & Biases or MLflow: `run.tracker=NAME`.

One run per stage, named by its id, under `trackers/` of the store. `metrics.jsonl` is always
written, and the harness reads only that file. A library is imported only for the tracker that the
run names, and works offline:

    tensorboard --logdir runs/store/trackers/tensorboard
    wandb sync runs/store/trackers/wandb/offline-run-*     (WANDB_MODE=online sends at once)
    mlflow ui --backend-store-uri runs/store/trackers/mlflow     (or set MLFLOW_TRACKING_URI)

A tracker that fails prints one note and is not used again for that stage. It never ends a training.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.files import make_folder

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
EXPERIMENT = "augmentation-harness"
Log = Callable[[int, dict[str, float]], None]
Close = Callable[[], None]


def missing(kind: str) -> str | None:
    """Return an error message if the package of a tracker is not installed, else None."""
    package = PACKAGES.get(kind)
    if package is None or importlib.util.find_spec(package) is not None:
        return None
    return (
        f"run.tracker={kind} needs the package {package}, which is not installed here: install it "
        f"(`uv pip install {package}`), or set run.tracker=none; metrics.jsonl is written anyway."
    )


class Tracker:
    """The run of one stage, of `kind` tensorboard, wandb, mlflow or none.

    `step` is where the stage starts or continues: metrics of later steps will be logged again. The
    package is installed (`missing`).
    """

    def __init__(
        self, kind: str, store: Path, stage: str, config: Mapping[str, Any], step: int
    ) -> None:
        self.kind, self.stage = kind, stage
        self._log: Log | None = None
        self._close: Close | None = None
        if kind != "none":
            folder = store / "trackers" / kind
            self._try(lambda: self._open(folder, _flat(config), step))

    def _open(self, folder: Path, config: dict[str, Any], step: int) -> None:
        make_folder(folder)
        self._log, self._close = _OPENERS[self.kind](folder, self.stage, config, step)

    def log(self, row: Mapping[str, Any]) -> None:
        """Log the numbers of a row of `metrics.jsonl` at its `step`."""
        if self._log is not None:
            log = self._log
            numbers = {
                name: float(value)
                for name, value in row.items()
                if name != "step" and isinstance(value, int | float)
            }
            self._try(lambda: log(row["step"], numbers))

    def close(self) -> None:
        """Write buffered metrics and end the run."""
        if self._close is not None:
            self._try(self._close)
        self._log = self._close = None

    def _try(self, action: Callable[[], None]) -> None:
        """Do `action`; if it fails, print a note and stop using the tracker."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - no exception of a tracker may end a training
            self._log = self._close = None
            print(
                f"note: {self.kind} fails and is not used any more for stage {self.stage} "
                f"({type(error).__name__}: {error}); metrics.jsonl has all metrics",
                file=sys.stderr,
                flush=True,
            )


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested config as one dict with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _tensorboard(folder: Path, stage: str, config: dict[str, Any], step: int) -> tuple[Log, Close]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / stage), purge_step=step + 1)
    writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log, writer.close


def _wandb(folder: Path, stage: str, config: dict[str, Any], step: int) -> tuple[Log, Close]:
    import wandb

    settings = wandb.Settings(
        mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]  # wandb checks it
        silent=True,
        console="off",
        x_disable_stats=True,
    )
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", EXPERIMENT),
        id=stage,
        name=stage,
        config=config,
        dir=str(folder.parent),  # in which wandb makes its own folder `wandb`
        resume="allow",
        reinit="create_new",  # a gang has several runs at once
        settings=settings,
    )
    return lambda step, numbers: run.log(numbers, step=step), run.finish


def _mlflow(folder: Path, stage: str, config: dict[str, Any], step: int) -> tuple[Log, Close]:
    # plain files need neither server nor database; newer versions of MLflow ask for this variable
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI", folder.absolute().as_uri())
    client = MlflowClient(tracking_uri=uri)
    existing = client.get_experiment_by_name(EXPERIMENT)
    experiment = existing.experiment_id if existing else client.create_experiment(EXPERIMENT)
    earlier_runs = client.search_runs([experiment], f"attributes.run_name = '{stage}'")
    if earlier_runs:
        run = earlier_runs[0].info.run_id
        client.update_run(run, status="RUNNING")
    else:
        run = client.create_run(experiment, run_name=stage).info.run_id
        for key, value in config.items():
            client.log_param(run, key, value)

    def log(step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            client.log_metric(run, name, value, step=step)

    return log, lambda: client.set_terminated(run)


_OPENERS: dict[str, Callable[[Path, str, dict[str, Any], int], tuple[Log, Close]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
