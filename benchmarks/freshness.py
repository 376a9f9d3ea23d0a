"""Freshness: seconds from a label to the first prediction by the release that learned it.

Real roles run on the embedded log, once with online updates and once with retraining runs. Events flow all the time.
Their labels are held back and then sent together: as many as start an update, or a run. The training time of a run, as
its report states it, is subtracted.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.harness import Row, at_most, embedded
from benchmarks.workload import PARTITIONS, Reading, Source, pipeline
from tailrace.app.factory import create_topics, signing_key
from tailrace.app.settings import KeysSettings, LogSettings, MonitoringSettings, Settings, as_environment
from tailrace.app.supervisor import Roles
from tailrace.declaration.pipeline import Pipeline
from tailrace.retrain.control.reports import RunReport, read_report
from tailrace.streams.log.base import Log
from tailrace.streams.log.records import LabelMessage, Out, Prediction, Record
from tailrace.streams.log.url import open_log
from tailrace.triggers import Labels

GROUP = "freshness"
LABELS = 500  # labels that start a run
FEW = 50  # labels that start an update
GAP = 700  # events between two rounds, at least: longer than the second between two updates
BURST, EVERY_S = 5, 0.01  # 500 events/s
LIMIT_S = 60.0  # of one round
RUNS = pipeline("runs", retrain=[Labels(LABELS)], online=False)
UPDATES = pipeline("updates")


class Round:
    """Measurement from a group of labels to their effect, fed with records as they appear in the log.

    `trained`: a retraining run learns the labels, not an update. `serving`: the release before.
    """

    def __init__(self, serving: int, *, trained: bool) -> None:
        self._serving, self._trained = serving, trained
        self.labelled: float | None = None
        self.seen: float | None = None  # when a prediction by a newer release was read
        self.report: RunReport | None = None

    def take(self, record: Record, prediction: Prediction | None) -> None:
        """Note a prediction, or a record of the models topic."""
        if prediction is not None and prediction.release > self._serving:
            self.seen = self.seen or time.monotonic()
        self.report = read_report(record) or self.report

    @property
    def done(self) -> bool:
        """True if the new release serves, or if none will be published."""
        if self._trained:
            return self.report is not None and (self.report.version is None or self.seen is not None)
        return self.seen is not None

    @property
    def waited(self) -> float | None:
        """Seconds from the labels to the first new prediction, without the training of a run; None if nothing was
        published."""
        if self.labelled is None or self.seen is None:
            return None
        return self.seen - self.labelled - (self.report.seconds if self.report else 0.0)


def measure(directory: Path, rounds: int) -> list[Row]:
    """Measure updates, then runs besides their training, then the training itself."""
    updates = _measured(directory, "UPDATES", UPDATES, FEW, rounds)
    runs = _measured(directory, "RUNS", RUNS, LABELS, rounds)
    trained = [one.report.seconds for one in runs if one.report]
    return [
        _row(f"{FEW} labels appended to first prediction by the updated release, p50", updates),
        _row("label appended to first prediction by the new release, without training, p50", runs),
        Row(GROUP, f"training on {LABELS} new labels, p50", median(trained), "s"),
    ]


def _row(what: str, rounds: list[Round]) -> Row:
    waits = [wait for one in rounds if (wait := one.waited) is not None]
    if not waits:
        raise RuntimeError(f"no release in {len(rounds)} rounds: {[one.report for one in rounds]}")
    note = f"{len(waits)} of {len(rounds)} published; " + ", ".join(f"{wait:.2f}" for wait in waits)
    return msgspec.structs.replace(at_most(GROUP, what, median(waits), 2.0, "s"), note=note)


def _measured(directory: Path, name: str, declared: Pipeline, labels: int, rounds: int) -> list[Round]:
    place = embedded(directory, f"freshness-{declared.name}")
    settings = Settings(
        log=LogSettings(url=place.url, partitions=PARTITIONS),
        keys=KeysSettings(directory=directory / "keys"),
        monitoring=MonitoringSettings(enabled=False),
    )
    log = open_log(place.url)
    create_topics(log, declared, settings)
    signing_key(settings)
    with Roles(f"benchmarks.freshness:{name}", as_environment(settings), logs=directory):
        results = _rounds(log, declared, labels, rounds)
    log.close()
    return results


def _rounds(log: Log, declared: Pipeline, labels: int, rounds: int) -> list[Round]:
    topics, trained = declared.topics, bool(declared.retrain)
    writer, reader = log.writer(), log.reader([topics.predictions, topics.models])
    source, serving = Source(topics.events), 0
    unlabelled: list[Prediction] = []
    done: list[Round] = []
    current, deadline = Round(0, trained=trained), time.monotonic() + LIMIT_S
    decoder = msgspec.json.Decoder(Prediction)
    while len(done) < rounds:
        if time.monotonic() > deadline:
            raise RuntimeError(f"round {len(done) + 1} took more than {LIMIT_S:.0f} s")
        writer.write(source.take(BURST, time.time()))
        time.sleep(EVERY_S)
        for record in reader.read(10_000, 0.0).records:
            prediction = decoder.decode(record.value or b"") if record.topic == topics.predictions else None
            current.take(record, prediction)
            if prediction is not None:
                serving = prediction.release
                unlabelled.append(prediction)
        if current.labelled is None and len(unlabelled) >= max(labels, GAP):
            writer.write([_label(prediction, topics.labels) for prediction in unlabelled[:labels]])
            current.labelled = time.monotonic()
            unlabelled = []
        if current.done:
            done.append(current)
            current, deadline = Round(serving, trained=trained), time.monotonic() + LIMIT_S
    writer.close()
    reader.close()
    return done


def _label(prediction: Prediction, topic: str) -> Out:
    positive = msgspec.json.decode(prediction.features, type=Reading).x[0] > 0
    return Out(topic, prediction.id.encode(), msgspec.json.encode(LabelMessage(prediction.id, positive)))
