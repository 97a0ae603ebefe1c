"""Where the shipped YAML files lie: grids with the groups of a config, and profiles of clusters.

In a checkout they are folders beside the packages, in an installed wheel they are in this package.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
ROOT = _PACKAGE.parent


def _shipped(name: str) -> Path:
    installed = _PACKAGE / name
    return installed if installed.is_dir() else ROOT / name


GRIDS = _shipped("grids")
PROFILES = _shipped("slurm")
