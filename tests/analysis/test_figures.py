"""Figures: what is drawn is what the rows say, and the same rows give the same bytes."""

import itertools
import math
import subprocess
import sys

import pandas as pd
import pytest
from matplotlib.text import Text

from analysis import checks, drawing, figures, rows_file
from analysis.best import best_per_size


def grown(planted, **more):
    """Rows over sizes, sparsities and difficulties: enough for every figure."""
    parts = []
    for sparsity in (0.0, 0.5, 0.9):
        part = planted(seed=int(10 * sparsity), **more).assign(sparsity=sparsity)
        part["trial"] = [f"{trial}-{sparsity}" for trial in part["trial"]]
        part["params_nonzero"] *= 1 - sparsity
        parts.append(part)
    frame = pd.concat(parts, ignore_index=True)
    frame["difficulty"] = [0.0 if m == "none" else m for m in frame["magnitude"]]
    return checks.check(frame, "grown")


def test_the_rows_allow_every_figure(planted):
    frame = grown(planted)
    made = figures.figures(frame, best_per_size(frame))
    assert set(made) == {
        "accuracy_against_magnitude", "change_against_none", "optimum_against_params", "heat_map",
        "accuracy_against_sparsity", "difficulty_against_accuracy",
    }  # fmt: skip


def test_the_lines_are_the_means_and_the_dots_are_the_seeds(planted):
    results = best_per_size(planted())
    axes = figures.accuracy_against_magnitude(results).axes[0]
    first = results[0]
    curve = next(line for line in axes.lines if line.get_label() == "width 0.5")
    assert list(curve.get_xdata()) == [0.2, 0.5, 0.8]
    assert list(curve.get_ydata()) == pytest.approx(
        [100 * cell.mean_test for cell in first.cells[1:]]
    )
    spots = [line for line in axes.lines if line.get_marker() == "."]
    assert sum(len(line.get_ydata()) for line in spots) == 24
    chosen = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert [line.get_xdata()[0] for line in chosen] == [0.2, 0.5]
    assert axes.get_xticklabels()[0].get_text() == "none"
    assert axes.get_xticks()[0] < 0


def test_the_change_is_against_the_same_size(planted):
    results = best_per_size(planted())
    axes = figures.change_against_none(results).axes[0]
    for line in results:
        curve = next(c for c in axes.lines if c.get_label() == f"width {line.size['width']:g}")
        none = line.cells[0].mean_test
        assert curve.get_ydata()[0] == pytest.approx(100 * (line.cells[1].mean_test - none))


def test_half_finished_sweeps_are_drawn(planted):
    frame = grown(planted)
    frame.loc[frame["width"] == 2.0, ["state", "val_top1", "test_top1"]] = [
        "waiting", math.nan, math.nan,
    ]  # fmt: skip
    made = figures.figures(frame, best_per_size(frame))
    assert "heat_map" in made
    nothing = frame.assign(state="waiting", val_top1=math.nan, test_top1=math.nan)
    for figure in figures.figures(nothing, best_per_size(nothing)).values():
        figure.canvas.draw()


def test_one_seed_is_drawn_without_bands(planted):
    axes = figures.accuracy_against_magnitude(best_per_size(planted(seeds=1))).axes[0]
    assert not axes.collections


def test_the_same_rows_give_the_same_bytes(planted, tmp_path):
    for name in ("a", "b"):
        results = best_per_size(planted())
        drawing.save(figures.accuracy_against_magnitude(results), tmp_path / name)
    for suffix in (".png", ".pdf"):
        first = (tmp_path / "a").with_suffix(suffix).read_bytes()
        assert first == (tmp_path / "b").with_suffix(suffix).read_bytes()
        assert len(first) > 5000


def long_names(planted):
    """Sizes with long policies, of which two have equal parameters and `none` wins everywhere."""
    parts = []
    for policy in ("fashion_mnist_calibrated(n=2)", "randaug_strict(n=2,with=$much$ more)"):
        part = planted(
            {0.25: (0.8, 0.78, 0.75, 0.7), 1.0: (0.85, 0.84, 0.82, 0.8)}, policy=policy,
            calibrated=policy.startswith("fashion"), magnitudes=("none", 0.11, 0.28, 0.54),
        )  # fmt: skip
        parts.append(part.assign(trial=[f"{policy} {trial}" for trial in part["trial"]]))
    frame = pd.concat(parts, ignore_index=True)
    frame["difficulty"] = [0.1 if m == "none" else m for m in frame["magnitude"]]
    return frame


def crowded(planted):
    """Many magnitudes and many sizes, close to each other."""
    magnitudes = ("none", *(n / 15 for n in range(16)))
    curves = {1 + n / 5: [0.8 - 0.01 * n] * 17 for n in range(7)}
    frame = planted(curves, magnitudes=magnitudes, difficulty=0.5)
    frame["magnitude"] = [m if m == "none" else round(m, 2) for m in frame["magnitude"]]
    return frame


def parted(planted):
    parts = [
        grown(planted, family=f"family_of_models_{n}", depth=n).assign(trial=None) for n in (1, 2)
    ]
    return pd.concat(parts, ignore_index=True)


def two_magnitudes(planted):
    forms = {f"form_{n}": (0.8 - 0.01 * n, 0.79) for n in range(6)}
    parts = [planted({1.0: means}, magnitudes=("none", 0.6), surplus=form, trial=None)
             for form, means in forms.items()]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


