"""Where the shipped YAML files lie: grids and groups of a config, and the profiles of clusters."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GRIDS = ROOT / "grids"
PROFILES = ROOT / "slurm"
