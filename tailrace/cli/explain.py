"""Command `explain`: the history of one event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.common import (
    JsonOption,
    LogOption,
    PipelineOption,
    json_text,
    open_pipeline,
    print_facts,
    print_json,
)
from tailrace.declaration.durations import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tailrace.declaration.task import Task
    from tailrace.explain.event_history import (
        EventHistory,
        ExampleStep,
        LabelStep,
        Place,
        PredictionStep,
        ReleaseStep,
    )


def register(app: typer.Typer) -> None:
    """Add the command `explain` to `app`."""
    app.command()(explain)


def explain(
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of the event.")],
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the history of an event: prediction, release that scored it, labels, and release that learned from it."""
    import msgspec

    from tailrace.errors import UserError
    from tailrace.explain.event import follow
    from tailrace.retrain.control.model_topic import Models

    with open_pipeline(pipeline, log) as opened:
        topics, task = opened.pipeline.topics, opened.pipeline.task
        story = follow(opened.log, opened.pipeline, Models(opened.log, topics.models), id)
    if story.empty:
        raise UserError(
            f"there is no event {id!r} in {topics.events}, and no prediction, label, example or dead letter with this "
            "id: check the id and the log (`tailrace tail events` shows the newest events); records older than "
            "log.retention were removed"
        )
    if as_json:
        print_json(msgspec.to_builtins(story))
    else:
        print_facts(_facts(story, task))


def _facts(story: EventHistory, task: Task) -> Iterator[tuple[str, str]]:
    """Yield the history of an event as (subject, text) pairs. An empty subject continues the pair before."""
    if story.event is None:
        yield "event", "not found: it was not sent yet, or its record is not keyed by the id and it was not scored yet"
    else:
        value = "removed" if story.event.value is None else json_text(story.event.value)
        yield "event", f"{_place(story.event.place)}  {value}"
    yield from _prediction(story.prediction, task)
    yield from _release(story.release)
    yield from _labels(story.labels)
    yield from _example(story.example)
    if story.taught:
        taught = story.taught
        yield "taught", f"release {taught.version} of {utc_text(taught.created)}, {taught.how} ({taught.reason})"
        if not taught.first:
            yield "", "older releases, which may have learned it earlier, have been removed"
    elif story.example:
        yield "taught", f"no release: {story.untaught}"
    for refusal in story.refused:
        yield "refused", f"{refusal.source} as {refusal.letter}  {refusal.reason}: {refusal.detail}"


def _prediction(predicted: PredictionStep | None, task: Task) -> Iterator[tuple[str, str]]:
    if predicted is None:
        yield "prediction", "none: the event was not scored yet, or the prediction was removed; is a worker running?"
        return
    place = _place(predicted.place) if predicted.place else "removed; according to the example:"
    yield "prediction", f"{place}  {_scores(predicted.scores, task)} by release {predicted.release}"
    yield "", f"for an event at {utc_text(predicted.event_time)}"


def _scores(scores: Sequence[float], task: Task) -> str:
    """Format scores, with the names of the classes if there is one score per class."""
    if len(scores) != len(task.classes):
        return ", ".join(f"{score:.4g}" for score in scores)
    return ", ".join(f"{name} {score:.4g}" for name, score in zip(task.classes, scores, strict=True))


def _release(scorer: ReleaseStep | None) -> Iterator[tuple[str, str]]:
    if scorer is None:
        return
    if not scorer.kept:
        yield "release", f"{scorer.version}, which was removed: its training data is not known"
        return
    yield "release", f"{scorer.version}: {scorer.reason}"
    if scorer.created is not None:
        newest = f"the newest of an event at {utc_text(scorer.trained_through)}"
        yield "", f"created {utc_text(scorer.created)}; had learned {scorer.examples:,} examples, {newest}"
        for part in scorer.ranges:
            yield "", f"{part.topic}/{part.partition}, offsets {part.start:,} (included) to {part.end:,} (excluded)"


def _labels(labels: Sequence[LabelStep]) -> Iterator[tuple[str, str]]:
    if not labels:
        yield "label", "none so far"
    for label in labels:
        yield "label", f"{_place(label.place)}  {json_text(label.label)}, known at {utc_text(label.time)}; {label.why}"


def _example(example: ExampleStep | None) -> Iterator[tuple[str, str]]:
    if example is None:
        yield "example", "none so far: nothing was learned from the event"
        return
    label = json_text(example.label) + (" (implicit: no label arrived)" if example.implicit else "")
    yield "example", f"{_place(example.place)}  {label}, known at {utc_text(example.label_time)}"


def _place(place: Place) -> str:
    return f"{place.topic}/{place.partition}/{place.offset}  {utc_text(place.written)}"
