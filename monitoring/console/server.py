"""The HTTP server of the console: aiohttp in a thread of its own, so that it answers before anything else is loaded.

GET  /                    the page; its files below /static/
GET  /api/state           all sections as one JSON object
GET  /api/stream          server-sent events: each section when it changes
POST /api/promote         {"version", "reason"}     } each needs the token: see guard.py
POST /api/rollback        {"reason"}                }
POST /api/replay          {"topic", "reason"}       } dead letters of a topic that have this reason
"""

from __future__ import annotations

import asyncio
import mimetypes
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
from aiohttp import web

from tailrace.errors import TailraceError
from tailrace.monitoring.console import guard
from tailrace.monitoring.console.sections import PageSections
from tailrace.monitoring.telemetry.http import PortTaken, ServerAddress
from tailrace.streams.log.codec import UNDECODABLE

STATIC = Path(__file__).with_name("static")
_TICK_S, _PING_S = 0.25, 15.0  # between looks for changes; of silence, until a comment keeps the stream open
_VIEWERS = 32  # streams at a time
_BODY_BYTES = 64 << 10
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ActionFailed(TailraceError):
    """An operator's action has failed; the page shows the message."""


class PromoteRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Make a release the champion."""

    version: int
    reason: str = "by hand"


class RollbackRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Make the champion's parent, the release that it replaced when it was published, the champion again."""

    reason: str = "by hand"


class ReplayRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Send the dead letters of a topic that have this reason again."""

    topic: str
    reason: str


class OperatorActions(NamedTuple):
    """Actions behind the buttons of the page. Each may block, returns a line for the user, and raises ActionFailed."""

    promote: Callable[[PromoteRequest], str]
    rollback: Callable[[RollbackRequest], str]
    replay: Callable[[ReplayRequest], str]


class Console:
    """Content and actions of one console. A `token` of None makes it read-only.

    `actions` is None until the pipeline is loaded: requests for them are answered with 503.
    """

    def __init__(self, token: str | None = None) -> None:
        self.sections = PageSections()
        self.actions: OperatorActions | None = None
        self.token = token


@contextmanager
def serve(console: Console, host: str = "127.0.0.1", port: int = 0) -> Iterator[ServerAddress]:
    """Serve until the context ends; port 0 takes any free one. Raises PortTaken."""
    ready: Future[ServerAddress] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        try:
            loop.run_until_complete(_serve(console, host, port, ready, stop))
        except Exception as error:  # raised before the server was ready; nothing raises afterwards
            ready.set_exception(error)
        finally:
            loop.close()

    thread = threading.Thread(target=run, name="console-server", daemon=True)
    thread.start()
    try:
        yield ready.result()
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _serve(console: Console, host: str, port: int, ready: Future[ServerAddress], stop: asyncio.Event) -> None:
    runner = web.AppRunner(application(console, stop), access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            fix = "set console.port to a free port, or to 0 for any"
            raise PortTaken(f"cannot serve the console on {host}:{port} ({why}): {fix}") from error
        ready.set_result(ServerAddress(host, runner.addresses[0][1]))
        await stop.wait()
    finally:
        await runner.cleanup()


def application(console: Console, stop: asyncio.Event) -> web.Application:
    """Build the application with all routes of the console; event streams end when `stop` is set."""
    files = _StaticFiles()
    app = web.Application(middlewares=[_guarded], client_max_size=_BODY_BYTES)
    app.router.add_get("/", files.answer)
    app.router.add_get("/static/{path:.+}", files.answer)
    app.router.add_get("/api/state", _state(console.sections))
    app.router.add_get("/api/stream", _EventStream(console.sections, stop).answer)
    for path, kind in (("promote", PromoteRequest), ("rollback", RollbackRequest), ("replay", ReplayRequest)):
        app.router.add_post(f"/api/{path}", _action(console, path, kind))
    return app


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    refusal = guard.refuse_request(request.headers)
    if refusal is not None:
        return _json(refusal.status, {"error": refusal.text})
    try:
        answer = await handler(request)
    except web.HTTPException as error:
        answer = _json(error.status, {"error": error.reason})
    if not answer.prepared:
        answer.headers.update(_HEADERS)
    return answer


class _StaticFiles:
    """Files of the page, read once at the start; no path of a request ever reaches the file system."""

    def __init__(self) -> None:
        self._files = {
            path.relative_to(STATIC).as_posix(): (path.read_bytes(), _content_type(path))
            for path in STATIC.rglob("*")
            if path.is_file() and path.suffix != ".sh"
        }

    async def answer(self, request: web.Request) -> web.Response:
        """Return the requested file; the page itself for "/". Raises HTTPNotFound."""
        name = request.match_info.get("path", "index.html")
        if name not in self._files:
            raise web.HTTPNotFound
        body, kind = self._files[name]
        return web.Response(body=body, headers={"Content-Type": kind})


def _content_type(path: Path) -> str:
    if path.suffix in (".mjs", ".js"):
        return "text/javascript; charset=utf-8"
    kind = mimetypes.guess_type(path.name)[0] or "text/plain"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


class _EventStream:
    """Server-sent events: each viewer gets the newest content of the sections that changed since its last event."""

    def __init__(self, sections: PageSections, stop: asyncio.Event) -> None:
        self._sections, self._stop = sections, stop

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Stream events to one viewer until it leaves or `stop` is set. Raises HTTPServiceUnavailable."""
        if self._sections.viewers >= _VIEWERS:
            raise web.HTTPServiceUnavailable(reason=f"{_VIEWERS} pages are open already: close one")
        self._sections.viewers += 1
        try:
            response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream; charset=utf-8"})
            await response.prepare(request)
            await self._send(response, request)
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._sections.viewers -= 1
        return response

    async def _send(self, response: web.StreamResponse, request: web.Request) -> None:
        sent, silent = 0, 0.0
        while not self._stop.is_set() and request.transport is not None and not request.transport.is_closing():
            changed = self._sections.since(sent)
            if changed:
                sent, silent = max(section.number for section in changed.values()), 0.0
                events = (f"event: {name}\ndata: ".encode() + s.json + b"\n\n" for name, s in changed.items())
                await response.write(b"".join(events))
            elif silent >= _PING_S:
                silent = 0.0
                await response.write(b": ping\n\n")
            await asyncio.sleep(_TICK_S)
            silent += _TICK_S


def _state(sections: PageSections) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return _json(200, {name: msgspec.Raw(section.json) for name, section in sections.since().items()})

    return answer


def _action(console: Console, name: str, kind: type[msgspec.Struct]) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        refusal = guard.refuse_change(request.headers, console.token)
        if refusal is not None:
            return _json(refusal.status, {"error": refusal.text})
        if console.actions is None:
            return _json(503, {"error": "the pipeline is starting: try again in a moment"})
        try:
            body = msgspec.json.decode(await request.read(), type=kind)
            done = await asyncio.to_thread(getattr(console.actions, name), body)
        except UNDECODABLE as error:
            return _json(400, {"error": str(error)})
        except ActionFailed as error:
            return _json(409, {"error": str(error)})
        return _json(200, {"done": done})

    return answer


def _json(status: int, value: Any) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")
