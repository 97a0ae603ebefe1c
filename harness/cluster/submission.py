"""What `launch` writes for its workers: configs, gangs in order, how to run them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from harness.cluster_schema import ClusterConfig
from harness.files import atomic_write
from harness.schema import RunConfig, StageConfig
from harness.sweep.jobs import Job


@dataclass(frozen=True)
class Submission:
    """One array of jobs, or the workers of one machine.

    `parts` has the gangs of each job; local workers all take from part 0.
    """

    store: Path
    sweep: str
    run: RunConfig
    cluster: ClusterConfig
    stages: dict[str, StageConfig]  # parents before children
    parts: list[Job]
    later: list[list[Job]] = field(default_factory=list)  # of each part, what follows in its chain
    attempts: int = 0  # of jobs that could not be requeued and that this one goes on for
    launcher: tuple[int, str] | None = None  # pid and start time: local workers end with it
    snapshot: Path | None = None  # the code that jobs run
    plugins: list[Path] = field(default_factory=list)  # copies of the plug-in files, for SLURM jobs

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        value = {
            "store": str(self.store),
            "sweep": self.sweep,
            "run": self.run.model_dump(mode="json"),
            "cluster": self.cluster.model_dump(mode="json"),
            "stages": {i: config.model_dump(mode="json") for i, config in self.stages.items()},
            "parts": self.parts,
            "later": self.later,
            "attempts": self.attempts,
            "launcher": self.launcher,
            "snapshot": str(self.snapshot) if self.snapshot else None,
            "plugins": list(map(str, self.plugins)),
        }
        atomic_write(path, json.dumps(value).encode())

    @classmethod
    def read(cls, path: Path) -> Submission:
        """Read what `write` wrote."""
        said = json.loads(path.read_bytes())
        return cls(
            store=Path(said["store"]),
            sweep=said["sweep"],
            run=RunConfig.model_validate_json(json.dumps(said["run"])),
            cluster=ClusterConfig.model_validate_json(json.dumps(said["cluster"])),
            stages={
                i: StageConfig.model_validate_json(json.dumps(config))
                for i, config in said["stages"].items()
            },
            parts=said["parts"],
            later=said["later"],
            attempts=said["attempts"],
            launcher=tuple(said["launcher"]) if said["launcher"] else None,
            snapshot=Path(said["snapshot"]) if said["snapshot"] else None,
            plugins=list(map(Path, said.get("plugins", []))),
        )
