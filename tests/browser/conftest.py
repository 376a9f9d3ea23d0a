"""Chromium and a running pipeline with a console. Without Chromium these tests are skipped with a loud message."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from support.watched import WatchedPipeline

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
    "--disable-lcd-text",  # grey edges of text compress better
]
NONE = "no Chromium"
HINT = "install it (Debian: apt-get install chromium), or name it: CHROMIUM=/path/to/chromium"


@pytest.fixture(scope="module")  # not session scope, so that its threads end with the tests that need it
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    path = next((command for name in names if name and (command := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"{NONE}: {HINT}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def watched(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedPipeline]:
    """A pipeline whose roles run, with a console."""
    with WatchedPipeline(tmp_path_factory.mktemp("watched")) as pipeline:
        yield pipeline


@pytest.fixture(scope="session")
def images() -> Path:
    """Directory of the pictures in the README; skips the test unless SCREENSHOTS is set."""
    if not os.environ.get("SCREENSHOTS"):
        pytest.skip("pictures of the README are made by: make screenshots")
    return Path(__file__).parents[2] / "docs" / "images"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report skipped tests in red."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if NONE in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"!!! {len(skipped)} BROWSER TESTS WERE SKIPPED: {HINT} !!!", red=True, bold=True)
