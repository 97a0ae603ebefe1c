"""What commands print, on outputs of any encoding, and how they end when an output is closed."""

import io
import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from harness.errors import UserError, command, plain_output
from harness.files import atomic_write
from harness.paths import ROOT

NAME = "caf\udce9 \x1b[31m \x9b \u202e"  # a byte that is not UTF-8, and what terminals obey
SHOWN = r"caf\xe9 \x1b[31m \x9b \u202e"
BODY = """
from harness.errors import UserError, command
def main(args):
    print({text!r})
    if args[0] == "fail":
        raise UserError({text!r})
    for number in range(int(args[0])):
        print(number)
    return 0
command(main)
"""


def run(word: str, text: str = NAME, encoding: str = "utf-8", **streams) -> CompletedProcess:
    """Run a command that prints `text`, in a Python without packages."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run(
        [sys.executable, "-S", "-c", BODY.format(text=text), word],
        cwd=ROOT, env={"PYTHONIOENCODING": encoding}, timeout=300, check=False, **streams,
    )  # fmt: skip


@pytest.fixture
def closed_pipe():
    """The writing end of a pipe whose reader has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", rb"+/- <= \xe9 \u732b"),
        ("latin-1", "+/- <= é \\u732b".encode("latin-1")),
        ("utf-8", "± ≤ é 猫".encode()),
    ],
)
def test_every_encoding_prints_every_text(encoding, shown):
    for word, code in (("0", 0), ("fail", 2)):
        ended = run(word, f"{NAME} ± ≤ é 猫", encoding)
        assert ended.returncode == code
        assert ended.stdout == SHOWN.encode() + b" " + shown + b"\n"
    assert ended.stderr == b"error: " + ended.stdout


def test_a_reader_that_ends_early_ends_the_command_with_a_sentence_and_the_code_of_sigpipe(
    closed_pipe,
):
    for count in ("10", "100000"):  # fewer bytes than the buffer has, and more
        ended = run(count, stdout=closed_pipe)
        assert ended.returncode == 141
        assert ended.stderr.startswith(b"stopped, because the reader of the output has ended")
        assert len(ended.stderr.splitlines()) == 1
        assert run(count, stdout=closed_pipe, stderr=closed_pipe).returncode == 141


def test_a_command_goes_on_when_its_terminal_is_closed():
    ours, terminal = os.openpty()
    body = """
from harness.errors import command, control
def main(args):
    print("begun", flush=True)
    input()
    for _ in range(3):
        control("\\r")
        print("more", flush=True)
    return 7
command(main)
"""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", body, "x"], cwd=ROOT, stdin=subprocess.PIPE, stdout=terminal,
        stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    assert os.read(ours, 5) == b"begun"
    os.close(ours)
    process.communicate(b"\n", timeout=300)
    assert process.returncode == 7


def test_an_output_that_cannot_be_written_is_an_error_and_a_missing_one_is_not():
    with Path("/dev/full").open("wb") as full:
        ended = run("10", stdout=full)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert b"No space left" in ended.stderr
    without = ["sh", "-c", '"$0" -S -c "$1" 10 >&- 2>&-', sys.executable, BODY.format(text=NAME)]
    assert subprocess.run(without, cwd=ROOT, timeout=300, check=False).returncode == 0


def test_what_was_printed_before_an_error_of_the_system_is_kept(capsys, monkeypatch):
    def main(args):
        print("before")
        raise FileNotFoundError(2, "No such file", "there")

    monkeypatch.setattr(sys, "argv", ["x", "y"])
    with pytest.raises(SystemExit) as ended:
        command(main)
    assert ended.value.code == 2
    assert capsys.readouterr() == ("before\n", "error: there: No such file\n")


def test_progress_bars_on_stderr_may_return_to_the_beginning_of_the_line(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with plain_output():
        print("\r50 %\x1b[A", end="", file=sys.stderr)
    assert sys.stderr.getvalue() == "\r50 %\\x1b[A"


SMALL_DISK = """
mount -t tmpfs -o size=1m,nr_inodes=2 tmpfs {folder} && exec {python} -c "
from pathlib import Path
from harness.files import atomic_write
for name in ('one', 'two'):
    atomic_write(Path('{folder}') / name, b'x')
"
"""


def test_a_disk_without_inodes_is_not_called_full(tmp_path):
    script = SMALL_DISK.format(folder=tmp_path, python=sys.executable)
    ended = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    last_line = ended.stderr.splitlines()[-1]
    assert "no inode left" in last_line
    assert "full" not in last_line


def test_a_folder_that_cannot_be_written_is_not_always_the_store():
    with pytest.raises(UserError, match="choose another folder") as caught:
        atomic_write(ROOT / "README.md" / "x", b"")
    assert "store" not in str(caught.value)
