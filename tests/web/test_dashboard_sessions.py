"""What the dashboard keeps from strangers, and what it shows once, over the end of local mode."""

from __future__ import annotations

import re

import pytest

from batchbell.core.errors import StoreUnavailable
from batchbell.web.auth import SESSION_COOKIE
from batchbell.web.dashboard import live

from .making import HOOK, Served
from .test_dashboard import OPEN, Browser, browser, made_key, page_in, routes, token_of

__all__ = ["browser"]

pytestmark = pytest.mark.databases("sqlite")

FOLLOWS = {"accept": "text/event-stream", "sec-fetch-site": "same-origin"}


async def test_strangers_take_no_place_among_those_who_look(
    served: Served, browser: Browser
) -> None:
    await made_key(served)
    for method, path in routes():
        if method != "GET" or not path.startswith(OPEN):
            continue
        asked = path.replace("{name}", "dashboard.css")
        answer = await served.http.get(asked, headers=FOLLOWS)
        assert answer.status_code == 200, path
        assert "event-stream" not in answer.headers["content-type"], path
    assert served.app.state.surface.screens.number == 0


async def test_an_address_that_nobody_can_read_is_not_ours(
    served: Served, browser: Browser
) -> None:
    made = await made_key(served)
    odd = "http://["
    assert (await browser.get(f"/dashboard/sign-in?next={odd}")).status_code == 200
    signed = await browser.post("/dashboard/sign-in", {"key": made["key"], "next": odd})
    assert signed.headers["location"] == "/dashboard"
    refused = await browser.post("/dashboard/sign-in", {"key": made["key"]}, origin=odd)
    assert refused.status_code == 403


async def test_whoever_makes_the_first_key_is_signed_in_with_it(
    served: Served, browser: Browser
) -> None:
    made = await browser.send("/dashboard/keys", action="create", name="me")
    [key] = re.findall(r"<code>(bb_[0-9a-f]+)</code>", made.text)
    assert "(yours)" in made.text
    assert key not in browser.cookies[SESSION_COOKIE]
    page = await browser.get("/dashboard/keys")
    assert (page.status_code, token_of(page.text)) == (200, token_of(made.text))
    session = browser.cookies[SESSION_COOKIE]
    await browser.send("/dashboard/keys", action="create", name="other")
    assert browser.cookies[SESSION_COOKIE] == session, "only the first one is for its maker"


async def test_an_answer_to_a_form_says_where_its_page_is(served: Served, browser: Browser) -> None:
    made = await browser.send("/dashboard/endpoints", name="billing", url=HOOK)
    [endpoint] = (await served.http.get("/v1/webhook_endpoints")).json()["data"]
    page = f"/dashboard/endpoints/{endpoint['id']}"
    assert f'data-page="{page}"' in made.text
    forms = re.findall(r'<form method="post"[^>]*action="([^"]*)"', made.text)
    assert set(forms) == {page}
    assert made.text.count('<form method="post"') == len(forms)
    assert "data-page" not in (await browser.get(page)).text


async def test_a_search_that_finds_its_batch_at_last_leads_there(
    served: Served, browser: Browser
) -> None:
    page = "/dashboard/batches?q=batch_1"
    async with served.http.stream("GET", page, headers=FOLLOWS) as answer:
        lines = answer.aiter_lines()
        assert "Register it" in await page_in(lines)
        await served.watch("batch_1")
        assert "event: over" in [line async for line in lines]
    assert (await browser.get(page)).headers["location"] == "/dashboard/batches/batch_1"


async def test_a_page_on_which_nothing_happens_hears_that_its_stream_lives(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.01)
    async with served.http.stream("GET", "/dashboard/keys", headers=FOLLOWS) as answer:
        lines = answer.aiter_lines()
        await page_in(lines)
        async for line in lines:
            if line == "event: clock":
                break
        assert await anext(lines) == f"data: {served.context.clock()}"


async def test_an_empty_project_says_how_it_gets_an_account(
    served: Served, browser: Browser
) -> None:
    await browser.send("/dashboard/projects", name="search")
    [_, made] = (await served.http.get("/v1/projects")).json()["data"]
    await browser.send("/dashboard", "/dashboard/project", project=made["id"])
    page = (await browser.get("/dashboard")).text
    assert '<a href="/dashboard/accounts">add an account</a>' in page
    assert "environment" not in page, "what is declared there is of default"


async def test_a_form_that_is_too_large_is_refused_by_its_size(browser: Browser) -> None:
    answer = await browser.post("/dashboard/keys", {"name": "x" * 70_000})
    assert (answer.status_code, "larger than 64 KiB" in answer.text) == (413, True)


async def test_a_stream_says_that_the_database_is_away_and_shows_the_page_when_it_is_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "REST_SECONDS", 0.01)
    async with served.http.stream("GET", "/dashboard/keys", headers=FOLLOWS) as answer:
        lines = answer.aiter_lines()
        first = await page_in(lines)
        with monkeypatch.context() as patch:
            patch.setattr(served.app.state.surface.keyring, "is_local_mode", gone)
            async for line in lines:
                if line == "event: away":
                    break
        assert await page_in(lines) == first


async def gone() -> bool:
    raise StoreUnavailable("gone")
