"""How many images each corruption makes in a second of one core: python benchmarks/corrupt.py.

An evaluation on the corrupted sets makes 75 images of each image: 15 corruptions at 5 severities.
"""

from __future__ import annotations

import time

import numpy as np

from harness.corrupt import CORRUPTIONS, SEVERITIES, corrupt

SIDES = {28: 256, 32: 256, 64: 64, 224: 4}  # pixels: images
ROUNDS = 3


def seconds_per_image(side: int, count: int, corruption: str) -> float:
    """Return the core-seconds of one image, the median of rounds over all severities."""
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    ids = np.arange(count)
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for severity in SEVERITIES:
            corrupt(images, ids, corruption, severity)
        rounds.append((time.process_time() - started) / (len(SEVERITIES) * count))
    return float(np.median(rounds))


def main() -> None:
    print(f"{'images per core-second':<24}" + "".join(f"{f'{s} pixels':>12}" for s in SIDES))
    totals = dict.fromkeys(SIDES, 0.0)
    for corruption in CORRUPTIONS:
        cells = []
        for side, count in SIDES.items():
            seconds = seconds_per_image(side, count, corruption)
            totals[side] += seconds
            cells.append(f"{1 / seconds:>12,.0f}")
        print(f"{corruption:<24}" + "".join(cells))
    means = [f"{len(CORRUPTIONS) / total:>12,.0f}" for total in totals.values()]
    print(f"{'all (harmonic mean)':<24}" + "".join(means))


if __name__ == "__main__":
    main()
