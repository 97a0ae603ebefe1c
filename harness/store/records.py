"""Read and seal the small files of a store, which may be damaged or come from another person.

Reading a file returns checked values or raises `Damaged`, whatever the file contains. A link in the
place of a file counts as damage, because it may lead to a file of another stage or another user.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.files import Damaged, write_json
from harness.store.identity import canonical_json

LONGEST = 1 << 30  # bytes of a record file; a sparse file may have a size above the memory
DIGEST = "sha256"
"""Key of a sealed record whose value is the SHA-256 of the canonical JSON of all other keys."""
Count = Annotated[int, Field(ge=0, le=10**30)]
Number = Annotated[float, Field(ge=-1e100, le=1e100)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=1e15)]


class Record(BaseModel):
    """A model of the keys of a record that are read; other keys are allowed and ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


M = TypeVar("M", bound=Record)


def read_bytes(path: Path, follow_links: bool = False, longest: float = math.inf) -> bytes:
    """Return the content of a regular file.

    Raises FileNotFoundError. Raises Damaged if a link, a folder, a pipe or a device is in its
    place, if its mode lets nobody read it, or if it has more than `longest` bytes.
    """
    # without O_NONBLOCK, opening a pipe would wait for a writer
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Damaged(f"{path} is not a regular file")
            if status.st_size > longest:
                raise Damaged(f"{path} is too long: it has {status.st_size:,} bytes")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        if problem := misplaced(path):
            raise Damaged(problem) from error
        raise


def misplaced(path: Path, is_folder: bool = False) -> str | None:
    """Return what is wrong with the kind or mode of a file or folder, or None.

    The result is also None if `path` does not exist.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None
    if stat.S_ISLNK(mode):
        return f"{path} is a link"
    if is_folder != stat.S_ISDIR(mode) or not (is_folder or stat.S_ISREG(mode)):
        return f"{path} is not a {'folder' if is_folder else 'regular file'}"
    if not mode & 0o444:
        return f"{path} cannot be read by anybody (mode {stat.S_IMODE(mode):03o})"
    return None


def parse_json(data: bytes) -> Any:
    """Return the value of JSON text.

    Raises ValueError if it is not valid JSON in UTF-8, is nested too deeply, or holds NaN, a number
    that is too large for a float, or text that UTF-8 cannot encode.
    """
    try:
        value = json.loads(
            data.decode(), parse_constant=_float, parse_float=_float, parse_int=_integer
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if b"\\ud" in data.lower():  # half a surrogate pair is valid JSON, and cannot be encoded
        canonical_json(value).encode()
    return value


def _float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def _integer(text: str) -> int:
    _float(text)
    return int(text)


def read_json(path: Path, follow_links: bool = False) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises FileNotFoundError, or Damaged if the file does not contain a JSON object.
    """
    try:
        value = parse_json(read_bytes(path, follow_links, LONGEST))
    except ValueError as error:
        raise Damaged(f"{path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise Damaged(f"{path} holds {type(value).__name__}, not an object")
    return value


def read_lines(path: Path, model: type[Record] = Record) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file that fit `model`, without incomplete lines.

    The list is empty for a missing or damaged file.
    """
    try:
        lines = read_bytes(path, longest=LONGEST).splitlines()
    except (FileNotFoundError, Damaged):
        return []
    objects = []
    for line in lines:
        with contextlib.suppress(ValueError):
            value = parse_json(line)
            model.model_validate(value)
            objects.append(value)
    return objects


def check(path: Path, value: Mapping[str, Any], model: type[M]) -> M:
    """Return `value` as a `model`. Raises Damaged, with the first wrong key, if it does not fit."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise Damaged(f"{path} is not valid: {key}: {first['msg'].lower()}") from error


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a record and its digest as JSON, atomically."""
    write_json(path, sealed(value))


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its digest, by which `check_seal` detects a changed value."""
    return {**value, DIGEST: _digest(value)}


def check_seal(path: Path, value: Mapping[str, Any], old_keys: Collection[str]) -> None:
    """Raise Damaged if a record is not what was written.

    Older versions wrote records without a digest, and with `old_keys` only. Such records are
    accepted. A record without a digest that has another key is not accepted, because that key may
    be the damaged name of the digest.
    """
    if DIGEST in value:
        content = {key: item for key, item in value.items() if key != DIGEST}
        if value[DIGEST] != _digest(content):
            raise Damaged(f"{path} was changed after it was written: its digest does not match")
    elif unknown := sorted(value.keys() - set(old_keys)):
        raise Damaged(f"{path} has no digest, and the unknown key {unknown[0]!r}")


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
