"""From a command line and YAML files to frozen models; every mistake is named."""

from harness.config.checks import check_sections
from harness.config.command_line import load
from harness.config.grid_file import grid_files
from harness.config.launch import Launch

__all__ = ["Launch", "check_sections", "grid_files", "load"]
