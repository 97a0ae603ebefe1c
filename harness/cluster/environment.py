"""The table of the shell's variables that are removed, set, refused or passed on to a worker.

A shell may still hold what `torchrun`, `mpirun`, another tool's job or an experiment left there. A
worker gets its ranks from SLURM or submitit alone, and no variable may change numbers that the
store records under one id. Settings of a site's network and of debugging output are passed on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

RANKS = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT"
READ_AT_IMPORT = "SUBMITIT_PREEMPT_SIGNAL SUBMITIT_LOG_LEVEL SUBMITIT_DEBUG_JOB_ID _TEST_CLUSTER_"
"""submitit reads these on import, or to choose its kind of job, so they are removed before that."""


class Rule(NamedTuple):
    """What happens to some variables. `names` may have `*` and `?`; the first match is applied.

    "removed" from a worker before torch is imported; "set" by the harness or by submitit, whatever
    the shell says; "refused" by a check of the launch; "passed" on unchanged.
    """

    action: Literal["removed", "set", "refused", "passed"]
    names: str
    reason: str


TABLE = (
    Rule(
        "removed",
        READ_AT_IMPORT,
        "they change submitit's signal before a time limit, its logs or its kind of job",
    ),
    Rule("set", "SUBMITIT_*", "by submitit, for each worker"),
    Rule("set", RANKS, "by rendezvous.py for several tasks; removed for a single one"),
    Rule(
        "removed",
        "TORCHELASTIC_* TORCH_ELASTIC_* TORCHCOMM_* TORCH_DISTRIBUTED_USE_TORCHCOMMS TORCH_DIST_*"
        " GROUP_RANK GROUP_WORLD_SIZE ROLE_* LOCAL_SIZE USE_LIBUV"
        " TORCH_DISABLE_SHARE_RDZV_TCP_STORE",
        "left by torchrun or another launcher: they would change who hosts the ranks' store",
    ),
    Rule(
        "removed",
        "OMPI_* AZUREML_* AZ_BATCH* SM_TRAINING_ENV DLTS_JOB_ID DLWS_JOB_ID",
        "DeepSpeed takes ranks and addresses from them",
    ),
    Rule(
        "removed",
        "DS_ACCELERATOR DS_IGNORE_CUDA_DETECTION DS_SDMA_* DS_PIN_MEMORY_* DS_DC_* MORI_*"
        " DS_ALLOW_DEPRECATED_FP16 DEEPSPEED_TIMEOUT",
        "run.device, run.engine and train/distributed.py decide; DS_ACCELERATOR is set for a CPU",
    ),
    Rule(
        "removed",
        "NVIDIA_TF32_OVERRIDE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE ONEDNN_DEFAULT_FPMATH_MODE"
        " DNNL_DEFAULT_FPMATH_MODE PYTORCH_TUNABLEOP_* TORCH_CUDNN_* TORCH_CUBLAS* CUBLASLT_*"
        " TORCH_BLAS_PREFER_* TORCH_LINALG_PREFER_* CUBLAS_WORKSPACE_CONFIG DISABLE_ADDMM_CUDA_LT"
        " TORCH_LINEAR_FLATTEN_3D TORCH_MKLDNN_*",
        "they change numbers, and no stage records them; the harness sets cuBLAS's work space",
    ),
    Rule("removed", "TIMM_* FORK_LAST3", "timm builds another network, or computes it otherwise"),
    Rule("refused", "CUDA_VISIBLE_DEVICES", "where it hides the GPUs that workers here need"),
    Rule(
        "passed",
        "NCCL_* GLOO_* TORCH_NCCL_* TORCH_GLOO_* TP_* UCX_* FI_* UCC_*",
        "a site's network, such as NCCL_SOCKET_IFNAME",
    ),
    Rule(
        "passed",
        "ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA MKL_* OMP_* KMP_*",
        "they select CPU instructions, to repeat results exactly; run.threads sets the threads",
    ),
    Rule(
        "passed",
        "TORCH_DISTRIBUTED_DEBUG TORCH_CPP_LOG_LEVEL TORCH_SHOW_* TORCH_FR_* FR_* LOGLEVEL"
        " DS_DEBUG_* TORCH_WATCHDOG_* DISABLE_LOGS_WHILE_COMPILING CUDA_LAUNCH_BLOCKING PYTHON_EXEC"
        " LOGGER_METHODS_TO_EXCLUDE_FROM_DISABLE",
        "output for debugging",
    ),
    Rule(
        "passed",
        "PYTORCH_* HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES TORCH_HOME TORCH_HUB TORCH_MODEL_ZOO"
        " TORCH_SYMM* TRITON_* CUDA_HOME NVSHMEM_* ROCM_* ROCSHMEM_* DCP_*",
        "memory, devices and folders",
    ),
)


def rule_for(name: str) -> Rule | None:
    """Return the first rule of the table for a variable, or None where there is none."""
    matches = (r for r in TABLE if any(fnmatchcase(name, pattern) for pattern in r.names.split()))
    return next(matches, None)


def remove(names: Iterable[str]) -> list[str]:
    """Remove variables from this process and its children; return those that were set."""
    return [name for name in names if os.environ.pop(name, None) is not None]


def clean_worker() -> None:
    """Remove what the table says, and ranks of another tool; call it before torch is imported."""
    rules = {name: rule_for(name) for name in os.environ}
    to_remove = [name for name, rule in rules.items() if rule and rule.action == "removed"]
    if removed := remove([*RANKS.split(), *to_remove]):
        print(f"note: not used in a worker: {', '.join(sorted(removed))}", flush=True)


remove(READ_AT_IMPORT.split())  # the package's `__init__.py` imports this module first
