"""The HTTP server of the console: the page, its event stream, actions, and refusals."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from support.waiting import until

from tailrace.monitoring.console.guard import READ_ONLY, TOKEN
from tailrace.monitoring.console.server import (
    ActionFailed,
    Console,
    OperatorActions,
    PromoteRequest,
    ReplayRequest,
    RollbackRequest,
    serve,
)
from tailrace.monitoring.telemetry.http import PortTaken, ServerAddress

SECRET = "a secret of some length"
JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    """The answer to one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Changes:
    """Actions that only record their requests."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def promote(self, asked: PromoteRequest) -> str:
        """Fails for release 9."""
        if asked.version == 9:
            raise ActionFailed("there is no release 9")
        self.asked.append(asked)
        return f"release {asked.version} is the champion now"

    def rollback(self, asked: RollbackRequest) -> str:
        """Always possible."""
        self.asked.append(asked)
        return "champion: 2 -> 1"

    def replay(self, asked: ReplayRequest) -> str:
        """Always possible."""
        self.asked.append(asked)
        return "3 replayed"


@pytest.fixture
def changes() -> Changes:
    """The actions of the console under test."""
    return Changes()


@pytest.fixture
def console(changes: Changes) -> Console:
    """A console with a token."""
    console = Console(SECRET)
    console.actions = OperatorActions(changes.promote, changes.rollback, changes.replay)
    return console


@pytest.fixture
def served(console: Console) -> Iterator[ServerAddress]:
    """Its address, on any free port."""
    with serve(console) as address:
        yield address


def ask(
    served: ServerAddress, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    """Send one request; a body is sent as JSON."""
    connection = http.client.HTTPConnection(served.host, served.port, timeout=20)
    try:
        data = json.dumps(body) if body is not None else None
        connection.request(method, path, data, headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def change(served: ServerAddress, path: str = "promote", body: Any = None, **headers: str) -> Answer:
    """Request a change with the token. `headers` replace the default ones; an empty header is left out."""
    sent = {name: value for name, value in ({**JSON, TOKEN: SECRET} | headers).items() if value}
    return ask(served, "POST", f"/api/{path}", {"version": 2} if body is None else body, sent)


def test_the_page_may_load_nothing_from_elsewhere(served: ServerAddress) -> None:
    """The page and its files come from the console; its policy allows no other source, no inline script, no frame."""
    page = ask(served, "GET", "/")
    assert page.status == 200
    assert b"<title>Tailrace console</title>" in page.body
    assert b"http://" not in page.body
    assert b"https://" not in page.body
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    for name in ("app.js", "style.css", "vendor/preact.mjs", "vendor/uPlot.iife.min.js", "vendor/preact.LICENSE"):
        file = ask(served, "GET", f"/static/{name}")
        assert file.status == 200, name
        assert file.headers["content-security-policy"] == policy


@pytest.mark.parametrize("path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static/vendor/fetch.sh", "/x"])
def test_only_the_page_is_served(served: ServerAddress, path: str) -> None:
    """No path leads out of the files of the page."""
    assert ask(served, "GET", path).status == 404


def test_sections_are_streamed_when_they_change(console: Console, served: ServerAddress) -> None:
    """A viewer gets every section first, then each section when it changes, and none twice."""
    console.sections.put({"verdict": {"text": "healthy"}, "flow": {"rate": 1}})
    connection = http.client.HTTPConnection(served.host, served.port, timeout=20)
    connection.request("GET", "/api/stream")
    stream = connection.getresponse()
    assert stream.getheader("Content-Type") == "text/event-stream; charset=utf-8"
    assert event(stream) == ("verdict", {"text": "healthy"})
    assert event(stream) == ("flow", {"rate": 1})
    console.sections.put({"verdict": {"text": "healthy"}, "flow": {"rate": 2}})
    assert event(stream) == ("flow", {"rate": 2})
    connection.close()
    assert ask(served, "GET", "/api/state").json == {"verdict": {"text": "healthy"}, "flow": {"rate": 2}}


def event(stream: http.client.HTTPResponse) -> tuple[str, Any]:
    """The next event of a stream."""
    name = stream.readline().decode().removeprefix("event: ").strip()
    value = json.loads(stream.readline().decode().removeprefix("data: "))
    assert stream.readline() == b"\n"
    return name, value


def test_streams_are_bounded_and_freed(served: ServerAddress) -> None:
    """The number of open pages is limited, and a page that is closed makes room."""
    connections = []
    for _ in range(32):
        connection = http.client.HTTPConnection(served.host, served.port, timeout=20)
        connection.request("GET", "/api/stream")
        connections.append((connection, connection.getresponse()))
    assert ask(served, "GET", "/api/stream").status == 503
    for connection, answer in connections:
        answer.close()
        connection.close()

    def free() -> bool:
        connection = http.client.HTTPConnection(served.host, served.port, timeout=20)
        try:
            connection.request("GET", "/api/stream")
            answer = connection.getresponse()
            answer.close()
            return answer.status == 200
        finally:
            connection.close()

    until(free)


def test_changes_need_the_token(served: ServerAddress, changes: Changes) -> None:
    """With the token each change is made, and its line is returned."""
    assert change(served).json == {"done": "release 2 is the champion now"}
    assert change(served, "rollback", {"reason": "worse"}).json == {"done": "champion: 2 -> 1"}
    assert change(served, "replay", {"topic": "events", "reason": "null"}).json == {"done": "3 replayed"}
    assert changes.asked == [PromoteRequest(2), RollbackRequest("worse"), ReplayRequest("events", "null")]


@pytest.mark.parametrize("path", ["promote", "rollback", "replay"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({TOKEN: ""}, 401),
        ({TOKEN: SECRET[:-1]}, 401),
        ({TOKEN: "not ascii: \xe4"}, 401),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:9470"}, 421),
    ],
)
def test_changes_are_refused(
    served: ServerAddress, changes: Changes, path: str, headers: dict[str, str], status: int
) -> None:
    """Without the token, from another page, in a form's way, or under a name that is not this machine's: refused."""
    refused = change(served, path, **headers)
    assert refused.status == status
    assert refused.json["error"]
    assert not changes.asked


@pytest.mark.parametrize("path", ["/", "/api/state", "/api/stream", "/static/app.js"])
def test_dns_rebinding_sees_nothing(served: ServerAddress, path: str) -> None:
    """A foreign name that was made to point to this machine cannot even read the page."""
    assert ask(served, "GET", path, headers={"Host": "evil.example"}).status == 421
    assert ask(served, "GET", "/", headers={"Host": "localhost:1"}).status == 200
    assert ask(served, "GET", "/", headers={"Host": "[::1]:1"}).status == 200


def test_the_console_s_own_page_may_change(served: ServerAddress, changes: Changes) -> None:
    """The headers that a browser adds to requests of the console's own page are accepted."""
    own = {"Origin": f"http://{served.host}:{served.port}", "Sec-Fetch-Site": "same-origin"}
    assert change(served, **own).status == 200
    assert changes.asked == [PromoteRequest(2)]


