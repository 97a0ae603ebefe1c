r"""A table as LaTeX, ready for a paper: booktabs and siunitx, every string escaped.

A document that has \usepackage{booktabs,siunitx} takes it in with \input, and pdflatex compiles it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from analysis.render import Table

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$", "×": r"$\times$", "µ": r"$\mu$",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}",
    "Ł": r"\L{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ı": r"\i{}",
    '"': r"{\ttfamily\char34}",  # \textquotedbl is not in OT1, the encoding without fontenc
    "[": "{[}", "]": "{]}",  # at the start of a row [ would be an option of the \\ before it
}  # fmt: skip
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u",
    "\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
"""Combining marks, and the commands that put them on a letter in any font encoding."""
LONG = 30  # characters of a cell above which its column wraps
ROOM = 50  # characters of a row that fit into an `article` at its usual text size
VALUE = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?(?: ± (\d+)(?:\.(\d+))?)?", re.ASCII)


def escape(text: str) -> str:
    """Return the text without LaTeX commands; characters that pdflatex cannot print become `?`."""
    return "".join(map(_escape_character, text))


def _escape_character(character: str) -> str:
    if character in ESCAPES:
        return ESCAPES[character]
    if not character.isprintable():
        return " "
    return character if character.isascii() else _accented(character)


def _accented(character: str) -> str:
    r"""Return `é` as `\'{e}`; `?` for anything but a letter of the alphabet with one accent."""
    letter, *marks = list(unicodedata.normalize("NFD", character))
    if len(marks) != 1 or marks[0] not in ACCENTS or not (letter.isascii() and letter.isalpha()):
        return "?"
    bare = rf"\{letter}" if letter in "ij" else letter  # \i and \j: accents replace the dot
    return rf"\{ACCENTS[marks[0]]}{{{bare}}}"


def latex(table: Table) -> str:
    """Return a `table` environment: the strong column is bold, numbers align at their point."""
    columns = list(zip(table.header, table.columns(), strict=True))
    as_latex = [_column(name, cells, name == table.strong) for name, cells in columns]
    layouts = " ".join(layout for layout, _ in as_latex)
    cells_by_row = zip(*(cells for _, cells in as_latex), strict=True)
    head, *body = (f"    {' & '.join(cells)} \\\\" for cells in cells_by_row)
    letters = sum(min(max(map(len, (name, *cells))), LONG) for name, cells in columns)
    lines = [
        r"% needs \usepackage{booktabs,siunitx}",
        r"\begin{table}[t]",
        r"  \centering",
        r"  \sisetup{separate-uncertainty=true, retain-explicit-plus=true}",
        *([r"  \footnotesize\setlength{\tabcolsep}{2.5pt}"] if letters > ROOM else []),
        rf"  \caption{{{escape(table.caption)}}}",
        rf"  \label{{tab:{table.name}}}",
        rf"  \begin{{tabular}}{{@{{}}{layouts}@{{}}}}",
        r"    \toprule",
        head,
        r"    \midrule",
        *body,
        r"    \bottomrule",
        r"  \end{tabular}",
        r"  \par\medskip\footnotesize",
        *(rf"  {escape(note)}\par" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _column(name: str, cells: Sequence[str], is_strong: bool) -> tuple[str, list[str]]:
    """Return the layout of a column, and its header and cells as LaTeX."""
    if not is_strong and (layout := number_format(cells)):
        # text in a column of siunitx needs braces
        numbers = ["{--}" if cell == "-" else cell.replace(" ± ", " +- ") for cell in cells]
        return layout, [f"{{{escape(name)}}}", *numbers]
    bold = r"\textbf{%s}" if is_strong else "%s"
    texts = ["--" if cell == "-" else bold % escape(cell) for cell in cells]
    is_long = max(map(len, cells), default=0) > LONG
    return "p{4cm}" if is_long else "r", [escape(name), *texts]


def number_format(cells: Sequence[str]) -> str | None:
    """Return the siunitx column for `80.6 ± 1.8` and the like; None where a cell is other text."""
    matches = [VALUE.fullmatch(cell) for cell in cells if cell != "-"]
    parts = [match.groups(default="") for match in matches if match]
    if not parts or len(parts) < len(matches):
        return None
    sign = "+" if any(part[0] for part in parts) else ""
    whole, decimals = (max(len(part[at]) for part in parts) for at in (1, 2))
    uncertain = max(len((part[3] + part[4]).lstrip("0")) for part in parts)
    uncertainty = f"({uncertain})" if any(part[3] for part in parts) else ""
    return f"S[table-format={sign}{whole}.{decimals}{uncertainty}]"
