"""The console of a pipeline, put together: the server first, then what it follows, and what it may change.

The server needs no pipeline and no log: it is started before anything else is loaded, and the page fills as data comes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

from tailrace.monitoring.telemetry.http import PortTaken

if TYPE_CHECKING:
    from tailrace.app.settings import ConsoleSettings, Settings
    from tailrace.declaration.pipeline import Pipeline
    from tailrace.inference.serving.loader import Loader
    from tailrace.monitoring.console.page import Lent, Subject, Waiting
    from tailrace.monitoring.console.server import Actions, Console
    from tailrace.streams.log.base import Log

T = TypeVar("T")
Urls = Callable[[], Mapping[str, str]]


@contextmanager
def served(settings: ConsoleSettings, *, elsewhere: bool = False) -> Iterator[tuple[Console, str]]:
    """An empty console and its address. Where the port is taken, another one if `elsewhere`. Raises PortTaken."""
    from tailrace.monitoring.console.server import Console, serve

    console = Console(settings.token())
    with ExitStack() as stack:
        try:
            address = stack.enter_context(serve(console, settings.host, settings.port))
        except PortTaken:
            if not elsewhere:
                raise
            address = stack.enter_context(serve(console, settings.host, 0))
        host = f"[{address.host}]" if ":" in address.host else address.host
        console.board.put({"about": {"writable": console.token is not None, "masked": sorted(settings.mask)}})
        yield console, f"http://{host}:{address.port}/"


def announce(url: str, console: Console) -> None:
    """Tell where the page is."""
    mode = "" if console.token is None else ", which can change things with its token"
    print(f"console: {url}{mode}", file=sys.stderr, flush=True)


@contextmanager
def maybe_served(
    settings: ConsoleSettings, *, elsewhere: bool = False, tell: Callable[[str, Console], None] = announce
) -> Iterator[Console | None]:
    """The same, its address told; None where the settings want none."""
    if not settings.enabled:
        yield None
        return
    with served(settings, elsewhere=elsewhere) as (console, url):
        tell(url, console)
        yield console


@contextmanager
def following(
    console: Console,
    log: Log,
    pipeline: Pipeline,
    settings: Settings,
    urls: Urls,
    *,
    freeze_after: float | None = None,
) -> Iterator[None]:
    """Fill the console from a log until the context ends. `urls`: role -> its /metrics, asked again and again.

    `freeze_after`: seconds of event time after which the champion is kept, to compare the live model with; None: the
    base rate alone is compared. What is kept is loaded, and torch with it.
    """
    from tailrace.monitoring.console.follower import Follower
    from tailrace.monitoring.console.page import View
    from tailrace.monitoring.console.scraper import Scraper

    subject = _subject(pipeline)
    view = View(subject, _lent(pipeline), settings.console.mask)
    follower = Follower(
        log,
        subject.topics,
        view,
        console.board,
        groups=_groups(pipeline),
        loader=None if freeze_after is None else _loader(pipeline, settings),
        freeze_after=freeze_after or 0.0,
    )
    scraper = Scraper(console.board, urls)
    console.board.put({"about": _about(console, pipeline, settings)})
    console.actions = _actions(log, pipeline, settings)
    follower.start()
    scraper.start()
    try:
        yield
    finally:
        console.actions = None
        scraper.close()
        follower.close()


def _about(console: Console, pipeline: Pipeline, settings: Settings) -> dict[str, object]:
    from tailrace import __version__

    return {
        "pipeline": pipeline.name,
        "label": pipeline.label.name,
        "kind": str(pipeline.task.kind),
        "log": settings.log.url.partition("?")[0],
        "writable": console.token is not None,
        "masked": sorted(settings.console.mask),
        "version": __version__,
    }


def _subject(pipeline: Pipeline) -> Subject:
    from tailrace.inference.models.spec import ModelSpec
    from tailrace.inference.serving.loader import base_rate_serving
    from tailrace.monitoring.console.page import Names, Subject
    from tailrace.streams.log.dead_letters import dead_letter_topic

    t = pipeline.topics
    dead = tuple(map(dead_letter_topic, pipeline.read_topics()))
    return Subject(
        pipeline.name,
        pipeline.label.name,
        Names(t.events, t.predictions, t.labels, t.examples, t.models, dead),
        pipeline.schema.event,
        ModelSpec.of(pipeline).features,
        pipeline.task,
        base_rate_serving(pipeline.task, pipeline.label.base_rate),
    )


def _lent(pipeline: Pipeline) -> Lent:
    from tailrace.inference.models.spec import ModelSpec
    from tailrace.monitoring.console.input_drift import Shifts
    from tailrace.monitoring.console.next_run import upcoming
    from tailrace.monitoring.console.page import Lent
    from tailrace.retrain.control.reports import read_report
    from tailrace.retrain.control.trigger_state import live_losses

    clock, metrics = pipeline.training.clock, ("log_loss", "accuracy", "squared_error")

    def next_run(waiting: Waiting) -> str | None:
        now, since = waiting.now, waiting.champion_since
        if clock == "event":
            now, since = waiting.clock, waiting.last_run.since if waiting.last_run else None
        return upcoming(pipeline.retrain, labels=waiting.labels, champion_since=since, now=now, clock=clock)

    return Lent(
        measure=lambda scores, targets: live_losses(pipeline.task.kind, scores, targets, metrics),
        read_report=read_report,
        shifts=Shifts(ModelSpec.of(pipeline).features, pipeline.retrain),
        upcoming=next_run,
    )


def _loader(pipeline: Pipeline, settings: Settings) -> Loader | None:
    """None where no key is trusted: then no release is loaded, and all else is shown."""
    from tailrace.app.factory import trusted_keys
    from tailrace.inference.models.spec import ModelSpec
    from tailrace.inference.releases.signing import BadKey
    from tailrace.inference.serving.loader import Loader

    try:
        trusted = trusted_keys(settings)
    except BadKey:
        return None
    return Loader(ModelSpec.of(pipeline), trusted=trusted)


def _groups(pipeline: Pipeline) -> dict[str, tuple[str, list[str]]]:
    """Each role's consumer group, and what it reads."""
    from tailrace.app.factory import join_labels

    t, name = pipeline.topics, pipeline.name
    return {
        "worker": (f"{name}.worker", [t.events]),
        "joiner": (f"{name}.joiner", [t.predictions, join_labels(pipeline)]),
        "retrainer": (f"{name}.retrainer", [t.examples]),
    }


