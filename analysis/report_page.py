"""The HTML of the report's page: its parts, and figures whose points show their numbers."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from analysis.drawing import render
from analysis.render import Table, html


def page(title: str, body: str) -> str:
    """Return the whole document, with style and script inside (`page.html`)."""
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), body=body)


def sortable(table: Table) -> str:
    """Return the table in a region that scrolls; the page's script makes its columns sortable."""
    label = f'role="region" aria-label="{escape(table.caption)}"'
    return f'<div class="scroll" {label} tabindex="0">\n{html(table)}\n</div>'


def figure(name: str, drawn: Figure, caption: str) -> str:
    """Return the figure as SVG in the page; the page's script shows the numbers of its points."""
    svg = render(drawn, "svg").decode()
    svg = svg[svg.index("<svg") :]  # without prolog
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="| xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)  # ids of no other figure
    return "\n".join(
        [
            f'<figure id="{name}">',
            f'<div class="plot" tabindex="0" role="group" aria-label="{escape(caption)}">',
            svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1),
            "</div>",
            f"<figcaption>{escape(caption)}</figcaption>",
            "</figure>",
        ]
    )
