"""The pipeline declaration (pure): one object that names the event, the label, the model and the training rules.

    pipeline = Pipeline(
        "flights",
        event=Flight,
        label=Label("late", kind="binary", wait="12h"),
        retrain=[triggers.Schedule("0 5 * * MON"), triggers.Drift()],
        gate=Gate("log_loss"),
    )

The model learns online, within seconds of its labels. `retrain` adds full training runs.

Deployment (log, keys, ports) is configuration: see `tailrace.app.settings`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from tailrace.declaration.event import Event, EventSchema, schema_of
from tailrace.declaration.features import Marker, declared_features
from tailrace.declaration.gate import Gate
from tailrace.declaration.label import Label, check_label_fields
from tailrace.declaration.online import Online
from tailrace.declaration.training import Training
from tailrace.declaration.triggers import Trigger
from tailrace.errors import DeclarationError

if TYPE_CHECKING:
    from torch import nn

ModelFactory: TypeAlias = "Callable[..., nn.Module]"
"""A function or class that builds the nn.Module; called without arguments, or with (features, task)."""

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")


class Topics(msgspec.Struct, frozen=True):
    """Topic names of a pipeline. `events` and `labels` may name any existing topics."""

    events: str
    predictions: str
    labels: str
    labels_by_id: str
    examples: str
    models: str


class Pipeline:
    """Declaration of one pipeline, validated on construction. Raises DeclarationError.

    `name`: lower-case letters, digits, ".", "_" and "-"; it prefixes the topics.
    `event`: the event class. `label`: the feedback that the model learns to predict.
    `retrain`: triggers of full training runs, see `tailrace.triggers`. `training`: the plan of these runs.
    `online`: online updates between runs; False turns them off, an Online changes their schedule.
    `gate`: the rules by which a candidate replaces the champion.
    `model`: builds the nn.Module, called without arguments or with (features, task); None: the default ensemble.
    `topics`: topic names that differ from `<name>.<topic>`, such as {"events": "payments-v2"}.
    """

    def __init__(
        self,
        name: str,
        *,
        event: type[Event],
        label: Label,
        retrain: Sequence[Trigger] = (),
        online: Online | bool = True,
        gate: Gate | None = None,
        training: Training | None = None,
        model: ModelFactory | None = None,
        topics: Mapping[str, str] | None = None,
    ) -> None:
        if not NAME.fullmatch(name):
            raise DeclarationError(f"{name!r} cannot name a pipeline: use lower-case letters, digits, '.', '_' and '-'")
        if not isinstance(label, Label):
            raise DeclarationError(f'label={label!r}: write Label(...), such as label=Label("late", kind="binary")')
        if not isinstance(retrain, Sequence) or not all(map(_is_trigger, retrain)):
            raise DeclarationError(
                f"retrain={retrain!r}: write a list of triggers, such as retrain=[triggers.Labels(2_000)]"
            )
        if not isinstance(online, bool | Online):
            raise DeclarationError(
                f"online={online!r}: write True, False, or a schedule such as online=Online(labels=50)"
            )
        if model is not None and not callable(model):
            raise DeclarationError(f"model={model!r}: give a function that makes the nn.Module, or its class")
        self.name = name
        self.label = label
        self.retrain = tuple(retrain)
        self.gate = gate or Gate()
        self.training = training or Training()
        self.online = (Online() if online else None) if isinstance(online, bool) else online
        if self.online:
            self.training.check_beside_updates()
        self.model = model
        self.schema: EventSchema = schema_of(event)
        check_label_fields(label.fields, self.schema.label_ids)
        declared_features(event)  # raises for a marker that does not fit the type of its field
        self.task = label.task()
        self.gate.metric_for(self.task.kind)  # raises for a metric that does not fit the task
        self.policy = label.policy()
        self.topics = self._topics(topics or {})

    def replace(
        self,
        *,
        label: Label | None = None,
        retrain: Sequence[Trigger] | None = None,
        online: Online | bool | None = None,
        gate: Gate | None = None,
        training: Training | None = None,
    ) -> Pipeline:
        """Copy the pipeline with other training rules; None keeps the declared ones. Raises DeclarationError."""
        return Pipeline(
            self.name,
            event=self.schema.event,
            label=label or self.label,
            retrain=self.retrain if retrain is None else retrain,
            online=(self.online or False) if online is None else online,
            gate=gate or self.gate,
            training=training or self.training,
            model=self.model,
            topics=msgspec.structs.asdict(self.topics),
        )

    def __repr__(self) -> str:
        """The declaration as Python: features with their markers, and all options that are not the default."""
        lines = [
            repr(self.name),
            f"event={self.schema.event.__name__}",
            f"features=[{', '.join(_described_features(self.schema.event))}]",
            f"label={self.label!r}",
            *([f"retrain={list(self.retrain)!r}"] if self.retrain else []),
            *([] if self.online == Online() else [f"online={self.online or False!r}"]),
            *([] if self.gate == Gate() else [f"gate={self.gate!r}"]),
            *([] if self.training == Training() else [f"training={self.training!r}"]),
            *([] if self.model is None else [f"model={getattr(self.model, '__qualname__', repr(self.model))}"]),
            *([f"topics={changed!r}"] if (changed := self._changed_topics()) else []),
        ]
        return "Pipeline(\n" + "".join(f"    {line},\n" for line in lines) + ")"

    def _changed_topics(self) -> dict[str, str]:
        default = msgspec.structs.asdict(self._topics({}))
        return {field: name for field, name in msgspec.structs.asdict(self.topics).items() if name != default[field]}

    def _topics(self, overrides: Mapping[str, str]) -> Topics:
        names = {field: f"{self.name}.{field.replace('_', '-')}" for field in Topics.__struct_fields__}
        unknown = set(overrides) - set(names)
        if unknown:
            raise DeclarationError(f"unknown topics {sorted(unknown)}: a pipeline has {sorted(names)}")
        return Topics(**{**names, **overrides})

    def read_topics(self) -> list[str]:
        """The topics that worker and joiner read; records of these topics may become dead letters."""
        topics = self.topics
        return [topics.events, topics.labels, topics.predictions, *([topics.labels_by_id] if self.label.rekey else [])]


def _is_trigger(trigger: object) -> bool:
    """True for an object with a method `due`; False for a trigger class that was not called."""
    return hasattr(trigger, "due") and not isinstance(trigger, type)


def _described_features(event: type[Event]) -> list[str]:
    """Each feature with its encoding, such as "carrier: Category(1024)" or "tail_wind()"."""
    fields, functions = declared_features(event)
    return [f"{field.name}: {_encoding(field.marker)}" for field in fields] + [f"{name}()" for name in functions]


def _encoding(marker: Marker) -> str:
    name = type(marker).__name__.removesuffix("Feature")
    values = msgspec.structs.astuple(marker)
    return f"{name}({', '.join(map(str, values))})" if values else name
