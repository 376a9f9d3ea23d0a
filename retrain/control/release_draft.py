"""Draft manifests of runs and online updates (pure)."""

from __future__ import annotations

import msgspec

from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import Manifest, Range, Updates
from tailrace.retrain.control.promotion_gate import GateResult
from tailrace.retrain.control.run import Run
from tailrace.retrain.selection.buffer import ranges_of
from tailrace.retrain.worker.protocol import Candidate, Learned


def run_manifest(
    run: Run, candidate: Candidate, gate: GateResult, declared: Pipeline, code_digest: str, now: float
) -> Manifest:
    """Return the manifest of a run's release. The publisher adds version, size, digest and signature."""
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
            "candidate": {gate.metric: gate.candidate},
            "champion": {gate.metric: gate.champion},
            "difference": {"mean": gate.difference, "low": gate.low, "high": gate.high},
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
    """Return the manifest of the release of an update that learned `labels` labels; completed by the publisher."""
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
