"""Watcher of the demo: reads the pipeline's topics like any consumer, and measures quality, releases and runs.

Only the pauses of swaps come from another source: the `swapped` lines of the worker's log.
"""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

import msgspec
import numpy as np

from tailrace.declaration.pipeline import Pipeline
from tailrace.declaration.task import Kind
from tailrace.inference.models.losses import losses
from tailrace.inference.models.metrics import auc
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import Refused, parse
from tailrace.inference.releases.registry import Registry
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.inference.serving.loader import Loader, Serving
from tailrace.retrain.control.reports import RunReport, read_report
from tailrace.streams.log.base import Log
from tailrace.streams.log.codec import Codec
from tailrace.streams.log.dead_letters import dead_letter_topic
from tailrace.streams.log.records import Example, Record

FROZEN_AFTER_S = 7 * 86_400.0
_RECENT = 5_000  # newest examples that the live view compares


class PredictionHead(msgspec.Struct, gc=False):
    """Fields of a prediction that the watcher reads."""

    id: str
    time: float
    release: int


class SwapLogLine(msgspec.Struct):
    """A `swapped` line of the worker's log."""

    event: str
    old: int = 0
    new: int = 0
    pause_ms: float = 0.0
    load_ms: float = 0.0


class Watcher:
    """Thread that reads predictions, examples, releases, run reports and dead letters; its attributes are the results.

    The frozen model is the newest release of the first week of event time. The live and the frozen model are compared
    on the examples of later events.
    """

    def __init__(self, log: Log, pipeline: Pipeline, trusted: TrustedKeys, worker_log: Path) -> None:
        self._log, self._pipeline, self._worker_log = log, pipeline, worker_log
        self._loader = Loader(ModelSpec.of(pipeline), trusted=trusted)
        self._registry = Registry()
        self._heads, self._examples = Codec(PredictionHead), Codec(Example)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._ids: set[str] = set()
        self._logged = 0
        self._week_ends: float | None = None
        self._frozen: Serving | None = None
        self._live_scores: list[float] = []
        self._frozen_scores: list[float] = []
        self._ends: dict[int, int] = {}  # partition -> offset up to which the newest release has learned
        self._labels: list[float] = []
        self.failure: BaseException | None = None
        self.predictions = self.examples = self.updates = self.dead_letters = 0
        self.by_release: dict[int, int] = {}
        self.newest = 0.0
        self.runs: list[RunReport] = []
        self.swaps: list[SwapLogLine] = []
        self.recent: deque[str] = deque(maxlen=8)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and read the worker's last log lines."""
        self._stop.set()
        self._thread.join()
        self._read_worker_log()

    @property
    def duplicates(self) -> int:
        """Number of predictions beyond the first one of each event."""
        return self.predictions - len(self._ids)

    @property
    def learned(self) -> int:
        """Number of labels learned by updates and runs. Offsets without an example are counted too."""
        return sum(self._ends.values())

    @property
    def releases(self) -> int:
        """Version of the newest release."""
        return self._registry.latest

    def quality(self, model: str, newest: int | None = None) -> dict[str, float | None]:
        """Return log-loss and AUC of the "live" or the "frozen" model on the compared examples, None before the first.

        `newest`: use only so many examples, the newest.
        """
        scores = self._live_scores if model == "live" else self._frozen_scores
        end = len(self._labels)  # labels are added last, so each of them has its scores
        start = max(0, end - newest) if newest else 0
        s, y = np.array(scores[start:end], np.float32), np.array(self._labels[start:end], np.float32)
        if not len(y):
            return {"log_loss": None, "auc": None}
        return {"log_loss": float(losses("log_loss", Kind.BINARY, s[:, None], y).mean()), "auc": auc(y == 1, s)}

    def recent_quality(self, model: str) -> dict[str, float | None]:
        """Return `quality` over the newest 5,000 compared examples."""
        return self.quality(model, _RECENT)

    def _run(self) -> None:
        try:
            t = self._pipeline.topics
            topics = [t.predictions, t.examples, t.models, dead_letter_topic(t.events), dead_letter_topic(t.labels)]
            reader = self._log.reader(topics)
            try:
                while not self._stop.is_set():
                    records = reader.read(10_000, 0.2).records
                    for topic in topics:
                        self._take(topic, [record for record in records if record.topic == topic])
                    self._read_worker_log()
            finally:
                reader.close()
        except BaseException as error:
            self.failure = error

    def _take(self, topic: str, records: list[Record]) -> None:
        if not records:
            return
        if topic == self._pipeline.topics.predictions:
            self._take_predictions(records)
        elif topic == self._pipeline.topics.examples:
            self._take_examples(self._examples.decode(records).items)
        elif topic == self._pipeline.topics.models:
            self._take_models(records)
        else:
            self.dead_letters += len(records)

    def _take_predictions(self, records: list[Record]) -> None:
        heads = self._heads.decode(records).items
        self.predictions += len(records)
        self._ids.update(head.id for head in heads)
        for head in heads:
            self.by_release[head.release] = self.by_release.get(head.release, 0) + 1
        times = [head.time for head in heads]
        self.newest = max(self.newest, *times)
        if self._week_ends is None:
            self._week_ends = min(times) + FROZEN_AFTER_S

    def _take_examples(self, examples: list[Example]) -> None:
        self.examples += len(examples)
        compared = [e for e in examples if self._week_ends is not None and e.time > self._week_ends]
        if not compared or self._frozen is None:
            return
        kind = list[self._pipeline.schema.event]  # type: ignore[name-defined]
        events = msgspec.json.decode(b"[" + b",".join(bytes(e.features) for e in compared) + b"]", type=kind)
        inputs = ModelSpec.of(self._pipeline).features.encode(events)
        self._frozen_scores += self._frozen.score(inputs)[:, 0].tolist()
        self._live_scores += [e.scores[0] for e in compared]
        self._labels += [self._pipeline.task.number(e.label) for e in compared]

    def _take_models(self, records: list[Record]) -> None:
        for record in records:
            report = read_report(record)
            if report is not None:
                self._take_run(report)
        self._registry.apply(records)
        for version in self._registry.held:
            if version in self._registry.releases:  # the manifest follows the payload, perhaps in a later read
                self._consider(version)
                self._registry.forget_payload(version)

    def _take_run(self, report: RunReport) -> None:
        self.runs.append(report)
        result = f"release {report.version}" if report.version else report.outcome
        self.recent.append(
            f"retrained: {report.reason} · {report.examples:,} examples · {report.seconds:.1f} s · {result}"
        )

    def _consider(self, version: int) -> None:
        """Count a release and its labels; keep the newest release of the first week as the frozen model."""
        raw, payload = self._registry.releases.get(version), self._registry.payload(version)
        if raw is None or payload is None:
            return
        manifest = parse(raw.signed)[1]
        if manifest.updates is not None:
            self.updates += 1
        for part in manifest.ranges:
            self._ends[part.partition] = max(part.end, self._ends.get(part.partition, 0))
        if self._week_ends is None or (manifest.trained_through > self._week_ends and self._frozen is not None):
            return
        try:
            self._frozen = self._loader.load(self._loader.manifest(raw), payload)
        except Refused as refused:
            self.recent.append(f"refused: {refused}")

    def _read_worker_log(self) -> None:
        if not self._worker_log.exists():
            return
        with self._worker_log.open("rb") as file:
            file.seek(self._logged)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._logged += len(line)
                if b'"swapped"' in line:
                    swap = msgspec.json.decode(line, type=SwapLogLine)
                    self.swaps.append(swap)
                    self.recent.append(f"swapped {swap.old} -> {swap.new}: pause {swap.pause_ms:.3f} ms")
