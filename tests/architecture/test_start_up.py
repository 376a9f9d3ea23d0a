"""Start-up is quick: the command line loads only the modules that a command needs."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from statistics import median

import pytest
from support.environment import unmeasured

HEAVY = ("torch", "confluent_kafka", "kafka", "numpy", "river", "aiohttp", "structlog", "cryptography")
ENVIRONMENT = unmeasured()  # measuring coverage takes processor time of its own
TYPER = "import typer.main, rich.console"
LOADED = "import sys; from tailrace.cli.main import run; run({arguments}); print(*sys.modules, file=sys.stderr)"


def loaded(*arguments: str) -> set[str]:
    """Return the names of the modules that a command has loaded at its end."""
    code = LOADED.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("send", "--help"), ("models", "--help")])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    """Help loads neither torch nor a Kafka driver nor another slow module."""
    assert loaded(*arguments).isdisjoint(HEAVY)


def test_settings_load_no_torch_and_no_kafka() -> None:
    """`tailrace config show` loads neither torch nor a Kafka driver."""
    assert loaded("config", "show").isdisjoint({"torch", "confluent_kafka", "kafka"})


def test_declaring_a_pipeline_loads_no_torch() -> None:
    """The names of a declaration are imported without torch."""
    code = "import sys; from tailrace import Pipeline, Label, Event, Key, Number; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint({"torch", "confluent_kafka", "kafka"})


def processor_seconds(*arguments: str) -> float:
    """Return the processor time that a command of Python takes, which other load hardly changes."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], env=ENVIRONMENT, capture_output=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_help_takes_little_processor_time() -> None:
    """`tailrace --help` takes at most twice the processor time of importing Typer and Rich, whatever the machine: 0.3 s
    on one where they take 0.15 s."""
    pairs = [(processor_seconds("-m", "tailrace", "--help"), processor_seconds("-c", TYPER)) for _ in range(9)]
    assert median(ours / typer for ours, typer in pairs) < 2


def test_the_console_serves_before_anything_heavy_is_loaded() -> None:
    """The console's server starts without torch and drivers; they are loaded while it serves the page."""
    modules = "tailrace.app.settings, tailrace.app.console, tailrace.monitoring.console.server"
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint({"torch", "numpy", "confluent_kafka", "kafka", "river", "cryptography"})


@pytest.mark.skipif(sys.platform != "linux", reason="processor time of a running process is read from /proc")
def test_the_demos_page_takes_little_processor_time() -> None:
    """`tailrace demo` prints the console's address first, and the page answers within 2 s of processor time."""
    command = [sys.executable, "-m", "tailrace", "demo", "--broker", "kafka://127.0.0.1:1"]  # nothing else is started
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=null, stderr=pipe, text=True) as demo:
        try:
            assert demo.stderr is not None
            word, url = demo.stderr.readline().split()
            assert word == "console:"
            with urllib.request.urlopen(url, timeout=30) as page:
                assert b"Tailrace console" in page.read()
            used = Path(f"/proc/{demo.pid}/stat").read_text().rpartition(")")[2].split()
        finally:
            demo.terminate()
    ticks = int(used[11]) + int(used[12])
    assert ticks / os.sysconf("SC_CLK_TCK") < 2.0
