"""Reads files that a user or another person wrote: texts, plain YAML, and tables by their names.

A file is read only if it is a regular file of limited length, in UTF-8. In YAML, tags, aliases and
repeated keys are refused, and so are values that YAML 1.1 does not read as most people mean them:
`4:00:00` is the number 14400 there, `010` is 8, and `no` is false.

A config names a table by its file name and the digest of its content, so that the folder is not
part of any identity. Where the tables lie that a process has read is kept in an environment
variable, for the processes and jobs that it starts.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import atomic_write, make_folder

TABLES = "HARNESS_TABLES"
LONGEST, DEEPEST = 1 << 20, 16  # bytes and nested levels of a grid, or of a profile
_FORMATS = {
    b"PK\x03\x04": "an Excel file or another archive",
    b"\xd0\xcf\x11\xe0": "an Excel file of an old version",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
"""What a file is whose first bytes are these."""
_SIXTIES = re.compile(r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?")
_LEADING_ZERO = re.compile(r"([-+]?)0(o?)([\d_]+)")
_BINARY = re.compile(r"[-+]?0b[01_]+")
_UNDERSCORES = re.compile(r"[-+]?\d[\d_]*_[\d_]*(\.[\d_]*)?|[-+]?(\d+\.\d*|\.\d+)_[\d_]*")
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([Tt ].*)?")
_READ_AS = (
    (_SIXTIES, "a number in base 60"),
    (_LEADING_ZERO, "an octal number"),
    (_BINARY, "a binary number"),
)
_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def read_text(path: Path, what: str, longest: int = LONGEST) -> str:
    """Return the text of a regular file of `longest` bytes at most. Raises UserError.

    `what` names the file in messages: "grid file", "table". A device or a pipe could be endless,
    and is never read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError(f"the {what} {path} is not a regular file: give the path of one")
            data = file.read(longest + 1)
    except FileNotFoundError as error:
        where = "" if path.is_absolute() else f" (from {Path.cwd()})"
        raise UserError(f"there is no {what} {path}{where}: check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"the {what} {path} cannot be read: {reason}") from error
    if len(data) > longest:
        raise UserError(f"the {what} {path} is too long: at most {longest:,} bytes are allowed")
    for beginning, name in _FORMATS.items():
        if data.startswith(beginning):
            raise UserError(f"the {what} {path} is {name}: save it as text in UTF-8")
    try:
        return data.decode("utf-8-sig")  # without the mark that some editors put at the beginning
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"the {what} {path} is not text in UTF-8 (line {number}): save it in that encoding"
        ) from error


def plain(text: str, where: str, longest: int = LONGEST, deepest: int = DEEPEST) -> object:
    """Return the plain values of a YAML text. Raises UserError.

    `where` names the file in messages. The text may have at most `longest` characters and `deepest`
    nested levels, because YAML's parser is slow for long and for deeply nested texts.
    """
    import yaml

    if len(text) > longest:
        raise UserError(f"{where} is too long: at most {longest} characters are allowed.")
    depth = 0
    try:
        for event in yaml.parse(text):
            # nested aliases can expand to a value that fills the memory
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{where} uses YAML aliases: write the values out.")
            if (tag := getattr(event, "tag", None)) is not None:
                raise UserError(f"{where} uses the YAML tag {tag}: write plain values.")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > deepest:
                raise UserError(
                    f"{where} is nested {depth} levels deep: at most {deepest} are allowed."
                )
        if (root := yaml.compose(text)) is not None:
            for key, node in _scalars(root, where):
                if node.style is None and (meant := _what_was_meant(key, node.value)):
                    number = node.start_mark.line + 1
                    raise UserError(f"{where}, line {number}: {meant}.")
        return yaml.load(text, Loader=_loader())
    except (yaml.YAMLError, ValueError) as error:  # a date or number that Python refuses
        reason = " ".join(str(error).split()).replace("<unicode string>", "it")
        raise UserError(f"{where} is not plain YAML: {reason}.") from error


@functools.cache
def _loader() -> Any:
    """Return the safe loader of YAML, which also reads 1e-3 as a number, as YAML 1.2 does."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
    return Loader


def _scalars(node: Any, where: str, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the scalar nodes below a node, keys included, each with the key that it belongs to."""
    if node.id == "scalar":
        yield key, node
    elif node.id == "sequence":
        for item in node.value:
            yield from _scalars(item, where, key)
    else:
        seen: set[str] = set()
        for name, value in node.value:
            if name.id == "scalar":
                if name.value in seen:
                    raise UserError(f"{where} has the key '{name.value}' twice: leave one out.")
                seen.add(name.value)
            yield from _scalars(name, where)
            yield from _scalars(value, where, str(name.value))


def plain_spelling(key: str, text: str) -> str | None:
    """Return the number or boolean, plainly written, that a text such as 4:00:00 or yes stands for.

    None for other texts. `key` is the value's: hours of a key that ends in `_min` become minutes.
    """
    if _SIXTIES.fullmatch(text):
        parts = [float(part) for part in text.replace("_", "").lstrip("+-").split(":")]
        value = 0.0
        for part in parts:
            value = value * 60 + part
        is_time = key.endswith("_min") and len(parts) == 3  # hours, minutes, seconds
        sign = "-" if text.startswith("-") else ""
        return sign + (f"{value / 60:.10g}" if is_time else f"{value:.10g}")
    if match := _LEADING_ZERO.fullmatch(text):
        sign, octal, digits = match.groups()
        return None if octal else sign + (digits.replace("_", "").lstrip("0") or "0")
    if _BINARY.fullmatch(text):
        return str(int(text.replace("_", ""), 2))
    return text.replace("_", "") if _UNDERSCORES.fullmatch(text) else _WORDS.get(text.lower())


def _what_was_meant(key: str, text: str) -> str | None:
    """Return how to write an unquoted text that YAML 1.1 reads otherwise than most people."""
    quoted = f'"{text}" in quotes'
    if (spelling := plain_spelling(key, text)) is not None:
        kinds = (kind for pattern, kind in _READ_AS if pattern.fullmatch(text))
        if (kind := next(kinds, _WORDS.get(text.lower()))) is None:
            return f"write {spelling} instead of {text}, or {quoted}"
        return f"YAML reads {text} as {kind}: write {spelling}, or {quoted}"
    if _LEADING_ZERO.fullmatch(text):
        return f"YAML reads {text} as a text: write the decimal number, or {quoted}"
    return f"YAML reads {text} as a date: write {quoted}" if _DATE.fullmatch(text) else None


def table_files() -> list[Path]:
    """Return the tables that this process, or the one that started it, has read."""
    return [Path(word) for word in os.environ.get(TABLES, "").split("\n") if word]


def remember_tables(files: Iterable[Path]) -> None:
    """Let this process, and those that it starts, find these tables by their file names."""
    absolute = [file.absolute() for file in files]
    os.environ[TABLES] = "\n".join(map(str, dict.fromkeys([*absolute, *table_files()])))


def copy_tables(folder: Path, suffixes: tuple[str, ...]) -> None:
    """Copy the tables with one of the `suffixes`, for jobs that may run on other machines."""
    for file in table_files():
        if file.suffix in suffixes and file.is_file():
            data = file.read_bytes()
            digest = hashlib.sha256(data).hexdigest()[:8]
            atomic_write(make_folder(folder / digest) / file.name, data)


def use_copies(folder: Path) -> None:
    """Let this process, and those that it starts, find the tables of `copy_tables`."""
    remember_tables(sorted(folder.glob("*/*")))
