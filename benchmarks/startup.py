"""Wall-clock time of the commands that only read, and their slowest imports.

python benchmarks/startup.py [grid=quickstart] [store=runs/store]
"""

import subprocess
import sys
import time

from harness.arguments import Option, parse_options
from harness.errors import command

COMMANDS = (
    ("harness.launch", ["--help"]),
    ("harness.launch", ["dry_run=true"]),
    ("harness.status", []),
    ("analysis.rows", ["out=out/startup"]),
    ("analysis.table", []),
)


def best_of(command: list[str], runs: int = 3) -> float:
    """Return the seconds of the fastest of `runs` runs."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return min(times)


def slowest_imports(command: list[str], count: int = 6) -> list[tuple[float, str]]:
    """Return (seconds, name) of the slowest top-level packages, including what they import."""
    run = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]], check=True, capture_output=True, text=True
    )
    seconds = {}
    for row in run.stderr.splitlines():
        parts = row.removeprefix("import time:").split("|")
        if len(parts) == 3 and parts[1].strip().isdigit():
            name = parts[2].strip()
            if "." not in name:
                seconds[name] = int(parts[1]) / 1e6
    return sorted(((s, name) for name, s in seconds.items()), reverse=True)[:count]


def main(args: list[str]) -> int:
    options = parse_options(args, {"grid": Option(default="quickstart"), "store": Option()})
    base = [f"{key}={value}" for key, value in options.items() if value is not None]
    for module, extra in COMMANDS:
        arguments = extra if extra == ["--help"] else [*base, *extra]
        words = [sys.executable, "-m", module, *arguments]
        slow = ", ".join(f"{name} {seconds:.2f}" for seconds, name in slowest_imports(words))
        print(f"{best_of(words):5.2f} s  {module} {' '.join(extra):14}  {slow}")
    return 0


if __name__ == "__main__":
    command(main, __doc__, needs_arguments=False)
