"""The console's server: aiohttp in a thread of its own, so that it answers before anything else is loaded.

GET  /                    the page; its files below /static/
GET  /api/state           all sections of the board as one JSON object
GET  /api/stream          server-sent events: each section when it changes
POST /api/promote         {"version", "reason"}     } each needs the token: see guard.py
POST /api/rollback        {"reason"}                }
POST /api/replay          {"topic", "reason"}       } dead letters of a topic, with this reason
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
from tailrace.monitoring.console.sections import Board
from tailrace.monitoring.telemetry.http import PortTaken, Served

STATIC = Path(__file__).with_name("static")
_TICK_S, _PING_S = 0.25, 15.0
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
    """What was asked for could not be done; the message is for the user."""


class Promote(msgspec.Struct, forbid_unknown_fields=True):
    """Make a release the champion."""

    version: int
    reason: str = "by hand"


class Rollback(msgspec.Struct, forbid_unknown_fields=True):
    """Make the champion's parent the champion."""

    reason: str = "by hand"


class Replay(msgspec.Struct, forbid_unknown_fields=True):
    """Send dead letters of a topic again."""

    topic: str
    reason: str


class Actions(NamedTuple):
    """What the console can change. Each may block, returns what to tell the user, and raises ActionFailed."""

    promote: Callable[[Promote], str]
    rollback: Callable[[Rollback], str]
    replay: Callable[[Replay], str]


class Console:
    """What is served: fill `board`, and set `actions` when they can be done. `token` None: nothing can be changed."""

    def __init__(self, token: str | None = None) -> None:
        self.board = Board()
        self.actions: Actions | None = None
        self.token = token


@contextmanager
def serve(console: Console, host: str = "127.0.0.1", port: int = 0) -> Iterator[Served]:
    """Serve until the context ends. Port 0 takes any free one. Raises PortTaken."""
    ready: Future[Served] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        try:
            loop.run_until_complete(_serve(console, host, port, ready, stop))
        except Exception as error:  # before it was ready; afterwards nothing raises
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


async def _serve(console: Console, host: str, port: int, ready: Future[Served], stop: asyncio.Event) -> None:
    runner = web.AppRunner(application(console, stop), access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            fix = "set console.port to a free port, or to 0 for any"
            raise PortTaken(f"cannot serve the console on {host}:{port} ({why}): {fix}") from error
        ready.set_result(Served(host, runner.addresses[0][1]))
        await stop.wait()
    finally:
        await runner.cleanup()


def application(console: Console, stop: asyncio.Event) -> web.Application:
    """The routes; streams end when `stop` is set."""
    pages = _Pages()
    app = web.Application(middlewares=[_guarded], client_max_size=_BODY_BYTES)
    app.router.add_get("/", pages.answer)
    app.router.add_get("/static/{path:.+}", pages.answer)
    app.router.add_get("/api/state", _state(console.board))
    app.router.add_get("/api/stream", _Stream(console.board, stop).answer)
    for path, kind in (("promote", Promote), ("rollback", Rollback), ("replay", Replay)):
        app.router.add_post(f"/api/{path}", _action(console, path, kind))
    return app


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    objection = guard.to_any(request.headers)
    if objection is not None:
        return _json(objection.status, {"error": objection.text})
    try:
        answer = await handler(request)
    except web.HTTPException as error:
        answer = _json(error.status, {"error": error.reason})
    if not answer.prepared:
        answer.headers.update(_HEADERS)
    return answer


class _Pages:
    """The page's files, read once: what was there at the start, and nothing else, is served."""

    def __init__(self) -> None:
        self._files = {
            path.relative_to(STATIC).as_posix(): (path.read_bytes(), _content_type(path))
            for path in STATIC.rglob("*")
            if path.is_file() and path.suffix != ".sh"
        }

    async def answer(self, request: web.Request) -> web.Response:
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


class _Stream:
    """Server-sent events; for each viewer the newest of what has changed since it was last told."""

    def __init__(self, board: Board, stop: asyncio.Event) -> None:
        self._board, self._stop = board, stop

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self._board.viewers >= _VIEWERS:
            raise web.HTTPServiceUnavailable(reason=f"{_VIEWERS} pages are open already: close one")
        self._board.viewers += 1
        try:
            response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream; charset=utf-8"})
            await response.prepare(request)
            await self._tell(response, request)
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._board.viewers -= 1
        return response

    async def _tell(self, response: web.StreamResponse, request: web.Request) -> None:
        told, silent = 0, 0.0
        while not self._stop.is_set() and request.transport is not None and not request.transport.is_closing():
            changed = self._board.since(told)
            if changed:
                told, silent = max(section.number for section in changed.values()), 0.0
                events = (f"event: {name}\ndata: ".encode() + s.json + b"\n\n" for name, s in changed.items())
                await response.write(b"".join(events))
            elif silent >= _PING_S:
                silent = 0.0
                await response.write(b": still here\n\n")
            await asyncio.sleep(_TICK_S)
            silent += _TICK_S


def _state(board: Board) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        sections = {name: msgspec.Raw(section.json) for name, section in board.since().items()}
        return _json(200, sections)

    return answer


def _action(console: Console, name: str, kind: type[msgspec.Struct]) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        objection = guard.to_change(request.headers, console.token)
        if objection is not None:
            return _json(objection.status, {"error": objection.text})
        if console.actions is None:
            return _json(503, {"error": "the pipeline is starting: try again in a moment"})
        try:
            asked = msgspec.json.decode(await request.read(), type=kind)
            told = await asyncio.to_thread(getattr(console.actions, name), asked)
        except msgspec.DecodeError as error:
            return _json(400, {"error": str(error)})
        except ActionFailed as error:
            return _json(409, {"error": str(error)})
        return _json(200, {"done": told})

    return answer


def _json(status: int, value: Any) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")
