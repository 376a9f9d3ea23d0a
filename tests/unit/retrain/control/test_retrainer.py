"""The retrainer end to end: the embedded log, tiny data."""

from __future__ import annotations

import itertools
import os
import signal
import time
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from support import retrain_pipeline as tiny
from support.lossy_log import LossyLog
from support.retraining import EXAMPLES, GROUP, MODELS, TRUSTED, Start, append, committed, write

from tailrace.inference.releases.storage import Store
from tailrace.retrain.control.model_topic import Models
from tailrace.retrain.control.publisher import Publisher
from tailrace.retrain.worker.client import Trainer
from tailrace.retrain.worker.protocol import Candidate
from tailrace.streams.log.base import Aborted, Committed, Delivery, Fenced, TopicPartition
from tailrace.streams.log.records import Out
from tailrace.streams.log.sqlite.log import SqliteLog


@pytest.mark.parametrize("stored", [False, True])
def test_examples_become_releases(log: SqliteLog, start: Start, tmp_path: Path, stored: bool) -> None:
    """Labels trigger runs, the releases are verifiable and say what they were made of, positions are committed; the
    same with the weights at a URL."""
    running = start(store=Store(f"file://{tmp_path}/store", 0) if stored else None, process=not stored)
    append(log, tiny.examples(250))
    running.until(lambda: len(running.reports) == 1)
    append(log, tiny.examples(200, start=250))
    running.until(lambda: len(running.reports) == 2)
    running.close()
    first, second = running.reports
    assert (first.outcome, first.version, first.parent, first.warm) == ("published", 1, 0, False)
    assert first.reason.endswith("new labels (every 200)")
    assert (second.version, second.parent, second.warm) == (2, 1, True)
    assert second.examples + 50 == 450
    assert committed(log) == 450
    models = Models(log, MODELS)
    manifest, _ = models.verified(2, TRUSTED)
    assert (manifest.version, manifest.parent, manifest.code_digest) == (2, 1, "abc")
    assert stored is (manifest.location is not None)
    assert sum(part.end - part.start for part in manifest.ranges) == manifest.examples == second.examples
    assert manifest.metrics["candidate"]["log_loss"] == pytest.approx(second.gate and second.gate.candidate)
    assert models.last_run == second
    assert models.champion == 2


def test_a_restart_goes_on_where_it_was(log: SqliteLog, start: Start) -> None:
    """After a restart the window is read again, labels considered before trigger nothing, new ones do."""
    running = start()
    append(log, tiny.examples(250))
    running.until(lambda: len(running.reports) == 1)
    running.close()
    append(log, tiny.examples(150, start=250))
    running = start()
    append(log, tiny.examples(50, start=400))
    running.until(lambda: len(running.reports) == 1)
    running.close()
    assert running.reports[0].reason == "200 new labels (every 200)"
    assert (running.reports[0].version, running.reports[0].warm) == (2, True)
    assert committed(log) == 450


def test_a_worse_candidate_is_refused(log: SqliteLog, start: Start) -> None:
    """A candidate that learned labels flipped for a while is refused by the gate once they have flipped back."""
    running = start(tiny.swayed, "swayed")
    append(log, tiny.examples(600))
    running.until(lambda: len(running.reports) == 1)
    append(log, chain(tiny.examples(900, start=600, flip=True), tiny.examples(100, start=1500)))
    running.until(lambda: len(running.reports) == 2)
    running.close()
    report = running.reports[1]
    assert (report.outcome, report.version) == ("refused", None)
    assert report.gate is not None
    assert "worse" in report.detail
    models = Models(log, MODELS)
    assert (models.champion, models.registry.latest) == (1, 1)
    assert models.last_run == report
    assert committed(log) == 1600
    again = start(tiny.swayed, "swayed")
    again.until(lambda: again.retrainer.idle)
    created = again.retrainer._core.triggers.facts(0.0).created
    again.close()
    wall = tiny.swayed.training.clock == "wall"
    manifest = models.manifest(1)
    assert created == (manifest.created if wall else manifest.facts["now"]), "its age is known after a refused run too"


