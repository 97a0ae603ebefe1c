"""Which code trained a stage: the commit and the hash of the source files."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ASK = "from harness.store.provenance import commit, code_version; print(commit(), code_version())"


def test_new_files_are_changes_of_the_code_and_other_files_are_not(tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "harness", checkout / "harness")

    def git(*words):
        who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        subprocess.run(["git", *who, *words], cwd=checkout, check=True, capture_output=True)

    def commit_and_code():
        ask = [sys.executable, "-B", "-c", ASK]
        return subprocess.run(
            ask, cwd=checkout, check=True, capture_output=True, text=True
        ).stdout.split()

    (checkout / ".gitignore").write_text("__pycache__\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    clean, code = commit_and_code()
    assert "+" not in clean
    (checkout / "notes.txt").write_text("not code")
    assert commit_and_code() == [clean, code]
    (checkout / "harness" / "new.py").write_text("x = 1\n")
    changed, other = commit_and_code()
    assert changed == clean + "+changes"
    assert other != code
    git("add", ".")
    assert commit_and_code() == [changed, other]
