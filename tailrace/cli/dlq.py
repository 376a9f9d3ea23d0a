"""`dlq`: records that could not be used, why, and sending them again."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

from tailrace.cli.common import JsonOption, LogOption, PipelineOption, as_text, emit, load, note, opened, table
from tailrace.declaration.durations import utc_text

app = typer.Typer(help="Dead letters: records that could not be used.")
TopicFilter: TypeAlias = Annotated[
    str | None, typer.Option("--topic", help="Only those of this topic: events, labels or a full name.")
]
ReasonFilter: TypeAlias = Annotated[
    str | None, typer.Option("--reason", help="Only those with this reason, such as invalid_json.")
]


@app.command("ls")
def ls(
    topic: TopicFilter = None,
    reason: ReasonFilter = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most so many, the newest.")] = 50,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters."""
    from collections import deque

    from tailrace.streams.log.dead_letter_replay import dead_letters, topics_of

    declared, settings = load(pipeline, log)
    kept: deque[dict[str, Any]] = deque(maxlen=limit)
    count = 0
    with opened(settings) as opened_log:
        for letter in dead_letters(opened_log, topics_of(declared, topic), reason):
            count += 1
            time = letter.record.timestamp / 1000
            kept.append({"letter": letter.name, "time": time, "reason": letter.reason, "detail": letter.detail})
    if not as_json:
        note(f"{count:,} dead letters" + (f", the newest {limit}" if count > limit else ""))
    table([row if as_json else {**row, "time": utc_text(row["time"])} for row in kept], as_json=as_json)


@app.command("show")
def show(
    letter: Annotated[str, typer.Argument(help="A letter as `dlq ls` names it: topic/partition/offset.")],
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter whole."""
    from tailrace.streams.log.dead_letter_replay import find

    _, settings = load(pipeline, log)
    with opened(settings) as opened_log:
        found = find(opened_log, letter)
    record = found.readable()
    if as_json:
        emit({**record._asdict(), "reason": found.reason, "detail": found.detail, "source": found.source})
        return
    print(f"reason  {found.reason}: {found.detail}\nsource  {found.source}\ntime    {utc_text(record.time)}")
    print(f"key     {record.key}\nvalue   {record.value if isinstance(record.value, str) else as_text(record.value)}")
    for name, value in record.headers.items():
        print(f"header  {name}: {value}")


@app.command("replay")
def replay(
    topic: TopicFilter = None,
    reason: ReasonFilter = None,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the originals to their topic again; each dead letter is replayed once."""
    from tailrace.streams.log.dead_letter_replay import replay, topics_of

    declared, settings = load(pipeline, log)
    with opened(settings) as opened_log:
        counts = {name: replay(opened_log, declared.name, name, reason) for name in topics_of(declared, topic)}
    if as_json:
        emit({"replayed": sum(counts.values()), "topics": counts})
    else:
        print("\n".join(f"{name}: {count:,} replayed" for name, count in counts.items()))
