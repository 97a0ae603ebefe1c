"""The report: what it says, and how it behaves in a real browser."""

import io
import math
import random
import re
import subprocess
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest
from PIL import Image

from analysis import checks, commands, report, report_tables, rows_file
from analysis.best import best_per_size
from harness.errors import UserError
from harness.states import STATES

NASTY = r"""50%_$x$ </script><img src=x onerror="alert(1)"> & \input{y} `rm -rf` $(id) --> "'"""


def interim(planted, **more):
    """A sweep with everything that can keep a trial from its result."""
    frame = planted(epochs=5, gpu_seconds=100.0, params_total=5000, why=None, **more)
    for at, state, why in (
        (1, "waiting", None),
        (2, "failed", "config: the data set is not there"),
        (5, "failed", "code: KeyError: 'x'"),
        (6, "diverged", None),
        (9, "running", "job 7, heartbeat 3 s ago"),
        (10, "failed", None),
    ):
        frame.loc[at, ["state", "why"]] = [state, why]
        frame.loc[at, ["val_top1", "test_top1"]] = math.nan
    frame.loc[20:, "code"] = "def"
    return frame


def test_unexplained_errors_come_first_and_nothing_missing_is_left_out(planted):
    frame = interim(planted)
    table = report_tables.unfinished(frame, ["width"])
    assert [row[0] for row in table.rows] == [
        "unexplained error", "unexplained error", "failed", "diverged", "running", "waiting",
    ]  # fmt: skip
    assert sum(int(row[2]) for row in table.rows) == 6
    assert {"code: KeyError: 'x'", "-"} == {row[1] for row in table.rows[:2]}
    made = report.report(frame)
    assert made.index("2 trials failed for a reason") < made.index('id="best-magnitude"')
    assert "18 of 24 trials are done" in made
    assert "interim" in made


def test_errors_to_be_tried_again_are_unexplained_and_ids_make_no_reasons(planted):
    frame = planted().assign(why=None)
    whys = [
        "tried before, lost: worker 3 gone for 61.5 s", "tried before, lost: worker 4 gone for 9 s",
        "tried before, config: no such data set", "heartbeat 3 s ago of job 17",
        "heartbeat 8 s ago of job 18", "its parent 0011aabbccddeeff is waiting",
        "tried before, job 7 was cancelled",
        "tried before, job 8 ended before it began this: see harness.logs",
    ]  # fmt: skip
    states = [
        "waiting",
        "waiting",
        "waiting",
        "running",
        "running",
        "waiting",
        "waiting",
        "waiting",
    ]
    for at, (state, why) in enumerate(zip(states, whys, strict=True)):
        frame.loc[at, ["state", "why", "val_top1", "test_top1"]] = [state, why, math.nan, math.nan]
    assert [row[:3] for row in report_tables.unfinished(frame, ["width"]).rows] == [
        ("unexplained error", "tried before, lost: worker ... gone for ... s", "2"),
        ("unexplained error", whys[7], "1"),
        ("running", "heartbeat ... s ago of job ...", "2"),
        ("waiting", "its parent 0011aabbccddeeff is waiting", "1"),
        ("waiting", "tried before, config: no such data set", "1"),
        ("waiting", whys[6], "1"),
    ]


def test_by_is_for_every_part_of_the_report(planted):
    frame = grown(planted)
    frame["macs_dense"] = [1000 * width for width in frame["width"]]
    made = report.report(frame, ["macs_dense", "sparsity"])
    assert "per step of macs_dense" in made
    assert (
        "width"
        not in re.sub(
            r"<style>.*?</style>|stroke-width|[a-z-]*width[=:]", "", made, flags=re.DOTALL
        )
        .split('id="costs"')[0]
        .split("<main>")[1]
    )


def test_seeds_done_are_counted_size_by_magnitude(planted):
    table = report_tables.completeness(best_per_size(interim(planted)))
    assert table.header == ("width", "at none", "at 0.2", "at 0.5", "at 0.8")
    assert table.rows[0] == ("0.5", "1 of 3", "2 of 3", "2 of 3, 1 diverged", "1 of 3")
    nameless = planted({1.0: (0.8,) * 4}).assign(
        width=math.nan
    )  # a missing width is not a missing cell
    assert not report_tables.completeness(best_per_size(nameless, ["width"])).notes


