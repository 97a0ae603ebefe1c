"""CSV and Parquet files of rows: what is in a file, not its name, says which of them it is.

A spreadsheet runs a cell that begins with `=`, `+`, `-` or `@` as a formula. Such texts get an
apostrophe in CSV, which shows a spreadsheet that they are text; reading takes it away again.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.columns import TEXT
from harness.errors import UserError
from harness.files import atomic_write, make_folder

FORMULA = re.compile(r"'*[=+\-@\t\r\uFF1D\uFF0B\uFF0D\uFF20]")  # also the full-width signs
NUMBER = re.compile(r"-|[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
UTF_8 = "save it as 'CSV UTF-8', or convert it with iconv -f ENCODING -t utf-8"
UTF_16 = f"text in UTF-16: {UTF_8.replace('ENCODING', 'utf-16')}"
FOREIGN = {
    b"PK\x03\x04": "an Excel workbook or a zip archive: save the sheet as 'CSV UTF-8'",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save the sheet as 'CSV UTF-8'",
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"BZh": "compressed by bzip2: unpack it",
    b"\xfd7zXZ": "compressed by xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it",
}
"""The first bytes of files that are often taken for CSV, and what to do about them."""


def without_formulas(cell: Any) -> Any:
    """Return a cell of a CSV file; a text that a spreadsheet would run gets an apostrophe."""
    if isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _as_written(cell: Any) -> Any:
    """Return the text to which `without_formulas` added an apostrophe."""
    return cell[1:] if isinstance(cell, str) and FORMULA.match(cell) and cell[0] == "'" else cell


def read(path: Path) -> pd.DataFrame:
    """Return a CSV or Parquet file as a frame that has not been checked yet."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the file in it, such as {path / 'rows.csv'}")
    if not path.is_file():
        raise UserError(f"there is no rows file {path}: check the path (from {Path.cwd()})")
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
        if head.startswith(b"PAR1"):
            return pd.read_parquet(path)
        _check_is_csv(path, head)
        return _read_csv(path, head)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: {UTF_8}") from error
    except (ValueError, OSError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be read as rows: {' '.join(str(error).split())}") from error


def _check_is_csv(path: Path, head: bytes) -> None:
    """Raise UserError with the remedy if the first bytes of a file are not those of a CSV file."""
    if not head.strip():
        raise UserError(f"{path} is empty: write it again with python -m analysis.rows out=FOLDER")
    for start, what in FOREIGN.items():
        if head.startswith(start):
            raise UserError(f"{path} is {what}")
    if path.suffix.lower() == ".parquet":
        raise UserError(f"{path} is not a Parquet file, or only the beginning of one")
    if b"\0" in head:
        raise UserError(f"{path} has bytes that are not text in UTF-8: {UTF_8}")


def _read_csv(path: Path, head: bytes) -> pd.DataFrame:
    header = head.partition(b"\n")[0]
    separator = max((b",", b";", b"\t"), key=lambda mark: header.count(mark))
    # where a comma is the decimal point, as spreadsheets write it in much of Europe
    has_commas = re.search(rb"[;\t]0,\d+[;\t\r\n]", head) and separator != b","
    types = dict.fromkeys(TEXT, str)
    frame = pd.read_csv(path, sep=separator.decode(), decimal="," if has_commas else ".",
                        dtype=types, low_memory=False, compression=None)  # fmt: skip
    if not isinstance(frame.index, pd.RangeIndex):  # pandas made an index of surplus cells
        raise ValueError("its lines have more cells than its header")
    frame = frame.rename(columns=_as_written)
    if has_commas and "magnitude" in frame:
        frame["magnitude"] = frame["magnitude"].str.replace(",", ".", regex=False)
    for name in frame.select_dtypes(["object", "str"]):
        if frame[name].astype("str").str.startswith("'").any():
            frame[name] = frame[name].map(_as_written)
    return frame


def csv(frame: pd.DataFrame) -> str:
    """Return the rows as CSV; `read` gives the same rows back."""
    frame = frame.copy()
    for name in frame.select_dtypes(["object", "str"]):
        if any(without_formulas(cell) is not cell for cell in frame[name].unique()):
            frame[name] = frame[name].map(without_formulas)
    return str(frame.rename(columns=without_formulas).to_csv(index=False))


def write(frame: pd.DataFrame, folder: Path, name: str = "rows") -> list[Path]:
    """Write `rows.csv` and `rows.parquet` into `folder`, each atomically; return their paths."""
    make_folder(folder)
    if "magnitude" in frame.columns:
        frame = frame.assign(magnitude=frame["magnitude"].astype(str))
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    paths = [folder / f"{name}.csv", folder / f"{name}.parquet"]
    atomic_write(paths[0], csv(frame).encode())
    atomic_write(paths[1], buffer.getvalue())
    return paths
