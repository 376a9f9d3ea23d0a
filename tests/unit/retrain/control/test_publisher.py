"""Publishing on the embedded log: versions, aliases, clean-up, and one transaction for all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.publishing import EXAMPLES, KEY, PAYLOAD, TRUSTED, publish

from tailrace.inference.releases.manifest import Refused
from tailrace.inference.releases.storage import Store, StoreUnreachable
from tailrace.retrain.control.model_topic import Models
from tailrace.retrain.control.publisher import Publisher, UnknownRelease
from tailrace.streams.log.base import Committed, Fenced, Reader, Topic
from tailrace.streams.log.sqlite.log import SqliteLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    store = SqliteLog(tmp_path / "log.db")
    store.create([Topic("models", compacted=True), Topic("examples")])
    yield store
    store.close()


def test_a_release_its_alias_its_report_and_the_positions_come_together(
    log: SqliteLog, publisher: Publisher, reader: Reader
) -> None:
    """After a publication another process sees a verifiable champion, the run and the committed position."""
    assert publish(publisher, reader, position=7) == 1
    seen = Models(log, "models")
    assert seen.champion == 1
    assert seen.verified(1, TRUSTED)[0].version == 1
    assert seen.last_run is not None
    assert (seen.last_run.outcome, seen.last_run.version) == ("published", 1)
    assert log.committed("retrainer", ["examples"]) == {EXAMPLES: Committed(7)}


def test_versions_grow_and_old_releases_go(log: SqliteLog, publisher: Publisher, reader: Reader) -> None:
    """Versions count on after a restart; the last three and whatever an alias names stay."""
    assert [publish(publisher, reader) for _ in range(2)] == [1, 2]
    publisher.promote(1, "ann", "2 is odd", 3.0)
    publisher.close()
    again = Publisher(log, "models", "retrainer", TRUSTED, KEY, keep=3)
    assert [publish(again, reader) for _ in range(4)] == [3, 4, 5, 6]
    again.close()
    seen = Models(log, "models")
    assert sorted(seen.registry.releases) == [4, 5, 6]
    with pytest.raises(UnknownRelease):
        seen.verified(3, TRUSTED)
    assert seen.verified(4, TRUSTED)[1] == PAYLOAD


def test_large_payloads_lie_in_the_store(log: SqliteLog, reader: Reader, tmp_path: Path) -> None:
    """A payload above the limit is stored at the URL, verified from there, and removed with its release."""
    files = tmp_path / "store"
    stored = Publisher(
        log, "models", "retrainer", TRUSTED, KEY, keep=2, store=Store(f"file://{files}", len(PAYLOAD) - 1)
    )
    assert [publish(stored, reader) for _ in range(3)] == [1, 2, 3]
    assert sorted(file.name[:8] for file in files.iterdir()) == ["00000002", "00000003"]
    manifest, payload = Models(log, "models").verified(3, TRUSTED)
    assert (manifest.chunks, payload) == (0, PAYLOAD)
    next(files.glob("00000003*")).write_bytes(PAYLOAD[::-1])
    with pytest.raises(Refused, match="digest_mismatch"):
        Models(log, "models").verified(3, TRUSTED)
    stored.close()


def test_small_payloads_travel_through_the_log(log: SqliteLog, reader: Reader, tmp_path: Path) -> None:
    """The limit itself still goes into the log, store or not."""
    small = Publisher(log, "models", "retrainer", TRUSTED, KEY, store=Store(f"file://{tmp_path}/store", len(PAYLOAD)))
    publish(small, reader)
    assert small.models.verified(1, TRUSTED)[0].location is None
    small.close()


def test_an_unreachable_store_publishes_nothing(log: SqliteLog, reader: Reader) -> None:
    """The error names the place; no release, no alias, no position is left behind."""
    lost = Publisher(log, "models", "retrainer", TRUSTED, KEY, store=Store("nosuch://bucket", 0))
    with pytest.raises(StoreUnreachable, match="cannot write nosuch://bucket/00000001"):
        publish(lost, reader)
    assert (Models(log, "models").champion, log.committed("retrainer", ["examples"])) == (0, {})
    lost.close()


def test_an_aliased_release_stays(publisher: Publisher, reader: Reader) -> None:
    """The champion of before the publication is never removed by it."""
    for _ in range(3):
        publish(publisher, reader)
    publisher.promote(1, "ann", "it was the best", 3.0)
    publish(publisher, reader)
    assert sorted(publisher.models.registry.releases) == [1, 2, 3, 4]


def test_an_operator_rolls_back_without_fencing_the_retrainer(
    log: SqliteLog, publisher: Publisher, reader: Reader
) -> None:
    """Rollbacks follow the parents, down to the base rate; the retrainer goes on with the next version."""
    for _ in range(2):
        publish(publisher, reader)
    operator = Publisher(log, "models", "operator", TRUSTED)
    assert operator.rollback("ann", "worse", 5.0) == 1
    assert operator.rollback("ann", "still", 6.0) == 0
    with pytest.raises(UnknownRelease):
        operator.rollback("ann", "further", 7.0)
    operator.close()
    alias = Models(log, "models").registry.aliases["champion"]
    assert (alias.version, alias.actor, alias.reason, alias.time) == (0, "ann", "still", 6.0)
    assert publish(publisher, reader) == 3


def test_promoting_what_is_not_there_names_what_is(publisher: Publisher, reader: Reader) -> None:
    """A wrong version changes nothing and the message lists the right ones."""
    publish(publisher, reader)
    with pytest.raises(UnknownRelease, match="no release 9 in models; there are: 1"):
        publisher.promote(9, "ann", "typo", 3.0)
    assert publisher.models.champion == 1


def test_a_second_retrainer_fences_the_first(log: SqliteLog, publisher: Publisher, reader: Reader) -> None:
    """Whoever opened the writer last publishes; what the first tries leaves nothing behind."""
    second = Publisher(log, "models", "retrainer", TRUSTED, KEY)
    with pytest.raises(Fenced):
        publish(publisher, reader, position=9)
    assert Models(log, "models").champion == 0
    assert log.committed("retrainer", ["examples"]) == {}
    assert publish(second, reader) == 1
    second.close()


def test_a_publisher_without_a_key_does_not_publish(log: SqliteLog, reader: Reader) -> None:
    """An operator's publisher refuses to publish before it writes anything."""
    operator = Publisher(log, "models", "operator", TRUSTED)
    with pytest.raises(ValueError, match="signing key"):
        publish(operator, reader)
    operator.close()
    assert Models(log, "models").registry.latest == 0
