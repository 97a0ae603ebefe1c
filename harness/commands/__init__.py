"""The commands: each parses its arguments, calls the packages below, and prints.

`python -m harness.launch` and its like are files of a few lines beside this package.
"""
