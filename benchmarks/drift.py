"""Drift triggers compared with a schedule alone: labels until recovery after a change, and false alarms.

    python -m benchmarks --only drift          alone: python -m benchmarks.drift [--seeds N] [--labels N]

Streams come from River's generators. One concept replaces another within about 100 labels. Both arms retrain a small
model on the newest 5,000 examples every 5,000 labels. The second arm also retrains when `Drift()` fires, on the
examples after the change alone. A model has recovered when its accuracy on 4,000 held-out examples of the new concept
is within 0.01 of the accuracy that the model before the change had on the old concept. The time from the last scheduled
run to the change differs by seed.
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
from tailrace.declaration.facts import Due, Facts
from tailrace.declaration.task import Kind, Task
from tailrace.declaration.training import Training
from tailrace.declaration.triggers import Drift, Labels, Trigger, first_due
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.losses import losses
from tailrace.inference.models.tabular.network import TabularNetwork
from tailrace.retrain.control.trigger_state import TriggerState
from tailrace.retrain.training.loop import score, train

WINDOW, EVERY, CHUNK = 5_000, 5_000, 50
BEFORE, AFTER = 10_000, 12_000  # labels before the change (at least) and after it
WIDTH = 100  # labels over which a change takes place; River overflows with far fewer
LEAST = 200  # with at least this many labels after a change, a run trains on those alone
HELD_OUT = 4_000  # examples on which accuracy is measured
POINT = 0.01  # accuracy below the old one at which a model counts as recovered
TASK = Task(Kind.BINARY)
PLAN = Training(epochs=15, learning_rate=1e-2, batch_size=256, weight_decay=0.01)

Make = Callable[[int, int], Any]
"""Factory of a River stream: (concept 0 or 1, seed) -> stream."""

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
    """Examples in label order. `names` are those of the number columns, then of the category columns."""

    inputs: Inputs
    targets: NDArray[np.float32]
    names: tuple[str, ...]


def arrays(stream: Any, count: int) -> Stream:
    """Read the next `count` examples. Columns of integers below 100 become categories."""
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
    """Make `count` examples whose concept changes around example `at`, over about WIDTH examples."""
    make = STREAMS[kind]
    return arrays(synth.ConceptDriftStream(make(0, seed), make(1, seed), position=at, width=WIDTH, seed=seed), count)


def model(stream: Stream) -> TabularNetwork:
    """Build an untrained small network for the stream's columns."""
    width, categories = stream.inputs.numbers.shape[1], stream.inputs.categories.shape[1]
    return TabularNetwork(width, [False] * width, [128] * categories, TASK)


class Served(NamedTuple):
    """State after `labels` labels: the trigger that fired, if any, and the model that serves from then on."""

    labels: int
    facts: Facts
    trigger: Due | None
    module: TabularNetwork


def serve(stream: Stream, triggers: Sequence[Trigger], seed: int) -> Iterator[Served]:
    """Score a stream chunk by chunk and retrain when a trigger fires. Labels come one a second."""
    state = TriggerState(triggers, since=0.0, created=0.0, names=stream.names)
    module = _trained(stream, 0, WINDOW, seed)
    for start in range(WINDOW, len(stream.targets), CHUNK):
        now = slice(start, start + CHUNK)
        inputs, targets = stream.inputs.take(now), stream.targets[now]
        end = start + len(targets)
        state.take(losses("log_loss", TASK.kind, score(module, inputs, TASK), targets), inputs, float(end))
        facts = state.facts(float(end))
        trigger = first_due(triggers, facts)
        if trigger is not None:
            state.run_started(facts)
            module = _trained(stream, max(end - WINDOW, _since(facts, end)), end, seed)
            state.published(float(end), {})
        yield Served(end, facts, trigger, module)


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
    """Compute the accuracy of the model on these examples, 0 to 1."""
    return 1 - float(losses("accuracy", TASK.kind, score(module, test.inputs, TASK), test.targets).mean())


class Recovery(NamedTuple):
    """Recovery from one change.

    `labels`: labels from the change to the recovery (None: no recovery); `runs`: runs until then; `seen`: labels from
    the change to the first run that a rise of the loss started. Accuracy: `before` the change, just after it (`broken`)
    and at the `end`.
    """

    labels: int | None
    runs: int
    seen: int | None
    before: float
    broken: float
    end: float


