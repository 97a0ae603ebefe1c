"""Rows of somebody else: any file gets a sentence with the remedy, and no output runs anything."""

import csv
import gzip
import io
import os
import subprocess
import sys

import pandas as pd
import pytest

from analysis import checks, claims, commands, compare, figures, report, rows, rows_file, table
from analysis.latex import number_format
from harness.errors import UserError

FORMULAS = ("=cmd|'/c calc'!A0", "+SUM(A1)", "-2+3", "@x", "\t=1", "=1\r=2", "'=1", "\uff1d1")
VERBS = {"table": table, "claims": claims, "figures": figures, "report": report, "rows": rows}


def text_of(frame):
    return rows_file.csv(frame.assign(magnitude=frame["magnitude"].astype(str)))


FILES = {
    "utf16.csv": (lambda text: text.encode("utf-16"), "text in UTF-16: save it as 'CSV UTF-8'"),
    "unmarked.csv": (lambda text: text.encode("utf-16-le"), "not text in UTF-8: save it as"),
    "utf32.csv": (lambda text: text.encode("utf-32"), "text in UTF-16"),
    "latin.csv": (lambda text: text.replace("planted", "é").encode("latin-1"), "not text in UTF-8"),
    "book.xlsx": (lambda text: b"PK\x03\x04" + bytes(99), "Excel workbook or a zip archive: save"),
    "book.csv": (lambda text: b"\xd0\xcf\x11\xe0" + bytes(99), "is an Excel workbook: save the"),
    "rows.csv.gz": (lambda text: gzip.compress(text.encode()), "compressed by gzip: unpack it"),
    "empty.csv": (lambda text: b"", "is empty: write it again with"),
    "blank.csv": (lambda text: b"\n \n", "is empty: write it again with"),
    "text.parquet": (lambda text: text.encode(), "is not a Parquet file"),
    "half.parquet": (lambda text: b"PAR1" + bytes(99), "cannot be read as rows"),
    "other.csv": (lambda text: b"a,b\n1,2\n", "has none of the columns state, magnitude, seed"),
    "twice.csv": (lambda text: text.replace("width", "seed", 1).encode(), "remove or rename one"),
    "digits.csv": (lambda text: text.replace(",0.2,", ",٠.٢,").encode(), "magnitude: '٠.٢' is"),
    "seeds.csv": (lambda text: text.replace(",0.2,1,", ",0.2,١,").encode(), "'١' is not a number"),
    "score.csv": (lambda text: text.replace(",0.2,1,", ",0.2_0,1,").encode(), "'0.2_0' is neither"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_rows_gets_one_sentence_with_the_remedy(planted, tmp_path, name):
    content, sentence = FILES[name]
    (tmp_path / name).write_bytes(content(text_of(planted())))
    with pytest.raises(UserError) as caught:
        commands.load([], [tmp_path / name])
    assert sentence in str(caught.value)
    assert name in str(caught.value)
    assert "codec" not in str(caught.value)
    with pytest.raises(UserError, match=r"is a folder: name the file in it, such as .*rows\.csv"):
        commands.load([], [tmp_path])


def test_lists_of_a_parquet_file_are_read_as_texts_and_bytes_are_not_a_state(planted, tmp_path):
    path = tmp_path / "rows.parquet"
    frame = planted().assign(magnitude="none")
    frame.assign(**{"compress.levels": [[0.5, 0.6]] * len(frame)}).to_parquet(path)
    assert set(commands.load([], [path])["compress.levels"]) == {"[0.5, 0.6]"}
    frame.assign(state=b"\xff").to_parquet(path)
    with pytest.raises(UserError, match=r"state .* is not known"):
        commands.load([], [path])


@pytest.mark.parametrize("column", ["seed", "val_top1", "params_nonzero"])
def test_lists_in_the_place_of_numbers_get_one_sentence(planted, tmp_path, column):
    frame = planted().assign(magnitude="none")
    frame[column] = [[0.1, 0.2]] * len(frame)
    frame.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=f"{column}: .* is not a number"):
        commands.load([], [tmp_path / "rows.parquet"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("marked.csv", lambda text: b"\xef\xbb\xbf" + text.encode()),
        ("semicolons.csv", lambda text: text.replace(",", ";").encode()),
        ("tabs.txt", lambda text: text.replace(",", "\t").encode()),
        ("dos.csv", lambda text: text.replace("\n", "\r\n").encode()),
    ],
)
def test_what_spreadsheets_write_is_read(planted, tmp_path, name, content):
    (tmp_path / name).write_bytes(content(text_of(planted())))
    (tmp_path / "rows.csv").write_text(text_of(planted()))
    again = commands.load([], [tmp_path / name])
    pd.testing.assert_frame_equal(again, commands.load([], [tmp_path / "rows.csv"]))


def test_decimal_commas_are_read_where_semicolons_separate(planted, tmp_path):
    frame = planted().drop(columns="trial")
    text = text_of(frame).replace(",", ";").replace(".", ",")
    (tmp_path / "rows.csv").write_text(text)
    read = commands.load([], [tmp_path / "rows.csv"])
    for column in ("width", "magnitude", "val_top1", "params_nonzero"):
        assert list(read[column]) == list(frame[column])


def test_the_content_of_a_file_counts_and_not_its_name(planted, tmp_path):
    rows_file.write(planted(), tmp_path)
    (tmp_path / "rows.parquet").rename(tmp_path / "copy.csv")
    assert len(commands.load([], [tmp_path / "copy.csv"])) == 24


def test_a_spreadsheet_runs_no_cell_and_the_rows_come_back(planted, tmp_path):
    frame = planted({1.0: [0.8] * 8}, magnitudes=[0.1 * at for at in range(8)], seeds=1)
    frame = frame.assign(policy=FORMULAS, change=-0.5, **{"=header": [f"-{n}" for n in range(8)]})
    frame = frame.assign(note=["-1e-3", "+2", "-", "a=b", "0.5", "none", "x", "-0.1"])
    frame = checks.check(frame, "FILE")
    rows_file.write(frame, tmp_path)
    with (tmp_path / "rows.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    for row, note in zip(written, frame["note"], strict=True):
        assert row["policy"].startswith("'")
        assert row["note"] == note  # numbers and dashes stay as they are
        assert row["change"] == "-0.5"
        assert "'=header" in row
    for path in (tmp_path / "rows.csv", tmp_path / "rows.parquet"):
        again = commands.load([], [path])
        assert list(again["policy"]) == list(frame["policy"]), path
        assert list(again["=header"].astype(float)) == [-float(n) for n in range(8)]
        assert list(again["val_top1"]) == list(frame["val_top1"])
    printed = csv.reader(io.StringIO(commands.show(table_by_policy(frame), "csv")))
    cells = [cell for row in printed for cell in row]
    assert sum(cell.startswith("'") for cell in cells) == len(FORMULAS)
    assert not any(rows_file.FORMULA.match(c) and not rows_file.NUMBER.fullmatch(c)
                   for c in cells if not c.startswith("'"))  # fmt: skip


def table_by_policy(frame):
    return table.best_table(table.best_per_size(frame, ["policy"]), [])


def test_no_format_passes_on_what_a_terminal_obeys(planted):
    frame = checks.check(planted(family="a\x1b[31m\u202eb\nc"), "FILE")
    shown = table.best_table(table.best_per_size(frame, ["family", "width"]), ["n\x1b]0;t\x07"])
    for form in commands.FORMATS:
        text = commands.show(shown, form)
        assert all(c.isprintable() or c == "\n" for c in text), form


def test_digits_of_other_scripts_are_not_numbers():
    assert number_format(["٣.٤", "0.5"]) is None
    assert number_format(["+٣"]) is None


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_checks_its_words_before_anything_else(planted, tmp_path, verb):
    rows_file.write(planted(), tmp_path)
    source = f"rows={tmp_path}/rows.csv"
    out = [f"out={tmp_path}/out"] if verb == "report" else []
    for words, sentence in (
        ([source, "wehre=width<1"], "there is no option 'wehre' (did you mean 'where'?)"),
        (["gird=quickstart"], "there is no option 'gird' (did you mean 'grid'?)"),
        (["grid=quickstart", "wehre=width<1"], "'wehre' (did you mean 'where'?)"),
        ([source, "rows=b.csv"], "rows is given twice"),
        ([source, "where=width > 100"], "leaves none of the 24 rows; width: 0.5, 2"),
        ([source, "where=model.width > 100"], "leaves none of the 24 rows; model.width: 0.5, 2"),
    ):
        with pytest.raises(UserError) as caught:
            VERBS[verb].main([*words, *out])
        assert sentence in str(caught.value)


@pytest.mark.parametrize("verb", ["table", "figures", "report", "rows"])
def test_a_verb_that_cannot_write_says_so_before_it_computes(planted, tmp_path, capsys, verb):
    rows_file.write(planted(), tmp_path)
    (tmp_path / "file").write_text("")
    for out in (f"{tmp_path}/file", f"{tmp_path}/file/below", "/proc/here"):
        with pytest.raises(UserError) as caught:
            VERBS[verb].main([f"rows={tmp_path}/rows.csv", f"out={out}"])
        assert str(caught.value).startswith(f"out={out}: cannot write into")
        assert "store=" not in str(caught.value)
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="leaves none"):
        VERBS[verb].main([f"rows={tmp_path}/rows.csv", f"out={tmp_path}/new", "where=width > 9"])
    assert not (tmp_path / "new").exists()


def test_keys_of_a_grid_are_names_of_columns_in_every_verb(planted, tmp_path, capsys):
    rows_file.write(planted(), tmp_path)
    source = [f"rows={tmp_path}/rows.csv", "by=model.width", "where=model.width < 1"]
    for verb, words in ((table, []), (claims, []), (compare, [f"with={tmp_path}/rows.csv"])):
        assert verb.main([*source, *words]) == 0
    assert "no column" not in capsys.readouterr().out


def test_conditions_on_lists_select_rows(planted, tmp_path):
    frame = planted()
    frame["compress.levels"] = [[0.6] if width < 1 else [0.6, 0.8] for width in frame["width"]]
    rows_file.write(checks.check(frame, "FILE"), tmp_path)
    for path in (tmp_path / "rows.csv", tmp_path / "rows.parquet"):
        kept = commands.selected(commands.load([], [path]), "compress.levels == [0.6]")
        assert set(kept["width"]) == {0.5}


def test_a_loss_that_is_not_finite_is_never_averaged(planted):
    frame = planted(val_loss=0.3, test_loss=0.4)
    frame.loc[3, "val_loss"] = float("nan")
    with pytest.raises(UserError, match=r"1 rows are done .* no finite number .* 'val_loss'"):
        table.best_per_size(frame, metric=commands.METRICS["loss"])
    for column, value in (("val_loss", -0.1), ("seed", 0.5), ("sparsity_achieved", 1.5)):
        with pytest.raises(UserError, match=f"{column}: {value} is"):
            checks.check(planted().assign(**{column: value}), "FILE")


def test_minus_zero_is_zero(planted):
    frame = planted().astype({"magnitude": str})
    frame["magnitude"] = frame["magnitude"].replace("0.2", "-0.0")
    assert [repr(m) for m in checks.check(frame, "FILE")["magnitude"].unique()][1] == "0.0"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_tables_are_printed_in_any_encoding(planted, tmp_path, encoding):
    frame = planted()
    rows_file.write(frame.assign(family=["猫é", "b"] * (len(frame) // 2)), tmp_path)
    for verb, form in (("table", "screen"), ("claims", "latex"), ("table", "csv"), ("rows", "")):
        words = [f"rows={tmp_path}/rows.csv", *([f"format={form}"] if form else [])]
        process = subprocess.run(
            [sys.executable, "-W", "error", "-m", f"analysis.{verb}", *words],
            env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, timeout=300,
            check=False,
        )  # fmt: skip
        assert (process.returncode, process.stderr) == (0, b"")
        text = process.stdout.decode(encoding)
        assert ("Not tested" if verb == "claims" else "0.5") in text
        assert "猫" in text or "\\u732b" in text or verb == "claims"