@pytest.mark.slow
@pytest.mark.parametrize("make", [grown, long_names, crowded, parted, two_magnitudes])
def test_every_text_can_be_read(planted, make):
    frame = make(planted)
    made = figures.figures(frame, best_per_size(frame))
    assert len(made) >= 3
    for name, figure in made.items():
        assert figure.get_figwidth() == drawing.WIDTH_INCHES, name
        figure.draw_without_rendering()
        page = figure.bbox
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
        boxes = []
        for text in texts:
            box = text.get_window_extent()
            if box.width and _is_drawn(text, figure):
                assert 6 <= text.get_fontsize() <= 8, (name, text.get_text())
                assert min(box.x0, box.y0) >= -1, (name, text.get_text())
                assert max(box.x1 - page.x1, box.y1 - page.y1) <= 1, (name, text.get_text())
                boxes.append((text.get_text(), box))
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            down = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across <= 0.5 or down <= 0.5, (name, one, other)


def _is_drawn(text, figure):
    """Whether a text is a part of the picture: ticks outside of the view are not."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if text in (tick.label1, tick.label2):
                    low, high = sorted(axis.get_view_interval())
                    return low <= tick.get_loc() <= high
    return True


def test_none_is_a_level_of_its_own_and_each_tie_is_marked(planted):
    curves = {0.5: (0.82, 0.815, 0.78, 0.70), 2.0: (0.85, 0.80, 0.848, 0.70)}
    results = best_per_size(planted(curves, spread=0.004))
    assert [line.ties for line in results] == [("none", 0.2), ("none", 0.5)]
    axes = figures.optimum_against_params(results).axes[0]
    assert not axes.xaxis.get_minor_ticks()
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels == ["500", "2k"]
    levels = dict(zip((t.get_text() for t in axes.get_yticklabels()), axes.get_yticks()))
    assert levels["none"] < 0
    marks = {shape: [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines
                     if line.get_marker() == shape and line.get_markerfacecolor() == "none"]
             for shape in "o_"}  # fmt: skip
    assert marks["o"] == [(500, levels["none"]), (2000, levels["none"])]
    assert marks["_"] == [(500, 0.2), (2000, 0.5)]


def test_every_policy_of_a_size_is_in_one_panel_of_difficulty(planted):
    frame = long_names(planted)
    panels = figures.difficulty_against_accuracy(frame).axes
    assert [axes.get_title().splitlines()[0] for axes in panels] == ["width 0.25", "width 1"]
    for axes in panels:
        assert "rho = " in axes.get_title()
        assert len([line for line in axes.lines if line.get_marker() == "o"]) == 8


def test_policies_without_none_are_drawn_against_that_of_another(planted):
    frame = long_names(planted)
    own = frame[(frame["magnitude"] != "none") | frame["calibrated"]]
    axes = figures.change_against_none(best_per_size(own)).axes[0]
    assert sum(line.get_label()[0] != "_" for line in axes.lines) == 4


@pytest.mark.slow
def test_the_command_draws_without_a_word_on_stderr(planted, tmp_path):
    rows_file.write(grown(planted, flags=""), tmp_path)
    process = subprocess.run(
        [sys.executable, "-W", "error", "-m", "analysis.figures", f"rows={tmp_path}/rows.csv",
         f"out={tmp_path}/out"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert len(process.stdout.split()) == 13  # six figures, twice, and their captions


def test_many_sizes_are_drawn_in_panels_and_too_many_not_at_all(planted):
    curves = {float(width): (0.8, 0.82, 0.81, 0.7) for width in range(1, 5)}
    parts = [
        planted(curves, seeds=2).assign(sparsity=share, trial=None) for share in (0.0, 0.5, 0.9)
    ]
    frame = pd.concat(parts, ignore_index=True)
    figure = figures.accuracy_against_magnitude(best_per_size(frame))
    assert [axes.get_title() for axes in figure.axes] == [
        "sparsity 0", "sparsity 0.5", "sparsity 0.9",
    ]  # fmt: skip
    lines = [[c.get_label() for c in axes.lines if c.get_label()[0] != "_"] for axes in figure.axes]
    assert lines == [["width 1", "width 2", "width 3", "width 4"]] * 3
    colours = {
        c.get_color() for axes in figure.axes for c in axes.lines if c.get_label() == "width 2"
    }
    assert len(colours) == 1
    many = best_per_size(planted({float(w): (0.8,) for w in range(61)}, magnitudes=(0.2,)))
    assert figures.figures(planted(), many) == {}
    assert "61 sizes are too many" in figures.left_out(many)
    assert set(figures.figures(planted(), many[:30])) == {"heat_map"}


def test_an_unfinished_sweep_says_so_on_its_figures(planted):
    frame = planted()
    results = best_per_size(frame)
    assert all(f.get_suptitle() == "" for f in figures.figures(frame, results).values())
    frame.loc[0, ["state", "val_top1", "test_top1"]] = ["waiting", math.nan, math.nan]
    for figure in figures.figures(frame, best_per_size(frame)).values():
        assert figure.get_suptitle() == "interim: 23 of 24 trials done"


def test_seeds_are_dots_wherever_means_are_drawn(planted):
    frame = grown(planted)
    made = figures.figures(frame, best_per_size(frame))
    for name in made.keys() - {"optimum_against_params", "heat_map"}:
        assert any(line.get_marker() == "." for axes in made[name].axes for line in axes.lines)
