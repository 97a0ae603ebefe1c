"""`python -m harness.doctor`: what would keep a sweep from running."""

from harness.commands import doctor
from harness.errors import command

if __name__ == "__main__":
    command(doctor.main, doctor.__doc__, needs_arguments=False)
