"""Description of a release from its manifest (pure): origin, examples, reason of its training, metrics."""

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
"""Return the manifest of a release; None if the release was removed."""


class Chain(msgspec.Struct, frozen=True):
    """Online updates that led from the weights of release `base` (0: fresh weights) to a release.

    `updates`: number of updates; `labels`: number of labels that they learned; `remembered`: number of examples in the
    replay buffer when the chain began.
    """

    base: int
    updates: int
    labels: int
    remembered: int

    @classmethod
    def of(cls, manifest: Manifest) -> Chain | None:
        """Return the chain of a release; None if a run trained it."""
        updates = manifest.updates
        if updates is None:
            return None
        labels = sum(sum(chunk.values()) for chunk in updates.learned)
        return cls(updates.base, len(updates.learned), labels, examples_in(updates.remembered))


class Ancestor(msgspec.Struct, frozen=True):
    """One release of a lineage.

    `made_by`: None if the release was removed, so its origin is unknown; `base`: the release whose weights training
    started from, 0 for fresh weights; `parent`: the champion before it, 0 for none.
    """

    version: int
    made_by: Literal["update", "run"] | None
    reason: str = ""
    parent: int = 0
    base: int = 0
    chain: Chain | None = None

    @classmethod
    def of(cls, version: int, manifest: Manifest | None) -> Ancestor:
        """Return the entry for a release and its manifest; `manifest` None: the release was removed."""
        if manifest is None:
            return cls(version, None)
        made_by: Literal["update", "run"] = "update" if manifest.updates else "run"
        return cls(version, made_by, manifest.reason, manifest.parent, manifest.base, Chain.of(manifest))


def lineage(manifest: Manifest, find: Find) -> list[Ancestor]:
    """Return a release, the release whose weights it started from, and so on.

    The lineage ends at a release that started from fresh weights, or at a release that was removed.
    """
    ancestors = [Ancestor.of(manifest.version, manifest)]
    # A base must be older than its release. This ends the loop for manifests that are unverified and may be forged.
    while 0 < ancestors[-1].base < ancestors[-1].version:
        ancestors.append(Ancestor.of(ancestors[-1].base, find(ancestors[-1].base)))
    return ancestors


def builtin(signed: Signed, manifest: Manifest, aliases: list[str], find: Find) -> dict[str, Any]:
    """Return the description for JSON: the manifest, its signing key, aliases, chain of updates and lineage.

    The rows of the golden batch are replaced by their number.
    """
    description: dict[str, Any] = msgspec.to_builtins(manifest)
    description["golden"] = f"{len(manifest.golden.scores)} rows"
    ancestors = lineage(manifest, find)
    return description | {
        "key_id": signed.key_id,
        "aliases": aliases,
        "chain": msgspec.to_builtins(ancestors[0].chain),
        "lineage": msgspec.to_builtins(ancestors),
    }


def lines(signed: Signed, manifest: Manifest, aliases: list[str], find: Find) -> Iterator[tuple[str, str]]:
    """Yield the description for a terminal as (subject, text); an empty subject continues the one before."""
    yield "release", ", ".join([str(manifest.version), *aliases])
    yield "created", f"{utc_text(manifest.created)}, signed by key {signed.key_id}"
    yield "reason", manifest.reason
    ancestors = lineage(manifest, find)
    for number, ancestor in enumerate(ancestors):
        yield "" if number else "lineage", _descent(ancestor, ancestors[number + 1 : number + 2])
    yield "learned", f"{manifest.examples:,} examples; newest event {utc_text(manifest.trained_through)}"
    for part in manifest.ranges:
        yield "", f"{part.topic}/{part.partition}, {_offsets(part)}"
    chain = ancestors[0].chain
    if chain and manifest.updates:
        yield "updates", f"{chain.updates:,} in this chain, {chain.labels:,} labels, from {_weights(chain.base)}"
        parts = ", ".join(f"partition {part.partition} {_offsets(part)}" for part in manifest.updates.remembered)
        yield "", f"the replay buffer held {chain.remembered:,} examples at its start{parts and ': ' + parts}"
    else:
        yield from _run(manifest.facts)
    yield "metrics", "; ".join(_metrics(manifest))
    place = manifest.location or f"{manifest.chunks} chunk{'s' * (manifest.chunks != 1)} in the log"
    yield "weights", f"{len(manifest.tensors):,} tensors, {manifest.size:,} bytes, {place}"
    yield "sha256", manifest.sha256
    yield "task", " ".join([manifest.task.kind, *map(str, manifest.task.classes)])
    yield "features", manifest.features
    yield "code", manifest.code_digest
    yield "seed", str(manifest.seed)


