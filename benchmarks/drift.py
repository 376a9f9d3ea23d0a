"""Drift triggers against a schedule alone: labels until a retrained model has recovered, and false alarms.

    python -m benchmarks --only drift          by itself: python -m benchmarks.drift [--seeds N] [--labels N]

Streams are River's generators. A concept gives way to another within some 100 labels; a small model is trained anew, on
the newest 5,000 examples, every 5,000 labels, and in the other arm also when `Drift()` says so, then on what came after
the change alone. Recovered: on 4,000 other examples of the new concept the served model is within one point of what the
model before the change was worth on the old one. Where the schedule stands when the change comes differs by seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from river.datasets import synth

from benchmarks.harness import Row, at_most
from tailrace.declaration.facts import Facts
from tailrace.declaration.task import Kind, Task
from tailrace.declaration.training import Training
from tailrace.declaration.triggers import Drift, Labels, Trigger, first_due
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.losses import losses
from tailrace.inference.models.tabular.network import TabularNetwork
from tailrace.retrain.control.trigger_state import TriggerState
from tailrace.retrain.training.loop import score, train

WINDOW, EVERY, CHUNK = 5_000, 5_000, 50
BEFORE, AFTER = 10_000, 12_000  # labels before the change, at least, and after it
WIDTH = 100  # labels that a change takes; River cannot count with much less
LEAST = 200  # labels after a change that a run learns from alone
HELD = 4_000
POINT = 0.01
TASK = Task(Kind.BINARY)
PLAN = Training(epochs=15, learning_rate=1e-2, batch_size=256, weight_decay=0.01)

Make = Callable[[int, int], Any]
"""(concept 0 or 1, seed) -> a River stream."""

STREAMS: dict[str, Make] = {
    "SEA": lambda concept, seed: synth.SEA(variant=(2, 3)[concept], noise=0.05, seed=seed),
    "Agrawal": lambda concept, seed: synth.Agrawal(classification_function=(1, 0)[concept], seed=seed),
    "Hyperplane": lambda concept, seed: synth.Hyperplane(
        seed=7 * seed + concept, n_features=6, n_drift_features=0, noise_percentage=0.05
    ),
    "RandomRBF": lambda concept, seed: synth.RandomRBF(
        seed_model=7 * seed + concept, seed_sample=seed, n_classes=2, n_features=6, n_centroids=20
    ),
}


class Stream(NamedTuple):
    """Examples in label order; `names` of the numbers and categories."""

    inputs: Inputs
    targets: NDArray[np.float32]
    names: tuple[str, ...]


def arrays(stream: Any, count: int) -> Stream:
    """The next `count` examples: small whole numbers are categories."""
    rows: list[tuple[dict[Any, float], Any]] = list(islice(iter(stream.take(count)), count))
    names = list(rows[0][0])
    whole = [name for name in names if all(isinstance(x[name], int | np.integer) and x[name] < 100 for x, _ in rows)]
    wide = [name for name in names if name not in whole]
    numbers = np.array([[x[name] for name in wide] for x, _ in rows], np.float32).reshape(len(rows), len(wide))
    categories = np.array([[x[name] + 1 for name in whole] for x, _ in rows], np.int64).reshape(len(rows), len(whole))
    return Stream(
        Inputs(numbers, categories), np.array([y for _, y in rows], np.float32), (*map(str, (*wide, *whole)),)
    )


def changing(kind: str, seed: int, at: int, count: int) -> Stream:
    """`count` examples; within some WIDTH around `at` the concept changes."""
    make = STREAMS[kind]
    return arrays(synth.ConceptDriftStream(make(0, seed), make(1, seed), position=at, width=WIDTH, seed=seed), count)


def model(stream: Stream) -> TabularNetwork:
    """A fresh small network for the stream's columns."""
    width, categories = stream.inputs.numbers.shape[1], stream.inputs.categories.shape[1]
    return TabularNetwork(width, [False] * width, [128] * categories, TASK)


