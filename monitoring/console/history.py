"""The history of the model (pure): releases, runs, online updates, actions of operators, and swaps.

It is a fold over the models topic. Each entry has two times: `at`, the wall time at which its record was written, and
`event_at`, the event time that the pipeline had reached. In a replay of old events the two run apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from tailrace.inference.releases.manifest import Manifest, Refused, parse
from tailrace.inference.releases.registry import Registry
from tailrace.retrain.control.reports import RunReport, read_report
from tailrace.streams.log.records import Record

RELEASES = 40
ENTRIES = 60
_RETRAINER = "retrainer"  # the actor of an alias that the retrainer moved


class ReleaseHistory:
    """Folds the records of the models topic, and the release that scored the newest predictions."""

    def __init__(self) -> None:
        self.registry = Registry(hold=0)
        self.last_run: RunReport | None = None
        self.last_published: RunReport | None = None
        """Report of the last run that published a release, as far as it was read: the topic keeps the last run only."""
        self.updates = self.labels = self.runs = self.swaps = 0
        self.serving: int | None = None
        self.champion_since: float | None = None
        self._event_time: float | None = None
        self._releases: dict[int, dict[str, Any]] = {}
        self._entries: deque[dict[str, Any]] = deque(maxlen=ENTRIES)

    @property
    def champion(self) -> int:
        """Version that the alias `champion` points to; 0: the base rate."""
        alias = self.registry.aliases.get("champion")
        return alias.version if alias else 0

    @property
    def challenger(self) -> int | None:
        """Version that the alias `challenger` points to, if any."""
        alias = self.registry.aliases.get("challenger")
        return alias.version if alias else None

    def take(self, records: Sequence[Record], event_time: float | None = None) -> None:
        """Add records of the models topic. `event_time`: newest label time that the pipeline has reached, unix seconds.

        Pass None for records from before the console began: then the newest event of the releases stands for it.
        """
        for record in records:
            at = record.timestamp / 1000
            if event_time is not None:
                self._event_time = event_time
            report = read_report(record)
            if report is not None:
                self._add_run(report, at)
                continue
            before = set(self.registry.releases)
            self.registry.apply([record])
            for version in self.registry.releases.keys() - before:
                self._add_release(version, at, live=event_time is not None)
            if record.key == b"alias/champion":
                self._add_promotion(at)

    def scored(self, release: int, at: float) -> None:
        """Record the release of the newest prediction, at wall time `at`; count a swap if another one served before."""
        before, self.serving = self.serving, release
        if before in (None, release):
            return
        self.swaps += 1
        row = self._releases.get(release)
        if row is not None and row["served"] is None:
            row["served"] = at

    def manifest(self, version: int) -> Manifest | None:
        """Manifest of a release, its signature unchecked; None if it was removed or cannot be parsed."""
        raw = self.registry.releases.get(version)
        try:
            return None if raw is None else parse(raw.signed)[1]
        except Refused:
            return None

    def section(self) -> dict[str, Any]:
        """Section of the page: releases, newest first, their aliases, and the numbers of runs, updates and swaps."""
        aliases: dict[int, list[str]] = {}
        for name, alias in self.registry.aliases.items():
            aliases.setdefault(alias.version, []).append(name)
        rows = [
            row | {"kept": version in self.registry.releases, "aliases": aliases.get(version, [])}
            for version, row in self._releases.items()
        ]
        return {
            "champion": self.champion,
            "challenger": self.challenger,
            "serving": self.serving,
            "count": self.registry.latest,
            "updates": self.updates,
            "runs": self.runs,
            "swaps": self.swaps,
            "rows": list(reversed(rows)),
        }

    def timeline(self) -> list[dict[str, Any]]:
        """Entries of the timeline, newest first: runs, online updates, promotions and rollbacks by operators."""
        return list(reversed(self._entries))

    def marks(self) -> list[dict[str, Any]]:
        """Marks on the console's quality chart, by event time: runs and operators' actions.

        The kind of a run that drift triggered is "drift".
        """
        return [
            {
                "at": entry["event_at"],
                "kind": "drift" if entry.get("trigger") == "drift" else entry["kind"],
                "text": entry["title"],
            }
            for entry in self._entries
            if entry["kind"] in ("run", "operator") and entry["event_at"] is not None
        ]

    def _add_run(self, run: RunReport, at: float) -> None:
        self.last_run = run
        self.runs += 1
        gate = run.gate
        if run.outcome == "published":
            self.last_published = run
        outcomes = {"published": f"release {run.version}", "refused": "refused by the gate", "failed": "failed"}
        self._entries.append(
            {
                "kind": "run",
                "at": at,
                "event_at": self._event_time,
                "outcome": run.outcome,
                "title": f"Retrained: {outcomes[run.outcome]}",
                "trigger": run.trigger,
                "reason": run.reason,
                "detail": gate.reason if gate else run.detail,
                "gate": None if gate is None else ("passed" if gate.passed else "refused"),
                "examples": run.examples,
                "seconds": run.total_s,
                "version": run.version,
            }
        )

    def _add_release(self, version: int, at: float, *, live: bool) -> None:
        manifest = self.manifest(version)
        if manifest is None:
            return
        if not live and manifest.trained_through:
            self._event_time = max(self._event_time or 0.0, manifest.trained_through)
        self._releases[version] = {
            "version": version,
            "parent": manifest.parent,
            "made": "update" if manifest.updates else "run",
            "at": at,
            "examples": manifest.examples,
            "reason": manifest.reason,
            "bytes": manifest.size,
            "metrics": manifest.metrics.get("candidate", {}),
            "served": None,
        }
        while len(self._releases) > RELEASES:
            del self._releases[next(iter(self._releases))]
        if manifest.updates is not None:
            learned = manifest.updates.learned
            self._add_update(version, sum(learned[-1].values()) if learned else 0, at)

    def _add_update(self, version: int, labels: int, at: float) -> None:
        """Add an online update; consecutive ones share one entry."""
        self.updates += 1
        self.labels += labels
        last = self._entries[-1] if self._entries else None
        if last is None or last["kind"] != "updates":
            last = {"kind": "updates", "first": version, "since": at, "count": 0, "labels": 0}
            self._entries.append(last)
        last["count"] += 1
        last["labels"] += labels
        last |= {"at": at, "event_at": self._event_time, "last": version}

    def _add_promotion(self, at: float) -> None:
        """Record a change of the champion; add an entry to the timeline if an operator made it."""
        self.champion_since = at
        alias = self.registry.aliases.get("champion")
        if alias is None or alias.actor == _RETRAINER:
            return
        self._entries.append(
            {
                "kind": "operator",
                "at": at,
                "event_at": self._event_time,
                "title": f"{alias.actor} made release {alias.version} the champion",
                "reason": alias.reason,
                "version": alias.version,
            }
        )
