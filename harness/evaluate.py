"""`python -m harness.evaluate`: evaluate finished networks on other images than their own."""

from harness.commands import evaluate
from harness.errors import command

if __name__ == "__main__":
    command(evaluate.main, evaluate.__doc__)
