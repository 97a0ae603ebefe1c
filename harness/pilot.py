"""`python -m harness.pilot`: measure what each size of a grid costs."""

from harness.commands import pilot
from harness.errors import command

if __name__ == "__main__":
    command(pilot.main, pilot.__doc__)
