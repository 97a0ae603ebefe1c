"""docs/keys.md names every key, and is not stale."""

import re
import runpy
from pathlib import Path

from harness.sweep.axes import PATHS, SHORT

DOCS = Path(__file__).parents[2] / "docs"
ROW = re.compile(r"\| `([\w.\[\]]+)`[^|]*\| ([^|]*) \| ([^|]*) \| (.*) \|")


def test_the_page_of_keys_is_what_its_script_writes():
    page = runpy.run_path(str(DOCS / "make_keys.py"))["page"]()
    assert (DOCS / "keys.md").read_text() == page, "run: python docs/make_keys.py"


def test_every_key_has_a_type_a_default_and_a_sentence():
    rows = [match.groups() for match in map(ROW.fullmatch, page_lines()) if match]
    names = {name for name, *_ in rows}
    assert names >= PATHS
    assert names >= set(SHORT.values())
    for row in rows:
        assert all(cell.strip() for cell in row), row


def page_lines():
    return (DOCS / "keys.md").read_text().splitlines()
