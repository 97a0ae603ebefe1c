"""The file that a launch writes for its workers: stage configs, gangs in order, run settings."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from harness.augment.spaces import SUFFIXES
from harness.cluster_schema import ClusterConfig
from harness.files import atomic_write
from harness.plain_yaml import copy_tables, use_copies
from harness.schema import RunConfig, StageConfig
from harness.sweep.jobs import Job


@dataclass(frozen=True)
class Submission:
    """One array of SLURM jobs, or the workers of one machine.

    `parts` has the gangs of each job of the array; local workers all work on part 0.
    """

    store: Path
    sweep: str
    run: RunConfig
    cluster: ClusterConfig
    stages: dict[str, StageConfig]  # parents before children
    parts: list[Job]
    attempts: int = 0  # runs of the jobs that this one succeeds, where requeueing is impossible
    launcher: tuple[int, str] | None = None  # pid and start time: local workers end with it
    snapshot: Path | None = None  # the code that SLURM jobs run
    plugins: list[Path] = field(default_factory=list)  # copies of the plug-in files, for them

    def write(self, path: Path) -> None:
        """Write it as JSON, and copy the spaces that its policies may name."""
        copy_tables(path.parent / "tables", SUFFIXES)
        value = {
            "store": str(self.store),
            "sweep": self.sweep,
            "run": self.run.model_dump(mode="json"),
            "cluster": self.cluster.model_dump(mode="json"),
            "stages": {i: config.model_dump(mode="json") for i, config in self.stages.items()},
            "parts": self.parts,
            "attempts": self.attempts,
            "launcher": self.launcher,
            "snapshot": str(self.snapshot) if self.snapshot else None,
            "plugins": [str(file) for file in self.plugins],
        }
        atomic_write(path, json.dumps(value).encode())

    @classmethod
    def read(cls, path: Path) -> Submission:
        """Return what `write` wrote."""
        use_copies(path.parent / "tables")
        value = json.loads(path.read_bytes())
        return cls(
            store=Path(value["store"]),
            sweep=value["sweep"],
            run=RunConfig.model_validate_json(json.dumps(value["run"])),
            cluster=ClusterConfig.model_validate_json(json.dumps(value["cluster"])),
            stages={
                i: StageConfig.model_validate_json(json.dumps(config))
                for i, config in value["stages"].items()
            },
            parts=value["parts"],
            attempts=value["attempts"],
            launcher=tuple(value["launcher"]) if value["launcher"] else None,
            snapshot=Path(value["snapshot"]) if value["snapshot"] else None,
            plugins=[Path(file) for file in value["plugins"]],
        )

    def all_stages(self) -> list[str]:
        """Return the stages of all parts, in order."""
        return [stage for part in self.parts for gang in part for stage in gang]
