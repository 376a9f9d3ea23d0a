"""Shared by tests of the console: records of its topics, and a page to fold them into."""

from __future__ import annotations

import msgspec

from tailrace.declaration.event import Event, Key
from tailrace.declaration.features import Number
from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.encoding import Features
from tailrace.inference.releases.manifest import (
    Golden,
    Manifest,
    Range,
    Updates,
    alias_record,
    pack,
    release_records,
    serialise,
)
from tailrace.inference.releases.signing import SigningKey
from tailrace.inference.serving.loader import base_rate_serving
from tailrace.monitoring.console.input_drift import Shifts
from tailrace.monitoring.console.page import Lent, Names, Subject
from tailrace.retrain.control.reports import read_report
from tailrace.retrain.control.trigger_state import live_losses
from tailrace.streams.log.records import Example, Out, Prediction, Source

NAMES = Names("events", "predictions", "labels", "examples", "models", ("events.dlq", "labels.dlq"))
KEY = SigningKey.generate()


class Person(Event, kw_only=True):
    """An event with something to hide."""

    id: Key
    x: Number
    name: str


TASK, FEATURES = Task(Kind.BINARY), Features.of(Person)
SUBJECT = Subject("people", "late", NAMES, Person, FEATURES, TASK, base_rate_serving(TASK, 0.25))


def lent(upcoming: str | None = "next retraining in 8 m") -> Lent:
    return Lent(
        lambda scores, targets: live_losses(Kind.BINARY, scores, targets, ("log_loss", "accuracy")),
        read_report,
        Shifts(FEATURES, ()),
        lambda waiting: upcoming,
    )


def features(n: int) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode({"id": str(n), "x": n % 7, "name": "Ada", "more": {"name": ["Ada"]}}))


def prediction(n: int, score: float = 0.8, release: int = 1) -> Prediction:
    return Prediction(str(n), 100.0 + n, release, [score], features(n), Source(0, n))


def example(n: int, label: int = 1, score: float = 0.8) -> Example:
    return Example(str(n), 100.0 + n, 400.0 + n, label, 1, [score], features(n), Source(0, n))


def release(version: int, learned: int = 0) -> list[Out]:
    updates = None
    if learned:
        part = [Range("examples", 0, 0, 0)]
        updates = Updates(base=0, seed=0, remembered=part, starts={0: 0}, learned=[{0: learned}], plan={})
    manifest = Manifest(
        version=version,
        parent=version - 1,
        created=0.0,
        trained_through=0.0,
        examples=100 * version,
        code_digest="",
        seed=0,
        reason="labels",
        features="",
        task=TASK,
        golden=Golden(),
        updates=updates,
    )
    packed = pack(manifest, serialise({}), KEY)
    return [*release_records(packed, "models"), alias_record("models", "champion", version, "retrainer", "gate", 0.0)]
