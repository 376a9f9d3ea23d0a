"""The files that `tailrace init` writes (pure): pipeline.py, tailrace.toml and test_pipeline.py."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence

from tailrace.datafiles.infer import Field, Inferred, identifier
from tailrace.declaration.task import LabelValue

_TYPES = {"number": "Number", "category": "Category", "flag": "Flag"}
_WIDTH = 88  # what formatters take for a line without being told

EXAMPLE = '''"""The pipeline `payments`: how likely is a payment to turn out a fraud?

    tailrace run               # all roles, on the embedded log
    tailrace tail predictions  # in another terminal

Send events as JSON, such as {"id": "p1", "at": 1767225600, "country": "NL", "amount": 12.5}, to the
topic payments.events, and labels, such as {"id": "p1", "label": true}, to payments.labels.
"""

from typing import Annotated

from tailrace import Category, Cyclic, Event, EventTime, Key, Label, Number, Pipeline


class Payment(Event):
    """One payment, as it happens."""

    id: Key
    at: Annotated[EventTime, Cyclic(86_400)]  # also a feature: the time of day
    country: Category
    amount: Number
    card_age: Number | None = None  # days; None where it is not known


pipeline = Pipeline(
    "payments",
    event=Payment,
    label=Label("fraud", kind="binary", wait="12h", base_rate=0.01),
)
'''

EXAMPLE_ROWS = (
    '{"id":"p1","at":1767225600,"country":"NL","amount":12.5,"card_age":30}',
    '{"id":"p2","at":1767225660,"country":"PT","amount":980.0}',
)


def pipeline_file(name: str, source: str, found: Inferred) -> str:
    """The text of pipeline.py for what was inferred from the file `source`."""
    imports = ["Event", "Key", "Label", "Pipeline", *{_TYPES[field.kind] for field in found.fields}]
    file = _plain(source.rpartition("/")[2])
    lines = [f'"""The pipeline `{name}`: predicts {_plain(found.columns.label or "")} for each row of {file}.', ""]
    lines += ["Written by `tailrace init` from the data; yours to change. See it work:", ""]
    lines += ["    tailrace run               # all roles, on the embedded log"]
    lines += [f"    tailrace send {_plain(shlex.quote(source))}  # in another terminal"]
    lines += ["    tailrace tail predictions", '"""', ""]
    time = _names(found)[1]
    if time:
        imports += ["Cyclic", "EventTime"]
        lines += ["from typing import Annotated", ""]
    if any(field.name != field.column for field in _all_fields(found)):
        lines += ["from msgspec import field"]
    lines += [_import_line(sorted(set(imports))), "", "", "class Row(Event):"]
    lines += [f'    """One row of {file}."""', "", *_field_lines(found)]
    lines += [f"    # left out: {_plain(column)} ({why})" for column, why in found.left_out.items()]
    return "\n".join([*lines, "", "", *_pipeline_lines(name, found), ""])


def _import_line(names: list[str]) -> str:
    line = f"from tailrace import {', '.join(names)}"
    return (
        line if len(line) <= _WIDTH else "from tailrace import (\n" + "".join(f"    {name},\n" for name in names) + ")"
    )


def _names(found: Inferred) -> tuple[Field, Field | None]:
    """The id and time fields; a generated id gets a name that no column has."""
    taken = {field.column for field in found.fields} | {field.name for field in found.fields}
    id = found.columns.id or next(
        name for name in ("id", "row_id", "row_number_id", "tailrace_id") if name not in taken
    )
    key = Field(identifier(id, taken), id, "category", False)
    if found.columns.time is None:
        return key, None
    return key, Field(identifier(found.columns.time, taken | {key.name}), found.columns.time, "number", False)


def _all_fields(found: Inferred) -> list[Field]:
    key, time = _names(found)
    return [key, *([time] if time else []), *found.fields]


def _field_lines(found: Inferred) -> list[str]:
    key, time = _names(found)
    lines = [_field_line(key, "Key", "" if found.columns.id else "the row number, which `tailrace send` gives")]
    if time:
        lines.append(_field_line(time, "Annotated[EventTime, Cyclic(86_400), Cyclic(604_800)]", "day, week"))
    return lines + [_field_line(field, _TYPES[field.kind], field.remark) for field in found.fields]


