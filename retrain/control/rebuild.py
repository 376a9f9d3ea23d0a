"""Rebuild a release from the log: equal offsets, base, seed and code give equal bytes on the CPU.

The examples are read again by the offsets in the manifest; the initial weights come from the release that the manifest
names as its base. Importing this module imports torch.

Errors:

    Unrepeatable            what is needed is gone (the base, or examples), unknown, or not what the pipeline declares
    control.model_topic.UnknownRelease, releases.manifest.Refused, releases.storage.StoreUnreachable
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
import torch

from tailrace.declaration.facts import Due, Facts
from tailrace.declaration.online import Online
from tailrace.declaration.pipeline import Pipeline
from tailrace.declaration.training import Training
from tailrace.errors import TailraceError
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import Manifest, Range
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.retrain.control import run as runs
from tailrace.retrain.control.champion import Champion
from tailrace.retrain.control.model_topic import Models, UnknownRelease
from tailrace.retrain.selection.buffer import Row, Selection, by_maturity
from tailrace.retrain.selection.examples import ExampleDecoder
from tailrace.retrain.selection.split import in_order, repeats
from tailrace.retrain.training.distributed import ALONE
from tailrace.retrain.worker.candidate import candidate
from tailrace.retrain.worker.online_trainer import OnlineTrainer
from tailrace.retrain.worker.protocol import Begin, Learn, Rows
from tailrace.streams.log.base import Log, TopicPartition


class Unrepeatable(TailraceError):
    """The release cannot be rebuilt. The message names what is missing and the setting that would have kept it."""


class Rebuilt(NamedTuple):
    """Result of a rebuild: SHA-256 (hex) of the weights; `equal`: they are those of the release."""

    sha256: str
    equal: bool
    examples: int


class Rebuilder:
    """Trains releases of one pipeline again, in this process, to compare their weights with the published ones."""

    def __init__(self, log: Log, models: Models, trusted: TrustedKeys, declared: Pipeline) -> None:
        self._log, self._models, self._trusted, self._declared = log, models, trusted, declared
        self._spec = ModelSpec.of(declared)
        self._decoder = ExampleDecoder(self._spec)

    def rebuild(self, version: int, report: Callable[[int, int], None] = lambda done, of: None) -> Rebuilt:
        """Train release `version` again. Raises Unrepeatable, and the errors of `Models.verified`.

        `report` is called with the number of steps or updates done and their total; first (0, 0), when all was read.
        """
        manifest, _ = self._models.verified(version, self._trusted)
        if (manifest.features, manifest.task) != (self._spec.features.digest, self._declared.task):
            raise Unrepeatable(
                f"release {version} was made for other features, or another label, than the pipeline declares now: "
                "use the pipeline file that it was made with"
            )
        torch.set_num_threads(1)  # as the training process does: sums in another order give other last bits
        state = self._updated(manifest, report) if manifest.updates else self._trained(manifest, report)
        digest = hashlib.sha256(state).hexdigest()
        return Rebuilt(digest, digest == manifest.sha256, manifest.examples)

    def _updated(self, manifest: Manifest, report: Callable[[int, int], None]) -> bytes:
        """Repeat the chain of online updates that made a release, from its base on."""
        updates = manifest.updates
        assert updates is not None
        remembered, twin = self._rows(updates.remembered), OnlineTrainer(self._spec)
        plan = msgspec.convert(updates.plan, Online)
        base = self._base(manifest)
        twin.begin(Begin(state=base, remembered=Rows.of(remembered), plan=plan, seed=updates.seed))
        report(0, 0)
        places, state = dict(updates.starts), b""
        for number, chunk in enumerate(updates.learned):
            ranges = [Range(self._topic, p, places[p], places[p] + count) for p, count in sorted(chunk.items())]
            places.update((part.partition, part.end) for part in ranges)
            state = twin.learn(Learn(Rows.of(self._rows(ranges)))).state
            report(number + 1, len(updates.learned))
        return state

    def _trained(self, manifest: Manifest, report: Callable[[int, int], None]) -> bytes:
        """Repeat the training run that made a release."""
        facts = manifest.facts
        unknown = sorted({"plan", "online", "seen", "train", "fresh", "now", "since", "labels"} - facts.keys())
        if unknown:
            raise Unrepeatable(
                f"release {manifest.version} does not tell its run's {', '.join(unknown)}: it was made by something "
                "else than this version of Tailrace, use the one that made it"
            )
        plan = msgspec.convert(facts["plan"], Training)
        if not repeats(plan):
            raise Unrepeatable(f"{type(plan.data).__name__}() chose its examples: offsets alone do not tell which")
        seen = {int(partition): at for partition, at in facts["seen"].items()}
        rows = in_order(self._rows(manifest.ranges), seen)
        train, base = facts["train"], self._base(manifest)
        selection = Selection(rows[:train], facts["fresh"], rows[train:], {})
        now = Facts(facts["now"], facts["since"], facts["labels"])
        warm = manifest.base != 0 and plan.start == "warm"
        recorded = self._declared.replace(
            training=plan, online=msgspec.convert(facts["online"], Online | None) or False
        )
        run = runs.prepare_run(Due("", ""), now, Champion(0), selection, manifest.seed, recorded, warm=warm)
        job = runs.job_of(run, recorded, base)
        report(0, 0)
        return candidate(self._spec, job, lambda step, steps, loss: report(step, steps), ALONE).state

    def _base(self, manifest: Manifest) -> bytes | None:
        if manifest.base == 0:
            return None
        try:
            return self._models.verified(manifest.base, self._trusted)[1]
        except UnknownRelease as unknown:
            raise Unrepeatable(
                f"release {manifest.version} was made from release {manifest.base}, which was removed ({unknown}): "
                "rebuild a release whose base is kept, as those of the newest releases are"
            ) from None

    def _rows(self, ranges: Iterable[Range]) -> list[Row]:
        rows: list[Row] = []
        for part in ranges:
            where = TopicPartition(part.topic, part.partition)
            begin = self._log.begin_positions(part.topic).get(where, 0)
            if begin > part.start:
                place = f"{part.topic}/{part.partition} begins at offset {begin}, {part.start} is needed"
                raise Unrepeatable(f"{place}: the examples were removed; a longer log.retention would keep them")
            for records in self._log.scan(where, part.start, part.end):
                rows += self._decoder.rows(records).rows
        return by_maturity(rows)

    @property
    def _topic(self) -> str:
        return self._declared.topics.examples
