"""What `harness.logs` prints of a job that trained several stages, one of which failed."""

import pytest
from conftest import write_grid

from harness.commands import launch, logs
from harness.commands.logs import _parts
from harness.config import load
from harness.store.store import Store
from harness.sweep.plan import make_plan


@pytest.mark.slow
def test_the_log_of_a_failed_stage_is_cut_out_of_its_job(tmp_path, capsys):
    from harness.train import checkpoint

    grid = write_grid(tmp_path / "tiny.yaml", epochs=2, seeds="0, 1, 2")
    words = [f"grid={grid}", f"store={tmp_path / 'store'}"]
    plan = make_plan(load(words).grid)
    first, broken, last = plan.stages
    # an error that only a worker finds: a checkpoint of another engine
    folder = Store(tmp_path / "store").prepare(broken, plan.stages[broken])
    step = {"step": 1, "world_size": 2, "sharded": True, "state": {}}
    checkpoint.write(folder / "checkpoint" / "step-00000001.pt", {"stage": broken, **step})
    assert launch.main(words) == 1
    capsys.readouterr()

    assert logs.main([*words, "where=state == 'failed'", "lines=200"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("==> ")
    assert f"({broken}) <==\nbegin {broken}\n" in shown
    assert "Traceback" in shown
    assert "cannot continue under an engine without ZeRO 1" in shown
    assert first not in shown
    assert last not in shown

    assert logs.main([*words, "where=seed == 2", "lines=200"]) == 0
    lines = capsys.readouterr().out.splitlines()
    name = f"{last} (width 0.25, none, seed 2)"
    assert lines[1] == f"begin {last}"
    epochs = [line for line in lines if line.startswith(name)]
    assert [line.rpartition(": ")[0] for line in epochs] == [
        f"{name} epoch 1 of 2", f"{name} epoch 2 of 2", name,
    ]  # fmt: skip
    assert "validation accuracy 0." in epochs[-1]
    assert f"finished {last} done" in lines

    assert logs.main([*words, "lines=3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4  # the end of the job's log


LOG = """starting
begin a
x
begin a
begin b
y
begin c
z""".splitlines()


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ("a", [("a", slice(3, 6))]),  # its last attempt, beside b in a gang
        ("ab", [("ab", slice(3, 6))]),
        ("bc", [("b", slice(3, 6)), ("c", slice(6, 8))]),
        ("d", [("d", slice(0, 8))]),
        ("cd", [("d", slice(0, 8)), ("c", slice(6, 8))]),
    ],
)
def test_parts_of_a_log(stages, expected):
    parts = [("".join(names), lines) for names, lines in _parts(LOG, list(stages))]
    assert parts == [(names, LOG[lines]) for names, lines in expected]


def test_only_the_end_of_a_long_log_is_read(tmp_path, monkeypatch, capsys):
    path = tmp_path / "log"
    path.write_text("first\n" + 1000 * "x" + "\nlast\n")
    monkeypatch.setattr(logs, "MOST_BYTES", 8)
    assert logs._print_log(path, ["a"], 20, is_whole=True) == path.stat().st_size
    assert capsys.readouterr().out == f"==> {path} (a) <==\nxx\nlast\n"