def _field_line(field: Field, kind: str, remark: str) -> str:
    options = (["default=None"] if field.optional else []) + [f"name={_quoted(field.column)}"]
    default = f" = field({', '.join(options)})" if field.name != field.column else " = None" if field.optional else ""
    return f"    {field.name}: {kind}{' | None' if field.optional else ''}{default}{f'  # {remark}' if remark else ''}"


def _pipeline_lines(name: str, found: Inferred) -> list[str]:
    label = [_quoted(found.columns.label), f'kind="{found.target.kind}"', *_classes(found.target.classes)]
    label += [f'wait="{found.wait}"', *_base_rate(found.target.base_rate)]
    return [
        "pipeline = Pipeline(",
        f'    "{name}",',
        "    event=Row,",
        *_call("label=Label", label),
        ")",
    ]


def _classes(classes: Sequence[LabelValue]) -> list[str]:
    if not classes:
        return []
    if list(classes) == list(range(len(classes))):
        return [f"classes=range({len(classes)})"]
    return [f"classes=[{', '.join(map(_literal, classes))}]"]


def _base_rate(rate: float | tuple[float, ...]) -> list[str]:
    if not isinstance(rate, tuple):
        return [f"base_rate={rate}"]
    if max(rate) - min(rate) < 0.001:
        return []  # even odds are the default
    return [f"base_rate=[{', '.join(map(str, rate))}]"]


def _call(function: str, arguments: list[str]) -> list[str]:
    """A call on one line where it fits, else one argument a line (as ruff format would write it)."""
    line = f"    {function}({', '.join(arguments)}),"
    if len(line) <= _WIDTH:
        return [line]
    return [f"    {function}(", *(line for argument in arguments for line in _argument(argument)), "    ),"]


def _argument(argument: str) -> list[str]:
    line = f"        {argument},"
    opening = argument.find("=[")
    if len(line) <= _WIDTH or opening < 0:
        return [line]
    items = argument[opening + 2 : -1].split(", ")
    return [f"        {argument[: opening + 2]}", *(f"            {item}," for item in items), "        ],"]


def settings_file(source: str | None = None, found: Inferred | None = None) -> str:
    """The text of tailrace.toml; it remembers the columns of a data file for `tailrace send`."""
    lines = [
        "# Where the pipeline runs. `tailrace config show` lists every setting and where it came from.",
        'pipeline = "pipeline.py:pipeline"',
        "",
        "[log]",
        'url = "sqlite:///.tailrace/log.db" # or "kafka://host:9092"',
        "partitions = 4",
    ]
    if source and found:
        lines += ["", "[send] # the columns of the data", f"# tailrace send {shlex.quote(source)}"]
        lines += [f"{key} = {_quoted(column)}" for key, column in found.columns._asdict().items() if column]
    return "\n".join([*lines, ""])


def test_file(rows: Sequence[str]) -> str:
    """The text of test_pipeline.py: the declaration scores these rows (JSON objects) with the untrained model."""
    shown = "\n".join(rows)  # JSON never holds three quotes in a row, so it cannot end the literal
    return f'''"""The declaration is sound: the pipeline scores events, also by an untrained model. Run `pytest`."""

import math

from tailrace.testing import Harness

from pipeline import pipeline

EVENTS = r"""
{shown}
"""


def test_events_are_scored() -> None:
    """Each event gets finite scores, as many as the label asks for, and none becomes a dead letter."""
    lines = EVENTS.strip().split("\\n")
    with Harness(pipeline) as kit:
        release = kit.publish_untrained()
        kit.send(*(line.encode() for line in lines))
        kit.run_until_idle()
        predictions = kit.predictions()
        assert [letter.detail for letter in kit.dead_letters()] == []
    assert {{prediction.release for prediction in predictions}} == {{release}}
    assert len(predictions) == len(lines)
    for prediction in predictions:
        assert len(prediction.scores) == pipeline.task.outputs
        assert all(map(math.isfinite, prediction.scores))
'''


def pipeline_name(stem: str) -> str:
    """A pipeline name made of a file's name."""
    return re.sub(r"[^a-z0-9_-]+", "_", stem.lower()).strip("_-") or "pipeline"


def _plain(text: str) -> str:
    """A foreign name for docstrings and comments: it can neither end them nor start an escape."""
    return "".join(c if c.isprintable() else " " for c in text).replace("\\", "/").replace('"', "'")


def _quoted(text: str | None) -> str:
    return json.dumps(text or "", ensure_ascii=False)


def _literal(value: LabelValue) -> str:
    return _quoted(value) if isinstance(value, str) else repr(value)
