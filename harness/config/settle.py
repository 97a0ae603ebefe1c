"""Reads the rule `settle` of a grid, and refuses grids that the rule cannot be applied to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from harness.errors import nearest
from harness.sweep.axes import LONG, axis_path
from harness.sweep.grid import Grid
from harness.sweep.mistakes import Mistakes
from harness.sweep.settle import Metric, SettleConfig
from harness.sweep.targets import SCORES

EXAMPLE = "{within: 0.3, seeds: [2, 10]}"
FULL_GRID = "or train the full grid with settle=false"
MAGNITUDE, SEED = "augment.magnitude", "seed"  # key paths; all other axes say which size it is
SMALLEST = 0.01  # points: one image of 10,000


def read_settle(
    config: Mapping[str, Any], grid: Grid, evaluate: Sequence[str], mistakes: Mistakes
) -> SettleConfig | None:
    """Return the rule of a composed grid, or None where there is none or it is `false`.

    `evaluate` are the targets that results are evaluated on when their training ends. Collects what
    is wrong with the rule, and with the axes for it.
    """
    value = config.get("settle")
    if value is None or value is False:
        return None
    if not isinstance(value, Mapping):
        sentence = f"must be a rule such as {EXAMPLE}, or false, not {value!r}"
        mistakes.add("settle", sentence)
        return None
    for key in value:
        if key not in SettleConfig.model_fields:
            mistakes.add_unknown_key(f"settle.{key}", str(key), list(SettleConfig.model_fields))
    within = _read_within(value, mistakes)
    seeds = _read_seeds(value, mistakes)
    metric = _read_metric(value, evaluate, mistakes)
    _check_axes(config, grid, seeds, mistakes)
    if within is None or seeds is None or metric is None:
        return None
    return SettleConfig(within=within, seeds=seeds, metric=metric)


def is_size(name: str) -> bool:
    """Return whether a name of `where=` says which size a trial has, not which cell of it."""
    return (axis_path(name) or name) not in (MAGNITUDE, SEED, "state", "trial")


def _read_within(rule: Mapping[str, Any], mistakes: Mistakes) -> float | None:
    value = rule.get("within")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 100:
        sentence = (
            "must be the points of accuracy that make no difference, above 0 and below 100, such "
            f"as 0.3, not {value!r}"
        )
        mistakes.add("settle.within", sentence)
        return None
    if value < SMALLEST:
        sentence = (
            f"{value:g} points cannot be measured; the key counts points, not a share: "
            f"write {100 * value:g}"
        )
        mistakes.add("settle.within", sentence)
        return None
    return float(value)


def _read_metric(
    rule: Mapping[str, Any], evaluate: Sequence[str], mistakes: Mistakes
) -> Metric | None:
    value = rule.get("metric", "top1")
    valid = get_args(Metric)
    if value not in valid:
        sentence = f"must be one of {', '.join(valid)}, not {value!r}{nearest(str(value), valid)}"
        mistakes.add("settle.metric", sentence)
        return None
    target = next((name for name, score in SCORES.items() if score == value), None)
    if target is not None and target not in evaluate:
        sentence = (
            f"{value} needs results that are evaluated when their training ends: add "
            f"evaluate: [{target}] to the grid"
        )
        mistakes.add("settle.metric", sentence)
        return None
    metric: Metric = value
    return metric


def _read_seeds(rule: Mapping[str, Any], mistakes: Mistakes) -> tuple[int, int] | None:
    value = rule.get("seeds")
    counts = value if isinstance(value, list | tuple) else ()
    if len(counts) != 2 or not all(type(count) is int and count > 0 for count in counts):
        sentence = (
            "must be two whole numbers, the first and the most seeds of a magnitude, such as "
            f"[2, 10], not {value!r}"
        )
        mistakes.add("settle.seeds", sentence)
        return None
    first, most = counts
    if first > most:
        sentence = (
            f"the first {first} seeds are more than the most, {most}: write [{most}, {first}]"
        )
        mistakes.add("settle.seeds", sentence)
        return None
    return first, most


def _check_axes(
    config: Mapping[str, Any], grid: Grid, seeds: tuple[int, int] | None, mistakes: Mistakes
) -> None:
    """Collect why the rule cannot choose magnitudes and seeds of these axes."""
    by_path: dict[str, list[Any]] = {}
    for place, names in _groups_of_axes(config):
        paths = {axis_path(str(name)): str(name) for name in names}
        for path, name in paths.items():
            if path is not None and isinstance(names[name], list):
                by_path.setdefault(path, []).extend(names[name])
        if place.endswith("axes") or len(paths) == 1:
            continue
        for path in (MAGNITUDE, SEED):
            if path in paths:
                others = ", ".join(name for key, name in paths.items() if key != path)
                sentence = (
                    f"moves {paths[path]} together with {others}, and settle chooses it by itself: "
                    f"list {paths[path]} under axes, {FULL_GRID}"
                )
                mistakes.add(place, sentence)
    for path, example in ((MAGNITUDE, "[none, 0.2, 0.4]"), (SEED, "[0, 1, 2]")):
        if path not in by_path:
            name = LONG.get(path, path)
            sentence = f"chooses among values of the axis {name}, which this grid does not have: "
            mistakes.add("settle", f"{sentence}add axes.{name}={example}, {FULL_GRID}")
    magnitudes = _distinct(by_path.get(MAGNITUDE, []))
    if len(magnitudes) == 1:
        sentence = "chooses among magnitudes, and axes.magnitude has one value: list more, "
        mistakes.add("settle", sentence + FULL_GRID)
    count = len(_distinct(by_path.get(SEED, [])))
    if seeds is not None and 0 < count < seeds[1]:
        sentence = (
            f"up to {seeds[1]} seeds of a magnitude, and axes.seed has {count}: list more seeds, "
            f"or write [{min(seeds[0], count)}, {count}]"
        )
        mistakes.add("settle.seeds", sentence)
    _refuse_keys_of_blocks(config, grid, mistakes)


def _refuse_keys_of_blocks(config: Mapping[str, Any], grid: Grid, mistakes: Mistakes) -> None:
    """Refuse keys that a block of `also` sets and that are no axis, by which sizes would differ."""
    also = config.get("also")
    for number, block in enumerate(also if isinstance(also, list) else []):
        fixed = block.get("set") if isinstance(block, Mapping) else None
        for key, value in fixed.items() if isinstance(fixed, Mapping) else ():
            path = axis_path(str(key))
            if path is not None and LONG.get(path, path) not in grid.axes:
                sentence = (
                    "settle tells sizes apart by their axes only: write it as an axis of this "
                    f"block, axes: {{{key}: [{value}]}}, {FULL_GRID}"
                )
                mistakes.add(f"also[{number}].set.{key}", sentence)


def _groups_of_axes(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield `axes` and each group of `zip` of all blocks, with their places."""
    also = config.get("also")
    blocks = [("", config)]
    blocks += [(f"also[{n}].", b) for n, b in enumerate(also if isinstance(also, list) else [])]
    for place, block in blocks:
        if not isinstance(block, Mapping):
            continue
        if isinstance(axes := block.get("axes"), Mapping):
            yield f"{place}axes", axes
        zipped = block.get("zip")
        for number, group in enumerate(zipped if isinstance(zipped, list) else []):
            if isinstance(group, Mapping):
                yield f"{place}zip[{number}]", group


def _distinct(values: list[Any]) -> set[str]:
    return {str(value) for value in values}
