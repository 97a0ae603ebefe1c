"""The copy of the code that jobs run."""

import json
import subprocess
import sys

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
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert output.strip() == str(code / "grids")
    assert json.loads((code / "snapshot.json").read_text())["code"] == code_version()
