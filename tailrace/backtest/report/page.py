"""HTML report of a backtest: one self-contained page, rendered from its result (pure except `write`).

The page loads and sends nothing (its Content-Security-Policy forbids both) and follows the reader's dark or light
scheme. Its script only hides curves, so the page can be read without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tailrace.backtest.report.charts import ACCURACY, LOG_LOSS, MEAN_ABSOLUTE_ERROR, Metric, chart, clipped, legend
from tailrace.backtest.report.markup import Markup, join, tag
from tailrace.backtest.report.text import NONE, best, cell, columns, instant, not_released, runs_by_trigger
from tailrace.backtest.result import BacktestEntry, BacktestResult, MetricWindow, Retraining

FILE = "backtest.html"
_METRICS = (LOG_LOSS, ACCURACY, MEAN_ABSOLUTE_ERROR)
_MOST_RUNS = 500  # rows in the table of a policy's runs


def write(result: BacktestResult, directory: Path) -> Path:
    """Write the page into `directory`, which is created if needed, and return its path. Raise OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILE
    path.write_text(page(result), encoding="utf-8")
    return path


def page(result: BacktestResult) -> str:
    """Render the page as HTML."""
    title = f"Backtest of {result.pipeline or result.data}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_ALLOWED),
        tag("title", title),
        tag("style", Markup(_STYLE + _series(len(result.policies), len(result.baselines)))),
    )
    body = tag(
        "body",
        tag("header", tag("h1", title), _facts(result)),
        tag("main", *_sections(result)),
        tag("script", Markup(_SCRIPT)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _facts(result: BacktestResult) -> Markup:
    facts = [
        ("Data", result.data),
        ("Events", f"{result.events:,}"),
        ("Labels", f"{result.labels:,}"),
        ("Label delay", result.label_delay),
        ("Task", result.task),
        ("Scored from event", f"{result.score_from:,}"),
        ("Seed", str(result.seed)),
    ]
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts))


def _sections(result: BacktestResult) -> Iterable[Markup]:
    entries = [*result.policies, *result.baselines]
    yield tag("section", tag("h2", "Comparison", id="comparison"), _comparison(result), aria_labelledby="comparison")
    charts = [_figure(metric, result, number) for number, metric in enumerate(_METRICS)]
    if any(charts):
        yield tag("section", tag("h2", "Over time", id="time"), legend(entries), *charts, aria_labelledby="time")
    for entry in result.policies:
        yield _policy(entry, result.timed)
    yield tag("section", tag("h2", "Windows", id="windows"), *_windows(result), aria_labelledby="windows")


def _comparison(result: BacktestResult) -> Markup:
    shown, entries = columns(result), [*result.policies, *result.baselines]
    best_texts = [best(column, entries) for column in shown]
    heads = [tag("th", column.head, scope="col", title=column.meaning) for column in shown]
    bodies = []
    for kind, group in (("Policies", result.policies), ("Baselines", result.baselines)):
        rows = []
        for entry in group:
            texts = [cell(column, entry) for column in shown]
            cells = [
                tag("td", tag("strong", text) if text == top else text)
                for text, top in zip(texts, best_texts, strict=True)
            ]
            rows.append(tag("tr", tag("th", entry.name, scope="row"), *cells))
        if rows:
            title = tag("tr", tag("th", kind, colspan=len(shown) + 1, scope="rowgroup"), class_="group")
            bodies.append(tag("tbody", title, *rows))
    sources = sorted({entry.joules_from for entry in entries if entry.joules_from})
    meanings = [f"{column.head}: {column.meaning}" for column in shown]
    notes = [*meanings, *([f"joules come from: {', '.join(sources)}"] if sources else []), "the best is in bold"]
    table = tag("table", tag("thead", tag("tr", tag("th", "Name", scope="col"), *heads)), *bodies, class_="comparison")
    return join(_scrolled(table, "Comparison"), tag("p", "; ".join(notes) + ".", class_="note"))


