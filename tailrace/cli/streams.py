"""Commands `send` and `tail`: write the records of a file to a pipeline's topics, and show the records of a topic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.common import (
    IdOption,
    JsonOption,
    LabelOption,
    LabelTimeOption,
    LogOption,
    PipelineOption,
    TimeOption,
    json_text,
    load_pipeline_and_settings,
    load_settings,
    open_log,
    print_json,
    print_message,
)
from tailrace.declaration.durations import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tailrace.app.settings import SendSettings, Settings
    from tailrace.datafiles.read import Moment
    from tailrace.datafiles.send import Sent
    from tailrace.declaration.pipeline import Pipeline
    from tailrace.streams.log.browse import Readable


def register(app: typer.Typer) -> None:
    """Add the commands `send` and `tail` to `app`."""
    for command in (send, tail):
        app.command()(command)


def send(
    file: Annotated[
        Path, typer.Argument(help="File: .csv, .jsonl (either may be .gz) or .parquet, in the order of time.")
    ],
    pipeline: PipelineOption = None,
    log: LogOption = None,
    topic: Annotated[
        str | None, typer.Option("--topic", help="events or labels, if the file contains only these.")
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", help="events or labels: send only these parts of the rows.")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Events per second.")] = None,
    pace: Annotated[
        str | None, typer.Option("--pace", help="fast (the default), recorded, or a speed-up factor such as x60.")
    ] = None,
    id: IdOption = None,
    time: TimeOption = None,
    label: LabelOption = None,
    label_time: LabelTimeOption = None,
    label_delay: Annotated[
        int, typer.Option("--label-delay", min=0, help="Label delay in events, if the rows have no label times.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Send the rows of a data file as events, and the label of each row at its label time.

    Columns default to those of [send] in tailrace.toml, which `tailrace init --from` writes.
    """
    from tailrace.app.factory import create_topics
    from tailrace.datafiles.send import Pace
    from tailrace.datafiles.send import send as deliver
    from tailrace.datafiles.sent_files import digest_of, mark_sent, sent_before
    from tailrace.errors import Exit, UserError

    flags = {"send__id": id, "send__time": time, "send__label": label, "send__label_time": label_time}
    declaration, settings = load_pipeline_and_settings(pipeline, log, **flags)
    if not declaration.schema.keys and (topic or only) != "events" and settings.send.label:
        raise UserError(
            "this event class has no Key: its ids are the places of its records, which a file's labels cannot name; "
            "send the events alone (--only events)",
            Exit.USAGE,
        )
    parsed_pace = Pace.parse(pace, rate)
    if topic == "labels":  # the columns in [send] describe files with events and labels
        moments = _labels(file, declaration, id, label, label_time)
    else:
        moments = _moments(file, declaration, settings.send, topic, only, label_delay)
    with open_log(settings) as opened_log:
        create_topics(opened_log, declaration, settings)
        one = topic or only
        digest, parts = digest_of(file), ["events", "labels"] if one is None else [one]
        before = sent_before(opened_log, declaration, digest, parts)
        if before is not None:
            ids = "the same ids, and their labels count once" if declaration.schema.keys else "new ids"
            print_message(f"{file.name} was sent before, at {utc_text(before)}: its events are predicted again, {ids}")
        writer = opened_log.writer()
        try:
            sent = deliver(writer, moments, parsed_pace, _print_progress)
        finally:
            writer.close()
        mark_sent(opened_log, declaration, digest, parts)
    _print_progress(sent)
    if as_json:
        print_json({**sent._asdict(), "sent_before": before})


def _moments(
    file: Path, declaration: Pipeline, send: SendSettings, topic: str | None, only: str | None, delay: int
) -> Iterator[Moment]:
    """Read events and labels from a file, or only one of the two. Raises UserError."""
    from tailrace.datafiles.read import Columns, replay, rows
    from tailrace.errors import Exit, UserError

    for name, value in (("--topic", topic), ("--only", only)):
        if value not in (None, "events", "labels"):
            raise UserError(f"{name} {value!r}: write events or labels", Exit.USAGE)
    columns = Columns(send.id, send.time, send.label, send.label_time)
    if topic == "events":
        columns = columns._replace(label=None)
    moments = replay(rows(file), declaration, columns, label_delay=delay, file=file.name)
    kind = only.removesuffix("s") if only else None
    return (moment for moment in moments if kind in (None, moment.kind))


def _labels(
    file: Path, declaration: Pipeline, id: str | None, label: str | None, label_time: str | None
) -> Iterator[Moment]:
    """Read labels from a file that contains no events."""
    from tailrace.datafiles.read import Columns, replay_labels, rows

    return replay_labels(rows(file), declaration, Columns(id, None, label, label_time))


def _print_progress(sent: Sent) -> None:
    rate = sent.events / sent.seconds if sent.seconds else 0.0
    clock = f", at {utc_text(sent.last)}" if sent.last and sent.last > 1e8 else ""  # smaller: row numbers, not times
    counts = f"{sent.events:,} events, {sent.labels:,} labels"
    print_message(f"{counts} sent in {sent.seconds:.1f} s ({rate:,.0f} events/s){clock}")


def tail(
    topic: Annotated[str, typer.Argument(help="events, predictions, labels, examples, models, or a full topic name.")],
    pipeline: PipelineOption = None,
    log: LogOption = None,
    count: Annotated[int, typer.Option("-n", "--count", min=0, help="Number of records to show, the newest.")] = 10,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Show new records too, until interrupted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the newest records of a topic."""
    from tailrace.streams.log.browse import follow as follow_topic
    from tailrace.streams.log.browse import newest, readable

    name, settings = _topic(topic, pipeline, log)
    with open_log(settings) as opened_log:
        records, ends = newest(opened_log, name, count)
        for record in records:
            _print_record(readable(record), as_json)
        if follow:
            for record in follow_topic(opened_log, name, ends):
                _print_record(readable(record), as_json)


def _topic(topic: str, pipeline: str | None, log: str | None) -> tuple[str, Settings]:
    """Return the full name of a topic, and the settings. Only a short name needs the pipeline file."""
    import msgspec

    from tailrace.declaration.pipeline import Topics

    short_name = topic.replace("-", "_")
    if short_name not in Topics.__struct_fields__:
        return topic, load_settings(log__url=log)
    declaration, settings = load_pipeline_and_settings(pipeline, log)
    return msgspec.structs.asdict(declaration.topics)[short_name], settings


def _print_record(record: Readable, as_json: bool) -> None:
    if as_json:
        print_json(record._asdict())
        return
    headers = " ".join(f"{name}={value}" for name, value in record.headers.items())
    value = record.value if isinstance(record.value, str) else json_text(record.value)
    place = f"{record.partition}/{record.offset}"
    print(f"{utc_text(record.time)}  {place:>10}  {record.key or '-'}  {value}  {headers}".rstrip(), flush=True)
