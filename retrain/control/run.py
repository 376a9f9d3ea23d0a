"""Runs (pure): their rows and weights, the job for the training process, and the judgement of the candidate."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tailrace.declaration.facts import Due, Facts
from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.losses import Scores
from tailrace.inference.models.targets import target_array
from tailrace.retrain.control.champion import Champion
from tailrace.retrain.control.promotion_gate import GateResult, compare
from tailrace.retrain.selection.buffer import Row, Selection
from tailrace.retrain.selection.weights import weigh
from tailrace.retrain.worker.protocol import Candidate, Job


class Run(NamedTuple):
    """A run as it was started. `due`: the trigger that started it; `selection`: see `retrain.selection.split`."""

    due: Due
    facts: Facts
    champion: Champion
    selection: Selection
    seed: int
    selected: int = 0
    """Rows to train on before the data policy drew among them."""
    weights: list[float] | None = None
    """Weight of each row; None: all equal."""
    prior: tuple[float, ...] | None = None
    """Added to the logits in training: see `tailrace.retrain.selection.weights`."""

    def learned(self, declared: Pipeline) -> list[Row]:
        """Rows that the run's release has learned: those to train on; with online updates the holdout too."""
        train, holdout = self.selection.train, self.selection.holdout
        return [*train, *holdout] if declared.online else train

    def trained_through(self, declared: Pipeline) -> float:
        """Newest event time that the run's release has learned, unix seconds."""
        return max(row.time for row in self.learned(declared))


def prepare_run(
    due: Due, facts: Facts, champion: Champion, selection: Selection, seed: int, declared: Pipeline, *, warm: bool
) -> Run:
    """Make a run of the selected rows, drawn and weighted as declared. `warm`: start from the champion's weights."""
    wait = None if declared.policy.implicit is None else declared.policy.wait  # after it, silence means a label
    weighed = weigh(selection, declared.task, declared.training, warm=warm, wait=wait)
    weights = None if weighed.weights is None else weighed.weights.tolist()
    return Run(due, facts, champion, weighed.selection, seed, len(selection.train), weights, weighed.prior)


def job_of(run: Run, declared: Pipeline, champion: bytes | None, *, with_events: bool = True) -> Job:
    """The job of the training process. `champion`: weights of the champion, where they fit.

    `with_events` False leaves out the rows' events, for a caller that has them encoded.
    """
    train, fresh, holdout, _ = run.selection
    rows = [*train, *holdout]
    events = rows if with_events else []
    return Job(
        features=[row.features for row in events],
        derived=[row.derived for row in events],
        targets=[row.target for row in rows],
        train=len(train),
        fresh=fresh,
        champion=None if declared.online else champion,
        plan=declared.training,
        seed=run.seed,
        online=declared.online,
        times=[row.time for row in rows],
        matured=[row.label_time for row in rows],
        weights=run.weights,
        prior=run.prior,
    )


def judge(run: Run, candidate: Candidate, declared: Pipeline) -> GateResult:
    """Compare the candidate with the champion on the holdout.

    Served scores stand for a champion that the declared module cannot load (the base-rate model, other features,
    another network) or that has learned the holdout online. Only examples count whose scores have today's width, as the
    declared classes may have changed. With online updates only events count that occurred after all training labels
    were known: see `retrain.selection.split`.
    """
    rows, outputs = run.selection.holdout, declared.task.outputs
    scores = _scores(candidate.scores, len(rows), outputs)
    targets = target_array([row.target for row in rows], declared.task)
    since = max((row.label_time for row in run.selection.train), default=-math.inf) if declared.online else -math.inf
    comparable = [n for n, row in enumerate(rows) if len(row.scores) == outputs and row.time >= since]
    champion: Scores | None
    if candidate.champion_scores is not None:
        champion = _scores(candidate.champion_scores, len(rows), outputs)
    elif run.champion.version == 0 and len(comparable) < declared.gate.min_examples:
        champion = None
    else:
        champion = np.array([rows[n].scores for n in comparable], np.float32).reshape(len(comparable), outputs)
        scores, targets = scores[comparable], targets[comparable]
    return compare(declared.gate, declared.task.kind, scores, champion, targets)


def _scores(raw: bytes, rows: int, outputs: int) -> Scores:
    scores = np.frombuffer(raw, np.float32)
    if scores.size != rows * outputs:
        raise ValueError(f"the training process gave {scores.size} scores for {rows} rows of {outputs}")
    return scores.reshape(rows, outputs)
