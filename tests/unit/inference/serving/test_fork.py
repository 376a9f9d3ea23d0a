"""A live model in a forked child process: it follows the releases there too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.releases import SPEC, Ends, champion, release
from support.waiting import PATIENCE_S

from tailrace.inference.serving.live_model import LiveModel
from tailrace.streams.log.base import Unreachable
from tailrace.testing import Harness

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

# A process of its own: the torch of the test's process may not be forked, and its number of threads is fixed at start.
PROGRAM = """
import os, sys, time
from tailrace import Category, Event, Key, Label, LiveModel, Number, Pipeline
from tailrace.testing import Harness

class Payment(Event):
    id: Key
    amount: Number
    country: Category | None = None

pipeline = Pipeline("payments", event=Payment, label=Label("fraud", base_rate=0.25))
EVENTS = [{"id": str(n), "amount": 1.0, "country": "NL"} for n in range(2_000)]

def in_child(work):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

with Harness(pipeline) as kit:
    kit.publish_untrained()
    url, keys = kit.settings.log.url, kit.settings.keys.directory
"""
# The parent has computed with torch's threads before the fork: a child that used them would never return.
FOLLOWS = """
    opened = {log}
    live = LiveModel.follow(opened, pipeline, keys=keys, patience=60)
    print("parent", live.predict(EVENTS).release)
    kit.publish_untrained(seed=1)
    live.wait_for(2, 60)
    kit.publish_untrained(seed=2)
    def work():
        print("child", live.predict(EVENTS).release)
        kit2 = LiveModel.follow(url, pipeline, keys=keys)
        print("own", kit2.predict(EVENTS).release)
        kit2.close()
        live.close()
    print("exit", ended(in_child(work)))
    live.wait_for(3, 60)
    print("parent", live.predict(EVENTS).release)
    live.close()
"""
LATER = """
    live = LiveModel.follow(url, pipeline, keys=keys, patience=60)
    read, write = os.pipe()
    def work():
        print("child", live.predict(EVENTS[:3]).release, flush=True)
        os.read(read, 1)
        live.wait_for(2, 60)
        print("child", live.predict(EVENTS[:3]).release)
        live.close()
    child = in_child(work)
    kit.publish_untrained(seed=1)
    live.wait_for(2, 60)
    os.write(write, b".")
    print("exit", ended(child))
    print("parent", live.predict(EVENTS[:3]).release)
    live.close()
"""
CLOSED = """
    live = LiveModel.follow(url, pipeline, keys=keys, patience=60)
    print("parent", live.predict(EVENTS).release)
    live.close()
    print("exit", ended(in_child(lambda: print("child", live.predict(EVENTS).release))))
"""


def lines(directory: Path, body: str, threads: int) -> list[str]:
    """What a program prints, with this number of torch's threads."""
    program = directory / "program.py"
    program.write_text(PROGRAM + body)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-u", str(program)], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize(("threads", "log"), [(1, "url"), (2, "kit.log")])
def test_a_forked_child_answers_with_the_current_release(tmp_path: Path, threads: int, log: str) -> None:
    """Its first prediction returns and is not stale, whoever opened the log and whatever torch did before the fork."""
    printed = lines(tmp_path, FOLLOWS.format(log=log), threads)
    assert printed == ["parent 1", "child 3", "own 3", "exit 0", "parent 3"]


def test_a_forked_child_goes_on_following(tmp_path: Path) -> None:
    """A release that is published after the child's first prediction is swapped in there, and in the parent."""
    assert lines(tmp_path, LATER, 2) == ["child 1", "child 2", "exit 0", "parent 2"]


def test_a_closed_model_scores_in_a_forked_child(tmp_path: Path) -> None:
    """What serves goes on serving after `close`, in a child too."""
    assert lines(tmp_path, CLOSED, 2) == ["parent 1", "child 1", "exit 0"]


@pytest.fixture
def forked(ends: Ends) -> Iterator[LiveModel]:
    """A live model in the state in which a fork leaves it."""
    ends.publish(release(1), champion(1))
    with ends.live(SPEC, patience=PATIENCE_S) as live:
        assert live.current().release == 1
        stop, thread = live._stop, live._thread
        live.after_fork()
        try:
            yield live
        finally:
            stop.set()
            assert thread is not None
            thread.join()


def test_a_log_that_cannot_be_opened_in_the_child_is_an_error(forked: LiveModel, ends: Ends) -> None:
    """The first prediction raises instead of giving a stale answer, and the next one tries again."""
    away = ends.path.rename(ends.path.with_suffix(".away"))
    directory = ends.path.parent
    directory.rename(directory.with_name("gone"))
    with pytest.raises(Unreachable):
        forked.predict([])
    directory.with_name("gone").rename(directory)
    away.rename(ends.path)
    assert forked.predict([]).release == 1


def test_the_harness_gives_a_started_model() -> None:
    """`Harness.follow` is started too: it needs no context to answer with the current release."""
    from support.releases import Row

    from tailrace import Label, Pipeline

    with Harness(Pipeline("rows", event=Row, label=Label("y", base_rate=0.25))) as kit:
        kit.publish_untrained()
        live = kit.follow()
        assert live.predict([Row(id="a", x=1.0)]).release == 1
        live.close()
