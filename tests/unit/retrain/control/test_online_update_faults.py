"""Online updates when things go wrong: each label is learned once, and what releases tell of themselves stays true."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from support import retrain_pipeline as tiny
from support.lossy_log import LossyLog
from support.retraining import MODELS, TRUSTED, Running, Start, append, committed

from tailrace import Pipeline
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import Manifest
from tailrace.inference.releases.storage import Store
from tailrace.retrain.control.model_topic import Models
from tailrace.retrain.control.rebuild import Rebuilder
from tailrace.retrain.control.reports import RunReport
from tailrace.streams.log.backoff import Backoff
from tailrace.streams.log.base import Fenced
from tailrace.streams.log.sqlite.log import SqliteLog


def learned(*running: Running) -> int:
    return sum(update.labels for one in running for update in one.updates if update.outcome == "published")


def newest(log: SqliteLog) -> Manifest:
    models = Models(log, MODELS)
    return models.manifest(models.champion)


def rebuilt(log: SqliteLog, declared: Pipeline) -> bool:
    """True if the champion can be rebuilt bit for bit from its manifest."""
    models = Models(log, MODELS)
    return Rebuilder(log, models, TRUSTED, declared).rebuild(models.champion).equal


def chunks(manifest: Manifest) -> int:
    """Number of labels that a chain has learned."""
    assert manifest.updates is not None
    return sum(sum(chunk.values()) for chunk in manifest.updates.learned)


@pytest.mark.parametrize("fate", ["happened", "did not happen"])
def test_a_lost_answer_costs_and_doubles_no_label(
    log: LossyLog, start: Start, fate: Literal["happened", "did not happen"]
) -> None:
    """After a lost answer the topic is read: each update has one release, each label is in one."""
    running = start(tiny.online, "online")
    for place in (0, 100, 200):
        log.fate = fate if place == 100 else None
        append(log, tiny.examples(100, start=place))
        running.until(lambda place=place: learned(running) == place + 100)  # type: ignore[misc]
    running.close()
    made = newest(log)
    assert {update.outcome for update in running.updates} == {"published"}
    assert made.version == len(running.updates) == len(made.updates.learned if made.updates else [])
    assert (chunks(made), committed(log)) == (300, 300)
    assert rebuilt(log, tiny.online)


def test_a_second_retrainer_goes_on_where_it_fences_the_first(log: SqliteLog, start: Start) -> None:
    """The first one ends with its next update; that one's labels are learned by the second one, and by nobody else."""
    first = start(tiny.online, "online", process=True)
    append(log, tiny.examples(100))
    first.until(lambda: learned(first) == 100)
    before = newest(log).version
    second = start(tiny.online, "online", process=True)
    append(log, tiny.examples(100, start=100))
    first.ended()
    second.until(lambda: learned(second) == 100)
    second.close()
    made = newest(log)
    assert isinstance(first.error, Fenced)
    assert (made.base, chunks(made), learned(first, second), committed(log)) == (before, 100, 200, 200)
    assert rebuilt(log, tiny.online)


@pytest.mark.long
def test_a_crash_behind_a_runs_release_leaves_nothing_unlearned(log: SqliteLog, start: Start) -> None:
    """The labels that came during a run were learned by updates, not by the run's release that took their place: a
    successor learns them from it."""

    def crash(report: RunReport, stages: Mapping[str, float]) -> None:
        raise InterruptedError

    running = start(tiny.lengthy, "lengthy", process=True)
    running.retrainer._observer.ran = crash  # type: ignore[method-assign]
    append(log, tiny.examples(400))
    running.until(lambda: running.retrainer.training)
    append(log, tiny.examples(100, start=400))
    running.until(lambda: committed(log) == 500)
    assert running.retrainer.training
    running.ended()
    assert isinstance(running.error, InterruptedError)
    run = newest(log)
    assert (run.updates, sum(part.end - part.start for part in run.ranges), committed(log)) == (None, 400, 400)
    successor = start(tiny.lengthy, "lengthy", process=True)
    successor.until(lambda: learned(successor) == 100)
    successor.close()
    made = newest(log)
    assert (made.base, chunks(made), committed(log)) == (run.version, 100, 500)
    assert rebuilt(log, tiny.lengthy)


@pytest.mark.parametrize("name", ["online", "bare"])
def test_after_a_change_of_the_declaration_all_is_learned_anew(log: SqliteLog, start: Start, name: str) -> None:
    """Another network for the same features, or other features: the champion's weights are of no use, so a chain
    begins without them and learns what is remembered, too."""
    before = start(tiny.raising, "raising")
    append(log, tiny.examples(100))
    before.until(lambda: learned(before) == 100)
    before.close()
    champion, declared = newest(log).version, getattr(tiny, name)
    after = start(declared, name)
    append(log, tiny.examples(100, start=100))
    after.until(lambda: learned(after) == 200)
    after.close()
    made = newest(log)
    failed = [update.detail for update in after.updates if update.outcome == "failed"]
    assert len(failed) == (name == "online"), failed
    assert (made.base, chunks(made), committed(log)) == (0, 200, 200)
    assert made.version > champion
    assert made.features == ModelSpec.of(declared).features.digest
    assert rebuilt(log, declared)


