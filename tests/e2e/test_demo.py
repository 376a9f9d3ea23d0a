"""The demo as a newcomer runs it, on both logs: real processes, real data, and its own figures checked."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from support.environment import unmeasured

LIMIT_S = 900.0


def demo(*options: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the summary that `tailrace demo --json` prints."""
    command = [sys.executable, "-m", "tailrace", "demo", "--json", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(summary: dict[str, Any]) -> None:
    """Each event is predicted once, each label gives one example, and releases are swapped in."""
    assert summary["predictions"] == summary["events"]
    assert (summary["duplicates"], summary["missing"], summary["dead_letters"]) == (0, 0, 0)
    assert summary["examples"] == summary["labels"]
    assert summary["releases"] >= 5
    assert summary["swaps"] >= 5


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.timeout(LIMIT_S)
def test_two_weeks_on_kafka_lose_and_double_nothing(kafka_bootstrap: str) -> None:
    """The demo replays its first two weeks on a Kafka cluster."""
    summary = demo("--weeks", "2", "--seconds", "15", "--broker", f"kafka://{kafka_bootstrap}")
    check(summary)
    assert 10_000 < summary["events"] < 15_000
    assert summary["labels"] + summary["unlabelled"] == summary["events"]


@pytest.mark.long
@pytest.mark.timeout(LIMIT_S)
def test_the_demo_predicts_every_event_once_and_learns() -> None:
    """Over all twelve weeks learning pays, and both sides are measured."""
    summary = demo(environment=unmeasured())
    check(summary)
    assert (summary["events"], summary["labels"], summary["unlabelled"]) == (75_257, 72_407, 2_850)
    assert all(run["reason"] and run["examples"] > 0 for run in summary["retrainings"])
    assert summary["live"]["log_loss"] < summary["frozen"]["log_loss"]
    assert summary["live"]["auc"] > summary["frozen"]["auc"]
    for side in ("inference", "training"):
        measured = summary["comparison"][side]
        assert measured["compute"]["cpu_seconds"] > 0
        assert measured["energy"]["joules"] == pytest.approx(sum(measured["energy"]["sources"].values()))
        assert measured["energy"]["joules"] > 0
        assert all(cost > 0 for cost in measured["cost"].values())
        assert 0 < measured["latency"]["p50_s"] <= measured["latency"]["p99_s"]
    assert summary["comparison"]["inference"]["data"]["events"] >= summary["events"]
