"""A stage's name is the SHA-256 of its full resolved scientific config, 16 hex digits of it."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from typing import Any

from pydantic import BaseModel

from harness.schema import StageConfig, TrialConfig

STAGE_ID = re.compile(r"[0-9a-f]{16}")
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
)
_PARTS: dict[int, tuple[BaseModel, str]] = {}
"""Canonical JSON of sub-models by object: a plan names 100,000 stages made of a few hundred."""


def canonical_json(value: Any) -> str:
    """Keys sorted, no spaces, shortest round-trip floats, NaN refused: equal values, equal text."""
    return _ENCODER.encode(value)


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON of `value`."""
    return _hash(canonical_json(value))


def stage_id(config: StageConfig) -> str:
    """Name of the stage; fields at their defaults count too, so a changed default renames it."""
    return _hash(_model_json(config))


def trial_id(config: TrialConfig) -> str:
    """Name of a trial: the digest of its config."""
    return _hash(_model_json(config))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _model_json(model: StageConfig | TrialConfig) -> str:
    """`canonical_json(model.model_dump(mode="json"))`, with sub-models rendered once each."""
    parts = []
    for name in _sorted_fields(type(model)):
        value = getattr(model, name)
        if (known := _PARTS.get(id(value))) is not None:
            text = known[1]
        elif isinstance(value, BaseModel):
            text = _made(value)
        elif type(value) in (int, str, type(None)):  # what a plan has many of: seeds, parents
            text = _scalar(value)
        else:
            text = canonical_json(value)
        parts.append(f'"{name}":{text}')
    return "{" + ",".join(parts) + "}"


@functools.cache
def _sorted_fields(model: type[BaseModel]) -> list[str]:
    return sorted(model.model_fields)


@functools.lru_cache(maxsize=4096)
def _scalar(value: int | str | None) -> str:
    return canonical_json(value)


def _made(model: BaseModel) -> str:
    if len(_PARTS) > 50_000:
        _PARTS.clear()
    text = canonical_json(model.model_dump(mode="json"))
    _PARTS[id(model)] = (model, text)  # holding the model keeps its id from being reused
    return text
