"""Online updates, live: the embedded log, tiny data."""

from __future__ import annotations

import os
import signal

import pytest
from support import retrain_pipeline as tiny
from support.retraining import EXAMPLES, MODELS, TRUSTED, Running, Start, append, committed

from tailrace.inference.releases.manifest import Manifest
from tailrace.retrain.control.model_topic import Models
from tailrace.retrain.control.rebuild import Rebuilder
from tailrace.retrain.worker.client import Trainer
from tailrace.streams.log.base import TopicPartition
from tailrace.streams.log.sqlite.log import SqliteLog


def learned(running: Running) -> int:
    return sum(update.labels for update in running.updates if update.outcome == "published")


def manifests(log: SqliteLog) -> list[Manifest]:
    models = Models(log, MODELS)
    return [models.manifest(version) for version in sorted(models.registry.releases)]


def test_labels_become_releases_without_a_run(log: SqliteLog, start: Start) -> None:
    """Every 50 labels and more give a release that says what it learned; each label is learned once, and committed
    with the release that learned it."""
    running = start(tiny.online, "online", process=True)
    for place in range(0, 400, 100):
        append(log, tiny.examples(100, start=place))
        running.until(lambda place=place: learned(running) == place + 100)  # type: ignore[misc]
    running.close()
    assert running.reports == []
    assert committed(log) == 400
    newest = manifests(log)[-1]
    assert newest.reason.startswith("online update: ")
    assert newest.updates is not None
    assert sum(sum(chunk.values()) for chunk in newest.updates.learned) == 400
    assert [(part.start, part.end) for part in newest.ranges] == [(0, 200), (0, 200)]
    assert (newest.base, newest.examples, newest.code_digest) == (0, 400, "abc")


def test_a_twin_that_is_killed_begins_again_from_the_champion(log: SqliteLog, start: Start) -> None:
    """kill -9 of the twin's process between two updates: the chunk is learned by its successor, none is learned
    twice, and the chain's base is the release that was the champion."""
    running = start(tiny.online, "online", process=True)
    append(log, tiny.examples(100))
    running.until(lambda: learned(running) == 100)
    champion = Models(log, MODELS).champion
    assert isinstance(running.update_trainer, Trainer)
    assert running.update_trainer.pid is not None
    os.kill(running.update_trainer.pid, signal.SIGKILL)
    append(log, tiny.examples(100, start=100))
    running.until(lambda: learned(running) == 200)
    running.close()
    newest = manifests(log)[-1]
    assert newest.updates is not None
    assert newest.base == champion
    assert [sum(chunk.values()) for chunk in newest.updates.learned] == [100]
    assert sum(part.end - part.start for part in newest.updates.remembered) == 100


def test_a_retrainer_that_starts_again_learns_nothing_twice(log: SqliteLog, start: Start) -> None:
    """It goes on from the newest release and the committed positions; what was learned is only remembered."""
    running = start(tiny.online, "online")
    append(log, tiny.examples(150))
    running.until(lambda: learned(running) == 150)
    running.close()
    again = start(tiny.online, "online")
    append(log, tiny.examples(70, start=150))
    again.until(lambda: learned(again) == 70)
    again.close()
    newest = manifests(log)[-1]
    assert newest.updates is not None
    assert newest.base == newest.parent > 0
    assert sum(part.end - part.start for part in newest.updates.remembered) == 150
    assert committed(log) == 220


def test_an_operators_rollback_is_gone_on_from(log: SqliteLog, start: Start) -> None:
    """After another release was made the champion, updates begin from that one, with the labels that come then."""
    running = start(tiny.online, "online")
    for place in (0, 100):
        append(log, tiny.examples(100, start=place))
        running.until(lambda place=place: learned(running) == place + 100)  # type: ignore[misc]
    running.close()
    first = manifests(log)[0].version
    running.publisher.__class__(log, MODELS, "operator", TRUSTED).promote(first, "ada", "the other one lies", 0.0)
    again = start(tiny.online, "online")
    append(log, tiny.examples(60, start=200))
    again.until(lambda: learned(again) == 60)
    again.close()
    newest = manifests(log)[-1]
    assert (newest.parent, newest.base) == (first, first)


def test_runs_and_updates_go_together(log: SqliteLog, start: Start) -> None:
    """A run's release takes the place of the chain's, whose labels since the run began are learned again from it; the
    champion of a run is whatever update was the last."""
    running = start(tiny.both, "both", process=True)
    for place in range(0, 1_500, 100):
        append(log, tiny.examples(100, start=place))
        running.until(lambda place=place: committed(log) > place + 50)  # type: ignore[misc]
    running.until(lambda: len(running.reports) >= 2)
    append(log, tiny.examples(100, start=1_500))
    running.until(lambda: committed(log) > 1_550)
    running.close()
    published = [report for report in running.reports if report.outcome == "published"]
    assert published, running.reports
    made = {manifest.version: manifest for manifest in manifests(log)}
    newest = made[max(made)]
    assert newest.updates is not None
    assert newest.base >= published[0].version  # type: ignore[operator]


@pytest.mark.parametrize("name", ["online", "both", "pipeline"])
def test_releases_are_made_again_bit_for_bit(log: SqliteLog, start: Start, name: str) -> None:
    """From offsets, base, seed and code: updates, runs beside updates, and runs alone, warm and cold."""
    declared = getattr(tiny, name)
    running = start(declared, name, process=name == "both")
    for place in range(0, 1_200, 300):
        append(log, tiny.examples(300, start=place))
        running.until(lambda place=place: committed(log) > place + 250)  # type: ignore[misc]
    running.until(lambda: name == "online" or len(running.reports) >= 2)
    running.close()
    models = Models(log, MODELS)
    rebuilder = Rebuilder(log, models, TRUSTED, declared)
    versions = sorted(models.registry.releases)[-3:]
    assert versions
    assert [rebuilder.rebuild(version).equal for version in versions] == [True] * len(versions)
    assert log.end_positions(EXAMPLES)[TopicPartition(EXAMPLES, 0)] == 600
