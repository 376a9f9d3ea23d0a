"""The thread that reads a pipeline's log and fills the sections of the page.

It shares nothing with the roles and must not slow them: it reads new records, then pauses three times as long as that
took. Where more comes than it can read, it skips to the newest records, and the page shows a sample.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import structlog

from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.releases.manifest import Refused
from tailrace.inference.releases.payload import read_payload
from tailrace.inference.releases.storage import StoreUnreachable
from tailrace.inference.serving.loader import Loader
from tailrace.monitoring.console.page import ConsolePage, LogState
from tailrace.monitoring.console.sections import PageSections
from tailrace.monitoring.telemetry.lag import LagCollector
from tailrace.streams.log.base import Log, LogError, Reader, TopicMissing, TopicPartition
from tailrace.streams.log.dead_letters import dead_letter_topic
from tailrace.streams.log.record_count import RecordCount
from tailrace.streams.log.records import Record

_READ, _READ_LARGE = 2_000, 64  # records of one read; the latter of models and dead letters, which may be large
_SKIP_BEYOND = 10_000  # records of a partition behind which the follower skips to the newest ones
_PAST, _PAST_EXAMPLES, _PAST_DEAD_LETTERS = 64, 4_000, 2_000  # records from before the console began
_PAUSE_S = 0.1  # shortest pause between reads
_UPDATE_S, _UPDATE_UNSEEN_S = 0.5, 3.0  # between updates of the page, with and without a viewer
_RETRY_S = 1.0  # between attempts to read a log that failed
_COUNTED = ("events", "predictions", "labels", "examples")  # topics whose records the page counts, by field of `Topics`
_log = structlog.get_logger(__name__)


class ConsoleFollower:
    """Fills `sections` from a log until it is closed. `groups`: role -> its consumer group and the topics it reads.

    With a `loader`, the champion at `freeze_after` seconds of event time is kept as a reference and measured on later
    examples. Loading it imports torch.
    """

    def __init__(
        self,
        log: Log,
        pipeline: Pipeline,
        page: ConsolePage,
        sections: PageSections,
        *,
        groups: Mapping[str, tuple[str, Sequence[str]]],
        loader: Loader | None = None,
        freeze_after: float = 0.0,
    ) -> None:
        self._log, self._topics, self._page, self._sections = log, pipeline.topics, page, sections
        self._dead_letters = tuple(map(dead_letter_topic, pipeline.read_topics()))
        self._groups, self._loader, self._freeze_after = groups, loader, freeze_after
        self._stop = threading.Event()
        self._positions: dict[TopicPartition, int] = {}
        self._counts = RecordCount(log, [getattr(self._topics, name) for name in _COUNTED])
        self._updated = 0.0  # monotonic time of the last update of the page
        self._refused = 0  # the last version that cannot be a reference
        self._thread = threading.Thread(target=self._run, name="console-follower", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and wait for it; `sections` keep their last content."""
        self._stop.set()
        self._thread.join()
        self._counts.close()

    def _run(self) -> None:
        """Follow the log; after any failure show it on the page and try again."""
        while not self._stop.is_set():
            try:
                self._follow()
            except TopicMissing as error:
                self._show_problem(f"{error}: is the pipeline running?")
            except LogError as error:
                self._show_problem(str(error))
            except Exception as error:
                _log.exception("console_failed")
                self._show_problem(f"the console cannot read the log ({type(error).__name__}): see its own log lines")
            self._stop.wait(_RETRY_S)

    def _show_problem(self, problem: str) -> None:
        self._page.problem = problem
        self._update_sections(time.time())

    def _follow(self) -> None:
        topics = self._topics
        self._set_first_positions()
        flowing = self._reader(topics.predictions, topics.examples)
        try:
            large = self._reader(topics.models, *self._dead_letters)
            try:
                self._page.problem = None
                while not self._stop.is_set():
                    self._turn(flowing, large)
            finally:
                large.close()
        finally:
            flowing.close()

    def _turn(self, flowing: Reader, large: Reader) -> None:
        began = time.monotonic()
        for reader, count in ((large, _READ_LARGE), (flowing, _READ)):
            self._take(reader.read(count, _PAUSE_S / 4).records)
        now = time.time()
        if time.monotonic() - self._updated >= (_UPDATE_S if self._sections.viewers else _UPDATE_UNSEEN_S):
            self._measure_log(flowing, now)
            self._update_sections(now)
            self._freeze(now)
        self._stop.wait(max(_PAUSE_S, 3 * (time.monotonic() - began)))

    def _take(self, records: list[Record]) -> None:
        for record in records:
            self._positions[TopicPartition(record.topic, record.partition)] = record.offset + 1
        self._page.take(records, time.time())

    def _update_sections(self, now: float) -> None:
        self._updated = time.monotonic()
        self._sections.put(self._page.sections(now))

    def _measure_log(self, flowing: Reader, now: float) -> None:
        """Give the page the record counts and lags, and skip what lies too far behind."""
        topics = self._topics
        for topic in (topics.predictions, topics.examples):
            ends = self._log.end_positions(topic)
            skipped = {tp: end - _PAST for tp, end in ends.items() if end - self._positions[tp] > _SKIP_BEYOND}
            flowing.seek(skipped)
            self._positions |= skipped
        lags = {role: self._lag(group, read) for role, (group, read) in self._groups.items()}
        totals = self._counts.look()
        last = self._page.history.last_run
        new_labels = self._counts.between(topics.examples, last.considered if last else {})
        counts = {name: totals[getattr(topics, name)] for name in _COUNTED}
        self._page.take_log_state(LogState(counts, lags, new_labels), now)

    def _lag(self, group: str, topics: Sequence[str]) -> int | None:
        """Records that a group has not processed; None while the log does not answer."""
        families = LagCollector(self._log, group, topics).collect()
        samples = [s.value for family in families for s in family.samples if s.name == "tailrace_lag_records"]
        return int(sum(samples)) if samples else None

    def _reader(self, *topics: str) -> Reader:
        """A reader of these topics from the current positions, without a consumer group."""
        return self._log.reader(topics, start={tp: at for tp, at in self._positions.items() if tp.topic in topics})

    def _set_first_positions(self) -> None:
        """Begin a little before the end of each topic, unless positions are known after a failure.

        The models topic is read from its beginning, as its state is a fold over all records.
        """
        topics = self._topics
        past = {topics.predictions: _PAST, topics.examples: _PAST_EXAMPLES}
        past |= dict.fromkeys(self._dead_letters, _PAST_DEAD_LETTERS)
        for topic, count in past.items():
            begin, ends = self._log.begin_positions(topic), self._log.end_positions(topic)
            for tp, end in ends.items():
                self._positions.setdefault(tp, max(begin[tp], end - count // len(ends)))

    def _freeze(self, now: float) -> None:
        """Keep the champion as a reference once `freeze_after` has passed; a champion that was removed waits for the
        next one."""
        page, loader = self._page, self._loader
        if loader is None or page.frozen is not None or page.event_time is None or page.first_event_time is None:
            return
        raw = page.history.registry.releases.get(page.history.champion)
        if raw is None or raw.version == self._refused:
            return
        if page.event_time - page.first_event_time < self._freeze_after:
            return
        try:
            manifest = loader.manifest(raw)
            at = TopicPartition(self._topics.models, 0)
            payload = read_payload(self._log, at, page.history.registry, manifest, loader.limits.payload_bytes)
            page.freeze(loader.load(manifest, payload), now)
        except (Refused, StoreUnreachable) as error:
            self._refused = raw.version
            _log.info("no release kept as a reference", release=raw.version, detail=str(error))
