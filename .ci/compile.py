"""Import what jobs and verbs import, so that Python keeps it compiled before the first of them.

Compiling all files of all packages takes a minute, and most of them are never imported.
"""

import importlib
import sys

JOBS = ("submitit.core._submit", "harness.cluster.worker", "harness.train.loop",
        "harness.train.engine_deepspeed", "harness.data.ffcv", "harness.data.imagefolder",
        "harness.augment.numba_executor", "timm")  # fmt: skip
VERBS = ("harness.launch", "harness.status", "harness.doctor", "harness.difficulty",
         "harness.cluster.slurm_jobs", "hydra.core.override_parser.overrides_parser", "rich.table",
         "analysis.report", "analysis.figures", "analysis.compare", "pandas", "pyarrow.parquet",
         "matplotlib.backends.backend_pdf", "matplotlib.backends.backend_svg")  # fmt: skip

for name in (*VERBS, *JOBS):
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001  # nothing is lost yet: who needs it will be told
        print(f"note: {name} cannot be imported: {error}", file=sys.stderr)