def recovery(kind: str, seed: int, triggers: Sequence[Trigger], after: int = AFTER) -> Recovery:
    """Simulate one change and measure the recovery from it."""
    at = BEFORE + (seed * 1_700) % EVERY
    stream = changing(kind, seed, at, at + after)

    old, new = _held_out(kind, seed, 0), _held_out(kind, seed, 1)
    before = broken = value = 0.0
    labels = seen = None
    runs, module = 0, None
    for served in serve(stream, triggers, seed):
        if served.labels <= at:
            module = served.module
            continue
        if not before:
            assert module is not None
            before, broken = accuracy(module, old), accuracy(module, new)
            value = broken
        if served.trigger is None:
            continue
        value = accuracy(served.module, new)
        if labels is None:
            runs += 1
            labels = served.labels - at if value >= before - POINT else None
        if seen is None and served.facts.drift is not None and served.facts.drift.loss is not None:
            seen = served.labels - at
    return Recovery(labels, runs, seen, before, broken, value)


def _held_out(kind: str, seed: int, concept: int) -> Stream:
    """Make examples of one concept that are not in the stream: those generated after a prefix of its length."""
    stream = arrays(STREAMS[kind](concept, seed), BEFORE + AFTER + EVERY + HELD_OUT)
    rows = slice(-HELD_OUT, None)
    return Stream(stream.inputs.take(rows), stream.targets[rows], stream.names)


class Rare:
    """A stationary stream of six normal numbers; about one example in a hundred is positive."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def arrays(self, count: int) -> Stream:
        """Make the next `count` examples."""
        numbers = self._random.normal(size=(count, 6)).astype(np.float32)
        chance = 1 / (1 + np.exp(6.5 - 2 * numbers[:, 0] - numbers[:, 1]))
        targets = (self._random.random(count) < chance).astype(np.float32)
        names = tuple(f"x{n}" for n in range(6))
        return Stream(Inputs(numbers, np.zeros((count, 0), np.int64)), targets, names)


def alarms(kind: str, seed: int, labels: int, *, learning: bool) -> tuple[int, int]:
    """Count false alarms: return (runs that `Drift()` starts, labels) on a stream that never changes.

    With `learning` the serving model keeps improving, through five trainings that the trigger state is not given.
    """
    stream = Rare(seed).arrays(WINDOW + labels) if kind == "rare" else arrays(STREAMS[kind](0, seed), WINDOW + labels)
    trained = (300, 600, 1_200, 2_500, WINDOW) if learning else (WINDOW,)
    models = [_trained(stream, 0, count, seed) for count in trained]
    triggers, runs = (Drift(),), 0
    state = TriggerState(triggers, since=0.0, created=0.0, names=stream.names)
    for n, start in enumerate(range(WINDOW, WINDOW + labels, 1_000)):
        rows = slice(start, start + 1_000)
        inputs, targets = stream.inputs.take(rows), stream.targets[rows]
        scores = score(models[min(n // 5, len(models) - 1)], inputs, TASK)
        state.take(losses("log_loss", TASK.kind, scores, targets), inputs, float(start))
        facts = state.facts(float(start))
        if first_due(triggers, facts) is not None:
            runs += 1
            state.run_started(facts)
    return runs, labels


SCHEDULED: tuple[Trigger, ...] = (Labels(EVERY),)
WATCHED: tuple[Trigger, ...] = (Drift(), Labels(EVERY))


def measure(seeds: int, labels: int) -> list[Row]:
    """Measure recoveries of both arms on all streams, then false alarms."""
    torch.set_num_threads(1)  # steps of a small network take less time than synchronising threads
    rows: list[Row] = []
    for kind in STREAMS:
        pairs = [(recovery(kind, seed, SCHEDULED), recovery(kind, seed, WATCHED)) for seed in range(seeds)]
        rows += _compared(kind, pairs)
    total = runs = 0
    for kind in (*STREAMS, "rare"):
        for learning in (False, True):
            counts = [alarms(kind, 100 + seed, labels, learning=learning) for seed in range(seeds)]
            false, seen = sum(run for run, _ in counts), sum(count for _, count in counts)
            total, runs = total + seen, runs + false
            what = f"{kind}, model {'still learning' if learning else 'trained'}: false runs"
            rows.append(at_most("drift", what, false * 100_000 / seen, 1, "/100,000 labels"))
    rows.append(
        Row("drift", f"all streams: {runs} false runs in {total:,} labels", runs * 100_000 / total, "/100,000 labels")
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
    """Run this benchmark and return the exit status: 1 if a figure misses its bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=100_000, help="labels of each stationary stream")
    options = parser.parse_args()
    rows = measure(options.seeds, options.labels)
    for row in rows:
        print(f"{row.what:50} {row.value:10,.2f} {row.unit:16} {row.bar:9} {row.met!s:6} {row.note}")
    return 1 if any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
