"""A controller that is down or loses its state: each job is queued once, or not at all."""

import threading

import pytest

from harness.cluster import slurm
from harness.commands.launch import main
from harness.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_job_that_the_controller_forgot_is_queued_again(bed, make_sweep):
    """A controller that is killed before it saves its state gives the job's id to the next job."""
    sweep = make_sweep(epochs=20)
    bed.save_state()
    sweep.run("launch")
    bed.testbed("kill-controller")
    bed.start_controller()

    def done():
        bed.testbed("up")  # as an admin does: SLURM drains a node whose job it forgot
        return "nothing left to do" in sweep.run("launch")

    bed.wait(
        done, 400, pause=5
    )  # a job that is started twice stays held until a launch releases it
    logs = [path.read_text() for path in sweep.store.glob("sweeps/*/logs/*/*/*_log.out")]
    (log,) = [text for text in logs if "\nfinished" in text]
    assert log.count("\nfinished") == len(sweep.results()) == 1


def test_a_launch_waits_for_the_controller_for_a_while_and_leaves_nothing_behind(
    bed, make_sweep, tmp_path, monkeypatch
):
    sweep, said = make_sweep(), tmp_path / "launch.txt"
    other = tmp_path / "other"
    bed.save_state()
    bed.testbed("kill-controller")
    with said.open("w") as file:
        process = bed.command("harness.launch", *sweep.args(), stdout=file)
    monkeypatch.setenv("SLURM_CONF", bed.env["SLURM_CONF"])
    monkeypatch.setattr(slurm, "DOWN_SECONDS", 0.0)
    with pytest.raises(UserError, match=r"did not answer for 0 s .*launch again"):
        main([f"grid={sweep.grid}", f"store={other}", "cluster=testbed"])
    assert not list(other.glob("sweeps/*/logs/*/*"))
    bed.wait_for_text("trying again", said)
    bed.start_controller()
    assert process.wait(300) == 0, said.read_text()
    (submission,) = sweep.store.glob("sweeps/*/logs/*/*/submission.json")
    assert len(list(submission.parent.glob("*.pkl"))) == 1
    monkeypatch.undo()
    sweep.finish()
    assert not list(other.glob("stages/*/*"))


def test_a_job_is_requeued_when_the_controller_is_back(bed, monkeypatch, capfd):
    """A controller that does not answer has not refused, so no tries are used up."""
    words = ("sbatch", "--parsable", "--requeue", "--output=/dev/null", "--wrap=sleep 600")
    job = bed.slurm(*words).strip()
    bed.wait(lambda: bed.jobs() == {job: "RUNNING"})
    bed.save_state()
    bed.testbed("kill-controller")
    monkeypatch.setenv("SLURM_CONF", bed.env["SLURM_CONF"])
    monkeypatch.setattr(slurm, "REQUEUE_TRIES", 1)
    monkeypatch.setattr(slurm, "DOWN_SECONDS", 600.0)
    answers = []
    request = threading.Thread(target=lambda: answers.append(slurm.requeue(job)))
    request.start()
    printed = ""
    while "trying again" not in printed and request.is_alive():
        printed += capfd.readouterr().err
    bed.start_controller()
    request.join()
    assert answers == [True]
    bed.wait(lambda: bed.jobs().get(job) == "PENDING")
    bed.slurm("scancel", job)
