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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from tailrace.declaration import triggers
from tailrace.declaration.online import Online
from tailrace.declaration.pipeline import Pipeline
from tailrace.declaration.triggers import Trigger
from tailrace.errors import BadData, DeclarationError

S = TypeVar("S", bound=msgspec.Struct)


class Policy(NamedTuple):
    """A named way of learning: the declared pipeline, or a copy that learns by other rules."""

    name: str
    pipeline: Pipeline

    @classmethod
    def of(cls, pipeline: Pipeline, name: str = "declared") -> Policy:
        """The declaration's own policy."""
        return cls(name, pipeline)

    def seeded(self, seed: int) -> Policy:
        """The same policy with another seed."""
        training = msgspec.structs.replace(self.pipeline.training, seed=seed)
        return Policy(self.name, self.pipeline.replace(training=training))

    def settings(self) -> dict[str, str]:
        """What it is, for people."""
        words = {
            "online": "off" if self.pipeline.online is None else _shown(self.pipeline.online),
            "retrain": ", ".join(map(str, self.pipeline.retrain)) or "never",
            "training": _shown(self.pipeline.training),
            "gate": _shown(self.pipeline.gate),
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
    declared = base.pipeline
    pipeline = declared.replace(
        online=_online(declared.online, told["online"]) if "online" in told else None,
        training=_altered(declared.training, told.get("training", {})),
        gate=_altered(declared.gate, told.get("gate", {})),
        retrain=tuple(map(_trigger, told["retrain"])) if "retrain" in told else None,
    )
    return Policy(str(told.get("name", name)), pipeline)


def _online(base: Online | None, told: Any) -> Online | bool:
    if isinstance(told, bool):
        return (base or Online()) if told else False
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
