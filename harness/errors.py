"""Errors that a user can mend: sentences that say what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable

MOST_SHOWN = 200  # names; timm has over a thousand models


class UserError(Exception):
    """A mistake of the user or of the machine's state. Commands print it and exit with code 2."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest of `choices`, else all that fit, ready to append."""
    known = sorted(choices)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (valid: {', '.join(known)})" if 0 < len(known) <= MOST_SHOWN else ""


def command(main: Callable[[list[str]], int]) -> None:
    """Run a command's main: `UserError` becomes its text on stderr and exit code 2."""
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader (`| head`) went away
        sys.stderr.close()
        sys.exit(0)
