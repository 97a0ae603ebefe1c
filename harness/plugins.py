"""Plug-ins: Python files outside the package that add methods, forms of surplus, families or ops.

    HARNESS_PLUGINS=mine.py:~/lab/forms.py python -m harness.launch grid=mine.yaml

The environment variable lists the files, separated as in PATH; relative paths start at the current
directory. A file registers what it adds while it is imported, for example with
`harness.compress.register_method`. Every registry imports the files before it looks up a name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from harness.errors import UserError, closest, nearest

PLUGINS = "HARNESS_PLUGINS"
T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    """A plug-in file that this process has imported, its module, and its content's SHA-256."""

    path: Path
    module: str
    sha256: str


_imported: dict[Path, Plugin] = {}


def plugin_files() -> list[Path]:
    """Return the absolute paths of the files that `HARNESS_PLUGINS` lists, each once."""
    words = os.environ.get(PLUGINS, "").split(os.pathsep)
    return list(dict.fromkeys(Path(word).expanduser().absolute() for word in words if word))


def set_plugin_files(files: Iterable[Path]) -> None:
    """Make `files` the plug-ins of this process and of the processes that it starts."""
    os.environ[PLUGINS] = os.pathsep.join(map(str, files))


def load_plugins() -> list[Plugin]:
    """Import the plug-in files that this process has not imported yet, and return all of them.

    Raises:
        UserError: a file is missing, is not Python, or fails while it is imported.
    """
    for path in plugin_files():
        if path not in _imported:
            _import(path)
    return [_imported[path] for path in plugin_files()]


def _import(path: Path) -> None:
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise UserError(f"{PLUGINS}: {path} {reason}; correct the path or remove it") from error
    if any("\ud800" <= character <= "\udfff" for character in path.name):
        raise UserError(f"{PLUGINS}: {path} has a name that is not UTF-8; rename the file")
    name = f"harness_plugin_{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{PLUGINS}: {path} is not a Python file; give it a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    # Both are set before the import: dataclasses and pydantic look up a class's module by its name,
    # and a registry that the file itself uses must not import the file again.
    sys.modules[name] = module
    _imported[path] = Plugin(path, name, sha256)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        del sys.modules[name], _imported[path]
        raise UserError(f"{PLUGINS}: {path} {_reason(error, path)}; correct the file or remove it "
                        "from the variable") from error  # fmt: skip


def _reason(error: Exception, path: Path) -> str:
    """Describe why the import of a plug-in failed, and at which line of the file."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    where = f" at line {lines[-1]}" if lines and lines[-1] else ""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"failed{where} ({kind}{str(error).rstrip('.')})"


class Registry(Generic[T]):
    """The items of one kind by name: the shipped ones, and those that plug-in files register."""

    def __init__(self, kind: str):
        """`kind` names an item in messages: "method", "family"."""
        self.kind = kind
        self.items: dict[str, T] = {}

    def register(self, name: str, item: T) -> None:
        """Add an item. Raises UserError if the name is taken."""
        if name in self.items:
            raise UserError(f"there is a {self.kind} '{name}' already; choose another name")
        self.items[name] = item

    def names(self) -> list[str]:
        """Return the names of all items, sorted."""
        load_plugins()
        return sorted(self.items)

    def get(self, name: str) -> T:
        """Return the item of that name. Raises UserError if there is none."""
        load_plugins()
        if name not in self.items:
            message = f"there is no {self.kind} '{name}'{nearest(name, self.items)}"
            if closest(name, self.items) is None:
                message += f"; list the file of a plug-in in {PLUGINS}"
            raise UserError(message)
        return self.items[name]
