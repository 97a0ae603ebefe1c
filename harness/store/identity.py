"""The ids of stages and trials: hashes of their resolved scientific configs."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from harness.dataset_schema import PLACES
from harness.errors import UserError
from harness.schema import StageConfig, TrialConfig

STAGE_ID = re.compile(r"[0-9a-f]{16}")
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
)


def canonical_json(value: Any) -> str:
    """Return JSON text that is equal for equal values.

    Keys are sorted, and there are no spaces. A float has the shortest text that reads back as the
    same float. NaN and infinities raise ValueError.
    """
    return _ENCODER.encode(value)


def digest(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of the canonical JSON of `value`.

    Raises UserError for a text that UTF-8 cannot encode, such as the name of a table.
    """
    text = canonical_json(value)
    try:
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    except UnicodeEncodeError as error:
        start, end = text.rfind('"', 0, error.start), text.find('"', error.end)
        name = text[start + 1 : end]
        raise UserError(f"'{name}' has bytes that are not UTF-8: rename the file") from error


def stage_id(config: StageConfig) -> str:
    """Return the id of a stage.

    The hash includes fields that have their defaults, so a change of a default changes the id.
    """
    return digest(identity(config))


def identity(config: StageConfig) -> dict[str, Any]:
    """Return what a stage's id is the hash of, as JSON values; `config.json` holds it."""
    return config.model_dump(mode="json", exclude={"continues": True, "dataset": PLACES})


def trial_id(config: TrialConfig) -> str:
    """Return the id of a trial."""
    return digest(config.model_dump(mode="json", exclude={"dataset": PLACES}))