def _figure(metric: Metric, result: BacktestResult, number: int) -> Markup:
    entries = [*result.policies, *result.baselines]
    picture = chart(metric, result.policies, result.baselines, timed=result.timed, id=f"chart{number}")
    if not picture:
        return picture
    notes = [f"{metric.name} by window ({'higher' if metric.better > 0 else 'lower'} is better)"]
    if any(entry.retrainings for entry in entries):
        notes.append("ticks below are retraining runs of each policy, long if the model was released")
    if any(entry.drifts for entry in entries):
        notes.append("triangles are drift detections")
    outliers = [
        f"{e.name} ({low:.4g} to {high:.4g})" for e, low, high in clipped(metric, result.policies, result.baselines)
    ]
    if outliers:
        notes.append(f"the axis is scaled to the policies and clips {', '.join(outliers)}")
    caption = "; ".join(notes)
    return tag("figure", picture, tag("figcaption", caption[0].upper() + caption[1:] + "."))


def _policy(entry: BacktestEntry, timed: bool) -> Markup:
    """Render a policy's settings, runs and drift detections as a collapsed section."""
    summary = f"{entry.name}: {len(entry.retrainings):,} retrainings, {not_released(entry):,} not released"
    settings = [tag("div", tag("dt", name), tag("dd", value)) for name, value in entry.settings.items()]
    parts = [tag("dl", *settings)] if settings else []
    if entry.retrainings:
        parts.append(tag("p", f"Runs by trigger: {runs_by_trigger(entry.retrainings)}."))
        parts.append(_runs(entry, timed))
    if entry.drifts:
        lines = [f"{instant(drift.at, timed=timed)}: {drift.description}" for drift in entry.drifts[:_MOST_RUNS]]
        parts.append(tag("ul", *(tag("li", line) for line in lines)))
    return tag("details", tag("summary", summary), *parts)


def _runs(entry: BacktestEntry, timed: bool) -> Markup:
    heads = ("At", "Reason", "Examples", "Seconds", "Gate", "Released")
    rows = [
        tag("tr", tag("th", instant(run.at, timed=timed), scope="row"), *(tag("td", text) for text in _run(run)))
        for run in entry.retrainings[:_MOST_RUNS]
    ]
    head = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in heads)))
    table = _scrolled(tag("table", head, tag("tbody", *rows), class_="words"), f"Retrainings of {entry.name}")
    omitted = len(entry.retrainings) - _MOST_RUNS
    return join(table, tag("p", f"{omitted:,} more are not listed.", class_="note")) if omitted > 0 else table


def _run(run: Retraining) -> tuple[str, str, str, str, str]:
    examples = NONE if run.examples is None else f"{run.examples:,}"
    seconds = NONE if run.seconds is None else f"{run.seconds:.2f}"
    return run.reason, examples, seconds, run.gate or NONE, "yes" if run.released else "no"


def _windows(result: BacktestResult) -> Iterable[Markup]:
    """Render the curves as tables, for screen readers and for readers who need the numbers."""
    entries = [*result.policies, *result.baselines]
    for metric in _METRICS:
        if not any(metric.values(entry) for entry in entries):
            continue
        longest = max((entry.windows for entry in entries), key=len)
        rows = []
        for n, window in enumerate(longest):
            values = [metric.value(e.windows[n]) if n < len(e.windows) else None for e in entries]
            cells = [tag("td", NONE if value is None else f"{value:.4f}") for value in values]
            rows.append(tag("tr", tag("th", _period(window, result.timed), scope="row"), *cells))
        heads = [tag("th", entry.name, scope="col") for entry in entries]
        table = tag("table", tag("thead", tag("tr", tag("th", "Window", scope="col"), *heads)), tag("tbody", *rows))
        name = metric.name[0].upper() + metric.name[1:]
        yield tag("details", tag("summary", f"{name} in numbers"), _scrolled(table, name))


def _period(window: MetricWindow, timed: bool) -> str:
    return f"{instant(window.start, timed=timed)} – {instant(window.end, timed=timed)}"


