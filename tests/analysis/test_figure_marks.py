"""Every mark of a figure is explained, has its interval, and says what was trained for how long."""

import itertools
import math
import re

import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from analysis import checks, drawing, figure_text, figures
from analysis.best import best_per_size


def combined(*frames):
    frame = pd.concat(frames, ignore_index=True).assign(trial=None)
    return checks.check(frame, "combined")


def sparse(planted, **more):
    """Paths of which the sparser ones are trained for longer, and a dense control."""
    parts = [
        planted({1.0: (0.8, 0.82, 0.78, 0.7)}, seed=n, sparsity=share, epochs=5 + 4 * n, **more)
        for n, share in enumerate((0.0, 0.5, 0.75))
    ]
    control = planted({1.0: (0.85, 0.8, 0.8, 0.7)}, sparsity=0.0, dense_long=0.75, epochs=13)
    return combined(*parts, control)


def drawn(frame):
    return figures.figures(frame, best_per_size(frame))


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []


def bars(axes):
    """The vertical lines of two points: x, and their ends."""
    pairs = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    return [(x[0], *sorted(y)) for x, y in pairs if len(x) == 2 and x[0] == x[1]]


def has_interval(axes, x, y):
    """Whether a bar or a band reaches above and below a point."""
    in_band = any(
        path.contains_point((x, y + sign * 1e-3)) or path.contains_point((x - 1e-9, y))
        for band in axes.collections
        for path in band.get_paths()
        for sign in (1, -1)
    )
    at = [bar for bar in bars(axes) if abs(bar[0] - x) < 1e-9]
    return in_band or any(low < y < high for _, low, high in at)


FRAMES = {
    "none and a line": lambda planted: planted(),
    "a single magnitude": lambda planted: planted(
        {0.5: (0.8, 0.7), 2.0: (0.9, 0.8)}, magnitudes=("none", 0.3)
    ),
    "difficulty": lambda planted: planted(difficulty=0.5, policy="flips"),
    "sparsity": sparse,
}


@pytest.mark.parametrize("name", FRAMES)
def test_every_mean_has_its_interval(planted, name):
    seen = 0
    for kind, figure in drawn(FRAMES[name](planted)).items():
        for axes in figure.axes if kind not in ("heat_map", "optimum_against_params") else ():
            points = [line for line in axes.lines if (line.get_gid() or "").startswith("tip:")]
            seen += len(points)
            for point in points:
                (x,), (y,) = point.get_data()
                assert has_interval(axes, x, y), (kind, point.get_gid())
        assert (
            kind == "heat_map"
            or any("95 % interval" in text for text in legend(figure))
            or (kind == "optimum_against_params")
        )
    assert seen >= 6


def lightness(colour):
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), to_rgb(colour), strict=True))


def test_larger_sizes_are_darker_and_words_get_distinct_colours(planted):
    curves = {2.0**n: (0.8, 0.82, 0.78, 0.7) for n in range(-3, 3)}
    axes = drawn(planted(curves))["accuracy_against_magnitude"].axes[0]
    shades = [
        lightness(c.get_color()) for c in axes.lines if str(c.get_label()).startswith("width")
    ]
    assert len(shades) == 6
    assert all(a > b + 0.02 for a, b in itertools.pairwise(shades))
    words = combined(*(planted({1.0: (0.8,) * 4}, schedule=word) for word in ("falling", "rising")))
    axes = drawn(words)["accuracy_against_magnitude"].axes[0]
    assert {line.get_color() for line in axes.lines} <= {*drawing.COLOURS, "0.6"}


def test_the_rest_of_a_name_is_a_dash(planted):
    frame = combined(*(planted(schedule=word) for word in ("falling", "rising")))
    axes = drawn(frame)["accuracy_against_magnitude"].axes[0]
    looks = {c.get_label(): (c.get_color(), c.get_linestyle()) for c in axes.lines
             if str(c.get_label()).startswith("width")}  # fmt: skip
    falling, rising = (looks[f"width 2, schedule {word}"] for word in ("falling", "rising"))
    assert falling[0] == rising[0] != looks["width 0.5, schedule falling"][0]
    assert falling[1] != rising[1]


def test_a_legend_explains_each_kind_of_mark(planted):
    made = {name: legend(figure) for name, figure in drawn(sparse(planted)).items()}
    assert {"one seed", "chosen on validation"} < set(made["accuracy_against_magnitude"])
    assert {"one seed", "dense", "dense, trained as long"} < set(made["accuracy_against_sparsity"])
    assert "chosen on validation" in made["optimum_against_params"]
    one = legend(drawn(planted({1.0: (0.8, 0.9, 0.7, 0.6)}))["accuracy_against_magnitude"])
    assert one == ["one seed", "95 % interval (bar, band)", "chosen on validation"]
    alone = legend(drawn(planted(seeds=1))["accuracy_against_magnitude"])
    assert not any("interval" in text for text in alone)


@pytest.mark.parametrize("count", [9, 20, 28])
def test_a_legend_has_at_most_twelve_entries(planted, count):
    curves = {float(width): (0.8, 0.82, 0.78, 0.7) for width in range(1, count + 1)}
    for name, figure in drawn(planted(curves, seeds=2)).items():
        shown = legend(figure)
        assert len(shown) <= 12
        if name != "heat_map":
            assert {"width 1", f"width {count}"} < set(shown), name


