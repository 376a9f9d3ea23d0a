"""Online updates of the live retrainer: starts them in their process, and publishes what the core decides.

A release is published together with the positions of the labels that it has learned, so that each label is learned
once. After a crash the newest release and its positions are where updates continue.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import structlog

from tailrace.declaration.online import Online
from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.targets import target_array
from tailrace.inference.releases.manifest import Refused
from tailrace.inference.releases.storage import StoreUnreachable
from tailrace.retrain.control.champion import load_champion
from tailrace.retrain.control.core import RetrainingCore
from tailrace.retrain.control.decisions import UpdateEnd, UpdateResult
from tailrace.retrain.control.publisher import Overtaken, Publisher, commits
from tailrace.retrain.control.release_draft import update_manifest
from tailrace.retrain.control.reports import UpdateReport
from tailrace.retrain.online.chain import Update
from tailrace.retrain.worker.client import TrainingBackend, TrainingFailed
from tailrace.retrain.worker.protocol import Begin, Learn, Learned, Rows
from tailrace.streams.log.backoff import Backoff
from tailrace.streams.log.base import Aborted, Reader, TooLarge

PAUSES_S = (0.1, 60.0)
"""First and longest pause after failures, in seconds."""

logger = structlog.get_logger("tailrace.retrainer")


def messages(update: Update, state: bytes | None, plan: Online) -> list[Begin | Learn]:
    """Messages to the training process for one update. `state`: the weights that a warm chain starts from."""
    learn = Learn(Rows.of(update.rows))
    if update.start is None:
        return [learn]
    start = update.start
    return [Begin(state=state, remembered=Rows.of(start.replayed), plan=plan, seed=start.seed), learn]


class _UnderWay(NamedTuple):
    """An update in its process. `update.rows` are what it learns; `started`: on the clock of updates."""

    update: Update
    started: float
    answer: Future[Learned]


class OnlineUpdates:
    """Keeps the champion fresh. Call `tend` often; it never waits for the training process.

    `clock` gives seconds that only grow, `wall` unix seconds; `on_update` is called with the report of each update.
    """

    def __init__(
        self,
        declared: Pipeline,
        core: RetrainingCore,
        publisher: Publisher,
        trainer: TrainingBackend,
        *,
        code_digest: str = "",
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        on_update: Callable[[UpdateReport], None] = lambda report: None,
    ) -> None:
        assert declared.online is not None
        self._declared, self._core, self._publisher, self._trainer = declared, core, publisher, trainer
        self._code_digest, self._wall, self._clock, self._on_update = code_digest, wall, clock, on_update
        self._plan, self._topic = declared.online, declared.topics.examples
        self._under_way: _UnderWay | None = None
        self._passed: UpdateResult | None = None  # guarded, not yet published
        self._backoff = Backoff(*PAUSES_S)
        self._resumes = -math.inf

    def tend(self, pool: ThreadPoolExecutor, reader: Reader) -> None:
        """Start an online update that is due, or finish the one under way if the training process has answered it."""
        now = self._clock()
        if now < self._resumes:
            return
        try:
            if self._under_way is None:
                if self._core.update_due(now):
                    self._start(pool, now)
            elif self._under_way.answer.done():
                self._finish(self._under_way, reader)
        except (Aborted, StoreUnreachable) as error:  # nothing was written: it is tried again
            logger.warning("no update yet", detail=str(error))
            self._rest()

    def _start(self, pool: ThreadPoolExecutor, now: float) -> None:
        models = self._publisher.models
        models.refresh()
        state = None
        if models.champion != self._core.champion.version or not self._core.chain_continues:
            champion, state = load_champion(self._publisher, self._declared)
            self._core.champion_is(champion)
        update = self._core.start_update(now)
        if update.start is not None and not update.start.warm:
            state = None
        answer = pool.submit(self._trainer.learn, messages(update, state, self._plan), self._plan.budget_s)
        self._under_way = _UnderWay(update, now, answer)

    def _finish(self, under_way: _UnderWay, reader: Reader) -> None:
        labels = len(under_way.update.rows)
        try:
            learned = under_way.answer.result()
        except TrainingFailed as failure:
            self._end(self._core.update_failed(failure.reason, str(failure)), labels, reader)
            self._trainer.start()
            return
        result = self._passed or self._guarded(under_way.update, learned)
        if isinstance(result, UpdateEnd):
            self._end(result, labels, reader)
            return
        self._passed = result
        try:
            version = self._publish(result, learned, reader)
        except Overtaken as overtaken:
            self._end(self._core.update_overtaken(str(overtaken)), labels, reader)
        except (Refused, TooLarge, ValueError) as refused:
            self._end(self._core.update_unpublishable(str(refused)), labels, reader)
        else:
            self._core.update_published(version, result.trained_through)
            self._backoff.reset()
            self._report("published", "", labels, version, learned)

    def _guarded(self, update: Update, learned: Learned) -> UpdateResult | UpdateEnd:
        if self._publisher.models.champion != self._core.champion.version:
            self._core.champion_is(load_champion(self._publisher, self._declared)[0])
        width = self._declared.task.outputs
        before, after = (np.frombuffer(raw, np.float32).reshape(-1, width) for raw in (learned.before, learned.after))
        targets = target_array([row.target for row in update.rows], self._declared.task)
        return self._core.update_learned(before, after, targets)

    def _publish(self, result: UpdateResult, learned: Learned, reader: Reader) -> int:
        draft = update_manifest(
            self._declared,
            result.lineage,
            learned,
            parent=result.parent,
            labels=result.labels,
            trained_through=result.trained_through,
            code_digest=self._code_digest,
            now=self._wall(),
        )
        return self._publisher.publish(draft, learned.state, None, commits(self._topic, result.positions), reader)

    def _end(self, end: UpdateEnd, labels: int, reader: Reader) -> None:
        """Log and report an update that gave no release; committed positions move past labels that are skipped."""
        logger.warning("update " + end.outcome, labels=labels, detail=end.detail, skipped=end.skipped)
        if end.rest:
            self._rest()
        self._report(end.outcome, end.detail, labels)
        if end.skipped:
            try:
                self._publisher.commit(commits(self._topic, self._core.positions()), reader)
            except Aborted as aborted:  # the next publication commits them
                logger.info("positions not committed yet", detail=str(aborted))

    def _rest(self) -> None:
        self._resumes = self._clock() + self._backoff.pause()

    def _report(
        self, outcome: str, detail: str, labels: int, version: int | None = None, learned: Learned | None = None
    ) -> None:
        assert self._under_way is not None
        started = self._under_way.started
        self._under_way = self._passed = None
        loss, seconds = (learned.loss, learned.seconds) if learned else (math.nan, 0.0)
        report = UpdateReport(
            outcome=outcome,
            detail=detail,
            labels=labels,
            version=version,
            loss=loss,
            seconds=seconds,
            total_s=self._clock() - started,
        )
        self._on_update(report)
