"""Inference of a declaration from the rows of a data file (pure): kinds of features and label, time to wait for labels.

The rules are few. The generated pipeline.py shows each result, so that a user can correct a wrong guess in one line.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

from tailrace.datafiles.read import Columns, instant
from tailrace.declaration.task import LabelValue
from tailrace.errors import BadData

SAMPLE_ROWS = 200_000
MOST_CLASSES = 50
MOST_CODES = 40  # a column with more distinct integers than this holds amounts, not codes
YEARS = range(1_800, 2_200)  # integers in this range are years: numbers, not codes
DEFAULT_WAIT = "1d"
ID = "id"  # a column of this name becomes the event id if all its values differ
WAIT_FACTOR = 1.25  # the inferred wait is at least the longest label delay times this factor
_DISTINCT_KEPT = 100_000
_CHUNK = 64  # rows that are profiled together; a chunk fits into the processor cache
_WAITS = (  # durations offered as a wait: text, seconds
    *((f"{n}m", n * 60) for n in (1, 2, 5, 10, 15, 30)),
    *((f"{n}h", n * 3_600) for n in (1, 2, 3, 6, 12)),
    *((f"{n}d", n * 86_400) for n in (1, 2, 3, 7, 14, 30, 60, 90, 180, 365)),
)
_BAD_NAME = re.compile(r'[\\"\x00-\x1f]')  # msgspec rejects these characters in field names
_UNDECLARABLE = "its name holds a quote, a backslash or a control character"
# Names that the annotations of the generated class use. A field of that name would hide the name from them.
_RESERVED = frozenset(("Category", "Event", "EventTime", "Flag", "Key", "Number", "Row", "None", "field"))

FieldKind = Literal["number", "category", "flag"]


class Field(NamedTuple):
    """A feature of the declaration.

    `name`: Python identifier; `column`: name in the file; `optional`: some rows have no value; `remark`: comment for
    the generated file.
    """

    name: str
    column: str
    kind: FieldKind
    optional: bool
    remark: str = ""


class Target(NamedTuple):
    """The label: its kind, its classes in order (multi-class only), and the prediction of an untrained pipeline.

    `base_rate`: binary, the share of positive rows; multi-class, one share a class; regression, the mean.
    """

    kind: Literal["binary", "multiclass", "regression"]
    classes: tuple[LabelValue, ...]
    base_rate: float | tuple[float, ...]


class Inferred(NamedTuple):
    """An inferred declaration.

    `left_out`: reason by column, for each column that is not a feature; `wait`: duration text such as "12h"; `columns`:
    roles of columns, with the id column if one was recognised; `rows`: number of rows examined.
    """

    fields: tuple[Field, ...]
    left_out: Mapping[str, str]
    target: Target
    wait: str
    columns: Columns
    rows: int


class _Profile:
    """Statistics of one column: number of values, distinct values, and with `counted` the number of each value.

    At most about _DISTINCT_KEPT distinct values are kept. Counting takes three times as long, so only the label is
    counted.
    """

    def __init__(self, *, counted: bool) -> None:
        self.seen = 0
        self.values: set[str] = set()
        self.counts: Counter[str] | None = Counter() if counted else None

    def add(self, values: Sequence[Any]) -> None:
        """Add the column's next values. Once _DISTINCT_KEPT distinct values are kept, new ones are ignored."""
        self.seen += len(values)
        texts = values if set(map(type, values)) == {str} else list(map(_text, values))
        below_limit = len(self.values) < _DISTINCT_KEPT
        if self.counts is not None:
            self.counts.update(texts if below_limit else filter(self.values.__contains__, texts))
        if below_limit:
            self.values.update(texts)

    def all(self, test: Callable[[str], Any]) -> bool:
        """Return True if every distinct value passes the test."""
        return all(map(test, self.values))


def infer(rows: Iterable[Mapping[str, Any]], columns: Columns, drop: Sequence[str] = ()) -> Inferred:
    """Infer a declaration from the first SAMPLE_ROWS rows.

    `columns.label` is required. `drop`: columns that must not become features. Raises BadData, which names the column
    and the remedy.
    """
    profiles: dict[str, _Profile] = {}
    delays: list[float] = []
    count = 0
    sample = islice(rows, SAMPLE_ROWS)
    while chunk := list(islice(sample, _CHUNK)):
        for column in dict.fromkeys(chain.from_iterable(chunk)):
            if column not in profiles:
                profiles[column] = _Profile(counted=column == columns.label)
            profiles[column].add([row[column] for row in chunk if column in row])
        if columns.time and columns.label_time:
            delays += _delays(chunk, columns.time, columns.label_time)
        count += len(chunk)
    if columns.id is None and ID in profiles and ID not in drop and _distinct(profiles[ID], count):
        columns = columns._replace(id=ID)
    _check(profiles, columns, drop, count)
    target = _target(profiles[columns.label or ""], columns.label or "")
    used = {name for name in columns if name}
    fields, left_out = _features({c: p for c, p in profiles.items() if c not in used}, drop, count)
    return Inferred(fields, left_out, target, _wait(delays), columns, count)


