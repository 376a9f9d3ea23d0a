"""The roles worker, joiner and retrainer, and all of them together. Each runs until an event is set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal, TypeAlias

import structlog

from tailrace.app.factory import (
    code_digest,
    configured_store,
    create_topics,
    open_configured_log,
    signing_key,
    trusted_keys,
)
from tailrace.app.runners import build_joiner, build_rekeyer, build_worker, watch_lag
from tailrace.app.settings import Settings, as_environment
from tailrace.app.supervisor import ROLES, Roles
from tailrace.declaration.pipeline import Pipeline
from tailrace.streams.log.base import Unreachable
from tailrace.streams.runtime.garbage_collection import freeze_garbage_collector
from tailrace.streams.runtime.outage import outlast

if TYPE_CHECKING:
    from tailrace.monitoring.console.server import Console
    from tailrace.monitoring.telemetry.metrics import Metrics
    from tailrace.streams.log.records import Record
    from tailrace.streams.runtime.runner import Runner

_log = structlog.get_logger(__name__)


Deadly: TypeAlias = Callable[["Record"], bool] | None
"""See `tailrace.streams.runtime.runner.Runner`."""


def run_worker(pipeline: Pipeline, settings: Settings, stop: threading.Event, deadly: Deadly = None) -> None:
    """Score events until `stop` is set."""
    import torch

    torch.set_num_threads(1)  # one core scores a batch of a small network fastest; the other roles need the rest
    with _Role("worker", pipeline, settings) as role:
        runner = build_worker(role.log, pipeline, settings, role.stack, role.metrics, deadly=deadly)
        role.ready()
        runner.run(stop)


def run_joiner(pipeline: Pipeline, settings: Settings, stop: threading.Event, deadly: Deadly = None) -> None:
    """Join predictions and labels until `stop` is set. With Label(rekey=True), also re-key the labels."""
    with _Role("joiner", pipeline, settings) as role:
        runners = [build_joiner(role.log, pipeline, settings, role.metrics, deadly)]
        if pipeline.label.rekey:
            runners.append(build_rekeyer(role.log, pipeline, settings, role.metrics, deadly))
        role.ready()
        run_together(runners, stop)


def run_retrainer(pipeline: Pipeline, settings: Settings, stop: threading.Event) -> None:
    """Train on examples and publish releases until `stop` is set. Under torchrun only rank 0 calls it."""
    from tailrace.monitoring.telemetry.retraining_observer import RetrainingObserver
    from tailrace.retrain.control.publisher import Publisher
    from tailrace.retrain.control.retrainer import Retrainer
    from tailrace.retrain.worker.client import Trainer
    from tailrace.retrain.worker.torchrun import given_ranks

    with _Role("retrainer", pipeline, settings) as role:
        key, plan = signing_key(settings), pipeline.training
        loader = "tailrace.app.pipeline_file:load_pipeline"
        ranks = given_ranks() or settings.retrainer.nproc
        store = configured_store(settings)
        models, name = pipeline.topics.models, f"{pipeline.name}-retrainer"
        publisher = Publisher(role.log, models, name, trusted_keys(settings), key, store=store)
        role.stack.callback(publisher.close)
        observer = RetrainingObserver(role.metrics, ranks)

        def retrain() -> None:
            retrainer = Retrainer(
                role.log,
                pipeline,
                publisher,
                Trainer(loader, settings.pipeline, threads=plan.threads, nice=plan.nice, ranks=ranks),
                updates=Trainer(loader, settings.pipeline, nice=plan.nice) if pipeline.online else None,
                code_digest=code_digest(pipeline),
                observer=observer,
            )
            retrainer.run(stop)

        watch_lag(role.metrics, role.log, f"{pipeline.name}.retrainer", [pipeline.topics.examples])
        role.ready(lambda: observer.gpu_seconds)
        outlast_outages(retrain, publisher.rejoin, stop)


def outlast_outages(work: Callable[[], None], rejoin: Callable[[], None], stop: threading.Event) -> None:
    """Call `work` until it returns. Whenever the log cannot be reached, repeat `rejoin` until it succeeds, then `work`.

    Both raise Unreachable for an outage; other errors are raised.
    """
    while True:
        try:
            return work()
        except Unreachable as outage:
            if not outlast(outage, rejoin, stop):
                return None


def run_together(runners: list[Runner], stop: threading.Event) -> None:
    """Run several runners, the first in this thread. If one fails, stop all and raise its error."""
    failures: list[BaseException] = []

    def run(runner: Runner) -> None:
        try:
            runner.run(stop)
        except BaseException as error:
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=(runner,)) for runner in runners[1:]]
    for thread in threads:
        thread.start()
    run(runners[0])
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def run_all(pipeline: Pipeline, settings: Settings, stop: threading.Event) -> None:
    """Run each role as a process of its own until `stop` is set. Raises RoleFailed.

    Log, topics and keys are created first, so that an error in them is reported once and not by every role.
    """
    from tailrace.app.console import following, maybe_served

    with ExitStack() as stack:
        log = open_configured_log(settings)
        stack.callback(log.close)
        create_topics(log, pipeline, settings)
        signing_key(settings)
        page = stack.enter_context(maybe_served(settings.console, elsewhere=True, on_address=_log_address))
        host, ports = settings.monitoring.host, role_ports(settings) if settings.monitoring.enabled else {}
        roles = Roles(settings.pipeline, as_environment(settings), ports=ports, host=host)
        stack.enter_context(roles)
        if page is not None:
            urls = lambda: metrics_urls(settings, roles.ports)  # noqa: E731
            stack.enter_context(following(page, log, pipeline, settings, urls))
        roles.supervise(stop)


def _log_address(url: str, console: Console) -> None:
    _log.info("console", url=url, writable=console.token is not None)


def role_ports(settings: Settings) -> dict[str, int]:
    """Return the monitoring port of each role of `tailrace run`: the configured port and the next two; 0: any free."""
    first = settings.monitoring.port
    return {role: first + n if first else 0 for n, role in enumerate(ROLES)}


def metrics_urls(settings: Settings, ports: Mapping[str, int] | None = None) -> dict[str, str]:
    """Return the metrics URL of each role of `tailrace run`; empty if metrics are disabled or use any free port.

    `ports`: those in use, where some of the configured ones were taken.
    """
    monitoring = settings.monitoring
    if not monitoring.enabled:
        return {}
    host = monitoring.host.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  a server on all interfaces is reached by this one
    return {role: f"http://{host}:{port}/metrics" for role, port in (ports or role_ports(settings)).items() if port}


class _Role:
    """Shared resources of a role: the log with its topics, and the metrics with their server. Closes all at the end."""

    def __init__(self, name: str, pipeline: Pipeline, settings: Settings) -> None:
        self._name, self._pipeline, self._settings = name, pipeline, settings
        self.stack = ExitStack()
        self.metrics: Metrics | None = None

    def __enter__(self) -> _Role:
        with ExitStack() as stack:  # if a later step fails, closes the log that an earlier one opened
            self.log = open_configured_log(self._settings)
            stack.callback(self.log.close)
            create_topics(self.log, self._pipeline, self._settings)
            if self._settings.monitoring.enabled:
                self._serve_metrics(stack)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()
        _log.info("stopped", role=self._name, pipeline=self._pipeline.name)

    def ready(self, gpu_seconds: Callable[[], float] = lambda: 0.0) -> None:
        """Log that the role has started, and export its costs. The costs of the joiner count as training."""
        if self.metrics:
            from tailrace.monitoring.telemetry.cost import CostCollector, ResourcePrices

            prices = ResourcePrices(**self._settings.costs.model_dump())
            phase: Literal["inference", "training"] = "inference" if self._name == "worker" else "training"
            self.metrics.registry.register(CostCollector(phase, prices, gpu_seconds=gpu_seconds))
        freeze_garbage_collector()
        _log.info("started", role=self._name, pipeline=self._pipeline.name, log=self._settings.log.url)

    def _serve_metrics(self, stack: ExitStack) -> None:
        from tailrace.monitoring.telemetry.http import serve
        from tailrace.monitoring.telemetry.metrics import Metrics

        self.metrics = Metrics()
        monitoring = self._settings.monitoring
        server = stack.enter_context(serve(self.metrics, monitoring.host, monitoring.port))
        _log.info("metrics", url=f"http://{monitoring.host}:{server.port}/metrics")
