"""Policies: when and how to learn, as a backtest compares them (pure, but for reading their files).

A policy is the declaration's own, or that changed by a file:

    name = "hourly, from scratch"       # else the file's name
    online = false                      # or a table: labels = 20
    retrain = [{ schedule = "0 * * * *" }, { labels = { count = 5000 } }, { drift = {} }]
    training = { window = 20000, start = "scratch" }
    gate = { metric = "brier" }

Each trigger is named as in Python, in small letters; a value that is no table is its first argument.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from inference.features import Features
from inference.model import ModelFactory
from inference.task import Task
from retrain import triggers
from retrain.gate import Gate
from retrain.plan import Training
from retrain.rhythm import Online
from retrain.triggers import Trigger
from streams.events import DeclarationError, EventSchema
from streams.label_policy import JoinPolicy
from tailrace.errors import BadData
from tailrace.pipeline import Pipeline

S = TypeVar("S", bound=msgspec.Struct)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what is learned and served, beside the history: a declaration, with another will."""

    name: str
    schema: EventSchema
    features: Features
    task: Task
    model: ModelFactory | None
    base_rate: float | Sequence[float] | None
    retrain: tuple[Trigger, ...]
    training: Training
    online: Online | None
    gate: Gate
    policy: JoinPolicy

    @classmethod
    def of(cls, pipeline: Pipeline, name: str = "declared") -> Policy:
        """The declaration's own."""
        return cls(
            name=name,
            schema=pipeline.schema,
            features=pipeline.features,
            task=pipeline.task,
            model=pipeline.model,
            base_rate=pipeline.label.base_rate,
            retrain=pipeline.retrain,
            training=pipeline.training,
            online=pipeline.online,
            gate=pipeline.gate,
            policy=pipeline.policy,
        )

    def seeded(self, seed: int) -> Policy:
        """The same with another seed."""
        return msgspec.structs.replace(self, training=msgspec.structs.replace(self.training, seed=seed))

    def settings(self) -> dict[str, str]:
        """What it is, for people."""
        words = {
            "online": "off" if self.online is None else _shown(self.online),
            "retrain": ", ".join(map(str, self.retrain)) or "never",
            "training": _shown(self.training),
            "gate": _shown(self.gate),
        }
        return {name: text for name, text in words.items() if text}


def read_policy(path: Path, base: Policy) -> Policy:
    """The policy in a file, where it differs from `base`. Raises BadData naming the file and what is wrong."""
    try:
        return changed(base, tomllib.loads(path.read_text()), path.stem)
    except OSError as error:
        raise BadData(f"cannot read {str(path)!r} ({error.strerror}): check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, DeclarationError) as error:
        raise BadData(f"{path} is no policy: {error}") from None


def changed(base: Policy, told: Mapping[str, Any], name: str) -> Policy:
    """`base` with what is told. Raises DeclarationError, msgspec.ValidationError."""
    unknown = set(told) - {"name", "online", "retrain", "training", "gate"}
    if unknown:
        raise DeclarationError(f"{', '.join(sorted(unknown))}: write name, online, retrain, training or gate")
    policy = msgspec.structs.replace(
        base,
        name=str(told.get("name", name)),
        online=_online(base.online, told["online"]) if "online" in told else base.online,
        training=_altered(base.training, told.get("training", {})),
        gate=_altered(base.gate, told.get("gate", {})),
        retrain=tuple(map(_trigger, told["retrain"])) if "retrain" in told else base.retrain,
    )
    policy.gate.metric_for(policy.task.kind)
    if policy.online:
        policy.training.check_beside_updates()
    return policy


def _online(base: Online | None, told: Any) -> Online | None:
    if isinstance(told, bool):
        return (base or Online()) if told else None
    return _altered(base or Online(), told)


def _altered(base: S, told: Any) -> S:
    if not isinstance(told, Mapping):
        raise DeclarationError(f"{told!r}: write a table such as {{ {type(base).__struct_fields__[0]} = ... }}")
    # Strict about names, as everywhere: an option that is spelled wrongly would silently change nothing.
    unknown = set(told) - set(type(base).__struct_fields__)
    if unknown:
        raise DeclarationError(f"{type(base).__name__} has no {', '.join(sorted(unknown))}")
    return msgspec.convert({**msgspec.to_builtins(base), **told}, type(base))


def _trigger(told: Any) -> Trigger:
    if not isinstance(told, Mapping) or len(told) != 1:
        raise DeclarationError(f"{told!r} is no trigger: write one name and its value, such as {{ labels = 2000 }}")
    ((word, value),) = told.items()
    known = {name.lower(): kind for name, kind in vars(triggers).items() if _is_trigger(kind)}
    if word not in known:
        raise DeclarationError(f"{word!r} is no trigger: there are {', '.join(sorted(known))}")
    kind = known[word]
    fields = value if isinstance(value, Mapping) else {kind.__struct_fields__[0]: value}
    unknown = set(fields) - set(kind.__struct_fields__)
    if unknown:
        raise DeclarationError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    made: Trigger = msgspec.convert(fields, kind)
    return made


def _is_trigger(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct) and hasattr(kind, "due")


def _shown(struct: msgspec.Struct) -> str:
    """The fields that are not at their defaults."""
    plain = msgspec.to_builtins(struct)
    usual = msgspec.to_builtins(type(struct)())
    return ", ".join(f"{name}={value!r}" for name, value in plain.items() if value != usual.get(name))
