r"""The table as LaTeX: booktabs and siunitx, every string escaped, nothing to mend by hand.

The text compiles with pdflatex by \input after \usepackage{booktabs,siunitx}, and as a document of
its own with `standalone`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from analysis.render import Table

ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "×": r"$\times$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\ttfamily\char34}",  # \textquotedbl is not in OT1, the encoding without fontenc
    "µ": r"$\mu$",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ı": r"\i{}",
    "[": "{[}",  # at the start of a row it would be the option of the line break before
    "]": "{]}",
}
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u",
    "\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
"""Combining marks, and the commands that set them on a letter in any encoding."""
LONG = 30  # characters of text that stay on one line
ROOM = 50  # characters of a row that a column of `article` holds at its usual size
VALUE = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?(?: ± (\d+)(?:\.(\d+))?)?")


def escape(text: str) -> str:
    """Text in which LaTeX finds no command; what pdflatex cannot print becomes `?`."""
    out = []
    for character in text:
        if character in ESCAPES:
            out.append(ESCAPES[character])
        elif not character.isprintable():
            out.append(" ")
        else:
            out.append(character if character.isascii() else _accented(character))
    return "".join(out)


def _accented(character: str) -> str:
    r"""`é` as `\'{e}`; `?` for what is no letter of the alphabet with an accent."""
    letter, *marks = list(unicodedata.normalize("NFD", character))
    if len(marks) != 1 or marks[0] not in ACCENTS or not (letter.isascii() and letter.isalpha()):
        return "?"
    bare = rf"\{letter}" if letter in "ij" else letter  # an accent takes the place of the dot
    return rf"\{ACCENTS[marks[0]]}{{{bare}}}"


def latex(shown: Table) -> str:
    """A `table` environment; the best is bold, numbers stand below each other at their point."""
    columns = list(zip(*shown.rows, strict=True)) if shown.rows else [()] * len(shown.header)
    formats = [
        None if name == shown.strong else number_format(cells)
        for name, cells in zip(shown.header, columns, strict=True)
    ]
    wide = [max(map(len, cells), default=0) > LONG for cells in columns]
    layouts = [f or ("p{4cm}" if long else "r") for f, long in zip(formats, wide, strict=True)]
    letters = sum(
        min(max(map(len, (name, *cells))), LONG)
        for name, cells in zip(shown.header, columns, strict=True)
    )
    head = [
        rf"{{{escape(name)}}}" if layout else escape(name)
        for name, layout in zip(shown.header, formats, strict=True)
    ]
    lines = [
        r"% needs \usepackage{booktabs,siunitx}",
        r"\begin{table}[t]",
        r"  \centering",
        r"  \sisetup{separate-uncertainty=true, retain-explicit-plus=true}",
        *([r"  \footnotesize\setlength{\tabcolsep}{2.5pt}"] if letters > ROOM else []),
        rf"  \caption{{{escape(shown.caption)}}}",
        rf"  \label{{tab:{shown.name}}}",
        rf"  \begin{{tabular}}{{@{{}}{' '.join(layouts)}@{{}}}}",
        r"    \toprule",
        "    " + " & ".join(head) + r" \\",
        r"    \midrule",
    ]
    for row in shown.rows:
        cells = [
            _in_column(cell, layout, name == shown.strong)
            for name, cell, layout in zip(shown.header, row, formats, strict=True)
        ]
        lines.append("    " + " & ".join(cells) + r" \\")
    lines += [r"    \bottomrule", r"  \end{tabular}", r"  \par\medskip\footnotesize"]
    lines += [rf"  {escape(note)}\par" for note in shown.notes]
    return "\n".join([*lines, r"\end{table}"])


def number_format(cells: Sequence[str]) -> str | None:
    """The siunitx column for `80.6 ± 1.8` and the like; None where a cell is other text."""
    found = [VALUE.fullmatch(cell) for cell in cells if cell != "-"]
    parts = [match.groups(default="") for match in found if match]
    if not parts or len(parts) < len(found):
        return None
    sign = "+" if any(part[0] for part in parts) else ""
    whole, decimals = (max(len(part[at]) for part in parts) for at in (1, 2))
    uncertain = max(len((part[3] + part[4]).lstrip("0")) for part in parts)
    tail = f"({uncertain})" if any(part[3] for part in parts) else ""
    return f"S[table-format={sign}{whole}.{decimals}{tail}]"


def _in_column(cell: str, layout: str | None, strong: bool) -> str:
    if layout:
        return "{--}" if cell == "-" else cell.replace(" ± ", " +- ")
    text = "--" if cell == "-" else escape(cell)
    return rf"\textbf{{{text}}}" if strong and cell != "-" else text


def standalone(shown: Table) -> str:
    """A whole document that holds the table."""
    return "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage[T1]{fontenc}",
            r"\usepackage[utf8]{inputenc}",
            r"\usepackage{booktabs,siunitx}",
            r"\usepackage[margin=2cm,landscape]{geometry}",
            r"\begin{document}",
            latex(shown),
            r"\end{document}",
            "",
        ]
    )
