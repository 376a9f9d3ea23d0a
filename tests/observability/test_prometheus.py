"""Metrics, dashboards, rules and `tailrace compare` on a real Prometheus that scrapes the roles of a real run."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import pytest
from support.prometheus_server import PrometheusClient, promtool, running, tool
from support.waiting import until

from tailrace.app.factory import create_topics, signing_key
from tailrace.app.pipeline_file import load_pipeline
from tailrace.app.settings import KeysSettings, LogSettings, Settings, as_environment
from tailrace.app.supervisor import ROLES, Roles
from tailrace.cli.main import run
from tailrace.declaration.pipeline import Pipeline
from tailrace.monitoring.telemetry.compare import comparison
from tailrace.monitoring.telemetry.compare_text import rows, sentences
from tailrace.monitoring.telemetry.dashboards import DASHBOARDS
from tailrace.monitoring.telemetry.metrics import COLLECTED, Metrics
from tailrace.streams.log.base import Log
from tailrace.streams.log.records import Out
from tailrace.streams.log.url import open_log
from tailrace.testing.ports import free_port

DECLARATION = """
from tailrace import Event, EventTime, Key, Label, Number, Online, Pipeline, Training
from tailrace.triggers import Drift, Labels, Schedule


class Reading(Event):
    id: Key
    at: EventTime
    x: Number


