"""One policy on one history, on a simulated clock: what would have been predicted, and when something learned.

    labels --> updates, runs --> releases, each in force when its training would have been done --> scores

The same parts decide as in the live retrainer: `Updater`, the triggers, the buffer, the gate; the same ones learn and
score. Training takes no time here but is charged to the clock at a stated rate, so a backtest repeats exactly, on any
machine as fast as it will. Importing this imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tailrace.backtest.history.growing import Growing, extended
from tailrace.backtest.policy import Policy
from tailrace.backtest.result import Drift, Retraining
from tailrace.declaration.facts import Due, Facts
from tailrace.declaration.gate import Gate
from tailrace.declaration.online import Online
from tailrace.declaration.triggers import first_due
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import load_state, serialise
from tailrace.inference.serving.loader import base_rate_serving, scorer
from tailrace.retrain.control.run import Champion, Run, job, judge, run_of
from tailrace.retrain.control.trigger_state import Watch
from tailrace.retrain.online.chain import Update, Updater
from tailrace.retrain.online.guard import harm
from tailrace.retrain.online.learner import Learner
from tailrace.retrain.selection.buffer import Buffer, Row
from tailrace.retrain.selection.split import divided
from tailrace.retrain.training.distributed import ALONE
from tailrace.retrain.training.loop import Diverged, score
from tailrace.retrain.worker.candidate import candidate_of
from tailrace.retrain.worker.protocol import Candidate

_TOPIC = "examples"
_LOOK = 50  # labels between two looks at the triggers


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What training is charged to the simulated clock, in rows a second: those of a run's steps, an update's labels."""

    run_rows: float = 50_000.0
    update_labels: float = 5_000.0

    @classmethod
    def of(cls, rows: float, online: Online | None) -> Rates:
        """Training takes so many rows a second, those that an update replays among them."""
        if online is None:
            return cls(run_rows=rows)
        replayed = online.replay * online.batch_size / online.labels
        return cls(run_rows=rows, update_labels=rows / (1 + replayed))


class Result(NamedTuple):
    """What would have been served: scores [n, outputs], the release of each event [n]; what was learned on the way.
    Seconds of this process's CPU and of the wall."""

    scores: NDArray[np.float32]
    releases: NDArray[np.int64]
    published: int
    updates: int
    retrainings: list[Retraining]
    drifts: list[Drift]
    cpu_seconds: float
    seconds: float


class _Update(NamedTuple):
    """An update under way: when it will be done, and what it has come to."""

    at: float
    harm: str | None


class _Run(NamedTuple):
    """A run under way: when it will be done, what it was begun with and what it has come to."""

    at: float
    run: Run
    considered: int
    candidate: Candidate | None
    failure: str
    seconds: float


