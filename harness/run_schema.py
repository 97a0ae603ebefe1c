"""How a stage is executed on a machine: settings that are recorded beside a result.

They are operational (the key `run`) and never change the identity of a stage.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.fields import Frozen, PositiveFloat, PositiveInt, Threads


class RunConfig(Frozen):
    """How a stage is executed on a machine."""

    engine: Literal["deepspeed", "ddp"] = "deepspeed"  # which library runs a training step
    zero_stage: Annotated[int, Field(ge=0, le=1)] = 0  # stage of DeepSpeed's ZeRO
    processes: PositiveInt = 1  # ranks that train one gang together
    gang: PositiveInt | Literal["auto"] = 1  # stages side by side in a process; auto: by pilots
    micro_batch_size: PositiveInt | None = None  # per rank; null: the rank's whole share
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    threads: Threads = 1  # torch threads of a rank on CPU; another number changes the last bits
    deterministic: bool = True  # false: a GPU's fastest algorithms, and bits do not repeat
    channels_last: bool = True  # memory format; 1.3 to 1.7 times as fast on CPU
    loader: Literal["auto", "resident", "ffcv", "imagefolder"] = "auto"  # auto: by the data set
    loader_threads: Threads | None = None  # threads that decode; null: the cores of this rank
    data_cache: Literal["page", "process"] = "page"  # ffcv: the system's page cache, or own memory
    data_root: str | None = None  # searched for data sets before the usual places
    checkpoint_seconds: PositiveFloat = 120.0  # seconds between two checkpoints
    keep_weights: Literal["all", "needed"] = "all"  # needed: only weights that a child starts from
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"  # gets the metrics

    def micro_batches(self, images: int) -> int:
        """Return how many micro-batches a rank cuts its `images` of a step into.

        Their sizes differ by one image at most. Otherwise the last could be a single image, which
        batch norm cannot normalise.
        """
        return -(-images // (self.micro_batch_size or images))