def test_more_words_than_a_legend_holds_are_left_out_with_a_note(planted):
    parts = [planted({1.0: (0.8,) * 4}, schedule=f"list_{n}", trial=None) for n in range(9)]
    frame = combined(*parts)
    assert set(drawn(frame)) == {"heat_map"}
    assert "9 sizes are too many" in figures.left_out(best_per_size(frame))


def test_many_policies_share_a_colour(planted):
    policies = [planted({1.0: (0.8,)}, magnitudes=(0.5,), policy=f"op_{n}", difficulty=n / 9)
                for n in range(9)]  # fmt: skip
    figure = drawn(combined(*policies))["difficulty_against_accuracy"]
    assert len(legend(figure)) <= 12
    assert len({line.get_color() for line in figure.axes[0].lines}) == 1


@pytest.fixture(scope="module")
def fine(planted):
    """Rows with 300 magnitudes."""
    magnitudes = ("none", *(round(n / 299, 4) for n in range(300)))
    curve = [0.8, *(0.8 - (m - 0.4) ** 2 / 5 for m in magnitudes[1:])]
    return planted({0.5: curve, 2.0: curve}, magnitudes=magnitudes)


def test_three_hundred_magnitudes_can_be_read(fine):
    made = drawn(fine)
    for name, figure in made.items():
        figure.draw_without_rendering()
        page = figure.bbox
        for axes in figure.axes:
            labels = [t for t in axes.get_xticklabels() if t.get_text()]
            boxes = [text.get_window_extent() for text in labels]
            for a, b in itertools.pairwise(boxes):
                assert a.x1 < b.x0, name
            assert all(box.x0 >= -1 and box.x1 <= page.x1 + 1 for box in boxes), name
    assert not made["heat_map"].axes[0].texts  # colours and their scale, not numbers
    assert len(made["heat_map"].axes) == 2
    axes = made["accuracy_against_magnitude"].axes[0]
    assert not [line for line in axes.lines if line.get_marker() == "."]
    assert "one seed" not in legend(made["accuracy_against_magnitude"])


def test_different_lengths_are_named_wherever_sizes_are(planted):
    made = drawn(sparse(planted))
    named = legend(made["accuracy_against_magnitude"])
    assert "sparsity 0.5, 9 epochs" in named
    ticks = [t.get_text() for t in made["accuracy_against_sparsity"].axes[0].get_xticklabels()]
    assert ticks == ["0\n5", "0.5\n9", "0.75\n13"]
    assert "epochs along the path" in made["accuracy_against_sparsity"].axes[0].get_xlabel()
    rows = " ".join(t.get_text() for t in made["heat_map"].axes[0].get_yticklabels())
    assert "9 epochs" in " ".join(rows.split())
    equal = drawn(planted(epochs=5))["accuracy_against_magnitude"]
    assert not any("epochs" in text for text in legend(equal))
    rates = combined(planted({1.0: (0.8,) * 4}, lr=0.1, epochs=3),
                     planted({1.0: (0.8,) * 4}, lr=0.2, epochs=9))  # fmt: skip
    assert {"lr 0.1, 3 epochs", "lr 0.2, 9 epochs"} < set(
        legend(drawn(rates)["accuracy_against_magnitude"])
    )


def test_what_validation_chose_says_so_on_a_test_axis(planted):
    made = drawn(sparse(planted))
    assert "chosen on validation" in " ".join(
        made["accuracy_against_sparsity"]._supylabel.get_text().split()
    )
    title = made["heat_map"].axes[0].get_title()
    assert "chosen on validation" in " ".join(title.split())
    assert "chosen on validation" in " ".join(made["heat_map"].axes[0].get_xlabel().split())


def test_no_optimum_is_drawn_where_none_is_best(planted):
    frame = planted({0.5: (0.9, 0.8, 0.7, 0.6), 2.0: (0.7, 0.75, 0.9, 0.7)})
    axes = drawn(frame)["optimum_against_params"].axes[0]
    optima = [line.get_gid() for line in axes.lines if "optimum" in (line.get_gid() or "")]
    assert len(optima) == 1
    assert "width 2" in optima[0]


def test_captions_say_what_was_trained_and_explain_the_marks(planted):
    frame = planted(dataset="fashion_mnist", policy="randaug(n=2)", depth=8, epochs=5)
    made = drawn(frame)
    texts = figure_text.captions(frame, best_per_size(frame), made)
    assert set(texts) == set(made)
    for text in texts.values():
        assert "fashion_mnist, cifar_resnet, depth 8, " in text
        assert "randaug(n=2), 5 epochs; 3 seeds per cell." in text
    for word in ("circle", "dots", "Bands", "validation", "none"):
        assert word in texts["accuracy_against_magnitude"], word
    frame.loc[0, "epochs"] = 7
    frame.loc[1, ["state", "val_top1", "test_top1"]] = ["waiting", math.nan, math.nan]
    subject = figure_text.subject(frame, best_per_size(frame))
    assert re.search(r"5 to 7 epochs; 1 to 3 seeds per cell\.", subject)
    alone = planted(seeds=1)
    assert "1 seed per cell." in figure_text.subject(alone, best_per_size(alone))
