"""Where the first second goes: wall time of the verbs that only look, and their heaviest imports.

python benchmarks/startup.py [grid=quickstart] [store=runs/store]
"""

import subprocess
import sys
import time

VERBS = (
    ("harness.launch", ["--help"]),
    ("harness.launch", ["dry_run=true"]),
    ("harness.status", []),
    ("analysis.rows", ["out=out/startup"]),
    ("analysis.table", []),
)


def best_of(command: list[str], runs: int = 3) -> float:
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return min(times)


def heaviest(command: list[str], count: int = 6) -> list[tuple[float, str]]:
    """Seconds of the heaviest top-level packages, their own imports counted with them."""
    said = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]], check=True, capture_output=True, text=True
    )
    found = {}
    for line in said.stderr.splitlines():
        parts = line.removeprefix("import time:").split("|")
        if len(parts) == 3 and parts[1].strip().isdigit():
            name = parts[2].strip()
            if "." not in name:
                found[name] = int(parts[1]) / 1e6
    return sorted(((s, n) for n, s in found.items()), reverse=True)[:count]


def main() -> None:
    given = dict(arg.split("=", 1) for arg in sys.argv[1:])
    base = [f"grid={given.get('grid', 'quickstart')}"]
    base += [f"store={given['store']}"] if "store" in given else []
    for module, extra in VERBS:
        words = extra if extra == ["--help"] else [*base, *extra]
        command = [sys.executable, "-m", module, *words]
        slow = ", ".join(f"{name} {seconds:.2f}" for seconds, name in heaviest(command))
        print(f"{best_of(command):5.2f} s  {module} {' '.join(extra):14}  {slow}")


if __name__ == "__main__":
    main()
