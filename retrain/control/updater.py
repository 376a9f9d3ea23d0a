"""Online updates, live: asks the twin, guards what it says, publishes it. A crash resumes from the newest release.

    idle --enough labels--> learning --learned--> guarded --fine--> published     (then idle again)
                               |                     +---worse---> the chain ends
                               +---failed: the chain ends; a chunk that kills the twin twice is left out, as is one
                                   that fails otherwise. What fails again and again is tried less and less often.

A release is published together with the positions of what it learned, so that each label is learned once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import structlog

from tailrace.declaration.online import Online
from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.releases.manifest import Manifest, Refused
from tailrace.inference.releases.storage import StoreUnreachable
from tailrace.retrain.control.publisher import Overtaken, Publisher
from tailrace.retrain.control.reports import UpdateReport
from tailrace.retrain.control.run import Champion, update_manifest
from tailrace.retrain.online.chain import Update, Updater
from tailrace.retrain.online.guard import harm
from tailrace.retrain.selection.buffer import Row
from tailrace.retrain.worker.client import TrainingFailed, Trains
from tailrace.retrain.worker.protocol import Begin, Learn, Learned, Rows
from tailrace.streams.log.backoff import Backoff
from tailrace.streams.log.base import Aborted, Committed, Reader, TooLarge, TopicPartition

_REST_S = (0.1, 60.0)  # first and longest pause after failures

logger = structlog.get_logger("tailrace.retrainer")


def said(update: Update, state: bytes | None, plan: Online) -> list[Begin | Learn]:
    """An update in the twin's words; `state`: the weights to begin with."""
    begin = update.beginning
    learn = Learn(Rows.of(update.rows))
    if begin is None:
        return [learn]
    return [Begin(state=state, remembered=Rows.of(begin.remembered), plan=plan, seed=begin.seed), learn]