pipeline = Pipeline(
    "readings",
    event=Reading,
    label=Label("big", wait="10m"),
    online=Online(seconds=0.2),
    retrain=[Labels(2_000), Drift(), Schedule("0 5 * * MON")],
    training=Training(min_examples=200, window=2_000, epochs=1),
)
"""
EVENTS = 7_500  # drift is measured after six windows of labels
REGRESSION_ONLY = {"tailrace_quality_squared_error"}  # the label of this run is binary
WINDOW = "2m"  # in place of Grafana's $__rate_interval: covers the whole run


class ScrapedRun(NamedTuple):
    """Running roles and the Prometheus that scrapes them."""

    prometheus: PrometheusClient
    urls: list[str]
    texts: dict[str, str]  # /metrics of each role, at the end of the run
    logs: dict[str, str]  # log lines of each role


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScrapedRun]:
    """Worker, joiner and retrainer after thousands of events, scraped since their start."""
    tool("prometheus")
    directory = tmp_path_factory.mktemp("observed")
    (directory / "pipeline.py").write_text(DECLARATION)
    settings = Settings(
        pipeline=str(directory / "pipeline.py"),
        log=LogSettings(url=f"sqlite:///{directory / 'log.db'}", partitions=2),
        keys=KeysSettings(directory=directory / "keys"),
    )
    declared = load_pipeline(settings.pipeline)
    ports = {role: free_port() for role in ROLES}
    urls = [f"http://127.0.0.1:{port}/metrics" for port in ports.values()]
    with ExitStack() as stack:
        log = open_log(settings.log.url)
        stack.callback(log.close)
        create_topics(log, declared, settings)
        signing_key(settings)
        roles = stack.enter_context(Roles(settings.pipeline, as_environment(settings), ports=ports, logs=directory))
        prometheus = stack.enter_context(running(directory / "prometheus", ports))
        until(lambda: len(prometheus.query('up{job="tailrace"} == 1')) == 3, check=roles.check)
        until(lambda: len(prometheus.query("tailrace_hardware_info")) == 3, check=roles.check)
        _send(log, declared)
        trickle = _Trickle(log, declared)
        until(lambda: prometheus.query(f"sum(tailrace_examples_total) >= {EVENTS - 2}"), 120.0, roles.check)
        until(lambda: prometheus.query('sum(tailrace_retrain_runs_total{outcome="published"}) > 0'), 120.0, roles.check)

        def swapped() -> bool:
            trickle.send()
            return bool(prometheus.query("tailrace_swap_pause_seconds_count > 0"))

        until(swapped, check=roles.check)
        logs = {role: (directory / f"{role}.log").read_text() for role in ROLES}
        yield ScrapedRun(prometheus, urls, dict(zip(ROLES, map(_text, urls), strict=True)), logs)


def _send(log: Log, declared: Pipeline) -> None:
    """Send labels first, so that no window closes before they are read; with two malformed events and a late label."""
    start, topics, writer = time.time() - 0.2 * EVENTS, declared.topics, log.writer()
    events: list[dict[str, Any]] = [
        {"id": str(n), "at": start + 0.2 * n, "x": (n * 37 % 100 - 49.5) / 50} for n in range(EVENTS)
    ]
    labels = [{"id": event["id"], "label": event["x"] > 0.2, "time": event["at"] + 5} for event in events]
    labels[1]["time"] += 3_600
    outs = [Out(topics.labels, str(label["id"]).encode(), json.dumps(label).encode()) for label in labels]
    outs += [Out(topics.events, None, json.dumps(event).encode()) for event in events[2:]]
    outs += [Out(topics.events, None, b'{"x": "private"'), Out(topics.events, None, b'{"id": "a", "x": "private"}')]
    writer.write([*outs, Out(topics.labels, b"0", b'{"id": "0", "label": "private"}')])
    writer.write([Out(topics.events, None, json.dumps(event).encode()) for event in events[:2]])
    writer.commit()
    writer.close()


class _Trickle:
    """Sends single events, because a worker swaps a release in only before a batch."""

    def __init__(self, log: Log, declared: Pipeline) -> None:
        self._log, self._topic, self._sent = log, declared.topics.events, 0

    def send(self) -> None:
        """Send one event."""
        writer = self._log.writer()
        event = {"id": f"more{self._sent}", "at": time.time(), "x": 0.5}
        writer.write([Out(self._topic, None, json.dumps(event).encode())])
        writer.commit()
        writer.close()
        self._sent += 1


def _text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        text: str = answer.read().decode()
        return text


@pytest.mark.long
def test_every_panel_of_every_dashboard_has_data(live: ScrapedRun) -> None:
    """Each expression of each panel has at least one finite value."""
    panels = {
        f"{dashboard.uid}: {panel.title}: {query}": query.replace("$__rate_interval", WINDOW)
        for dashboard in DASHBOARDS
        for row in dashboard.rows
        for panel in row.panels
        for query, _ in panel.queries
    }
    assert len(panels) > 50
    empty = set(panels)

    def all_there() -> bool:
        empty.difference_update([name for name in empty if live.prometheus.query(panels[name])])
        return not empty

    try:
        until(all_there)
    except AssertionError:
        raise AssertionError("\n".join(sorted(empty))) from None


@pytest.mark.long
def test_rules_evaluate_and_record(live: ScrapedRun) -> None:
    """No rule fails, every recording rule has values, and the dead letters of the run fire their alert."""
    rules = live.prometheus.rules()
    recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
    alerts = {rule["name"] for rule in rules if rule["type"] == "alerting"}
    assert (len(recorded), len(alerts)) == (9, 10)
    until(lambda: all(rule["health"] == "ok" for rule in live.prometheus.rules()))
    for name in recorded:
        until(partial(live.prometheus.query, name))
    assert not [rule["lastError"] for rule in live.prometheus.rules() if rule.get("lastError")]
    until(lambda: live.prometheus.query('ALERTS{alertname="TailraceDeadLetters",alertstate="firing"}'))
    assert not live.prometheus.query('ALERTS{alertname="TailraceTargetDown",alertstate="firing"}')


@pytest.mark.long
def test_served_metrics_are_documented_and_clean(live: ScrapedRun) -> None:
    """promtool finds no fault, and the three roles together serve exactly the metrics of docs/metrics.md."""
    for text in live.texts.values():
        promtool("check", "metrics", given=text)
    served = set(re.findall(r"^# TYPE (tailrace_\w+) ", "\n".join(live.texts.values()), re.MULTILINE))
    groups = [group.defined for group in Metrics().groups().values()]
    documented = {metric.name for metrics in (COLLECTED, *groups) for metric in metrics}
    assert served == documented
    values = set(re.findall(r"^(tailrace_\w+?)(?:_bucket|_sum|_count)?(?:\{| )", "\n".join(live.texts.values()), re.M))
    assert documented - REGRESSION_ONLY <= values


@pytest.mark.long
def test_logs_are_lines_of_json_that_quote_no_record(live: ScrapedRun) -> None:
    """Each line has an event, a level and a timestamp; no line quotes a record, usable or not."""
    for role, log in live.logs.items():
        lines = [json.loads(line) for line in log.splitlines()]
        assert all({"event", "level", "timestamp"} <= line.keys() for line in lines), role
        assert {"metrics", "started"} <= {line["event"] for line in lines}
        assert "private" not in log
        assert '"x"' not in log
    assert "swapped" in {json.loads(line)["event"] for line in live.logs["worker"].splitlines()}


@pytest.mark.long
def test_training_and_inference_are_compared(live: ScrapedRun, capsys: pytest.CaptureFixture[str]) -> None:
    """`tailrace compare` measures both sides, names the source of each energy figure, and prints a table."""
    options = [part for url in live.urls for part in ("--url", url)]
    assert run(["compare", "--json", *options]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared.keys() == comparison(live.urls).keys() == {"inference", "training"}
    for side in compared.values():
        assert side["purpose"]
        assert side["compute"]["cpu_seconds"] > 0
        assert 0 < side["latency"]["p50_s"] <= side["latency"]["p99_s"]
        assert side["energy"]["joules"] == pytest.approx(sum(side["energy"]["sources"].values()))
        assert side["energy"]["joules"] > 0
        assert set(side["energy"]["sources"]) <= {"rapl", "nvml", "estimate"}
        assert side["cost"]["EUR"] > 0
        assert int(side["hardware"][0]["cores"]) >= 1
    inference, training = compared["inference"], compared["training"]
    assert inference["data"]["events"] > EVENTS
    assert inference["data"]["dead_letters"] == 2
    assert training["data"]["examples"] >= EVENTS - 2
    assert training["run_latency"]["p50_s"] > 0
    assert inference["per_million_predictions"]["joules"] > 0
    assert training["per_retraining"]["cost"]["EUR"] > 0
    assert len(list(rows(compared))) >= 10
    assert len(sentences(compared)) == 2
    assert run(["compare", *options]) == 0
    printed = capsys.readouterr().out
    assert "J per retraining" in printed
