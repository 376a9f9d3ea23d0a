"""Laws of triggers, over random facts and rhythms of looking."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tailrace.declaration.facts import Change, DriftSignals, Facts, Live
from tailrace.declaration.triggers import (
    METRICS,
    Age,
    Below,
    Drift,
    Labels,
    Schedule,
    Trigger,
    Worthwhile,
    first_due,
    next_run,
)

TIMES = st.floats(1.6e9, 1.8e9)
LOSSES = st.floats(0, 20)
WORD = st.sampled_from(METRICS)
TRIGGERS: st.SearchStrategy[Trigger] = st.one_of(
    st.builds(Labels, st.integers(1, 5_000)),
    st.sampled_from([Schedule(cron) for cron in ("* * * * *", "*/7 * * * *", "0 * * * *", "30 4 * * 1", "0 0 1 1 *")]),
    st.builds(Age, st.sampled_from(["5m", "6h", "30d"])),
    st.builds(Drift, settle=st.integers(0, 10_000)),
    st.builds(Below, WORD, st.none() | st.floats(0, 1), st.sampled_from([100, 2_000])),
    st.builds(Worthwhile, value=st.floats(1e-6, 10), price=st.floats(1e-3, 100), metric=WORD),
)
CHANGES = st.builds(Change, st.just("loss"), LOSSES, LOSSES, st.integers(0, 5_000), LOSSES, LOSSES)
SIGNALS = st.builds(
    DriftSignals,
    st.none() | CHANGES,
    st.lists(CHANGES, max_size=2).map(tuple),
    st.none() | st.integers(0, 20_000),
    st.integers(0, 20_000),
)
LIVE = st.builds(
    Live, WORD, st.sampled_from([0, 100, 2_000]), st.integers(2, 2_000), LOSSES, LOSSES, st.none() | LOSSES, LOSSES
)
FACTS = st.builds(
    Facts, TIMES, TIMES, st.integers(0, 10_000), st.none() | TIMES, st.none() | SIGNALS,
    st.lists(LIVE, max_size=4).map(tuple), st.none() | st.floats(0, 1e5), st.none() | st.floats(0, 1e7),
)  # fmt: skip


@given(TRIGGERS, FACTS, st.integers(0, 1_000), st.floats(0, 1e6))
def test_what_is_due_stays_due(trigger: Trigger, facts: Facts, more: int, later: float) -> None:
    """More labels and more time never make a due run undue, while nothing else changes."""
    if trigger.due(facts) is not None:
        assert trigger.due(facts._replace(now=facts.now + later, labels=facts.labels + more)) is not None


@given(TRIGGERS, FACTS)
def test_without_new_labels_nothing_is_due(trigger: Trigger, facts: Facts) -> None:
    """A trigger never fires twice for the same labels."""
    assert trigger.due(facts._replace(labels=0)) is None


@given(st.lists(TRIGGERS, max_size=4), FACTS)
def test_triggers_add_up(triggers: list[Trigger], facts: Facts) -> None:
    """Several are due exactly when one of them is, and the reason is one line that the first of those gives."""
    reasons = [reason for trigger in triggers if (reason := trigger.due(facts)) is not None]
    assert first_due(triggers, facts) == (reasons[0] if reasons else None)
    assert all(reason and "\n" not in reason for reason in reasons)


@given(TRIGGERS, FACTS)
def test_facts_are_all_that_counts(trigger: Trigger, facts: Facts) -> None:
    """Asked again, a trigger says the same."""
    assert trigger.due(facts) == trigger.due(Facts(*facts))


@given(st.integers(1, 500), st.lists(st.integers(0, 300), max_size=60))
def test_labels_fire_once_for_each_count(count: int, arrivals: list[int]) -> None:
    """Whatever the batches, runs take disjoint labels, each at least `count` of them, and what is left is fewer."""
    waiting, runs = 0, []
    for arrived in arrivals:
        waiting += arrived
        if Labels(count).due(Facts(0, 0, waiting)):
            runs.append(waiting)
            waiting = 0
    assert all(taken >= count for taken in runs)
    assert waiting < count
    assert sum(runs) + waiting == sum(arrivals)


@given(st.integers(1, 59), TIMES.map(int), st.lists(st.integers(1, 2_000), min_size=1, max_size=80))
def test_a_schedule_fires_once_for_each_instant_looked_past(minutes: int, start: int, steps: list[int]) -> None:
    """Runs happen exactly at the looks before which at least one instant passed since the previous run."""
    schedule = Schedule(f"*/{minutes} * * * *")
    since = now = float(start)
    for step in steps:
        previous, now = now, now + step
        passed = any(_is_instant(t, minutes) for t in range(int(previous) + 1, int(now) + 1))
        fired = schedule.due(Facts(now, since, 1)) is not None
        assert fired == passed
        if fired:
            since = now


def _is_instant(second: int, minutes: int) -> bool:
    return second % 60 == 0 and (second // 60 % 60) % minutes == 0


@given(st.lists(TRIGGERS, max_size=5), FACTS)
def test_the_next_run_is_the_first_instant_at_which_a_trigger_is_due(triggers: list[Trigger], facts: Facts) -> None:
    """With a label waiting, the time of `next_run` is exactly when a trigger of time becomes due, and not before."""
    facts = facts._replace(labels=max(1, facts.labels))
    timed = [trigger for trigger in triggers if isinstance(trigger, Schedule | Age)]
    time = next_run(triggers, facts).time
    if time is None:
        assert first_due(timed, facts._replace(now=4e9)) is None
        return
    assert first_due(triggers, facts._replace(now=time)) is not None
    assert first_due(timed, facts._replace(now=time)) is not None
    assert first_due(timed, facts._replace(now=math.nextafter(time, 0))) is None


@given(st.lists(TRIGGERS, max_size=5), FACTS)
def test_the_next_run_counts_down_the_labels(triggers: list[Trigger], facts: Facts) -> None:
    """As many labels as `next_run` names make a `Labels` trigger due, and one label fewer does not."""
    counted = [trigger for trigger in triggers if isinstance(trigger, Labels)]
    missing = next_run(triggers, facts).labels
    if missing is None:
        assert not counted
        return
    assert first_due(counted, facts._replace(labels=facts.labels + missing)) is not None
    if missing:
        assert first_due(counted, facts._replace(labels=facts.labels + missing - 1)) is None


@given(st.lists(TRIGGERS, max_size=5), FACTS)
def test_the_next_run_names_every_other_trigger(triggers: list[Trigger], facts: Facts) -> None:
    """Each trigger is answered by the time, the labels or the signals; a signal's name is the kind that it gives."""
    answer = next_run(triggers, facts)
    others = [trigger for trigger in triggers if not isinstance(trigger, Schedule | Age | Labels)]
    assert bool(others) == bool(answer.signals)
    assert {due.kind for trigger in others if (due := first_due([trigger], facts)) is not None} <= set(answer.signals)
