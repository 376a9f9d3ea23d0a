"""The state of the pipeline and its next run, in one sentence (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from tailrace.declaration.durations import words
from tailrace.declaration.facts import Facts
from tailrace.declaration.triggers import Trigger, first_due, next_run

SILENT_S = 15.0  # seconds without a prediction while events wait: beyond it the worker is taken to be stuck
_SIGNALS = {"drift": "drift", "below": "a worse metric", "worthwhile": "a saving above its cost", "other": "a trigger"}


class StatusInputs(NamedTuple):
    """Facts from which `status` makes the status line of the page."""

    problem: str | None
    """Reason why the log cannot be read."""
    waiting: int
    """Events that were not predicted yet."""
    silent_s: float | None
    """Seconds since the last prediction; None before the first one."""
    champion: int
    """Version of the champion; 0: the base rate."""
    champion_age_s: float | None
    """Seconds since it became champion."""
    worse: str | None
    """Comparison in which the live model is worse than the base rate."""
    next_run: str | None
    """Sentence part of `describe_next_run`."""


class PipelineStatus(NamedTuple):
    """State of the pipeline, and the sentence that explains it to people."""

    state: Literal["healthy", "waiting", "trouble"]
    text: str


def status(inputs: StatusInputs) -> PipelineStatus:
    """Return the state and the sentence for the most serious condition that holds."""
    if inputs.problem:
        return PipelineStatus("trouble", inputs.problem)
    if inputs.waiting and (inputs.silent_s is None or inputs.silent_s > SILENT_S):
        since = "yet" if inputs.silent_s is None else f"for {words(inputs.silent_s)}"
        text = f"stalled: {inputs.waiting:,} events wait, none was predicted {since}: is a worker running?"
        return PipelineStatus("waiting" if inputs.silent_s is None else "trouble", text)
    if inputs.silent_s is None:
        return PipelineStatus("waiting", "waiting for the first event")
    if inputs.worse:
        return PipelineStatus("trouble", f"degraded: v{inputs.champion} live, {inputs.worse}")
    live = "the base rate is live until the first release"
    if inputs.champion:
        live = f"v{inputs.champion} live"
        live += "" if inputs.champion_age_s is None else f" for {_age(inputs.champion_age_s)}"
    return PipelineStatus("healthy", ", ".join(filter(None, (f"healthy: {live}", inputs.next_run))))


def describe_next_run(
    triggers: Sequence[Trigger], facts: Facts, *, event_clock: bool = False, missing: int = 0
) -> str | None:
    """Return a phrase on what starts the next run, by `tailrace.declaration.triggers.next_run`.

    None without triggers, and while no time is known for triggers that depend on time alone (`Age` without a champion).
    `event_clock`: the facts are in event time, so instants are given as such. `missing`: examples that must come
    before any run can start, whatever the triggers say.
    """
    if not triggers:
        return None
    if missing > 0:
        return f"next retraining after {missing:,} more labels"
    if first_due(triggers, facts) is not None:
        return "next retraining now"
    answer = next_run(triggers, facts)
    parts = [] if answer.time is None else [_instant(answer.time, facts.now, event_clock)]
    if answer.labels is not None:
        parts.append(f"after {answer.labels:,} more labels")
    if answer.signals:
        parts.append(f"on {' or '.join(_SIGNALS[kind] for kind in answer.signals)}")
    return f"next retraining {' or '.join(parts)}" if parts else None


def _instant(time: float, now: float, event_clock: bool) -> str:
    if time <= now:
        return "with the next label"  # time alone starts no run
    return (
        f"at {datetime.fromtimestamp(time, UTC):%d %b %H:%M} event time" if event_clock else f"in {words(time - now)}"
    )


def _age(seconds: float) -> str:
    """An age for people: whole seconds, then the largest unit."""
    if seconds < 1:
        return "less than 1 s"
    return f"{seconds:.0f} s" if seconds < 59.5 else words(seconds)
