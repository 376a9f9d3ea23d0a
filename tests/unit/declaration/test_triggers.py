"""Triggers: when a run is due, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tailrace.declaration.facts import Change, DriftSignals, Due, Facts, Live
from tailrace.declaration.triggers import (
    Age,
    Below,
    Drift,
    Labels,
    Schedule,
    Trigger,
    Worthwhile,
    first_due,
    next_time,
)
from tailrace.errors import DeclarationError


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_labels_are_due_at_their_count_and_say_so() -> None:
    """A label trigger is silent one label early and names the numbers when due."""
    assert Labels(2_000).due(Facts(now=0, since=0, labels=1_999)) is None
    assert Labels(2_000).due(Facts(now=0, since=0, labels=2_345)) == Due("labels", "2,345 new labels (every 2,000)")


def test_a_schedule_is_due_at_its_instant() -> None:
    """A schedule is silent before its instant, due at it, and names it."""
    since = at("2024-05-01T10:20:00")
    assert Schedule("0 * * * *").due(Facts(at("2024-05-01T10:59:59"), since, 5)) is None
    due = Schedule("0 * * * *").due(Facts(at("2024-05-01T11:00:00"), since, 5))
    assert due == Due("schedule", "schedule '0 * * * *', due 2024-05-01 11:00 UTC, 5 new labels")


def test_a_late_check_makes_up_for_the_missed_instant() -> None:
    """A run that was due while nobody looked is made up for, once."""
    late = at("2024-05-01T13:30:00")
    assert Schedule("0 * * * *").due(Facts(late, at("2024-05-01T10:20:00"), 5)) is not None
    assert Schedule("0 * * * *").due(Facts(late + 60, late, 5)) is None


def test_a_schedule_without_new_labels_is_not_due() -> None:
    """No new labels, no run."""
    assert Schedule("* * * * *").due(Facts(at("2024-05-01T13:30:00"), 0, 0)) is None


@pytest.mark.parametrize("cron", ["", "hourly", "61 * * * *", "* * * *", "0 0 30 2 *"])
def test_a_wrong_cron_expression_is_refused_at_declaration(cron: str) -> None:
    """What is no cron expression, or never comes, raises a DeclarationError that shows a right one."""
    with pytest.raises(DeclarationError, match="0 \\* \\* \\* \\*"):
        Schedule(cron)


def test_a_label_count_below_one_is_refused() -> None:
    """Labels(0) would train without labels."""
    with pytest.raises(DeclarationError, match="at least 1"):
        Labels(0)


def test_the_first_declared_trigger_gives_the_reason() -> None:
    """Of several due triggers the first declared one is named; of none, none."""
    facts = Facts(at("2024-05-01T13:30:00"), at("2024-05-01T12:30:00"), 10)
    assert first_due((Schedule("0 * * * *"), Labels(5)), facts) == Schedule("0 * * * *").due(facts)
    assert first_due((Labels(11), Labels(10)), facts) == Due("labels", "10 new labels (every 10)")
    assert first_due((Labels(11),), facts) is None


HOUR = 3600.0


def test_an_old_champion_is_replaced_and_its_age_told() -> None:
    """Age is silent while the champion is young, and names its age when it is not."""
    assert Age("6h").due(Facts(6 * HOUR - 1, 0, 9, created=0)) is None
    assert Age("6h").due(Facts(9 * HOUR, 0, 9, created=0)) == Due(
        "age", "champion is 9 h old (at most 6 h), 9 new labels"
    )
    assert Age("6h").due(Facts(9 * HOUR, 0, 9)) is None, "of release 0 nobody knows the age"


def test_a_run_that_published_nothing_is_not_followed_at_once() -> None:
    """After a refused run the champion is still old: the next run comes when as much time has passed again."""
    assert Age("6h").due(Facts(10 * HOUR, 9 * HOUR, 9, created=0)) is None
    assert Age("6h").due(Facts(15 * HOUR, 9 * HOUR, 9, created=0)) is not None


def test_drift_says_what_has_drifted() -> None:
    """A rise of the loss comes before a shift of features; of several features the one that shifted most is named."""
    rise = Change("loss", 0.3, 0.2, 412, before=0.31, after=0.61)
    shifts = (Change("wind", 0.4, 0.25, 1_000), Change("hour", 0.9, 0.25, 1_000))
    both = Facts(0, 0, 5, drift=DriftSignals(rise, shifts, changed=412))
    assert Drift().due(both) == Due("drift", "loss rose from 0.3100 to 0.6100, 412 labels ago")
    shifted = Facts(0, 0, 5, drift=DriftSignals(None, shifts))
    assert Drift().due(shifted) == Due("drift", "hour and 1 more shifted: stability index 0.90 (at most 0.25)")
    assert Drift().due(Facts(0, 0, 5, drift=DriftSignals())) is None


def test_drift_is_followed_up_at_doublings() -> None:
    """After the first run another is due whenever the labels since the rise have doubled, until it has settled."""
    due, learned = [], 300
    for changed in range(300, 20_000, 50):
        if Drift(settle=8_000).due(Facts(0, 0, 50, drift=DriftSignals(changed=changed, learned=learned))):
            due.append(changed)
            learned = changed
    assert due == [600, 1_200, 2_400, 4_800]
    assert Drift(settle=0).due(Facts(0, 0, 50, drift=DriftSignals(changed=900, learned=300))) is None


def live(mean: float, labels: int = 2_000, over: int = 2_000, **more: float) -> tuple[Live, ...]:
    return (Live("accuracy", over, labels, mean, 0.01, **more),)


def test_a_metric_below_a_number_is_due() -> None:
    """Accuracy below the given share is due once enough labels were measured, and speaks in the metric's own sense."""
    low = Below("accuracy", 0.9)
    assert low.due(Facts(0, 0, 5, live=live(0.12))) == Due(
        "below", "accuracy 0.8800 over 2,000 labels (should be 0.9000)"
    )
    assert low.due(Facts(0, 0, 5, live=live(0.08))) is None
    assert low.due(Facts(0, 0, 5, live=live(0.12, labels=1_999))) is None
    assert Below("log_loss", 0.9).due(Facts(0, 0, 5, live=live(0.12))) is None, "another metric was measured"


