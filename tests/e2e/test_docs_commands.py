"""Every command block of the README and the documentation runs as written, page by page, from top to bottom.

A command block is indented, or fenced as `sh`, and begins with a known program. Commands of a page run in one
directory. Those that do not end by themselves are started, must get ready, and end with the page. From an `export` of
the log's address on, the commands run in a second directory, as on another machine, against the Kafka of the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.environment import unmeasured
from support.waiting import PATIENCE_S, until

from tailrace.app.pipeline_file import load_pipeline
from tailrace.streams.log.browse import newest
from tailrace.streams.log.url import open_log
from tailrace.testing.ports import free_ports

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAM = re.compile(r"(?:[A-Z_]+=\S+ )*(tailrace|make|pip|python|curl|export|faust|git|docker|promtool|\.venv/\S+)\b")
ELSEWHERE = {
    "make demo": "tests/e2e/test_demo.py runs the demo",
    "make": "the targets of the Makefile run tests, checks and benchmarks for minutes",
    "pip install": "tests/architecture/test_package.py installs the wheel; this asks the package index",
    "curl": "tests/unit/monitoring/console/test_server.py sends these requests",
    "faust": "tests/e2e/test_faust.py starts such a worker",
    "git clone": "tests/architecture/test_package.py shows what a clone without the option leads to",
    "docker": "no Docker engine belongs to the tests",
}
# A command that does not end by itself -> a pattern of its output that shows that it is ready.
LASTING = {
    r"tailrace (run|worker|joiner|retrainer)\b": r"started",
    r"tailrace console\b": r"http://",
    r"tailrace tail\b.* (-f|--follow)\b": r"\S",
}
LIMIT_S = 600.0  # for a command
BROKERS = re.compile(r"kafka://[\w.:,]+")


class Command(NamedTuple):
    """A command and its place."""

    line: int
    text: str


def commands(page: Path) -> list[Command]:
    """The commands of a page, in order, with lines that end in a backslash joined and comments removed."""
    found: list[Command] = []
    fence, open_ended = "", False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            fence = "" if fence else line
            continue
        shell = fence.removeprefix("```") in ("sh", "bash", "console") if fence else line.startswith("    ")
        text = re.sub(r"\s+#( .*)?$", "", line.strip().removeprefix("$ "))
        if shell and open_ended:
            found[-1] = Command(found[-1].line, f"{found[-1].text} {text.removesuffix(chr(92)).rstrip()}")
        elif shell and PROGRAM.match(text):
            found.append(Command(number, text.removesuffix("\\").rstrip()))
        else:
            continue
        open_ended = text.endswith("\\")
    return found


def reason(command: Command) -> str | None:
    """The reason for not running a command; None if it runs."""
    program = re.sub(r"^(?:[A-Z_]+=\S+ )*", "", command.text)
    return next((why for prefix, why in ELSEWHERE.items() if program.startswith(prefix)), None)


class Terminal:
    """A directory, an environment, and the commands that go on running."""

    def __init__(self, directory: Path, kafka: Callable[[], str]) -> None:
        self._kafka = kafka
        self._directory = directory / "here"
        self._directory.mkdir()
        programs = directory / "bin"
        programs.mkdir()
        wrapper = programs / "tailrace"
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tailrace "$@"\n')
        wrapper.chmod(0o755)
        first = free_ports(3)[0]  # the three roles of `tailrace run` take consecutive ports
        self._environment = unmeasured() | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "TAILRACE_MONITORING__PORT": str(first),
            "TAILRACE_CONSOLE__PORT": "0",
        }
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def run(self, text: str) -> None:
        """Run a command to its end, which must be a success; or start it and wait until it is ready."""
        if text.startswith("export "):
            self._export(text)
            return
        text = re.sub(r"\bID\b", lambda _: self._id(), text)
        ready = next((pattern for command, pattern in LASTING.items() if re.match(command, text)), None)
        if ready is not None:
            self._start(text, ready)
            return
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=self._directory, env=self._environment, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout[-2_000:]}\n{done.stderr[-2_000:]}"

    def close(self) -> None:
        """End what still runs, the last one first; each must have gone on until now, and end well."""
        codes = {}
        for text, process in reversed(self._running):
            gone = process.poll()
            process.send_signal(signal.SIGINT if "tail " in text else signal.SIGTERM)
            codes[text] = process.wait(PATIENCE_S) if gone is None else f"had ended with {gone}"
        assert all(code in (0, 130) for code in codes.values()), codes

    def kill(self) -> None:
        """End what still runs, at once."""
        for _, process in self._running:
            process.kill()
            process.wait()

    def _start(self, text: str, ready: str) -> None:
        output = self._directory.parent / f"{uuid.uuid4().hex}.log"
        environment = dict(self._environment)
        if not text.startswith("tailrace run"):
            environment["TAILRACE_MONITORING__PORT"] = "0"  # as on a machine of its own
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {text}"], cwd=self._directory, env=environment, stdout=file, stderr=file
            )
        self._running.append((text, process))

        def alive() -> None:
            assert process.poll() is None, f"{text}\n{output.read_text()[-2_000:]}"

        until(lambda: re.search(ready, output.read_text()), check=alive)

    def _export(self, text: str) -> None:
        """Set a variable. A log on Kafka means another machine: one that has the pipeline's files alone."""
        name, _, value = text.removeprefix("export ").partition("=")
        if BROKERS.search(value):
            value = BROKERS.sub(self._kafka(), value)
            before, self._directory = self._directory, self._directory.parent / "cluster"
            shutil.copytree(before, self._directory, ignore=shutil.ignore_patterns(".tailrace"))
            file = self._directory / "pipeline.py"
            unique = rf"\1-{uuid.uuid4().hex[:8]}\2"  # the cluster is shared
            file.write_text(re.sub(r'(Pipeline\(\s*"[\w-]+)(")', unique, file.read_text()))
        self._environment[name] = value

    def _id(self) -> str:
        """The id of an event that was predicted."""
        topic = load_pipeline(str(self._directory / "pipeline.py")).topics.predictions
        log = open_log(f"sqlite:///{self._directory}/.tailrace/log.db")
        try:
            until(lambda: newest(log, topic, 1)[0])
            return (newest(log, topic, 1)[0][0].key or b"").decode()
        finally:
            log.close()


@pytest.fixture
def terminal(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """A terminal that leaves no process behind."""
    terminal = Terminal(tmp_path, lambda: f"kafka://{request.getfixturevalue('kafka_bootstrap')}")
    yield terminal
    terminal.kill()


RUNNING = {str(page.relative_to(ROOT)): [c for c in commands(page) if reason(c) is None] for page in PAGES}


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("page", [page for page, some in RUNNING.items() if some])
def test_the_commands_of_a_page_run_as_written(page: str, terminal: Terminal) -> None:
    """From top to bottom each command succeeds, or gets ready and goes on until it is stopped."""
    for command in RUNNING[page]:
        try:
            terminal.run(command.text)
        except AssertionError as error:
            raise AssertionError(f"{page}:{command.line}: {error}") from None
    terminal.close()


def test_commands_that_do_not_run_here_are_still_in_the_pages() -> None:
    """Each exception is used; the README has commands that run, those of a cluster among them."""
    used = {reason(command) for page in PAGES for command in commands(page)}
    optional = {ELSEWHERE[name] for name in ("faust", "git clone", "docker", "curl")}
    assert set(ELSEWHERE.values()) - optional <= used
    texts = [command.text for command in RUNNING["README.md"]]
    assert any(text.startswith("tailrace init --from") for text in texts)
    assert any(BROKERS.search(text) for text in texts)
