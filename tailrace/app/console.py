"""Assembly of the console: its server, the threads that fill the page, and the actions of an operator.

The server starts before the pipeline and the log are loaded, and the page fills as data arrives. Therefore heavy
modules are imported inside the functions that need them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tailrace.monitoring.telemetry.http import PortTaken

if TYPE_CHECKING:
    from tailrace.app.settings import ConsoleSettings, Settings
    from tailrace.declaration.pipeline import Pipeline
    from tailrace.inference.serving.loader import Loader
    from tailrace.monitoring.console.server import Console
    from tailrace.streams.log.base import Log

Urls = Callable[[], Mapping[str, str]]


@contextmanager
def served(settings: ConsoleSettings, *, elsewhere: bool = False) -> Iterator[tuple[Console, str]]:
    """Serve an empty console and yield it with its URL.

    If the port is taken, use any free port if `elsewhere` is set, else raise PortTaken.
    """
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
        console.sections.put({"about": {"writable": console.token is not None, "masked": sorted(settings.mask)}})
        yield console, f"http://{host}:{address.port}/"


def announce(url: str, console: Console) -> None:
    """Print the URL of the page to stderr."""
    mode = "" if console.token is None else " (its token allows changes)"
    print(f"console: {url}{mode}", file=sys.stderr, flush=True)


@contextmanager
def maybe_served(
    settings: ConsoleSettings, *, elsewhere: bool = False, on_address: Callable[[str, Console], None] = announce
) -> Iterator[Console | None]:
    """Serve a console and pass its URL to `on_address`; yield None if the settings disable the console."""
    if not settings.enabled:
        yield None
        return
    with served(settings, elsewhere=elsewhere) as (console, url):
        on_address(url, console)
        yield console


@contextmanager
def following(
    console: Console, log: Log, pipeline: Pipeline, settings: Settings, urls: Urls, *, freeze_after: float | None = None
) -> Iterator[None]:
    """Fill the console from a log until the context ends. `urls` returns the /metrics URL of each role.

    `freeze_after`: seconds of event time after which the champion is kept as a frozen reference, which loads torch.
    With None the live model is compared with the base rate only.
    """
    from tailrace.app.operations import console_actions
    from tailrace.monitoring.console.follower import ConsoleFollower
    from tailrace.monitoring.console.page import ConsolePage
    from tailrace.monitoring.console.scraper import MetricsScraper

    follower = ConsoleFollower(
        log,
        pipeline,
        ConsolePage(pipeline, settings.console.mask),
        console.sections,
        groups=_groups(pipeline),
        loader=None if freeze_after is None else _loader(pipeline, settings),
        freeze_after=freeze_after or 0.0,
    )
    scraper = MetricsScraper(console.sections, urls)
    console.sections.put({"about": _about(console, pipeline, settings)})
    console.actions = console_actions(log, pipeline, settings)
    follower.start()
    scraper.start()
    try:
        yield
    finally:
        console.actions = None
        scraper.close()
        follower.close()


def _about(console: Console, pipeline: Pipeline, settings: Settings) -> dict[str, object]:
    """Return the section `about`: facts that do not change while the console runs."""
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


def _loader(pipeline: Pipeline, settings: Settings) -> Loader | None:
    """Return a loader of releases; None if no key is trusted. Without a loader the page has no frozen reference."""
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
    """Return the consumer group of each role, and the topics that it reads."""
    from tailrace.app.factory import join_labels

    topics, name = pipeline.topics, pipeline.name
    return {
        "worker": (f"{name}.worker", [topics.events]),
        "joiner": (f"{name}.joiner", [topics.predictions, join_labels(pipeline)]),
        "retrainer": (f"{name}.retrainer", [topics.examples]),
    }
