"""The Apache Kafka of the tests marked `kafka`, and the lines at the end of a run that name the tests left out.

Kafka is, in this order: the cluster at KAFKA_BOOTSTRAP_SERVERS; a broker started from KAFKA_HOME (an unpacked Kafka);
a container, if Docker answers. Without any of these the tests are skipped.

The broker starts when the first test asks for it. Under pytest-xdist the controller starts it before its workers, which
find it through the environment: all workers share one broker, and it ends with the run even if a worker crashes.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

# One thread of torch in each process, child processes included: tests run in as many processes as there are cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings
from support.prometheus_server import NO_PROMETHEUS, PROMETHEUS

from tailrace.testing import NoKafka, kafka
from tailrace.testing.kafka import KafkaCluster

HOW = "set KAFKA_HOME to an unpacked Apache Kafka (needs Java 17), or KAFKA_BOOTSTRAP_SERVERS, or start Docker"
NONE = "no Apache Kafka"
LEFT_OUT = {"long": "make test-all", "nightly": "make nightly"}  # marker -> the command that runs these tests
MOST_WORKERS = 8  # Kafka and torch make more of them useless
RUNNING = pytest.StashKey[ExitStack]()
DESELECTED = pytest.StashKey["Counter[str]"]()

# A slow example on a busy machine is not a failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """The address of a Kafka cluster, "host:port[,host:port]". All tests share it: each uses unique topic names."""
    with _kafka() as bootstrap:
        if bootstrap is None:
            pytest.skip(f"{NONE}: {HOW}")
        yield bootstrap


@pytest.fixture(scope="module")
def kafka_cluster_3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Three brokers that a test may kill and restart; nodes 1 to 3."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip(f"{NONE} to break: set KAFKA_HOME to an unpacked Apache Kafka (needs Java 17)")
    with KafkaCluster(Path(home), tmp_path_factory.mktemp("kafka3"), brokers=3) as cluster:
        yield cluster


@contextmanager
def _kafka() -> Iterator[str | None]:
    """The address of a running Kafka; None if there is none and none can be started."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(kafka())
        except NoKafka:
            yield None
        else:
            yield url.removeprefix("kafka://")


def pytest_configure(config: pytest.Config) -> None:
    """Start the broker for the workers of pytest-xdist."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so do shells start jobs in the background; children inherit
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("filterwarnings", "ignore:.*_text is deprecated:DeprecationWarning")  # inside kafka-python
    # kafka-python leaves a socket open when its bootstrap fails; it is collected during a later test.
    config.addinivalue_line("filterwarnings", "ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
    config.addinivalue_line("filterwarnings", "ignore:testcontainers.*deprecated:DeprecationWarning")
    config.stash[DESELECTED] = Counter()
    running = config.stash[RUNNING] = ExitStack()
    if config.getoption("numprocesses", None) and not config.getoption("collectonly"):
        bootstrap = running.enter_context(_kafka())
        if bootstrap is not None:
            os.environ["KAFKA_BOOTSTRAP_SERVERS"] = bootstrap


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes for `-n auto`: one more than cores, because tests wait for roles and brokers."""
    return min(len(os.sched_getaffinity(0)) + 1, MOST_WORKERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests first in the share of each worker of pytest-xdist, so that none runs alone at the end.

    pytest-xdist gives each worker an equal part of this list. Long tests of a module stay together.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    modules = list(dict.fromkeys(item.path for item in long))
    size = -(-len(items) // workers)
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        ordered += [item for item in long if modules.index(item.path) % workers == worker]
        ordered += [others.pop(0) for _ in range(min(len(others), size * (worker + 1) - len(ordered)))]
    items[:] = ordered


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the deselected tests of each marker."""
    for item in items:
        item.config.stash[DESELECTED].update(mark for mark in LEFT_OUT if item.get_closest_marker(mark))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts of a worker of pytest-xdist to its controller, which collects nothing itself."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        counts = session.config.stash[DESELECTED]
        output["deselected"] = dict(counts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the counts of a worker; all workers collect the same tests."""
    if counts := getattr(node, "workeroutput", {}).get("deselected"):
        node.config.stash[DESELECTED] = Counter(counts)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the broker; name in the last lines the tests that did not run, and the way to run them."""
    config.stash[RUNNING].close()
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    for mark, command in LEFT_OUT.items():
        if count := config.stash[DESELECTED][mark]:
            reporter.write_line(f"{count} tests marked `{mark}` were left out: {command}", yellow=True)
    for none, name, how in ((NO_PROMETHEUS, "PROMETHEUS", PROMETHEUS), (NONE, "KAFKA", HOW)):
        skipped = [report for report in reporter.stats.get("skipped", []) if none in str(report.longrepr)]
        if skipped:
            reporter.write_line(f"!!! {len(skipped)} {name} TESTS WERE SKIPPED: {how} !!!", red=True, bold=True)
