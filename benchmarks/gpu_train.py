"""Check and measure training on a CUDA device. `gpu_check.py` runs these parts.

python benchmarks/gpu_train.py streamed | resumed | gangs | graphs | fed

The exit code is 1 if a check fails.
"""

import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from pictures import bench_set, fashion_mnist, write_bench
from torch.nn import functional as F

from harness.models import registry
from harness.run_schema import RunConfig
from harness.schema import ModelConfig, StageConfig
from harness.store.identity import stage_id
from harness.train import Member, train_gang
from harness.train.distributed import connected

MEMBERS, BATCH, STEPS = 8, 128, 100
NETWORKS = ((18, 0.25), (18, 1.0), (50, 1.0))  # ResNets: depth, width
SECONDS = 70.0  # after this time, `fed` begins no further network


def streamed():
    """Compare each batch that the loader copies to the device with that of the CPU's loader.

    The loader copies on a CUDA stream of its own.
    """
    from harness.data.datasets import load
    from harness.data.loader import make_loader
    from harness.schema import DatasetConfig

    config = DatasetConfig.model_validate(
        {
            **bench_set((40 + 10) * 16),
            "resolution": 96,
            "start_resolution": 64,
            "crop_scale": [0.25, 1.0],
        }
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_bench(folder, 40, 16, 160)
        dataset = load(config, name, "ffcv")
        cuda_loader, cpu_loader = (
            make_loader(dataset, RunConfig(), 64, 0, 1, torch.device(device), 4)
            for device in ("cuda", "cpu")
        )
        busy = torch.randn(4096, 4096, device="cuda")
        count = wrong = 0
        for _ in range(3):  # these epochs are abandoned while batches are being copied
            next(cuda_loader.epoch(1, 0))
        passes = [lambda loader, e=epoch: loader.epoch(0, e, 2 * (e == 1)) for epoch in range(4)]
        passes += [lambda loader: loader.evaluate("test", 4), lambda loader: loader.fixed(128, 64)]
        for batches in passes:
            on_device = []
            for batch in batches(cuda_loader):
                # work that delays this stream, so that a copy without synchronisation would be seen
                busy = (busy @ busy).clamp_(-1, 1)
                on_device.append((batch.images.clone(), batch.labels.clone(), batch.ids.copy()))
            for (images, labels, ids), batch in zip(on_device, batches(cpu_loader), strict=True):
                count += 1
                wrong += not (
                    torch.equal(images.cpu(), batch.images)
                    and torch.equal(labels.cpu(), batch.labels)
                    and np.array_equal(ids, batch.ids)
                )
        cuda_loader.close()
        cpu_loader.close()
    print(f"{wrong} of {count} batches differ from the CPU's")
    return count > 30 and not wrong


def small(magnitude):
    return StageConfig.model_validate(
        {
            "seed": 0,
            "dataset": {
                "name": "fashion_mnist", "train_size": BATCH * STEPS, "validation_size": 500,
                "test_size": 500,
            },
            "model": {"family": "cifar_resnet", "depth": 8, "width": 0.5},
            "augment": {
                "policy": f"randaug(n=2, m={magnitude})", "crop_padding": 2, "flip": True,
            },
            "recipe": {"epochs": 2, "batch_size": BATCH, "optimizer": {"lr": 0.1}},
        }
    )  # fmt: skip


def trained(folder, configs, run, world):
    """Train a gang; return the milliseconds of a step of one member, and the weights' hashes."""
    members = []
    for config in configs:
        stage_folder = folder / stage_id(config)
        stage_folder.mkdir(parents=True)
        members.append(Member(stage_id(config), config, stage_folder, None))
    outcomes = train_gang(members, run, world, lambda: False, lambda: None)
    results = [outcome.result for outcome in outcomes]
    seconds = sum(result["timing"]["seconds"] for result in results)
    steps = sum(result["steps"] for result in results)
    return 1e3 * seconds / steps, [result["weights_sha256"] for result in results]


def resumed(device="cuda"):
    """Compare the weights of stages that were stopped twice and resumed with uninterrupted ones."""
    holds = True
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
        connected(RunConfig(device=device)) as world,
    ):
        folder = Path(name)
        write_bench(folder, 40, 16, 160)
        resnet = small(0.3).model_dump(mode="json") | {
            "dataset": {**bench_set((40 + 10) * 16), "resolution": 64},
            "model": {"family": "resnet", "depth": 18, "width": 0.25},
        }
        resnet["augment"]["crop_padding"] = 0
        resnet["recipe"]["precision"] = "bf16_autocast"
        root = fashion_mnist(folder / "data")
        networks = (root, small(0.3)), (name, StageConfig.model_validate(resnet))
        for engine, (root, config) in itertools.product(("ddp", "deepspeed"), networks):
            run = RunConfig(engine=engine, device=device, data_root=root)
            network, weights = f"{config.model.family}-{config.model.depth}", []
            for stops in ((), (3, 4)):
                stage_folder = folder / f"{engine}-{network}-{len(stops)}" / stage_id(config)
                stage_folder.mkdir(parents=True)
                member = Member(stage_id(config), config, stage_folder, None)
                for steps in (*stops, 10**6):
                    remaining = iter(range(steps - 1))
                    stop = lambda remaining=remaining: next(remaining, None) is None  # noqa: E731
                    (outcome,) = train_gang([member], run, world, stop, lambda: None)
                weights.append(outcome.result["weights_sha256"])
            same = weights[0] == weights[1]
            holds &= same
            print(f"{engine}, {network}: {'same' if same else 'OTHER'} bits", flush=True)
    return holds


