"""A broker that is away for longer than any time-out costs time and nothing else."""

from __future__ import annotations

import gc
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import hard_pipeline as hard
from support.role_processes import RoleProcesses
from support.waiting import PATIENCE_S, until

from tailrace.testing import Harness
from tailrace.testing.kafka import KafkaCluster

EVENTS = 200


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaCluster]:
    """A broker of this test alone."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("no Apache Kafka to stop: set KAFKA_HOME to an unpacked Apache Kafka (needs Java 17)")
    with KafkaCluster(Path(home), tmp_path / "kafka") as cluster:
        yield cluster


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # kafka-python drops refused connections so
def test_all_roles_wait_for_a_broker_and_go_on(
    broker: KafkaCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While the broker is away each role says once that it waits; none ends, none restarts; afterwards all events are
    predicted and all labels joined, once."""
    caplog.set_level(logging.CRITICAL, "kafka")  # a log record would keep its traceback and so each of these sockets
    declared = hard.declare("outage", retrains=True)
    with Harness(declared, f"kafka://{broker.bootstrap}") as kit:
        kit.publish_untrained()
        role = RoleProcesses(kit, f"{hard.__file__}:retraining", tmp_path, HARD_NAME="outage")
        running = role.start("run", "--no-console")

        def alive() -> None:
            role.check(running)

        def serve(start: int) -> None:
            ids = [f"e{n}" for n in range(start, start + EVENTS)]
            kit.send(*({"id": id, "at": kit.clock.now, "x": 0.5} for id in ids))
            for id in ids:
                kit.label(id, True)

        try:
            serve(0)
            until(lambda: len(kit.examples()) == EVENTS, check=alive)
            broker.kill(1)
            until(lambda: len(role.said("waiting for the log")) == 3, check=alive)
            broker.restart(1)
            serve(EVENTS)
            until(lambda: len(role.said("the log can be reached again")) == 3, check=alive)
            until(lambda: len(kit.examples()) >= 2 * EVENTS, check=alive)
        finally:
            running.terminate()
            running.wait(PATIENCE_S)
        expected = Counter(f"e{n}" for n in range(2 * EVENTS))
        assert Counter(prediction.id for prediction in kit.predictions()) == expected
        assert Counter(example.id for example in kit.examples()) == expected
    gc.collect()  # while its warnings are ignored
    assert running.returncode == 0
    assert len(role.said("waiting for the log")) == 3
    assert len(role.said("started")) == 3
