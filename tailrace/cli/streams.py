"""`send` and `tail`: records in and out of the pipeline's topics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.common import (
    JsonOption,
    LogOption,
    PipelineOption,
    as_text,
    emit,
    load,
    load_settings,
    note,
    opened,
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
    """Add the commands."""
    for command in (send, tail):
        app.command()(command)


def send(
    file: Annotated[
        Path, typer.Argument(help="A .csv or .jsonl file (.gz too) or a .parquet one, in the order of its times.")
    ],
    pipeline: PipelineOption = None,
    log: LogOption = None,
    topic: Annotated[str | None, typer.Option("--topic", help="events or labels: the file holds nothing else.")] = None,
    only: Annotated[
        str | None, typer.Option("--only", help="Send only the events, or only the labels, of rows.")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Events a second.")] = None,
    pace: Annotated[str | None, typer.Option("--pace", help="fast (the default), recorded, or a factor: x60.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="The id column; without any, the row number.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="The event-time column.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="The label column.")] = None,
    label_time: Annotated[str | None, typer.Option("--label-time", help="The column of when a label came.")] = None,
    label_delay: Annotated[
        int, typer.Option("--label-delay", min=0, help="Without label times: how many events later a label comes.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Send a data file: its rows as events, and each row's label when its time has come.

    The columns are those of [send] in tailrace.toml, as `tailrace init --from` wrote them.
    """
    from tailrace.app.factory import create_topics
    from tailrace.datafiles.send import Pace
    from tailrace.datafiles.send import send as deliver

    flags = {"send__id": id, "send__time": time, "send__label": label, "send__label_time": label_time}
    declared, settings = load(pipeline, log, **flags)
    wanted = Pace.parse(pace, rate)
    if topic == "labels":  # the columns of [send] are those of files with both
        moments = _labels(file, declared, id, label, label_time)
    else:
        moments = _moments(file, declared, settings.send, topic, only, label_delay)
    with opened(settings) as opened_log:
        create_topics(opened_log, declared, settings)
        writer = opened_log.writer()
        try:
            sent = deliver(writer, moments, wanted, _progress)
        finally:
            writer.close()
    _progress(sent)
    if as_json:
        emit(sent._asdict())


def _moments(
    file: Path, declared: Pipeline, send: SendSettings, topic: str | None, only: str | None, delay: int
) -> Iterator[Moment]:
    from tailrace.datafiles.read import Columns, replay, rows
    from tailrace.errors import Exit, UserError

    for name, value in (("--topic", topic), ("--only", only)):
        if value not in (None, "events", "labels"):
            raise UserError(f"{name} {value!r}: write events or labels", Exit.USAGE)
    columns = Columns(send.id, send.time, send.label, send.label_time)
    if topic == "events":
        columns = columns._replace(label=None)
    moments = replay(rows(file), declared, columns, label_delay=delay)
    kind = only.removesuffix("s") if only else None
    return (moment for moment in moments if kind in (None, moment.kind))


def _labels(
    file: Path, declared: Pipeline, id: str | None, label: str | None, label_time: str | None
) -> Iterator[Moment]:
    from tailrace.datafiles.read import Columns, replay_labels, rows

    return replay_labels(rows(file), declared, Columns(id, None, label, label_time))


def _progress(sent: Sent) -> None:
    rate = sent.events / sent.seconds if sent.seconds else 0.0
    clock = f", at {utc_text(sent.last)}" if sent.last and sent.last > 1e8 else ""
    note(f"{sent.events:,} events, {sent.labels:,} labels sent in {sent.seconds:.1f} s ({rate:,.0f} events/s){clock}")


def tail(
    topic: Annotated[str, typer.Argument(help="events, predictions, labels, examples, models, or a full name.")],
    pipeline: PipelineOption = None,
    log: LogOption = None,
    count: Annotated[int, typer.Option("-n", "--count", min=0, help="How many of the newest records.")] = 10,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new ones, until interrupted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the newest records of a topic."""
    from tailrace.streams.log.browse import follow as follow_topic
    from tailrace.streams.log.browse import newest, readable

    name, settings = _topic(topic, pipeline, log)
    with opened(settings) as opened_log:
        found, ends = newest(opened_log, name, count)
        for record in found:
            _show(readable(record), as_json)
        if follow:
            for record in follow_topic(opened_log, name, ends):
                _show(readable(record), as_json)


def _topic(topic: str, pipeline: str | None, log: str | None) -> tuple[str, Settings]:
    """The full name of a topic; only the short words need the pipeline."""
    import msgspec

    from tailrace.declaration.pipeline import Topics

    word = topic.replace("-", "_")
    if word not in Topics.__struct_fields__:
        return topic, load_settings(log__url=log)
    declared, settings = load(pipeline, log)
    return msgspec.structs.asdict(declared.topics)[word], settings


def _show(shown: Readable, as_json: bool) -> None:
    if as_json:
        emit(shown._asdict())
        return
    headers = " ".join(f"{name}={value}" for name, value in shown.headers.items())
    value = shown.value if isinstance(shown.value, str) else as_text(shown.value)
    place = f"{shown.partition}/{shown.offset}"
    print(f"{utc_text(shown.time)}  {place:>10}  {shown.key or '-'}  {value}  {headers}".rstrip(), flush=True)
