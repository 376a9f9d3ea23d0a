"""The real Apache Kafka that tests marked `kafka` run against.

It is, in this order: the cluster at KAFKA_BOOTSTRAP_SERVERS; a broker started from KAFKA_HOME (an unpacked Kafka);
a container, when Docker answers. Else those tests are skipped, and the last line of the run says so.

The broker starts when the first test asks for it. Under pytest-xdist the controller starts it, before its workers, who
find it through the environment: so there is one for all, and it ends with the run whatever becomes of a worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.prometheus_server import NO_PROMETHEUS, PROMETHEUS

from tailrace.testing import NoKafka, kafka
from tailrace.testing.kafka import KafkaCluster

HOW = "set KAFKA_HOME to an unpacked Apache Kafka (needs Java 17), or KAFKA_BOOTSTRAP_SERVERS, or start Docker"
NONE = "no Apache Kafka"
RUNNING = pytest.StashKey[ExitStack]()

# What is slow on a busy machine is not wrong.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """The address of a Kafka cluster, "host:port[,host:port]"; other tests use it too, so choose names of your own."""
    with _kafka() as bootstrap:
        if bootstrap is None:
            pytest.skip(f"{NONE}: {HOW}")
        yield bootstrap


@pytest.fixture(scope="module")
def kafka_cluster_3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Three brokers to break: `kill(node)`, `restart(node)`, nodes 1 to 3."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip(f"{NONE} to break: set KAFKA_HOME to an unpacked Apache Kafka (needs Java 17)")
    with KafkaCluster(Path(home), tmp_path_factory.mktemp("kafka3"), brokers=3) as cluster:
        yield cluster


@contextmanager
def _kafka() -> Iterator[str | None]:
    """A running Kafka's address, or None where there is none to be had."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(kafka())
        except NoKafka:
            yield None
        else:
            yield url.removeprefix("kafka://")


def pytest_configure(config: pytest.Config) -> None:
    """Start the broker for the workers of pytest-xdist."""
    config.addinivalue_line("filterwarnings", "ignore:.*_text is deprecated:DeprecationWarning")  # inside kafka-python
    config.addinivalue_line("filterwarnings", "ignore:testcontainers.*deprecated:DeprecationWarning")
    running = config.stash[RUNNING] = ExitStack()
    if config.getoption("numprocesses", None) and not config.getoption("collectonly"):
        bootstrap = running.enter_context(_kafka())
        if bootstrap is not None:
            os.environ["KAFKA_BOOTSTRAP_SERVERS"] = bootstrap


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the broker; say loudly, in the very last lines, what was not tested."""
    config.stash[RUNNING].close()
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    for none, what, how in ((NO_PROMETHEUS, "PROMETHEUS", PROMETHEUS), (NONE, "KAFKA", HOW)):
        reports = reporter.stats.get("skipped", []) if reporter else []
        skipped = [report for report in reports if none in str(report.longrepr)]
        if skipped:
            reporter.write_line(f"!!! {len(skipped)} {what} TESTS WERE SKIPPED: {how} !!!", red=True, bold=True)
