"""Pieces of the report's page: sortable tables and figures whose points tell their numbers."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from analysis.drawing import TIP, render
from analysis.render import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBER = re.compile(r"[<>≤≥]?([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)([kMG]?)(?=$|[ ,;])")
WIDE = 12  # characters; a column with longer words in it is text
TEXT = ' class="text"'
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


def page(title: str, body: str) -> str:
    """The whole document, with style and script inside."""
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), body=body)


def section(name: str, title: str, *parts: str) -> str:
    """A part of the page with its heading."""
    return "\n".join([f'<section id="{name}">', f"<h2>{escape(title)}</h2>", *parts, "</section>"])


def sortable(shown: Table) -> str:
    """The table with a button in each header; `data-sort` has the number that a cell shows."""

    worded = [
        any(len(text) > WIDE and not NUMBER.match(text) for text in cells)
        for cells in (zip(*shown.rows, strict=True) if shown.rows else [()] * len(shown.header))
    ]

    def cell(name: str, text: str, words: bool) -> str:
        found = NUMBER.match(text)
        key = f' data-sort="{float(found[1]) * UNITS[found[2]]:.10g}"' if found else ""
        told = escape(text)
        if name == shown.strong and text != "-":
            told = f"<strong>{told}</strong>"
        return f"<td{key}{TEXT if words else ''}>{told}</td>"

    head = "".join(
        f'<th scope="col"{TEXT if words else ""}><button type="button">{escape(name)}</button></th>'
        for name, words in zip(shown.header, worded, strict=True)
    )
    body = [f"<tr>{''.join(map(cell, shown.header, row, worded))}</tr>" for row in shown.rows]
    notes = "".join(f"<li>{escape(note)}</li>" for note in shown.notes)
    return "\n".join(
        [
            f'<div class="scroll" role="region" aria-labelledby="{shown.name}-caption" '
            'tabindex="0">',
            f'<table id="{shown.name}">',
            f'<caption id="{shown.name}-caption">{escape(shown.caption)}</caption>',
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *body,
            "</tbody>",
            "</table>",
            "</div>",
            *([f'<ul class="notes">{notes}</ul>'] if notes else []),
        ]
    )


def figure(name: str, drawn: Figure, caption: str) -> str:
    """The figure as SVG in the page; its points are listed below it, too."""
    picture, tips = _points(_inline(render(drawn, "svg").decode(), name))
    listed = "".join(f"<li>{tip}</li>" for tip in tips)  # escaped as an attribute already
    numbers = f"<details><summary>numbers</summary><ul>{listed}</ul></details>" if tips else ""
    keys = ", arrow keys go through the points" if tips else ""
    return "\n".join(
        [
            f'<figure id="{name}">',
            f'<div class="plot" tabindex="0" role="group" aria-label="{escape(caption)}{keys}">',
            picture,
            "</div>",
            f"<figcaption>{escape(caption)}</figcaption>",
            numbers,
            "</figure>",
        ]
    )


def _inline(svg: str, name: str) -> str:
    """SVG for the inside of a page: no prolog, and ids that no other figure has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="(?!tip:)| xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _points(svg: str) -> tuple[str, list[str]]:
    """Points that carry a text become groups with `data-tip`, large enough for a pointer."""
    tips: list[str] = []

    def point(found: re.Match[str]) -> str:
        tips.append(found[1])
        target = f'<circle class="target" cx="{found[3]}" cy="{found[4]}" r="6"/>'
        return f'<g class="tip" data-tip="{found[1]}">{found[2]}{target}'

    pattern = (
        rf'<g id="{TIP}([^"]*)">((?:(?!<g id="{TIP}).)*?'
        r'<use [^>]*?x="([-\d.]+)" y="([-\d.]+)"[^>]*/>)'
    )
    return re.sub(pattern, point, svg, flags=re.DOTALL), tips
