"""The state of the pipeline and the next run, in words."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.declaration.durations import words
from tailrace.declaration.facts import Facts
from tailrace.declaration.triggers import Age, Below, Drift, Labels, Schedule, Trigger, Worthwhile, first_due
from tailrace.monitoring.console.status import StatusInputs, describe_next_run, status

FINE = StatusInputs(None, 0, 0.1, 14, 7_200.0, None, "next retraining in 8 m")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
FACTS = Facts(NOON, NOON - 3_600, 120, created=NOON - 3_600)


@pytest.mark.parametrize(
    ("inputs", "state", "text"),
    [
        (FINE, "healthy", "healthy: v14 live for 2 h, next retraining in 8 m"),
        (FINE._replace(champion=0, next_run=None), "healthy", "healthy: the base rate is live until the first release"),
        (FINE._replace(silent_s=None), "waiting", "waiting for the first event"),
        (FINE._replace(silent_s=None, waiting=5), "waiting", "stalled: 5 events wait, none was predicted yet"),
        (FINE._replace(silent_s=60.0, waiting=1_204), "trouble", "1,204 events wait, none was predicted for 1 m"),
        (FINE._replace(silent_s=9_999.0), "healthy", "v14 live"),
        (FINE._replace(worse="worse than the base rate"), "trouble", "degraded: v14 live, worse than the base rate"),
        (FINE._replace(problem="no broker answers", waiting=9), "trouble", "no broker answers"),
        (FINE._replace(champion_age_s=0.00801), "healthy", "healthy: v14 live for less than 1 s, next"),
        (FINE._replace(champion_age_s=42.4), "healthy", "healthy: v14 live for 42 s, next"),
    ],
)
def test_the_status_is_the_most_serious_condition(inputs: StatusInputs, state: str, text: str) -> None:
    """One sentence names a problem before anything else; ages are for people."""
    answer = status(inputs)
    assert answer.state == state
    assert text in answer.text


@pytest.mark.parametrize(
    ("triggers", "event_clock", "text"),
    [
        ([], False, None),
        ([Schedule("8 12 * * *")], False, "next retraining in 8 m"),
        ([Schedule("8 12 * * *")], True, "next retraining at 01 Mar 12:08 event time"),
        ([Schedule("0 5 * * *"), Age("2h")], False, "next retraining in 1 h"),
        ([Age("30m")], False, "next retraining now"),
        ([Labels(500), Drift()], False, "next retraining after 380 more labels or on drift"),
        ([Labels(100)], False, "next retraining now"),
        ([Below("log_loss"), Worthwhile(value=1, price=1)], False,
         "next retraining on a worse metric or a saving above its cost"),
    ],
)  # fmt: skip
def test_the_next_run_is_described(triggers: list[Trigger], event_clock: bool, text: str | None) -> None:
    """The soonest instant comes first, then what else can start a run; event time is named."""
    assert describe_next_run(triggers, FACTS, event_clock=event_clock) == text


def test_time_alone_starts_no_run() -> None:
    """A time that has passed without a new label makes a run start with the next label."""
    assert describe_next_run([Age("30m")], FACTS._replace(labels=0)) == "next retraining with the next label"


TIMED = st.one_of(
    st.sampled_from([Schedule(cron) for cron in ("* * * * *", "*/7 * * * *", "0 * * * *", "30 4 * * 1")]),
    st.builds(Age, st.sampled_from(["5m", "6h", "30d"])),
)


@given(st.lists(TIMED, min_size=1, max_size=4), st.floats(0, 1e6), st.none() | st.floats(0, 1e6), st.integers(1, 99))
def test_the_described_instant_is_the_first_at_which_a_trigger_is_due(
    triggers: list[Trigger], since: float, created: float | None, labels: int
) -> None:
    """The page says "now" exactly when a trigger is due, and otherwise names the first instant at which one is."""
    facts = Facts(NOON, NOON - since, labels, None if created is None else NOON - created)
    text = describe_next_run(triggers, facts)
    if first_due(triggers, facts) is not None:
        assert text == "next retraining now"
    elif text is not None:
        instants = [time for trigger in triggers if (time := trigger.time(facts)) is not None]  # type: ignore[attr-defined]
        soonest = min(instants)
        assert text == f"next retraining in {words(soonest - NOON)}"
        assert first_due(triggers, facts._replace(now=soonest)) is not None
        assert first_due(triggers, facts._replace(now=soonest - 1e-3)) is None
        assert re.fullmatch(r"next retraining in [\d.,e+]+ (s|m|h|d)", text)
    else:
        assert created is None
        assert all(isinstance(trigger, Age) for trigger in triggers)