def gangs():
    """Compare eight small stages that train alone with the same stages in a gang."""
    holds = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = fashion_mnist(folder / "data")
        configs = [small(0.1 * number) for number in range(1, MEMBERS + 1)]
        for engine in ("ddp", "deepspeed"):
            run = RunConfig(engine=engine, device="cuda", data_root=root)
            with connected(run) as world:
                trained(folder / f"{engine}-warm-up", configs[:1], run, world)
                alone = [
                    trained(folder / f"{engine}-{number}", [config], run, world)
                    for number, config in enumerate(configs)
                ]
                step, weights = trained(folder / f"{engine}-gang", configs, run, world)
            single = sum(milliseconds for milliseconds, _ in alone) / MEMBERS
            expected = [weights for _, (weights,) in alone]
            equal = sum(a == b for a, b in zip(expected, weights, strict=True))
            print(
                f"{engine}: a step alone {single:.2f} ms, in a gang {step:.2f} ms "
                f"({single / step:.2f} x); {equal} of {MEMBERS} end in the bits of the run alone",
                flush=True,
            )
            holds &= equal == MEMBERS
    return holds


def graphs():
    """Time the steps of eight small networks, without the harness, with and without CUDA graphs."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as the harness sets it
    torch.backends.cudnn.deterministic = True
    images = torch.randn(BATCH, 3, 32, 32, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.arange(BATCH, device="cuda") % 10
    config = ModelConfig(family="cifar_resnet", depth=8, width=0.5)

    def networks():
        made = []
        for seed in range(MEMBERS):
            model = registry.build(config, 10, seed=seed, resolution=32).cuda().train()
            model = model.to(memory_format=torch.channels_last)
            made.append((model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)))
        return made

    def step(model, optimizer):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def one_stream(made):
        return lambda: [step(*network) for network in made]

    def graph_each(made):
        recorded = []
        for network in made:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step(*network)
            recorded.append(graph)
        return lambda: [graph.replay() for graph in recorded]

    times, ends = {}, {}
    for way in (one_stream, graph_each):
        made = networks()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # the first steps choose algorithms and allocate momentum
            for network in made:
                for _ in range(3):
                    step(*network)
        torch.cuda.current_stream().wait_stream(side)
        turn = way(made)
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(STEPS):
            turn()
        torch.cuda.synchronize()
        times[way.__name__] = 1e3 * (time.perf_counter() - begun) / STEPS / MEMBERS
        ends[way.__name__] = [
            torch.cat([p.detach().flatten() for p in model.parameters()]) for model, _ in made
        ]
    for name, milliseconds in times.items():
        same = all(map(torch.equal, ends[name], ends["one_stream"]))
        print(
            f"{name}: {milliseconds:.3f} ms a step, {times['one_stream'] / milliseconds:.2f} x one "
            f"stream, weights {'equal' if same else 'DIFFER'}"
        )
    return True


def fed(device="cuda"):
    """Measure images per second and the share of a step that waits for them, at 224 px with FFCV.

    Deterministic algorithms are compared with the fastest ones.
    """
    from harness.train.step_timing import measure_steps

    end, distinct, copies = time.monotonic() + SECONDS, 80, 80
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        write_bench(Path(name), distinct, copies, 500)
        run = RunConfig(engine="ddp", device=device, loader="ffcv", data_root=name)
        print(f"{len(os.sched_getaffinity(0))} cores decode", flush=True)
        for depth, width in NETWORKS:
            if time.monotonic() > end:
                print(f"ResNet-{depth} width {width:g}: no time left")
                return False
            config = StageConfig.model_validate(
                {
                    "seed": 0,
                    "dataset": bench_set((distinct + 10) * copies),
                    "model": {"family": "resnet", "depth": depth, "width": width},
                    "augment": {"policy": "randaug(n=2, m=0.3)", "crop_padding": 0, "flip": True},
                    "recipe": {
                        "epochs": 1, "batch_size": 128, "optimizer": {"lr": 0.1},
                        "precision": "bf16_autocast",
                    },
                }
            )  # fmt: skip
            images = 128 * (((distinct + 10) * copies - 10) // 128)
            rates = []
            for deterministic in (False, True):  # True last, as it changes the environment for good
                settings = run.model_copy(update={"deterministic": deterministic})
                steps = 60 if device == "cuda" else 2
                timing = measure_steps(config, settings, steps, Path(name))
                rates.append(images / timing.seconds_per_epoch)
                algorithms = "repeating bits" if deterministic else "fastest"
                print(
                    f"ResNet-{depth} width {width:g}, {algorithms}: "
                    f"{rates[-1]:,.0f} images/s, {timing.data_share:.0%} of a step waits for data, "
                    f"{timing.memory_bytes / 1e9:.1f} GB", flush=True,
                )  # fmt: skip
            print(f"  repeating bits takes {rates[0] / rates[1]:.2f} x the time")
    return True


if __name__ == "__main__":
    part = {f.__name__: f for f in (streamed, resumed, gangs, graphs, fed)}[sys.argv[1]]
    sys.exit(0 if part() else 1)
