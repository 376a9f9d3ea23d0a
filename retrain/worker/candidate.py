"""Training of a candidate from a job, in the training process."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.models.targets import target_array
from tailrace.retrain.training.dataset import GOLDEN_ROWS, encoded, golden
from tailrace.retrain.worker.protocol import Candidate, Job

if TYPE_CHECKING:
    from torch import nn

    from tailrace.inference.models.columns import Floats
    from tailrace.inference.models.encoding import Inputs
    from tailrace.retrain.training.distributed import Group
    from tailrace.retrain.training.loop import Report, TrainResult


class StartingModule(NamedTuple):
    """Module with which a run starts.

    `warm`: it has weights of the champion; `fresh`: see `tailrace.retrain.training.loop.train`.
    """

    module: nn.Module
    warm: bool
    fresh: int | None


def candidate(spec: ModelSpec, job: Job, report: Report, group: Group) -> Candidate:
    """Train on one job and score its holdout. Raises any error of training, including Diverged."""
    return candidate_of(spec, job, encoded(spec, job), report, group)


def candidate_of(spec: ModelSpec, job: Job, inputs: Inputs, report: Report, group: Group) -> Candidate:
    """Train on one job whose rows are encoded already as `inputs` [rows, ...], and score its holdout."""
    from tailrace.inference.releases.manifest import serialise
    from tailrace.retrain.training.loop import score

    task = spec.task
    held, newest = inputs.take(slice(job.train, None)), inputs.take(slice(-GOLDEN_ROWS, None))
    champion = _champion(spec, job)
    scores = None if champion is None else score(champion, held, task)
    start = _start(spec, job, champion)
    trained = learn(spec, job, inputs, start, report, group)
    module = start.module
    held_scores = _prequential_scores(spec, job, inputs, module) if job.online else score(module, held, task)
    return Candidate(
        state=serialise(module.state_dict()),
        warm=start.warm,
        scores=held_scores.tobytes(),
        champion_scores=None if scores is None else scores.tobytes(),
        golden=golden(newest, score(module, newest, task)),
        losses=trained.losses,
        steps=trained.steps,
        seconds=trained.seconds,
        device=trained.device,
    )


def _prequential_scores(spec: ModelSpec, job: Job, inputs: Inputs, module: nn.Module) -> Floats:
    """Return the scores that each held-out event would have got when it occurred, with online updates in between."""
    from tailrace.retrain.online.learner import Learner
    from tailrace.retrain.training.loop import score

    assert job.online is not None
    learner, targets = Learner(module, spec.task, job.online, job.seed), target_array(job.targets, spec.task)
    replayed = slice(max(0, job.train - job.online.window), job.train)
    learner.remember(inputs.take(replayed), targets[replayed])
    held, times = inputs.take(slice(job.train, None)), np.array(job.times[job.train :])
    cuts = np.arange(0, len(times), job.online.labels)
    learned = np.maximum.accumulate(job.matured[job.train :] or [0.0])[[*(cuts[1:] - 1), len(times) - 1]]
    before = np.searchsorted(learned, times, "right")  # number of chunks learned when each event occurred
    scores = np.empty((len(times), spec.task.outputs), np.float32)
    for number in range(len(cuts) + 1):
        next_events = before == number
        scores[next_events] = score(module, held.take(np.flatnonzero(next_events)), spec.task)
        if number < len(cuts):
            chunk = slice(job.train + cuts[number], job.train + cuts[number] + job.online.labels)
            learner.learn(inputs.take(chunk), targets[chunk])
    return scores


def take_part_in(spec: ModelSpec, job: Job, group: Group) -> None:
    """Take part, as a rank other than 0, in the training of a job."""
    start = _start(spec, job, _champion(spec, job))
    learn(spec, job, encoded(spec, job), start, lambda step, steps, loss: None, group)


def learn(
    spec: ModelSpec, job: Job, inputs: Inputs, start: StartingModule, report: Report, group: Group
) -> TrainResult:
    """Train the module of `start`, in place, on the training rows of `inputs` by the plan of `job`.

    Returns its losses and the number of steps.
    """
    from tailrace.retrain.training.loop import train

    return train(
        start.module,
        inputs.take(slice(job.train)),
        target_array(job.targets[: job.train], spec.task),
        job.plan,
        spec.task,
        fresh=start.fresh,
        seed=job.seed,
        report=report,
        group=group,
        weights=None if job.weights is None else np.array(job.weights, np.float32),
        prior=job.prior,
    )


def _start(spec: ModelSpec, job: Job, champion: nn.Module | None) -> StartingModule:
    from tailrace.inference.releases.manifest import load_state
    from tailrace.retrain.training.fine_tuning import transfer_weights

    if champion is not None and job.plan.start == "warm":
        return StartingModule(champion, True, job.fresh)
    module = spec.build(job.seed)
    warm = False
    if job.champion is not None and job.plan.start == "transfer":
        warm = transfer_weights(module, load_state(job.champion)) > 0
    return StartingModule(module, warm, None)


def _champion(spec: ModelSpec, job: Job) -> nn.Module | None:
    """Module with the champion's weights; None without a champion, or if its weights do not fit the declared module."""
    from tailrace.inference.releases.manifest import load_state

    if job.champion is None:
        return None
    module = spec.build(job.seed)
    try:
        module.load_state_dict(load_state(job.champion))
    except RuntimeError:  # names or shapes differ
        return None
    return module