class Served(NamedTuple):
    """What happened at a look, after `labels`: the run's reason, if one was due, and the model served from then on."""

    labels: int
    facts: Facts
    reason: str | None
    module: TabularNetwork


def serve(stream: Stream, triggers: Sequence[Trigger], seed: int) -> Iterator[Served]:
    """Predict, learn the labels, retrain when a trigger says so; one label a second."""
    watch = TriggerState(triggers, since=0.0, created=0.0, names=stream.names)
    module = _trained(stream, 0, WINDOW, seed)
    for start in range(WINDOW, len(stream.targets), CHUNK):
        now = slice(start, start + CHUNK)
        inputs, targets = stream.inputs.take(now), stream.targets[now]
        end = start + len(targets)
        watch.take(losses("log_loss", TASK.kind, score(module, inputs, TASK), targets), inputs, float(end))
        facts = watch.facts(float(end))
        due = first_due(triggers, facts)
        if due is not None:
            watch.run_started(facts)
            module = _trained(stream, max(end - WINDOW, _since(facts, end)), end, seed)
            watch.published(float(end), {})
        yield Served(end, facts, due and due.reason, module)


def _since(facts: Facts, end: int) -> int:
    changed = facts.drift.changed if facts.drift else None
    return end - changed if changed is not None and changed >= LEAST else 0


def _trained(stream: Stream, start: int, end: int, seed: int) -> TabularNetwork:
    torch.manual_seed(seed)
    module, rows = model(stream), slice(start, end)
    train(
        module, stream.inputs.take(rows), stream.targets[rows], PLAN, TASK,
        fresh=None, seed=seed, report=lambda step, steps, loss: None,
    )  # fmt: skip
    return module


def accuracy(module: TabularNetwork, test: Stream) -> float:
    """Of the model, on all of these."""
    return 1 - float(losses("accuracy", TASK.kind, score(module, test.inputs, TASK), test.targets).mean())


class Recovery(NamedTuple):
    """`labels` from the change until the model had recovered (None: it did not), after how many `runs`; accuracy
    before, just after the change, and at the end; `seen`: labels until drift was the reason."""

    labels: int | None
    runs: int
    seen: int | None
    before: float
    broken: float
    end: float


def recovery(kind: str, seed: int, triggers: Sequence[Trigger], after: int = AFTER) -> Recovery:
    """How one change is survived."""
    at = BEFORE + (seed * 1_700) % EVERY
    stream = changing(kind, seed, at, at + after)

    olds, news = _held(kind, seed, 0), _held(kind, seed, 1)
    before = broken = value = 0.0
    labels = seen = None
    runs, module = 0, None
    for served in serve(stream, triggers, seed):
        if served.labels <= at:
            module = served.module
            continue
        if not before:
            assert module is not None
            before, broken = accuracy(module, olds), accuracy(module, news)
            value = broken
        if served.reason is None:
            continue
        value = accuracy(served.module, news)
        if labels is None:
            runs += 1
            labels = served.labels - at if value >= before - POINT else None
        if seen is None and "loss rose" in served.reason:
            seen = served.labels - at
    return Recovery(labels, runs, seen, before, broken, value)


def _held(kind: str, seed: int, concept: int) -> Stream:
    """Examples of one concept that are not in the stream: generated behind a prefix of its length."""
    stream = arrays(STREAMS[kind](concept, seed), BEFORE + AFTER + EVERY + HELD)
    rows = slice(-HELD, None)
    return Stream(stream.inputs.take(rows), stream.targets[rows], stream.names)


