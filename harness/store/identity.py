"""A stage's name is the SHA-256 of its full resolved scientific config, 16 hex digits of it."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from harness.schema import StageConfig

STAGE_ID = re.compile(r"[0-9a-f]{16}")


def canonical_json(value: Any) -> str:
    """Keys sorted, no spaces, shortest round-trip floats, NaN refused: equal values, equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def stage_id(config: StageConfig) -> str:
    """Name of the stage; fields at their defaults count too, so a changed default renames it."""
    return digest(config.model_dump(mode="json"))
