"""The copy of the code that jobs run."""

import json
import subprocess
import sys

from harness.cluster import launch_folder
from harness.cluster.launch_folder import take_snapshot
from harness.paths import ROOT
from harness.store.provenance import code_version


def test_jobs_find_the_shipped_spaces_and_grids_in_their_copy(tmp_path):
    code = take_snapshot(tmp_path)
    names = sorted(path.stem for path in (ROOT / "grids" / "spaces").glob("*"))
    assert names
    program = (
        "import sys, harness.paths, harness.augment\n"
        "for name in sys.argv[1:]: harness.augment.parse_policy(f'{name}(n=2, m=0.3)')\n"
        "print(harness.paths.GRIDS)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program, *names],
        cwd=tmp_path, env={"PYTHONPATH": str(code)},
        capture_output=True, text=True, check=True, timeout=300,
    ).stdout  # fmt: skip
    assert output.strip() == str(code / "grids")
    assert json.loads((code / "snapshot.json").read_text())["code"] == code_version()


def test_the_copy_of_a_read_only_checkout_can_be_removed(tmp_path, monkeypatch):
    source = tmp_path / "checkout/harness/deep"
    source.mkdir(parents=True)
    (source / "file.py").touch(0o444)
    for folder in (source, source.parent):
        folder.chmod(0o555)
    monkeypatch.setattr(launch_folder, "SOURCE", source.parent)
    code = launch_folder.take_snapshot(tmp_path)
    assert (code / "harness/deep/file.py").exists()
    folders = [path for path in code.rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
