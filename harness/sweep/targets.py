"""What finished networks are evaluated on beside their own clean images: `evaluate` in a grid.

A target has a content, which says exactly which images it has. The digest of the content names the
records beside the stages (`harness/store/evaluations.py`), so an evaluation on other images is
another record, and no target is part of a stage's identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError, nearest
from harness.store.identity import digest
from harness.sweep.mistakes import Mistakes


@dataclass(frozen=True)
class Target:
    """Images to evaluate on. `score` is the name of its accuracies: `val_<score>`, `test_<score>`.

    `copies` is how many images an image of the data set becomes.
    """

    name: str  # as in `evaluate`
    score: str
    content: Mapping[str, Any]
    copies: int

    @property
    def id(self) -> str:
        """The name of the records of this target, 16 hex digits."""
        return digest(self.content)


def _corruptions() -> Target:
    from harness.corrupt import CORRUPTIONS, SEVERITIES, VERSION  # imports SciPy

    content = {
        "on": "corruptions",
        "version": VERSION,
        "corruptions": list(CORRUPTIONS),
        "severities": list(SEVERITIES),
    }
    return Target("corruptions", "corrupted", content, len(CORRUPTIONS) * len(SEVERITIES))


TARGETS = {"corruptions": _corruptions}
SCORES = {"corruptions": "corrupted"}
"""The score of each target: a column of rows, without `val_` and `test_`."""


def find_target(name: str) -> Target:
    """Return the target of that name. Raises UserError."""
    if name not in TARGETS:
        raise UserError(f"there is no evaluation '{name}'{nearest(name, TARGETS)}")
    return TARGETS[name]()


def read_evaluate(value: Any, mistakes: Mistakes) -> tuple[str, ...]:
    """Return the names of the targets in the key `evaluate` of a grid; collect what is wrong."""
    if value is None or value is False:
        return ()
    names: Iterable[Any] = value if isinstance(value, list | tuple) else [value]
    valid = []
    for name in names:
        if name in TARGETS:
            valid.append(name)
        else:
            sentence = f"there is no evaluation '{name}'{nearest(str(name), TARGETS)}"
            mistakes.add("evaluate", f"{sentence}: write evaluate: [corruptions], or false")
    return tuple(dict.fromkeys(valid))
