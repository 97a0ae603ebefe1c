"""Errors that a user can mend: sentences that say what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable

MOST_SHOWN = 200  # names; timm has over a thousand models


class UserError(Exception):
    """A mistake of the user or of the machine's state. Commands print it and exit with code 2."""


def closest(name: str, choices: Iterable[str]) -> str | None:
    """The one of `choices` that was probably meant, if any is near."""
    close = difflib.get_close_matches(name, sorted(choices), n=1, cutoff=0.5)
    return close[0] if close else None


def nearest(name: str, choices: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest of `choices`, else all that fit, ready to append."""
    known = sorted(choices)
    if (meant := closest(str(name), known)) is not None:
        return f" (did you mean '{meant}'?)"
    return f" (valid: {', '.join(known)})" if 0 < len(known) <= MOST_SHOWN else ""


def printable(text: str) -> str:
    """Text of someone else's without what a terminal would obey: control characters show as `?`."""
    return "".join(c if c in "\n\t" or c.isprintable() else "?" for c in text)


def command(main: Callable[[list[str]], int]) -> None:
    """Run a command's main: `UserError` becomes its text on stderr and exit code 2.

    So do refusals of the system, and Ctrl-C where nothing has to be saved ends without a word.
    """
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader (`| head`) went away
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        print(
            f"error: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
