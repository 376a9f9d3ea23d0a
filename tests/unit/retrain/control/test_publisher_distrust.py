"""A publisher among records that anybody may have written, operators who act meanwhile, and answers that are lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.lossy_log import LossyLog
from support.publishing import EXAMPLES, KEY, PAYLOAD, TRUSTED, manifest, publish, report

from tailrace.inference.releases.manifest import Golden, Manifest, Refused, Signed, alias_record, pack, release_records
from tailrace.inference.releases.signing import SigningKey, TrustedKeys
from tailrace.inference.releases.storage import Store, store_payload
from tailrace.retrain.control import publisher as publishing
from tailrace.retrain.control.model_topic import Models
from tailrace.retrain.control.publisher import Overtaken, Publisher
from tailrace.streams.log.base import Aborted, Committed, Reader, Topic, TopicPartition
from tailrace.streams.log.records import Out, Record

POSITION = {EXAMPLES: Committed(7)}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LossyLog]:
    store = LossyLog(tmp_path / "log.db")
    store.create([Topic("models", compacted=True), Topic("examples")])
    yield store
    store.close()


def put(log: LossyLog, records: list[Out]) -> None:
    writer = log.writer()
    writer.write(records)
    writer.commit()
    writer.close()


def written(log: LossyLog) -> list[Record]:
    at = TopicPartition("models", 0)
    return [record for batch in log.scan(at, 0, log.end_positions("models")[at]) for record in batch]


def signed_by(key: SigningKey, version: int) -> list[Out]:
    return release_records(pack(msgspec.structs.replace(manifest(), version=version), PAYLOAD, key), "models")


def boasting(version: int) -> Out:
    """A genuine manifest that claims a thousand million chunks."""
    made: Manifest = msgspec.structs.replace(manifest(), version=version, chunks=10**9)
    encoded = msgspec.json.encode(made)
    signature = KEY.sign(b"tailrace release 1\n" + encoded).hex()
    value = msgspec.json.encode(Signed(KEY.key_id, signature, msgspec.Raw(encoded)))
    return Out("models", f"release/{version:08d}/manifest".encode(), value)


def test_forged_releases_neither_use_up_versions_nor_push_out_genuine_ones(
    log: LossyLog, publisher: Publisher, reader: Reader
) -> None:
    """Versions go on behind the genuine ones, of which the last three stay whatever else lies there."""
    for _ in range(3):
        publish(publisher, reader)
    forger = SigningKey.generate()
    put(log, [out for version in range(10**12 - 5, 10**12) for out in signed_by(forger, version)])
    assert [publish(publisher, reader) for _ in range(2)] == [4, 5]
    seen = Models(log, "models")
    assert [version for version in sorted(seen.registry.releases) if version < 1_000] == [3, 4, 5]
    assert (seen.champion, seen.verified(3, TRUSTED)[1]) == (5, PAYLOAD)


def test_the_versions_of_a_revoked_key_are_not_given_again(log: LossyLog, reader: Reader) -> None:
    """A worker that serves 3 of the revoked key must see that the next release is another one."""
    put(log, [out for version in (1, 2, 3) for out in signed_by(SigningKey.generate(), version)])
    one = Publisher(log, "models", "retrainer", TRUSTED, KEY)
    assert publish(one, reader) == 4
    one.close()


def test_what_is_removed_is_what_was_seen(log: LossyLog, publisher: Publisher, reader: Reader) -> None:
    """A removal writes one tombstone a chunk that is there, not one a chunk that a manifest claims."""
    put(log, [Out("models", b"release/00000001/chunk/5", b"x"), boasting(1)])
    for _ in range(3):
        publish(publisher, reader)
    gone = {record.key for record in written(log) if record.value is None}
    assert gone == {b"release/00000001/manifest", b"release/00000001/chunk/5"}


def test_what_workers_would_refuse_is_not_published(log: LossyLog, publisher: Publisher, reader: Reader) -> None:
    """A manifest beyond their limit, and a publisher whose own key they do not trust, leave nothing behind."""
    wide = msgspec.structs.replace(manifest(), golden=Golden([[0.1] * 250_000], [[]], [[0.5]]))
    with pytest.raises(Refused, match="too_large"):
        publisher.publish(wide, PAYLOAD, report(), POSITION, reader)
    stranger = Publisher(log, "models", "retrainer", TRUSTED, SigningKey.generate())
    with pytest.raises(Refused, match="unknown_key"):
        publish(stranger, reader)
    stranger.close()
    assert (written(log), log.committed("retrainer", ["examples"])) == ([], {})


@pytest.mark.parametrize("act", ["promote", "rollback"])
def test_what_workers_would_refuse_is_not_made_the_champion(
    log: LossyLog, publisher: Publisher, reader: Reader, act: str
) -> None:
    """Neither by name nor by rolling back to it: the message names the release, the champion stays."""
    put(log, [*signed_by(SigningKey.generate(), 1), alias_record("models", "champion", 1, "x", "y", 0.0)])
    assert publish(publisher, reader) == 2
    with pytest.raises(Refused, match="unknown_key: release 1 would be refused by every worker"):
        publisher.promote(1, "ann", "why", 1.0) if act == "promote" else publisher.rollback("ann", "why", 1.0)
    assert Models(log, "models").champion == 2


def test_an_operator_who_acts_during_an_upload_wins(
    log: LossyLog, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the weights have been stored the topic is looked at again; the rollback stays, the file does not."""
    files = tmp_path / "store"
    slow = Publisher(log, "models", "retrainer", TRUSTED, KEY, store=Store(f"file://{files}", 0))
    publish(slow, reader)
    store = store_payload

    def store_while_the_operator_acts(*arguments: Any) -> str:
        operator = Publisher(log, "models", "operator", TRUSTED)
        operator.rollback("ann", "no", 1.0)
        operator.close()
        return store(*arguments)

    monkeypatch.setattr(publishing, "store_payload", store_while_the_operator_acts)
    with pytest.raises(Overtaken, match="the champion changed from 1 to 0"):
        publish(slow, reader, position=9)
    slow.close()
    assert Models(log, "models").champion == 0
    assert log.committed("retrainer", ["examples"]) == {EXAMPLES: Committed(1)}
    assert [file.name[:8] for file in files.iterdir()] == ["00000001"]


