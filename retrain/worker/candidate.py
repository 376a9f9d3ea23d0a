"""What a run does in the training process: a job becomes a candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tailrace.inference.models.spec import ModelSpec
from tailrace.retrain.training.dataset import GOLDEN_ROWS, encoded, golden
from tailrace.retrain.worker.protocol import Candidate, Job

if TYPE_CHECKING:
    from torch import nn

    from tailrace.inference.models.columns import Floats
    from tailrace.inference.models.encoding import Inputs
    from tailrace.retrain.training.distributed import Group
    from tailrace.retrain.training.loop import Report, TrainResult


class Start(NamedTuple):
    """The module that a run starts with. `warm`: with the champion's weights; `fresh`: see `training.loop.train`."""

    module: nn.Module
    warm: bool
    fresh: int | None


def candidate(spec: ModelSpec, job: Job, report: Report, group: Group) -> Candidate:
    """Train on one job and score its holdout. Raises what goes wrong, Diverged among it."""
    return candidate_of(spec, job, encoded(spec, job), report, group)


def candidate_of(spec: ModelSpec, job: Job, inputs: Inputs, report: Report, group: Group) -> Candidate:
    """The same where the job's rows are encoded already: `inputs` [rows, ...]."""
    from tailrace.inference.releases.manifest import serialise
    from tailrace.retrain.training.loop import score

    task = spec.task
    held, newest = inputs.take(slice(job.train, None)), inputs.take(slice(-GOLDEN_ROWS, None))
    champion = _champion(spec, job)
    scores = None if champion is None else score(champion, held, task)
    start = _start(spec, job, champion)
    trained = learn(spec, job, inputs, start, report, group)
    held_scores = _learning_on(spec, job, inputs, start.module) if job.online else score(start.module, held, task)
    return Candidate(
        state=serialise(start.module.state_dict()),
        warm=start.warm,
        scores=held_scores.tobytes(),
        champion_scores=None if scores is None else scores.tobytes(),
        golden=golden(newest, score(start.module, newest, task)),
        losses=trained.losses,
        steps=trained.steps,
        seconds=trained.seconds,
        device=trained.device,
    )


def _learning_on(spec: ModelSpec, job: Job, inputs: Inputs, module: nn.Module) -> Floats:
    """Go over the holdout as online updates would have: the scores that each event would have got when it happened."""
    from tailrace.retrain.online.learner import Learner
    from tailrace.retrain.training.loop import score

    assert job.online is not None
    learner, targets = Learner(module, spec.task, job.online, job.seed), np.array(job.targets, np.float32)
    known = slice(max(0, job.train - job.online.window), job.train)
    learner.remember(inputs.take(known), targets[known])
    held, times = inputs.take(slice(job.train, None)), np.array(job.times[job.train :])
    cuts = np.arange(0, len(times), job.online.labels)
    learned = np.maximum.accumulate(job.matured[job.train :] or [0.0])[[*(cuts[1:] - 1), len(times) - 1]]
    before = np.searchsorted(learned, times, "right")  # how many chunks were learned when each event happened
    scores = np.empty((len(times), spec.task.outputs), np.float32)
    for number in range(len(cuts) + 1):
        due = before == number
        scores[due] = score(module, held.take(np.flatnonzero(due)), spec.task)
        if number < len(cuts):
            chunk = slice(job.train + cuts[number], job.train + cuts[number] + job.online.labels)
            learner.learn(inputs.take(chunk), targets[chunk])
    return scores


def follow(spec: ModelSpec, job: Job, group: Group) -> None:
    """Take part in the training of a job that is rank 0's."""
    start = _start(spec, job, _champion(spec, job))
    learn(spec, job, encoded(spec, job), start, lambda step, steps, loss: None, group)


def learn(spec: ModelSpec, job: Job, inputs: Inputs, start: Start, report: Report, group: Group) -> TrainResult:
    """Train the module of `start` in place."""
    from tailrace.retrain.training.loop import train

    return train(
        start.module,
        inputs.take(slice(job.train)),
        np.array(job.targets[: job.train], np.float32),
        job.plan,
        spec.task,
        fresh=start.fresh,
        seed=job.seed,
        report=report,
        group=group,
        weights=None if job.weights is None else np.array(job.weights, np.float32),
        prior=job.prior,
    )


def _start(spec: ModelSpec, job: Job, champion: nn.Module | None) -> Start:
    from tailrace.inference.releases.manifest import load_state
    from tailrace.retrain.training.averaging import transfer

    if champion is not None and job.plan.start == "warm":
        return Start(champion, True, job.fresh)
    module = spec.build(job.seed)
    warm = job.champion is not None and job.plan.start == "transfer" and transfer(module, load_state(job.champion)) > 0
    return Start(module, warm, None)


def _champion(spec: ModelSpec, job: Job) -> nn.Module | None:
    """The champion's module; None when there is none, or the declared module is another one by now."""
    from tailrace.inference.releases.manifest import load_state

    if job.champion is None:
        return None
    module = spec.build(job.seed)
    try:
        module.load_state_dict(load_state(job.champion))
    except RuntimeError:  # names or shapes differ
        return None
    return module
