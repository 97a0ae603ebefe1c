"""`python -m harness.difficulty`: how difficult augmentations are for a trained network."""

from harness.commands import difficulty
from harness.errors import command

if __name__ == "__main__":
    command(difficulty.main, difficulty.__doc__)
