"""The HTTP server of a role: /metrics for Prometheus, and /healthz for a supervisor that restarts stuck processes.

It runs in a daemon thread, on a port of its own, and does not depend on the loop whose health it reports.
"""

from __future__ import annotations

import socket
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
    """The server cannot listen on its port; the message names the address and the fix."""


class ServerAddress(NamedTuple):
    """Address on which a server listens."""

    host: str
    port: int


@contextmanager
def serve(metrics: Metrics, host: str = "127.0.0.1", port: int = 0) -> Iterator[ServerAddress]:
    """Serve until the context ends; port 0 takes any free one. Raises PortTaken."""
    try:
        server = make_server(host, port, _app(metrics), _Server, _QuietHandler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PortTaken(
            f"cannot serve metrics on {host}:{port} ({reason}): set monitoring.port to a free port, or to 0 for any"
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
    """A thread for each request, so that a slow scraper does not block the others."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without the look-up of the host name, which may take seconds.

        A port that a killed role has left a moment ago can be bound again.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        host, self.server_port = self.socket.getsockname()[:2]
        self.server_name = str(host)
        self.setup_environ()


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: scrapes come every few seconds."""


def _app(metrics: Metrics) -> Application:
    metrics_app: Application = make_wsgi_app(metrics.registry)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics_app(environ, start_response)
        status, text = _health(metrics.health) if path == "/healthz" else ("404 Not Found", "/metrics or /healthz")
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    return app


def _health(health: Health) -> tuple[str, str]:
    problem = health.problem()
    return ("200 OK", "ok") if problem is None else ("503 Service Unavailable", problem)
