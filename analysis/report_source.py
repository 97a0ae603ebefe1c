"""Where the rows of a report come from: the grids with their files, and the words of launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.columns import values_of
from harness.arguments import command_line, split_list
from harness.commands import launches
from harness.config import grid_files
from harness.config.grid_file import is_path
from harness.files import user_path
from harness.paths import GRIDS
from harness.plain_yaml import plain, read_text
from harness.store.store import Store


@dataclass(frozen=True)
class SweepSource:
    """A sweep: the value of `grid=` and its file, and the words of its recorded launches."""

    grid: str
    yaml: str
    launched: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    `words` are those of the command that read them from a store, other than `grid=`, and `folder`
    is where it ran; rows of a file have neither. Sweeps whose grid is not known are left out.
    """

    sweeps: dict[str, SweepSource]
    words: tuple[str, ...] = ()
    folder: Path | None = None

    def launch(self, name: str, *changes: str) -> str:
        """Return the command that launches a sweep, with `changes` instead of words that clash."""
        words = (f"grid={self.sweeps[name].grid}", *self.words)
        return command_line("harness.launch", words, *changes)


def of_command(overrides: Sequence[str]) -> Source:
    """Return the source of the rows that a command read from a store."""
    words = [word for word in overrides if not word.startswith("grid=")]
    config: Any = plain(read_text(GRIDS / "launch.yaml", "config"), "the config")
    stores = [word.partition("=")[2].strip("'\"") for word in words if word.startswith("store=")]
    store = Store(user_path(stores[-1] if stores else config["store"], "store"))
    sweeps = {}
    for arg in overrides:
        for grid in split_list(arg[5:]) if arg.startswith("grid=") else ():
            name = Path(grid).stem
            launched = [launch["words"] for launch in launches.read(store, name)]
            sweeps[name] = SweepSource(grid, _yaml(grid), launched)
    return Source(sweeps, tuple(words), Path.cwd())


def of_rows(frame: pd.DataFrame) -> Source:
    """Return the source of the rows of a file: the shipped grids that it names."""
    names = sorted(grid_files().keys() & set(values_of(frame, "grid")))
    return Source({name: SweepSource(name, _yaml(name)) for name in names})


def words_of_others(source: Source) -> list[str]:
    """Return a sentence for each sweep that was last launched with other words than `source`."""
    own = sorted(launches.words_of(source.words, {}))
    return [
        f"{name} was last launched with {' '.join(sweep.launched[-1]) or 'no other words'}: "
        "this page shows the trials of the commands below"
        for name, sweep in source.sweeps.items()
        if sweep.launched and sorted(sweep.launched[-1]) != own
    ]


def _yaml(grid: str) -> str:
    path = user_path(grid, "grid") if is_path(grid) else GRIDS / "grid" / f"{grid}.yaml"
    return read_text(path, "grid file")
