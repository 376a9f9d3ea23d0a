"""Simulation of one policy on recorded history: the scores that it would have served, and its releases and runs.

    labels --> updates, runs --> releases, each served once its training would have ended --> scores

`retrain.control.core` makes the decisions, and the live retrainer's code learns, evaluates the gate and scores.
Training takes no simulated time by itself. It is charged to the simulated clock at a stated rate, so a backtest gives
the same result on any machine. Importing this module imports torch.
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

from tailrace.backtest.history.partial import PartialHistory, extended
from tailrace.backtest.policy import Policy
from tailrace.backtest.result import DriftDetection, Retraining
from tailrace.declaration.gate import Gate
from tailrace.declaration.online import Online
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import load_state, serialise
from tailrace.inference.serving.loader import base_rate_serving, scorer
from tailrace.retrain.control.core import RetrainingCore
from tailrace.retrain.control.decisions import RunDue, UpdateResult
from tailrace.retrain.control.run import Run, job_of
from tailrace.retrain.control.trigger_state import TriggerState
from tailrace.retrain.online.chain import ChainStart
from tailrace.retrain.online.learner import Learner
from tailrace.retrain.selection.buffer import Row
from tailrace.retrain.training.distributed import ALONE
from tailrace.retrain.training.loop import Diverged, score
from tailrace.retrain.worker.candidate import candidate_of
from tailrace.retrain.worker.protocol import Candidate

_OBSERVE = 50  # labels between two evaluations of the triggers


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Rates at which training is charged to the simulated clock.

    `run_rows`: rows per second of a run's training steps. `update_labels`: labels per second of online updates.
    """

    run_rows: float = 50_000.0
    update_labels: float = 5_000.0

    @classmethod
    def of(cls, rows: float, online: Online | None) -> Rates:
        """Derive both rates from `rows` per second, which include the rows that an update replays."""
        if online is None:
            return cls(run_rows=rows)
        replayed = online.replay * online.batch_size / online.labels
        return cls(run_rows=rows, update_labels=rows / (1 + replayed))


class Result(NamedTuple):
    """Result of a simulation.

    `scores`: as served, shape [n, outputs]. `releases`: version that served each event, shape [n]; 0 is the base-rate
    model. `published` and `updates`: numbers of releases and of online updates. `cpu_seconds` and `seconds`: CPU time
    of this process and wall-clock time.
    """

    scores: NDArray[np.float32]
    releases: NDArray[np.int64]
    published: int
    updates: int
    retrainings: list[Retraining]
    drifts: list[DriftDetection]
    cpu_seconds: float
    seconds: float


class _Update(NamedTuple):
    """An update in progress: its end on the simulated clock and its result. `diverged`: the reason, or None."""

    end: float
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    targets: NDArray[np.float32]
    diverged: str | None = None


class _Run(NamedTuple):
    """A run in progress: its end on the simulated clock and its result. `failure`: reason for a missing candidate."""

    end: float
    run: Run
    candidate: Candidate | None
    failure: str
    seconds: float


