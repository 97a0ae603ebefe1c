"""`python -m harness.cancel`: take a sweep's jobs out of SLURM's queue."""

from harness.commands import cancel
from harness.errors import command

if __name__ == "harness.cancel":  # as an attribute of harness it would hide the function cancel
    raise ImportError("harness.cancel is a command: import harness.commands.cancel instead")
if __name__ == "__main__":
    command(cancel.main, cancel.__doc__)
