"""From a command line and YAML files to frozen models; every mistake is named."""

from harness.config.command_line import Launch, check_cell, check_sections, load
from harness.config.compose import grid_files

__all__ = ["Launch", "check_cell", "check_sections", "grid_files", "load"]
