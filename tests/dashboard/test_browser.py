"""The dashboard as people use it: every page, both themes, at a desk and on a phone."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from batchbell.core.model import Status
from batchbell.web.dashboard.live import REST_MOST_SECONDS

from .conftest import DESKTOP, PHONE
from .stage import API_KEY, Stage, a_snapshot

AXE = Path(__file__).parent / "axe" / "axe.min.js"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
LIVE_MS = 1000 * REST_MOST_SECONDS + 10_000
"""A page that is slow to make is made seldom."""
LISTS = (
    *("", "/batches", "/submissions", "/endpoints", "/endpoints?implied=1", "/events"),
    *("/deliveries", "/replays", "/accounts", "/keys", "/projects", "/settings", "/system"),
    *("/batches?q=nowhere", "/deliveries?state=held", "?period=7d", "/batches/nowhere"),
)


def every_page(stage: Stage) -> list[str]:
    def first(path: str) -> str:
        return str(stage.ask("GET", path)["data"][0]["id"])

    completed = [one["id"] for one in stage.ask("GET", "/v1/batches?status=completed")["data"]]
    singles = [
        *(f"/batches/{id}" for id in ("batch_failed", "batch_runs", *completed[:2])),
        f"/submissions/{first('/v1/submissions')}",
        *(f"/endpoints/{one['id']}" for one in stage.ask("GET", "/v1/webhook_endpoints")["data"]),
        f"/events/{first('/v1/events')}",
        *(
            f"/deliveries/{first(f'/v1/deliveries?state={state}')}"
            for state in ("pending", "delivered")
        ),
        f"/replays/{first('/v1/replays')}",
    ]
    return [f"/dashboard{path}" for path in (*LISTS, *singles)]


@pytest.mark.parametrize(
    ("scheme", "size", "audits"),
    [
        ("light", DESKTOP, True),
        ("dark", DESKTOP, False),
        ("light", PHONE, False),
        ("dark", PHONE, True),
    ],
    ids=["light desk", "dark desk", "light phone", "dark phone"],
)
def test_every_page_is_whole_and_accessible(
    stage: Stage,
    opened: Callable[..., BrowserContext],
    pictures: Path | None,
    scheme: str,
    size: dict[str, int],
    audits: bool,
) -> None:
    context = opened(scheme, size, bypass_csp=False)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    wrong: list[str] = []
    for number, path in enumerate(every_page(stage)):
        said.clear()
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == (404 if path.endswith("/nowhere") else 200), path
        expect(page.locator("h1")).to_be_visible()
        found = [one for one in said if "404" not in one]
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append("it is wider than the screen")
        if page.evaluate("window.poisoned") or page.locator("img").count():
            found.append("somebody else's script ran")
        if audits:
            found += audit(page)
        if pictures is not None:
            picture = f"{scheme}-{size['width']}-{number:02}.png"
            page.screenshot(path=pictures / picture, full_page=True)
        wrong += [f"{path}: {one}" for one in found]
    context.close()
    assert not wrong, "\n".join(wrong)


def audit(page: Page) -> list[str]:
    """What axe finds, in a line each. The page's policy holds for what we put into it, too."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(f"axe.run(document, {json.dumps(RULES)})")
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:160]}"
        for one in found["violations"]
    ]


