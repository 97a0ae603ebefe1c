"""No additional parameters: the small network trains as it is deployed."""

from __future__ import annotations

from harness.compress.surplus.base import Form, register_form


class NoSurplus(Form):
    """See the module."""

    name = "none"


register_form(NoSurplus())
