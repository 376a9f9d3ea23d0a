"""The real roles under chaos: a small pipeline, `tailrace worker|joiner|retrainer` as processes, and their output."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
from support.chaos import Names, Role, committed

from tailrace.inference.releases.manifest import Manifest, parse
from tailrace.inference.releases.signing import create_keys
from tailrace.streams.log.base import Log
from tailrace.streams.log.records import Record

# Seconds. Longer than any outage: the kills may keep the worker from one partition of events for minutes, and
# predictions that come after newer ones have closed their windows get no example.
WAIT = 300.0
PIPELINE = f"""
from torch import nn

from tailrace import Event, EventTime, Key, Label, Number, Pipeline, Training
from tailrace.triggers import Labels

class Line(nn.Module):  # faults hit the protocols: a larger model would only take time
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, numbers, categories):
        return self.layer(numbers / 100)

class Thing(Event):
    id: Key
    at: EventTime
    x: Number

pipeline = Pipeline(
    "chaos",
    event=Thing,
    label=Label("y", wait={WAIT}),
    retrain=[Labels(2_000)],
    model=Line,
    training=Training(window=1_000, min_examples=500, epochs=1, batch_size=200, nice=0),
)
"""
NAMES = Names.of("chaos")
MODELS = "chaos.models"
LABELS = 50  # labels that start an update


class _Scored(msgspec.Struct):
    release: int


def environment(directory: Path, url: str) -> dict[str, str]:
    """Write the pipeline's file and keys; return the environment of its roles."""
    create_keys(directory / "keys")
    (directory / "pipeline.py").write_text(PIPELINE)
    return {
        "TAILRACE_PIPELINE": f"{directory / 'pipeline.py'}:pipeline",
        "TAILRACE_LOG__URL": url,
        "TAILRACE_KEYS__DIRECTORY": str(directory / "keys"),
        "TAILRACE_MONITORING__ENABLED": "false",
    }


def role(log: Log, name: str, instance: str = "0") -> Role:
    """Return a role whose progress is the committed position of its group."""
    read = {"worker": NAMES.events, "joiner": NAMES.predictions, "retrainer": NAMES.examples}[name]
    command = [sys.executable, "-m", "tailrace", name, *([] if name == "retrainer" else ["--instance", instance])]
    return Role(name, command, lambda: committed(log, f"chaos.{name}", read))


def unlearned(log: Log) -> int:
    """Return the number of labels that no update has learned."""
    return sum(log.end_positions(NAMES.examples).values()) - committed(log, "chaos.retrainer", NAMES.examples)


def releases_named(predictions: Iterable[bytes]) -> Counter[int]:
    """Count the predictions of each release."""
    decode = msgspec.json.Decoder(_Scored).decode
    return Counter(decode(value).release for value in predictions)


def manifests(models: Iterable[Record]) -> list[Manifest]:
    """Return every manifest that was published and is still in the topic."""
    keyed = ((record.key or b"", record.value) for record in models)
    return [parse(value)[1] for key, value in keyed if value is not None and key.endswith(b"/manifest")]


def gaps(published: Iterable[Manifest], examples: Iterable[Record]) -> list[str]:
    """Describe each update that did not start where its parent ended: its labels were learned twice or never.

    Offsets without an example do not count: Kafka has control records there.
    """
    places = {(record.partition, record.offset) for record in examples}
    ends = {made.version: {part.partition: part.end for part in made.ranges} for made in published}
    texts: list[str] = []
    for made in published:
        before = ends.get(made.parent, {})
        for partition, count in made.updates.learned[-1].items() if made.updates else ():
            start = ends[made.version][partition] - count
            low, high = sorted((start, before.get(partition, start)))
            if any((partition, offset) in places for offset in range(low, high)):
                texts.append(f"release {made.version} begins at {partition}/{start}, its parent ended at {before}")
    return texts
