"""`explain`: what became of one event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.common import JsonOption, LogOption, PipelineOption, as_text, emit, load, opened, sentences
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
    """Add the command."""
    app.command()(explain)


def explain(
    id: Annotated[str, typer.Argument(metavar="ID", help="The event's id.")],
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow one event: its prediction, the release that made it, its labels, and the release that learned from it."""
    import msgspec

    from tailrace.errors import UserError
    from tailrace.explain.event import follow
    from tailrace.retrain.control.model_topic import Models

    declared, settings = load(pipeline, log)
    with opened(settings) as opened_log:
        story = follow(opened_log, declared, Models(opened_log, declared.topics.models), id)
    if story.empty:
        raise UserError(
            f"there is no event {id!r} in {declared.topics.events}, and no prediction, label, example or dead letter "
            "of it: check the id and the log (`tailrace tail events` shows the newest); what is older than "
            "log.retention was removed"
        )
    if as_json:
        emit(msgspec.to_builtins(story))
    else:
        sentences(_told(story, declared.task))


def _told(story: EventHistory, task: Task) -> Iterator[tuple[str, str]]:
    """The story in plain words."""
    if story.event is None:
        yield "event", "not found: it was not sent yet, or is not keyed by its id and not scored yet"
    else:
        value = "it was removed since" if story.event.value is None else as_text(story.event.value)
        yield "event", f"{_place(story.event.place)}  {value}"
    yield from _prediction(story.prediction, task)
    yield from _release(story.release)
    yield from _labels(story.labels)
    yield from _example(story.example)
    if story.taught:
        taught = story.taught
        yield "taught", f"release {taught.version} of {utc_text(taught.created)}, {taught.how} ({taught.reason})"
        if not taught.first:
            yield "", "older releases, which may have learned it before, have been removed"
    elif story.example:
        yield "taught", f"no release: {story.untaught}"
    for refusal in story.refused:
        yield "refused", f"{refusal.source} as {refusal.letter}  {refusal.reason}: {refusal.detail}"


def _prediction(predicted: PredictionStep | None, task: Task) -> Iterator[tuple[str, str]]:
    if predicted is None:
        yield "prediction", "none: it was not scored yet, or the prediction was removed; is a worker running?"
        return
    place = _place(predicted.place) if predicted.place else "it was removed since; its example tells:"
    yield "prediction", f"{place}  {_scores(predicted.scores, task)} by release {predicted.release}"
    yield "", f"for an event at {utc_text(predicted.event_time)}"


def _scores(scores: Sequence[float], task: Task) -> str:
    """The scores, with the names of the classes where there are several."""
    if len(scores) != len(task.classes):
        return ", ".join(f"{score:.4g}" for score in scores)
    return ", ".join(f"{name} {score:.4g}" for name, score in zip(task.classes, scores, strict=True))


def _release(scorer: ReleaseStep | None) -> Iterator[tuple[str, str]]:
    if scorer is None:
        return
    if not scorer.kept:
        yield "release", f"{scorer.version}, which was removed since: what it had learned is not known any more"
        return
    yield "release", f"{scorer.version}: {scorer.reason}"
    if scorer.created is not None:
        through = f"the newest of an event at {utc_text(scorer.trained_through)}"
        yield "", f"of {utc_text(scorer.created)}; had learned {scorer.examples:,} examples, {through}"
        for part in scorer.ranges:
            yield "", f"{part.topic}/{part.partition} from offset {part.start:,} to before {part.end:,}"


def _labels(labels: Sequence[LabelStep]) -> Iterator[tuple[str, str]]:
    if not labels:
        yield "label", "none so far"
    for label in labels:
        yield "label", f"{_place(label.place)}  {as_text(label.label)}, known at {utc_text(label.time)}; {label.why}"


def _example(example: ExampleStep | None) -> Iterator[tuple[str, str]]:
    if example is None:
        yield "example", "none so far: nothing was learned from it"
        return
    how = ", as no label came" if example.implicit else ""
    yield "example", f"{_place(example.place)}  {as_text(example.label)}{how}, known at {utc_text(example.label_time)}"


def _place(place: Place) -> str:
    return f"{place.topic}/{place.partition}/{place.offset}  {utc_text(place.written)}"
