"""Temporary Apache Kafka for tests: on 127.0.0.1, in KRaft mode, from any unpacked distribution (needs Java 17).

    with KafkaCluster(Path(os.environ["KAFKA_HOME"]), directory, brokers=3) as cluster:
        cluster.bootstrap  # "127.0.0.1:41001,127.0.0.1:41003,127.0.0.1:41005"
        cluster.kill(2)
        cluster.restart(2)

Processes start Java classes directly, so only libs/ of the distribution is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka import KafkaException, Producer

from tailrace.errors import TailraceError
from tailrace.testing.ports import free_ports

CLUSTER_ID = "VGFpbHJhY2VUZXN0c18wMQ"  # any 16 bytes in base64
START_LIMIT = 180.0  # seconds within which every broker must answer
LOG4J = """Configuration:
  Appenders: {Console: {name: out, target: SYSTEM_OUT, PatternLayout: {pattern: "%d{ISO8601} %p %m (%c)%n"}}}
  Loggers: {Root: {level: WARN, AppenderRef: [{ref: out}]}}
"""


class NoKafka(TailraceError):
    """No Kafka is available for tests; the message names the ways to provide one."""


class KafkaCluster:
    """One or more brokers, numbered from 1, each in its own process.

    `home`: an unpacked Apache Kafka. `directory`: data and logs of the brokers; a cluster that is stopped and started
    again keeps its data. `bench`: full JIT and a heap of 4 GiB, as in production, because with a small heap Java's
    garbage collector determines the tail of latencies. By default brokers start quickly and use little memory.
    """

    def __init__(self, home: Path, directory: Path, brokers: int = 1, bench: bool = False) -> None:
        self._home, self._directory = home, directory.resolve()
        self._heap = "4g" if bench else "384m"
        self._jit = (
            ["-XX:+UseG1GC", "-Xms4g", "-XX:+AlwaysPreTouch"]
            if bench
            else ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        )
        ports = free_ports(2 * brokers)
        self._ports = dict(
            enumerate(zip(ports[::2], ports[1::2], strict=True), start=1)
        )  # node -> (port for clients, port for the quorum)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def bootstrap(self) -> str:
        """Addresses of all brokers, for `bootstrap.servers`."""
        return ",".join(f"127.0.0.1:{port}" for port, _ in self._ports.values())

    def start(self) -> KafkaCluster:
        """Start all brokers; return when each of them answers and a controller is elected. Raises RuntimeError."""
        try:
            for node in self._ports:
                if not self._prepare(node).joinpath("data").exists():
                    self._processes[node] = self._format(node)
            failed = max([process.wait() for process in self._processes.values()], default=0)
            self._processes.clear()
            if failed:
                raise RuntimeError(
                    f"the storage tool of {self._home} failed; set KAFKA_HOME to an unpacked Apache Kafka"
                )
            for node in self._ports:
                self._launch(node)
            for node in self._ports:
                self.await_ready(node)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop all brokers with SIGTERM; kill those that do not end within 15 seconds."""
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + 15
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def kill(self, node: int) -> None:
        """Kill one broker with SIGKILL, to simulate a crash."""
        process = self._processes.pop(node)
        process.kill()
        process.wait()

    def restart(self, node: int) -> None:
        """Start a killed broker on its old data; return when it answers."""
        self._launch(node)
        self.await_ready(node)

    def await_ready(self, node: int) -> None:
        """Return when this broker answers a metadata request and sees all running brokers. Raises RuntimeError."""
        client = Producer({"bootstrap.servers": f"127.0.0.1:{self._ports[node][0]}", "log_level": 0})
        deadline = time.monotonic() + START_LIMIT
        while True:
            if self._processes[node].poll() is not None or time.monotonic() > deadline:
                log = self._directory / str(node) / "broker.log"
                end = log.read_text(errors="replace")[-2_000:]
                raise RuntimeError(f"Kafka broker {node} did not start; the end of its log, {log}:\n{end}")
            try:
                if len(client.list_topics(timeout=1).brokers) >= len(self._processes):
                    return
            except KafkaException:
                continue  # no answer yet; the request itself waited up to a second

    def __enter__(self) -> KafkaCluster:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _prepare(self, node: int) -> Path:
        directory = self._directory / str(node)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "log4j2.yaml").write_text(LOG4J)
        (directory / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in self._properties(node).items()))
        return directory

    def _properties(self, node: int) -> dict[str, object]:
        replicas = min(3, len(self._ports))
        client, quorum = self._ports[node]
        return {
            "process.roles": "broker,controller",
            "node.id": node,
            "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{q}" for n, (_, q) in self._ports.items()),
            "listeners": f"PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{quorum}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{client}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": self._directory / str(node) / "data",
            "default.replication.factor": replicas,
            "min.insync.replicas": max(1, replicas - 1),
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": max(1, replicas - 1),
            "transaction.state.log.num.partitions": 4,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,  # default: 10 seconds
            "group.initial.rebalance.delay.ms": 0,  # consumer groups form immediately
            "auto.create.topics.enable": "false",  # a missing topic is an error
            "log.cleaner.dedupe.buffer.size": 16_777_216,  # the default does not fit the small heap
        }

    def _format(self, node: int) -> subprocess.Popen[bytes]:
        config = self._directory / str(node) / "server.properties"
        return self._java(node, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(config))

    def _launch(self, node: int) -> None:
        self._processes[node] = self._java(node, "kafka.Kafka", str(self._directory / str(node) / "server.properties"))

    def _java(self, node: int, *arguments: str) -> subprocess.Popen[bytes]:
        directory = self._directory / str(node)
        java = [shutil.which("java") or "java", f"-Xmx{self._heap}", *self._jit]
        java += [f"-Dlog4j2.configurationFile={directory}/log4j2.yaml", "-cp", f"{self._home}/libs/*"]
        with (directory / "broker.log").open("ab") as log:
            return subprocess.Popen(
                [*java, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ,
            )


@contextmanager
def kafka() -> Iterator[str]:
    """Yield the URL of a real Kafka, such as kafka://127.0.0.1:9092.

    It is the cluster at KAFKA_BOOTSTRAP_SERVERS if that variable is set. Else it is a new broker from KAFKA_HOME (an
    unpacked Apache Kafka; needs Java 17), else one in a container (needs Docker and `pip install testcontainers`).
    Raises NoKafka if none of these is available: `except NoKafka as error: pytest.skip(str(error))`.
    """
    servers, home = os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), os.environ.get("KAFKA_HOME")
    if servers:
        yield f"kafka://{servers}"
    elif home:
        with (
            tempfile.TemporaryDirectory(prefix="kafka-") as directory,
            KafkaCluster(Path(home), Path(directory)) as cluster,
        ):
            yield f"kafka://{cluster.bootstrap}"
    elif (docker := shutil.which("docker")) and _answers(docker):
        with _container() as container:
            yield f"kafka://{container.get_bootstrap_server()}"
    else:
        raise NoKafka(
            "no Apache Kafka: set KAFKA_HOME to an unpacked Apache Kafka (needs Java 17), or KAFKA_BOOTSTRAP_SERVERS, "
            "or start Docker"
        )


def _container() -> Any:
    try:
        from testcontainers.kafka import KafkaContainer
    except ImportError:
        raise NoKafka("no Apache Kafka: Docker runs; testcontainers is missing: pip install testcontainers") from None
    return KafkaContainer().with_kraft()


def _answers(docker: str) -> bool:
    """Return True if the Docker daemon answers."""
    return subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0
