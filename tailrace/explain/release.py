"""What a release tells of itself, for people (pure): its origin, what it learned, why, how it was judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from tailrace.declaration.durations import utc_text, words
from tailrace.declaration.facts import DriftSignals, Live
from tailrace.declaration.training import Training
from tailrace.inference.releases.manifest import Manifest, Range, Signed

T = TypeVar("T")

Find: TypeAlias = Callable[[int], Manifest | None]
"""The manifest of a release; None when it was removed."""


class Chain(msgspec.Struct, frozen=True):
    """The online updates that led from the weights of release `base` (0: fresh ones) to a release."""

    base: int
    updates: int
    labels: int
    remembered: int

    @classmethod
    def of(cls, manifest: Manifest) -> Chain | None:
        """The chain of a release; None when a run made it."""
        updates = manifest.updates
        if updates is None:
            return None
        labels = sum(sum(chunk.values()) for chunk in updates.learned)
        return cls(updates.base, len(updates.learned), labels, examples_in(updates.remembered))


class Ancestor(msgspec.Struct, frozen=True):
    """One release of a lineage. `base`: whose weights it started from, `parent`: the champion before it; 0: none."""

    version: int
    made_by: Literal["update", "run"] | None
    """None: nobody knows any more, the release was removed."""
    reason: str = ""
    parent: int = 0
    base: int = 0
    chain: Chain | None = None

    @classmethod
    def of(cls, version: int, manifest: Manifest | None) -> Ancestor:
        """What a manifest tells of it."""
        if manifest is None:
            return cls(version, None)
        made_by: Literal["update", "run"] = "update" if manifest.updates else "run"
        return cls(version, made_by, manifest.reason, manifest.parent, manifest.base, Chain.of(manifest))


def lineage(manifest: Manifest, find: Find) -> list[Ancestor]:
    """A release, the one whose weights it started from, and so on: to fresh weights, or to one that was removed."""
    line = [Ancestor.of(manifest.version, manifest)]
    while 0 < line[-1].base < line[-1].version:  # only versions that grow: anybody may have written the manifests
        line.append(Ancestor.of(line[-1].base, find(line[-1].base)))
    return line


def builtin(signed: Signed, manifest: Manifest, aliases: list[str], find: Find) -> dict[str, Any]:
    """All of it, as JSON has it."""
    told: dict[str, Any] = msgspec.to_builtins(manifest)
    told["golden"] = f"{len(manifest.golden.scores)} rows"
    line = lineage(manifest, find)
    return told | {
        "key_id": signed.key_id,
        "aliases": aliases,
        "chain": msgspec.to_builtins(line[0].chain),
        "lineage": msgspec.to_builtins(line),
    }


def lines(signed: Signed, manifest: Manifest, aliases: list[str], find: Find) -> Iterator[tuple[str, str]]:
    """The same in plain words: what is spoken of, and what is said of it."""
    yield "release", ", ".join([str(manifest.version), *aliases])
    yield "created", f"{utc_text(manifest.created)}, signed by key {signed.key_id}"
    yield "reason", manifest.reason
    line = lineage(manifest, find)
    for number, ancestor in enumerate(line):
        yield "" if number else "lineage", _descent(ancestor, line[number + 1 : number + 2])
    yield "learned", f"{manifest.examples:,} examples, the newest of an event at {utc_text(manifest.trained_through)}"
    for part in manifest.ranges:
        yield "", f"{part.topic}/{part.partition}, {_offsets(part)}"
    chain = line[0].chain
    if chain and manifest.updates:
        yield "updates", f"{chain.updates:,} in this chain, {chain.labels:,} labels, from {_weights(chain.base)}"
        parts = ", ".join(f"partition {part.partition} {_offsets(part)}" for part in manifest.updates.remembered)
        yield "", f"{chain.remembered:,} examples were remembered when it began{parts and ': ' + parts}"
    else:
        yield from _run(manifest.facts)
    yield "judged", "; ".join(_judged(manifest))
    place = manifest.location or f"{manifest.chunks} chunk{'s' * (manifest.chunks != 1)} in the log"
    yield "weights", f"{len(manifest.tensors):,} tensors, {manifest.size:,} bytes, {place}"
    yield "sha256", manifest.sha256
    yield "task", " ".join([manifest.task.kind, *map(str, manifest.task.classes)])
    yield "features", manifest.features
    yield "code", manifest.code_digest
    yield "seed", str(manifest.seed)


def differing(manifest: Manifest, code_digest: str) -> str:
    """Why a release that was made again may differ; `code_digest`: of the code that made it again."""
    if manifest.code_digest != code_digest:
        return (
            f"the code is not what made the release (code digest {manifest.code_digest[:12]}, now {code_digest[:12]}): "
            "use the same pipeline file and the same versions of Tailrace and torch"
        )
    threads = (fact(manifest.facts, "plan", dict[str, Any]) or {}).get("threads", 1)
    several = f"it was trained on {threads} threads, " if threads != 1 else ""
    return (
        f"the code is what made the release; {several}a GPU, another kind of processor or several training processes "
        "sum in another order: rebuild where the retrainer ran, on the CPU"
    )


def examples_in(ranges: Iterable[Range]) -> int:
    """How many offsets lie in these ranges."""
    return sum(part.end - part.start for part in ranges)


def _descent(ancestor: Ancestor, before: list[Ancestor]) -> str:
    """One line of a lineage; `before`: the release that the weights come from, where there is one."""
    version, chain = ancestor.version, ancestor.chain
    if ancestor.made_by is None:
        return f"v{version} was removed: what it came from is not known"
    origin = "fresh weights"
    if before:
        made = {"update": ", an update", "run": f", a run: {before[0].reason}", None: ", since removed"}
        origin = f"v{before[0].version}{made[before[0].made_by]}"
    if chain:
        many = f"chain of {chain.updates:,} update{'s' * (chain.updates != 1)}"
        return f"v{version} <- update of v{ancestor.parent} ({many} from {origin})"
    against = f", measured against v{ancestor.parent}" if ancestor.parent else ""
    return f"v{version} <- run from {origin}{against}"


def _run(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Why a run was begun, and with which plan, as far as its release tells."""
    labels, now, since = (fact(facts, name, float) for name in ("labels", "now", "since"))
    events, run_s = (fact(facts, name, float) for name in ("events", "run_s"))
    known = [] if labels is None else [f"{labels:,.0f} labels"]
    if now is not None and since is not None:
        known.append(f"{words(now - since)} since the run before, or since counting began")
    if events is not None:
        known.append(f"{events:,.0f} events")
    if run_s is not None:
        known.append(f"that run took {words(run_s)}")
    known += _signals(fact(facts, "drift", DriftSignals), fact(facts, "live", list[Live]))
    yield "facts", "; ".join(known) or "none were recorded"
    train, fresh = (fact(facts, name, int) for name in ("train", "fresh"))
    if train is not None and fresh is not None:
        yield "", f"chosen: {train:,} examples to train on, {fresh:,} of them new to the champion"
    plan = fact(facts, "plan", dict[str, Any])
    if plan is not None:
        usual = msgspec.json.decode(msgspec.json.encode(Training()))
        yield "plan", ", ".join(f"{k}={v}" for k, v in plan.items() if v != usual.get(k)) or "the default"


