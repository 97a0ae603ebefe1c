"""Reads the YAML file of a data set: a shipped one by its name, or a user's own by its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.data.catalog import CATALOG, shown
from harness.dataset_schema import DatasetConfig
from harness.errors import UserError, nearest
from harness.files import user_path
from harness.paths import GRIDS
from harness.plain_yaml import plain, read_text


def is_path(value: str) -> bool:
    """Return whether `dataset=value` is the path of a file, not the name of a shipped set."""
    return value.endswith((".yaml", ".yml"))


def file_of(value: str) -> Path:
    """Return the file of a data set. Raises UserError for a name that no file has."""
    if is_path(value):
        return user_path(value, "dataset")
    path = GRIDS / "dataset" / f"{value}.yaml"
    if "/" in value or not path.is_file():
        raise UserError(
            f"no data set '{value}'{nearest(value, CATALOG)}; one of your own is named by its "
            "file, dataset=path/to/pets.yaml."
        )
    return path


def read_values(path: Path) -> dict[str, Any]:
    """Return the plain values in the file of a data set. Raises UserError."""
    values = plain(read_text(path, "dataset file"), f"the dataset file {shown(path)}")
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(
            f"the dataset file {shown(path)} is not a mapping of keys such as name and train"
        )
    return values


def parse(path: Path, values: dict[str, Any]) -> DatasetConfig:
    """Return the config that the values of a file are. Raises UserError that names each key."""
    try:
        return DatasetConfig.model_validate(values)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(map(str, item["loc"])) or "the whole file"
            hint = (
                nearest(key, DatasetConfig.model_fields)
                if item["type"] == "extra_forbidden"
                else ""
            )
            lines.append(f"the dataset file {shown(path)}: {key}: {item['msg']}{hint}")
        raise UserError("\n".join(lines)) from error


def read_dataset(value: str) -> DatasetConfig:
    """Return the config of a shipped data set, or of the file of a user's own. Raises UserError."""
    path = file_of(value)
    return parse(path, read_values(path))
