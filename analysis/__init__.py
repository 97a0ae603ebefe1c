"""From rows to tables: reads results only, never imports torch.

In a notebook the modules are functions, too (`analysis.notebook` says which arguments they take):

    from analysis import rows, best, table, claims
    frame = rows("rows.csv")            # or rows(grid="quickstart")
    best(frame), claims(frame)          # DataFrames
    table(frame, by=["width"])          # as a notebook shows it
"""

import sys
from types import ModuleType
from typing import Any


class Verb(ModuleType):
    """A module that can be called: what it then does is in `analysis.notebook`.

    `from analysis import rows` gives the module of that name, whatever else is called `rows`.
    """

    def __call__(self, *args: Any, **named: Any) -> Any:
        """The function of the same name in `analysis.notebook`."""
        from analysis import notebook

        return getattr(notebook, self.__name__.rpartition(".")[2])(*args, **named)


def callable_module(name: str) -> None:
    """Let the module `name` be called."""
    sys.modules[name].__class__ = Verb
