"""`python -m harness.launch`: train a grid, or resume it."""

from harness.commands import launch
from harness.errors import command

if __name__ == "harness.launch":  # as an attribute of harness it would hide the function launch
    raise ImportError("harness.launch is a command: import harness.commands.launch instead")
if __name__ == "__main__":
    command(launch.main, launch.usage)
