"""The sweeps that tests run on a real SLURM (bed.py), and their fixtures."""

import json
import tempfile
from pathlib import Path

import pytest
from bed import Bed
from pace import FAMILY

GRID = """# A few small trials on the digits, for tests.
defaults:
  - override /dataset: digits
  - override /model: cifar_resnet
  - override /recipe: quick
model: {{family: {family}, depth: 8}}
dataset: {{train_size: 256, validation_size: 128, test_size: 128}}
recipe: {{epochs: {epochs}, batch_size: 32}}
compress: {{level_share: 0.5, level_epochs: {level_epochs}}}
run: {{engine: ddp, checkpoint_seconds: 0.2}}
axes:
  width: [0.25]
  sparsity: [{sparsity}]
  magnitude: [none]
  seed: [{seeds}]
"""
STEPS_PER_EPOCH = 8
SECONDS_PER_STEP = 0.25  # of a training that has to be under way while tests disturb it


class Sweep:
    """A grid and its store; methods about stages are about all stages of the store."""

    def __init__(self, bed: Bed, grid: Path, store: Path, *more: str) -> None:
        self.bed, self.grid, self.store, self.more = bed, grid, store, more

    def args(self, *more: str) -> tuple[str, ...]:
        """Return the command line of every command."""
        return f"grid={self.grid}", f"store={self.store}", "cluster=testbed", *self.more, *more

    def run(self, verb: str, *more: str, code: int = 0) -> str:
        """Return the output of a command on this sweep."""
        return self.bed.run(f"harness.{verb}", *self.args(*more), code=code, env=self.env())

    def env(self) -> dict[str, str]:
        """Return the environment of every command."""
        return self.bed.pace.environment(self.bed.env) if self.is_paced() else self.bed.env

    def is_paced(self) -> bool:
        """Return whether the grid trains the family whose steps take as long as a test says."""
        return FAMILY in self.grid.read_text()

    def results(self) -> list[Path]:
        """Return the result files of finished stages."""
        return sorted(self.store.glob("stages/*/*/result.json"))

    def step(self) -> int:
        """Return the newest step that is saved."""
        names = [path.name for path in self.store.glob("stages/*/*/checkpoint/step-*.pt")]
        return max((int(name[5:13]) for name in names), default=0)

    def is_training(self, finished: int) -> bool:
        """Return whether a stage has saved a step and trains, and `finished` others are done."""
        folders = [path.parent for path in self.store.glob("stages/*/*/claim")]
        saved = [folder for folder in folders if list(folder.glob("checkpoint/step-*.pt"))]
        has_open = any(not (folder / "result.json").exists() for folder in saved)
        return has_open and len(self.results()) == finished

    def failures(self, key: str = "class") -> list[str]:
        """Return the classes, or another field, of all recorded failures, oldest first."""
        records = [
            json.loads(path.read_text()) for path in self.store.glob("stages/*/*/failures/*.json")
        ]
        return [record[key] for record in sorted(records, key=lambda record: record["time"])]

    def logs(self) -> list[str]:
        """Return the logs of all jobs that have begun."""
        return [path.read_text() for path in self.store.glob("sweeps/*/logs/*/*/*_log.out")]

    def finish(self) -> None:
        """Wait for SLURM; launch again until nothing is left."""
        for _ in range(4):
            self.bed.drain()
            if "nothing left to do" in self.run("launch"):
                return
        pytest.fail(f"something is left to do: {self.failures()}")


class Training(Sweep):
    """One long stage that the tests of a file disturb in turn, each where the last one left it.

    Starting a job takes longer than the training that a test needs, so they share it. Any test may
    be the first, or the only one.
    """

    def __init__(self, bed: Bed, folder: Path, epochs: int, *always: str) -> None:
        grid = write_grid(folder / "long.yaml", epochs=epochs, family=FAMILY)
        super().__init__(bed, grid, folder / "store-0")
        self.always = always
        self.steps = epochs * STEPS_PER_EPOCH

    def under_way(self, *more: str) -> str:
        """Return the id of its one job, which trains; launch it with `more` where there is none."""
        self.bed.mend()
        words = (*self.always, *more)
        if self.more != words or self.results() or len(self.bed.jobs()) != 1:
            self.more = words
            self.bed.empty()
            if self.results():
                self.store = self.store.with_name(f"store-{len(list(self.store.parent.iterdir()))}")
        self.go_on()
        self.bed.wait(lambda: len(self.bed.jobs()) == 1)  # an earlier one may still be ending
        return next(iter(self.bed.jobs()))

    def go_on(self) -> None:
        """Wait until it has trained and saved more; launch it where a fault left no job.

        Its pace keeps it from ending, however long the tests take: when it is half done, a step
        lasts seconds.
        """
        before = self.step()
        self.bed.pace.set(SECONDS_PER_STEP if before < self.steps / 2 else 20 * SECONDS_PER_STEP)
        if not self.bed.jobs():
            self.run("launch")
        self.bed.wait(lambda: self.step() > before, pause=0.05)
        assert not self.results()

    def finish(self) -> None:
        """Let it train at full speed to its end."""
        self.bed.pace.set(0)
        super().finish()


@pytest.fixture(scope="session")
def _bed():
    with tempfile.TemporaryDirectory(prefix="bed-") as folder:
        bed = Bed(Path(folder) / "slurm")
        try:
            bed.up()
            yield bed
        finally:
            bed.testbed("down")


@pytest.fixture
def bed(_bed):
    """The running SLURM, with an empty queue and healthy nodes before and after."""
    _bed.mend()
    if _bed.jobs():  # left by a training whose tests ended early
        _bed.empty()
    yield _bed
    _bed.settle()


def write_grid(path, epochs=4, level_epochs=2, sparsity="0.0", seeds="0", family="cifar_resnet"):
    """Write a grid file of a few small stages; returns its path."""
    lengths = {"epochs": epochs, "level_epochs": level_epochs}
    path.write_text(GRID.format(sparsity=sparsity, seeds=seeds, family=family, **lengths))
    return path


@pytest.fixture
def make_grid(tmp_path):
    """(name, epochs, ...) -> path of a grid file of a few small stages."""
    return lambda name="tiny", *args, **more: write_grid(tmp_path / f"{name}.yaml", *args, **more)


@pytest.fixture
def make_sweep(bed, make_grid, tmp_path):
    """(epochs, ...) -> a sweep that is not launched yet."""
    return lambda *more, **grid: Sweep(bed, make_grid(**grid), tmp_path / "store", *more)


@pytest.fixture(scope="module")
def make_training(_bed, tmp_path_factory):
    """(epochs, words of every launch) -> a training that the tests of a file share.

    These tests must not use `bed`, which ends all jobs after each test.
    """
    yield lambda epochs, *always: Training(_bed, tmp_path_factory.mktemp("long"), epochs, *always)
    _bed.settle()
