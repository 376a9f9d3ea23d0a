"""Decisions of retraining (pure): when runs and online updates start, and whether their results become releases.

    runs      idle --trigger due--> training --finished--> gate --passed--> publishing --published--> idle
                                       |                     +----refused--> recorded --> idle
                                       +--------failed--------------------> recorded --> idle

    updates   idle --enough labels--> learning --learned--> guard --passed--> publishing --published--> idle
                                         |                    +--refused--> smaller chunks, the smallest is skipped
                                         +--failed--> chunk tried again, or skipped before a rest --> idle

A run and an update may be under way at the same time. The release of a run has learned the examples that were read
when the run started, and no others: updates start again from it. Whatever fails, the champion stays in place.

The live retrainer (`control.retrainer`) is this core with a log and processes around it; a backtest
(`tailrace.backtest.simulation`) is this core with a simulated clock around it. Both call the same methods in the same
order: examples that were read, questions what is due at a time, and results. Times are arguments; nothing here reads a
clock, a file or a socket.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from tailrace.declaration.pipeline import Pipeline
from tailrace.declaration.triggers import first_due
from tailrace.inference.models.losses import Scores, Targets
from tailrace.retrain.control.champion import Champion
from tailrace.retrain.control.decisions import RunDue, RunResult, RunUnderWay, UpdateEnd, UpdateResult
from tailrace.retrain.control.promotion_gate import GateResult
from tailrace.retrain.control.run import Run, judge, prepare_run
from tailrace.retrain.control.trigger_state import TriggerState
from tailrace.retrain.online.chain import Update, UpdatePlanner
from tailrace.retrain.online.guard import harm
from tailrace.retrain.selection.buffer import Buffer, Row
from tailrace.retrain.selection.split import split
from tailrace.retrain.worker.protocol import Candidate

BASE_RATE = Champion(0)


class RetrainingCore:
    """Decision core of one pipeline: when runs and online updates start, and whether their results become releases.

    `triggers` holds the facts that triggers look at; the owner of this core updates them. `learned`: partition -> the
    offset below which an earlier process has learned (without online updates: has considered) the examples. `as_served`
    adds the served scores to rows whose scores are kept elsewhere.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        triggers: TriggerState,
        *,
        learned: Mapping[int, int] | None = None,
        as_served: Callable[[Row], Row] | None = None,
    ) -> None:
        self._pipeline, self.triggers = pipeline, triggers
        self._as_served = as_served
        self._learned = dict(learned or {})
        self._read: dict[int, int] = {}
        self._buffer = Buffer(pipeline.training.window, pipeline.training.data)
        self._planner: UpdatePlanner | None = None
        if pipeline.online is not None:
            self._planner = UpdatePlanner(pipeline.topics.examples, pipeline.online, pipeline.training.seed)
        self._moves = 0
        self._trained_through = -math.inf  # newest event time that the chain's release has learned
        self._unfit: int | None = None  # a release whose weights the declared module does not take
        self._failed_before = False  # the chunk under way was in an update that was killed
        self.champion = BASE_RATE
        """The release that serves, as far as this core knows."""
        self.run: RunUnderWay | None = None
        """The run under way."""

    # Examples.

    def examples_read(self, rows: Sequence[Row], read: Mapping[int, int]) -> None:
        """Add examples that were read, each partition in offset order.

        `read`: partition -> offset at which reading continues.
        """
        if self._pipeline.retrain:
            self._buffer.append(rows)
        if self._planner is not None:
            self._planner.take(rows, self._learned)
        self._read.update(read)

    @property
    def examples(self) -> int:
        """Number of examples that a run may choose from."""
        return len(self._buffer)

    @property
    def refilled(self) -> bool:
        """True if reading has passed the positions that an earlier process had reached."""
        return all(self._read.get(partition, 0) >= at for partition, at in self._learned.items())

    @property
    def behind(self) -> bool:
        """True if so many labels wait for updates that the owner should stop reading examples."""
        return self._planner is not None and self._planner.behind and self.refilled

    @property
    def idle(self) -> bool:
        """True if no run or update is under way and none is due by the number of labels."""
        return self.run is None and not self.updating and not self._labels_wait

    def positions(self) -> dict[int, int]:
        """Map each partition to the offset below which all examples were learned or skipped.

        Without online updates: below which a run has considered them.
        """
        if self._planner is not None:
            return self._planner.positions(self._read, with_chunk=False)
        return self.run.considered if self.run is not None else dict(self._learned)

    # The champion.

    def champion_is(self, champion: Champion) -> None:
        """Set the release that serves now. An operator may have changed it by a promotion or rollback."""
        if champion.version != self.champion.version:
            self._moves += 1
        self.champion = champion

    # Runs.

    def run_due(self, now: float) -> RunDue | None:
        """Return the run that a trigger requests at `now`, unix seconds on the plan's clock; None if none does.

        None also while a run is under way, while earlier positions are read again, and below `min_examples`.
        """
        if self.run is not None or not self.refilled or len(self._buffer) < self._pipeline.training.min_examples:
            return None
        facts = self.triggers.facts(now)
        due = first_due(self._pipeline.retrain, facts)
        return None if due is None else RunDue(due, facts)

    def start_run(self, asked: RunDue) -> Run | None:
        """Select the examples of a run and return the run, which is under way then.

        None: no example is mature yet, and the trigger must become due again.
        """
        pipeline, plan, facts = self._pipeline, self._pipeline.training, asked.facts
        champion, online = self.champion, self._planner is not None
        seen = {} if online else dict(champion.seen)  # with online updates the champion has seen every example
        chosen = self._buffer.select(
            seen,
            plan,
            now=facts.now,
            through=champion.trained_through,
            changed=facts.drift.changed if facts.drift else None,
        )
        selection = split(chosen, seen, plan, pipeline.online)
        self.triggers.run_started(facts)
        if not selection.train:
            return None
        if self._as_served is not None:
            needs_scores = plan.data.hard < 1 or plan.data.late
            train = list(map(self._as_served, selection.train)) if needs_scores else selection.train
            selection = selection._replace(train=train, holdout=list(map(self._as_served, selection.holdout)))
        warm = champion.fits and plan.start == "warm" and not online
        run = prepare_run(asked.due, facts, champion, selection, plan.seed + champion.version, pipeline, warm=warm)
        self.run = RunUnderWay(run, dict(self._read), self._moves)
        return run

    def run_finished(self, candidate: Candidate) -> RunResult:
        """Compare the candidate of the run under way with the champion at the gate; return the verdict.

        Raises what the scores of a user's module may cause.
        """
        assert self.run is not None
        run, moves = self.run.run, self.run.moves
        parent = self.champion.version if moves == self._moves else run.champion.version  # updates may have gone on
        return RunResult(run, judge(run, candidate, self._pipeline), parent)

    def run_published(self, version: int, now: float, gate: GateResult) -> None:
        """Record that the run under way became release `version`, at `now` on the plan's clock."""
        assert self.run is not None
        run, considered = self.run.run, self.run.considered
        seen = {partition: end for partition, (_, end) in run.selection.ranges.items()}
        self.champion = Champion(version, fits=True, seen=seen, trained_through=run.trained_through(self._pipeline))
        if self._planner is not None:
            self._planner.restart(considered)
        metrics = {} if gate.candidate is None else {gate.metric: gate.candidate}
        self.triggers.published(now, metrics, gate.examples)

    def run_ended(self, seconds: float) -> None:
        """Record the end of the run under way, whatever its result. `seconds`: from its trigger to its end."""
        self.run = None
        self.triggers.run_ended(seconds)

    # Online updates. Times are seconds on one clock that only grows.

    @property
    def updating(self) -> bool:
        """True if an update is under way."""
        return self._planner is not None and bool(self._planner.learning)

    @property
    def _labels_wait(self) -> bool:
        planner, plan = self._planner, self._pipeline.online
        return planner is not None and plan is not None and planner.chunk >= plan.labels

    @property
    def next_chunk(self) -> int:
        """Number of labels that the next update would learn."""
        return self._planner.chunk if self._planner is not None else 0

    @property
    def chain_continues(self) -> bool:
        """True if the next update continues the chain that led to the champion."""
        return self._planner is not None and self._planner.follows(self.champion.version)

    def update_due(self, now: float) -> bool:
        """True if an update is due at `now`."""
        return self._planner is not None and self.refilled and self._planner.due(now)

    def start_update(self, now: float) -> Update:
        """Start an update on the waiting labels. If its `start` is warm, it needs the champion's weights."""
        assert self._planner is not None
        champion = self.champion
        fits = champion.fits and champion.version != self._unfit
        if not self.chain_continues:
            self._trained_through = champion.trained_through if fits else -math.inf
        return self._planner.next_update(now, champion.version, fits=fits)

    def update_learned(self, before: Scores, after: Scores, targets: Targets) -> UpdateResult | UpdateEnd:
        """Check the update under way: return its release if the guard passes it, else its end (refused, overtaken).

        Scores have the shape [n, outputs]: those of the update's rows before and after they were learned.
        """
        planner = self._planner
        assert planner is not None
        if not planner.leads_to(self.champion.version):
            return self.update_overtaken(f"release {self.champion.version} became the champion during the update")
        reason = harm(self._pipeline.task, before, after, targets)
        if reason is not None:
            return self.update_refused(reason)
        rows = planner.learning
        return UpdateResult(
            lineage=planner.lineage(),
            parent=planner.newest,
            labels=len(rows),
            trained_through=max(self._trained_through, *(row.time for row in rows)),
            positions=planner.positions(self._read, with_chunk=True),
        )

    def update_published(self, version: int, trained_through: float) -> None:
        """Record that the update under way became release `version`."""
        assert self._planner is not None
        self._planner.published(version)
        self._failed_before = False
        self._trained_through = trained_through
        self.champion = self.champion._replace(version=version, fits=True, trained_through=trained_through)

    def update_refused(self, detail: str) -> UpdateEnd:
        """Record that the update did harm or diverged: learn its labels in smaller chunks, or skip the smallest."""
        assert self._planner is not None
        labels = len(self._planner.learning)
        return UpdateEnd("refused", detail, labels, skipped=not self._planner.refused())

    def update_unpublishable(self, detail: str) -> UpdateEnd:
        """Record that the release of the update cannot be published, and skip its labels."""
        return self._end_update("refused", detail, again=False)

    def update_overtaken(self, detail: str) -> UpdateEnd:
        """Record that another release became the champion during the update; its labels are learned again."""
        return self._end_update("overtaken", detail, again=True)

    def update_failed(self, reason: str, detail: str) -> UpdateEnd:
        """Record that the training process gave no result for the update.

        `reason`: see `retrain.worker.client`. "diverged" counts as refused. The chunk is tried again after the first
        "killed", and after "unfit", then without the champion's weights. Any other failure skips the chunk and asks
        for a rest.
        """
        assert self._planner is not None
        if reason == "diverged":
            return self.update_refused(detail)
        if reason == "unfit":
            self._unfit = self._planner.newest
            return self._end_update("failed", detail, again=True)
        again = reason == "killed" and not self._failed_before
        end = self._end_update("failed", detail, again=again)
        self._failed_before = again
        return end

    def _end_update(self, outcome: str, detail: str, *, again: bool) -> UpdateEnd:
        assert self._planner is not None
        labels = len(self._planner.learning)
        self._planner.failed(again=again)
        self._failed_before = False
        return UpdateEnd(outcome, detail, labels, skipped=not again, rest=outcome == "failed" and not again)
