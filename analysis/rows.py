"""Rows, one per trial, from a sweep's store or from files: checked, selected, written or printed.

python -m analysis.rows grid=quickstart out=out/quickstart      # rows.csv and rows.parquet
python -m analysis.rows rows=a.csv,b.parquet where="state == 'done'"
"""

from __future__ import annotations

import sys

from analysis import rows_file
from analysis.columns import COLUMNS
from analysis.commands import ROW_OPTIONS, output_folder, read_request
from harness.arguments import Option
from harness.errors import command

OPTIONS = {"rows": ROW_OPTIONS["rows"], "where": ROW_OPTIONS["where"], "out": Option()}


def usage() -> str:
    """Return the help text: the command and every column."""
    columns = [f"  {name:<22} {meaning}" for name, meaning in COLUMNS.items()]
    return "\n".join([str(__doc__), *columns])


def main(args: list[str]) -> int:
    """Write the rows into `out`, or print them as CSV."""
    request = read_request(args, OPTIONS)
    if request.options["out"] is None:
        sys.stdout.write(rows_file.csv(request.frame))
        return 0
    for path in rows_file.write(request.frame, output_folder(request.options["out"])):
        print(path)
    return 0


if __name__ == "__main__":
    command(main, usage)
