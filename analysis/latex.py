r"""The table as LaTeX: booktabs, every string escaped, nothing to mend by hand.

The text compiles with pdflatex by \input after \usepackage{booktabs}, and as a document of its own
with `standalone`.
"""

from __future__ import annotations

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
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


def escape(text: str) -> str:
    """Text in which LaTeX finds no command; what pdflatex cannot print becomes `?`."""
    out = []
    for character in text:
        if character in ESCAPES:
            out.append(ESCAPES[character])
        elif not character.isprintable():
            out.append(" ")
        elif character.isascii() or (character.isalpha() and ord(character) <= 0x17F):
            out.append(character)
        else:
            out.append("?")
    return "".join(out)


def latex(shown: Table, label: str = "tab:best-magnitude") -> str:
    """A `table` environment; the best magnitude is bold, minus signs are real ones."""
    lines = [
        r"\begin{table}[t]",
        r"  \centering",
        rf"  \caption{{{escape(shown.caption)}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{{'r' * len(shown.header)}}}",
        r"    \toprule",
        "    " + " & ".join(escape(name) for name in shown.header) + r" \\",
        r"    \midrule",
    ]
    bold = shown.header.index("best")
    for row in shown.rows:
        cells = [_number(cell) for cell in row]
        if row[bold] != "-":
            cells[bold] = rf"\textbf{{{cells[bold]}}}"
        lines.append("    " + " & ".join(cells) + r" \\")
    lines += [r"    \bottomrule", r"  \end{tabular}", r"  \par\medskip\footnotesize"]
    lines += [rf"  {escape(note)}\par" for note in shown.notes]
    return "\n".join([*lines, r"\end{table}"])


def _number(cell: str) -> str:
    text = escape(cell)
    return f"$-${text[1:]}" if cell.startswith("-") and cell[1:2].isdigit() else text


def standalone(shown: Table) -> str:
    """A whole document that holds the table."""
    return "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage[T1]{fontenc}",
            r"\usepackage[utf8]{inputenc}",
            r"\usepackage{booktabs}",
            r"\usepackage[margin=2cm,landscape]{geometry}",
            r"\begin{document}",
            latex(shown),
            r"\end{document}",
            "",
        ]
    )
