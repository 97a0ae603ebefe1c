"""Types for the keys of a config: ranges of numbers, and the frozen base class of all sections."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator

NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(gt=0)]
# A random draw has 32 bits for its epoch: 24 for the epoch of the training, and 8 for the candidate
# of a teacher (`judge.CANDIDATE_EPOCHS`).
Epochs = Annotated[int, Field(gt=0, lt=2**24)]
Candidates = Annotated[int, Field(gt=0, le=2**8)]
Threads = Annotated[int, Field(gt=0, le=1024)]  # operating systems refuse far larger numbers
NonNegativeFloat = Annotated[float, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
# The product of two such numbers fits into fp32, also if an optimizer's bias correction divides it.
Rate = Annotated[float, Field(gt=0, le=1e12)]
Decay = Annotated[float, Field(ge=0, le=1e12)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
ClosedShare = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Beta = Annotated[float, Field(ge=0, le=100)]  # a parameter a of a distribution Beta(a, a)
# Not strict: YAML has lists and no tuples.
Interval = Annotated[tuple[ClosedShare, ClosedShare], Strict(False)]
Shares = Annotated[tuple[Share, ...], Strict(False)]
Floats = Annotated[tuple[float, ...], Strict(False)]
Names = Annotated[tuple[str, ...], Strict(False)]


def canonical(value: Any) -> Any:
    """Return the one form of values that are equal in theory, so that they name the same stage.

    A float is rounded to 12 significant digits (0.1 + 0.2 becomes 0.3), and -0.0 becomes 0.0. A
    text loses the blanks around it. In a list or tuple this applies to each item. Other values do
    not change.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float):
        return float(f"{value:.12g}") + 0.0
    if isinstance(value, list | tuple):
        return type(value)(map(canonical, value))
    return value


class Frozen(BaseModel):
    """A model that is immutable and strict about types, and that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _canonical(cls, value: object) -> object:
        return canonical(value)
