"""Chromium, and a pipeline for it to look at. Where there is no Chromium these tests are skipped, loudly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from support.watched import Watched

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-lcd-text",  # grey edges: smaller pictures
]
NONE = "no Chromium"
HOW = "install it (Debian: apt-get install chromium), or name it: CHROMIUM=/path/to/chromium"


@pytest.fixture(scope="module")  # it ends with the tests that need it, and so do its threads
def browser() -> Iterator[Browser]:
    """A real Chromium without a window."""
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"{NONE}: {HOW}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def watched(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A pipeline whose roles run, with a console."""
    with Watched(tmp_path_factory.mktemp("watched")) as pipeline:
        yield pipeline


@pytest.fixture(scope="session")
def images() -> Path:
    """Where the README's pictures are: made anew when SCREENSHOTS is set."""
    if not os.environ.get("SCREENSHOTS"):
        pytest.skip("pictures for the README are made when asked: make screenshots")
    return Path(__file__).parents[2] / "docs" / "images"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was not tested."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if NONE in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"!!! {len(skipped)} BROWSER TESTS WERE SKIPPED: {HOW} !!!", red=True, bold=True)