def test_a_metric_below_the_champions_is_due_beyond_noise() -> None:
    """Without a number the champion's figure at the gate counts, and three standard errors beside it."""
    assert Below("accuracy").due(Facts(0, 0, 5, live=live(0.12, reference=0.1))) is None
    assert Below("accuracy").due(Facts(0, 0, 5, live=live(0.14, reference=0.1))) is not None
    assert Below("accuracy").due(Facts(0, 0, 5, live=live(0.14, reference=0.1, reference_error=0.01))) is None
    assert Below("accuracy").due(Facts(0, 0, 5, live=live(0.99))) is None, "there is nothing to compare with"


def test_a_run_is_worth_it_when_it_saves_more_than_it_costs() -> None:
    """0.2 of loss on 10,000 events at 0.01 each saves 20; an hour's run at 15 pays, at 25 it does not."""
    staleness = (Live("log_loss", 0, 10_000, 0.7, 0.0, 0.5),)
    facts = Facts(0, 0, 10_000, live=staleness, run_s=HOUR)
    worth = Worthwhile(value=0.01, price=15).due(facts)
    assert worth == Due("worthwhile", "a run saves 20 and costs 15: log_loss 0.7000, was 0.5000")
    assert Worthwhile(value=0.01, price=25).due(facts) is None
    assert Worthwhile(value=0.01, price=25).due(facts._replace(events=20_000.0)) is not None, (
        "events without labels count"
    )
    assert Worthwhile(value=0.01, price=25).due(facts._replace(run_s=60.0)) is not None, "a short run costs less"


def test_waiting_until_a_run_pays_costs_at_most_twice_what_hindsight_would() -> None:
    """The ski rental: whenever the world goes back to what it was, staleness and run cost at most twice the cheaper."""
    worth, loss = Worthwhile(value=0.01, price=10, first_s=HOUR), 0.1
    for horizon in range(1_000, 40_000, 1_000):
        paid = 0.0
        for labels in range(100, horizon + 1, 100):
            paid += 100 * loss * worth.value
            if worth.due(Facts(0, 0, labels, live=(Live("log_loss", 0, labels, 0.5 + loss, 0.0, 0.5),))):
                paid += worth.price
                break
        assert paid <= 2 * min(horizon * loss * worth.value, worth.price) + 100 * loss * worth.value


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Age("6 fortnights"),
        lambda: Age(0),
        lambda: Drift(effect=0),
        lambda: Drift(shift=-1),
        lambda: Drift(false_alarms=1),
        lambda: Drift(settle=-1),
        lambda: Below("accuracy", 90),
        lambda: Below("auc"),  # type: ignore[arg-type]
        lambda: Below("log_loss", over=1),
        lambda: Worthwhile(value=0, price=1),
        lambda: Worthwhile(value=1, price=1, metric="cost"),  # type: ignore[arg-type]
    ],
)
def test_triggers_outside_their_ranges_are_refused(wrong: Callable[[], Trigger]) -> None:
    """What could never work is told where it is declared."""
    with pytest.raises(DeclarationError):
        wrong()


def test_time_alone_makes_a_run_due() -> None:
    """The earliest of schedule and age is known in advance; labels and drift are not, nor what nothing is known of."""
    facts = Facts(now=at("2024-05-01T10:30:00"), since=at("2024-05-01T10:20:00"), labels=5)
    assert next_time([Labels(5), Drift()], facts) is None
    assert next_time([Labels(5), Schedule("0 * * * *"), Schedule("0 5 * * *")], facts) == at("2024-05-01T11:00:00")
    assert next_time([Age("1h")], facts) is None
    aged = facts._replace(created=at("2024-05-01T09:50:00"))
    assert next_time([Age("20m"), Schedule("0 * * * *")], aged) == at("2024-05-01T10:40:00")
    assert next_time([Schedule("0 * * * *")], facts._replace(since=float("inf"))) is None
