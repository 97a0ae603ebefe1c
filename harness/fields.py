"""The types of a config's keys: ranges of numbers, and the frozen model that all sections share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator

NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(gt=0)]
# The counter of a random draw has 32 bits for 256 candidates of each of 2^24 epochs (`rng.bits`).
Epochs = Annotated[int, Field(gt=0, lt=2**24)]
Candidates = Annotated[int, Field(gt=0, le=2**8)]
Threads = Annotated[int, Field(gt=0, le=1024)]  # far more cannot be started
NonNegativeFloat = Annotated[float, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
# The product of two such numbers, and its part by an optimizer's bias correction, fit into fp32.
Rate = Annotated[float, Field(gt=0, le=1e12)]
Decay = Annotated[float, Field(ge=0, le=1e12)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
ClosedShare = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Beta = Annotated[float, Field(ge=0, le=100)]  # a parameter a of a distribution Beta(a, a)
Interval = Annotated[tuple[ClosedShare, ClosedShare], Strict(False)]
Shares = Annotated[tuple[Share, ...], Strict(False)]
Floats = Annotated[tuple[float, ...], Strict(False)]
Names = Annotated[tuple[str, ...], Strict(False)]


def canonical(value: Any) -> Any:
    """Return a float with 12 significant digits, 0.0 for -0.0, and a text without blanks around it.

    Also in lists; other values are unchanged. So numbers that are equal in theory, such as 0.3 and
    0.1 + 0.2, name one stage.
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
