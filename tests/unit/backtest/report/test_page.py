"""HTML report and terminal table: complete, escaped, self-contained and scaled to the policies."""

from __future__ import annotations

import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.backtest.report.charts import ACCURACY, LOG_LOSS, chart, clipped, ticks, value_range
from tailrace.backtest.report.markup import Markup, join, tag
from tailrace.backtest.report.page import page, write
from tailrace.backtest.report.terminal import show
from tailrace.backtest.report.text import best, columns, instant, runs_by_trigger
from tailrace.backtest.result import BacktestEntry, BacktestResult, DriftDetection, MetricWindow, Retraining, builtin

EVIL = "<script>alert('&\"')</script>"
START, DAY = 1_357_000_000.0, 86_400.0
VOID = {"meta", "input", "br", "hr"}


def windows(*losses: float | None) -> list[MetricWindow]:
    """Return one window per day with these values of the log-loss."""
    return [
        MetricWindow(start=START + n * DAY, end=START + (n + 1) * DAY, scored=0 if loss is None else 9, log_loss=loss)
        for n, loss in enumerate(losses)
    ]


def backtest_result(name: str = "hourly", text: str = "1,000 new labels") -> BacktestResult:
    """Return a result with one policy, whose texts are `text`, and one much worse baseline."""
    runs = [
        Retraining(at=START, reason=text, trigger="labels", seconds=1.25, examples=1_000, gate="log_loss 0.5: better"),
        Retraining(at=START + DAY, reason=text.replace("1", "2"), trigger="labels", released=False),
    ]
    policy = BacktestEntry(
        name=name,
        settings={"online": text},
        scored=50,
        accuracy=0.8125,
        log_loss=0.4321,
        cpu_seconds=12.5,
        joules=62.5,
        joules_from="estimate",
        releases=1,
        retrainings=runs,
        drifts=[DriftDetection(at=START + DAY, description=text)],
        windows=windows(0.5, None, 0.45, 0.4),
    )
    no_change = BacktestEntry(
        name="no change", scored=50, accuracy=0.7, log_loss=7.2, windows=windows(7.0, 7.1, None, 7.3)
    )
    return BacktestResult(
        data="a.csv", events=60, labels=55, label_delay="12h", policies=[policy], baselines=[no_change]
    )