def test_somebody_signs_in_and_out_by_the_keyboard(browser: Browser, stage: Stage) -> None:
    context = browser.new_context(base_url=stage.url)
    page = context.new_page()
    page.goto("/dashboard/batches?status=failed")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.keyboard.type("bb_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("wrong or was revoked")
    assert audit(page) == []
    page.get_by_label("API key").fill(stage.key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard/batches?status=failed")
    expect(page.get_by_role("link", name="batch_failed")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("/")
    expect(page.get_by_label("Batch id")).to_be_focused()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto("/dashboard")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    context.close()


def test_a_page_follows_the_database_over_a_restart(stage: Stage, page: Page) -> None:
    stage.watch("batch_live")
    stage.see(a_snapshot("batch_live", Status.IN_PROGRESS, 10))
    page.goto("/dashboard/batches/batch_live")
    state = page.locator(".live-says")
    expect(state).to_have_text("Live", timeout=LIVE_MS)
    page.evaluate("window.same = true")
    stage.see(a_snapshot("batch_live", Status.IN_PROGRESS, 55))
    expect(page.get_by_role("img", name="55 of 100 completed")).to_be_visible(timeout=LIVE_MS)
    stage.call(stage.stop())
    expect(state).to_have_text("Reconnecting")
    expect(page.get_by_text("What is shown may be old")).to_be_visible()
    stage.call(stage.start())
    stage.see(a_snapshot("batch_live", Status.FAILED, 60, 40))
    expect(page.locator("h1 ~ .badge").first).to_have_text("failed", timeout=LIVE_MS)
    expect(state).to_have_text("Live", timeout=LIVE_MS)
    expect(page.get_by_text("What is shown may be old")).to_be_hidden()
    assert page.evaluate("window.same"), "it was never loaded again"


def test_nobody_asks_while_nobody_looks(page: Page, opened: Callable[..., BrowserContext]) -> None:
    page.goto("/dashboard")
    expect(page.locator(".live-says")).to_have_text("Live", timeout=LIVE_MS)
    looks = "Object.defineProperty(document, 'hidden', {configurable: true, get: () => %s});"
    look = "document.dispatchEvent(new Event('visibilitychange'))"
    context = opened(java_script_enabled=False)
    other = context.new_page()
    number = re.compile(r"(\d+) of pages")
    for hidden, open_pages in (("true", "0"), ("false", "1")):
        page.evaluate(looks % hidden + look)
        for _ in range(200):  # the server hears of it a moment later
            other.goto("/dashboard/system")
            [found] = number.findall(other.content())
            if found == open_pages:
                break
        assert found == open_pages
    context.close()


def test_what_is_open_or_typed_stays_while_the_page_changes(stage: Stage, page: Page) -> None:
    stage.watch("batch_typed")
    stage.see(a_snapshot("batch_typed", Status.IN_PROGRESS, 1))
    page.goto("/dashboard/batches/batch_typed")
    expect(page.locator(".live-says")).to_have_text("Live", timeout=LIVE_MS)
    page.locator("summary", has_text="Cancel").click()
    sure = page.get_by_role("button", name="Cancel the batch")
    expect(sure).to_be_visible()
    stage.see(a_snapshot("batch_typed", Status.IN_PROGRESS, 77))
    expect(page.get_by_role("img", name="77 of 100 completed")).to_be_visible(timeout=LIVE_MS)
    expect(sure).to_be_visible()
    page.keyboard.press("Escape")
    expect(sure).to_be_hidden()


def test_buttons_do_what_they_say(stage: Stage, page: Page) -> None:
    hook = stage.receiver.url("/buttons")
    made = stage.ask("POST", "/v1/webhook_endpoints", json={"name": "buttons", "url": hook})
    page.goto(f"/dashboard/endpoints/{made['id']}")

    def now() -> Any:
        return stage.ask("GET", f"/v1/webhook_endpoints/{made['id']}")

    page.get_by_role("button", name="Send it now").click()
    expect(page.get_by_role("status").filter(has_text="Test event")).to_contain_text("200")
    page.get_by_role("button", name="Rotate").click()
    expect(page.locator(".secret code")).to_contain_text("whsec_")
    assert now()["active_secrets"] == 2
    page.locator("summary", has_text="Pause").click()
    page.get_by_role("button", name="Pause it").click()
    expect(page.get_by_text("It is called no more")).to_be_visible()
    assert now()["state"] == "disabled"
    page.get_by_role("button", name="Count them first").click()
    expect(page.get_by_text("What would be sent again")).to_be_visible()
    page.get_by_role("button", name="Resume", exact=True).click()
    expect(page.get_by_text("It is called again")).to_be_visible()
    assert now()["state"] == "active"
    page.locator("summary", has_text="Delete").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("The endpoint is deleted")).to_be_visible()


def test_an_event_is_sent_again_from_the_story(stage: Stage, page: Page) -> None:
    stage.watch("batch_again", stage.receiver.url("/again"))
    stage.see(a_snapshot("batch_again", Status.COMPLETED, 100))
    stage.call(stage.receiver.wait_for(1, path="/again"))
    page.goto("/dashboard/batches/batch_again")
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_text("Due now: ")).to_be_visible()
    received = stage.call(stage.receiver.wait_for(2, path="/again"))
    assert len({one.headers["webhook-id"] for one in received}) == 1


def test_an_id_is_copied(opened: Callable[..., BrowserContext]) -> None:
    context = opened(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto("/dashboard/batches/batch_failed")
    page.get_by_role("button", name="Copy id batch_failed").first.click()
    expect(page.locator("#said")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "batch_failed"
    context.close()


def test_results_are_previewed_and_downloaded(stage: Stage, page: Page) -> None:
    batches = stage.ask("GET", "/v1/batches?status=completed")["data"]
    id = next(one["id"] for one in batches if one["request_counts"]["total"] == 30)
    stage.until(f"/v1/batches/{id}", lambda one: one["batchbell"]["results"]["state"] == "ready")
    page.goto(f"/dashboard/batches/{id}")
    first = page.locator("details.result").first
    expect(first.locator(".badge")).to_have_text("failed")
    first.locator("summary").click()
    expect(first.locator("pre")).to_be_visible()
    for format in ("JSONL", "CSV", "PARQUET"):
        with page.expect_download() as download:
            page.get_by_role("link", name=format).click()
        assert Path(download.value.path()).stat().st_size > 100
    page.get_by_role("link", name="not run").click()
    expect(page.get_by_text("There are none.")).to_be_visible()


def test_a_phone_has_a_menu(opened: Callable[..., BrowserContext]) -> None:
    context = opened("dark", PHONE)
    page = context.new_page()
    page.goto("/dashboard")
    link = page.get_by_role("link", name="Deliveries", exact=True)
    expect(link).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    link.click()
    expect(page.get_by_role("heading", name="Deliveries")).to_be_visible()
    context.close()


def test_everything_works_without_script(
    stage: Stage, opened: Callable[..., BrowserContext]
) -> None:
    stage.watch("batch_plain", stage.receiver.url("/plain"))
    stage.see(a_snapshot("batch_plain", Status.CANCELLED, 1))
    stage.until("/v1/deliveries?limit=100", lambda page: all_delivered(page, "batch_plain"))
    context = opened(java_script_enabled=False)
    page = context.new_page()
    page.goto("/dashboard/batches?status=cancelled")
    page.get_by_role("link", name="batch_plain").click()
    page.locator("summary", has_text="Expunge").click()
    page.get_by_role("button", name="Expunge for good").click()
    expect(page.get_by_text("What was kept of its payloads is removed")).to_be_visible()
    batch = stage.ask("GET", "/v1/batches/batch_plain")
    assert batch["batchbell"]["expunged_at"] is not None
    context.close()


def all_delivered(page: Any, batch_id: str) -> bool:
    states = {one["state"] for one in page["data"] if one["batch_id"] == batch_id}
    return states == {"delivered"}


def test_what_is_shown_once_stays_and_a_form_is_not_sent_twice(stage: Stage, page: Page) -> None:
    page.goto("/dashboard/endpoints")
    page.locator("summary", has_text="New endpoint").click()
    page.locator("#name").fill("once")
    page.locator("#endpoint-url").fill(stage.receiver.url("/once"))
    page.get_by_role("button", name="Make it").click()
    secret = page.locator(".secret code")
    expect(page.locator(".live-says")).to_have_text("Live", timeout=LIVE_MS)
    expect(secret).to_contain_text("whsec_")
    expect(page.get_by_role("heading", name="once", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="once", exact=True)).to_be_visible()
    expect(secret).to_have_count(0)
    page.get_by_role("button", name="Send it now").click()
    expect(page.get_by_role("status").filter(has_text="Test event")).to_contain_text("200")
    names = [one["name"] for one in stage.ask("GET", "/v1/webhook_endpoints")["data"]]
    assert names.count("once") == 1


def test_a_new_key_stays_in_sight_when_the_session_is_over(browser: Browser, stage: Stage) -> None:
    own = stage.ask("POST", "/v1/keys", json={"name": "short"})
    context = browser.new_context(base_url=stage.url)
    page = context.new_page()
    page.goto("/dashboard/keys")
    page.get_by_label("API key").fill(own["key"])
    page.keyboard.press("Enter")
    page.get_by_label("Name of a new key").fill("next")
    page.keyboard.press("Enter")
    expect(page.locator(".live-says")).to_have_text("Live", timeout=LIVE_MS)
    stage.ask("DELETE", f"/v1/keys/{own['id']}")
    expect(page.locator(".live-says")).to_have_text("Not live", timeout=LIVE_MS)
    expect(page.locator(".secret code")).to_contain_text("bb_")
    context.close()


def test_a_page_that_hears_nothing_connects_again(page: Page) -> None:
    page.clock.install()
    page.goto("/dashboard")
    state = page.locator(".live-says")
    expect(state).to_have_text("Live", timeout=LIVE_MS)
    opened: list[str] = []
    page.on("request", lambda one: opened.append(one.resource_type))
    page.clock.fast_forward(40_000)
    assert "eventsource" not in opened
    with page.expect_request(lambda one: one.resource_type == "eventsource", timeout=LIVE_MS):
        page.clock.fast_forward(60_000)
    expect(state).to_have_text("Live", timeout=LIVE_MS)


def test_an_attempt_is_copied_as_the_curl_that_repeats_it(
    stage: Stage, opened: Callable[..., BrowserContext]
) -> None:
    context = opened(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    [delivery] = stage.ask("GET", "/v1/deliveries?state=delivered&limit=1")["data"]
    page.goto(f"/dashboard/deliveries/{delivery['id']}")
    page.get_by_role("button", name="Copy as curl").first.click()
    expect(page.locator("#said")).to_have_text("Copied")
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert words[:2] == ["curl", delivery["url"]]
    assert words[-2] == "--data-binary"
    assert json.loads(words[-1])["id"] == delivery["event_id"]
    context.close()


def test_times_are_right_where_the_clock_is_not(stage: Stage, page: Page) -> None:
    stage.watch("batch_timed")
    page.clock.install(time=time.time() - 3 * 3600)
    page.goto("/dashboard/batches/batch_timed")
    expect(page.locator(".live-says")).to_have_text("Live", timeout=LIVE_MS)
    page.clock.fast_forward(20_000)
    expect(page.locator("aside time").first).to_have_text(re.compile("^(just now|[0-9]+ s ago)$"))


def test_many_pages_in_sight_leave_connections_to_each_other(
    stage: Stage, opened: Callable[..., BrowserContext]
) -> None:
    stage.watch("batch_many")
    context = opened()
    pages = [context.new_page() for _ in range(9)]
    for page in pages:
        page.goto("/dashboard/batches/batch_many")
        expect(page.locator(".live-says")).to_have_text("Live", timeout=LIVE_MS)
    stage.see(a_snapshot("batch_many", Status.IN_PROGRESS, 10))
    for page in pages:
        expect(page.get_by_role("img", name="10 of 100 completed")).to_be_visible(timeout=LIVE_MS)
    pages[0].get_by_role("link", name="Deliveries", exact=True).click()
    expect(pages[0].get_by_role("heading", name="Deliveries")).to_be_visible()
    context.close()


def test_what_a_button_asks_first_is_in_sight_on_a_phone(
    stage: Stage, opened: Callable[..., BrowserContext]
) -> None:
    added = {"name": "beside", "base_url": stage.sandbox.base_url, "api_key": API_KEY}
    stage.ask("POST", "/v1/accounts", json=added)
    context = opened("dark", PHONE)
    page = context.new_page()
    page.goto("/dashboard/accounts")
    for words in ("Replace the key", "Remove"):
        page.locator("summary", has_text=words).click()
        box = page.locator("details.sure[open] .sheet").bounding_box()
        assert box is not None
        assert (box["x"] >= 0, box["x"] + box["width"] <= PHONE["width"]) == (True, True)
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    context.close()
    stage.ask("DELETE", "/v1/accounts/beside?force=true")
