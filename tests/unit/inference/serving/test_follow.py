"""LiveModel.follow: an always-current model outside of a worker."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import contains
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.waiting import until

from tailrace import (
    BadEvent,
    BadKey,
    Category,
    Event,
    Key,
    Label,
    LiveModel,
    NotFollowing,
    NotLoaded,
    Number,
    Pipeline,
    TailraceError,
    TopicMissing,
)
from tailrace.app.factory import live_model, trusted_keys
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.serving.loader import Loader
from tailrace.testing import Harness


class Other(Event):
    """Another event class."""

    id: Key
    size: Number


class Payment(Event):
    """An event of the test."""

    id: Key
    amount: Number
    country: Category | None = None


pipeline = Pipeline("payments", event=Payment, label=Label("fraud", base_rate=0.25))
EVENTS = [{"id": "a", "amount": 1.0, "country": "NL"}, {"id": "b", "amount": -2}]


@pytest.fixture
def kit() -> Iterator[Harness]:
    with Harness(pipeline) as kit:
        yield kit


def follow(kit: Harness, patience: float = 10.0) -> LiveModel:
    """Follow by URL and key directory."""
    return LiveModel.follow(kit.settings.log.url, pipeline, keys=kit.settings.keys.directory, patience=patience)


def test_before_the_first_release_the_base_rate_is_given(kit: Harness) -> None:
    """Without releases there is nothing to wait for: release 0 answers at once."""
    with follow(kit, patience=3_600) as live:
        release, scores = live.predict(EVENTS)
    assert (release, scores.tolist()) == (0, [[0.25], [0.25]])


def test_the_current_release_answers_from_the_first_question_on(kit: Harness) -> None:
    """The current release is loaded before the first prediction; later ones are swapped in."""
    kit.publish_untrained()
    with follow(kit, patience=3_600) as live:
        first = live.predict(EVENTS)
        assert (first.release, first.scores.shape) == (1, (2, 1))
        kit.publish_untrained(seed=1)
        until(lambda: live.predict(EVENTS).release == 2)
        assert live.predict(EVENTS).scores.tolist() != first.scores.tolist()
    assert live.predict(EVENTS).release == 2  # what serves goes on serving


def test_declared_events_and_dicts_are_the_same(kit: Harness) -> None:
    """Instances and dicts may be mixed, and an empty list gives no scores."""
    kit.publish_untrained()
    with follow(kit) as live:
        mixed = live.predict([Payment(id="a", amount=1.0, country="NL"), EVENTS[1]])
        assert mixed.scores.tolist() == live.predict(EVENTS).scores.tolist()
        assert live.predict([]).scores.shape == (0, 1)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"id": "c"}, r"event 1 does not fit Payment: .*missing required field `amount`"),
        ({"id": "c", "amount": "much"}, r"event 1 does not fit Payment: Expected `float`, got `str` - at `\$.amount`"),
        ("c", "event 1 does not fit Payment"),
    ],
)
def test_what_does_not_fit_is_named(kit: Harness, event: object, message: str) -> None:
    """The error names the event and the field."""
    with follow(kit) as live, pytest.raises(ValueError, match=message):
        live.predict([EVENTS[0], event])  # type: ignore[list-item]


def test_many_threads_may_ask(kit: Harness) -> None:
    """While releases are swapped in, one release gives all scores of an answer, in every thread."""
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


def test_a_missing_topic_or_key_is_an_error_at_once(kit: Harness, tmp_path: Path) -> None:
    """A pipeline without a models topic, and a directory without keys, raise errors that name the fix."""
    other = Pipeline("refunds", event=Payment, label=Label("fraud"))
    with pytest.raises(TopicMissing, match=r"refunds\.models.*check the log's address"):
        LiveModel.follow(kit.settings.log.url, other, keys=kit.settings.keys.directory)
    with pytest.raises(BadKey, match="copy trusted/ from the retrainer"):
        LiveModel.follow(kit.log, pipeline, keys=tmp_path)
    assert kit.log.topics()  # an open log stays the caller's


def test_a_followed_model_is_current_without_a_context(kit: Harness) -> None:
    """`follow` follows: the first answer is by the current release, and starting again changes nothing."""
    kit.publish_untrained()
    live = follow(kit, patience=3_600)
    assert live.predict(EVENTS).release == 1
    live.start()
    with live:
        kit.publish_untrained(seed=1)
        until(lambda: live.predict(EVENTS).release == 2)


def test_a_model_that_was_never_started_says_so(kit: Harness) -> None:
    """A model that was made by hand raises NotFollowing instead of answering with the base rate."""
    kit.publish_untrained()
    loader = Loader(ModelSpec.of(pipeline), trusted=trusted_keys(kit.settings))
    live = LiveModel(kit.log, pipeline.topics.models, loader)
    with pytest.raises(NotFollowing, match=r"call start\(\)"):
        live.predict(EVENTS)
    with pytest.raises(NotFollowing, match="never started"):
        live.wait_for(1, 0)


def test_errors_of_a_live_model_are_tailrace_errors(kit: Harness) -> None:
    """BadEvent is also a ValueError, and NotLoaded also a TimeoutError."""
    with follow(kit) as live:
        with pytest.raises(BadEvent) as bad:
            live.predict([{"id": "c"}])
        with pytest.raises(NotLoaded) as late:
            live.wait_for(7, 0)
    assert isinstance(bad.value, ValueError)
    assert isinstance(late.value, TimeoutError)
    assert isinstance(bad.value, TailraceError)
    assert isinstance(late.value, TailraceError)


def test_a_worker_s_log_says_which_release_was_refused_and_what_serves(kit: Harness) -> None:
    """The line names the release, the reason, and the base rate or the release that goes on serving."""
    other = Pipeline("payments", event=Other, label=Label("fraud", base_rate=0.25))
    with Harness(other) as strange:
        strange.publish_untrained()
        with capture_logs() as logs, live_model(strange.log, pipeline, strange.settings) as live:
            assert live.current().release == 0
    (refused,) = (entry for entry in logs if entry["log_level"] == "error")
    assert re.fullmatch(
        r"release 1 refused \(trained on features \w+, not \w+\); serving the base rate", refused["event"]
    )
    assert (refused["version"], refused["reason"], refused["serving"]) == (1, "wrong_features", 0)