class Simulation:
    """Replay of `history` under `policy`: `run` returns the result. Parts of the history are read as they are needed.

    `rates`: speed of training on the simulated clock (None: the default rates). `progress` is called with the
    number of events scored, `keep` with the version and weights of each release.
    """

    def __init__(
        self,
        policy: Policy,
        history: PartialHistory,
        rates: Rates | None = None,
        *,
        progress: Callable[[int], None] = lambda scored: None,
        keep: Callable[[int, dict[str, Tensor]], None] = lambda version, state: None,
    ) -> None:
        pipeline = policy.pipeline
        self._pipeline, self._spec = pipeline, ModelSpec.of(pipeline)
        self._history, self._rates = history, rates or Rates()
        self._progress, self._keep = progress, keep
        task, features = pipeline.task, self._spec.features
        self._triggers = TriggerState(
            pipeline.retrain,
            metric=Gate().metric_for(task.kind),
            names=(*features.numbers, *features.categories),
        )
        self._core = RetrainingCore(pipeline, self._triggers, as_served=self._as_served)
        self._example_events: list[int] = []
        self._scores = np.empty((0, task.outputs), np.float32)  # with spare capacity behind the scored rows
        self._releases = np.empty(0, np.int64)
        self._serving = base_rate_serving(task, pipeline.label.base_rate).score
        self._weights: dict[str, Tensor] | None = None  # of the champion; None: the base-rate model
        self._published = self._updates = 0
        self._scored = 0
        self._observed = 0  # number of examples that the trigger state has seen
        self._learner: Learner | None = None
        self._update: _Update | None = None
        self._run: _Run | None = None
        self._retrainings: list[Retraining] = []
        self._drifts: list[DriftDetection] = []

    def run(self) -> Result:
        """Replay the whole history. Raises any error of a declared model module."""
        torch.set_num_threads(1)  # as in a training process: another order of summation changes the last bits
        started, cpu = time.perf_counter(), time.process_time()
        history, core = self._history, self._core
        for number, (position, event) in enumerate(history.arrivals()):
            now = history.time_at(position)
            self._finish_until(now)
            self._example_events.append(event)
            row = Row(0, number, float(history.times[event]), now, history.target(event), b"", None, 0, [])
            core.examples_read([row], {0: number + 1})
            if core.update_due(now):
                self._start_update(position, now)
            if self._pipeline.retrain and number + 1 - self._observed >= _OBSERVE:
                self._observe(position, number + 1, now)
        count = history.count()
        if count:
            self._finish_until(history.time_at(count))
        self._score_to(count)
        return Result(
            self._scores[:count],
            self._releases[:count],
            self._published,
            self._updates,
            self._retrainings,
            self._drifts,
            time.process_time() - cpu,
            time.perf_counter() - started,
        )

    def _score_to(self, end: int) -> None:
        """Score the events before number `end` with the serving release."""
        start = self._scored
        if end <= start:
            return
        scores = self._serving(self._history.inputs.take(slice(start, end)))
        self._scores = extended(self._scores, start, scores)
        self._releases = extended(self._releases, start, np.full(end - start, self._core.champion.version))
        self._scored = end
        self._progress(end)

    def _finish_until(self, now: float) -> None:
        """Finish the update and the run in progress if they end by `now`; the one that ends earlier first."""
        while True:
            update_end = self._update.end if self._update else np.inf
            run_end = self._run.end if self._run else np.inf
            if min(update_end, run_end) > now:
                return
            if update_end <= run_end:
                self._finish_update()
            else:
                self._finish_run()

    def _publish(self, module: nn.Module) -> int:
        """Serve the module as the next version and return the version."""
        self._published += 1
        self._weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        self._serving = scorer(module, self._pipeline.task)
        self._keep(self._published, self._weights)
        return self._published

    # Online updates: `retrain.control.online_updates` is the live counterpart.

    def _start_update(self, position: int, now: float) -> None:
        end = now + self._core.next_chunk / self._rates.update_labels
        if self._run is not None and self._run.end <= end:
            return  # the run's release would replace the update at once
        # The learner changes the weights in place, so events before the end of the update are scored first.
        self._score_to(max(position, self._history.first_event_at(end)))
        update = self._core.start_update(now)
        if update.start is not None:
            self._learner = self._new_learner(update.start)
        learner = self._learner
        assert learner is not None
        inputs, targets = self._arrays(update.rows)
        try:
            before = learner.learn(inputs, targets)
            after = score(learner.module, inputs, self._pipeline.task)
            self._update = _Update(end, before.scores, after, targets)
        except Diverged as diverged:
            none = np.empty((0, self._pipeline.task.outputs), np.float32)
            self._update = _Update(end, none, none, targets, str(diverged))

    def _new_learner(self, start: ChainStart) -> Learner:
        online = self._pipeline.online
        assert online is not None
        module = self._built(start.seed, self._weights if start.warm else None)
        learner = Learner(module, self._pipeline.task, online, start.seed)
        if start.replayed:
            learner.remember(*self._arrays(start.replayed))
        return learner

    def _finish_update(self) -> None:
        update, core = self._update, self._core
        assert update is not None
        assert self._learner is not None
        self._update = None
        self._updates += 1
        if update.diverged is None:
            result = core.update_learned(update.before, update.after, update.targets)
        else:
            result = core.update_refused(update.diverged)
        if isinstance(result, UpdateResult):
            core.update_published(self._publish(self._learner.module), result.trained_through)
        else:
            self._restore()

    def _restore(self) -> None:
        """Serve a copy of the champion's weights, which no learner changes."""
        if self._weights is None:
            self._serving = base_rate_serving(self._pipeline.task, self._pipeline.label.base_rate).score
        else:
            self._serving = scorer(self._built(0, self._weights), self._pipeline.task)

    # Runs: `retrain.control.retrainer` is the live counterpart.

    def _observe(self, position: int, known: int, now: float) -> None:
        """Feed the examples before number `known` to the trigger state, and start a run if a trigger requests one."""
        self._score_to(position)
        events = self._example_events[self._observed : known]
        self._observed = known
        scores, targets = self._scores[events], self._history.targets[events]
        self._triggers.see(self._pipeline.task.kind, scores, targets, lambda: self._history.inputs.take(events), now)
        run_due = self._core.run_due(now)
        if run_due is not None:
            self._start_run(run_due)

    def _start_run(self, run_due: RunDue) -> None:
        started, facts = time.perf_counter(), run_due.facts
        if facts.drift is not None and (facts.drift.loss or facts.drift.features):
            self._drifts.append(DriftDetection(at=facts.now, description=run_due.due.reason))
        run = self._core.start_run(run_due)
        if run is None:  # no example is mature yet
            return
        champion = None if self._weights is None else serialise(self._weights)
        job = job_of(run, self._pipeline, champion, with_events=False)
        inputs, _ = self._arrays([*run.selection.train, *run.selection.holdout])
        candidate, failure, steps = None, "", 0
        try:
            candidate = candidate_of(self._spec, job, inputs, lambda step, steps, loss: None, ALONE)
            steps = candidate.steps
        except Diverged as diverged:
            failure = f"diverged: {diverged}"
        end = facts.now + steps * self._pipeline.training.batch_size / self._rates.run_rows
        end = max(end, self._update.end) if self._update else end
        self._run = _Run(end, run, candidate, failure, time.perf_counter() - started)

    def _finish_run(self) -> None:
        assert self._run is not None
        end, run, candidate, failure, seconds = self._run
        self._run = None
        retraining = Retraining(
            at=run.facts.now,
            reason=run.due.reason,
            trigger=run.due.kind,
            seconds=seconds,
            examples=len(run.selection.train),
            gate=failure,
            released=False,
        )
        self._retrainings.append(retraining)
        if candidate is not None:
            gate = self._core.run_finished(candidate).gate
            retraining.gate, retraining.released = gate.reason, gate.passed
            if gate.passed:
                self._score_to(self._history.first_event_at(end))
                version = self._publish(self._built(0, load_state(candidate.state)))
                self._core.run_published(version, end, gate)
        self._core.run_ended(end - run.facts.now)

    def _as_served(self, row: Row) -> Row:
        """Return the row with the scores that were served for its event."""
        return msgspec.structs.replace(row, scores=self._scores[self._example_events[row.offset]].tolist())

    def _arrays(self, rows: list[Row]) -> tuple[Inputs, NDArray[np.float32]]:
        events = [self._example_events[row.offset] for row in rows]
        return self._history.inputs.take(events), self._history.targets[events]

    def _built(self, seed: int, weights: dict[str, Tensor] | None) -> nn.Module:
        """Build the declared module with these weights, or with fresh ones if `weights` is None."""
        module = self._spec.build(seed)
        if weights is not None:
            module.load_state_dict(weights)
        return module
