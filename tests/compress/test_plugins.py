"""Plug-ins: files outside the package add methods, forms, families and ops by their own names."""

import sys

import pytest

from harness import plugins
from harness.errors import UserError
from harness.plugins import PLUGINS, Registry, load_plugins


@pytest.fixture
def shelf(monkeypatch):
    """A registry that a plug-in file of a test can import; plug-ins are forgotten afterwards."""
    before = dict(plugins._imported)
    registry = Registry("shelf")
    monkeypatch.setattr(plugins, "SHELF", registry, raising=False)
    yield registry
    for path in plugins._imported.keys() - before.keys():
        del plugins._imported[path]


ADDS = "from harness.plugins import SHELF\nSHELF.register({!r}, {!r})\n"


def test_files_are_imported_once_before_a_name_is_looked_up(shelf, tmp_path, monkeypatch):
    (tmp_path / "one.py").write_text(ADDS.format("one", 1))
    (tmp_path / "two.py").write_text(ADDS.format("two", 2))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PLUGINS, f"one.py:{tmp_path / 'two.py'}:one.py")
    assert shelf.names() == ["one", "two"]
    assert shelf.get("two") == 2  # a second import would register the names again
    one, two = load_plugins()
    assert (one.path, two.path) == (tmp_path / "one.py", tmp_path / "two.py")
    assert one.sha256 != two.sha256
    with pytest.raises(UserError, match=r"no shelf 'on' \(did you mean 'one'\?\)"):
        shelf.get("on")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "gone.py",
            None,
            r"gone.py cannot be read \(No such file or directory\); correct the path",
        ),
        ("text.txt", "x", r"text.txt is not a Python file"),
        ("bad.py", "x = 1\ny = x +\n", r"bad.py failed at line 2 \(SyntaxError: invalid syntax"),
        ("raises.py", "\n\n1 / 0", r"raises.py failed at line 3 \(ZeroDivisionError: division by"),
        ("lacks.py", "import nosuchmodule", r"lacks.py failed at line 1 \(ModuleNotFoundError"),
        ("taken.py", ADDS.format("a", 1) * 2, r"line 4 \(there is a shelf 'a' already; choose"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_the_reason(
    shelf, tmp_path, monkeypatch, name, text, message
):
    if text is not None:
        (tmp_path / name).write_text(text)
    monkeypatch.setenv(PLUGINS, str(tmp_path / name))
    with pytest.raises(UserError, match=message) as caught:
        shelf.names()
    assert str(caught.value).startswith(f"{PLUGINS}: {tmp_path / name} ")
    assert not any(module.startswith(f"harness_plugin_{name[:-3]}_") for module in sys.modules)
