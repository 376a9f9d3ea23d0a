"""Test harness of a pipeline: a log in a temporary directory, a manual clock, and the roles, run in the test process.

    with Harness(pipeline) as kit:
        kit.send({"id": "p1", "at": kit.clock.now, "country": "NL", "amount": 12.5})
        kit.label("p1", True)
        kit.run_until_idle()
        assert [example.label for example in kit.examples()] == [True]

On a real Kafka: `with kafka() as url, Harness(pipeline, url) as kit:`.

Errors: NotIdle, NoKafka.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from tailrace.app.factory import code_digest, create_topics, join_labels, open_configured_log, signing_key, trusted_keys
from tailrace.app.runners import build_joiner, build_rekeyer, build_worker
from tailrace.app.settings import KeysSettings, LogSettings, MonitoringSettings, Settings
from tailrace.declaration.durations import seconds
from tailrace.declaration.event import Event, joined_id
from tailrace.declaration.pipeline import Pipeline
from tailrace.declaration.task import LabelValue
from tailrace.errors import TailraceError
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import Golden, Manifest, alias_record, pack, release_records
from tailrace.inference.releases.weights import serialise
from tailrace.inference.serving.live_model import LiveModel
from tailrace.retrain.control.model_topic import CHAMPION, Models
from tailrace.retrain.control.publisher import Publisher
from tailrace.retrain.control.retrainer import Retrainer
from tailrace.retrain.worker.inline import InlineTrainer
from tailrace.streams.join.rekey import is_drained
from tailrace.streams.log.browse import scan
from tailrace.streams.log.dead_letter_replay import DeadLetter, dead_letters
from tailrace.streams.log.records import Example, Out, Prediction
from tailrace.testing.kafka import NoKafka as NoKafka
from tailrace.testing.kafka import kafka as kafka

T = TypeVar("T")
IdValue: TypeAlias = str | int


class NotIdle(TailraceError):
    """A role still had records to process when the patience was over; the message names the role."""


class ManualClock:
    """A clock that moves only on request. `now`: unix seconds, initially the current time unless it is given."""

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        """Return `now`."""
        return self.now

    def advance(self, by: float | str) -> float:
        """Advance by seconds, or by a duration such as "12h"; return the new time."""
        self.now += seconds(by)
        return self.now


class Harness:
    """One pipeline on its own log; a context manager.

    `url`: address of the log; without it, an embedded log in a temporary directory. `partitions`: number of partitions
    of each topic. `clock`: gives record timestamps, the limit for event times in the future, and the time of triggers
    with `Training(clock="wall")`. Label windows close by event time: a later event closes them, not the clock.
    """

    def __init__(
        self, pipeline: Pipeline, url: str | None = None, *, partitions: int = 2, clock: ManualClock | None = None
    ) -> None:
        self.pipeline = pipeline
        self.clock = clock or ManualClock()
        self._url, self._partitions = url, partitions
        self._stack = ExitStack()

    def __enter__(self) -> Harness:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tailrace-")))
            self.settings = Settings(
                log=LogSettings(url=self._url or f"sqlite:///{directory}/log.db", partitions=self._partitions),
                keys=KeysSettings(directory=directory / "keys"),
                monitoring=MonitoringSettings(enabled=False),
            )
            self.log = open_configured_log(self.settings)
            stack.callback(self.log.close)
            create_topics(self.log, self.pipeline, self.settings)
            signing_key(self.settings)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # ---- input

    def send(self, *events: Event | Mapping[str, Any] | bytes) -> None:
        """Append events: instances of the declared class, dicts, or raw bytes, which may be malformed."""
        bodies = [event if isinstance(event, bytes) else msgspec.json.encode(event) for event in events]
        self._write([Out(self.pipeline.topics.events, None, body, timestamp=self._stamp) for body in bodies])

    def label(self, id: IdValue | Sequence[IdValue], label: LabelValue, at: float | None = None) -> None:
        """Append the label of an event. `at`: time at which it became known, unix seconds (default: now).

        `id`: its id; for an event with several keys, their values in declared order.
        """
        schema, fields = self.pipeline.schema, self.pipeline.label.fields
        values = [id] if isinstance(id, str | int) else list(id)
        named: dict[str, object] = dict(zip(schema.label_ids, values, strict=True))
        named |= {"label": label, "time": self.clock.now if at is None else at}
        body = msgspec.json.encode({fields.get(name, name): value for name, value in named.items()})
        key = joined_id(schema.id_texts(values)).encode()
        self._write([Out(self.pipeline.topics.labels, key, body, timestamp=self._stamp)])

    def publish_untrained(self, seed: int = 0) -> int:
        """Publish the declared model with fresh weights as champion, so that it scores; return its version."""
        declared = self.pipeline
        models = Models(self.log, declared.topics.models)
        models.refresh()
        version, topic = models.registry.latest + 1, declared.topics.models
        spec = ModelSpec.of(declared)
        manifest = Manifest(
            version=version,
            parent=models.champion,
            created=self.clock.now,
            trained_through=0.0,
            examples=0,
            code_digest=code_digest(declared),
            seed=seed,
            reason="untrained",
            features=spec.features.digest,
            task=declared.task,
            golden=Golden(),
        )
        state = serialise(spec.build(seed).state_dict())
        release = pack(manifest, state, signing_key(self.settings))
        alias = alias_record(topic, CHAMPION, version, "test", "untrained", self.clock.now)
        self._write([*release_records(release, topic), alias])
        return version

    # ---- roles

    def run_until_idle(self, patience: float = 60.0) -> None:
        """Run worker, joiner and retrainer, one after the other, each until it has no record left to process.

        An online update needs `Online(labels=...)` labels; fewer wait for a later call. Raises NotIdle after `patience`
        seconds, and any error that a role raises.
        """
        deadline = time.monotonic() + patience
        topics = self.pipeline.topics
        if self._left("worker", topics.events):
            with ExitStack() as stack:
                worker = build_worker(self.log, self.pipeline, self.settings, stack, clock=self.clock)
                self._until(deadline, "worker", worker, lambda: worker.idle and not self._left("worker", topics.events))
        if self.pipeline.label.rekey and self._left("rekeyer", topics.labels):
            rekeyer = build_rekeyer(self.log, self.pipeline, self.settings)
            self._until(deadline, "rekeyer", rekeyer, lambda: not self._left("rekeyer", topics.labels))
        joined = (topics.predictions, join_labels(self.pipeline))
        joiner = build_joiner(self.log, self.pipeline, self.settings)
        self._until(deadline, "joiner", joiner, lambda: joiner.idle and not self._left("joiner", *joined))
        self._learn(deadline)

    def _learn(self, deadline: float) -> None:
        key = signing_key(self.settings)
        declared = self.pipeline
        name = f"{declared.name}-retrainer"
        publisher = Publisher(self.log, declared.topics.models, name, trusted_keys(self.settings), key)
        try:
            retrainer = Retrainer(
                self.log,
                declared,
                publisher,
                InlineTrainer(ModelSpec.of(declared)),
                updates=InlineTrainer(ModelSpec.of(declared)) if declared.online else None,
                code_digest=code_digest(declared),
                clock=self.clock,
            )
            self._until(deadline, "retrainer", retrainer, lambda: retrainer.idle)
        finally:
            publisher.close()

    def _left(self, role: str, *topics: str) -> bool:
        """Return True if the role has not committed all records of these topics."""
        return not all(is_drained(self.log, f"{self.pipeline.name}.{role}", topic) for topic in topics)

    def _until(self, deadline: float, name: str, role: _Role, done: Callable[[], bool]) -> None:
        """Run a role in a thread until `done` returns True. Raises NotIdle, and any error of the role."""
        stop, failures = threading.Event(), list[BaseException]()

        def run() -> None:
            try:
                role.run(stop)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run, name=name)
        thread.start()
        try:
            while thread.is_alive() and not done():
                if time.monotonic() > deadline:
                    raise NotIdle(f"the {name} still had records to process: increase the patience of run_until_idle")
                thread.join(0.01)
        finally:
            stop.set()
            thread.join()
        if failures:
            raise failures[0]

    # ---- output

    def predictions(self) -> list[Prediction]:
        """Return all predictions, partition by partition."""
        return self._values(self.pipeline.topics.predictions, Prediction)

    def examples(self) -> list[Example]:
        """Return all examples (predictions with their labels), partition by partition."""
        return self._values(self.pipeline.topics.examples, Example)

    def dead_letters(self) -> list[DeadLetter]:
        """Return all dead letters, each with its `reason` and `detail`."""
        return list(dead_letters(self.log, self.pipeline.read_topics()))

    def releases(self) -> list[Manifest]:
        """Return the manifests of all kept releases, oldest first. Raises Refused if one cannot be verified."""
        models = Models(self.log, self.pipeline.topics.models)
        models.refresh()
        trusted = trusted_keys(self.settings)
        return [models.verified(version, trusted)[0] for version in sorted(models.registry.releases)]

    def follow(self) -> LiveModel:
        """Return a live model of the pipeline: `with kit.follow() as live: live.predict(events)`."""
        return LiveModel.follow(self.log, self.pipeline, keys=trusted_keys(self.settings))

    def _values(self, topic: str, kind: type[T]) -> list[T]:
        decoder = msgspec.json.Decoder(kind)
        return [decoder.decode(record.value or b"") for record in scan(self.log, topic)]

    @property
    def _stamp(self) -> int:
        return int(self.clock.now * 1000)

    def _write(self, records: Sequence[Out]) -> None:
        writer = self.log.writer()
        try:
            writer.write(records)
            writer.commit()
            writer.flush()
        finally:
            writer.close()


class _Role(Protocol):
    def run(self, stop: threading.Event) -> None: ...