def fact(facts: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """A fact of this kind; None where there is none: other versions of Tailrace may record others."""
    try:
        return msgspec.convert(facts.get(name), kind, strict=False)
    except msgspec.ValidationError:
        return None


def _signals(drift: DriftSignals | None, live: list[Live] | None) -> Iterator[str]:
    """Drift, and what the served scores were worth."""
    if drift and drift.loss:
        rise = f"from {_number(drift.loss.before)} to {_number(drift.loss.after)}"
        yield f"the loss rose {rise} within {drift.loss.labels:,} labels"
    if drift and drift.features:
        yield f"drift of {', '.join(change.what for change in drift.features)}"
    for figure in live or ():
        reference = "" if figure.reference is None else f", {figure.reference:.4g} when it was published"
        yield f"live {figure.metric} {figure.mean:.4g} over {figure.labels:,} labels{reference}"


def _judged(manifest: Manifest) -> Iterator[str]:
    """The figures beside the champion's."""
    champion, difference = (manifest.metrics.get(name, {}) for name in ("champion", "difference"))
    for metric, value in manifest.metrics.get("candidate", {}).items():
        beside = champion.get(metric)
        against = "" if beside is None else f", the champion's {_number(beside)}"
        yield f"{metric.replace('_', ' ')} {_number(value)}{against}"
    if difference.get("mean") is not None:
        mean, low, high = (_number(difference.get(name)) for name in ("mean", "low", "high"))
        yield f"difference {mean}, between {low} and {high} (below 0 is better)"
    elif manifest.updates:
        yield "no gate: an update is only guarded against doing harm to the labels that it learns"
    else:
        yield "there was no champion to compare it with"


def _weights(base: int) -> str:
    return f"the weights of release {base}" if base else "fresh weights"


def _offsets(part: Range) -> str:
    return f"offsets {part.start:,} to {part.end - 1:,}" if part.end > part.start else "nothing"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
