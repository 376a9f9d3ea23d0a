"""The demo as a newcomer runs it, on both logs: real processes, real data, and its own figures checked."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from support.environment import unmeasured

LIMIT_S = 900.0


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def summary(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Summary that `tailrace demo --json` prints, on the embedded log and on Kafka."""
    command = [sys.executable, "-m", "tailrace", "demo", "--json"]
    environment = None
    if request.param == "kafka":
        command += ["--broker", f"kafka://{request.getfixturevalue('kafka_bootstrap')}"]
        environment = unmeasured()  # the run on the embedded log covers the same code
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.long
@pytest.mark.timeout(LIMIT_S)
def test_the_demo_predicts_every_event_once_and_learns(summary: dict[str, Any]) -> None:
    """Each event is predicted once, each label gives one example, releases are swapped in, learning pays, and both
    sides are measured."""
    assert summary["events"] == 75_257
    assert summary["predictions"] == summary["events"]
    assert (summary["duplicates"], summary["missing"], summary["dead_letters"]) == (0, 0, 0)
    assert summary["examples"] == summary["labels"] == 72_407
    assert summary["unlabelled"] == 2_850
    assert summary["releases"] >= 5
    assert summary["swaps"] >= 5
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
