"""Reads files that a user or another person wrote: texts, plain YAML, and tables by their names.

A file is read only if it is a regular file of limited length, in UTF-8. In YAML, tags, aliases and
repeated keys are refused. Values that YAML 1.1 does not read as most people mean them are refused
too: `4:00:00` is the number 14400 there, `010` is 8, and `no` is false.

A config names a table by its file name and the digest of its content, so that the folder is not
part of any identity. An environment variable has the paths of the tables that a process has read,
so that the processes and jobs that it starts find them.
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

TABLES = "HARNESS_TABLES"  # environment variable: paths, one a line
LONGEST, DEEPEST = 1 << 20, 16  # most bytes and nested levels of a grid or profile
_FORMATS = {
    b"PK\x03\x04": "an Excel file or another archive",
    b"\xd0\xcf\x11\xe0": "an Excel file of an old version",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
"""Formats that are not plain text, by the first bytes of a file."""
_BASE_60 = re.compile(r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?")
_LEADING_ZERO = re.compile(r"([-+]?)0(o?)([\d_]+)")
_BINARY = re.compile(r"[-+]?0b[01_]+")
_UNDERSCORES = re.compile(r"[-+]?\d[\d_]*_[\d_]*(\.[\d_]*)?|[-+]?(\d+\.\d*|\.\d+)_[\d_]*")
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([Tt ].*)?")
_READ_AS = (
    (_BASE_60, "a number in base 60"),
    (_LEADING_ZERO, "an octal number"),
    (_BINARY, "a binary number"),
)
_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def read_text(path: Path, what: str, longest: int = LONGEST) -> str:
    """Return the text of a regular file of `longest` bytes at most. Raises UserError.

    `what` names the file in messages: "grid file", "table". A device or a pipe is never read,
    because it could be endless.
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
        return data.decode("utf-8-sig")  # without the byte order mark that some editors write
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"the {what} {path} is not text in UTF-8 (line {number}): save it in that encoding"
        ) from error


def plain(text: str, where: str, longest: int = LONGEST, deepest: int = DEEPEST) -> object:
    """Return the plain values of a YAML text. Raises UserError.

    `where` names the file in messages. The text may have at most `longest` characters and `deepest`
    nested levels, because YAML's parser is slow for long or deeply nested texts.
    """
    import yaml

    if len(text) > longest:
        raise UserError(f"{where} is too long: at most {longest} characters are allowed.")
    depth = 0
    try:
        for event in yaml.parse(text):
            # a few nested aliases can expand to a value that fills the memory
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
                if node.style is None and (advice := _how_to_write(key, node.value)):
                    number = node.start_mark.line + 1
                    raise UserError(f"{where}, line {number}: {advice}.")
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
    """Yield the scalar nodes below a node, also the keys. Each comes with the key that it is under.

    Raises UserError if a mapping has a key twice. `where` names the file in the message.
    """
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
    """Return the plain number or boolean that a text such as 4:00:00 or yes stands for.

    The result is None for other texts. `key` is the key of the value: if it ends in `_min`, a time
    such as 4:00:00 is returned in minutes.
    """
    if _BASE_60.fullmatch(text):
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
    if _UNDERSCORES.fullmatch(text):
        return text.replace("_", "")
    return _BOOLEANS.get(text.lower())


def _how_to_write(key: str, text: str) -> str | None:
    """Return how to write an unquoted text that YAML 1.1 does not read as most people mean it.

    The result is None for other texts.
    """
    quoted = f'"{text}" in quotes'
    if (spelling := plain_spelling(key, text)) is not None:
        kinds = (kind for pattern, kind in _READ_AS if pattern.fullmatch(text))
        if (kind := next(kinds, _BOOLEANS.get(text.lower()))) is None:
            return f"write {spelling} instead of {text}, or {quoted}"
        return f"YAML reads {text} as {kind}: write {spelling}, or {quoted}"
    if _LEADING_ZERO.fullmatch(text):
        return f"YAML reads {text} as a text: write the decimal number, or {quoted}"
    if _DATE.fullmatch(text):
        return f"YAML reads {text} as a date: write {quoted}"
    return None


def table_files() -> list[Path]:
    """Return the paths of the tables that this process and the one that started it have read."""
    return [Path(line) for line in os.environ.get(TABLES, "").split("\n") if line]


def remember_tables(files: Iterable[Path]) -> None:
    """Let this process and those that it starts find these tables by their file names."""
    absolute = [file.absolute() for file in files]
    os.environ[TABLES] = "\n".join(map(str, dict.fromkeys([*absolute, *table_files()])))


def copy_tables(folder: Path, suffixes: tuple[str, ...]) -> None:
    """Copy the tables with one of the `suffixes`, for jobs that may run on other machines.

    Each copy is in a subfolder with a digest of its content, because two may have the same name.
    """
    for file in table_files():
        if file.suffix in suffixes and file.is_file():
            data = file.read_bytes()
            digest = hashlib.sha256(data).hexdigest()[:8]
            atomic_write(make_folder(folder / digest) / file.name, data)


def use_copies(folder: Path) -> None:
    """Let this process and those that it starts find the tables that `copy_tables` has copied."""
    remember_tables(sorted(folder.glob("*/*")))
