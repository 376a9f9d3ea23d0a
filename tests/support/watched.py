"""A small pipeline whose roles run in threads, with a console. The trainer process loads this file too."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from support.waiting import PATIENCE_S
from torch import Tensor, nn

from tailrace import Event, EventTime, Gate, Key, Label, Number, Pipeline, Training
from tailrace.app.console import following, served
from tailrace.app.factory import create_topics, open_configured_log, signing_key
from tailrace.app.roles import run_joiner, run_retrainer, run_worker
from tailrace.app.settings import ConsoleSettings, KeysSettings, LogSettings, MonitoringSettings, Settings
from tailrace.streams.log.records import Out
from tailrace.testing.ports import free_port
from tailrace.triggers import Labels

TOKEN = "a token for the tests, long enough"
START, RUN = 1_700_000_000.0, 150


class Reading(Event):
    """A number, and a name that the console must hide."""

    id: Key
    at: EventTime
    x: Number
    owner: str


class OneLayer(nn.Module):
    """The smallest module that can learn the label."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return logits, shape [n, 1]."""
        logits: Tensor = self.layer(numbers)
        return logits


pipeline = Pipeline(
    "readings",
    event=Reading,
    label=Label("large"),
    retrain=[Labels(RUN)],
    online=False,
    gate=Gate("log_loss", confidence=0.9999),
    training=Training(min_examples=60, holdout_least=50, epochs=10, batch_size=16, learning_rate=0.03),
    model=OneLayer,
)


_ROLES: dict[str, Callable[..., None]] = {"worker": run_worker, "joiner": run_joiner, "retrainer": run_retrainer}


class WatchedPipeline:
    """The running pipeline and the address of its console; a context manager."""

    def __init__(self, directory: Path) -> None:
        token = directory / "token"
        token.write_text(TOKEN)
        self._settings = Settings(
            pipeline=__file__,
            log=LogSettings(url=f"sqlite:///{directory}/log.db", partitions=2),
            keys=KeysSettings(directory=directory / "keys"),
            console=ConsoleSettings(port=0, token_file=token, mask=("owner",)),
        )
        self._ports = {role: free_port() for role in _ROLES}
        self._stack = ExitStack()
        self._sent = 0
        self._failures: list[BaseException] = []

    def __enter__(self) -> WatchedPipeline:
        with ExitStack() as stack:
            page, self.url = stack.enter_context(served(self._settings.console))
            self._log = open_configured_log(self._settings)
            stack.callback(self._log.close)
            create_topics(self._log, pipeline, self._settings)
            signing_key(self._settings)
            stop, threads = threading.Event(), list[threading.Thread]()
            for name in _ROLES:
                threads.append(threading.Thread(target=self._run, args=(name, stop)))
                threads[-1].start()
            stack.callback(self._stop, stop, threads)
            stack.enter_context(following(page, self._log, pipeline, self._settings, self._metrics_urls))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if self._failures:
            raise self._failures[0]

    def send(self, events: int, bad: int = 0) -> None:
        """Send events a minute apart, each with its label, and `bad` events that become dead letters."""
        topics, numbers = pipeline.topics, range(self._sent, self._sent + events)
        self._sent += events
        writer = self._log.writer()
        for n in numbers:
            x, at = (n * 37 % 100 - 49.5) / 50, START + 60 * n
            row = {"id": str(n), "at": at, "x": x, "owner": "Ms Nobody"}
            label = {"id": str(n), "label": int(x > 0), "time": at + 30}
            writer.write([Out(topics.events, None, json.dumps(row).encode())])
            writer.write([Out(topics.labels, str(n).encode(), json.dumps(label).encode())])
        writer.write([Out(topics.events, None, b'{"owner": "Ms Nobody", "x": "no number"}')] * bad)
        writer.commit()
        writer.close()

    def _metrics_urls(self) -> dict[str, str]:
        return {role: f"http://127.0.0.1:{port}/metrics" for role, port in self._ports.items()}

    def _run(self, name: str, stop: threading.Event) -> None:
        monitoring = MonitoringSettings(port=self._ports[name])
        try:
            _ROLES[name](pipeline, self._settings.model_copy(update={"monitoring": monitoring}), stop)
        except BaseException as error:
            self._failures.append(error)

    @staticmethod
    def _stop(stop: threading.Event, threads: list[threading.Thread]) -> None:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
