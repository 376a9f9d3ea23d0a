"""Data files as streams: the rows of a CSV, JSON-lines or Parquet file become event and label records.

`rows` reads a file. `replay` (pure) converts rows into the records that producers would have written, in time order: a
label comes at the time at which it became known.
"""

from __future__ import annotations

import csv
import gzip
import heapq
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import msgspec

from tailrace.declaration.event import joined_id, to_seconds
from tailrace.declaration.pipeline import Pipeline
from tailrace.declaration.task import Kind, LabelValue
from tailrace.errors import BadData
from tailrace.streams.log.codec import UNDECODABLE, encode
from tailrace.streams.log.records import Out

MISSING = frozenset(("", "NA", "N/A", "NaN", "nan", "null", "NULL"))
"""Cell texts that mean a missing value."""


class Columns(NamedTuple):
    """Names of the columns with a special role. Without `label`, there are no labels.

    Without `id` a row's id is the name of its file and its number, such as "flights.csv:17". `time`: event time;
    `label_time`: time at which the label became known.
    """

    id: str | None = None
    time: str | None = None
    label: str | None = None
    label_time: str | None = None


class Moment(NamedTuple):
    """One record to write. `time`: unix seconds of the replay clock, or the row number if rows have no time."""

    time: float
    kind: Literal["event", "label"]
    out: Out


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a data file as dicts from column to value; a missing value has no entry.

    The suffix gives the format: .csv, .jsonl, .ndjson or .json, each also with .gz, or .parquet. CSV values are texts.
    Raises BadData for a file that cannot be read, naming the line if one is wrong.
    """
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind not in ("csv", "jsonl", "ndjson", "json", "parquet"):
        raise BadData(f"{path}: unknown kind of file; name it .csv or .jsonl, each also with .gz, or .parquet")
    try:
        if kind == "parquet":
            yield from _parquet_rows(path)
            return
        with _open(path) as file:
            yield from _csv_rows(file, path) if kind == "csv" else _json_rows(file, path)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadData(f"cannot read {str(path)!r} ({reason}): check the path, and that the file is complete") from None


def _open(path: Path) -> TextIO:
    opener: Callable[..., TextIO] = gzip.open if path.suffix == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _csv_rows(file: TextIO, path: Path) -> Iterator[dict[str, str]]:
    reader = csv.reader(file)
    names = [name.strip() for name in next(reader, [])]
    if len(set(names)) != len(names) or "" in names:
        raise BadData(f"{path}: the first line must name every column, each name once; it is {','.join(names)[:200]!r}")
    for cells in reader:
        if len(cells) != len(names):
            if not cells:
                continue
            raise BadData(f"{path}, line {reader.line_num}: {len(cells)} cells, but the header has {len(names)}")
        yield {name: cell for name, cell in zip(names, cells, strict=True) if cell not in MISSING}


def _json_rows(file: TextIO, path: Path) -> Iterator[dict[str, Any]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        try:
            yield {name: value for name, value in decoder.decode(line).items() if value is not None}
        except UNDECODABLE as error:
            raise BadData(f"{path}, line {number}: not a JSON object ({error})") from None


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise BadData(
            f"{path}: reading Parquet needs pyarrow, which is not installed: pip install 'tailrace[parquet]'"
        ) from None
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            names, columns = batch.schema.names, [_parquet_column(column) for column in batch.columns]
            for cells in zip(*columns, strict=True):
                yield {name: cell for name, cell in zip(names, cells, strict=True) if _has_value(cell)}
    except ArrowException as error:
        raise BadData(f"cannot read {str(path)!r} ({error}): check that it is a complete Parquet file") from None


def _parquet_column(column: Any) -> list[Any]:
    """Return the Python values of a column.

    Types without a JSON form are converted: dates and times to text, decimals to float. Timestamps are truncated to
    microseconds.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_date(kind) or pa.types.is_time(kind):
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    return values


def _has_value(cell: Any) -> bool:
    """Return False for null, NaN and the texts of MISSING."""
    return cell is not None and cell == cell and not (isinstance(cell, str) and cell in MISSING)


def instant(value: Any) -> float:
    """Convert ISO 8601 text, a datetime, unix seconds or unix milliseconds to unix seconds. Raises ValueError.

    A text without a UTC offset is UTC.
    """
    if isinstance(value, datetime):
        return to_seconds(value)
    if isinstance(value, str):
        try:
            return to_seconds(float(value))
        except ValueError:
            moment = datetime.fromisoformat(value.strip())
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return to_seconds(float(value))


def replay(
    rows: Iterable[Mapping[str, Any]], pipeline: Pipeline, columns: Columns, *, label_delay: int = 0, file: str = ""
) -> Iterator[Moment]:
    """Yield the records that producers of these rows would have written; `Moment.time` never decreases.

    Events keep the order of the rows. The replay clock is the largest event time so far. With a label-time column, a
    label comes as soon as the clock reaches its time; without one it comes `label_delay` events after its own event. A
    row without a label, or without its label time, gets no label. Record timestamps are event and label times; for
    rows without times the log sets them. `file`: name of the file, for the ids of rows that have none.
    Raises BadData for a row that does not fit the declaration.
    """
    clock = float("-inf")
    for moment in _merged(rows, _Encoder(pipeline, columns, file), columns.label_time is not None, label_delay):
        clock = max(clock, moment.time)
        yield moment if moment.time == clock else moment._replace(time=clock)


