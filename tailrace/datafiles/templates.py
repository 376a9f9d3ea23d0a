"""Contents of the files that `tailrace init` writes (pure): pipeline.py, tailrace.toml and test_pipeline.py."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence

from tailrace.datafiles.infer import Field, Inferred, identifier
from tailrace.declaration.task import LabelValue

_TYPES = {"number": "Number", "category": "Category", "flag": "Flag"}
_WIDTH = 88  # default line length of formatters

EXAMPLE = '''"""Pipeline `payments`: the probability that a payment is fraudulent.

    tailrace run               # all roles, on the embedded log
    tailrace tail predictions  # in another terminal

Send events as JSON, such as {"id": "p1", "at": 1767225600, "country": "NL", "amount": 12.5}, to the
topic payments.events, and labels, such as {"id": "p1", "label": true}, to payments.labels.
"""

from typing import Annotated

from tailrace import Category, Cyclic, Event, EventTime, Key, Label, Number, Pipeline


class Payment(Event):
    """A payment at the time at which it is made."""

    id: Key
    at: Annotated[EventTime, Cyclic(86_400)]  # also a feature: the time of day
    country: Category
    amount: Number
    card_age: Number | None = None  # days; None if unknown


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


def pipeline_file(name: str, source: str, inferred: Inferred) -> str:
    """Return the text of pipeline.py for a declaration that was inferred from the data file at the path `source`."""
    imports = ["Event", "Key", "Label", "Pipeline", *{_TYPES[field.kind] for field in inferred.fields}]
    file = _plain(source.rpartition("/")[2])
    lines = [f'"""Pipeline `{name}`: predicts {_plain(inferred.columns.label or "")} for each row of {file}.', ""]
    lines += ["`tailrace init` wrote this file from the data. Edit it freely. To run it:", ""]
    lines += ["    tailrace run               # all roles, on the embedded log"]
    lines += [f"    tailrace send {_plain(shlex.quote(source))}  # in another terminal"]
    lines += ["    tailrace tail predictions", '"""', ""]
    time = _names(inferred)[1]
    if time:
        imports += ["Cyclic", "EventTime"]
        lines += ["from typing import Annotated", ""]
    if any(field.name != field.column for field in _all_fields(inferred)):
        lines += ["from msgspec import field"]
    lines += [_import_line(sorted(set(imports))), "", "", "class Row(Event):"]
    lines += [f'    """One row of {file}."""', "", *_field_lines(inferred)]
    lines += [f"    # left out: {_plain(column)} ({reason})" for column, reason in inferred.left_out.items()]
    return "\n".join([*lines, "", "", *_pipeline_lines(name, inferred), ""])


def _import_line(names: list[str]) -> str:
    line = f"from tailrace import {', '.join(names)}"
    return (
        line if len(line) <= _WIDTH else "from tailrace import (\n" + "".join(f"    {name},\n" for name in names) + ")"
    )


def _names(inferred: Inferred) -> tuple[Field, Field | None]:
    """Return the id and time fields. If no column is the id, its name differs from all columns."""
    taken = {field.column for field in inferred.fields} | {field.name for field in inferred.fields}
    id = inferred.columns.id or next(
        name for name in ("id", "row_id", "row_number_id", "tailrace_id") if name not in taken
    )
    key = Field(identifier(id, taken), id, "category", False)
    if inferred.columns.time is None:
        return key, None
    return key, Field(identifier(inferred.columns.time, taken | {key.name}), inferred.columns.time, "number", False)


def _all_fields(inferred: Inferred) -> list[Field]:
    key, time = _names(inferred)
    return [key, *([time] if time else []), *inferred.fields]


def _field_lines(inferred: Inferred) -> list[str]:
    key, time = _names(inferred)
    lines = [_field_line(key, "Key", "" if inferred.columns.id else "file and row number, added by `tailrace send`")]
    if time:
        lines.append(_field_line(time, "Annotated[EventTime, Cyclic(86_400), Cyclic(604_800)]", "day, week"))
    return lines + [_field_line(field, _TYPES[field.kind], field.remark) for field in inferred.fields]


def _field_line(field: Field, kind: str, remark: str) -> str:
    options = (["default=None"] if field.optional else []) + [f"name={_quoted(field.column)}"]
    default = f" = field({', '.join(options)})" if field.name != field.column else " = None" if field.optional else ""
    return f"    {field.name}: {kind}{' | None' if field.optional else ''}{default}{f'  # {remark}' if remark else ''}"


def _pipeline_lines(name: str, inferred: Inferred) -> list[str]:
    label = [_quoted(inferred.columns.label), f'kind="{inferred.target.kind}"', *_classes(inferred.target.classes)]
    label += [f'wait="{inferred.wait}"', *_base_rate(inferred.target.base_rate)]
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
        return []  # equal probabilities are the default
    return [f"base_rate=[{', '.join(map(str, rate))}]"]


def _call(function: str, arguments: list[str]) -> list[str]:
    """Return the lines of a call, as ruff format writes it: on one line if it fits, else one argument a line."""
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


def settings_file(source: str | None = None, inferred: Inferred | None = None) -> str:
    """Return the text of tailrace.toml; with `source` it also holds the columns of that file for `tailrace send`."""
    lines = [
        "# Settings of the pipeline. `tailrace config show` lists every setting with its value and source.",
        'pipeline = "pipeline.py:pipeline"',
        "",
        "[log]",
        'url = "sqlite:///.tailrace/log.db" # or "kafka://host:9092"',
        "partitions = 4",
    ]
    if source and inferred:
        lines += ["", "[send] # columns of the data file", f"# tailrace send {shlex.quote(source)}"]
        lines += [f"{key} = {_quoted(column)}" for key, column in inferred.columns._asdict().items() if column]
    return "\n".join([*lines, ""])


def test_file(rows: Sequence[str]) -> str:
    """Return the text of test_pipeline.py, which scores `rows` (JSON objects) with an untrained model."""
    events = "\n".join(rows)  # JSON never holds three quotes in a row, so it cannot end the literal
    return f'''"""Test that the pipeline scores events with an untrained model. Run it with `pytest`."""

import math

from tailrace.testing import Harness

from pipeline import pipeline

EVENTS = r"""
{events}
"""


def test_events_are_scored() -> None:
    """Each event gets one finite score per output of the label, and none becomes a dead letter."""
    lines = EVENTS.strip().split("\\n")
    with Harness(pipeline) as kit:
        release = kit.publish_untrained()
        kit.send(*(line.encode() for line in lines))
        kit.run_until_idle()
        predictions = kit.predictions()
        assert [dead_letter.detail for dead_letter in kit.dead_letters()] == []
    assert {{prediction.release for prediction in predictions}} == {{release}}
    assert len(predictions) == len(lines)
    for prediction in predictions:
        assert len(prediction.scores) == pipeline.task.outputs
        assert all(map(math.isfinite, prediction.scores))
'''


def pipeline_name(stem: str) -> str:
    """Return a valid pipeline name for a file name without its suffix."""
    return re.sub(r"[^a-z0-9_-]+", "_", stem.lower()).strip("_-") or "pipeline"


def _plain(text: str) -> str:
    """Return a text from the data file that is safe in docstrings and comments: it has no quotes and no escapes."""
    return "".join(c if c.isprintable() else " " for c in text).replace("\\", "/").replace('"', "'")


def _quoted(text: str | None) -> str:
    return json.dumps(text or "", ensure_ascii=False)


def _literal(value: LabelValue) -> str:
    return _quoted(value) if isinstance(value, str) else repr(value)
