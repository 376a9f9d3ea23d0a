"""Records of the topics that the console reads, and a pipeline that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from tailrace.declaration.event import Event, Key
from tailrace.declaration.features import Number
from tailrace.declaration.label import Label
from tailrace.declaration.pipeline import Pipeline
from tailrace.declaration.training import Training
from tailrace.declaration.triggers import Labels, Trigger
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
from tailrace.retrain.control.promotion_gate import GateResult
from tailrace.retrain.control.reports import RunReport, run_record
from tailrace.streams.log.records import Example, Out, Prediction, Record, Source

KEY = SigningKey.generate()


class Person(Event):
    """An event with a field that must stay hidden."""

    id: Key
    x: Number
    name: str


def people(
    retrain: Sequence[Trigger] = (Labels(200),),
    topics: Mapping[str, str] | None = None,
    training: Training | None = None,
) -> Pipeline:
    """A pipeline of `Person` events. `topics` replaces the names events, predictions, labels, examples and models."""
    names = topics or {name: name for name in ("events", "predictions", "labels", "examples", "models")}
    return Pipeline(
        "people",
        event=Person,
        label=Label("late", base_rate=0.25),
        retrain=retrain,
        training=training or Training(min_examples=10),
        topics=names,
    )


PIPELINE = people()
TASK = PIPELINE.task


def features(n: int) -> msgspec.Raw:
    """The n-th event as it was scored."""
    return msgspec.Raw(msgspec.json.encode({"id": str(n), "x": n % 7, "name": "Ada", "more": {"name": ["Ada"]}}))


def prediction(n: int, score: float = 0.8, release: int = 1) -> Prediction:
    """The prediction of the n-th event, one second of event time after the one before."""
    return Prediction(str(n), 100.0 + n, release, [score], features(n), Source(0, n))


def example(n: int, label: int = 1, score: float = 0.8) -> Example:
    """The n-th event with its label, which came 300 seconds later."""
    return Example(str(n), 100.0 + n, 400.0 + n, label, 1, [score], features(n), Source(0, n))


def release(version: int, learned: int = 0, trained_through: float = 0.0) -> list[Out]:
    """Records of a release and of the alias that makes it champion; an online update if it has `learned` labels."""
    updates = None
    if learned:
        part = [Range("examples", 0, 0, 0)]
        updates = Updates(base=0, seed=0, remembered=part, starts={0: 0}, learned=[{0: learned}], plan={})
    manifest = Manifest(
        version=version,
        parent=version - 1,
        created=0.0,
        trained_through=trained_through,
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


NOW = 1_000_000.0
"""Wall time at which the records of a test are written and read, unix seconds."""


def records(topic: str, *values: Any, start: int = 0, at: float = NOW) -> list[Record]:
    """Records of one partition, from offset `start` on, written at `at`."""
    encoded = [value if isinstance(value, bytes) else msgspec.json.encode(value) for value in values]
    return [Record(topic, 0, start + n, int(at * 1000), b"k", value) for n, value in enumerate(encoded)]


def written(*outs: Out, start: int = 0, at: float = NOW) -> list[Record]:
    """Records as a reader gets them after they were written at `at`."""
    return [Record(o.topic, 0, start + n, int(at * 1000), o.key, o.value, o.headers) for n, o in enumerate(outs)]


def run_report(version: int | None, *, trigger: str = "labels", since: float = 0.0, at: float = 0.0) -> Out:
    """The report of a run that considered 150 labels and published `version`, or was refused."""
    gate = GateResult(passed=bool(version), reason="log_loss 0.5 against 0.6", metric="log_loss", examples=50)
    outcome: Literal["published", "refused"] = "published" if version else "refused"
    return run_record(
        "models",
        RunReport(
            outcome=outcome, reason=f"because of {trigger}", trigger=trigger, detail="", parent=0, since=since, at=at,
            examples=120, fresh=120, total_s=2.5, version=version, gate=gate, considered={0: 150},
        ),
    )  # fmt: skip
