"""The best augmentation magnitude for each size: chosen on validation, reported on test.

python -m analysis.table grid=quickstart                     # on the screen
python -m analysis.table grid=quickstart format=latex        # also markdown, csv, html
python -m analysis.table rows=rows.csv by=width where="sparsity == 0" metric=loss
python -m analysis.table grid=quickstart columns=best,val,test,seeds label=tab:quick format=latex
python -m analysis.table grid=quickstart out=out/quickstart  # table.tex, .csv, rows.csv, the figure
python -m analysis.table grid=quickstart targets=true        # clean, worst class, corrupted

columns= chooses from params, epochs, examples, best, ties, open, ruled_out, optimum, val, test,
sampling, gain, seeds, incomplete and differs_in. By default val, sampling and columns without
content are left out; CSV has all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from typing import Any

from analysis import rows_file
from analysis.best import SizeResult, best_per_size, seed_counts
from analysis.cells import LENGTHS
from analysis.columns import NONE, TOP1, Metric, header_of, in_singular, on_one_line
from analysis.commands import TABLE_OPTIONS, output_folder, read_request, show, with_label
from analysis.provenance import setting, warnings
from analysis.render import (
    Column,
    Table,
    format_count,
    format_interval,
    format_levels,
    format_optimum,
    format_range,
    format_score,
    format_seeds,
    format_value,
    in_unit,
    requested,
)
from analysis.targets import targets_table
from harness.arguments import Option
from harness.errors import UserError, command
from harness.files import atomic_write, make_folder
from harness.statistics import NORMAL_QUANTILE, Optimum

OPTIONS = {**TABLE_OPTIONS, "out": Option(), "targets": Option(bool, default=False)}
NO_OPTIMUM = Optimum(math.nan, math.nan, math.nan, (math.nan, math.nan))
NO_RANGE = (math.nan, math.nan)


def numbers(results: Sequence[SizeResult], metric: Metric = TOP1) -> dict[str, list[Any]]:
    """Return the columns of all results as numbers, scores in the unit of `metric`.

    A column `..._half` is the half-width of a 95 % interval; `sampling_half` is that of the test
    result that is due to the finite number of test images. What is not known is NaN.
    """
    rows = [_numbers_of(result, metric) for result in results]
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _numbers_of(result: SizeResult, metric: Metric) -> dict[str, Any]:
    best, cells = result.best, result.cells
    optimum = result.optimum or NO_OPTIMUM
    if best and best.magnitude == NONE:  # the curve's maximum is not the optimum
        optimum = NO_OPTIMUM
    scores = {
        "val": best.mean_val if best else math.nan,
        "test": result.test,
        "test_half": result.test_half,
        "sampling_half": _sampling_half(result, metric),
        "gain": result.gain,
        "gain_half": result.gain_half,
    }
    seeds = _seed_counts(result)
    return {
        "params_nonzero": math.nan if result.params is None else result.params,
        **{
            f"{name}_{end}": value
            for name in LENGTHS
            for end, value in zip(("min", "max"), result.ranges.get(name, NO_RANGE), strict=True)
        },
        "best": best.magnitude if best else None,
        "ties": result.ties,
        "open": result.open,
        "ruled_out": result.ruled_out,
        "optimum": round(optimum.at, 4),
        "optimum_low": round(optimum.low, 4),
        "optimum_high": round(optimum.high, 4),
        **{name: in_unit(value, metric) for name, value in scores.items()},
        "seeds_min": min(seeds, default=0),
        "seeds_max": max(seeds, default=0),
        "missing": sum(cell.missing for cell in cells),
        "diverged": sum(cell.diverged for cell in cells),
        "differs_in": result.differs_in,
    }


def _sampling_half(result: SizeResult, metric: Metric) -> float:
    """Return half of the 95 % interval that is due to the finite number of test images."""
    images, _ = result.ranges.get("test_images", NO_RANGE)
    if metric.name != TOP1.name or not images > 0:
        return math.nan
    error = math.sqrt(result.test * (1 - result.test) / images)
    return NORMAL_QUANTILE * error


def best_table(
    results: Sequence[SizeResult],
    extra_notes: Sequence[str],
    metric: Metric = TOP1,
    settings: str = "",
    columns: Sequence[str] | None = None,
) -> Table:
    """Return the table of the best magnitude for each size, with notes on how to read it.

    `settings` are what all trials have in common. `columns` are those that the user asks for; by
    default columns without content are left out.
    """
    names = list(results[0].size) if results else []
    sizes = [
        Column(name, header_of(name), [format_value(r.size[name]) for r in results],
               {name: [r.size[name] for r in results]})
        for name in names
    ]  # fmt: skip
    available = _columns(results, metric, names)
    shown = requested(available, columns)
    words = [in_singular(name) for name in names if name != "dense_long"]
    each = " and ".join([", ".join(words[:-1]), *words[-1:]] if words[1:] else words)
    subject = f"Best augmentation magnitude{each and f' for each {each}'}"
    details = ", ".join(filter(None, (settings, format_seeds(seed_counts(results)))))
    return Table.of(
        [*sizes, *shown],
        [*sizes, *(available if columns is None else shown)],
        caption=f"{subject}, chosen on validation and reported on test: {details}.",
        notes=(*_notes(results, metric, {column.name for column in shown}), *extra_notes),
        name="best-magnitude",
        strong="best magnitude",
    )


def _columns(results: Sequence[SizeResult], metric: Metric, sizes: Sequence[str]) -> list[Column]:
    """Return every column but those of the sizes."""
    values = numbers(results, metric)

    def column(
        name: str, header: str, cells: Sequence[str], *keys: str, is_shown: bool | None = None
    ) -> Column:
        held = {key: values.get(key, []) for key in keys or (name,)}
        has_content = any(cell != "-" for cell in cells)
        return Column(name, header, cells, held, has_content if is_shown is None else is_shown)

    def levels(result: SizeResult, magnitudes: Sequence[float | str]) -> str:
        return format_levels(magnitudes, [cell.magnitude for cell in result.cells]) or "-"

    def score(value: float, half: float = math.nan, signed: bool = False) -> str:
        return format_interval(value, half, metric, signed)

    best = [result.best.magnitude if result.best else None for result in results]
    params = [format_count(result.params) for result in results]
    ties = [levels(r, r.ties if len(r.ties) > 1 else ()) for r in results]
    open_cells = [levels(r, r.open) for r in results]
    ruled_out = [levels(r, r.ruled_out) for r in results]
    optima = [format_optimum(r.optimum, m) for r, m in zip(results, best, strict=True)]
    tests = [score(r.test, r.test_half) for r in results]
    gains = [score(r.gain, r.gain_half, signed=True) for r in results]
    validation = [score(r.best.mean_val) if r.best else "-" for r in results]
    sampling = [score(_sampling_half(result, metric)) for result in results]
    seeds, gaps = list(map(_seeds, results)), list(map(_incomplete, results))
    differs = [", ".join(map(on_one_line, r.differs_in)) or "-" for r in results]

    epochs, examples = (
        [format_range(*r.ranges[name]) if name in r.ranges else "-" for r in results]
        for name in LENGTHS
    )
    # examples are shown only if sizes with equal epochs differ in them
    pairs = {pair for pair in zip(epochs, examples, strict=True) if pair[1] != "-"}
    lengths = {
        "epochs": len({*epochs} - {"-"}) > 1 and "epochs" not in sizes,
        "examples": len(pairs) > len({epoch for epoch, _ in pairs}),
    }
    params_shown = False if "params_nonzero" in sizes else None
    return [
        column("params", "parameters", params, "params_nonzero", is_shown=params_shown),
        *(
            column(name, name, cells, f"{name}_min", f"{name}_max", is_shown=lengths[name])
            for name, cells in zip(LENGTHS, (epochs, examples), strict=True)
        ),
        column("best", "best magnitude", list(map(format_value, best)), is_shown=True),
        column("ties", "ties", ties, is_shown=True),
        column("open", "open", open_cells),
        column("ruled_out", "ruled out", ruled_out),
        column("optimum", "smooth optimum", optima, "optimum", "optimum_low", "optimum_high"),
        column("val", "validation", validation, is_shown=False),
        column("test", "test", tests, "test", "test_half", is_shown=True),
        column("sampling", "± of the test set", sampling, "sampling_half", is_shown=False),
        column("gain", "gain", gains, "gain", "gain_half"),
        column("seeds", "seeds", seeds, "seeds_min", "seeds_max", is_shown=len({*seeds}) > 1),
        column("incomplete", "incomplete", gaps, "missing", "diverged"),
        column("differs_in", "differs in", differs),
    ]


def _seeds(result: SizeResult) -> str:
    counts = _seed_counts(result)
    return format_range(min(counts, default=0), max(counts, default=0))


def _seed_counts(result: SizeResult) -> list[int]:
    """Return the number of finished seeds of each magnitude that was not ruled out."""
    return [len(cell.val) for cell in result.cells if not cell.is_ruled_out]


def _incomplete(result: SizeResult) -> str:
    """Return `0.5: 1 missing, 0.8: 1 diverged`: the cells that do not have all their seeds."""
    parts = []
    for cell in result.cells:
        missing = [f"{cell.missing} missing"] if cell.missing else []
        diverged = [f"{cell.diverged} diverged"] if cell.diverged else []
        if missing or diverged:
            parts.append(f"{format_value(cell.magnitude)}: {', '.join([*missing, *diverged])}")
    return "; ".join(parts) or "-"


def _notes(results: Sequence[SizeResult], metric: Metric, shown: Set[str]) -> list[str]:
    """Return how to read the columns that are `shown`."""
    lower = "" if metric.sign > 0 else "; lower is better, and a positive gain is an improvement"
    has_half = any(not math.isnan(result.test_half) for result in results)
    spread = (
        ". ± is half of a 95 % t interval that allows for the choice among the ties; it covers the "
        f"seeds, not the finite test set{_sampling(results, metric)}"
        if has_half and shown & {"test", "gain"}
        else ""
    )
    notes = [f"{metric.words}, mean over seeds{lower}{spread}."]
    if "best" in shown:
        notes.append(_rule(results, metric))
    is_single = not has_half and any(result.best for result in results)
    if "ties" in shown and is_single:
        notes.append("Ties: every magnitude, because one seed cannot show that one is worse.")
    elif "ties" in shown:
        notes.append(
            "Ties: the best and all magnitudes that are statistically indistinguishable from it "
            f"on validation (one-sided t tests at 5 %, Bonferroni).{_power(results, metric)}"
        )
    if "open" in shown:
        notes.append(
            "Open: magnitudes of which no seed is done or some diverged, and which may be better."
        )
    if "ruled_out" in shown:
        counts = [len(result.ruled_out) for result in results]
        total = [len(result.cells) for result in results]
        notes.append(
            f"Ruled out: {format_range(min(counts), max(counts))} of the "
            f"{format_range(min(total), max(total))} magnitudes of a size, which the rule of the "
            "sweep (settle) did not train, because by its results they are not better than the "
            "best by more than its tolerance."
        )
    if "gain" in shown:
        unit = metric.difference_unit
        notes.append(f"Gain: test result compared with no augmentation (none), in {unit}.")
    if "optimum" in shown:
        notes.append(
            "Smooth optimum: where a curve through the validation means is highest, with its 95 % "
            "interval, which holds the ties. ≤ and ≥: the optimum may lie outside the grid. The "
            "magnitude none counts as lower than all others; if it is best, only a bound is known."
        )
    return notes


def _rule(results: Sequence[SizeResult], metric: Metric) -> str:
    """Return how the best magnitude was chosen, as a sentence."""
    highest = "highest mean" if metric.sign > 0 else "lowest mean"
    by_curve = {result.is_by_curve for result in results if result.best}
    if True not in by_curve:
        return f"Best: {highest} on validation."
    other = f"; at sizes without such a curve, the {highest}" if False in by_curve else ""
    return (
        "Best: lowest expected loss on the smooth curve through the validation means, among the "
        f"magnitudes that tie with the {highest}{other}."
    )


def _power(results: Sequence[SizeResult], metric: Metric) -> str:
    """Return which differences between two magnitudes these seeds find, as a sentence."""
    differences = [r.detectable for r in results if not math.isnan(r.detectable)]
    if not differences:
        return ""
    low, high = (format_score(end(differences), metric) for end in (min, max))
    unit = metric.difference_unit
    shown = f"{low} {unit}" if low == high else f"{low} to {high} {unit}, depending on the size,"
    return f" A difference of {shown} would be found with 80 % power."


def _sampling(results: Sequence[SizeResult], metric: Metric) -> str:
    """Return ` (10,000 images: ± 0.7)`, as far as the rows say how many images there are."""
    images = [r.ranges["test_images"] for r in results if "test_images" in r.ranges]
    halves = [half for r in results if not math.isnan(half := _sampling_half(r, metric))]
    if not halves:
        return ""
    count = format_range(min(low for low, _ in images), max(high for _, high in images))
    return f" ({count} images: another ± {format_score(max(halves), metric)})"


def main(args: list[str]) -> int:
    """Print the table; with `out`, also write it with its rows and figure into that folder."""
    request = read_request(args, OPTIONS)
    frame, metric, options = request.frame, request.metric, request.options
    notes = warnings(frame, request.by)
    if options["targets"]:
        if metric is not TOP1 or options["out"] is not None:
            raise UserError(
                "targets=true shows every target on the screen: leave metric=, out= out"
            )
        table = targets_table(frame, request.by, notes, setting(frame), options["columns"])
        print(show(with_label(table, frame, options["label"]), options["format"]))
        return 0
    results = best_per_size(frame, request.by, metric)
    table = best_table(results, notes, metric, setting(frame), options["columns"])
    table = with_label(table, frame, options["label"])
    print(show(table, options["format"]))
    if options["out"] is not None:
        # here, because matplotlib takes longer to import than the table to make
        from analysis.drawing import save
        from analysis.figure_magnitude import accuracy_against_magnitude
        from analysis.figure_text import with_lengths

        folder = make_folder(output_folder(options["out"]))
        atomic_write(folder / "table.tex", (show(table, "latex") + "\n").encode())
        tables = rows_file.write(table.frame(), folder, "table")
        figure = accuracy_against_magnitude(with_lengths(results), metric)
        pictures = save(figure, folder / "accuracy_against_magnitude")
        for path in (folder / "table.tex", *tables, *rows_file.write(frame, folder), *pictures):
            print(f"written: {path}")
    return 0


if __name__ == "__main__":
    command(main, __doc__)