def test_what_was_spent_is_held_against_the_estimate_made_beforehand(planted):
    frame = planted({1.0: (0.8,)}, magnitudes=(0.2,), epochs=10)
    frame["gpu_seconds"] = [3600.0, 7200.0, 10800.0]
    (row,) = report_tables.cost(frame, ["width"]).rows
    assert row == ("1", "3", "6", "no estimate", "-", "0", "0")
    frame["estimated_seconds"] = 5400.0
    (row,) = report_tables.cost(frame, ["width"]).rows
    # 5400 against 3600, 7200, 10800: off by 50, 25 and 50 %
    assert row == ("1", "3", "6", "4.5", "42 %", "0", "0")
    frame.loc[2, ["state", "gpu_seconds"]] = ["waiting", math.nan]
    assert report_tables.cost(frame, ["width"]).rows[0][1:] == ("2", "3", "3", "38 %", "1", "1.5")
    frame = frame.assign(state="waiting", gpu_seconds=math.nan)
    assert report_tables.cost(frame, ["width"]).rows[0][1:] == ("0", "-", "-", "-", "3", "4.5")
    unknown = report_tables.cost(frame.drop(columns="estimated_seconds"), ["width"]).rows[0]
    assert unknown[-1] == "unknown"


def test_every_state_of_a_trial_is_known_and_has_its_place():
    assert set(STATES) - {"done"} <= set(report_tables.URGENCY)


def test_differences_of_provenance_are_named(planted):
    shown = {row[0]: row[1:] for row in report_tables.provenance(interim(planted)).rows}
    assert shown["code"] == ("abc (14); def (4)", "differs")
    assert shown["engine"] == ("deepspeed", "-")


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes_whatever_file_they_are_in(planted, tmp_path):
    frame = interim(planted, flags="", dense_long=None, calibrated=True, depth=20)
    made = report.report(frame)
    for path in rows_file.write(frame, tmp_path):
        assert report.report(commands.load([], [path])) == made, path.name
    assert report.report(frame.assign(seed=frame["seed"] + 1)) != made


