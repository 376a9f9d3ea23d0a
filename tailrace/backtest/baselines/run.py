"""Catalogue of the baselines, and their runs over a history in processes of their own.

no change     the label that became known last (before the first: base-rate scores)
frozen        the default model, trained once on the first labels
logistic      River's LogisticRegression (multi-class: SoftmaxRegression, regression: LinearRegression), categories
              one-hot, numbers standardised, SGD 0.005
adaptive tree River's HoeffdingAdaptiveTree: Bifet and Gavalda, "Adaptive learning from evolving data streams", 2009
forest        River's adaptive random forest of 10 trees: Gomes et al., "Adaptive random forests", 2017
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import NamedTuple

import numpy as np

from tailrace.backtest.baselines import river
from tailrace.backtest.baselines.learner import LearnerFactory, Scores
from tailrace.backtest.baselines.simple import Frozen, NoChange
from tailrace.backtest.history.arrays import Stream
from tailrace.declaration.task import Task
from tailrace.inference.models.targets import targets_of

PROCESSES = 2
BASELINES: Mapping[str, LearnerFactory] = {
    "no change": NoChange,
    "frozen": Frozen,
    "logistic": river.linear,
    "adaptive tree": river.tree,
    "forest": river.forest,
}
"""Factories of the baselines by name, the cheapest first."""


class BaselineResult(NamedTuple):
    """Result of a baseline.

    `scores`: at the time of each event, shape [n, outputs], not finite where the learner diverged. `cpu_seconds` and
    `seconds`: CPU time of its process and wall-clock time.
    """

    scores: Scores
    cpu_seconds: float
    seconds: float


def run(name: str, stream: Stream, task: Task, seed: int = 0) -> BaselineResult:
    """Run a baseline of BASELINES over a history, in this process. Raise KeyError for an unknown name."""
    learner = BASELINES[name](stream, task, seed)
    scores = np.empty((len(stream), task.outputs), np.float32)
    targets, arrivals = targets_of(stream.targets), stream.arrivals
    started, cpu = time.perf_counter(), time.process_time()
    arrived = 0
    for event in range(len(stream)):
        while arrived < len(arrivals) and arrivals[arrived].position <= event:
            labelled = arrivals[arrived].event
            learner.learn(labelled, targets[labelled])
            arrived += 1
        scores[event] = learner.score(event)
    return BaselineResult(scores, time.process_time() - cpu, time.perf_counter() - started)


def run_all(
    stream: Stream, task: Task, names: Sequence[str] = (), *, seed: int = 0, processes: int = PROCESSES
) -> Iterator[tuple[str, BaselineResult]]:
    """Run these baselines (default: all), each in its own process, `processes` at a time.

    Yield (name, result) in the order in which they finish. Raise MissingExtra if River is not installed.
    """
    river.check_river()
    chosen = list(names) or list(BASELINES)
    # Spawned, because a fork of a process with torch's threads may hang. The slowest, which come last, start first.
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _end_with_parent, max_tasks_per_child=1)
    with pool:
        running: dict[Future[BaselineResult], str] = {}
        try:
            for name in reversed(chosen):
                running[pool.submit(run, name, stream, task, seed)] = name
            for done in as_completed(running):
                yield running[done], done.result()
        finally:
            for future in running:
                future.cancel()


def _end_with_parent() -> None:
    """End this process when its parent dies; otherwise it would wait for the next job for ever."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()
