"""Complete pipeline with roles, events and labels on its own log, for end-to-end tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import prometheus_client  # noqa: F401  (imported before threads start, because concurrent imports of it fail)
from support import declared
from support.waiting import PATIENCE_S

from tailrace.app.factory import create_topics, open_configured_log, signing_key, trusted_keys
from tailrace.app.roles import run_joiner, run_retrainer, run_worker
from tailrace.app.settings import KeysSettings, LogSettings, MonitoringSettings, Settings
from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.releases.manifest import Manifest
from tailrace.retrain.control.model_topic import Models
from tailrace.streams.log.records import Out, Record

START, EVENTS = 1_700_000_000.0, 200
Role: TypeAlias = Callable[[Pipeline, Settings, threading.Event], None]
JOINING: tuple[Role, ...] = (run_worker, run_joiner)
ALL: tuple[Role, ...] = (*JOINING, run_retrainer)


def x(n: int) -> float:
    """Return the value of event n, spread evenly between -1 and 1."""
    return (n * 37 % 100 - 49.5) / 50


class World:
    """A declared pipeline, its log and its roles."""

    def __init__(self, directory: Path, name: str, **options: Any) -> None:
        self.pipeline: Pipeline = getattr(declared, name)
        self.settings = Settings(
            pipeline=f"support.declared:{name}",
            log=LogSettings(url=f"sqlite:///{directory}/log.db", partitions=3),
            keys=KeysSettings(directory=directory / "keys"),
            monitoring=MonitoringSettings(enabled=False),
            **options,
        )
        self.log = open_configured_log(self.settings)
        self._stop, self._threads = threading.Event(), list[threading.Thread]()
        self._failures: list[BaseException] = []

    def start(self, roles: Iterable[Role]) -> None:
        """Start roles in threads; `close` ends them."""
        create_topics(self.log, self.pipeline, self.settings)
        signing_key(self.settings)
        self._threads = [threading.Thread(target=self._run, args=(role,)) for role in roles]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Drain all roles."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self.log.close()

    def send(self, *answers: tuple[int, Any, float], events: range = range(EVENTS), key: str | None = None) -> None:
        """Send events a minute apart, and labels as (event, value, seconds after the event).

        Labels are written before the events, so that no window closes before they are read. Their key is the event's
        id, or `key`.
        """
        topics, fields = self.pipeline.topics, self.pipeline.label.fields
        names = [fields.get(name, name) for name in ("id", "label", "time")]
        labels = [dict(zip(names, (str(n), says, START + 60 * n + after), strict=True)) for n, says, after in answers]
        rows = [{"id": str(n), "at": START + 60 * n, "x": x(n), "colour": "red"} for n in events]
        writer = self.log.writer()
        keyed = ((key or label[names[0]], label) for label in labels)
        writer.write([Out(topics.labels, by.encode(), json.dumps(label).encode()) for by, label in keyed])
        writer.write([Out(topics.events, None, json.dumps(row).encode()) for row in rows])
        writer.commit()
        writer.close()

    def records(self, topic: str) -> list[Record]:
        """Return all records of a topic."""
        ends = self.log.end_positions(topic)
        return [record for at, end in ends.items() for batch in self.log.scan(at, 0, end) for record in batch]

    def read(self, topic: str, least: int) -> dict[int, dict[str, Any]]:
        """Wait for `least` records of a topic; return their values by event. Fail if an event has two."""
        self._until(lambda: len(self.records(topic)) >= least)
        values = [json.loads(record.value or b"") for record in self.records(topic)]
        by_event = {int(value["id"]): value for value in values}
        assert len(by_event) == len(values)
        return by_event

    def release(self) -> Manifest:
        """Wait for the first release of a training run, and verify it. Releases of online updates do not count."""
        models, versions = Models(self.log, self.pipeline.topics.models), list[int]()

        def published() -> bool:
            models.refresh()
            versions.extend(v for v in models.registry.releases if models.manifest(v).updates is None)
            return bool(versions)

        self._until(published)
        return models.verified(versions[0], trusted_keys(self.settings))[0]

    def first_scored_since(self, version: int) -> tuple[int, list[float]]:
        """Send events one by one until this release, or a newer one, scores one; return the event and its scores."""
        n, release, scores = EVENTS - 1, 0, list[float]()
        while release < version:
            n += 1
            self.send(events=range(n, n + 1))
            prediction = self.read("rows.predictions", n + 1)[n]
            release, scores = prediction["release"], prediction["scores"]
        return n, scores

    def _until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            if self._failures:
                raise self._failures[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _run(self, role: Role) -> None:
        try:
            role(self.pipeline, self.settings, self._stop)
        except BaseException as error:
            self._failures.append(error)
