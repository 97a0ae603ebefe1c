"""How commands end and what they print.

An error that a user can correct is a sentence that states what is wrong, where, and what to do.
Output is readable in any encoding and contains no control codes. This matters because names and
messages may come from a store, a grid or a file system of another person, with escape sequences or
bytes that are not UTF-8.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

MOST_CHOICES = 200  # longer lists of valid names are not printed; timm has over a thousand models
HELP = {"-h", "--help", "help"}
PIPE_CLOSED = 141  # exit code of a process that SIGPIPE ended
READER_ENDED = (
    "the reader of the output has ended (for example `| head`); python -m harness.status shows "
    "what a launch had done until then"
)
SPELLED = str.maketrans({"±": "+/-", "≤": "<=", "≥": ">=", "×": "x", "–": "-", "—": "-"})
"""Replacements for characters that the encoding of the output does not have."""


class UserError(Exception):
    """A mistake of the user or a fault of the machine. Commands print it and exit with code 2."""


def closest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice that is spelled most like `name`, or None if none is similar."""
    matches = difflib.get_close_matches(name, sorted(choices), n=1, cutoff=0.5)
    return matches[0] if matches else None


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` or, if no choice is similar, ` (valid: x, y, z)`.

    Callers append the text to a sentence. It is empty if the list is too long to print.
    """
    valid = sorted(set(choices))
    if (match := closest(str(name), valid)) is not None:
        return f" (did you mean '{match}'?)"
    return f" (valid: {', '.join(valid)})" if 0 < len(valid) <= MOST_CHOICES else ""


def command(
    main: Callable[[list[str]], int],
    usage: str | Callable[[], str] | None = None,
    needs_arguments: bool = True,
) -> None:
    """Run `main` with the arguments of the command line and exit with the code that it returns.

    `--help` prints `usage` and exits with 0. A command that needs arguments and has none prints
    `usage` to stderr and exits with 2. A UserError or an error of the operating system is printed
    as one sentence, and the exit code is 2. Ctrl-C exits with 130. If the reader of the output ends
    early, the exit code is `PIPE_CLOSED`.
    """
    args = sys.argv[1:]
    with plain_output():
        try:
            if usage and (HELP.intersection(args) or (needs_arguments and not args)):
                text = usage if isinstance(usage, str) else usage()
                print(text.strip(), file=sys.stdout if args else sys.stderr)
                code = 0 if args else 2
            else:
                code = main(args)
            sys.stdout.flush()  # before Python's exit, so that a full disk can be reported
        except UserError as error:
            code = _print_error(f"error: {error}", 2)
        except BrokenPipeError:
            code = _print_error(f"stopped, because {READER_ENDED}", PIPE_CLOSED)
        except OSError as error:
            where = error.filename or "the operating system"
            code = _print_error(f"error: {where}: {error.strerror or error}", 2)
        except KeyboardInterrupt:
            code = _print_error("stopped", 130)
    sys.exit(code)


def _print_error(sentence: str, code: int) -> int:
    """Print a sentence to stderr, and return the exit code.

    A stream that can no longer be written to is redirected to /dev/null. Otherwise Python would
    write the rest of its buffer at exit, and fail.
    """
    with contextlib.suppress(OSError):
        print(sentence, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def printable(text: str, kept: str = "\n\t") -> str:
    """Return `text` with escapes such as `\\x1b` for characters that are not printable."""
    return "".join(c if c.isprintable() or c in kept else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's replacement for a byte that is not UTF-8
        return f"\\x{code & 0xFF:02x}"
    return character.encode("unicode_escape").decode()


@contextlib.contextmanager
def _ignore_closed_terminal(stream: TextIO) -> Iterator[None]:
    """Discard output to a closed terminal, so that a launch that ignores SIGHUP continues."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO or not stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Screen:
    """A stream that writes only printable text to another stream, in the encoding of that one."""

    def __init__(self, stream: TextIO | None, kept: str):
        self.stream = stream or io.StringIO()  # a process may have been started without stdout
        self.kept = kept

    def write(self, text: str) -> int:
        text, encoding = printable(text, self.kept), self.stream.encoding or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            plain = text.translate(SPELLED)
            text = plain.encode(encoding, "backslashreplace").decode(encoding)
        with _ignore_closed_terminal(self.stream):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with _ignore_closed_terminal(self.stream):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def plain_output() -> Iterator[None]:
    """Escape all control characters in the text that is printed in this context.

    stderr keeps the carriage return, because progress bars of libraries need it.
    """
    stdout: Any = _Screen(sys.stdout, "\n\t")
    stderr: Any = _Screen(sys.stderr, "\n\t\r")
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        yield


def control(codes: str, stream: TextIO | None = None) -> None:
    """Write control codes to a terminal unescaped, such as those by which a command clears it."""
    screen = stream or sys.stdout
    terminal = getattr(screen, "stream", screen)
    with _ignore_closed_terminal(terminal):
        terminal.write(codes)
