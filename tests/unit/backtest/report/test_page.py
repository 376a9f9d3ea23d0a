"""The report and the terminal's table: all that was said stands there, escaped, and nothing comes from elsewhere."""

from __future__ import annotations

import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.backtest.report.charts import ACCURACY, LOG_LOSS, chart, outside, ticks
from tailrace.backtest.report.markup import Markup, join, tag
from tailrace.backtest.report.page import page, write
from tailrace.backtest.report.terminal import show
from tailrace.backtest.report.text import best, columns, instant, reasons
from tailrace.backtest.result import Drift, Entry, Outcome, Retraining, Window, builtin

EVIL = "<script>alert('&\"')</script>"
START, DAY = 1_357_000_000.0, 86_400.0
VOID = {"meta", "input", "br", "hr"}


def windows(*losses: float | None) -> list[Window]:
    """One a day."""
    return [
        Window(start=START + n * DAY, end=START + (n + 1) * DAY, scored=0 if loss is None else 9, log_loss=loss)
        for n, loss in enumerate(losses)
    ]


def outcome(name: str = "hourly", words: str = "1,000 new labels") -> Outcome:
    runs = [
        Retraining(at=START, reason=words, seconds=1.25, examples=1_000, gate="log_loss 0.5: better"),
        Retraining(at=START + DAY, reason=words.replace("1", "2"), released=False),
    ]
    policy = Entry(
        name=name,
        settings={"online": words},
        scored=50,
        accuracy=0.8125,
        log_loss=0.4321,
        cpu_seconds=12.5,
        joules=62.5,
        joules_from="estimate",
        releases=1,
        retrainings=runs,
        drifts=[Drift(at=START + DAY, what=words)],
        windows=windows(0.5, None, 0.45, 0.4),
    )
    still = Entry(name="no change", scored=50, accuracy=0.7, log_loss=7.2, windows=windows(7.0, 7.1, None, 7.3))
    return Outcome(data="a.csv", events=60, labels=55, label_delay="12h", policies=[policy], baselines=[still])


class Tree(HTMLParser):
    """Checks that elements close in order; collects them, their texts and attributes."""

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


def test_the_page_says_what_was_found() -> None:
    """Figures, runs and their reasons, drifts and settings are all there, and the best figure is marked."""
    tree = Tree(page(outcome()))
    text = "\n".join(tree.texts)
    for said in ("81.25 %", "0.4321", "12.5", "62.5", "1,000 new labels", "2,000 new labels", "log_loss 0.5: better"):
        assert said in text
    assert "joules come from: estimate" in text
    assert "hourly: 2 retrainings, 1 not released" in text
    assert re.findall(r"<strong>([^<]+)</strong>", page(outcome())) == ["81.25 %", "0.4321"]


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    """One file; no address, no source, no image; its own policy forbids to load any."""
    path = write(outcome(), tmp_path / "new" / "dir")
    html = path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]
    tree = Tree(html)
    assert not {"src", "href", "action", "xlink:href"} & {name for _, name, _ in tree.attributes}
    assert "//" not in html.replace("</", "")
    assert not {"img", "iframe", "link", "object"} & set(tree.tags)
    assert any("default-src 'none'" in value for _, name, value in tree.attributes if name == "content")


def test_the_page_can_be_read_by_all() -> None:
    """Language, headers with a scope, pictures with a title, tables that scroll by keyboard, boxes with labels."""
    tree = Tree(page(outcome()))
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
    """What comes from data, policies and triggers is text, wherever it stands."""
    found = outcome(EVIL, EVIL)
    found.data = found.label_delay = found.pipeline = found.currency = EVIL
    found.baselines[0].name = EVIL
    found.policies[0].cost = 1.0
    found.policies[0].settings = {EVIL: EVIL}
    found.policies[0].retrainings[0].gate = found.policies[0].joules_from = EVIL
    html = page(found)
    assert EVIL not in html
    tree = Tree(html)
    assert tree.tags["script"] == 1
    assert EVIL in tree.texts


@given(st.text(), st.text())
def test_escaped_text_comes_back(inside: str, value: str) -> None:
    """Any text survives as text and as an attribute."""
    kept = "".join(c for c in inside + value if c.isprintable())
    tree = Tree(tag("p", kept, title=kept))
    assert "".join(tree.texts) == kept
    assert tree.attributes == [("p", "title", kept)]


def test_markup_is_not_escaped_twice() -> None:
    """An element within an element stays one; attributes that are not given are not there."""
    assert join(tag("b", "<"), "&") == "<b>&lt;</b>&amp;"
    assert tag("input", disabled=True, name="x", value=None, hidden=False) == '<input disabled name="x">'
    assert tag("p", class_="a", data_x=1.5) == '<p class="a" data-x="1.5"></p>'
    assert isinstance(tag("p"), Markup)