class Refresher:
    """Keeps the champion fresh. `tend` is to be called often; it never waits for the twin.

    `champion` reads the champion's weights; `clock` gives seconds that only grow; `on_update` is told of each update.
    """

    def __init__(
        self,
        declared: Pipeline,
        publisher: Publisher,
        trainer: Trains,
        champion: Callable[[], Champion],
        *,
        code_digest: str = "",
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        on_update: Callable[[UpdateReport], None] = lambda report: None,
    ) -> None:
        assert declared.online is not None
        self._declared, self._publisher, self._trainer, self._champion = declared, publisher, trainer, champion
        self._code_digest, self._wall, self._clock, self._on_update = code_digest, wall, clock, on_update
        self._plan, self._topic = declared.online, declared.topics.examples
        self._updater = Updater(self._topic, declared.online, declared.training.seed)
        self._future: Future[Learned] | None = None
        self._draft: tuple[Manifest, Learned] | None = None  # guarded, not yet published
        self._began = 0.0
        self._trained_through = -math.inf
        self._again = False  # the chunk under way killed a twin before
        self._unfit: int | None = None  # the release whose weights the declared module does not take
        self._backoff = Backoff(*_REST_S)
        self._resumes = -math.inf  # when that rest is over
        self.newest: int | None = None
        """The release that this process published last."""
        self.moved = 0
        """How often an operator has made another release the champion."""

    def start(self) -> None:
        """Start the twin's process; returns at once."""
        self._trainer.start()

    def close(self) -> None:
        """End the twin's process."""
        self._trainer.close()

    @property
    def updating(self) -> bool:
        """Whether an update is under way."""
        return self._future is not None

    @property
    def behind(self) -> bool:
        """See `Updater.behind`."""
        return self._updater.behind

    @property
    def owes(self) -> bool:
        """Whether an update is under way, or as many labels wait as one takes."""
        return self.updating or self._updater.waiting >= self._plan.labels

    def take(self, rows: Iterable[Row], learned: Mapping[int, int]) -> None:
        """See `Updater.take`."""
        self._updater.take(rows, learned)

    def restart(self, version: int, considered: Mapping[int, int]) -> None:
        """A run's release has become the champion: see `Updater.restart`."""
        self._updater.restart(considered)
        self.newest = version

    def positions(self, read: Mapping[int, int]) -> dict[int, int]:
        """See `Updater.positions`, without the chunk under way."""
        return self._updater.positions(read, with_chunk=False)

    def tend(self, pool: ThreadPoolExecutor, reader: Reader, read: Mapping[int, int]) -> None:
        """Begin an update that is due; finish one that is done. `read`: partition -> where reading goes on."""
        now = self._clock()
        if now < self._resumes:
            return
        try:
            if self._future is None:
                if self._updater.due(now):
                    self._begin(pool)
            elif self._future.done():
                self._finish(self._future, reader, read)
        except (Aborted, StoreUnreachable) as error:  # nothing was written: it is tried again
            logger.warning("no update yet", detail=str(error))
            self._rest()

    def _begin(self, pool: ThreadPoolExecutor) -> None:
        self._began = self._clock()
        models = self._publisher.models
        models.refresh()
        if self.newest not in (None, models.champion):
            self.moved, self.newest = self.moved + 1, None
        state, fits = None, True
        if not self._updater.follows(models.champion):
            champion = self._champion()
            fits = champion.fits(self._declared) and champion.version != self._unfit
            state = champion.payload if fits else None
            self._trained_through = champion.manifest.trained_through if champion.manifest and fits else -math.inf
        update = self._updater.next(self._began, models.champion, fits=fits)
        self._future = pool.submit(self._trainer.learn, said(update, state, self._plan), self._plan.budget_s)

    def _finish(self, future: Future[Learned], reader: Reader, read: Mapping[int, int]) -> None:
        rows = self._updater.learning
        try:
            if self._draft is None:
                self._draft = self._drafted(future.result(), rows), future.result()
            draft, learned = self._draft
            positions = self._updater.positions(read, with_chunk=True)
            commit = {TopicPartition(self._topic, p): Committed(offset) for p, offset in positions.items()}
            version = self._publisher.publish(draft, learned.state, None, commit, reader)
        except TrainingFailed as failure:
            unfit = failure.reason == "unfit"
            if unfit:
                self._unfit = self._updater.newest
            again = unfit or (failure.reason == "killed" and not self._again)
            self._ended("failed", str(failure), len(rows), again=again)
            self._trainer.start()
        except Overtaken as overtaken:
            self._ended("overtaken", str(overtaken), len(rows), again=True)
        except (Refused, TooLarge, ValueError) as unfit:
            self._ended("refused", str(unfit), len(rows), again=False)
        else:
            self._updater.published(version)
            self.newest = version
            self._trained_through = draft.trained_through
            self._tell("published", "", len(rows), version, learned)
            self._again = False
            self._backoff.reset()

    def _drafted(self, learned: Learned, rows: list[Row]) -> Manifest:
        """Raises Overtaken, and Refused for an update that does harm."""
        champion = self._publisher.models.champion
        if not self._updater.follows(champion):
            raise Overtaken(f"release {champion} became the champion during the update")
        width = self._declared.task.outputs
        before, after = (np.frombuffer(raw, np.float32).reshape(-1, width) for raw in (learned.before, learned.after))
        found = harm(self._declared.task, before, after, np.array([row.target for row in rows], np.float32))
        if found:
            raise Refused("wrong_model", found)
        through = max(self._trained_through, *(row.time for row in rows))
        return update_manifest(
            self._declared,
            self._updater.told(),
            learned,
            parent=self._updater.newest,
            labels=len(rows),
            trained_through=through,
            code_digest=self._code_digest,
            now=self._wall(),
        )

    def _ended(self, outcome: str, detail: str, labels: int, *, again: bool) -> None:
        """The update gave no release, and the chain ends."""
        self._updater.failed(again=again)
        self._again = again and outcome == "failed"
        if outcome == "failed" and not again:
            self._rest()
        logger.warning("update " + outcome, labels=labels, detail=detail)
        self._tell(outcome, detail, labels)

    def _rest(self) -> None:
        self._resumes = self._clock() + self._backoff.pause()

    def _tell(
        self, outcome: str, detail: str, labels: int, version: int | None = None, learned: Learned | None = None
    ) -> None:
        self._future = self._draft = None
        loss, seconds = (learned.loss, learned.seconds) if learned else (math.nan, 0.0)
        total = self._clock() - self._began
        report = UpdateReport(
            outcome=outcome, detail=detail, labels=labels, version=version, loss=loss, seconds=seconds, total_s=total
        )
        self._on_update(report)
