"""`python -m harness.status`: the state of every trial of a sweep."""

from harness.commands import status
from harness.errors import command

if __name__ == "harness.status":  # as an attribute of harness it would hide the function status
    raise ImportError("harness.status is a command: import harness.commands.status instead")
if __name__ == "__main__":
    command(status.main, status.__doc__)