def _actions(log: Log, pipeline: Pipeline, settings: Settings) -> Actions:
    """What an operator may do, with the words that the page shows."""
    from tailrace.app import operations as operating
    from tailrace.monitoring.console.server import Actions, Promote, Replay, Rollback
    from tailrace.streams.log.dead_letter_replay import replay, topics_of

    def promote(asked: Promote) -> str:
        with operating.operator(log, pipeline, settings) as publisher:
            operating.promote(publisher, asked.version, asked.reason)
        return f"release {asked.version} is the champion now"

    def roll_back(asked: Rollback) -> str:
        with operating.operator(log, pipeline, settings) as publisher:
            before, after = publisher.models.champion, operating.rollback(publisher, asked.reason)
        return f"champion: {before} -> {after}"

    def send_again(asked: Replay) -> str:
        counts = [replay(log, pipeline.name, topic, asked.reason) for topic in topics_of(pipeline, asked.topic)]
        return f"{sum(counts):,} replayed"

    return Actions(_told(promote), _told(roll_back), _told(send_again))


def _told(act: Callable[[T], str]) -> Callable[[T], str]:
    """The same; what it fails with becomes words for the user."""

    def told(asked: T) -> str:
        from tailrace.errors import error_line
        from tailrace.monitoring.console.server import ActionFailed

        try:
            return act(asked)
        except Exception as error:
            raise ActionFailed(error_line(error)[0]) from error

    return told
