"""Starting up is quick: the command line loads only what a command needs."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

HEAVY = ("torch", "confluent_kafka", "kafka", "numpy", "river", "aiohttp", "structlog", "cryptography")
LOADED = "import sys; from tailrace.cli.main import run; run({arguments}); print(*sys.modules, file=sys.stderr)"


def loaded(*arguments: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    code = LOADED.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("send", "--help"), ("models", "--help")])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    """Help needs neither torch nor Kafka nor anything else that takes long to load."""
    assert loaded(*arguments).isdisjoint(HEAVY)


def test_settings_load_no_torch_and_no_kafka() -> None:
    """Showing the settings needs no driver and no model."""
    assert loaded("config", "show").isdisjoint({"torch", "confluent_kafka", "kafka"})


def test_declaring_a_pipeline_loads_no_torch() -> None:
    """A declaration is checked without torch."""
    code = "import sys; from tailrace import Pipeline, Label, Event, Key, Number; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint({"torch", "confluent_kafka", "kafka"})


def test_help_answers_at_once() -> None:
    """`tailrace --help` takes less than 0.3 s of processor time, whatever else the machine is doing."""
    seconds = []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, "-m", "tailrace", "--help"], capture_output=True, check=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert statistics.median(seconds) < 0.3


def test_help_answers_at_once_by_the_clock() -> None:
    """At its best of several tries it is there within 0.3 s by the clock too."""
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tailrace", "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.3


def test_the_console_serves_before_anything_heavy_is_loaded() -> None:
    """Its server needs neither torch nor a driver nor the pipeline: they are loaded while the page is there."""
    modules = "tailrace.app.settings, tailrace.app.console, tailrace.monitoring.console.server"
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint({"torch", "numpy", "confluent_kafka", "kafka", "river", "cryptography"})


@pytest.mark.skipif(sys.platform != "linux", reason="processor time of a running process is read from /proc")
def test_the_demo_s_page_is_there_at_once() -> None:
    """`tailrace demo` prints the console's address first, and the page answers within 2 s of processor time."""
    command = [sys.executable, "-m", "tailrace", "demo", "--broker", "kafka://127.0.0.1:1"]  # nothing else is started
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as demo:
        try:
            assert demo.stderr is not None
            said, url = demo.stderr.readline().split()
            assert said == "console:"
            with urllib.request.urlopen(url, timeout=30) as page:
                assert b"Tailrace console" in page.read()
            used = Path(f"/proc/{demo.pid}/stat").read_text().rpartition(")")[2].split()
        finally:
            demo.terminate()
    ticks = int(used[11]) + int(used[12])
    assert ticks / os.sysconf("SC_CLK_TCK") < 2.0