def test_a_commit_without_an_answer_is_looked_up(log: LossyLog, publisher: Publisher, reader: Reader) -> None:
    """After a lost answer a commit that happened is no error; a commit that did not happen raises."""
    log.fate = "happened"
    assert publish(publisher, reader) == 1
    log.fate = "happened"
    failed = msgspec.structs.replace(report(1), outcome="failed")
    publisher.record(failed, POSITION, reader)
    assert (publisher.models.last_run, log.committed("retrainer", ["examples"])) == (failed, POSITION)
    log.fate = "happened"
    assert publisher.rollback("ann", "worse", 5.0) == 0
    for act in (lambda: publish(publisher, reader), lambda: publisher.promote(1, "ann", "again", 6.0)):
        log.fate = "did not happen"
        with pytest.raises(Aborted):
            act()
    assert (Models(log, "models").champion, sorted(publisher.models.registry.releases)) == (0, [1])


def test_trust_is_asked_once_a_record(log: LossyLog, publisher: Publisher, reader: Reader) -> None:
    """Publishing again does not verify again what lies there already."""
    asked: list[str] = []

    class Counting(TrustedKeys):
        def objection(self, key_id: str, signature: bytes, message: bytes) -> str | None:
            asked.append(key_id)
            return super().objection(key_id, signature, message)

    for _ in range(3):
        publish(publisher, reader)
    one = Publisher(log, "models", "retrainer", Counting([KEY.public_pem()]), KEY)
    for _ in range(4):
        publish(one, reader)
    one.close()
    assert len(asked) == 3 + 4 + 3  # what was there, each before it is published, each but the last after that
