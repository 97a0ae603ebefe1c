"""python -m harness.latency grid=NAME [where=CONDITION] [run.device=cuda] [key=value ...]

Measure latency and throughput of the networks of finished trials, on this machine (docs/export.md).

    python -m harness.latency grid=quickstart
    python -m analysis.table grid=quickstart by=latency_ms

Networks are measured as harness.export writes them, in eager torch and fp32, with one thread on a
CPU. Without where=, these are the networks of the best magnitude of each size, of the first seed.
A table by latency needs one network of each size; the values go into the sweep's rows.

    where=CONDITION   exactly these trials instead, as in analysis.table
    seeds=all         every seed of the best magnitude
    run.device=cuda   cpu, cuda, or auto: a GPU where there is one
    by=width,...      the columns that define a size; metric=top1|loss: chosen by it
"""

from __future__ import annotations

from analysis.chosen import OPTIONS, read_chosen
from harness.errors import command
from harness.store.latency import MANY, SINGLE, write_latency
from harness.store.store import Store
from harness.sweep.plan import make_plan


def main(args: list[str]) -> int:
    """Measure the chosen networks, record and print the results; return the exit code."""
    launch, _, chosen = read_chosen(args, OPTIONS)
    from harness.data.catalog import info_of
    from harness.deploy.folder import read_network
    from harness.deploy.latency import choose_device, device_name, measure

    plan, store = make_plan(launch.grid), Store(launch.store)
    device = choose_device(launch.run.device)
    print(f"on {device_name(device)}; median (quartiles)")
    for stage in dict.fromkeys(item.stage for item in chosen):
        config = plan.stages[stage]
        info = info_of(config.dataset)
        module, _ = read_network(store, stage, config)
        side = config.dataset.resolution or info.resolution
        record = measure(module, info.channels, side, device)
        write_latency(store, stage, record)
        single, many = (record["batches"][str(count)] for count in (SINGLE, MANY))
        print(
            f"{stage}: {single['median_ms']:.4g} ms for one image ({single['low_ms']:.4g} to "
            f"{single['high_ms']:.4g}), {1000 * MANY / many['median_ms']:,.0f} images/s in "
            f"batches of {MANY} ({1000 * MANY / many['high_ms']:,.0f} to "
            f"{1000 * MANY / many['low_ms']:,.0f})",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    command(main, __doc__)
