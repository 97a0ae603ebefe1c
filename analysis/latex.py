r"""A table as LaTeX, ready for a paper: booktabs and siunitx, every string escaped.

A document that has \usepackage{booktabs,siunitx,tabularx} takes it in with \input.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Collection, Sequence
from typing import NamedTuple

from analysis.render import Table

ESCAPES = {
    "\u00a0": "~",
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
NO_BREAK = "\u00a0"
LONG = 15  # characters of a word that may break after one of these:
BREAK = re.compile(r"(?<=[_/,;+])(?=.)")
WIDTHS = {
    **dict.fromkeys(" .,:;'il|!()[]", 0.33), **dict.fromkeys("-jtfrsI/", 0.42),
    **dict.fromkeys("bdhknpquvxy", 0.6), **dict.fromkeys("mwMW%=+<>±≤≥", 0.9),
    **dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ", 0.76),
}  # fmt: skip
"""Widths of characters of Computer Modern in units of its size, rounded up; 0.53 for others."""
NARROW = 225  # points: a column of a two-column `article`; a wider table spans both columns
WIDE = 340  # points: the text of a one-column `article`
COMFORTABLE = 7.0  # width of a column of text that wraps, in units of the size of the font
SIZES = ((r"\small", 9, 6), (r"\footnotesize", 8, 3))  # command, points, space beside a column
SHORT = 7  # characters of a cell that is aligned to the right, and of a header in one line
VALUE = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?(?: ± (\d+)(?:\.(\d+))?)?", re.ASCII)


def escape(text: str, may_break: bool = False) -> str:
    """Return the text without LaTeX commands; characters that pdflatex cannot print become `?`.

    No line breaks before a unit or beside ±. With `may_break`, long words break at underscores etc.
    """
    text = re.sub(r" (?=[%±])|(?<=±) ", NO_BREAK, text)
    words = [
        r"\allowbreak{}".join("".join(map(_escape_character, part)) for part in parts)
        for word in text.split(" ")
        for parts in [_breakable(word) if may_break else [word]]
    ]
    return " ".join(words)


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
    """Return a `table` environment: the strong column is bold, numbers align at their point.

    It spans both columns of a two-column page if one is too narrow. If the text of a page is too
    narrow, the text is smaller, long texts wrap, and a table that is still too wide is scaled.
    """
    columns = [
        _Column.of(name, cells, name == table.strong)
        for name, cells in zip(table.header, table.columns(), strict=True)
    ]
    size, points, space = next(
        (choice for choice in SIZES if _natural(columns, *choice[1:]) <= WIDE), SIZES[-1]
    )
    wrapped = _wrapped(columns, points, space)
    natural = _natural(columns, points, space)
    fits = natural <= WIDE or _natural(columns, points, space, wrapped) <= WIDE
    environment = "table" if natural <= NARROW else "table*"
    layout = " ".join(
        _wrapped_layout(column, points, fits and at == wrapped[0])
        if at in wrapped
        else column.layout
        for at, column in enumerate(columns)
    )
    rows = zip(*(c.latex(at in wrapped) for at, c in enumerate(columns)), strict=True)
    head, *body = (f"    {' & '.join(cells)} \\\\" for cells in rows)
    tabular, width = ("tabularx", r"{\linewidth}") if wrapped and fits else ("tabular", "")
    packages = "booktabs,siunitx"
    packages += ",array,graphicx" if not fits else ",tabularx" if wrapped else ""
    lines = [
        rf"% needs \usepackage{{{packages}}}",
        rf"\begin{{{environment}}}[t]",
        r"  \centering",
        rf"  {size}\setlength{{\tabcolsep}}{{{space}pt}}\setlength{{\belowcaptionskip}}{{6pt}}",
        r"  \sisetup{separate-uncertainty=true, table-align-uncertainty=false,",
        r"    retain-explicit-plus=true}",
        rf"  \caption{{{escape(table.caption, may_break=True)}}}",
        rf"  \label{{{table.label or f'tab:{table.name}'}}}",
        *([] if fits else [r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]),
        rf"  \begin{{{tabular}}}{width}{{@{{}}{layout}@{{}}}}",
        r"    \toprule",
        head,
        r"    \midrule",
        *body,
        r"    \bottomrule",
        rf"  \end{{{tabular}}}" + ("" if fits else "}"),
        r"  \par\medskip",
        r"  \begin{minipage}{\linewidth}\footnotesize\raggedright",
        *(rf"    {escape(note, may_break=True)}\par" for note in table.notes),
        r"  \end{minipage}",
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines)


class _Column(NamedTuple):
    """A column of a table as LaTeX has it."""

    header: list[str]  # lines
    cells: Sequence[str]
    layout: str
    is_strong: bool

    @classmethod
    def of(cls, name: str, cells: Sequence[str], is_strong: bool) -> _Column:
        layout = number_format(cells) if not is_strong else None
        is_short = max(map(len, cells), default=0) <= SHORT
        widest = max(map(len, [*cells, *name.split()]), default=0)
        header = textwrap.wrap(name, max(widest, SHORT), break_long_words=False) or [""]
        return cls(header, cells, layout or ("r" if is_short else "l"), is_strong)

    def latex(self, is_wrapped: bool) -> list[str]:
        """Return the header and the cells."""
        header = r"\\".join(map(escape, self.header))
        if len(self.header) > 1:
            place = self.layout if self.layout in "rl" else "c"
            header = rf"\shortstack[{place}]{{{header}}}"
        if self.layout not in "rl":  # text in a column of siunitx needs braces
            numbers = ["{--}" if c == "-" else c.replace(" ± ", " +- ") for c in self.cells]
            return [f"{{{header}}}", *numbers]
        style = r"\textbf{%s}" if self.is_strong else "%s"
        return [header, *("--" if c == "-" else style % escape(c, is_wrapped) for c in self.cells)]

    def width(self, is_wrapped: bool) -> float:
        """Return an upper bound of the width, in units of the size of the font."""
        bold = 1.15 if self.is_strong else 1.0
        natural = max(*map(_width, self.header), *(bold * _width(cell) for cell in self.cells), 0.0)
        if not is_wrapped:
            return natural
        words = [word for text in (*self.header, *self.cells) for word in text.split()]
        pieces = [piece for word in words for piece in _breakable(word)]
        return max(min(natural, COMFORTABLE), *(bold * _width(piece) for piece in pieces), 0.0)


def _breakable(word: str) -> list[str]:
    """Return the pieces of a long word between which a line may break."""
    return BREAK.split(word) if len(word) > LONG else [word]


def _width(text: str) -> float:
    return sum(WIDTHS.get(character, 0.53) for character in text)


def _natural(
    columns: Sequence[_Column], points: float, space: float, wrapped: Collection[int] = ()
) -> float:
    """Return the width of the table in points, the columns at `wrapped` as narrow as can be."""
    widths = (column.width(at in wrapped) for at, column in enumerate(columns))
    return points * sum(widths) + 2 * space * (len(columns) - 1)


def _wrapped(columns: Sequence[_Column], points: float, space: float) -> list[int]:
    """Return which columns of text have to wrap, the longest first, for the table to fit."""
    texts = [at for at, column in enumerate(columns) if column.layout == "l"]
    texts.sort(key=lambda at: -columns[at].width(False))
    for count in range(len(texts)):
        if _natural(columns, points, space, texts[:count]) <= WIDE:
            return texts[:count]
    return texts


def _wrapped_layout(column: _Column, points: float, takes_the_rest: bool) -> str:
    """Return the layout of a column that wraps; one of the table takes the rest of the line."""
    width = "X" if takes_the_rest else f"p{{{points * column.width(True):.0f}pt}}"
    return rf">{{\raggedright\arraybackslash}}{width}"


def number_format(cells: Sequence[str]) -> str | None:
    """Return the siunitx column for `80.6 ± 1.8` and the like; None where a cell is other text."""
    matches = [VALUE.fullmatch(cell) for cell in cells if cell != "-"]
    parts = [match.groups(default="") for match in matches if match]
    if not parts or len(parts) < len(matches):
        return None
    sign = "+" if any(part[0] for part in parts) else ""
    whole, decimals = (max(len(part[at]) for part in parts) for at in (1, 2))
    uncertain = [(len(part[3]), len(part[4])) for part in parts if part[3]]
    uncertainty = ""
    if uncertain:
        uncertainty = "({}.{})".format(*map(max, zip(*uncertain, strict=True)))
    return f"S[table-format={sign}{whole}.{decimals}{uncertainty}]"
