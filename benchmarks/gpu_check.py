"""Check everything that needs a CUDA device, in one command: `make gpu-check`.

The parts check augmentation (equal to the CPU's, no synchronisation, speed, memory), copied
batches, resumed stages, gangs, the share of a step that waits for data, training, and a sweep. Each
part runs in a process of its own with a deadline. Its output is shown even if it did not end in
time. All parts end within eight minutes. The exit code is 1 if a check fails, and 2 without a
device.

python benchmarks/gpu_check.py [PART ...]
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS = 460  # for all parts together
PARTS = {  # the most important first: the longest time in seconds, and the command
    "equality": (90, "gpu_augment.py", "equality"),
    "no_synchronisation": (40, "gpu_augment.py", "no_synchronisation"),
    "speed": (60, "gpu_augment.py", "speed"),
    "memory": (30, "gpu_augment.py", "memory"),
    "streamed": (45, "gpu_train.py", "streamed"),
    "resumed": (60, "gpu_train.py", "resumed"),
    "gangs": (100, "gpu_train.py", "gangs"),
    "decoding_gangs": (
        60, "gang.py", "device=cuda", "resolution=64", "photographs=1", "copies=8"
    ),
    "fed": (100, "gpu_train.py", "fed"),
    "training": (80, "train.py", "cuda"),
    "sweep": (80, "sweep.py", "data=resident", "device=cuda", "epochs=1", "trials=3", "seeds=1"),
    "peers": (40, "augment.py"),
}  # fmt: skip


def run(command, seconds):
    """Return the output and the exit code of a command; None if it was killed after `seconds`."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", HERE / command[0], *command[1:]],
            cwd=HERE.parent, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # also the processes that it started
                process.wait()
        output.seek(0)
        return output.read().rstrip(), code


def main(args):
    import torch

    if not torch.cuda.is_available():
        print("gpu-check needs a CUDA device, and this machine does not have one", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {os.cpu_count()} cores")
    end, failed = time.monotonic() + SECONDS, 0
    for name in args or PARTS:
        longest, *command = PARTS[name]
        begun = time.monotonic()
        if begun + 5 > end:
            failed += 1
            print(f"BAD {name}: not started, {SECONDS} s are over")
            continue
        seconds = min(longest, end - begun)
        text, code = run(command, seconds)
        took = "stopped after " if code is None else ""
        failed += code != 0
        print(f"{'BAD' if code != 0 else 'ok '} {name} ({took}{time.monotonic() - begun:.0f} s)")
        print("    " + text[-4000:].replace("\n", "\n    "), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