class Rare:
    """Six normal numbers; about one example in a hundred is positive."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def arrays(self, count: int) -> Stream:
        """The next examples."""
        numbers = self._random.normal(size=(count, 6)).astype(np.float32)
        chance = 1 / (1 + np.exp(6.5 - 2 * numbers[:, 0] - numbers[:, 1]))
        targets = (self._random.random(count) < chance).astype(np.float32)
        names = tuple(f"x{n}" for n in range(6))
        return Stream(Inputs(numbers, np.zeros((count, 0), np.int64)), targets, names)


def alarms(kind: str, seed: int, labels: int, *, learning: bool) -> tuple[int, int]:
    """(runs, labels) that `Drift()` alone asks for on a stream that never changes. `learning`: the served model is
    still getting better, through five trainings that the watch is not told of."""
    stream = Rare(seed).arrays(WINDOW + labels) if kind == "rare" else arrays(STREAMS[kind](0, seed), WINDOW + labels)
    trained = (300, 600, 1_200, 2_500, WINDOW) if learning else (WINDOW,)
    models = [_trained(stream, 0, count, seed) for count in trained]
    triggers, runs = (Drift(),), 0
    watch = TriggerState(triggers, since=0.0, created=0.0, names=stream.names)
    for n, start in enumerate(range(WINDOW, WINDOW + labels, 1_000)):
        rows = slice(start, start + 1_000)
        inputs, targets = stream.inputs.take(rows), stream.targets[rows]
        given = score(models[min(n // 5, len(models) - 1)], inputs, TASK)
        watch.take(losses("log_loss", TASK.kind, given, targets), inputs, float(start))
        facts = watch.facts(float(start))
        if first_due(triggers, facts) is not None:
            runs += 1
            watch.run_started(facts)
    return runs, labels


SCHEDULED: tuple[Trigger, ...] = (Labels(EVERY),)
WATCHED: tuple[Trigger, ...] = (Drift(), Labels(EVERY))


def measure(seeds: int, labels: int) -> list[Row]:
    """All streams: recoveries of both arms, then false alarms."""
    torch.set_num_threads(1)  # a small network's steps are shorter than what threads need to meet
    rows: list[Row] = []
    for kind in STREAMS:
        pairs = [(recovery(kind, seed, SCHEDULED), recovery(kind, seed, WATCHED)) for seed in range(seeds)]
        rows += _compared(kind, pairs)
    total = runs = 0
    for kind in (*STREAMS, "rare"):
        for learning in (False, True):
            found = [alarms(kind, 100 + seed, labels, learning=learning) for seed in range(seeds)]
            false, seen = sum(run for run, _ in found), sum(count for _, count in found)
            total, runs = total + seen, runs + false
            what = f"{kind}, model {'still learning' if learning else 'trained'}: false runs"
            rows.append(at_most("drift", what, false * 100_000 / seen, 1, "/100,000 labels"))
    rows.append(
        Row("drift", f"all of them: {runs} runs in {total:,} labels", runs * 100_000 / total, "/100,000 labels")
    )
    return rows


def _compared(kind: str, pairs: Sequence[tuple[Recovery, Recovery]]) -> list[Row]:
    never = AFTER + 1.0
    alone, watched = ([never if r.labels is None else r.labels for r in arm] for arm in zip(*pairs, strict=True))
    with_drift = [watching for _, watching in pairs]
    note = (
        f"accuracy {np.mean([r.before for r in with_drift]):.3f} before, {np.mean([r.broken for r in with_drift]):.3f} "
        f"after; alarm at {_words([r.seen for r in with_drift])}; {_words([r.runs for r in with_drift])} runs"
    )
    sooner = sum(one < other for one, other in zip(watched, alone, strict=True))
    return [
        Row("drift", f"{kind}: labels to recover, schedule", float(np.median(alone)), "labels", note=_words(alone)),
        at_most("drift", f"{kind}: with Drift()", float(np.median(watched)), float(np.median(alone)), "labels"),
        Row("drift", f"{kind}: sooner", float(sooner), f"of {len(pairs)}", note=f"{_words(watched)}; {note}"),
    ]


def _words(values: Sequence[float | None]) -> str:
    return ", ".join("never" if value is None or value > AFTER else f"{value:,.0f}" for value in values)


def main() -> int:
    """Measure; 1 when a bar was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=100_000, help="of each stationary stream")
    options = parser.parse_args()
    rows = measure(options.seeds, options.labels)
    for row in rows:
        print(f"{row.what:50} {row.value:10,.2f} {row.unit:16} {row.bar:9} {row.met!s:6} {row.note}")
    return 1 if any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
