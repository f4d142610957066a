"""One browser, and one Batchbell with something of everything, for all tests of this folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from batchbell.core.model import Status
from batchbell.observability import configure_logging

from .stage import Stage, a_snapshot

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP = {"width": 1360, "height": 900}
PHONE = {"width": 390, "height": 844}


def chromium() -> str:
    """Where it is. In CI it must be there; elsewhere the test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("Chromium is not installed, and CI must have it: apt-get install chromium")
    if found is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    return found


# Not for the session: while Playwright runs, no test that is a coroutine can.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    chromium()
    stage = Stage(tmp_path_factory.mktemp("dashboard"))
    configure_logging(level="error", format="text")
    stage.open()
    try:
        furnish(stage)
        yield stage
    finally:
        stage.close()
        structlog.reset_defaults()


def furnish(stage: Stage) -> None:
    """Something of everything: batches in each state, deliveries that failed, and all else."""
    stage.key = stage.ask("POST", "/v1/keys", json={"name": "operator"})["key"]
    hook = stage.receiver.url("/hook")
    poison = {"url": stage.receiver.url("/poison"), "event_types": ["batch.completed"]}
    for wanted in ({"name": "data platform", "url": hook}, {"name": "billing", **poison}):
        stage.ask("POST", "/v1/webhook_endpoints", json=wanted)
    stage.batch(30, hook)
    stage.batch(10, stage.receiver.url("/poison"), metadata={"team": "search"})
    for id, status, done in (
        ("batch_failed", Status.FAILED, 0),
        ("batch_runs", Status.IN_PROGRESS, 40),
    ):
        stage.watch(id)
        stage.see(a_snapshot(id, status, done, 3))
    stage.ask(
        "POST",
        "/v1/submissions",
        files={"file": ("r.jsonl", b'{"body": {"model": "gpt-4o-mini", "messages": []}}\n' * 3)},
        data={"endpoint": "/v1/chat/completions", "url": hook},
    )
    stage.until("/v1/batches?status=completed", lambda page: len(page["data"]) >= 2)
    stage.until("/v1/deliveries?state=delivered", lambda page: page["data"])
    stage.ask("POST", "/v1/replays", json={"status": "all"})


@pytest.fixture(scope="module")
def opened(browser: Browser, stage: Stage) -> Callable[..., BrowserContext]:
    """Makes contexts of somebody who has signed in."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{stage.url}/dashboard")
    page.get_by_label("API key").fill(stage.key)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{stage.url}/dashboard")
    state = context.storage_state()
    context.close()

    def open(
        scheme: str = "light", size: dict[str, int] = DESKTOP, **how: object
    ) -> BrowserContext:
        made = browser.new_context(
            color_scheme=scheme, viewport=size, storage_state=state, base_url=stage.url, **how
        )
        made.set_default_timeout(10_000)
        return made

    return open


@pytest.fixture
def page(opened: Callable[..., BrowserContext]) -> Iterator[Page]:
    """Of somebody who has signed in, at a desk, by day."""
    context = opened()
    page = context.new_page()
    yield page
    context.close()


@pytest.fixture(scope="module")
def pictures() -> Path | None:
    """Where screenshots go in CI, which keeps them; None elsewhere."""
    if os.environ.get("CI") != "true":
        return None
    folder = Path(__file__).parents[2] / "build" / "dashboard"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
