"""How the pipeline is, in one sentence (pure)."""

from __future__ import annotations

from typing import NamedTuple

from tailrace.declaration.durations import words

SILENT_S = 15.0  # events wait and nothing was predicted for so long: something stands still


class Signs(NamedTuple):
    """What the sentence is made of. `waiting`: events not predicted yet; `silent_s`: since the last prediction (None:
    there was none yet); `champion_age_s`: since it became champion; `upcoming`: when the next run comes, in words."""

    problem: str | None
    waiting: int
    silent_s: float | None
    champion: int
    champion_age_s: float | None
    worse: str | None
    upcoming: str | None


class Verdict(NamedTuple):
    """`state`: healthy, waiting or trouble."""

    state: str
    text: str


def verdict(signs: Signs) -> Verdict:
    """The worst that is true."""
    if signs.problem:
        return Verdict("trouble", signs.problem)
    if signs.waiting and (signs.silent_s is None or signs.silent_s > SILENT_S):
        since = "yet" if signs.silent_s is None else f"for {words(signs.silent_s)}"
        return Verdict("waiting" if signs.silent_s is None else "trouble", _stalled(signs.waiting, since))
    if signs.silent_s is None:
        return Verdict("waiting", "waiting for the first event")
    if signs.worse:
        return Verdict("trouble", f"degraded: v{signs.champion} live, {signs.worse}")
    told = f"v{signs.champion} live" + ("" if signs.champion_age_s is None else f" for {words(signs.champion_age_s)}")
    if not signs.champion:
        told = "the base rate is live until the first release"
    return Verdict("healthy", ", ".join(filter(None, (f"healthy: {told}", signs.upcoming))))


def _stalled(waiting: int, since: str) -> str:
    return f"stalled: {waiting:,} events wait, none was predicted {since}: is a worker running?"
