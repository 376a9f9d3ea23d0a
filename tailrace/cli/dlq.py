"""Command group `dlq`: list, show and replay dead letters."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

from tailrace.cli.common import (
    JsonOption,
    LogOption,
    PipelineOption,
    json_text,
    open_pipeline,
    print_json,
    print_message,
    print_table,
)
from tailrace.declaration.durations import utc_text

app = typer.Typer(help="Dead letters: records that could not be processed.")
TopicOption: TypeAlias = Annotated[
    str | None, typer.Option("--topic", help="Only dead letters of this topic: events, labels or a full name.")
]
ReasonOption: TypeAlias = Annotated[
    str | None, typer.Option("--reason", help="Only dead letters with this reason, such as invalid_json.")
]


@app.command("ls")
def ls(
    topic: TopicOption = None,
    reason: ReasonOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Number of dead letters to show, the newest.")] = 50,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters."""
    from collections import deque

    from tailrace.streams.log.dead_letter_replay import dead_letters, topics_of

    rows: deque[dict[str, Any]] = deque(maxlen=limit)
    count = 0
    with open_pipeline(pipeline, log) as opened:
        for dead_letter in dead_letters(opened.log, topics_of(opened.pipeline, topic), reason):
            count += 1
            time = dead_letter.record.timestamp / 1000
            name, why, detail = dead_letter.name, dead_letter.reason, dead_letter.detail
            rows.append({"letter": name, "time": time, "reason": why, "detail": detail})
    if not as_json:
        print_message(f"{count:,} dead letters" + (f", the newest {limit}" if count > limit else ""))
    print_table([row if as_json else {**row, "time": utc_text(row["time"])} for row in rows], as_json=as_json)


@app.command("show")
def show(
    letter: Annotated[
        str, typer.Argument(help="Name of a dead letter, as `dlq ls` prints it: topic/partition/offset.")
    ],
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a dead letter with its value and headers."""
    from tailrace.streams.log.dead_letter_replay import find

    with open_pipeline(pipeline, log) as opened:
        dead_letter = find(opened.log, letter)
    record, source = dead_letter.readable(), dead_letter.source
    reason, detail = dead_letter.reason, dead_letter.detail
    if as_json:
        print_json({**record._asdict(), "reason": reason, "detail": detail, "source": source})
        return
    print(f"reason  {reason}: {detail}\nsource  {source}\ntime    {utc_text(record.time)}")
    value = record.value if isinstance(record.value, str) else json_text(record.value)
    cut = "" if dead_letter.length is None else f" (the beginning of {dead_letter.length:,} bytes)"
    print(f"key     {record.key}\nvalue   {value}{cut}")
    for name, header in record.headers.items():
        print(f"header  {name}: {header}")


@app.command("replay")
def replay(
    topic: TopicOption = None,
    reason: ReasonOption = None,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the original records to their topic again. Each dead letter is replayed once."""
    from tailrace.streams.log.dead_letter_replay import replay, topics_of

    with open_pipeline(pipeline, log) as opened:
        topics = topics_of(opened.pipeline, topic)
        counts = {name: replay(opened.log, opened.pipeline.name, name, reason) for name in topics}
    gone = sum(done.gone for done in counts.values())
    if as_json:
        by_topic = {name: done.written for name, done in counts.items()}
        print_json({"replayed": sum(by_topic.values()), "gone": gone, "topics": by_topic})
    else:
        print("\n".join(f"{name}: {done.written:,} replayed" for name, done in counts.items()))
    if gone:
        print_message(
            f"{gone:,} large records were not replayed: their dead letters hold only the beginning, and the records "
            "are no longer in their topic"
        )
