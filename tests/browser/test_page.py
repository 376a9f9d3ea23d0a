"""The console in a real browser, on a running pipeline."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FloatRect, Page, ViewportSize, expect
from support.waiting import until
from support.watched import RUN, START, TOKEN, WatchedPipeline

pytestmark = [pytest.mark.browser, pytest.mark.long]
DESKTOP, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def page(browser: Browser, watched: WatchedPipeline) -> Iterator[Page]:
    """The console's page; any error in the browser's console fails the test."""
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.set_default_timeout(PATIENCE_MS)
    page.goto(watched.url)
    expect(page.locator(".flow")).to_contain_text("in total")
    yield page
    context.close()
    unexpected = [text for text in complaints if "401" not in text]  # the browser logs each refused action
    assert not unexpected


def learn(page: Page, watched: WatchedPipeline) -> int:
    """Send the labels of one more run; return the version that serves after it."""
    version = int(page.request.get(f"{watched.url}api/state").json()["releases"]["count"]) + 1
    watched.send(RUN + 10)
    expect(page.locator(".panel.timeline li.run").first).to_contain_text(f"Retrained: release {version}")
    watched.send(5)
    expect(page.locator("#serving")).to_have_text(f"v{version}")
    return version


def serving(page: Page) -> int:
    """The version that the page shows as live; 0 before the first release."""
    return int((page.locator("#serving").text_content() or "").strip("v–") or 0)


def test_a_pipeline_is_seen_learning(page: Page, watched: WatchedPipeline) -> None:
    """Predictions appear with their labels, a run with its reason and gate result, and the swap to its release."""
    first = learn(page, watched)
    second = learn(page, watched)
    assert second > first
    expect(page.locator(".panel.tail tbody tr").first).to_contain_text("x")
    expect(page.locator(".panel.labels tbody tr").first).to_contain_text("30 s")
    entry = page.locator(".panel.timeline li.run").first
    expect(entry).to_contain_text(f"Retrained: release {second}")
    expect(entry).to_contain_text(re.compile(r"because of \d+ new labels \(every 150\)"))
    expect(entry).to_contain_text("gate passed")
    expect(page.locator(".status")).to_contain_text(f"healthy: v{second} live for")
    expect(page.locator(".status")).to_contain_text("next retraining after")
    expect(page.locator(".panel.quality .legend")).to_contain_text(re.compile(r"live model \d\.\d{4} nats"))
    expect(page.locator(".panel.quality canvas")).to_be_visible()


def test_hidden_fields_never_reach_the_page(page: Page, watched: WatchedPipeline) -> None:
    """The server hides a masked field in events and in dead letters."""
    watched.send(5, bad=1)
    expect(page.locator(".panel.dead-letters tbody tr").first).to_contain_text("wrong_shape")
    page.locator(".panel.dead-letters summary").first.click()
    expect(page.locator(".panel.dead-letters pre").first).to_contain_text('"owner":"•••"')
    expect(page.locator(".panel.tail tbody tr").first).to_contain_text("owner •••")
    assert "Ms Nobody" not in page.content()
    assert "Ms Nobody" not in page.request.get(f"{watched.url}api/state").text()


def test_a_rollback_needs_the_token(page: Page, watched: WatchedPipeline) -> None:
    """Without the right token a rollback is refused and nothing changes; with it the champion's parent serves again."""
    while (champion := learn(page, watched)) < 2:
        pass
    page.locator("#rollback").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Roll back").click()
    expect(dialog.get_by_role("alert")).to_contain_text("missing or wrong")
    assert serving(page) == champion
    dialog.get_by_label("Token").fill(TOKEN)
    expect(dialog.get_by_label("Reason")).to_have_value("by hand")
    dialog.get_by_label("Reason").fill("seen in a test")
    page.wait_for_timeout(1_500)  # the page is drawn again every second; the typed text must survive it
    expect(dialog.get_by_label("Reason")).to_have_value("seen in a test")
    dialog.get_by_role("button", name="Roll back").click()
    expect(page.locator("#result")).to_have_text(re.compile(rf"champion: {champion} -> \d+"))
    expect(page.locator(".panel.timeline li.operator").first).to_contain_text("seen in a test")
    watched.send(5)
    expect(page.locator("#serving")).not_to_have_text(f"v{champion}")
    assert serving(page) < champion


def test_dead_letters_are_replayed(page: Page, watched: WatchedPipeline) -> None:
    """With the token, the dead letters of one reason are sent again."""
    watched.send(1, bad=2)
    page.get_by_role("button", name="Replay wrong_shape").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Token").fill(TOKEN)
    dialog.get_by_role("button", name="Replay").click()
    expect(page.locator("#result")).to_have_text(re.compile(r"\d+ replayed"))


OVERFLOWING = """() => [...document.querySelectorAll('.panel, .flow')].flatMap((panel) => {
  const { left, right } = panel.getBoundingClientRect();
  return [...panel.querySelectorAll('*')]
    .filter((part) => !part.closest('.unseen, .scroll, .chart, pre') && part.getClientRects().length)
    .filter((part) => part.getBoundingClientRect().right > right + 0.5 || part.getBoundingClientRect().left < left - 5)
    .map((part) => `${panel.className}: ${part.outerHTML.slice(0, 80)}`);
})"""