def test_a_curve_breaks_where_there_is_no_label() -> None:
    """A window without a figure is a gap; one alone between gaps is a dot."""
    svg = chart(LOG_LOSS, [Entry(name="a", windows=windows(0.5, None, 0.4, 0.3))], timed=True, id="x")
    lines = re.findall(r'points="([^"]+)"', svg)
    assert [len(line.split()) for line in lines] == [2, 2]
    assert len(set(lines[0].split())) == 1


def test_a_far_curve_does_not_flatten_the_others() -> None:
    """It may leave the picture, which then says so."""
    entries = [*outcome().policies, *outcome().baselines]
    assert outside(LOG_LOSS, entries) == ["no change"]
    assert outside(LOG_LOSS, entries[:1]) == []
    assert chart(ACCURACY, entries, timed=True, id="x") == ""


def test_runs_and_drifts_are_marked() -> None:
    """Each run and drift is a mark that tells when and why."""
    svg = chart(LOG_LOSS, outcome().policies, timed=True, id="x")
    told = re.findall(r"<title>([^<]+)</title>", svg)
    assert "hourly, 2013-01-01 00:26: 1,000 new labels" in told
    assert "hourly, 2013-01-02 00:26: 2,000 new labels (not released)" in told
    assert len(re.findall("<path", svg)) == 1


def test_an_empty_backtest_is_a_page_too() -> None:
    """Without policies, windows or labels nothing fails."""
    empty = Outcome(data="x", events=0, label_delay="1", policies=[Entry(name="a")])
    Tree(page(empty))
    show(empty, io.StringIO())
    assert builtin(empty)["policies"][0]["log_loss"] is None


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low: float, width: float) -> None:
    """Between 2 and 11 ticks, all within, equally far apart."""
    high = low + width
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    found = ticks(low, high)
    assert 2 <= len(found) <= 11
    assert low - width * 1e-6 <= found[0]
    assert found[-1] <= high + width * 1e-6


def test_the_table_on_a_terminal() -> None:
    """One line each with what is known, and why the policy trained; away from a terminal there are no colours."""
    stream = io.StringIO()
    show(outcome(EVIL), stream)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "a.csv: 60 events, 55 labels (delay 12h), 50 scored"
    assert re.match(r"\s+accuracy\s+log-loss\s+runs\s+releases\s+CPU s\s+joules$", lines[1].rstrip())
    assert lines[2].startswith(EVIL)
    assert re.match(r"no change\s+70.00 %\s+7.2000\s+–\s+–\s+–\s+–$", lines[3].rstrip())
    assert lines[4] == f"{EVIL}: 2 × N new labels; 1 not released"
    assert "\x1b" not in stream.getvalue()


def test_what_reads_the_same_is_as_good() -> None:
    """The best of a column is a text: two that look alike are both best; costs have no best."""
    pair = Outcome(
        data="x", events=1, label_delay="0", policies=[Entry(name=n, accuracy=a, cpu_seconds=1) for n, a in PAIR]
    )
    accuracy, cpu = columns(pair)
    assert best(accuracy, pair.policies) == "80.00 %"
    assert best(cpu, pair.policies) is None
    assert best(accuracy, pair.policies[:1]) is None


PAIR = (("a", 0.80001), ("b", 0.80002))


@pytest.mark.parametrize(
    ("span", "said"), [(0, "2013-01-01 00:26"), (DAY, "01 Jan 00:26"), (30 * DAY, "01 Jan"), (9e7, "Jan 2013")]
)
def test_moments_are_as_fine_as_the_picture_needs(span: float, said: str) -> None:
    """Years need months, days need hours; rows without times are numbered."""
    assert instant(START, timed=True, span=span) == said
    assert instant(12_345.0, timed=False, span=span) == "12,345"


def test_reasons_are_counted_by_kind() -> None:
    """Numbers do not make a reason another one."""
    given = [
        "1,000 new labels (every 900)",
        "1,100 new labels (every 900)",
        "schedule '0 * * * *', due 2013-01-01 10:00 UTC",
    ]
    runs = [Retraining(at=0, reason=reason) for reason in given]
    assert reasons(runs)[0] == ("N new labels (every N)", 2)


def test_json_has_no_nan() -> None:
    """What is not finite is null, as deep as it may be, and times are named from and to."""
    found = outcome()
    found.policies[0].windows[0].log_loss = float("nan")
    found.policies[0].auc = float("inf")
    told = builtin(found)["policies"][0]
    assert told["auc"] is None
    assert told["windows"][0]["log_loss"] is None
    assert {"from", "to"} <= set(told["windows"][0])