def replay_labels(rows: Iterable[Mapping[str, Any]], pipeline: Pipeline, columns: Columns) -> Iterator[Moment]:
    """Yield the labels of a file that holds only labels, in its order.

    The columns are `id`, `label` and `time` unless `columns` names others; the time is optional. Raises BadData for a
    row without a label, or with a label that does not fit the declaration.
    """
    named = Columns(columns.id or "id", None, columns.label or "label", columns.label_time or "time")
    timed, untimed = _Encoder(pipeline, named, ""), _Encoder(pipeline, named._replace(label_time=None), "")
    for number, row in enumerate(rows):
        encoder = timed if named.label_time in row else untimed
        try:
            label = encoder.label(row, number, float(number))
        except (ValueError, TypeError) as error:
            raise BadData(f"row {number + 1} is not a valid label: {error}; correct the row") from None
        if label is None:
            raise BadData(f"row {number + 1} has no {named.label!r}: name the label's column with --label")
        yield label


def _merged(rows: Iterable[Mapping[str, Any]], encoder: _Encoder, timed: bool, delay: int) -> Iterator[Moment]:
    """Merge events and labels. `timed`: labels have times of their own; else they come `delay` rows later."""
    waiting: list[tuple[float, int, Moment]] = []  # heap of labels by the time or row number at which they come
    clock, newest = float("-inf"), None
    for number, row in enumerate(rows):
        try:
            event = encoder.event(row, number)
            label = encoder.label(row, number, event.time)
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            raise BadData(f"row {number + 1} does not fit the declaration: {error}; correct the row") from None
        clock = max(clock, event.time)
        while waiting and waiting[0][0] <= (clock if timed else number):
            yield _released(heapq.heappop(waiting)[2], newest if not timed else None)
        yield event
        newest = event.out.timestamp
        if label is not None:
            heapq.heappush(waiting, (label.time if timed else number + delay + 0.5, number, label))
    while waiting:
        yield _released(heapq.heappop(waiting)[2], newest if not timed else None)


def _released(label: Moment, timestamp: int | None) -> Moment:
    """Return a label with this record timestamp; None keeps its own.

    A label without its own time becomes known with the event before it.
    """
    return label if timestamp is None else label._replace(out=msgspec.structs.replace(label.out, timestamp=timestamp))


class _Encoder:
    """Converter from rows to records of one pipeline."""

    def __init__(self, pipeline: Pipeline, columns: Columns, file: str) -> None:
        schema = pipeline.schema
        self._prefix = f"{file}:" if file else ""
        wire = dict(zip(schema.event.__struct_fields__, schema.event.__struct_encode_fields__, strict=True))
        self._schema, self._event = schema, schema.event
        self._topics = pipeline.topics
        self._columns = columns
        self._keys = [wire[key] for key in schema.keys]  # columns
        self._time = wire[schema.time] if schema.time else None
        fields = pipeline.label.fields
        self._label_ids = [fields.get(name, name) for name in schema.label_ids]
        self._names = tuple(fields.get(name, name) for name in ("label", "time"))
        self._kind, self._check_label = pipeline.task.kind, pipeline.task.target
        self._classes = {str(value): value for value in pipeline.task.classes}

    def event(self, row: Mapping[str, Any], number: int) -> Moment:
        """Return the event of a row. Raises ValueError or TypeError if the row does not fit."""
        named = {**row, **dict(zip(self._keys, self._id_values(row, number), strict=False))}
        time = self._columns.time or self._time
        if time is not None:
            if time not in row:
                raise ValueError(f"{time!r} is missing")
            if self._time and time != self._time:
                named[self._time] = row[time]
        seconds = float(number) if time is None else instant(row[time])
        value = encode(msgspec.convert(named, self._event, strict=False))
        stamp = None if time is None else int(seconds * 1000)
        return Moment(seconds, "event", Out(self._topics.events, self._key(row, number), value, timestamp=stamp))

    def label(self, row: Mapping[str, Any], number: int, event_time: float) -> Moment | None:
        """Return the label of a row, at the time of its event if labels have no times; None if the row has none.

        Raises ValueError or TypeError if the label does not fit the declaration.
        """
        value_column, time_column = self._columns.label, self._columns.label_time
        if value_column is None or value_column not in row or (time_column is not None and time_column not in row):
            return None
        name_label, name_time = self._names
        label: dict[str, Any] = dict(zip(self._label_ids, self._id_values(row, number), strict=True))
        label[name_label] = self._label_value(row[value_column])
        self._check_label(label[name_label])
        seconds, stamp = event_time, None
        if time_column is not None:
            label[name_time] = seconds = instant(row[time_column])
            stamp = int(seconds * 1000)
        out = Out(self._topics.labels, self._key(row, number), encode(label), timestamp=stamp)
        return Moment(seconds, "label", out)

    def _key(self, row: Mapping[str, Any], number: int) -> bytes:
        """Return the record key of a row: the id as predictions have it, for an event without keys its number."""
        return joined_id(self._id_values(row, number)).encode()

    def _id_values(self, row: Mapping[str, Any], number: int) -> list[str]:
        """Return the values of the id: of each key's column, or the file's name and the row's number."""
        if len(self._keys) > 1:
            columns = self._keys
        else:
            column = self._columns.id or next((key for key in self._keys if key in row), None)
            columns = [] if column is None else [column]
        if missing := [column for column in columns if column not in row]:
            raise ValueError(f"{missing[0]!r}, the id, is missing")
        return self._schema.id_texts([row[column] for column in columns]) if columns else [f"{self._prefix}{number}"]

    def _label_value(self, value: LabelValue) -> LabelValue:
        """Convert the text of a CSV cell to the label's type; other values, and texts without one, stay."""
        if self._kind is Kind.MULTICLASS:
            return self._classes.get(str(value), value)
        if not isinstance(value, str):
            return value
        return float(value) if self._kind is Kind.REGRESSION else {"0": 0, "1": 1}.get(value, value)
