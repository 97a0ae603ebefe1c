"""Errors that a user can correct: sentences that say what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable

MOST_CHOICES = 200  # longer lists are not printed; timm has over a thousand models
HELP = {"-h", "--help", "help"}


class UserError(Exception):
    """A mistake of the user or a fault of the machine. Commands print it and exit with code 2."""


def closest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice that is spelled most like `name`, or None if none is similar."""
    matches = difflib.get_close_matches(name, sorted(choices), n=1, cutoff=0.5)
    return matches[0] if matches else None


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` or, where no choice is similar, ` (valid: x, y, z)`.

    The text is to be appended to a sentence. It is empty for a list too long to print.
    """
    valid = sorted(choices)
    if (match := closest(str(name), valid)) is not None:
        return f" (did you mean '{match}'?)"
    return f" (valid: {', '.join(valid)})" if 0 < len(valid) <= MOST_CHOICES else ""


def printable(text: str) -> str:
    """Return text from elsewhere with `?` for control characters, which a terminal would obey."""
    return "".join(c if c in "\n\t" or c.isprintable() else "?" for c in text)


def command(
    main: Callable[[list[str]], int],
    usage: str | Callable[[], str] | None = None,
    needs_arguments: bool = True,
) -> None:
    """Run `main` with the arguments of the command line and exit with the code that it returns.

    `--help` prints `usage` and exits with 0; a command that needs arguments and has none prints it
    to stderr and exits with 2. A UserError or an error of the operating system is printed as one
    sentence, exit code 2; Ctrl-C exits with 130.
    """
    args = sys.argv[1:]
    try:
        if usage and (HELP.intersection(args) or (needs_arguments and not args)):
            text = usage if isinstance(usage, str) else usage()
            print(text.strip(), file=sys.stdout if args else sys.stderr)
            sys.exit(0 if args else 2)
        sys.exit(main(args))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the process that reads the output (`| head`) has ended
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        where = error.filename or "the operating system"
        print(f"error: {where}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
