"""The HTML of the report's page: its parts, and figures whose points show their numbers."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from analysis.drawing import TIP, render
from analysis.render import Table, html


def page(title: str, body: str) -> str:
    """Return the whole document, with style and script inside (`page.html`)."""
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), body=body)


def section(name: str, title: str, *parts: str) -> str:
    """Return a part of the page with its heading."""
    return "\n".join([f'<section id="{name}">', f"<h2>{escape(title)}</h2>", *parts, "</section>"])


def sortable(table: Table) -> str:
    """Return the table in a region that scrolls; the page's script makes its columns sortable."""
    label = f'role="region" aria-label="{escape(table.caption)}"'
    return f'<div class="scroll" {label} tabindex="0">\n{html(table)}\n</div>'


def figure(name: str, drawn: Figure, caption: str) -> str:
    """Return the figure as SVG in the page, with a list of the numbers of its points below."""
    svg, tips = _with_tooltips(_inline(render(drawn, "svg").decode(), name))
    items = "".join(f"<li>{tip}</li>" for tip in tips)  # already escaped, as attributes
    numbers = f"<details><summary>numbers</summary><ul>{items}</ul></details>" if tips else ""
    keys = ", arrow keys go through the points" if tips else ""
    return "\n".join(
        [
            f'<figure id="{name}">',
            f'<div class="plot" tabindex="0" role="group" aria-label="{escape(caption)}{keys}">',
            svg,
            "</div>",
            f"<figcaption>{escape(caption)}</figcaption>",
            numbers,
            "</figure>",
        ]
    )


def _inline(svg: str, name: str) -> str:
    """Return the SVG for use inside a page: without prolog, with ids that no other figure has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="(?!tip:)| xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _with_tooltips(svg: str) -> tuple[str, list[str]]:
    """Return the SVG with `data-tip` on the points that have a tooltip, and the tooltips' texts.

    Such a point gets an invisible circle that is large enough for a pointer.
    """
    tips: list[str] = []

    def point(match: re.Match[str]) -> str:
        text, content, x, y = match.groups()
        tips.append(text)
        target = f'<circle class="target" cx="{x}" cy="{y}" r="6"/>'
        return f'<g class="tip" data-tip="{text}">{content}{target}'

    pattern = (
        rf'<g id="{TIP}([^"]*)">((?:(?!<g id="{TIP}).)*?'
        r'<use [^>]*?x="([-\d.]+)" y="([-\d.]+)"[^>]*/>)'
    )
    return re.sub(pattern, point, svg, flags=re.DOTALL), tips
