"""The table of phases and events of a Kafka reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.log_place import RecordingListener

from tailrace.streams.log.base import Aborted, Committed, TopicPartition
from tailrace.streams.log.kafka.rebalance import SEEKS, TRANSITIONS, Phase, Rebalance, RebalanceEvent, Seek

BEGINNING = -2
PARTITIONS = [TopicPartition("events", n) for n in range(4)]
partitions = st.frozensets(st.sampled_from(PARTITIONS))
steps = st.lists(st.tuples(st.sampled_from(["assign", "revoke", "lose", "consume", "close"]), partitions), max_size=12)


def test_the_table_is_complete() -> None:
    """Every phase knows how to treat a seek, leads back to STABLE or stays CLOSED, and begins from STABLE."""
    assert set(SEEKS) == set(Phase)
    for phase in Phase:
        if phase is not Phase.STABLE:
            assert TRANSITIONS[phase, RebalanceEvent.DONE] is (Phase.CLOSED if phase is Phase.CLOSED else Phase.STABLE)
    began = {
        TRANSITIONS[Phase.STABLE, event]
        for event in (RebalanceEvent.ASSIGN, RebalanceEvent.REVOKE, RebalanceEvent.LOSE)
    }
    assert began == {Phase.ASSIGNING, Phase.REVOKING, Phase.LOSING}


@given(steps)
def test_partitions_follow_the_events(events: list[tuple[str, frozenset[TopicPartition]]]) -> None:
    """A reader holds the partitions that were assigned and not taken away since; a closed one calls no listener."""
    listener = RecordingListener()
    rebalance = Rebalance(listener, BEGINNING)
    held: set[TopicPartition] = set()
    moved: set[TopicPartition] = set()
    for event, which in events:
        heard = len(listener.calls)
        if event == "assign":
            starts = rebalance.assign(dict.fromkeys(which))
            assert starts == dict.fromkeys(which, BEGINNING)
            held, moved = held | which, moved | which
        elif event == "revoke":
            rebalance.revoke(which)
            held, moved = held - which, moved | which
        elif event == "lose":
            rebalance.lose(which)
            held, moved = held - which, moved | which
        elif event == "consume":
            rebalance.begin_consume()
            moved = set()
        else:
            rebalance.close()
        closed = rebalance.phase is Phase.CLOSED
        assert closed or rebalance.phase is Phase.STABLE
        assert not (closed and len(listener.calls) > heard)
        assert (held, moved) == (rebalance.held, rebalance.moved)


class Seeker(RecordingListener):
    """A listener that seeks to 7 in every call, and remembers the phases."""

    def __init__(self) -> None:
        super().__init__()
        self.rebalance: Rebalance
        self.phases: list[tuple[Phase, dict[TopicPartition, int]]] = []

    def _seek(self) -> None:
        self.phases.append((self.rebalance.phase, self.rebalance.seek(dict.fromkeys(PARTITIONS, 7))))

    def assigned(self, committed: object) -> None:
        self._seek()

    def revoking(self, partitions: object) -> None:
        self._seek()

    def lost(self, partitions: object) -> None:
        self._seek()


def test_seeks_are_treated_by_phase() -> None:
    """A seek while partitions are assigned becomes their start; while they leave it is ignored; else it is applied."""
    seeker = Seeker()
    seeker.rebalance = rebalance = Rebalance(seeker, BEGINNING)
    first, second = PARTITIONS[:2]
    assert rebalance.assign({first: Committed(3), second: None}) == {first: 7, second: 7}
    rebalance.revoke(frozenset({first}))
    rebalance.lose(frozenset({second}))
    assert seeker.phases == [(Phase.ASSIGNING, {}), (Phase.REVOKING, {}), (Phase.LOSING, {})]
    rebalance.assign({first: None})
    assert rebalance.seek({first: 9, second: 9}) == {first: 9}
    assert {SEEKS[phase] for phase, _ in seeker.phases} == {Seek.START, Seek.IGNORED}


def test_an_error_of_the_listener_waits_for_the_reader() -> None:
    """An exception of the listener does not pass through librdkafka: it is raised once, and the phase is STABLE."""

    class Failing(RecordingListener):
        def revoking(self, partitions: object) -> None:
            raise RuntimeError("no")

    rebalance = Rebalance(Failing(), BEGINNING)
    rebalance.assign(dict.fromkeys(PARTITIONS))
    rebalance.revoke(frozenset(PARTITIONS[:1]))
    assert rebalance.phase is Phase.STABLE
    with pytest.raises(RuntimeError, match="no"):
        rebalance.raise_error()
    rebalance.raise_error()
    with pytest.raises(Aborted, match=r"events\[0\] moved .*'g'"):
        rebalance.check_held(PARTITIONS, "g")
    rebalance.check_held(PARTITIONS[1:], "g")


def test_partitions_taken_alone_are_announced_once() -> None:
    """A reader without a group tells its listener of its partitions at the first read; `start` wins over committed."""
    listener = RecordingListener()
    rebalance = Rebalance(listener, BEGINNING)
    first, second, third, fourth = PARTITIONS
    rebalance.take({first: Committed(3), second: None, third: Committed(5)}, {third: 1, fourth: 1})
    assert rebalance.starts == {first: 3, second: BEGINNING, third: 1}
    assert not listener.calls
    rebalance.announce()
    rebalance.announce()
    assert [("assigned", frozenset(PARTITIONS[:3]))] == listener.calls
