"""The HTTP server of metrics and health."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tailrace.monitoring.telemetry.health import Health
from tailrace.monitoring.telemetry.http import PortTaken, ServerAddress, serve
from tailrace.monitoring.telemetry.metrics import Metrics
from tailrace.monitoring.telemetry.observers import RunnerObserver


@pytest.fixture
def metrics() -> Metrics:
    """Metrics in a new registry."""
    return Metrics()


@pytest.fixture
def served(metrics: Metrics) -> Iterator[ServerAddress]:
    """Address of a server on any free port."""
    with serve(metrics) as address:
        yield address


def get(served: ServerAddress, path: str) -> tuple[int, str]:
    """Status and body of one request."""
    try:
        with urllib.request.urlopen(f"http://{served.host}:{served.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_served(metrics: Metrics, served: ServerAddress) -> None:
    """A scrape returns the counters in the text format of Prometheus."""
    metrics.stream.aborts.inc(3)
    status, body = get(served, "/metrics")
    assert status == 200
    assert "# TYPE tailrace_aborts_total counter\ntailrace_aborts_total 3.0\n" in body


def test_health_follows_the_loop(metrics: Metrics, served: ServerAddress) -> None:
    """/healthz is 200 while the loop beats, and 503 with the reason after too long a silence."""
    now = 0.0
    metrics.health = Health(limit=30, clock=lambda: now)
    observer = RunnerObserver(metrics)
    observer.rebalanced("assigned", 1)
    assert get(served, "/healthz") == (200, "ok\n")
    now = 31.0
    status, body = get(served, "/healthz")
    assert status == 503
    assert "31 s" in body
    observer.batch(1, 1, 0.1)
    assert get(served, "/healthz") == (200, "ok\n")


def test_other_paths_are_named(served: ServerAddress) -> None:
    """Any other path is a 404 that names the two paths."""
    status, body = get(served, "/")
    assert status == 404
    assert "/metrics" in body


def test_busy_port_is_one_clear_error(metrics: Metrics, served: ServerAddress) -> None:
    """The error of a taken port names it and the fix."""
    with pytest.raises(PortTaken, match=f"{served.port}.*set monitoring.port"), serve(metrics, port=served.port):
        pass


def test_port_is_free_again(metrics: Metrics) -> None:
    """A server that has ended frees its port for the next one."""
    with serve(metrics) as first:
        port = first.port
    with serve(metrics, port=port) as second:
        assert get(second, "/healthz")[0] == 200
