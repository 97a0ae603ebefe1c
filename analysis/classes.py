"""The accuracy of each class at the best magnitude, and what it changes against no augmentation.

python -m analysis.classes grid=quickstart                 # on the screen; also format=latex, ...
python -m analysis.classes grid=quickstart classes=all out=out/classes    # table.csv, the figure

It reads counts of each class from the store, so it takes a sweep (grid=), not a file of rows. The
magnitude of each size is chosen on validation by metric=; accuracies are those on test. By default
each size shows the 10 classes that the magnitude harms most; classes=N shows more of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from analysis import rows_file
from analysis.best import best_per_size
from analysis.class_accuracy import ClassResult, class_results, counts_of_stages
from analysis.columns import TOP1, header_of
from analysis.commands import TABLE_OPTIONS, output_folder, read_request, show, with_label
from analysis.provenance import setting, warnings
from analysis.render import (
    Column,
    Table,
    format_interval,
    format_seeds,
    format_value,
    in_unit,
    requested,
)
from harness.arguments import Option
from harness.errors import UserError, command
from harness.files import atomic_write, make_folder

OPTIONS = {
    **{name: option for name, option in TABLE_OPTIONS.items() if name != "rows"},
    "rows": TABLE_OPTIONS["rows"],  # refused with a sentence
    "classes": Option(default="10"),
    "out": Option(),
}


def classes_table(
    results: Sequence[ClassResult],
    notes: Sequence[str],
    most: int | None = None,
    settings: str = "",
    columns: Sequence[str] | None = None,
) -> Table:
    """Return the table of classes, the first `most` of each size; CSV has all of them."""
    shown: list[ClassResult] = []
    for result in results:
        if most is None or sum(other.size == result.size for other in shown) < most:
            shown.append(result)
    names = list(results[0].size) if results else []

    def column(name: str, header: str, cells: list[str], **numbers: list[Any]) -> Column:
        return Column(name, header, cells, numbers)

    sizes = [
        column(name, header_of(name), [format_value(r.size[name]) for r in shown],
               **{name: [r.size[name] for r in results]})
        for name in names
    ]  # fmt: skip
    available = [
        column("class", "class", [str(r.number) for r in shown],
               **{"class": [r.number for r in results]}),
        column("images", "test images", [f"{r.images:,}" for r in shown],
               images=[r.images for r in results]),
        column("none", "none", [format_interval(r.none, math.nan) for r in shown],
               none=[in_unit(r.none, TOP1) for r in results]),
        column("best", "best magnitude", [format_value(r.magnitude) for r in shown],
               best=[r.magnitude for r in results]),
        column("test", "test", [format_interval(r.best, math.nan) for r in shown],
               test=[in_unit(r.best, TOP1) for r in results]),
        column("change", "change", [format_interval(r.change, r.half, signed=True) for r in shown],
               change=[in_unit(r.change, TOP1) for r in results],
               change_half=[in_unit(r.half, TOP1) for r in results]),
    ]  # fmt: skip
    chosen = requested(available, columns)
    left_out = len(results) - len(shown)
    words = [
        "Accuracies of classes on test in percent, mean over seeds. Classes of a size are in order "
        "of the change against no augmentation, those that lose most first.",
        "Change: in points; ± is half of a 95 % t interval over seeds, which covers neither the "
        "finite test set nor the choice of these classes among all.",
        *([f"{left_out:,} classes are left out: classes=all shows them."] if left_out else []),
    ]
    return Table.of(
        [*sizes, *chosen],
        [*sizes, *(available if columns is None else chosen)],
        caption="Accuracy of classes at the best magnitude, chosen on validation and reported on "
        f"test{settings and f': {settings}'}.",
        notes=(*words, *notes),
        name="classes",
        strong="change",
    )


def _most(text: str) -> int | None:
    """Return how many classes of a size are shown; None for all."""
    if text == "all":
        return None
    if not text.isascii() or not text.isdigit() or not int(text):
        raise UserError(f"classes={text} is neither `all` nor a number of classes, such as 10")
    return int(text)


def main(args: list[str]) -> int:
    """Print the table; with `out`, also write it and the figure into that folder."""
    request = read_request(args, OPTIONS)
    frame, options = request.frame, request.options
    if options["rows"]:
        raise UserError(
            "a file of rows has no accuracy per class: name the sweep with grid=NAME and store=PATH"
        )
    most = _most(options["classes"])
    sizes = best_per_size(frame, request.by, request.metric)
    cells = [cell for size in sizes for cell in (size.best, size.none) if cell is not None]
    stages = {stage for cell in cells for stage in cell.stages}
    results = class_results(sizes, counts_of_stages(request.overrides, stages))
    seeds = format_seeds([len(cell.val) for cell in cells])
    settings = ", ".join(filter(None, (setting(frame), seeds)))
    notes = warnings(frame, request.by)
    table = classes_table(results, notes, most, settings, options["columns"])
    table = with_label(table, frame, options["label"])
    print(show(table, options["format"]))
    if options["out"] is not None:
        # here, because matplotlib takes longer to import than the table to make
        from analysis.drawing import save
        from analysis.figure_classes import change_per_class

        folder = make_folder(output_folder(options["out"]))
        atomic_write(folder / "table.tex", (show(table, "latex") + "\n").encode())
        written = [folder / "table.tex", *rows_file.write(table.frame(), folder, "table")]
        if (figure := change_per_class(results)) is not None:
            written += save(figure, folder / "change_per_class")
        for path in written:
            print(f"written: {path}")
    return 0


if __name__ == "__main__":
    command(main, __doc__)
