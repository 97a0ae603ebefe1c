"""python -m harness.doctor [grid=NAME] [cluster=NAME] [key=value ...]

Look for what would keep a sweep from running: on this machine, in the cluster, data and store.

    python -m harness.doctor                                   # this machine
    python -m harness.doctor grid=quickstart cluster=generic   # all that the sweep needs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from harness.commands import doctor_checks
from harness.commands.doctor_checks import Finding
from harness.config import load


def main(args: list[str]) -> int:
    """Print the findings; return the exit code, 1 if one of them would stop a sweep."""
    has_grid = any(arg.startswith("grid=") for arg in args)
    launch = load(args if has_grid else [*args, "grid=quickstart"])
    checks: Mapping[str, Callable[[], Iterator[Finding]]] = {
        "machine": doctor_checks.machine,
        "cluster": lambda: doctor_checks.cluster(launch),
        "data": lambda: doctor_checks.data(launch),
        "store": lambda: doctor_checks.store(launch),
    }
    bad = 0
    for name, check in checks.items():
        print(name)
        for level, subject, detail in check():
            bad += level == "bad"
            print(f"  {level:<4}  {subject}: {detail}")
    print("nothing stands in the way" if not bad else f"{bad} finding(s) would stop a sweep")
    return 1 if bad else 0
