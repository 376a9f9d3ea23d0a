"""Follows a pipeline's log, in a thread that shares nothing with the roles, and fills the board.

It must not slow them. It reads what is new, rests three times as long as that took, and where more comes than it can
take it skips to the newest: what the page shows is then a sample.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import structlog

from tailrace.inference.releases.manifest import Refused
from tailrace.inference.releases.payload import read_payload
from tailrace.inference.releases.storage import StoreUnreachable
from tailrace.inference.serving.loader import Loader
from tailrace.monitoring.console.page import Flow, Names, View
from tailrace.monitoring.console.sections import Board
from tailrace.monitoring.telemetry.lag import LagCollector
from tailrace.streams.log.base import Log, LogError, Reader, TopicMissing, TopicPartition
from tailrace.streams.log.record_count import RecordCount
from tailrace.streams.log.records import Record

_READ, _READ_LARGE = 2_000, 64  # records at a time; of models and dead letters, which may be large
_LATE = 10_000  # records of a partition behind which the newest are skipped to
_PAST, _PAST_EXAMPLES, _PAST_LETTERS = 64, 4_000, 2_000  # records from before the console began
_LEAST_S, _SHOW_S, _UNSEEN_S, _RETRY_S = 0.1, 0.5, 3.0, 1.0  # between reads, boards, boards nobody sees, attempts
_COUNTED = ("events", "predictions", "labels", "examples")
_log = structlog.get_logger(__name__)


class Follower:
    """Fills `board` from a log until it is closed. `groups`: role -> its consumer group and the topics it reads.

    With a `loader`, the champion of the moment when `freeze_after` seconds of event time had been seen is kept as it
    was and measured on what comes; loading it imports torch.
    """

    def __init__(
        self,
        log: Log,
        names: Names,
        view: View,
        board: Board,
        *,
        groups: Mapping[str, tuple[str, Sequence[str]]],
        loader: Loader | None = None,
        freeze_after: float = 0.0,
    ) -> None:
        self._log, self._names, self._view, self._board = log, names, view, board
        self._groups, self._loader, self._freeze_after = groups, loader, freeze_after
        self._stop = threading.Event()
        self._positions: dict[TopicPartition, int] = {}
        self._counts = RecordCount(log, [getattr(names, word) for word in _COUNTED])
        self._shown = 0.0
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop; what was seen stays on the board."""
        self._stop.set()
        self._thread.join()
        self._counts.close()

    def _run(self) -> None:
        """Nothing that happens here may end it: the page tells, and we try again."""
        while not self._stop.is_set():
            try:
                self._follow()
            except TopicMissing as error:
                self._trouble(f"{error}: is the pipeline running?")
            except LogError as error:
                self._trouble(str(error))
            except Exception as error:
                _log.exception("console_failed")
                self._trouble(f"the console cannot read the log ({type(error).__name__}): see its log")
            self._stop.wait(_RETRY_S)

    def _trouble(self, problem: str) -> None:
        self._view.problem = problem
        self._show(time.time())

    def _follow(self) -> None:
        names = self._names
        self._begin()
        flowing = self._reader(names.predictions, names.examples)
        try:
            large = self._reader(names.models, *names.dead)
            try:
                self._view.problem = None
                while not self._stop.is_set():
                    self._turn(flowing, large)
            finally:
                large.close()
        finally:
            flowing.close()

    def _turn(self, flowing: Reader, large: Reader) -> None:
        began = time.monotonic()
        for reader, count in ((large, _READ_LARGE), (flowing, _READ)):
            self._take(reader.read(count, _LEAST_S / 4).records)
        now = time.time()
        if time.monotonic() - self._shown >= (_SHOW_S if self._board.viewers else _UNSEEN_S):
            self._look(flowing, now)
            self._show(now)
            self._freeze(now)
        self._stop.wait(max(_LEAST_S, 3 * (time.monotonic() - began)))

    def _take(self, records: list[Record]) -> None:
        for record in records:
            self._positions[TopicPartition(record.topic, record.partition)] = record.offset + 1
        self._view.take(records, time.time())

    def _show(self, now: float) -> None:
        self._shown = time.monotonic()
        self._board.put(self._view.sections(now))

    def _look(self, flowing: Reader, now: float) -> None:
        """Where the log stands; and skip what we are too late for."""
        names = self._names
        for topic in (names.predictions, names.examples):
            positions = self._log.end_positions(topic)
            late = {at: end - _PAST for at, end in positions.items() if end - self._positions[at] > _LATE}
            flowing.seek(late)
            self._positions |= late
        lags = {role: self._lag(group, topics) for role, (group, topics) in self._groups.items()}
        totals = self._counts.look()
        ends = {word: totals[getattr(names, word)] for word in _COUNTED}
        run = self._view.history.last_run
        labels = self._counts.between(names.examples, run.considered if run else {})
        self._view.flows(Flow(ends, lags, labels), now)

    def _lag(self, group: str, topics: Sequence[str]) -> int | None:
        families = LagCollector(self._log, group, topics).collect()
        samples = [s.value for family in families for s in family.samples if s.name == "tailrace_lag_records"]
        return int(sum(samples)) if samples else None

    def _reader(self, *topics: str) -> Reader:
        """From where we are."""
        return self._log.reader(topics, start={at: n for at, n in self._positions.items() if at.topic in topics})

    def _begin(self) -> None:
        """Where we were, else a little before the end; models from the beginning, as they are a fold."""
        names = self._names
        past = {names.predictions: _PAST, names.examples: _PAST_EXAMPLES, **dict.fromkeys(names.dead, _PAST_LETTERS)}
        for topic, count in past.items():
            begin, ends = self._log.begin_positions(topic), self._log.end_positions(topic)
            for at, end in ends.items():
                self._positions.setdefault(at, max(begin[at], end - count // len(ends)))

    def _freeze(self, now: float) -> None:
        """Keep the champion as it is, when its time has come. One that is gone already is followed by another."""
        view, loader = self._view, self._loader
        if loader is None or view.frozen is not None or view.first is None or not view.history.champion:
            return
        raw = view.history.registry.releases.get(view.history.champion)
        if raw is None or view.clock - view.first < self._freeze_after:
            return
        try:
            manifest = loader.manifest(raw)
            at = TopicPartition(self._names.models, 0)
            payload = read_payload(self._log, at, view.history.registry, manifest, loader.limits.payload_bytes)
            view.freeze(loader.load(manifest, payload), now)
        except (Refused, StoreUnreachable) as error:
            _log.info("nothing frozen", release=raw.version, detail=str(error))
