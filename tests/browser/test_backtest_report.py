"""The report of a backtest in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, ViewportSize

from tailrace.backtest.report.page import write
from tailrace.backtest.result import BacktestEntry, BacktestResult, MetricWindow, Retraining

pytestmark = [pytest.mark.browser, pytest.mark.long]
NAMES = ("no change", "frozen", "logistic", "adaptive tree", "forest")


def entry(name: str, log_loss: float) -> BacktestEntry:
    """Return an entry in which every column of a binary task has a value of typical length."""
    run = Retraining(at=0.0, reason="2,000 new labels (every 2,000)", trigger="labels")
    return BacktestEntry(
        name=name,
        accuracy=0.7812,
        kappa=0.412,
        auc=0.7412,
        log_loss=log_loss,
        calibration_error=0.0312,
        cpu_seconds=1_234.5,
        seconds=2_345.1,
        joules=123_456.0,
        joules_from="estimate",
        cost=0.01234,
        updates=12_345,
        releases=1_234,
        retrainings=[run] * 120,
        windows=[MetricWindow(start=n * 1e5, end=(n + 1) * 1e5, log_loss=log_loss + 0.01 * (n % 3)) for n in range(20)],
    )


def test_the_comparison_fits_a_laptop_window(browser: Browser, tmp_path: Path) -> None:
    """All columns are visible in a window of 1,100 pixels, and neither the table nor the page scrolls sideways."""
    policies = [entry("declared", 0.5), entry("hourly, from scratch", 0.51)]
    baselines = [entry(name, 0.6 + n) for n, name in enumerate(NAMES)]
    result = BacktestResult(data="a.csv", events=1, label_delay="1d", policies=policies, baselines=baselines)
    context = browser.new_context(viewport=ViewportSize(width=1_100, height=900))
    try:
        page = context.new_page()
        page.goto(write(result, tmp_path).as_uri())
        widths = "element => [element.scrollWidth, element.clientWidth]"
        assert page.locator("table.comparison thead th").count() == 13
        for selector in ("div.scroll:has(table.comparison)", "html"):
            content, visible = page.locator(selector).evaluate(widths)
            assert content <= visible, selector
    finally:
        context.close()
