"""What became of the model (pure): releases, runs with their reasons and verdicts, updates, what operators did, swaps.

Folded from the models topic. Times are those at which the records were written: a release tells times of its own clock,
which in a replay is another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from tailrace.inference.releases.manifest import Manifest, Refused, parse
from tailrace.inference.releases.registry import Registry
from tailrace.streams.log.records import Record

RELEASES = 40
ENTRIES = 60
_AUTOMATIC = "retrainer"  # the actor of releases that were made


class Verdict(Protocol):
    """What the gate said: mean losses of candidate and champion, on so many examples."""

    @property
    def passed(self) -> bool: ...
    @property
    def reason(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def candidate(self) -> float | None: ...
    @property
    def champion(self) -> float | None: ...


class Run(Protocol):
    """What is asked of the report of a run. `considered`: partition -> offset below which labels counted for it."""

    @property
    def outcome(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def since(self) -> float: ...
    @property
    def examples(self) -> int: ...
    @property
    def total_s(self) -> float: ...
    @property
    def version(self) -> int | None: ...
    @property
    def gate(self) -> Verdict | None: ...
    @property
    def considered(self) -> dict[int, int]: ...


ReadReport: TypeAlias = Callable[[Record], Run | None]
"""The report in a record of the models topic; None when it is another kind of record."""


class History:
    """The models topic, and which release was seen to score."""

    def __init__(self, read_report: ReadReport) -> None:
        self._read_report = read_report
        self.registry = Registry(hold=0)
        self.last_run: Run | None = None
        self.updates = self.labels = self.runs = self.swaps = 0
        self.serving: int | None = None
        self.champion_since: float | None = None
        self._releases: dict[int, dict[str, Any]] = {}
        self._entries: deque[dict[str, Any]] = deque(maxlen=ENTRIES)

    @property
    def champion(self) -> int:
        """The release that shall serve; 0: the base rate."""
        alias = self.registry.aliases.get("champion")
        return alias.version if alias else 0

    @property
    def challenger(self) -> int | None:
        """The release that is compared with it, where there is one."""
        alias = self.registry.aliases.get("challenger")
        return alias.version if alias else None

    def take(self, records: Sequence[Record]) -> list[int]:
        """Records of the models topic; the versions that are new."""
        new = []
        for record in records:
            at = record.timestamp / 1000
            report = self._read_report(record)
            if report is not None:
                self._ran(report, at)
                continue
            known = set(self.registry.releases)
            self.registry.apply([record])
            for version in self.registry.releases.keys() - known:
                self._released(version, at)
                new.append(version)
            if record.key == b"alias/champion":
                self._pointed(at)
        return new

    def scored(self, release: int, at: float) -> None:
        """A newest prediction was made by this release."""
        before, self.serving = self.serving, release
        if before in (None, release):
            return
        self.swaps += 1
        row = self._releases.get(release)
        if row is not None and row["served"] is None:
            row["served"] = at

    def manifest(self, version: int) -> Manifest | None:
        """A release's manifest, unverified; None when it was removed."""
        raw = self.registry.releases.get(version)
        try:
            return None if raw is None else parse(raw.signed)[1]
        except Refused:
            return None

    def section(self) -> dict[str, Any]:
        """The releases, newest first."""
        named: dict[int, list[str]] = {}
        for name, alias in self.registry.aliases.items():
            named.setdefault(alias.version, []).append(name)
        rows = [
            row | {"kept": version in self.registry.releases, "aliases": named.get(version, [])}
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
        """What happened, newest first."""
        return list(reversed(self._entries))

    def marks(self) -> list[dict[str, Any]]:
        """What a chart shows: when which run's release came, when drift was answered, when somebody stepped in."""
        return [
            {"at": entry["at"], "kind": "drift" if entry.get("drift") else entry["kind"], "text": entry["title"]}
            for entry in self._entries
            if entry["kind"] in ("run", "operator")
        ]

    def _ran(self, run: Run, at: float) -> None:
        self.last_run = run
        self.runs += 1
        gate = run.gate
        told = {"published": f"release {run.version}", "refused": "refused by the gate", "failed": "failed"}
        self._entries.append(
            {
                "kind": "run",
                "at": at,
                "outcome": run.outcome,
                "title": f"Retrained: {told.get(run.outcome, run.outcome)}",
                "reason": run.reason,
                "detail": gate.reason if gate else run.detail,
                "gate": None if gate is None else ("passed" if gate.passed else "refused"),
                "examples": run.examples,
                "seconds": run.total_s,
                "version": run.version,
                "drift": "loss rose" in run.reason or "shifted: " in run.reason,
            }
        )

    def _released(self, version: int, at: float) -> None:
        manifest = self.manifest(version)
        if manifest is None:
            return
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
            self._updated(version, sum(manifest.updates.learned[-1].values()) if manifest.updates.learned else 0, at)

    def _updated(self, version: int, labels: int, at: float) -> None:
        """Updates in a row are one entry."""
        self.updates += 1
        self.labels += labels
        last = self._entries[-1] if self._entries else None
        if last is None or last["kind"] != "updates":
            last = {"kind": "updates", "first": version, "since": at, "count": 0, "labels": 0}
            self._entries.append(last)
        last["count"] += 1
        last["labels"] += labels
        last |= {"at": at, "last": version}

    def _pointed(self, at: float) -> None:
        self.champion_since = at
        alias = self.registry.aliases.get("champion")
        if alias is None or alias.actor == _AUTOMATIC:
            return
        self._entries.append(
            {
                "kind": "operator",
                "at": at,
                "title": f"{alias.actor} made release {alias.version} the champion",
                "reason": alias.reason,
                "version": alias.version,
            }
        )
