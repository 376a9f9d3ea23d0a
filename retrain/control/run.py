"""One run, seen from outside (pure): what it is given, how its candidate is judged, what its release says of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import numpy as np

from tailrace.declaration.facts import Due, Facts
from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.losses import Scores
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.models.targets import target_array
from tailrace.inference.releases.manifest import Manifest, Range, Updates
from tailrace.retrain.control.promotion_gate import GateResult, compare
from tailrace.retrain.selection.buffer import Row, Selection, ranges_of
from tailrace.retrain.selection.weights import weigh
from tailrace.retrain.worker.protocol import Candidate, Job, Learned


class Champion(NamedTuple):
    """The release that serves, as runs and updates need it. Version 0: the base-rate model.

    `fits`: the declared module takes its weights. `seen`: partition -> offset up to which it was trained.
    `trained_through`: newest event time that it has learned, unix seconds.
    """

    version: int
    fits: bool = False
    seen: Mapping[int, int] = MappingProxyType({})
    trained_through: float = -math.inf

    @classmethod
    def of(cls, manifest: Manifest, declared: Pipeline) -> Champion:
        """The champion that a verified manifest describes."""
        seen = {part.partition: part.end for part in manifest.ranges if part.topic == declared.topics.examples}
        fits = manifest.features == ModelSpec.of(declared).features.digest and manifest.task == declared.task
        return cls(manifest.version, fits, seen, manifest.trained_through)


class Run(NamedTuple):
    """What a run was started with. `due`: the trigger's answer; `selection`: see `selection.split`."""

    due: Due
    facts: Facts
    champion: Champion
    selection: Selection
    seed: int
    selected: int = 0
    """Rows to train on before the data policy drew among them."""
    weights: list[float] | None = None
    """How much each row counts; None: all the same."""
    prior: tuple[float, ...] | None = None
    """Added to the logits in training: see `tailrace.retrain.selection.weights`."""

    def learned(self, declared: Pipeline) -> list[Row]:
        """Rows that the run's release has learned. With online updates it has gone on over the holdout."""
        train, holdout = self.selection.train, self.selection.holdout
        return [*train, *holdout] if declared.online else train

    def trained_through(self, declared: Pipeline) -> float:
        """Newest event time that the run's release has learned, unix seconds."""
        return max(row.time for row in self.learned(declared))


def prepare_run(
    due: Due, facts: Facts, champion: Champion, selection: Selection, seed: int, declared: Pipeline, *, warm: bool
) -> Run:
    """Weigh the selected rows of a run. `warm`: it starts from the champion's weights."""
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
    """The gate's verdict on the holdout.

    A champion that is no module of today's (the base rate, other features, another network), or has learned the holdout
    online, is measured by what was served, on those examples whose scores are of today's width: the declared classes
    may have changed. With online updates only events count that came after all training labels were known: see
    `tailrace.retrain.selection.split.fair`.
    """
    rows, outputs = run.selection.holdout, declared.task.outputs
    scores = _scores(candidate.scores, len(rows), outputs)
    targets = target_array([row.target for row in rows], declared.task)
    since = max((row.label_time for row in run.selection.train), default=-math.inf) if declared.online else -math.inf
    alike = [n for n, row in enumerate(rows) if len(row.scores) == outputs and row.time >= since]
    champion: Scores | None
    if candidate.champion_scores is not None:
        champion = _scores(candidate.champion_scores, len(rows), outputs)
    elif run.champion.version == 0 and len(alike) < declared.gate.min_examples:
        champion = None
    else:
        champion = np.array([rows[n].scores for n in alike], np.float32).reshape(len(alike), outputs)
        scores, targets = scores[alike], targets[alike]
    return compare(declared.gate, declared.task.kind, scores, champion, targets)


def manifest_of(
    run: Run, candidate: Candidate, verdict: GateResult, declared: Pipeline, code_digest: str, now: float
) -> Manifest:
    """The release's account of itself; the publisher adds its version, size, digest and signature."""
    topic, selection = declared.topics.examples, run.selection
    learned = run.learned(declared)
    ranges = ranges_of(learned) if declared.online else selection.ranges
    seen = {} if declared.online else dict(run.champion.seen)
    return Manifest(
        version=0,
        parent=run.champion.version,
        base=run.champion.version if candidate.warm else 0,
        created=now,
        trained_through=run.trained_through(declared),
        examples=len(learned),
        code_digest=code_digest,
        seed=run.seed,
        reason=run.due.reason,
        features=ModelSpec.of(declared).features.digest,
        task=declared.task,
        golden=candidate.golden,
        ranges=[Range(topic, partition, *part) for partition, part in sorted(ranges.items())],
        facts={
            **msgspec.to_builtins(run.facts._asdict()),
            "train": run.selected,
            "fresh": selection.fresh,
            "seen": seen,
            "plan": msgspec.to_builtins(declared.training),
            "online": msgspec.to_builtins(declared.online),
        },
        metrics={
            "candidate": {verdict.metric: verdict.candidate},
            "champion": {verdict.metric: verdict.champion},
            "difference": {"mean": verdict.difference, "low": verdict.low, "high": verdict.high},
        },
    )


def update_manifest(
    declared: Pipeline,
    updates: Updates,
    learned: Learned,
    *,
    parent: int,
    labels: int,
    trained_through: float,
    code_digest: str,
    now: float,
) -> Manifest:
    """The account of a release that `labels` more labels have made of its parent."""
    topic, starts = declared.topics.examples, {part.partition: part.start for part in updates.remembered}
    ends = dict(updates.starts)
    for chunk in updates.learned:
        for partition, count in chunk.items():
            ends[partition] += count
    ranges = [
        Range(topic, partition, starts.get(partition, updates.starts[partition]), end)
        for partition, end in sorted(ends.items())
    ]
    ranges += [part for part in updates.remembered if part.partition not in ends]
    return Manifest(
        version=0,
        parent=parent,
        base=updates.base,
        created=now,
        trained_through=trained_through,
        examples=sum(part.end - part.start for part in ranges),
        code_digest=code_digest,
        seed=updates.seed,
        reason=f"online update: {labels:,} new labels",
        features=ModelSpec.of(declared).features.digest,
        task=declared.task,
        golden=learned.golden,
        ranges=ranges,
        updates=updates,
        facts={"labels": labels, "updates": len(updates.learned)},
        metrics={"candidate": {"training_loss": learned.loss}},
    )


def _scores(raw: bytes, rows: int, outputs: int) -> Scores:
    scores = np.frombuffer(raw, np.float32)
    if scores.size != rows * outputs:
        raise ValueError(f"the training process gave {scores.size} scores: {rows} rows of {outputs} are due")
    return scores.reshape(rows, outputs)