def _text(value: Any) -> str:
    """Return a value as a CSV file would hold it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _delays(rows: Iterable[Mapping[str, Any]], time: str, label_time: str) -> list[float]:
    """Return the seconds from event to label, for each row that has both times."""
    return [_instant(row, label_time) - _instant(row, time) for row in rows if time in row and label_time in row]


def _instant(row: Mapping[str, Any], column: str) -> float:
    try:
        return instant(row[column])
    except ValueError:
        raise BadData(f"{column!r} holds {row[column]!r}: a time is ISO 8601, unix seconds or milliseconds") from None


def _check(profiles: Mapping[str, _Profile], columns: Columns, drop: Sequence[str], count: int) -> None:
    if count == 0:
        raise BadData("the file has no rows: it needs a header and at least one row of data")
    for name in (*filter(None, columns), *drop):
        if name not in profiles:
            raise BadData(f"there is no column {name!r} with values; the columns with values are {', '.join(profiles)}")
    for name in filter(None, (columns.id, columns.time)):
        if _BAD_NAME.search(name):
            raise BadData(f"{name!r} cannot be declared because {_UNDECLARABLE}: rename the column in the file")
    if columns.id and not _distinct(profiles[columns.id], profiles[columns.id].seen):
        raise BadData(f"{columns.id!r} cannot be the id, its values repeat: omit --id to number the rows")


def _distinct(profile: _Profile, rows: int) -> bool:
    """Return True if all `rows` rows have a value and the values differ; checked up to _DISTINCT_KEPT values."""
    return profile.seen == rows and len(profile.values) >= min(rows, _DISTINCT_KEPT)


def _target(profile: _Profile, name: str) -> Target:
    assert profile.counts is not None
    values, total = profile.counts, profile.seen
    numbers, whole = profile.all(_is_number), profile.all(_is_integer)
    if len(values) < 2:
        raise BadData(f"the label {name!r} is always {next(iter(values))!r}: there is nothing to learn")
    if len(values) == 2 and set(values) <= _BINARY:
        return Target("binary", (), round(sum(n for v, n in values.items() if v.lower() in _POSITIVE) / total, 4))
    if len(values) <= MOST_CLASSES and (whole or not numbers):
        ordered = sorted(values, key=int) if whole else sorted(values)
        classes = tuple(int(v) if whole else v for v in ordered)
        return Target("multiclass", classes, tuple(round(values[v] / total, 4) for v in ordered))
    if not numbers:
        raise BadData(f"the label {name!r} has {len(values)} different texts: at most {MOST_CLASSES} are possible")
    return Target("regression", (), round(sum(float(v) * n for v, n in values.items()) / sum(values.values()), 4))


_POSITIVE = frozenset(("1", "true", "1.0", "yes", "y", "t"))
_BINARY = frozenset((*_POSITIVE, "0", "false", "0.0", "no", "n", "f", "True", "False", "TRUE", "FALSE", "Yes", "No"))


def _features(
    profiles: Mapping[str, _Profile], drop: Sequence[str], count: int
) -> tuple[tuple[Field, ...], dict[str, str]]:
    fields: list[Field] = []
    left_out: dict[str, str] = {}
    for column, profile in profiles.items():
        reason = "--drop" if column in drop else _UNDECLARABLE if _BAD_NAME.search(column) else _unusable(profile)
        if reason:
            left_out[column] = reason
            continue
        kind, remark = _kind(profile)
        name = identifier(column, {field.name for field in fields})
        fields.append(Field(name, column, kind, profile.seen < count, remark))
    return tuple(fields), left_out


def _unusable(profile: _Profile) -> str:
    """Return the reason for which a column cannot be a feature; empty if it can."""
    values = profile.values
    if len(values) == 1:
        return f"always {next(iter(values))[:40]!r}"
    if profile.all(_is_number):
        return ""
    if profile.all(_is_time):
        return "another time"
    return "text, nearly all values differ" if len(values) > profile.seen / 2 and len(values) > MOST_CODES else ""


def _kind(profile: _Profile) -> tuple[FieldKind, str]:
    """Return the kind of a feature and a remark for the generated file.

    Few integers that fill at least half of their range from 0 up are codes, and so a category; years are not.
    """
    values = profile.values
    if {v.lower() for v in values} <= {"true", "false"}:
        return "flag", ""
    if not profile.all(_is_number):
        return "category", f"{len(values):,} values"
    if profile.all(_is_integer) and len(values) <= MOST_CODES:
        codes = sorted(map(int, values))
        dense = len(codes) > (codes[-1] - codes[0] + 1) / 2
        if dense and codes[0] >= 0 and len(codes) > 2 and not (codes[0] in YEARS and codes[-1] in YEARS):
            return "category", f"codes {codes[0]} to {codes[-1]}"
    return "number", ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()


def _is_time(text: str) -> bool:
    try:
        instant(text)
    except ValueError:
        return False
    return True


def identifier(column: str, taken: Container[str]) -> str:
    """Return a Python identifier for a column that is not in `taken`: the column's own name if that is valid."""
    name = re.sub(r"\W", "_", column, flags=re.ASCII).lstrip("_")
    if not name or name[0].isdigit():
        name = f"column_{name}"
    while keyword.iskeyword(name) or name in _RESERVED or name in taken:
        name += "_"
    return name


def _wait(delays: list[float]) -> str:
    """Return the shortest round duration that exceeds the longest delay (seconds) by WAIT_FACTOR."""
    if not delays:
        return DEFAULT_WAIT
    least = max(delays) * WAIT_FACTOR
    return next((wait for wait, seconds in _WAITS if seconds >= least), _WAITS[-1][0])