class Tree(HTMLParser):
    """Parser that checks that elements close in order and collects elements, texts and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_complete() -> None:
    """The page contains figures, runs with their reasons, drift detections and settings, and marks the best figure."""
    tree = Tree(page(backtest_result()))
    text = "\n".join(tree.texts)
    for expected in (
        "81.25 %",
        "0.4321",
        "12.5",
        "62.5",
        "1,000 new labels",
        "2,000 new labels",
        "log_loss 0.5: better",
    ):
        assert expected in text
    assert "joules come from: estimate" in text
    assert "hourly: 2 retrainings, 1 not released" in text
    assert "Runs by trigger: 2 × labels." in text
    assert re.findall(r"<strong>([^<]+)</strong>", page(backtest_result())) == ["81.25 %", "0.4321"]


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    """The page is one file without addresses or images, and its Content-Security-Policy forbids loading any."""
    path = write(backtest_result(), tmp_path / "new" / "dir")
    html = path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]
    tree = Tree(html)
    assert not {"src", "href", "action", "xlink:href"} & {name for _, name, _ in tree.attributes}
    assert "//" not in html.replace("</", "")
    assert not {"img", "iframe", "link", "object"} & set(tree.tags)
    assert any("default-src 'none'" in value for _, name, value in tree.attributes if name == "content")


def test_the_page_is_accessible() -> None:
    """The page has a language, header scopes, chart titles, tables that scroll by keyboard and labelled checkboxes."""
    tree = Tree(page(backtest_result()))
    assert ("html", "lang", "en") in tree.attributes
    scopes = [value for tag, name, value in tree.attributes if tag == "th" and name == "scope"]
    assert tree.tags["th"] == len(scopes)
    images = [name for tag, name, value in tree.attributes if (tag, name, value) == ("svg", "role", "img")]
    assert len(images) == 1 == sum(name == "aria-labelledby" for tag, name, _ in tree.attributes if tag == "svg")
    assert tree.tags["table"] == sum((t, n, v) == ("div", "tabindex", "0") for t, n, v in tree.attributes)
    assert tree.tags["input"] == tree.tags["label"] == 2
    ids = [value for _, name, value in tree.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_all_text_is_escaped() -> None:
    """Text from data, policies and triggers is escaped everywhere on the page."""
    result = backtest_result(EVIL, EVIL)
    result.data = result.label_delay = result.pipeline = result.currency = EVIL
    result.baselines[0].name = EVIL
    result.policies[0].cost = 1.0
    result.policies[0].settings = {EVIL: EVIL}
    result.policies[0].retrainings[0].gate = result.policies[0].joules_from = EVIL
    html = page(result)
    assert EVIL not in html
    tree = Tree(html)
    assert tree.tags["script"] == 1
    assert EVIL in tree.texts


@given(st.text(), st.text())
def test_escaped_text_comes_back(inside: str, value: str) -> None:
    """Any text survives a round trip as content and as an attribute."""
    kept = "".join(c for c in inside + value if c.isprintable())
    tree = Tree(tag("p", kept, title=kept))
    assert "".join(tree.texts) == kept
    assert tree.attributes == [("p", "title", kept)]


def test_markup_is_not_escaped_twice() -> None:
    """Nested elements are not escaped again, and attributes that are None or False are left out."""
    assert join(tag("b", "<"), "&") == "<b>&lt;</b>&amp;"
    assert tag("input", disabled=True, name="x", value=None, hidden=False) == '<input disabled name="x">'
    assert tag("p", class_="a", data_x=1.5) == '<p class="a" data-x="1.5"></p>'
    assert isinstance(tag("p"), Markup)


def test_a_curve_breaks_where_there_is_no_label() -> None:
    """A window without a figure is a gap, and a window between two gaps is a dot."""
    svg = chart(LOG_LOSS, [BacktestEntry(name="a", windows=windows(0.5, None, 0.4, 0.3))], timed=True, id="x")
    lines = re.findall(r'points="([^"]+)"', svg)
    assert [len(line.split()) for line in lines] == [2, 2]
    assert len(set(lines[0].split())) == 1


def test_a_bad_baseline_does_not_flatten_the_policies() -> None:
    """The axis is scaled to the policies; a baseline outside it is clipped, and the caption gives its range."""
    result = backtest_result()
    low, high = value_range(LOG_LOSS, result.policies, result.baselines)
    assert 0.38 < low < 0.4
    assert 0.5 < high < 0.52
    assert [(result.baselines[0], 7.0, 7.3)] == clipped(LOG_LOSS, result.policies, result.baselines)
    assert clipped(LOG_LOSS, result.policies) == []
    assert "the axis is scaled to the policies and clips no change (7 to 7.3)" in "".join(Tree(page(result)).texts)
    assert chart(ACCURACY, result.policies, result.baselines, timed=True, id="x") == ""


def test_a_near_baseline_widens_the_axis() -> None:
    """Baselines whose values are close to those of the policies are shown in full, and no caption mentions clipping."""
    result = backtest_result()
    result.baselines = [BacktestEntry(name="logistic", windows=windows(0.53, 0.54, 0.52, 0.54))]
    low, high = value_range(LOG_LOSS, result.policies, result.baselines)
    assert low < 0.4 < 0.54 < high < 0.56
    assert clipped(LOG_LOSS, result.policies, result.baselines) == []
    assert "clips" not in page(result)


def test_an_untrained_start_does_not_flatten_the_policies() -> None:
    """A single outlier of a policy is clipped as well, and so is a policy that is far worse than the others."""
    start = BacktestEntry(name="start", windows=windows(0.9, *(0.4 + 0.001 * n for n in range(20))))
    worse = BacktestEntry(name="worse", windows=windows(*(2.0 + 0.1 * n for n in range(21))))
    low, high = value_range(LOG_LOSS, [start, worse])
    assert 0.39 < low < 0.4
    assert 0.419 < high < 0.43
    assert [(start, 0.4, 0.9), (worse, 2.0, 4.0)] == clipped(LOG_LOSS, [start, worse])


def test_baselines_without_policies_set_the_axis() -> None:
    """Without values of policies the axis is scaled to the baselines."""
    result = backtest_result()
    assert value_range(LOG_LOSS, [], result.baselines) == pytest.approx((6.982, 7.318))


@given(st.lists(st.floats(0, 100), min_size=1), st.lists(st.floats(0, 100)))
def test_clipping_is_never_silent(own: list[float], other: list[float]) -> None:
    """An entry is listed as clipped exactly if one of its values lies outside the axis."""
    entries = [BacktestEntry(name="a", windows=windows(*own)), BacktestEntry(name="b", windows=windows(*other))]
    low, high = value_range(LOG_LOSS, entries[:1], entries[1:])
    assert low < high
    outside = [not low <= min(values) <= max(values) <= high for values in (own, other) if values]
    listed = [entry.name for entry, _, _ in clipped(LOG_LOSS, entries[:1], entries[1:])]
    assert [name for name, is_outside in zip("ab", outside, strict=False) if is_outside] == listed


def test_runs_and_drifts_are_marked() -> None:
    """Each run and each drift detection is a mark whose title gives its time and reason."""
    svg = chart(LOG_LOSS, backtest_result().policies, timed=True, id="x")
    titles = re.findall(r"<title>([^<]+)</title>", svg)
    assert "hourly, 2013-01-01 00:26: 1,000 new labels" in titles
    assert "hourly, 2013-01-02 00:26: 2,000 new labels (not released)" in titles
    assert len(re.findall("<path", svg)) == 1


def test_an_empty_backtest_is_a_page_too() -> None:
    """A result without windows or labels can be rendered and printed."""
    empty = BacktestResult(data="x", events=0, label_delay="1", policies=[BacktestEntry(name="a")])
    Tree(page(empty))
    show(empty, io.StringIO())
    assert builtin(empty)["policies"][0]["log_loss"] is None


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low: float, width: float) -> None:
    """An axis has 2 to 11 ticks, all within its range."""
    high = low + width
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 11
    assert low - width * 1e-6 <= marks[0]
    assert marks[-1] <= high + width * 1e-6


def test_the_table_on_a_terminal() -> None:
    """The table has one line per entry and counts runs by trigger; outside a terminal it has no colours."""
    stream = io.StringIO()
    show(backtest_result(EVIL), stream)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "a.csv: 60 events, 55 labels (delay 12h), 50 scored"
    assert re.match(r"\s+accuracy\s+log-loss\s+runs\s+releases\s+CPU s\s+joules$", lines[1].rstrip())
    assert lines[2].startswith(EVIL)
    assert re.match(r"no change\s+70.00 %\s+7.2000\s+–\s+–\s+–\s+–$", lines[3].rstrip())
    assert lines[4] == f"{EVIL}: runs by trigger: 2 × labels; 1 not released"
    assert "\x1b" not in stream.getvalue()


def test_values_that_look_equal_are_both_best() -> None:
    """Values are compared as they are printed, so two that look equal are both marked; cost columns have no best."""
    pair = BacktestResult(
        data="x",
        events=1,
        label_delay="0",
        policies=[BacktestEntry(name=n, accuracy=a, cpu_seconds=1) for n, a in PAIR],
    )
    accuracy, cpu = columns(pair)
    assert best(accuracy, pair.policies) == "80.00 %"
    assert best(cpu, pair.policies) is None
    assert best(accuracy, pair.policies[:1]) is None


PAIR = (("a", 0.80001), ("b", 0.80002))


@pytest.mark.parametrize(
    ("span", "expected"), [(0, "2013-01-01 00:26"), (DAY, "01 Jan 00:26"), (30 * DAY, "01 Jan"), (9e7, "Jan 2013")]
)
def test_the_precision_of_times_follows_the_axis(span: float, expected: str) -> None:
    """An axis of years shows months, one of days shows hours; without times, events are numbered."""
    assert instant(START, timed=True, span=span) == expected
    assert instant(12_345.0, timed=False, span=span) == "12,345"


def test_runs_are_counted_by_trigger() -> None:
    """Runs are grouped by the kind of their trigger, whatever their reasons say; an unknown kind counts as other."""
    kinds = ["drift", "labels", "labels", ""]
    runs = [Retraining(at=n, reason=f"{n},000 new labels (every 900)", trigger=kind) for n, kind in enumerate(kinds)]
    assert runs_by_trigger(runs) == "2 × labels, 1 × drift, 1 × other"


def test_json_has_no_nan() -> None:
    """Numbers that are not finite are null at any depth, and attributes keep their JSON names."""
    result = backtest_result()
    result.policies[0].windows[0].log_loss = float("nan")
    result.policies[0].auc = float("inf")
    plain = builtin(result)["policies"][0]
    assert plain["auc"] is None
    assert plain["windows"][0]["log_loss"] is None
    assert {"from", "to"} <= set(plain["windows"][0])
    assert plain["drifts"][0]["what"] == "1,000 new labels"
    assert plain["retrainings"][0]["trigger"] == "labels"
