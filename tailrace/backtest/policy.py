"""Learning policies that a backtest compares, and the TOML files that define them (pure, except reading files).

A policy is that of the declaration, or one that a file changes:

    name = "hourly, from scratch"       # default: the name of the file
    online = false                      # or a table, such as { labels = 20 }
    retrain = [{ schedule = "0 * * * *" }, { labels = { count = 5000 } }, { drift = {} }]
    training = { window = 20000, start = "scratch" }
    gate = { metric = "brier" }

Triggers have their Python names in lower case. A value that is not a table is the trigger's first argument.
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
    """A named policy: the declared pipeline, or a copy of it with other online, retrain, training or gate settings."""

    name: str
    pipeline: Pipeline

    @classmethod
    def of(cls, pipeline: Pipeline, name: str = "declared") -> Policy:
        """Return the policy that the pipeline declares."""
        return cls(name, pipeline)

    def seeded(self, seed: int) -> Policy:
        """Return this policy with another seed."""
        training = msgspec.structs.replace(self.pipeline.training, seed=seed)
        return Policy(self.name, self.pipeline.replace(training=training))

    def settings(self) -> dict[str, str]:
        """Return texts on online updates, triggers, training and gate by name; without those that are the default."""
        texts = {
            "online": "off" if self.pipeline.online is None else _changed_fields(self.pipeline.online),
            "retrain": ", ".join(map(str, self.pipeline.retrain)) or "never",
            "training": _changed_fields(self.pipeline.training),
            "gate": _changed_fields(self.pipeline.gate),
        }
        return {name: text for name, text in texts.items() if text}


def read_policy(path: Path, base: Policy) -> Policy:
    """Read a policy file and apply it to `base`. Raise BadData, which names the file and the mistake."""
    try:
        return changed(base, tomllib.loads(path.read_text()), path.stem)
    except OSError as error:
        raise BadData(f"cannot read {str(path)!r} ({error.strerror}): check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, DeclarationError) as error:
        raise BadData(f"{path} is not a valid policy: {error}") from None


def changed(base: Policy, changes: Mapping[str, Any], name: str) -> Policy:
    """Apply the keys of a policy file to `base`; `name` is the default name.

    Raise DeclarationError, msgspec.ValidationError.
    """
    unknown = set(changes) - {"name", "online", "retrain", "training", "gate"}
    if unknown:
        raise DeclarationError(
            f"unknown key {', '.join(sorted(unknown))}: write name, online, retrain, training or gate"
        )
    declared = base.pipeline
    pipeline = declared.replace(
        online=_online(declared.online, changes["online"]) if "online" in changes else None,
        training=_replaced(declared.training, changes.get("training", {})),
        gate=_replaced(declared.gate, changes.get("gate", {})),
        retrain=tuple(map(_trigger, changes["retrain"])) if "retrain" in changes else None,
    )
    return Policy(str(changes.get("name", name)), pipeline)


def _online(base: Online | None, value: Any) -> Online | bool:
    if isinstance(value, bool):
        return (base or Online()) if value else False
    return _replaced(base or Online(), value)


def _replaced(base: S, value: Any) -> S:
    if not isinstance(value, Mapping):
        raise DeclarationError(f"{value!r}: write a table such as {{ {type(base).__struct_fields__[0]} = ... }}")
    # Unknown names are errors: a misspelt option would silently change nothing.
    unknown = set(value) - set(type(base).__struct_fields__)
    if unknown:
        raise DeclarationError(f"{type(base).__name__} has no {', '.join(sorted(unknown))}")
    return msgspec.convert({**msgspec.to_builtins(base), **value}, type(base))


def _trigger(table: Any) -> Trigger:
    if not isinstance(table, Mapping) or len(table) != 1:
        raise DeclarationError(
            f"{table!r} is not a trigger: write a table of one name and its value, such as {{ labels = 2000 }}"
        )
    ((name, value),) = table.items()
    kinds = {kind.lower(): cls for kind, cls in vars(triggers).items() if _is_trigger(cls)}
    if name not in kinds:
        raise DeclarationError(f"{name!r} is not a trigger: write one of {', '.join(sorted(kinds))}")
    kind = kinds[name]
    fields = value if isinstance(value, Mapping) else {kind.__struct_fields__[0]: value}
    unknown = set(fields) - set(kind.__struct_fields__)
    if unknown:
        raise DeclarationError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    trigger: Trigger = msgspec.convert(fields, kind)
    return trigger


def _is_trigger(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct) and hasattr(kind, "due")


def _changed_fields(struct: msgspec.Struct) -> str:
    """Format the fields that differ from their defaults."""
    plain = msgspec.to_builtins(struct)
    default = msgspec.to_builtins(type(struct)())
    return ", ".join(f"{name}={value!r}" for name, value in plain.items() if value != default.get(name))
