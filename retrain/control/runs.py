"""Runs of the live retrainer: starts them in the training process, and publishes what the core decides.

The release of a run, or the report of a run without one, is written in one transaction with the positions of the
examples that the run has considered. A transaction that is aborted has written nothing: the candidate is kept, and
publishing is tried again after a pause.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, NamedTuple

import msgspec
import structlog

from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.releases.manifest import Refused
from tailrace.retrain.control.champion import load_champion
from tailrace.retrain.control.core import RetrainingCore
from tailrace.retrain.control.decisions import RunResult, RunUnderWay
from tailrace.retrain.control.label_feed import LabelFeed
from tailrace.retrain.control.observer import RetrainerObserver
from tailrace.retrain.control.publisher import Overtaken, Publisher, commits
from tailrace.retrain.control.release_draft import run_manifest
from tailrace.retrain.control.reports import RunReport
from tailrace.retrain.control.run import job_of
from tailrace.retrain.worker.client import TrainingBackend, TrainingFailed
from tailrace.retrain.worker.protocol import Candidate, Progress
from tailrace.streams.log.backoff import Backoff
from tailrace.streams.log.base import Aborted, Reader, TooLarge

_UNFIT = (TrainingFailed, Refused, TooLarge, ValueError)  # the candidate's fault: repeating the run would not help

logger = structlog.get_logger("tailrace.retrainer")


class _Training(NamedTuple):
    """A run in the training process. `started`: by time.perf_counter; `stages`: seconds by stage."""

    started: float
    candidate: Future[Candidate]
    stages: dict[str, float]


class Runs:
    """Starts and finishes runs. Call `tend` often; it never waits for the training process.

    `code_digest` goes into each manifest; `clock` gives unix seconds.
    """

    def __init__(
        self,
        declared: Pipeline,
        core: RetrainingCore,
        feed: LabelFeed,
        publisher: Publisher,
        trainer: TrainingBackend,
        *,
        observer: RetrainerObserver,
        code_digest: str,
        clock: Callable[[], float],
    ) -> None:
        self._declared, self._core, self._feed, self._publisher = declared, core, feed, publisher
        self._trainer, self._observer, self._code_digest, self._clock = trainer, observer, code_digest, clock
        self._topic = declared.topics.examples
        self._training: _Training | None = None
        self._backoff = Backoff(0.1, 60.0)
        self._publish_at = -math.inf

    @property
    def under_way(self) -> bool:
        """True if a run is under way."""
        return self._training is not None

    def tend(self, pool: ThreadPoolExecutor, reader: Reader) -> None:
        """Start a run that is due; finish one whose training has ended."""
        if self._training is None:
            self._start_if_due(pool)
        elif self._training.candidate.done() and time.monotonic() >= self._publish_at:
            self._finish(self._training, reader)

    def _start_if_due(self, pool: ThreadPoolExecutor) -> None:
        asked = self._core.run_due(self._feed.now())
        if asked is None:
            return
        started = time.perf_counter()
        champion, payload = load_champion(self._publisher, self._declared)
        self._core.champion_is(champion)
        run = self._core.start_run(asked)
        reason = asked.due.reason
        if run is None:
            logger.warning("no run: no example is mature yet", reason=reason, examples=self._core.examples)
            return
        job = job_of(run, self._declared, payload if run.champion.fits else None)
        logger.info("retraining started", reason=reason, examples=job.train, fresh=job.fresh)
        self._publisher.pinned = {run.champion.version}
        future = pool.submit(self._trainer.train, job, self._report_progress)
        self._training = _Training(started, future, {"select": time.perf_counter() - started})
        self._feed.report_waiting()

    def _report_progress(self, progress: Progress) -> None:
        logger.debug("retraining", step=progress.step, steps=progress.steps, loss=round(progress.loss, 4))
        self._observer.progressed(progress.step, progress.steps, progress.loss)

    def _finish(self, training: _Training, reader: Reader) -> None:
        try:
            report = self._conclude(training, reader)
        except Aborted as aborted:  # nothing was written: the candidate is kept, and publishing is tried again
            self._publish_at = time.monotonic() + self._backoff.pause()
            logger.warning("could not publish yet", detail=str(aborted))
            return
        self._backoff.reset()
        self._training = None
        self._publisher.pinned = set()
        self._core.run_ended(report.total_s)
        logger.info(
            "retraining ended",
            **{k: v for k, v in msgspec.to_builtins(report).items() if k not in ("since", "considered")},
        )
        self._observer.ran(report, training.stages)
        self._feed.report_waiting()

    def _conclude(self, training: _Training, reader: Reader) -> RunReport:
        """Pass the candidate through the gate, and write the result of the run and its positions in one transaction."""
        try:
            candidate = training.candidate.result()
            training.stages["train"] = candidate.seconds
            with _timed(training.stages, "gate"):
                result = self._judged(candidate)
            return self._write_result(training, candidate, result, reader)
        except _UNFIT as failure:
            report = self._report(training, "failed", str(failure))
            self._publisher.record(report, commits(self._topic, self._core.positions()), reader)
            self._trainer.start()
            return report

    def _judged(self, candidate: Candidate) -> RunResult:
        """Return the gate's verdict on a candidate. Raises TrainingFailed if its scores cannot be compared.

        Any error counts as such, because a user's module may give any scores.
        """
        try:
            return self._core.run_finished(candidate)
        except Exception as error:
            raise TrainingFailed("error", f"the gate cannot judge it: {type(error).__name__}: {error}") from error

    def _write_result(self, training: _Training, candidate: Candidate, result: RunResult, reader: Reader) -> RunReport:
        gate, detail = result.gate, result.gate.reason
        if gate.passed:
            report = self._report(training, "published", gate.reason, candidate, result)
            draft = run_manifest(result.run, candidate, gate, self._declared, self._code_digest, report.at)
            draft = msgspec.structs.replace(draft, parent=result.parent)
            try:
                with _timed(training.stages, "publish"):
                    # It has learned all examples that were read when it started, unlike the release that it replaces.
                    learned = commits(self._topic, self._under_way.considered)
                    version = self._publisher.publish(draft, candidate.state, report, learned, reader)
            except Overtaken as overtaken:
                detail = str(overtaken)
            else:
                self._core.run_published(version, self._feed.now(), gate)
                return msgspec.structs.replace(report, version=version)
        report = self._report(training, "refused", detail, candidate, result)
        self._publisher.record(report, commits(self._topic, self._core.positions()), reader)
        return report

    @property
    def _under_way(self) -> RunUnderWay:
        assert self._core.run is not None
        return self._core.run

    def _report(
        self,
        training: _Training,
        outcome: Literal["published", "refused", "failed"],
        detail: str,
        candidate: Candidate | None = None,
        result: RunResult | None = None,
    ) -> RunReport:
        run = self._under_way.run
        return RunReport(
            outcome=outcome,
            reason=run.due.reason,
            trigger=run.due.kind,
            detail=detail,
            parent=run.champion.version,
            since=run.facts.now,
            at=self._clock(),
            examples=len(run.selection.train),
            fresh=run.selection.fresh,
            labels=run.facts.labels,
            total_s=time.perf_counter() - training.started,
            seconds=candidate.seconds if candidate else 0.0,
            warm=candidate.warm if candidate else False,
            device=candidate.device if candidate else "",
            gate=result.gate if result else None,
            considered=self._under_way.considered,
        )


@contextmanager
def _timed(stages: dict[str, float], stage: str) -> Iterator[None]:
    """Record the seconds that a stage takes."""
    started = time.perf_counter()
    yield
    stages[stage] = time.perf_counter() - started