def test_a_module_that_raises_stops_nothing(log: SqliteLog, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates by a user's module fail while it raises, and succeed in a new process when it does not any more."""
    monkeypatch.setenv("MOOD", "raise")
    running = start(tiny.raising, "raising", process=True)
    append(log, tiny.examples(60))
    running.until(lambda: len(running.updates) == 1)
    assert running.updates[0].outcome == "failed"
    assert "bad mood" in running.updates[0].detail
    running.until(lambda: committed(log) == 60)  # positions move past labels that are skipped
    assert Models(log, MODELS).champion == 0
    monkeypatch.setenv("MOOD", "fine")
    place = 60
    while not learned(running):
        reports = len(running.updates)
        append(log, tiny.examples(60, start=place))
        running.until(lambda reports=reports: len(running.updates) > reports)  # type: ignore[misc]
        place += 60
    running.close()
    assert rebuilt(log, tiny.raising)


def test_failures_are_tried_less_and_less_often(log: SqliteLog, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a new process: while a module always raises, labels are gathered for longer and longer."""
    monkeypatch.setenv("MOOD", "raise")
    monkeypatch.setattr("tailrace.retrain.control.online_updates.PAUSES_S", (0.001, 3_600.0))
    running = start(tiny.raising, "raising")
    append(log, tiny.examples(100))
    running.until(lambda: len(running.updates) == 1)
    running.retrainer._updates._backoff = Backoff(3_600.0, 3_600.0)  # type: ignore[union-attr]
    append(log, tiny.examples(100, start=100))
    running.until(lambda: len(running.updates) == 2)
    append(log, tiny.examples(100, start=200))
    running.until(lambda: sum(running.retrainer._positions.values()) == 300)
    running.close()
    assert len(running.updates) == 2


def test_a_backlog_waits_in_the_log(log: SqliteLog, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many labels there are when a retrainer starts, it holds few of them; and it learns them all."""
    monkeypatch.setattr("tailrace.retrain.online.chain.MAX_CHUNK", 100)
    monkeypatch.setattr("tailrace.retrain.control.retrainer._READ", 100)
    append(log, tiny.examples(2_000))
    running = start(tiny.narrow, "narrow")
    held: list[int] = []
    while learned(running) < 2_000:
        count = len(running.updates)
        running.until(lambda count=count: len(running.updates) > count)  # type: ignore[misc]
        held.append(sum(running.retrainer._positions.values()) - committed(log))
    running.close()
    assert max(held) <= 300
    assert committed(log) == 2_000
    assert rebuilt(log, tiny.narrow)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_weights_at_a_url_come_and_go_with_their_releases(log: SqliteLog, start: Start, tmp_path: Path) -> None:
    """As many files as releases: those of removed ones are removed."""
    running = start(tiny.online, "online", Store(f"file://{tmp_path}/store", 0))
    for place in range(0, 800, 100):
        append(log, tiny.examples(100, start=place))
        running.until(lambda place=place: learned(running) == place + 100)  # type: ignore[misc]
    running.close()
    models = Models(log, MODELS)
    locations = [models.manifest(version).location or "" for version in models.registry.releases]
    assert sorted(location.rpartition("/")[2] for location in locations) == files(tmp_path / "store")
    assert len(locations) <= 5
    assert rebuilt(log, tiny.online)


def test_a_store_that_is_away_for_a_while_is_waited_for(
    log: SqliteLog, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update is published when the store is back, and nothing is learned twice."""
    (tmp_path / "store").write_text("a file where a directory is due")
    running = start(tiny.online, "online", Store(f"file://{tmp_path}/store", 0))
    append(log, tiny.examples(100))
    running.until(lambda: (updates := running.retrainer._updates) is not None and updates._backoff.failures > 0)
    (tmp_path / "store").unlink()
    running.until(lambda: learned(running) == 100)
    running.close()
    assert (chunks(newest(log)), committed(log)) == (100, 100)


def test_a_crash_between_learning_and_publishing_costs_no_label(
    log: SqliteLog, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels that were learned and not published are learned once by the successor."""

    def crash(*_: object) -> int:
        raise InterruptedError

    running = start(tiny.online, "online")
    monkeypatch.setattr(running.publisher, "publish", crash)
    append(log, tiny.examples(100))
    running.ended()
    assert isinstance(running.error, InterruptedError)
    assert (Models(log, MODELS).champion, committed(log)) == (0, 0)
    successor = start(tiny.online, "online")
    successor.until(lambda: learned(successor) == 100)
    successor.close()
    assert (chunks(newest(log)), committed(log)) == (100, 100)


@pytest.mark.parametrize("log", [{"max_record_bytes": 5_000}], indirect=True)
def test_a_release_that_the_log_does_not_take_is_refused(log: SqliteLog, start: Start) -> None:
    """The champion stays what it is, and the retrainer goes on."""
    running = start(tiny.online, "online")
    append(log, tiny.examples(60))
    running.until(lambda: len(running.updates) == 1)
    append(log, tiny.examples(60, start=60))
    running.until(lambda: len(running.updates) == 2)
    running.close()
    assert {update.outcome for update in running.updates} == {"refused"}
    assert "5000" in running.updates[0].detail
    assert (Models(log, MODELS).champion, running.error) == (0, None)
