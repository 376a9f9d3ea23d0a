"""Replay of dead letters and the newest records on a real Kafka, where control records occupy offsets."""

from __future__ import annotations

import uuid
from contextlib import closing
from pathlib import Path

import pytest
from support.shell import PIPELINE

from tailrace.app.pipeline_file import load_pipeline
from tailrace.streams.log.base import Delivery
from tailrace.streams.log.browse import newest
from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.dead_letter_replay import Replayed, dead_letters, replay, topics_of
from tailrace.streams.log.dead_letters import dead_letter
from tailrace.streams.log.records import Out, Record
from tailrace.streams.log.topology import topology
from tailrace.streams.log.url import open_log


@pytest.mark.kafka
def test_replay_and_newest_on_kafka(kafka_bootstrap: str, tmp_path: Path) -> None:
    """Dead letters written in transactions are replayed once; `newest` skips control records of transactions."""
    name = f"dead-letters-{uuid.uuid4().hex[:8]}"
    (tmp_path / "pipeline.py").write_text(PIPELINE.replace('"small"', f'"{name}"'))
    pipeline = load_pipeline(str(tmp_path / "pipeline.py"))
    with closing(open_log(f"kafka://{kafka_bootstrap}")) as log:
        log.create(topology(pipeline, 2))
        writer = log.writer(f"{name}-test", Delivery.EXACTLY_ONCE)
        events = pipeline.topics.events
        for n, reason in enumerate(["not_utf8", "wrong_shape", "not_utf8"]):
            original = Record(events, 0, n, 5_000, b"k%d" % n, b"\xff", ())
            writer.write(
                [dead_letter(Malformed(original, reason, "")), Out(events, b"x%d" % n, b"{}", timestamp=n + 1)]
            )
            writer.commit()
        writer.flush()
        writer.close()
        assert len(list(dead_letters(log, topics_of(pipeline, None)))) == 3
        done = [replay(log, name, events, reason) for reason in ("not_utf8", None, None)]
        assert done == [Replayed(2, 0), Replayed(1, 0), Replayed(0, 0)]
        records, _ = newest(log, events, 4)
        assert records[0].key == b"x2"
        assert {record.key for record in records[1:]} == {b"k0", b"k1", b"k2"}