@pytest.mark.slow
def test_the_command_writes_the_page_and_the_rows_that_make_it_again(planted, tmp_path):
    rows_file.write(interim(planted), tmp_path / "in")
    words = ["where=width > 1", "metric=top1"]
    process = subprocess.run(
        [sys.executable, "-W", "error", "-m", "analysis.report",
         f"rows={tmp_path}/in/rows.csv", f"out={tmp_path}/a", *words],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    assert report.main([f"rows={tmp_path}/a/rows.csv", f"out={tmp_path}/b", *words]) == 0
    page = (tmp_path / "a" / "report.html").read_bytes()
    assert page == (tmp_path / "b" / "report.html").read_bytes()
    assert b"rows=rows.csv &#x27;where=width &gt; 1&#x27; metric=top1 out=." in page
    with pytest.raises(UserError, match="out is missing: add out="):
        report.main([f"rows={tmp_path}/in/rows.csv"])


@pytest.mark.slow
def test_names_cannot_become_markup(planted):
    frame = interim(planted, policy=NASTY)
    frame["family"] = [NASTY if w > 1 else "b" for w in frame["width"]]
    frame["grid"] = NASTY
    frame.loc[5, "why"] = NASTY
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append((tag, dict(attrs)))

    Reader().feed(report.report(frame))
    assert not any(name.startswith("on") for _, attrs in seen for name in attrs)
    assert not any(tag == "img" for tag, _ in seen)
    assert sum(tag == "script" for tag, _ in seen) == 1
    ids = [attrs["id"] for _, attrs in seen if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_the_page_asks_for_nothing_from_elsewhere(planted):
    made = report.report(interim(planted))
    names = re.findall(r'(?:src|href)="([^"]*)"', made)
    assert names
    assert all(name.startswith(("#", "data:image/png;base64,")) for name in names)
    assert "default-src 'none'" in made
    assert not re.findall(r"@import|url\((?!#)", made)


def grown(planted):
    chance = random.Random(0)
    parts = []
    for sparsity in (0.0, 0.5, 0.9):
        part = interim(planted, seed=chance.randrange(99)).assign(sparsity=sparsity)
        part["trial"] = [f"{trial}-{sparsity}" for trial in part["trial"]]
        parts.append(part)
    return checks.check(pd.concat(parts, ignore_index=True), "grown")


@pytest.fixture(scope="module")
def page(tmp_path_factory, planted):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.report(grown(planted)), encoding="utf-8")
    return path


COLUMN = "Array.from(document.querySelectorAll('#{0} tbody tr'), row => row.cells[{1}].textContent)"
HEADER = "document.querySelector('#{0} thead').rows[0].cells[{1}]"


@pytest.mark.slow
def test_tables_are_sorted_by_number_with_the_unknown_last(browser, page):
    browser.open(page)
    column = browser.run(
        "Array.from(document.querySelector('#best-magnitude thead').rows[0].cells)"
        ".findIndex(cell => cell.textContent === 'parameters')"
    )
    shown, header = COLUMN.format("best-magnitude", column), HEADER.format("best-magnitude", column)
    given = browser.run(shown)
    browser.run(f"{header}.firstElementChild.click()")
    assert browser.run(f"{header}.ariaSort") == "ascending"
    values = [float(text.replace("k", "e3")) for text in browser.run(shown)]
    assert values == sorted(values)
    browser.run(f"{header}.firstElementChild.click()")
    assert browser.run(f"{header}.ariaSort") == "descending"
    assert [float(text.replace("k", "e3")) for text in browser.run(shown)] == values[::-1]
    assert sorted(given) == sorted(browser.run(shown))
    why = COLUMN.format("unfinished", 1)
    for _ in range(2):
        browser.run(f"{HEADER.format('unfinished', 1)}.firstElementChild.click()")
        assert browser.run(why)[-1] == "-"
    assert browser.run(f"{header}.ariaSort") == "descending"  # tables are sorted apart


@pytest.mark.slow
def test_everything_can_be_reached_and_used_by_keyboard(browser, page):
    browser.open(page)
    reached = []
    for _ in range(80):
        browser.press("Tab", 9)
        reached.append(
            browser.run("(e => e.tagName + ' ' + (e.textContent || ''))(document.activeElement)")
        )
        if "BUTTON why" in reached[-1]:
            break
    assert reached[0] == "A Answer"
    assert "BUTTON why" in reached
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Enter", 13, "\r")
    assert browser.run("document.activeElement.parentElement.ariaSort") == "ascending"
    browser.press(" ", 32, " ")
    assert browser.run("document.activeElement.parentElement.ariaSort") == "descending"
    browser.run("document.querySelector('#accuracy_against_magnitude .plot').focus()")
    tooltips = []
    for _ in range(2):
        browser.press("ArrowRight", 39)
        tooltips.append(browser.run("document.getElementById('tooltip').textContent"))
    assert tooltips[0] != tooltips[1]
    assert all(re.search(r"magnitude \S+: \d\d\.\d ± \d\.\d", text) for text in tooltips)
    browser.press("Escape", 27)
    assert browser.run("document.getElementById('tooltip').textContent") == ""


@pytest.mark.slow
def test_the_pointer_on_a_point_shows_its_numbers(browser, page):
    browser.open(page)
    point = "document.querySelector('#change_against_none .tip')"
    browser.run(f"{point}.scrollIntoView({{block: 'center'}})")
    box = browser.run(
        f"(b => [b.x + b.width / 2, b.y + b.height / 2])"
        f"({point}.querySelector('.target').getBoundingClientRect())"
    )
    browser.move(*box)
    tooltip = browser.run("document.getElementById('tooltip').textContent")
    assert re.search(r"width \S+, sparsity \S+, magnitude \S+: -?\d+\.\d ± \d\.\d", tooltip)
    browser.move(1, 1)
    assert browser.run("document.getElementById('tooltip').textContent") == ""


@pytest.mark.slow
def test_light_and_dark_follow_the_reader_and_the_network_is_not_asked(browser, page):
    shades = {}
    for scheme in ("light", "dark"):
        browser.open(page, scheme)
        picture = Image.open(io.BytesIO(browser.picture())).convert("L")
        figure = browser.run(
            "(b => [b.x, b.y, b.right, b.bottom])"
            "(document.querySelector('#accuracy_against_magnitude svg').getBoundingClientRect())"
        )
        for name, part in (("page", picture), ("figure", picture.crop([*map(round, figure)]))):
            counts = part.histogram()
            shades[scheme, name] = counts.index(max(counts))
            ink = counts[:100] if scheme == "light" else counts[150:]
            assert sum(ink) > 0.005 * part.width * part.height  # there is text to be read
        requested = [
            event["params"]["request"]["url"]
            for event in browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        assert all(url.startswith(("file:", "data:")) for url in requested)
        messages = [event for event in browser.events if event.get("method") == "Log.entryAdded"]
        assert messages == []
    assert min(shades["light", name] for name in ("page", "figure")) > 240
    assert max(shades["dark", name] for name in ("page", "figure")) < 40


@pytest.mark.slow
def test_a_narrow_window_and_paper_hold_everything(browser, page):
    browser.open(page, "dark", width=380)
    assert browser.run("document.documentElement.scrollWidth") <= 380
    paper = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.call("Emulation.setEmulatedMedia", **paper)
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.run("getComputedStyle(document.querySelector('.plot svg')).filter") == "none"
    browser.call("Emulation.setEmulatedMedia", media="")
    assert len(browser.call("Page.printToPDF")["data"]) > 20_000