@pytest.mark.parametrize("width", [320, 390, 768, 1120, 1280, 1440])
def test_no_part_overflows_its_panel(page: Page, watched: WatchedPipeline, width: int) -> None:
    """Every part stays inside its card at every width, with measured costs and a dead letter."""
    watched.send(1, bad=1)
    expect(page.locator(".panel.dead-letters tbody tr").first).to_be_visible()
    if not serving(page):
        learn(page, watched)
    expect(page.locator(".panel.costs")).to_contain_text("EUR per")
    expect(page.locator(".panel.costs")).not_to_contain_text("not measured")
    page.set_viewport_size(ViewportSize(width=width, height=900))
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_chart_names_its_clock(page: Page, watched: WatchedPipeline) -> None:
    """Readings of 2023 are charted over their own event time, and not over the time of the replay."""
    learn(page, watched)
    quality = page.request.get(f"{watched.url}api/state").json()["quality"]
    assert START <= quality["at"][0] < quality["at"][-1] < START + 365 * 86_400
    assert all(START <= mark["at"] < START + 365 * 86_400 for mark in quality["marks"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_is_accessible(page: Page, watched: WatchedPipeline, scheme: str, viewport: ViewportSize) -> None:
    """axe finds no violation and nothing overflows, in both themes, on a desktop and on a phone."""
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size(viewport)
    watched.send(5, bad=1)
    expect(page.locator(".panel.dead-letters details").first).to_be_visible()
    expect(page.locator(".panel.tail tbody tr").first).to_be_visible()
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_dialog_is_accessible(page: Page, watched: WatchedPipeline) -> None:
    """axe finds no violation in a dialog, nor in its refusal."""
    watched.send(5, bad=1)
    page.get_by_role("button", name="Replay wrong_shape").click()
    page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    expect(page.get_by_role("alert")).to_be_visible()
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


def test_the_keyboard_reaches_everything(page: Page, watched: WatchedPipeline) -> None:
    """Tab reaches every button and every scrolling part; Escape closes a dialog and returns the focus."""
    watched.send(5, bad=1)
    button = page.get_by_role("button", name=re.compile("Replay"))
    expect(button).to_be_visible()
    page.get_by_role("button", name="Pause").click()  # keeps the rows in place
    parts = "[...document.querySelectorAll('button, .scroll, summary')]"
    count = page.evaluate(f"{parts}.length")
    reached = set[int]()
    for _ in range(3 * count):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("[...document.querySelectorAll('button, .scroll, summary')].indexOf(document.activeElement)")
        )
    assert set(range(count)) <= reached
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(button).to_be_focused()


def test_pictures_for_the_readme(browser: Browser, images: Path) -> None:
    """Take pictures of the demo's console after two runs: light on a desktop, dark on a phone."""
    command = [sys.executable, "-m", "tailrace", "demo"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as demo:
        assert demo.stderr is not None
        url = demo.stderr.readline().split()[1]
        context = browser.new_context(viewport=ViewportSize(width=1120, height=900), color_scheme="light")
        page = context.new_page()
        page.goto(url)
        expect(page.locator(".panel.timeline li.run")).to_have_count(2, timeout=8 * PATIENCE_MS)
        expect(page.locator(".panel.drift tbody tr").first).to_be_visible()
        images.mkdir(exist_ok=True)

        def taken() -> bool:
            """Take a picture; False if the page was not representative before or after it."""
            if not representative(page.request.get(f"{url}api/state").json()):
                return False
            below = page.locator(".panel.costs").evaluate("panel => panel.getBoundingClientRect().bottom + scrollY")
            whole = FloatRect(x=0, y=0, width=1120, height=below + 18)
            page.screenshot(path=images / "console.png", full_page=True, clip=whole)
            return representative(page.request.get(f"{url}api/state").json())

        until(taken, 120.0, check=lambda: demo_runs(demo))
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size(PHONE)
        page.wait_for_timeout(1_000)
        page.screenshot(path=images / "console-phone.png")
        context.close()
        demo.terminate()
    for path in images.glob("console*.png"):
        path.write_bytes(recompressed(path.read_bytes()))
    assert all(path.stat().st_size <= 300_000 for path in images.glob("console*.png"))


def representative(state: dict[str, Any]) -> bool:
    """True if the live model is ahead of both references, as it usually is, and both phases have measured costs."""
    now = {model["name"]: model["now"] for model in state["quality"]["models"]}
    if not {"live", "base", "frozen"} <= now.keys() or not all(now.values()):
        return False
    ahead = now["live"]["log_loss"] < min(now["base"]["log_loss"], now["frozen"]["log_loss"])
    return ahead and all(phase["cost_each"] for phase in state["costs"]["phases"].values())


def demo_runs(demo: subprocess.Popen[str]) -> None:
    """Fail once the demo has ended."""
    assert demo.poll() is None, "the demo has ended without a representative picture"


def recompressed(png: bytes) -> bytes:
    """Compress the pixels of a PNG at the highest level; browsers choose a fast one."""
    at, pixels, chunks = 8, b"", list[tuple[bytes, bytes]]()
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + size]
        at += 12 + size
        if kind == b"IDAT":
            pixels += body
        else:
            chunks.append((kind, body))
    chunks.insert(-1, (b"IDAT", zlib.compress(zlib.decompress(pixels), 9)))
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return png[:8] + b"".join(packed)