def difference_reason(manifest: Manifest, code_digest: str) -> str:
    """Return a likely reason why a rebuilt release differs; `code_digest`: digest of the code that rebuilt it."""
    if manifest.code_digest != code_digest:
        return (
            f"other code trained the release (code digest {manifest.code_digest[:12]}, now {code_digest[:12]}): "
            "use the same pipeline file and the same versions of Tailrace and torch"
        )
    threads = (fact(manifest.facts, "plan", dict[str, Any]) or {}).get("threads", 1)
    trained_on = f"it was trained on {threads} threads; " if threads != 1 else ""
    return (
        f"the same code trained the release; {trained_on}a GPU, another processor type or several training processes "
        "add numbers in another order: rebuild on the CPU of the machine type on which the retrainer ran"
    )


def examples_in(ranges: Iterable[Range]) -> int:
    """Return the number of offsets in these ranges."""
    return sum(part.end - part.start for part in ranges)


def _descent(ancestor: Ancestor, before: list[Ancestor]) -> str:
    """Return one line of a lineage; `before`: the next ancestor, empty if there is none."""
    version, chain = ancestor.version, ancestor.chain
    if ancestor.made_by is None:
        return f"v{version} was removed; its origin is unknown"
    origin = "fresh weights"
    if before:
        kind = {"update": ", an update", "run": f", a run: {before[0].reason}", None: ", since removed"}
        origin = f"v{before[0].version}{kind[before[0].made_by]}"
    if chain:
        length = f"chain of {chain.updates:,} update{'s' * (chain.updates != 1)}"
        return f"v{version} <- update of v{ancestor.parent} ({length} from {origin})"
    comparison = f", compared with v{ancestor.parent}" if ancestor.parent else ""
    return f"v{version} <- run from {origin}{comparison}"


def _run(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the facts that a run's trigger saw, the number of examples chosen, and the plan, as far as recorded."""
    labels, now, since = (fact(facts, name, float) for name in ("labels", "now", "since"))
    events, run_s = (fact(facts, name, float) for name in ("events", "run_s"))
    texts = [] if labels is None else [f"{labels:,.0f} labels"]
    if now is not None and since is not None:
        texts.append(f"{words(now - since)} since the previous run, or since the first label")
    if events is not None:
        texts.append(f"{events:,.0f} events")
    if run_s is not None:
        texts.append(f"the previous run took {words(run_s)}")
    texts += _signals(fact(facts, "drift", DriftSignals), fact(facts, "live", list[Live]))
    yield "facts", "; ".join(texts) or "none recorded"
    train, fresh = (fact(facts, name, int) for name in ("train", "fresh"))
    if train is not None and fresh is not None:
        yield "", f"{train:,} training examples, {fresh:,} of them new to the champion"
    plan = fact(facts, "plan", dict[str, Any])
    if plan is not None:
        defaults = msgspec.json.decode(msgspec.json.encode(Training()))
        yield "plan", ", ".join(f"{k}={v}" for k, v in plan.items() if v != defaults.get(k)) or "the default"


def fact(facts: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """Return a recorded fact as `kind`; None if it is absent or of another type.

    Other versions of Tailrace may record other facts.
    """
    try:
        return msgspec.convert(facts.get(name), kind, strict=False)
    except msgspec.ValidationError:
        return None


def _signals(drift: DriftSignals | None, live: list[Live] | None) -> Iterator[str]:
    """Yield phrases for people on the drift signals and on the losses of the served scores."""
    if drift and drift.loss:
        rise = f"from {_number(drift.loss.before)} to {_number(drift.loss.after)}"
        yield f"the loss rose {rise} within {drift.loss.labels:,} labels"
    if drift and drift.features:
        yield f"drift of {', '.join(change.what for change in drift.features)}"
    for figure in live or ():
        reference = "" if figure.reference is None else f", {figure.reference:.4g} when it was published"
        yield f"live {figure.metric} {figure.mean:.4g} over {figure.labels:,} labels{reference}"


def _metrics(manifest: Manifest) -> Iterator[str]:
    """Yield phrases for people on the metrics of candidate and champion and on their comparison at the gate."""
    champion, difference = (manifest.metrics.get(name, {}) for name in ("champion", "difference"))
    for metric, value in manifest.metrics.get("candidate", {}).items():
        reference = champion.get(metric)
        comparison = "" if reference is None else f", the champion's {_number(reference)}"
        yield f"{metric.replace('_', ' ')} {_number(value)}{comparison}"
    if difference.get("mean") is not None:
        mean, low, high = (_number(difference.get(name)) for name in ("mean", "low", "high"))
        yield f"difference {mean}, confidence interval {low} to {high} (below 0 is better)"
    elif manifest.updates:
        yield "no gate: an update is rejected only if it increases the loss of the labels that it learns"
    else:
        yield "no champion to compare with"


def _weights(base: int) -> str:
    return f"the weights of release {base}" if base else "fresh weights"


def _offsets(part: Range) -> str:
    return f"offsets {part.start:,} to {part.end - 1:,}" if part.end > part.start else "no offsets"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
