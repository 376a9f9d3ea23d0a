"""The declaration (pure): what a team says once about its event, its label and its model.

    pipeline = Pipeline(
        "flights",
        event=Flight,
        label=Label("late", kind="binary", wait="12h"),
        retrain=[Schedule("0 5 * * MON"), Drift()],
        gate=Gate("log_loss"),
    )

The model learns online, within seconds of its labels; `retrain` says when whole runs are trained beside that.

Where it runs (log, keys, ports) is configuration: see `tailrace.settings`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from inference.features import Features
from inference.model import ModelFactory, base_rate_scores
from inference.multilabel import MOST
from inference.task import Kind, Task
from retrain.gate import Gate
from retrain.plan import Training
from retrain.rhythm import Online
from retrain.triggers import Trigger
from streams.durations import seconds as seconds
from streams.events import DeclarationError, Event, EventSchema, schema_of
from streams.join_step import label_codec
from streams.label_policy import JoinPolicy, Winner
from streams.log import Topic
from streams.records import ClassValue, LabelValue

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")


class Label(msgspec.Struct, frozen=True):
    """The feedback: what it is called, what kind it is, how long to wait for it, which one wins, what a missing one
    means.

    `classes` names those of a multi-class label, or the labels of a multi-label one, of which any may apply to an
    event: its label record holds a list of those that do, or {class: true or false}; `missing=[]` says that none does.
    `fields` names the label record's own fields where they are not id, label and time. `rekey`: the label topic is
    not keyed by the event id; the joiner then re-keys it through `<name>.labels-by-id`. `base_rate` is what release 0
    predicts, the model of a pipeline that has learned nothing yet: the share of positives, of each class, or the mean
    value. With `wins`="max" or "min" the number counts that the task makes of a label: 0 or 1, or the value; a mean is
    for values. Raises DeclarationError.
    """

    name: str
    kind: Literal["binary", "multiclass", "multilabel", "regression"] = "binary"
    classes: Sequence[ClassValue] = ()
    wait: str | float = "1d"
    wins: Literal["first", "last", "max", "min", "mean"] = "first"
    missing: LabelValue | None = None
    base_rate: float | Sequence[float] | None = None
    fields: Mapping[str, str] = {}
    rekey: bool = False

    def __post_init__(self) -> None:
        _check_word("kind", self.kind, Kind)
        _check_word("wins", self.wins, Winner)
        fitting = _WINNERS[Kind(self.kind)]
        if self.wins not in fitting:
            raise DeclarationError(
                f"Label(wins={self.wins!r}) does not fit a {self.kind} label: write {', '.join(fitting)}"
            )
        label_codec(self.fields)
        base_rate_scores(self.task(), self.base_rate)
        if self.missing is not None:
            try:
                self.task().target(self.missing)
            except ValueError as error:
                raise DeclarationError(f"Label(missing={self.missing!r}) can be no label: {error}") from None

    def task(self) -> Task:
        """The model's task."""
        if self.kind == "multiclass" and len(set(map(str, self.classes))) < 2:
            raise DeclarationError(f"label {self.name!r} is multiclass: name its classes, such as classes=[1, 2, 3]")
        if self.kind == "multilabel" and not 1 <= len(set(map(str, self.classes))) == len(self.classes) <= MOST:
            raise DeclarationError(
                f"label {self.name!r} is multilabel: name its labels, 1 to {MOST} different ones, as classes=[...]"
            )
        return Task(Kind(self.kind), tuple(self.classes))

    def policy(self) -> JoinPolicy:
        """The join's policy."""
        return JoinPolicy(wait=seconds(self.wait), wins=Winner(self.wins), implicit=self.missing)


_WINNERS = {
    Kind.BINARY: ("first", "last", "max", "min"),
    Kind.MULTICLASS: ("first", "last"),
    Kind.MULTILABEL: ("first", "last"),
    Kind.REGRESSION: tuple(Winner),
}


def _check_word(field: str, given: str, words: Iterable[str]) -> None:
    if given not in tuple(words):
        raise DeclarationError(f"Label({field}={given!r}): write {', '.join(words)}")


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
        self.features = Features.of(event)
        self.task = label.task()
        self.gate.metric_for(self.task.kind)  # a metric that does not fit is told here
        self.policy = label.policy()
        self.topics = self._topics(topics or {})

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

    def topology(self, partitions: int, retention_s: float | None = None) -> list[Topic]:
        """Every topic to create, dead-letter topics included; those that exist already are left as they are."""
        from streams.dead_letters import MAX_RECORD_BYTES, dead_letter_topic

        t = self.topics
        flowing = [*self.read_topics(), t.examples]
        dead = map(dead_letter_topic, self.read_topics())
        return [
            *(Topic(topic, partitions, retention_s=retention_s) for topic in flowing),
            *(Topic(topic, 1, max_record_bytes=MAX_RECORD_BYTES) for topic in dead),
            Topic(t.models, 1, compacted=True),
        ]
