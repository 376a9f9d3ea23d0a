"""The declaration (pure): what a team says once about its event, its label and its model.

    pipeline = Pipeline(
        "flights",
        event=Flight,
        label=Label("late", kind="binary", wait="12h"),
        retrain=[Schedule("0 5 * * MON"), Drift()],
        gate=Gate("log_loss"),
    )

The model learns online, within seconds of its labels; `retrain` says when whole runs are trained beside that.

Where it runs (log, keys, ports) is configuration: see `tailrace.app.settings`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from tailrace.declaration.event import Event, EventSchema, schema_of
from tailrace.declaration.features import declared_features
from tailrace.declaration.gate import Gate
from tailrace.declaration.label import Label
from tailrace.declaration.online import Online
from tailrace.declaration.training import Training
from tailrace.declaration.triggers import Trigger
from tailrace.errors import DeclarationError

if TYPE_CHECKING:
    from torch import nn

ModelFactory: TypeAlias = "Callable[..., nn.Module]"
"""A function or class that makes the nn.Module: called without arguments, or with (features, task)."""

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")


class Topics(msgspec.Struct, frozen=True):
    """The topic names of a pipeline. `events` and `labels` may be any existing topics."""

    events: str
    predictions: str
    labels: str
    labels_by_id: str
    examples: str
    models: str


class Pipeline:
    """One pipeline, declared. Checks what can be checked without running: raises DeclarationError."""

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
        if not isinstance(retrain, Sequence) or not all(hasattr(trigger, "due") for trigger in retrain):
            raise DeclarationError(f"retrain={retrain!r}: write a list of triggers, such as retrain=[Labels(2_000)]")
        if not isinstance(online, bool | Online):
            raise DeclarationError(
                f"online={online!r}: write True, False, or a rhythm such as online=Online(labels=50)"
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
        declared_features(event)  # raises for a feature that does not fit its type
        self.task = label.task()
        self.gate.metric_for(self.task.kind)  # a metric that does not fit is told here
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
        """A copy that learns by other rules; None keeps what is declared. Raises DeclarationError."""
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

    def _topics(self, overrides: Mapping[str, str]) -> Topics:
        names = {field: f"{self.name}.{field.replace('_', '-')}" for field in Topics.__struct_fields__}
        unknown = set(overrides) - set(names)
        if unknown:
            raise DeclarationError(f"unknown topics {sorted(unknown)}: a pipeline has {sorted(names)}")
        return Topics(**{**names, **overrides})

    def read_topics(self) -> list[str]:
        """The topics whose records may become dead letters: those that worker and joiner read."""
        t = self.topics
        return [t.events, t.labels, t.predictions, *([t.labels_by_id] if self.label.rekey else [])]
