"""The rounds of a launch: one for a full grid, and as many as it takes for the rule `settle`."""

from __future__ import annotations

from pathlib import Path

from harness.cluster import Sweep, decision, environment, read_again
from harness.cluster.job_registry import CANCELLED
from harness.cluster.settlement import describe_unjudged
from harness.commands.remaining import check_budget, stages_to_train
from harness.commands.settled import describe_sizes
from harness.commands.start import STOPPED, queue_jobs, train_here
from harness.errors import UserError, plain_output
from harness.files import atomic_write
from harness.plugins import set_plugin_files
from harness.sweep.plan import make_plan


def train_rounds(sweep: Sweep, words: list[str]) -> int:
    """Train round after round on this machine until the sweep is settled; return the exit code.

    A full grid has one round.
    """
    code = 0
    while remaining := stages_to_train(sweep.rounds_until_now()):
        if why := check_budget(sweep, remaining):
            print("\n".join([f"the rounds end here: {why}", *describe_sizes(sweep)]))
            return code
        if sweep.settlement is not None:
            print(f"round {sweep.settlement.number}", flush=True)
        code = max(code, train_here(sweep, words))
        if sweep.settlement is None or code == STOPPED:
            return code
        sweep = read_again(sweep.launch, sweep.plan)
    failures = describe_failures(sweep)
    if sweep.settlement is not None and sweep.settlement.round and not failures:
        print(f"other launches train round {sweep.settlement.number}: launch again when it is done")
    for line in [*failures, *describe_sizes(sweep)]:
        print(line)
    return 1 if failures else code


def describe_failures(sweep: Sweep) -> list[str]:
    """Return a sentence if failed trials, or missing scores, keep the round from its end."""
    if sweep.settlement is None:
        return []
    unjudged = describe_unjudged(sweep.launch, sweep.plan, sweep.states)
    if unjudged and sweep.settlement.round:
        return unjudged
    part = sweep.rounds_until_now()
    failed = [trial for trial in part.trials if trial["state"] == "failed"]
    if not failed:
        return []
    return [
        f"round {sweep.settlement.number} cannot end, because {len(failed):,} of its trials "
        f"failed, such as {failed[0]['trial']} ({failed[0]['why']}): correct the cause and launch "
        "with retry=failed"
    ]


class NextRound:
    """What the job runs that decides the next round: it queues it, or says why the rounds end.

    SLURM may start it again at any point, because it continues from what the store and the queue
    say. It is not Checkpointable: submitit would requeue it at every time limit, without an end.
    """

    def __call__(self, path: str, part: int = 0) -> str:
        """Return why the rounds end, or '' where they go on."""
        from harness.cluster.submission import Submission  # imports submitit

        environment.clean_worker()
        submission = Submission.read(Path(path))
        if submission.plugins:
            set_plugin_files(submission.plugins)
        folder = Path(path).parent
        with plain_output():
            try:
                end = _decide(decision.read(folder))
            except UserError as error:
                end = str(error)
            if end:
                print(f"the rounds end here: {end}", flush=True)
                atomic_write(folder / decision.END_FILE, end.encode())
        return end


def _decide(waited: decision.Decision) -> str:
    """Queue the next round of a sweep, and return ''; or return why the rounds end.

    They never go on without progress: a round whose jobs have ended without a new result is not
    queued again.
    """
    sweep = read_again(waited.launch, make_plan(waited.launch.grid))
    settlement, part = sweep.settlement, sweep.rounds_until_now()
    assert settlement is not None
    for line in describe_sizes(sweep):
        print(line)
    if not settlement.round:
        return "every size has all trials that it needs"
    if failures := describe_failures(sweep):
        return failures[0]
    remaining = stages_to_train(part)
    if not remaining and not decision.jobs_of_round(sweep):
        return f"no job in SLURM's queue trains what is left of round {settlement.number}"
    if any(CANCELLED in part.states[stage].why for stage in remaining):
        return f"jobs of round {settlement.number} were cancelled"
    is_same_round = settlement.number == waited.number
    if remaining and is_same_round and decision.count_unfinished(sweep) >= waited.unfinished:
        stage = remaining[0]
        return (
            f"the jobs of round {settlement.number} ended without a result of {len(remaining):,} "
            f"stages, such as {stage} ({part.states[stage].why or 'not begun'})"
        )
    if why := check_budget(sweep, remaining):
        return why
    queue_jobs(sweep, waited.words, NextRound())
    return ""