def _scrolled(table: Markup, label: str) -> Markup:
    """Wrap a table so that it scrolls on its own if it is wide, by keyboard too."""
    return tag("div", table, class_="scroll", role="region", tabindex=0, aria_label=label)


def _series(policies: int, baselines: int) -> str:
    """Return the CSS rules of the curves: thick solid lines for policies, thin dashed lines for baselines."""
    rules = []
    for number in range(policies + baselines):
        rule = f"--c:var(--c{number % _COLOURS})"
        if number >= policies:
            rule += f";stroke-width:1.5;stroke-dasharray:{_DASHES[(number - policies) % len(_DASHES)]}"
        rules.append(f".s{number}{{{rule}}}")
    return "".join(rules)


_COLOURS = 7
_DASHES = ("2 4", "9 4", "5 3", "9 3 2 3", "14 3")
_ALLOWED = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

# Based on the palette of Okabe and Ito, which is safe for colour-blind readers, with lighter shades on dark. Dashes
# distinguish the baselines too.
_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1a1d21;--dim:#5b6470;--line:#dfe3e8;--soft:#f5f7f9;
--c0:#0072b2;--c1:#c04a00;--c2:#007a59;--c3:#a8478a;--c4:#8a6d00;--c5:#8c3b2e;--c6:#444b54}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e8eaed;--dim:#a3acb8;--line:#333a42;--soft:#1d2126;
--c0:#58b4ee;--c1:#f08a4b;--c2:#3ec9a0;--c3:#e08fc4;--c4:#e0b93a;--c5:#e39a8f;--c6:#c3cad3}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1.2rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:.2rem 0 .8rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:1.8rem 0 .6rem}
dl{display:flex;flex-wrap:wrap;gap:.4rem 1.6rem;margin:0 0 .6rem}dt{color:var(--dim);font-size:.82rem}
dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:.35rem .7rem;text-align:right;white-space:nowrap}
thead th{background:var(--soft);font-weight:600;border-bottom:1px solid var(--line)}
tbody th,thead th:first-child{text-align:left;font-weight:400}
tbody tr+tr>*{border-top:1px solid var(--line)}
.comparison th,.comparison td{padding:.3rem .42rem;font-size:.82rem}
.comparison tbody th{white-space:normal;overflow-wrap:anywhere;min-width:5.5rem}
.group th{color:var(--dim);font-size:.8rem;background:var(--soft)}
.words td{text-align:left;white-space:normal}
.note,figcaption{color:var(--dim);font-size:.85rem}
figure{margin:1rem 0 1.6rem}svg{display:block;width:100%;height:auto}
svg text{fill:var(--dim);font-size:12px}
.grid,.lane{stroke:var(--line);stroke-width:1}
.curve,.key{stroke-width:2.4}.curve{fill:none;stroke:var(--c);stroke-linejoin:round;stroke-linecap:round}
.marks line:not(.lane){stroke:var(--c);stroke-width:1.5;stroke-dasharray:none}
.marks .lane{stroke-dasharray:none}.marks path{fill:var(--c)}
fieldset{border:0;padding:0;margin:0 0 .6rem;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem}
legend{float:left;color:var(--dim);padding:0;margin-right:1.1rem}
label{display:inline-flex;align-items:center;gap:.35rem;min-height:1.8rem;cursor:pointer}
.key{width:26px;height:12px}.key line{stroke:var(--c)}
details{margin:.5rem 0;border:1px solid var(--line);border-radius:6px;padding:.4rem .8rem}
summary{cursor:pointer;overflow-wrap:anywhere}
:focus-visible{outline:2px solid var(--c0);outline-offset:2px}
.hidden{display:none}
@media(max-width:40rem){body{padding:.7rem}svg text{font-size:22px}}
@media print{.scroll{overflow:visible}fieldset{display:none}}
"""

_SCRIPT = """
document.querySelectorAll("input[data-series]").forEach(box => box.addEventListener("change", () =>
  document.querySelectorAll(`.curve.s${box.dataset.series}, .marks.s${box.dataset.series}`)
    .forEach(part => part.classList.toggle("hidden", !box.checked))));
"""