def test_a_killed_process_leaves_the_champion_and_the_next_run_succeeds(
    log: SqliteLog, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 in the middle of a run costs that run and nothing else."""
    monkeypatch.setenv("MOOD", "slow")
    running = start(tiny.stubborn, "stubborn", process=True)
    append(log, tiny.examples(250))
    running.until(lambda: running.retrainer.training)
    monkeypatch.setenv("MOOD", "fine")
    assert isinstance(running.trainer, Trainer)
    pid = running.trainer.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    running.until(lambda: len(running.reports) == 1)
    assert (running.reports[0].outcome, Models(log, MODELS).champion) == ("failed", 0)
    assert "signal 9" in running.reports[0].detail
    append(log, tiny.examples(200, start=250))
    running.until(lambda: len(running.reports) == 2)
    running.close()
    assert (running.reports[1].outcome, Models(log, MODELS).champion) == ("published", 1)


def test_stopping_during_a_run_commits_nothing(log: SqliteLog, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retrainer stopped in the middle of a run ends at once; its successor repeats the run."""
    monkeypatch.setenv("MOOD", "slow")
    running = start(tiny.stubborn, "stubborn", process=True)
    append(log, tiny.examples(250))
    running.until(lambda: running.retrainer.training)
    running.close()
    assert committed(log) == 0
    monkeypatch.setenv("MOOD", "fine")
    running = start(tiny.stubborn, "stubborn", process=True)
    running.until(lambda: len(running.reports) == 1)
    running.close()
    assert (running.reports[0].outcome, committed(log)) == ("published", 250)


def test_a_second_retrainer_fences_the_first(log: SqliteLog, start: Start) -> None:
    """The first one ends with Fenced at its next run, the second one publishes."""
    first = start()
    second = start()
    append(log, tiny.examples(250))
    first.ended()
    second.until(lambda: len(second.reports) == 1)
    first.close()
    second.close()
    assert isinstance(first.error, Fenced)
    assert (first.reports, second.reports[0].version) == ([], 1)


def test_after_a_rollback_the_next_run_starts_from_what_the_operator_chose(log: SqliteLog, start: Start) -> None:
    """The parent is the champion that the alias names, the version still grows."""
    running = start()
    for batch in range(2):
        append(log, tiny.examples(250, start=250 * batch))
        running.until(lambda count=batch + 1: len(running.reports) == count)  # type: ignore[misc]
    operator = Publisher(log, MODELS, "operator", TRUSTED)
    assert operator.rollback("ann", "felt worse", 1.0) == 1
    operator.close()
    append(log, tiny.examples(250, start=500))
    running.until(lambda: len(running.reports) == 3)
    running.close()
    assert (running.reports[2].parent, running.reports[2].version) == (1, 3)


def test_an_operator_who_acts_during_a_run_wins(log: SqliteLog, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate of a champion that is no longer the champion is not published."""
    running = start()
    append(log, tiny.examples(250))
    running.until(lambda: len(running.reports) == 1)
    train = running.trainer.train

    def train_while_the_operator_acts(*arguments: object) -> object:
        operator = Publisher(log, MODELS, "operator", TRUSTED)
        operator.rollback("ann", "no", 1.0)
        operator.close()
        return train(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(running.trainer, "train", train_while_the_operator_acts)
    append(log, tiny.examples(200, start=250))
    running.until(lambda: len(running.reports) == 2)
    running.close()
    assert running.reports[1].detail == "the champion changed from 1 to 0 during the run"
    assert Models(log, MODELS).champion == 0


@pytest.mark.parametrize("fate", ["happened", "did not happen"])
def test_a_release_is_published_once_whatever_became_of_the_answer(
    log: LossyLog, start: Start, fate: Literal["happened", "did not happen"]
) -> None:
    """After a lost answer to the commit the log decides: the report names the release that is there."""
    running = start()
    log.fate = fate
    append(log, tiny.examples(250))
    running.until(lambda: len(running.reports) == 1)
    running.close()
    models = Models(log, MODELS)
    assert log.fate is None
    assert (running.reports[0].outcome, running.reports[0].version) == ("published", 1)
    assert (models.champion, sorted(models.registry.releases), models.last_run) == (1, [1], running.reports[0])
    assert committed(log) == 250


def test_what_workers_would_refuse_is_a_failed_run(log: SqliteLog, start: Start) -> None:
    """Weights of a type that is not served cost the run, not the retrainer; the report names the tensor."""
    running = start(tiny.odd, "odd")
    for batch in range(2):
        append(log, tiny.examples(250, start=250 * batch))
        running.until(lambda count=batch + 1: len(running.reports) == count)  # type: ignore[misc]
    running.close()
    assert [report.outcome for report in running.reports] == ["failed", "failed"]
    assert "tensor 'odd' has type U16" in running.reports[0].detail
    models = Models(log, MODELS)
    assert (models.champion, models.registry.releases, models.last_run) == (0, {}, running.reports[1])
    assert committed(log) == 500


@pytest.mark.parametrize("log", [{"max_record_bytes": 2_000}], indirect=True)
def test_what_the_topic_does_not_take_is_a_failed_run(log: SqliteLog, start: Start) -> None:
    """A release with records above the topic's limit is reported, and the retrainer lives."""
    running = start()
    append(log, tiny.examples(250))
    running.until(lambda: len(running.reports) == 1)
    running.close()
    assert (running.reports[0].outcome, running.reports[0].version, running.error) == ("failed", None, None)
    assert (Models(log, MODELS).last_run, committed(log)) == (running.reports[0], 250)


def test_scores_that_cannot_be_judged_are_a_failed_run(
    log: SqliteLog, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the gate stumbles over is reported, and the next run succeeds."""
    running = start()
    train = running.trainer.train

    def twice_as_many(*arguments: Any) -> Candidate:
        candidate = train(*arguments)
        return msgspec.structs.replace(candidate, scores=candidate.scores * 2)

    monkeypatch.setattr(running.trainer, "train", twice_as_many)
    append(log, tiny.examples(250))
    running.until(lambda: len(running.reports) == 1)
    monkeypatch.setattr(running.trainer, "train", train)
    append(log, tiny.examples(200, start=250))
    running.until(lambda: len(running.reports) == 2)
    running.close()
    assert [report.outcome for report in running.reports] == ["failed", "published"]
    assert "the gate cannot judge it: ValueError: the training process gave" in running.reports[0].detail


def test_bad_examples_are_skipped(log: SqliteLog, start: Start) -> None:
    """Records that are not examples, have an unknown label, or lack a field that was added later are only counted."""
    running = start()
    good = tiny.records(EXAMPLES, tiny.examples(250))
    odd = msgspec.json.encode(msgspec.structs.replace(next(tiny.examples(1)), label="maybe"))
    event = msgspec.Raw(msgspec.json.encode({"id": "c", "at": tiny.START, "x": 1.0}))
    old = msgspec.json.encode(msgspec.structs.replace(next(tiny.examples(1)), features=event))
    bad = [Out(EXAMPLES, None, value, partition=0) for value in (b"{", odd, old)]
    write(log, [*bad, *good])
    running.until(lambda: len(running.reports) == 1)
    running.close()
    assert running.retrainer.malformed == 3
    assert running.reports[0].outcome == "published"
    assert committed(log) == 253


def test_replayed_history_triggers_by_its_own_clock(log: SqliteLog, start: Start) -> None:
    """With clock="event" a schedule follows the label times: three hours of labels, read at once, are due at once."""
    running = start(tiny.hourly, "hourly")
    append(log, tiny.examples(300, step=36.0))
    running.until(lambda: len(running.reports) == 1)
    assert running.reports[0].reason == "schedule '0 * * * *', due 2023-11-14 23:00 UTC, 300 new labels"
    append(log, tiny.examples(61, start=300, step=60.0))
    running.until(lambda: len(running.reports) == 2)
    assert running.reports[1].reason == "schedule '0 * * * *', due 2023-11-15 02:00 UTC, 61 new labels"


def test_an_examples_topic_that_was_created_again_is_read_from_its_beginning(log: SqliteLog, start: Start) -> None:
    """Committed positions beyond the end of the topic belong to an older topic: the new examples train a release."""
    reader = log.reader([EXAMPLES], group=GROUP, alone=True)
    writer = log.writer("tiny-retrainer", Delivery.EXACTLY_ONCE)
    writer.commit(
        {TopicPartition(EXAMPLES, 0): Committed(9_000), TopicPartition(EXAMPLES, 1): Committed(9_000)}, reader
    )
    writer.flush()
    writer.close()
    reader.close()
    running = start()
    append(log, tiny.examples(400))
    running.until(lambda: len(running.reports) == 1)
    running.close()
    assert running.reports[0].outcome == "published"
    assert committed(log) == 400


def test_a_run_that_cannot_be_published_is_tried_again_after_growing_pauses(
    log: SqliteLog, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While every commit is aborted, attempts become rarer; the candidate is kept, and published when one succeeds."""
    attempts: list[float] = []
    running = start()
    publish = running.publisher.publish

    def aborted(*arguments: Any) -> int:
        attempts.append(time.monotonic())
        if len(attempts) < 4:
            raise Aborted("the broker is away")
        return publish(*arguments)

    monkeypatch.setattr(running.publisher, "publish", aborted)
    append(log, tiny.examples(400))
    running.until(lambda: len(running.reports) == 1)
    running.close()
    pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert running.reports[0].outcome == "published"
    assert [pause > least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True)] == [True] * 3
