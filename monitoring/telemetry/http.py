"""/metrics for Prometheus and /healthz for whatever restarts a stuck process, on a port of their own.

The server of the standard library in a daemon thread: it needs nothing of the loop that it watches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from tailrace.errors import TailraceError
from tailrace.monitoring.telemetry.health import Health

if TYPE_CHECKING:
    from tailrace.monitoring.telemetry.metrics import Metrics

Application: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class PortTaken(TailraceError, OSError):
    """The server cannot listen; the message names the address and the fix."""


class ServerAddress(NamedTuple):
    """Where the server listens."""

    host: str
    port: int


@contextmanager
def serve(metrics: Metrics, host: str = "127.0.0.1", port: int = 0) -> Iterator[ServerAddress]:
    """Serve until the context ends. Port 0 takes any free one. Raises PortTaken."""
    try:
        server = make_server(host, port, _app(metrics), _Server, _Quiet)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise PortTaken(
            f"cannot serve metrics on {host}:{port} ({why}): set monitoring.port to a free port, or to 0 for any"
        ) from error
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="metrics", daemon=True)
        thread.start()
        try:
            yield ServerAddress(host, server.server_port)
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    """A slow scraper holds up nobody."""

    daemon_threads = True
    allow_reuse_address = True

    def server_bind(self) -> None:
        """Without the look-up of the host's name, which may take seconds."""
        self.socket.bind(self.server_address)
        host, self.server_port = self.socket.getsockname()[:2]
        self.server_name = str(host)
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


def _app(metrics: Metrics) -> Application:
    show_metrics: Application = make_wsgi_app(metrics.registry)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return show_metrics(environ, start_response)
        status, text = _health(metrics.health) if path == "/healthz" else ("404 Not Found", "/metrics or /healthz")
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    return app


def _health(health: Health) -> tuple[str, str]:
    problem = health.problem()
    return ("200 OK", "ok") if problem is None else ("503 Service Unavailable", problem)