class Simulation:
    """Replays `history` under `policy`, as far as it is read. `keep` is given each release's version and weights."""

    def __init__(
        self,
        policy: Policy,
        history: Growing,
        rates: Rates | None = None,
        *,
        progress: Callable[[int], None] = lambda scored: None,
        keep: Callable[[int, dict[str, Tensor]], None] = lambda version, state: None,
    ) -> None:
        pipeline = policy.pipeline
        self._pipeline, self._spec = pipeline, ModelSpec.of(pipeline)
        self._history, self._rates = history, rates or Rates()
        self._progress, self._keep = progress, keep
        task = pipeline.task
        self._example_events: list[int] = []
        self._scores = np.empty((0, task.outputs), np.float32)  # with room for more than are scored
        self._releases = np.empty(0, np.int64)
        self._serving = base_rate_serving(task, pipeline.label.base_rate).score
        self._weights: dict[str, Tensor] | None = None  # of the champion; None: the base rate
        self._champion = self._published = self._updates = 0
        self._scored = 0
        self._updater = Updater(_TOPIC, pipeline.online, pipeline.training.seed) if pipeline.online else None
        self._learner: Learner | None = None
        self._update: _Update | None = None
        self._buffer = Buffer(pipeline.training.window, pipeline.training.data)
        names = (*self._spec.features.numbers, *self._spec.features.categories)
        self._watch = Watch(pipeline.retrain, metric=Gate().metric_for(task.kind), names=names)
        self._through = -np.inf  # the newest event time that the champion was trained on
        self._seen = self._looked = 0  # examples: that the champion has learned, that triggers know of
        self._run: _Run | None = None
        self._retrainings: list[Retraining] = []
        self._drifts: list[Drift] = []

    def run(self) -> Result:
        """Replay it all. Raises what a declared module raises."""
        torch.set_num_threads(1)  # as in a training process: sums in another order give other last bits
        began, cpu = time.perf_counter(), time.process_time()
        history = self._history
        for number, (position, event) in enumerate(history.arrivals()):
            now = history.at(position)
            self._finish_until(now)
            self._example_events.append(event)
            row = Row(0, number, float(history.times[event]), now, float(history.targets[event]), b"", None, 0, [])
            if self._pipeline.retrain:
                self._buffer.append([row])
            if self._updater:
                self._updater.take([row], {})
                if self._updater.due(now):
                    self._begin_update(self._updater, position, now)
            if self._pipeline.retrain and number + 1 - self._looked >= _LOOK:
                self._look(position, number + 1, now)
        count = history.count()
        if count:
            self._finish_until(history.at(count))
        self._score_to(count)
        return Result(
            self._scores[:count],
            self._releases[:count],
            self._published,
            self._updates,
            self._retrainings,
            self._drifts,
            time.process_time() - cpu,
            time.perf_counter() - began,
        )

    def _score_to(self, end: int) -> None:
        """Score the events before number `end` with what serves now."""
        start = self._scored
        if end <= start:
            return
        scores = self._serving(self._history.inputs.take(slice(start, end)))
        self._scores = extended(self._scores, start, scores)
        self._releases = extended(self._releases, start, np.full(end - start, self._champion))
        self._scored = end
        self._progress(end)

    def _finish_until(self, now: float) -> None:
        """Bring into force what is done by now, in its order."""
        while True:
            update_at = self._update.at if self._update else np.inf
            run_at = self._run.at if self._run else np.inf
            if min(update_at, run_at) > now:
                return
            if update_at <= run_at:
                self._finish_update()
            else:
                self._finish_run()

    def _publish(self, module: nn.Module) -> int:
        self._published += 1
        self._champion = self._published
        self._weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        self._serving = scorer(module, self._pipeline.task)
        self._keep(self._champion, self._weights)
        return self._champion

    # Online updates: see `tailrace.retrain.control.updater` for the same, live.

    def _begin_update(self, updater: Updater, position: int, now: float) -> None:
        done = now + updater.waiting / self._rates.update_labels
        if self._run is not None and self._run.at <= done:
            return  # it would be overtaken
        # With the weights as they are before they change in place.
        self._score_to(max(position, self._history.first_at(done)))
        update = updater.next(now, self._champion, fits=self._weights is not None)
        learner = self._learner = self._begun(update) or self._learner
        assert learner is not None
        inputs, targets = self._arrays(update.rows)
        try:
            before = learner.learn(inputs, targets)
            after = score(learner.module, inputs, self._pipeline.task)
            self._update = _Update(done, harm(self._pipeline.task, before.scores, after, targets))
        except Diverged as diverged:
            self._update = _Update(done, str(diverged))

    def _begun(self, update: Update) -> Learner | None:
        """Where a chain begins, the learner that learns along it."""
        beginning, pipeline = update.beginning, self._pipeline
        if beginning is None:
            return None
        assert pipeline.online is not None
        module = self._built(beginning.seed, self._weights if beginning.warm else None)
        learner = Learner(module, pipeline.task, pipeline.online, beginning.seed)
        if beginning.remembered:
            learner.remember(*self._arrays(beginning.remembered))
        return learner

    def _finish_update(self) -> None:
        update, updater = self._update, self._updater
        assert update is not None
        assert updater is not None
        assert self._learner is not None
        self._update = None
        self._updates += 1
        if update.harm is None:
            updater.published(self._publish(self._learner.module))
            return
        updater.failed(again=False)
        self._restore()

    def _restore(self) -> None:
        """Serve the champion's weights from a module that no learner changes."""
        if self._weights is None:
            self._serving = base_rate_serving(self._pipeline.task, self._pipeline.label.base_rate).score
            return
        self._serving = scorer(self._built(0, self._weights), self._pipeline.task)

    # Runs: see `tailrace.retrain.control.retrainer` for the same, live.

    def _look(self, position: int, known: int, now: float) -> None:
        """See what the examples before number `known` tell, and whether a run is due."""
        self._score_to(position)
        events = self._example_events[self._looked : known]
        self._looked = known
        scores, targets = self._scores[events], self._history.targets[events]
        self._watch.see(self._pipeline.task.kind, scores, targets, lambda: self._history.inputs.take(events), now)
        if self._run is not None or len(self._buffer) < self._pipeline.training.min_examples:
            return
        facts = self._watch.facts(now)
        due = first_due(self._pipeline.retrain, facts)
        if due is not None:
            self._begin_run(due, facts, known)

    def _begin_run(self, due: Due, facts: Facts, known: int) -> None:
        pipeline, began = self._pipeline, time.perf_counter()
        plan, drift = pipeline.training, facts.drift
        if drift is not None and (drift.loss or drift.features):
            self._drifts.append(Drift(at=facts.now, what=due.reason))
        seen = {} if pipeline.online else {0: self._seen}
        chosen = self._buffer.select(
            seen, plan, now=facts.now, through=self._through, changed=drift.changed if drift else None
        )
        selection = divided(chosen, seen, plan, pipeline.online)
        if not selection.train:  # nothing is mature yet
            self._watch.began(facts)
            return
        warm = self._weights is not None and plan.start == "warm" and pipeline.online is None
        if plan.data.hard < 1 or plan.data.late:
            selection = selection._replace(train=[self._served(row) for row in selection.train])
        selection = selection._replace(holdout=[self._served(row) for row in selection.holdout])
        champion = None if self._weights is None else serialise(self._weights)
        run = run_of(due, facts, Champion(self._champion), selection, self._seed(), pipeline, warm=warm)
        told = job(run, pipeline, champion, [], [])
        inputs, _ = self._arrays([*run.selection.train, *run.selection.holdout])
        candidate, failure, steps = None, "", 0
        try:
            candidate = candidate_of(self._spec, told, inputs, lambda step, steps, loss: None, ALONE)
            steps = candidate.steps
        except Diverged as diverged:
            failure = f"diverged: {diverged}"
        at = facts.now + steps * pipeline.training.batch_size / self._rates.run_rows
        at = max(at, self._update.at) if self._update else at
        self._watch.began(facts)
        self._run = _Run(at, run, known, candidate, failure, time.perf_counter() - began)

    def _finish_run(self) -> None:
        at, run, considered, candidate, failure, seconds = self._run  # type: ignore[misc]
        self._run = None
        self._watch.ended(at - run.facts.now)
        examples = len(run.selection.train)
        said = Retraining(
            at=run.facts.now, reason=run.due.reason, seconds=seconds, examples=examples, gate=failure, released=False
        )
        self._retrainings.append(said)
        if candidate is None:
            return
        verdict = judge(run, candidate, self._pipeline)
        said.gate, said.released = verdict.reason, verdict.passed
        if not verdict.passed:
            return
        self._score_to(self._history.first_at(at))
        self._publish(self._built(0, load_state(candidate.state)))
        self._seen = max(row.offset + 1 for row in run.selection.train)
        self._through = max(row.time for row in run.selection.train)
        metrics = {} if verdict.candidate is None else {verdict.metric: verdict.candidate}
        self._watch.published(at, metrics, verdict.examples)
        if self._updater:
            self._updater.restart({0: considered})

    def _served(self, row: Row) -> Row:
        """The row with the scores that were served."""
        return msgspec.structs.replace(row, scores=self._scores[self._example_events[row.offset]].tolist())

    def _seed(self) -> int:
        return self._pipeline.training.seed + self._champion

    def _arrays(self, rows: list[Row]) -> tuple[Inputs, NDArray[np.float32]]:
        events = self._events(rows)
        return self._history.inputs.take(events), self._history.targets[events]

    def _events(self, rows: list[Row]) -> list[int]:
        """Which events these examples are of."""
        return [self._example_events[row.offset] for row in rows]

    def _built(self, seed: int, weights: dict[str, Tensor] | None) -> nn.Module:
        """The declared module, with these weights or fresh ones."""
        module = self._spec.build(seed)
        if weights is not None:
            module.load_state_dict(weights)
        return module
