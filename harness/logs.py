"""`python -m harness.logs`: the logs of a sweep's jobs."""

from harness.commands import logs
from harness.errors import command

if __name__ == "__main__":
    command(logs.main, logs.__doc__)
