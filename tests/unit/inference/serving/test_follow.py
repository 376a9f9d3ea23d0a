"""LiveModel.follow: an always-current model for whoever wants its scores."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import contains
from pathlib import Path
from typing import Any

import pytest
from support.waiting import until

from tailrace import Category, Event, Key, Label, LiveModel, Number, Pipeline
from tailrace.inference.releases.signing import BadKey
from tailrace.streams.log.base import TopicMissing
from tailrace.testing import Harness


class Payment(Event):
    """What is scored."""

    id: Key
    amount: Number
    country: Category | None = None


pipeline = Pipeline("payments", event=Payment, label=Label("fraud", base_rate=0.25))
EVENTS = [{"id": "a", "amount": 1.0, "country": "NL"}, {"id": "b", "amount": -2}]


@pytest.fixture
def kit() -> Iterator[Harness]:
    with Harness(pipeline) as kit:
        yield kit


def follow(kit: Harness, **options: Any) -> LiveModel:
    """By URL and key directory, as a user would."""
    return LiveModel.follow(kit.settings.log.url, pipeline, keys=kit.settings.keys.directory, **options)


def test_before_the_first_release_the_base_rate_is_given(kit: Harness) -> None:
    """Without releases there is nothing to wait for: release 0 answers at once."""
    with follow(kit, patience=3_600) as live:
        release, scores = live.predict(EVENTS)
    assert (release, scores.tolist()) == (0, [[0.25], [0.25]])


def test_the_current_release_answers_from_the_first_question_on(kit: Harness) -> None:
    """When the context begins, the release of that moment is loaded; later ones come by themselves."""
    kit.publish_untrained()
    with follow(kit, patience=3_600) as live:
        first = live.predict(EVENTS)
        assert (first.release, first.scores.shape) == (1, (2, 1))
        kit.publish_untrained(seed=1)
        until(lambda: live.predict(EVENTS).release == 2)
        assert live.predict(EVENTS).scores.tolist() != first.scores.tolist()
    assert live.predict(EVENTS).release == 2  # what serves goes on serving


def test_declared_events_and_dicts_are_the_same(kit: Harness) -> None:
    """Either may be given, mixed too, and no event gives no score."""
    kit.publish_untrained()
    with follow(kit) as live:
        mixed = live.predict([Payment(id="a", amount=1.0, country="NL"), EVENTS[1]])
        assert mixed.scores.tolist() == live.predict(EVENTS).scores.tolist()
        assert live.predict([]).scores.shape == (0, 1)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({"id": "c"}, r"event 1 does not fit Payment: .*missing required field `amount`"),
        ({"id": "c", "amount": "much"}, r"event 1 does not fit Payment: Expected `float`, got `str` - at `\$.amount`"),
        ("c", "event 1 does not fit Payment"),
    ],
)
def test_what_does_not_fit_is_named(kit: Harness, event: object, told: str) -> None:
    """The error tells which event, and what is wrong with it."""
    with follow(kit) as live, pytest.raises(ValueError, match=told):
        live.predict([EVENTS[0], event])  # type: ignore[list-item]


def test_many_threads_may_ask(kit: Harness) -> None:
    """While releases come, each answer of each thread is that of one release, whole."""
    kit.publish_untrained()
    stop, answers = threading.Event(), dict[int, set[tuple[float, ...]]]()
    lock = threading.Lock()

    def ask(live: LiveModel) -> None:
        while not stop.is_set():
            release, scores = live.predict(EVENTS)
            with lock:
                answers.setdefault(release, set()).add(tuple(scores.ravel().tolist()))

    with follow(kit) as live, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, live) for _ in range(4)]
        for seed in range(1, 4):
            version = kit.publish_untrained(seed)
            until(partial(contains, answers, version))
        stop.set()
        for asked in asking:
            asked.result()
    assert {1} == {len(scores) for scores in answers.values()}
    assert len(set.union(*answers.values())) == len(answers)


def test_what_cannot_be_followed_is_told_at_once(kit: Harness, tmp_path: Path) -> None:
    """A pipeline that is not there, and keys that are not there, are errors with their fix."""
    other = Pipeline("refunds", event=Payment, label=Label("fraud"))
    with pytest.raises(TopicMissing, match=r"refunds\.models.*check the log's address"):
        LiveModel.follow(kit.settings.log.url, other, keys=kit.settings.keys.directory)
    with pytest.raises(BadKey, match="copy trusted/ from the retrainer"):
        LiveModel.follow(kit.log, pipeline, keys=tmp_path)
    assert kit.log.topics()  # an open log stays the caller's
