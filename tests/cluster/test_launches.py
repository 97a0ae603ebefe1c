"""Jobs of a sweep stay in sight, whatever words it was launched with; no selection is empty."""

import json
import shutil

import pytest

from harness.cluster import read_sweep
from harness.commands import cancel, difficulty, launch, launches, logs, pilot, status
from harness.errors import UserError
from harness.files import make_folder
from harness.store.claims import try_claim
from harness.store.records import read_lines

HELD = "cluster.slurm.extra={begin: now+1hour}"


def args(grid, store, *more):
    return f"grid={grid}", f"store={store}", "cluster=testbed", *more


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_jobs_of_other_words_and_of_a_changed_grid_are_shown_and_cancelled(
    bed, make_grid, tmp_path
):
    grid, store = make_grid(seeds="0, 1, 2"), tmp_path / "store"
    bed.run("harness.launch", *args(grid, store, HELD, "recipe.epochs=2"))
    outside = "3 jobs of this sweep train stages outside this grid (launched with recipe.epochs=2)"
    shown = bed.run("harness.status", *args(grid, store))
    assert "jobs: none" in shown
    assert outside in shown
    assert "last launched with recipe.epochs=2" in shown
    assert f"note: {outside}" in bed.run("harness.launch", *args(grid, store, HELD))
    assert outside in bed.run("harness.cancel", *args(grid, store))
    bed.wait(lambda: len(bed.jobs()) == 3)  # its own are cancelled
    assert "last launched" in bed.run("harness.status", *args(grid, store, "recipe.epochs=2"))

    grid.write_text(grid.read_text().replace("seed: [0, 1, 2]", "seed: [0, 1]"))
    shown = bed.run("harness.status", *args(grid, store, "recipe.epochs=2"))
    assert "1 jobs of this sweep train stages outside this grid" in shown
    listed = json.loads(bed.run("harness.status", *args(grid, store, "format=json")))
    assert set(listed["jobs_outside"].values()) == {"recipe.epochs=2"}
    assert set(listed["jobs_outside"]) == set(bed.jobs())

    bed.run("harness.launch", *args(make_grid("another", seeds="7"), store, HELD))
    copy = shutil.copytree(store, tmp_path / "copy")
    assert "cancelled all 0 jobs" in bed.run("harness.cancel", *args(grid, copy, "all=true"))
    moved = store.rename(tmp_path / "moved")
    everything = bed.run("harness.cancel", *args(grid, moved, "all=true"))
    assert "cancelled all 3 jobs of the sweep" in everything
    bed.wait(lambda: len(bed.jobs()) == 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_launch_that_sbatch_refuses_only_at_the_end_leaves_nothing_behind(
    bed, make_grid, tmp_path
):
    """A site's filter in front of sbatch may accept the check and refuse the job."""
    grid, store = make_grid(seeds="0, 1"), tmp_path / "store"
    sbatch = tmp_path / "bin/sbatch"
    sbatch.parent.mkdir()
    accept = f'case "$*" in *--test-only*) exec {shutil.which("sbatch")} "$@";; esac'
    refuse = 'echo "sbatch: error: the filter of this site refuses it" >&2; exit 1'
    sbatch.write_text(f"#!/bin/sh\n{accept}\n{refuse}\n")
    sbatch.chmod(0o755)
    filtered = {**bed.env, "PATH": f"{sbatch.parent}:{bed.env['PATH']}"}

    def files():
        paths = [path for path in store.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in paths if path.name != "jobs.jsonl"}

    shown = bed.run("harness.launch", *args(grid, store, HELD), code=2, env=filtered)
    assert "SLURM refused the job: sbatch: error: the filter of this site refuses it" in shown
    assert list(store.rglob("*")) == [store / "sweeps"]
    bed.run("harness.launch", *args(grid, store, HELD, "where=seed == 0"))
    before = files()
    other = args(grid, store, HELD, "recipe.epochs=2")
    bed.run("harness.launch", *other, code=2, env=filtered)
    assert files() == before
    assert "last launched" not in bed.run("harness.status", *args(grid, store))
    assert "queued 1 jobs" in bed.run("harness.launch", *args(grid, store, HELD))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_jobs_that_have_nothing_left_to_train_are_cancelled_with_all(bed, make_grid, tmp_path):
    grid, store, other = make_grid(), tmp_path / "store", tmp_path / "other"
    bed.run("harness.launch", *args(grid, store, HELD))
    bed.run("harness.launch", f"grid={grid}", f"store={other}", seconds=240)
    shutil.copytree(other / "stages", store / "stages", dirs_exist_ok=True)
    assert "cancelled 0 jobs" in bed.run("harness.cancel", *args(grid, store))
    assert len(bed.jobs()) == 1
    assert "cancelled all 1 jobs" in bed.run("harness.cancel", *args(grid, store, "all=true"))
    bed.wait(lambda: not bed.jobs())
    assert "cancelled all 0 jobs" in bed.run("harness.cancel", *args(grid, other, "all=true"))


def local(grid, store, *more):
    return [f"grid={grid}", f"store={store}", *more]


def test_a_local_launch_with_other_words_is_shown_while_its_worker_lives(tmp_path):
    store = tmp_path / "store"
    other = read_sweep(local("quickstart", store, "recipe.epochs=2"), status.OPTIONS)
    stage = next(iter(other.plan.stages))
    other.store.prepare(stage, other.plan.stages[stage])
    make_folder(store / "sweeps/quickstart")
    launches.record(other, ["recipe.epochs=2"], [stage])
    launches.record(other, ["recipe.epochs=2"], [stage])
    path = store / "sweeps/quickstart/launches.jsonl"
    assert len(read_lines(path)) == 1
    with path.open("a") as file:  # what is not such a line, and a path instead of an id
        file.write('{"words": 3}\n{"words": [], "stages": ["../../x"]}\n[]\n')
    present = read_sweep(local("quickstart", store), status.OPTIONS)
    assert launches.describe_outside(present) == []
    assert launches.describe_last_words(present, []) == ["last launched with recipe.epochs=2"]
    launches.record(other, ["recipe.epochs=2", "axes.seed=[0]"], [stage])
    assert launches.describe_last_words(present, ["axes.seed=[0]", "recipe.epochs=2"]) == []
    claim = try_claim(other.store.folder(stage), "local-1")
    (sentence, advice) = launches.describe_outside(present)
    assert "1 local workers" in sentence
    assert sentence.endswith("(launched with recipe.epochs=2 axes.seed=[0])")
    assert "all=true" in advice
    assert launches.describe_outside(other) == []
    claim.release()


def test_only_words_that_decide_what_is_trained_are_remembered():
    words = ["grid=x", "store=y", "++recipe.epochs=2", "run.gang=4", "cluster=z", "dry_run=true"]
    words += ["where=seed == 1", "axes.seed=[7]", "augment.policy='caf\udce9/x.yaml'"]
    options = {"dry_run": True, "where": ""}
    remembered = ["++recipe.epochs=2", "axes.seed=[7]", r"augment.policy='caf\xe9/x.yaml'"]
    assert launches.words_of(words, options) == remembered


VERBS = {
    "launch": (launch.main, []),
    "dry run": (launch.main, ["dry_run=true"]),
    "status": (status.main, []),
    "cancel": (cancel.main, []),
    "logs": (logs.main, []),
    "pilot": (pilot.main, []),
    "difficulty": (difficulty.main, ["teacher=timm:resnet18"]),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_selection_without_trials_is_a_mistake_in_every_verb(verb, tmp_path):
    main, more = VERBS[verb]
    with pytest.raises(UserError) as caught:
        main(local("quickstart", tmp_path / "store", "where=width > 2 or state == 'done'", *more))
    assert str(caught.value) == (
        "where=width > 2 or state == 'done' holds for none of the 48 trials; state is waiting; "
        "width is 0.25, 0.5, 1.0"
    )
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.width", "0.25"),
        ("depth", "8"),
        ("dataset", "fashion_mnist"),
        ("compress.scope", "global"),
    ],
)
def test_selections_and_tables_know_the_names_of_all_keys(name, value, tmp_path, capsys):
    quoted = value if value[0].isdecimal() else f"'{value}'"
    words = local("quickstart", tmp_path / "store", f"by={name}", f"where={name} == {quoted}")
    assert status.main(words) == 0
    header, row = capsys.readouterr().out.splitlines()[1:3]
    assert (header.split()[0], row.split()[0]) == (name, value)
    with pytest.raises(UserError, match=r"no axis 'widht' \(did you mean 'width'\?\)"):
        status.main(local("quickstart", tmp_path / "store", "by=widht"))
    with pytest.raises(UserError, match="each state has a column of its own"):
        status.main(local("quickstart", tmp_path / "store", "by=width,state"))
