"""Copies of a stage's metrics for TensorBoard, Weights & Biases or MLflow: `run.tracker=NAME`.

One run per stage, named by its id, under `trackers/` of the store; `metrics.jsonl` is written in
any case and remains the truth. A library is imported only when asked for, and stays off-line:

    tensorboard --logdir runs/store/trackers/tensorboard
    wandb sync runs/store/trackers/wandb/offline-run-*     (WANDB_MODE=online sends at once)
    mlflow ui --backend-store-uri runs/store/trackers/mlflow     (or set MLFLOW_TRACKING_URI)

A tracker that fails says so once and is left alone: it never ends a training.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import make_folder

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
EXPERIMENT = "augmentation-harness"
Log = Callable[[int, dict[str, float]], None]
Close = Callable[[], None]


def missing(kind: str) -> str | None:
    """A sentence about a tracker whose package is not installed."""
    package = PACKAGES.get(kind)
    if package is None or importlib.util.find_spec(package) is not None:
        return None
    return (
        f"run.tracker={kind} needs the package {package}, which is not installed here: install it "
        f"(`uv pip install {package}`), or set run.tracker=none; metrics.jsonl is written anyway."
    )


class Tracker:
    """One stage's run. `step` is where the stage goes on: what was logged after it comes again.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(
        self, kind: str, store: Path, stage: str, config: Mapping[str, Any], step: int
    ) -> None:
        if said := missing(kind):
            raise UserError(said)
        self.kind, self.stage = kind, stage
        self._log: Log | None = None
        self._close: Close | None = None
        if kind != "none":
            folder = store / "trackers" / kind
            self._guarded(lambda: self._open(folder, _flat(config), step))

    def _open(self, folder: Path, config: dict[str, Any], step: int) -> None:
        make_folder(folder)
        self._log, self._close = _OPENERS[self.kind](folder, self.stage, config, step)

    def log(self, line: Mapping[str, Any]) -> None:
        """The numbers of a line of `metrics.jsonl`, at its `step`."""
        if self._log is not None:
            log = self._log
            numbers = {
                name: float(value)
                for name, value in line.items()
                if name != "step" and isinstance(value, int | float)
            }
            self._guarded(lambda: log(line["step"], numbers))

    def close(self) -> None:
        """Write what is buffered."""
        if self._close is not None:
            self._guarded(self._close)
        self._log = self._close = None

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, training goes on
            self._log = self._close = None
            print(
                f"note: {self.kind} fails and is left out for stage {self.stage} "
                f"({type(error).__name__}: {error}); metrics.jsonl has everything",
                file=sys.stderr,
                flush=True,
            )


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _tensorboard(folder: Path, stage: str, config: dict[str, Any], step: int) -> tuple[Log, Close]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / stage), purge_step=step + 1)
    writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(at: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, at)
        writer.flush()

    return log, writer.close


def _wandb(folder: Path, stage: str, config: dict[str, Any], step: int) -> tuple[Log, Close]:
    import wandb

    settings = wandb.Settings(
        mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]  # it checks the word
        silent=True,
        console="off",
        x_disable_stats=True,
    )
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", EXPERIMENT),
        id=stage,
        name=stage,
        config=config,
        dir=str(folder.parent),  # wandb makes its own folder in it, of that very name
        resume="allow",
        reinit="create_new",  # a gang has several at once
        settings=settings,
    )
    return lambda at, numbers: run.log(numbers, step=at), run.finish


def _mlflow(folder: Path, stage: str, config: dict[str, Any], step: int) -> tuple[Log, Close]:
    # plain files need no server and no database; newer versions want to be told so
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI", folder.absolute().as_uri())
    client = MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(EXPERIMENT)
    experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT)
    same = client.search_runs([experiment], f"attributes.run_name = '{stage}'")
    if same:
        run = same[0].info.run_id
        client.update_run(run, status="RUNNING")
    else:
        run = client.create_run(experiment, run_name=stage).info.run_id
        for key, value in config.items():
            client.log_param(run, key, value)

    def log(at: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            client.log_metric(run, name, value, step=at)

    return log, lambda: client.set_terminated(run)


_OPENERS: dict[str, Callable[[Path, str, dict[str, Any], int], tuple[Log, Close]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