def test_without_a_token_nothing_can_be_changed(changes: Changes) -> None:
    """A console without a token refuses every change and names the setting; an empty token opens nothing."""
    console = Console(None)
    console.actions = OperatorActions(changes.promote, changes.rollback, changes.replay)
    with serve(console) as served:
        for headers in ({}, {TOKEN: ""}, {TOKEN: "None"}):
            refused = change(served, **headers)
            assert (refused.status, refused.json) == (403, {"error": READ_ONLY})
    assert not changes.asked


@pytest.mark.parametrize("body", [{"version": "2"}, {"version": 2, "more": 1}, [], "2", {"reason": "none"}])
def test_request_bodies_are_checked(served: ServerAddress, changes: Changes, body: Any) -> None:
    """A body of another shape is refused with the reason."""
    assert change(served, body=body).status == 400
    assert not changes.asked


def test_a_change_that_fails_says_why(console: Console, served: ServerAddress) -> None:
    """The reason of a failed action is returned; before the pipeline is loaded the answer is 503."""
    failed = change(served, body={"version": 9})
    assert (failed.status, failed.json) == (409, {"error": "there is no release 9"})
    console.actions = None
    assert change(served).status == 503


def test_a_huge_body_is_refused(served: ServerAddress, changes: Changes) -> None:
    """A body beyond the limit is refused before it is read."""
    assert change(served, body={"version": 2, "reason": "x" * 100_000}).status == 413
    assert not changes.asked


def test_a_port_that_is_taken_is_named(console: Console, served: ServerAddress) -> None:
    """A taken port is one clear error with its fix, and the port is free again when the server has ended."""
    with pytest.raises(PortTaken, match=f"{served.port}.*set console.port"), serve(console, port=served.port):
        pass
    with serve(console) as other:
        port = other.port
    with serve(console, port=port) as again:
        assert ask(again, "GET", "/").status == 200
