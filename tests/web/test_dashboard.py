"""The dashboard without a browser: who gets in, what a page holds, and what a form does."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace
from sqlalchemy import update

from batchbell.core.model import BatchProblem, Outcome, Status
from batchbell.core.session import SESSION_SECONDS
from batchbell.sandbox import Sandbox
from batchbell.storage import batch_lists
from batchbell.storage.schema import parts
from batchbell.web.auth import DASHBOARD_FILES, SESSION_COOKIE, SIGN_IN
from batchbell.web.dashboard.page import PROJECT_COOKIE
from batchbell.web.dashboard.pages import ROUTERS

from ..conftest import Clock
from .making import HOOK, Served, a_snapshot
from .test_isolation import AN_ACCOUNT, project, something_of_everything
from .test_keys import bearer

pytestmark = pytest.mark.databases("sqlite")
"""What pages read is held to both databases where it is stored."""

OPEN = (SIGN_IN, DASHBOARD_FILES)
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "sec-fetch-site": "same-origin"}
POISON = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@dataclass
class Browser:
    """Keeps cookies, follows no redirect, and sends forms as the pages have them."""

    http: httpx2.AsyncClient
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self._ask("GET", path, headers=headers)

    async def post(self, path: str, fields: dict[str, str], **headers: str) -> httpx2.Response:
        return await self._ask("POST", path, headers=headers, data=fields)

    async def send(self, page: str, path: str = "", **fields: str) -> httpx2.Response:
        """A form of a page, with the token that stands there."""
        token = token_of((await self.get(page)).text)
        return await self.post(path or page, {"token": token, **fields})

    async def sign_in(self, key: str) -> httpx2.Response:
        return await self.post("/dashboard/sign-in", {"key": key})

    async def _ask(self, method: str, path: str, *, headers: dict[str, str], **how: Any) -> Any:
        sent = {**BROWSER, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self.http.cookies.clear()
        answer = await self.http.request(method, path, headers=sent, **how)
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
            if "max-age=0" in line.lower():
                del self.cookies[name]
        return answer


def token_of(page: str) -> str:
    found = re.search(r'name="token" value="([0-9a-f]{64})"', page)
    return found[1] if found else ""


@pytest.fixture
def browser(served: Served) -> Browser:
    return Browser(served.http)


async def made_key(served: Served, **how: Any) -> dict[str, Any]:
    made: dict[str, Any] = (await served.http.post("/v1/keys", json={"name": "me"}, **how)).json()
    return made


def routes() -> list[tuple[str, str]]:
    return sorted(
        (method, route.path_format)
        for router in ROUTERS
        for route in router.routes
        for method in route.methods
    )


async def test_a_browser_is_sent_to_the_dashboard_and_a_program_gets_json(
    served: Served, browser: Browser
) -> None:
    answer = await browser.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
    assert (await served.http.get("/")).json()["name"] == "batchbell"


async def test_local_mode_is_open_to_this_machine_only(browser: Browser) -> None:
    assert (await browser.get("/dashboard")).status_code == 200
    stranger = await browser.get("/dashboard", host="evil.example")
    assert stranger.status_code == 403
    assert "text/html" in stranger.headers["content-type"]
    assert (await browser.get("/dashboard/sign-in")).headers["location"] == "/dashboard"


async def test_no_page_lets_anybody_in_who_did_not_sign_in(
    served: Served, browser: Browser
) -> None:
    await made_key(served)
    for method, path in routes():
        if path.startswith(OPEN):
            continue
        asked = re.sub(r"{[^}]+}", "x", path)
        answer = await browser._ask(method, asked, headers={})
        assert answer.status_code == 303, (method, path)
        wanted = asked if method == "GET" else "/dashboard"
        query = httpx2.URL(answer.headers["location"]).params
        assert (query["next"], answer.text) == (wanted, ""), (method, path)


async def test_a_key_signs_in_until_it_is_revoked(served: Served, browser: Browser) -> None:
    made = await made_key(served)
    wrong = await browser.sign_in("bb_wrong")
    assert (wrong.status_code, "is wrong or was revoked" in wrong.text) == (401, True)
    answer = await browser.sign_in(made["key"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
    line = answer.headers["set-cookie"].lower()
    for word in ("httponly", "samesite=strict", f"max-age={SESSION_SECONDS}", "path=/dashboard"):
        assert word in line
    assert "secure" not in line, "this server speaks http"
    assert made["key"] not in browser.cookies[SESSION_COOKIE]
    assert (await browser.get("/dashboard")).status_code == 200
    other = await made_key(served, headers=bearer(made["key"]))
    await served.http.delete(f"/v1/keys/{made['id']}", headers=bearer(other["key"]))
    assert (await browser.get("/dashboard")).status_code == 303


async def test_a_session_runs_out_and_cannot_be_changed(
    served: Served, browser: Browser, clock: Clock
) -> None:
    await browser.sign_in((await made_key(served))["key"])
    good = browser.cookies[SESSION_COOKIE]
    key_id, expires, signature = good.split(".")
    for forged in (
        f"{key_id}.{int(expires) + 1}.{signature}",
        f"{key_id}.{expires}.{'0' * 64}",
        f"{key_id}x.{expires}.{signature}",
        "",
    ):
        browser.cookies[SESSION_COOKIE] = forged
        assert (await browser.get("/dashboard")).status_code == 303, forged
    browser.cookies[SESSION_COOKIE] = good
    clock.advance(SESSION_SECONDS - 1)
    assert (await browser.get("/dashboard")).status_code == 200
    clock.advance(1)
    assert (await browser.get("/dashboard")).status_code == 303


async def test_who_signs_out_is_out(served: Served, browser: Browser) -> None:
    await browser.sign_in((await made_key(served))["key"])
    await browser.send("/dashboard", "/dashboard/sign-out")
    assert (await browser.get("/dashboard")).status_code == 303


async def test_nobody_is_led_elsewhere_by_the_way_in(served: Served, browser: Browser) -> None:
    made = await made_key(served)
    for wanted, leads in (
        ("/dashboard/batches?status=failed", "/dashboard/batches?status=failed"),
        ("https://evil.example/dashboard", "/dashboard"),
        ("//evil.example/dashboard", "/dashboard"),
        ("/dashboard\\@evil.example", "/dashboard"),
        ("/v1/batches", "/dashboard"),
    ):
        fields = {"key": made["key"], "next": wanted}
        answer = await browser.post("/dashboard/sign-in", fields)
        assert answer.headers["location"] == leads, wanted


async def test_wrong_keys_are_counted_here_too(served: Served, browser: Browser) -> None:
    await made_key(served)
    answers = [(await browser.sign_in(f"bb_{n}")).status_code for n in range(22)]
    assert (answers[0], answers[-1]) == (401, 429)


@pytest.fixture
async def two(served: Served, browser: Browser) -> AsyncIterator[dict[str, Any]]:
    """Two projects: `theirs` with something of everything, and `mine`, signed in."""
    operator = await made_key(served)
    async with Sandbox() as first, Sandbox() as second:
        headers = bearer(operator["key"])
        theirs = await project(served, headers, "theirs", base_url=first.base_url)
        theirs = await something_of_everything(served, theirs)
        mine = await project(served, headers, "mine", base_url=second.base_url)
        key = await made_key(served, headers=mine["headers"])
        await browser.sign_in(key["key"])
        yield {"theirs": theirs, "mine": mine, "operator": operator["key"]}


OURS = {"endpoint_id": "webhook_endpoint_id"}
OF_THE_SERVER = {"/dashboard/system", "/dashboard/projects", "/dashboard/settings"}
"""For keys of `default`; to others they are not there."""


async def test_the_pages_of_one_project_show_nothing_of_another(
    browser: Browser, two: dict[str, Any]
) -> None:
    theirs = two["theirs"]
    ids = {name: id for name, id in theirs.items() if name.endswith("_id")}
    for method, path in routes():
        if path.startswith(OPEN) or method != "GET" or path == "/dashboard/":
            continue
        names = re.findall(r"{(\w+)", path)
        answers = []
        for word in ("theirs", "never"):
            asked = path
            for name in names:
                id = ids[OURS.get(name, name)] if word == "theirs" else "x"
                asked = re.sub(rf"{{{name}[^}}]*}}", id, asked)
            answers.append(await browser.get(asked))
        shown, never = answers
        gone = bool(names) or path in OF_THE_SERVER
        assert shown.status_code == never.status_code == (404 if gone else 200), path
        here = shown.text.replace(ids[OURS.get(names[0], names[0])], "") if names else shown.text
        assert not [id for id in ids.values() if len(id) > 6 and id in here], path


async def test_the_forms_of_one_project_do_nothing_to_another(
    served: Served, browser: Browser, two: dict[str, Any]
) -> None:
    theirs = two["theirs"]
    before = await everything(served, theirs["headers"])
    token = token_of((await browser.get("/dashboard")).text)
    for method, path in routes():
        names = re.findall(r"{(\w+)", path)
        if method != "POST" or path in HARMLESS:
            continue
        id = theirs[OURS.get(names[0], names[0])] if names else ""
        asked = re.sub(r"{[^}]+}", id, path)
        for action in ACTIONS:
            fields = {
                "token": token,
                "action": action,
                "event_id": theirs["event_id"],
                "account": theirs["account_id"],
                "key_id": theirs["key_id"],
                "force": "1",
            }
            answer = await browser.post(asked, fields)
            assert answer.status_code in (400, 404), (path, action, answer.text)
    assert await everything(served, theirs["headers"]) == before


ACTIONS = (
    *("cancel", "expunge", "fetch", "resend", "test", "rotate", "disable", "enable", "delete"),
    *("count", "replay", "pause", "resume", "remove", "revoke"),
)
HARMLESS = {"/dashboard/sign-in", "/dashboard/sign-out", "/dashboard/project", "/dashboard/replays"}
"""They name nothing of anybody, or are held to account by tests of their own."""


async def everything(served: Served, headers: dict[str, str]) -> Any:
    paths = ("/v1/batches", "/v1/deliveries", "/v1/events", "/v1/replays", "/v1/webhook_endpoints")
    return [(await served.http.get(path, headers=headers)).json() for path in paths]


async def test_only_the_default_project_may_look_at_another(
    browser: Browser, two: dict[str, Any]
) -> None:
    theirs = two["theirs"]["project_id"]
    refused = await browser.send("/dashboard", "/dashboard/project", project=theirs)
    assert refused.status_code == 404
    browser.cookies[PROJECT_COOKIE] = theirs
    gone = await browser.get("/dashboard/batches/batch_1")
    assert (gone.status_code, "another project" in gone.text) == (404, False)
    browser.cookies.clear()
    await browser.sign_in(two["operator"])
    gone = await browser.get("/dashboard/batches/batch_1")
    assert (gone.status_code, "another project" in gone.text) == (404, True)
    old = token_of((await browser.get("/dashboard")).text)
    await browser.send("/dashboard", "/dashboard/project", project=theirs)
    assert (await browser.get("/dashboard/batches/batch_1")).status_code == 200
    stale = await browser.post("/dashboard/batches/batch_1", {"token": old, "action": "expunge"})
    assert (stale.status_code, "out of date" in stale.text) == (403, True)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"origin": "https://evil.example", "sec_fetch_site": "cross-site"}, True),
        ({"origin": "null"}, True),
        ({"sec_fetch_site": "same-site"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({}, False),
    ],
    ids=["another site", "a hidden one", "another port", "nobody's", "no token"],
)
async def test_a_form_that_is_not_ours_is_refused(
    served: Served, browser: Browser, headers: dict[str, str], token: bool
) -> None:
    await served.watch("batch_1")
    await served.see(a_snapshot("batch_1"))
    await served.try_all(Outcome(status=200))
    fields = {"action": "expunge"}
    if token:
        fields["token"] = token_of((await browser.get("/dashboard/batches/batch_1")).text)
        assert fields["token"]
    answer = await browser.post("/dashboard/batches/batch_1", fields, **headers)
    assert answer.status_code == 403
    batch = (await served.http.get("/v1/batches/batch_1")).json()
    assert batch["batchbell"]["expunged_at"] is None


async def test_a_sign_in_from_another_site_is_refused(served: Served, browser: Browser) -> None:
    made = await made_key(served)
    site = {"origin": "https://evil.example", "sec_fetch_site": "cross-site"}
    answer = await browser.post("/dashboard/sign-in", {"key": made["key"]}, **site)
    assert (answer.status_code, browser.cookies) == (403, {})


async def test_every_page_has_a_strict_policy_and_nothing_inline(
    served: Served, browser: Browser
) -> None:
    await served.watch("batch_1")
    for path in ("/dashboard", "/dashboard/batches", "/dashboard/batches/batch_1", "/dashboard/x"):
        answer = await browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["referrer-policy"] == "same-origin"
        assert not re.search(
            r"<script(?![^>]*\bsrc=)|<style| style=| on\w+=|https?://(?!127)", (answer.text)
        ), path


async def test_what_others_wrote_is_text(served: Served, browser: Browser) -> None:
    await served.watch("batch_1", metadata={"note": POISON})
    snapshot = a_snapshot("batch_1", Status.FAILED, counts=(3, 1, 2))
    await served.see(poisoned(snapshot))
    await served.try_all(Outcome(status=500, response_body=POISON))
    page = (await browser.get("/dashboard/batches/batch_1")).text
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "<img" not in page


def poisoned(snapshot: Any) -> Any:
    problem = BatchProblem(code=POISON, message=POISON, param=POISON, line=3)
    return replace(snapshot, model=POISON, metadata={"note": POISON}, problems=(problem,))


async def test_an_asset_is_kept_and_changes_its_address(browser: Browser) -> None:
    page = (await browser.get("/dashboard")).text
    for address in re.findall(r'(?:href|src)="(/dashboard/assets/[^"]+)"', page):
        answer = await browser.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert (await browser.get("/dashboard/assets/base.html")).status_code == 404
    assert (await browser.get("/dashboard/assets/..%2Fpage.py")).status_code == 404


async def test_batches_are_found_by_id_and_status(served: Served, browser: Browser) -> None:
    await served.watch("batch_1")
    await served.watch("batch_2")
    await served.see(a_snapshot("batch_1"))
    found = await browser.get("/dashboard/batches?q=batch_2")
    assert found.headers["location"] == "/dashboard/batches/batch_2"
    nothing = (await browser.get("/dashboard/batches?q=batch_3")).text
    assert "batch_3" in nothing
    assert "curl" in nothing
    for query in (
        "status=completed",
        "outcome=succeeded",
        "model=gpt-5-mini",
        "metadata=night%3Dyes",
        "q=batch_&status=completed&account=openai&provider=openai&hours=24",
    ):
        some = (await browser.get(f"/dashboard/batches?{query}")).text
        assert ("batches/batch_1" in some, "batches/batch_2" in some) == (True, False), query
    assert (await browser.get("/dashboard/batches?metadata=night")).status_code == 400
    assert (await browser.get("/dashboard/")).headers["location"] == "/dashboard"


async def test_submissions_are_found_as_batches_are_and_say_why_they_wait(
    served: Served, browser: Browser
) -> None:
    lines = b'{"body": {"model": "%s", "messages": []}}\n'
    for model, team in (("gpt-5", "search"), ("gpt-5-mini", "billing")):
        made = await served.http.post(
            "/v1/submissions",
            files={"file": ("r.jsonl", lines % model.encode())},
            data={"endpoint": "/v1/chat/completions", "metadata": json.dumps({"team": team})},
        )
        assert made.status_code == 201, made.text
    rows = (await served.http.get("/v1/submissions")).json()["data"]
    mini, other = (one["id"] for one in rows)
    await served.context.store.write(
        lambda c: c.execute(update(parts).values(reason="The account's limit is reached.")).rowcount
    )
    for query in (
        "model=gpt-5-mini",
        "metadata=team%3Dbilling",
        f"q={mini}",
        f"q={mini[:-1]}&model=gpt-5-mini&status=validating&account=openai&provider=openai&hours=1",
    ):
        page = (await browser.get(f"/dashboard/submissions?{query}")).text
        found = (f"submissions/{mini}" in page, f"submissions/{other}" in page)
        assert found == (True, False), query
        assert "limit is reached" in page
    assert "No submission is like this" in (await browser.get("/dashboard/submissions?q=x")).text


async def test_a_list_that_finds_little_leads_on(
    served: Served, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_lists, "LOOKED_AT_MOST", 1)
    await served.watch("batch_1")
    await served.see(a_snapshot("batch_1"))
    await served.watch("batch_2")
    page = (await browser.get("/dashboard/batches?model=gpt-5-mini")).text
    assert "Nothing so far" in page
    [further] = re.findall(r'href="([^"]+)">Look further back', page)
    assert further == "?model=gpt-5-mini&amp;after=batch_2"
    page = (await browser.get("/dashboard/batches?model=gpt-5-mini&after=batch_2")).text
    assert "batches/batch_1" in page


async def test_batches_that_are_late_need_a_look(
    served: Served, browser: Browser, clock: Clock
) -> None:
    await served.watch("batch_1")
    snapshot = a_snapshot("batch_1", Status.IN_PROGRESS)
    expires = {**snapshot.timestamps, "expires_at": int(clock()) + 600}
    await served.see(replace(snapshot, timestamps=expires))
    page = (await browser.get("/dashboard")).text
    needs = page[page.index("Needs a look") :]
    assert ("ends soon" in needs, "batches/batch_1" in needs) == (True, True)


async def test_deliveries_are_found_by_what_they_are_of(served: Served, browser: Browser) -> None:
    for id in ("batch_1", "batch_2"):
        await served.watch(id, url=f"{HOOK}/{id}")
        await served.see(a_snapshot(id))
    found = (await served.http.get("/v1/deliveries?batch_id=batch_1")).json()["data"]
    [one] = found
    other = (await served.http.get("/v1/deliveries?batch_id=batch_2")).json()["data"][0]
    for query in ("batch_id=batch_1", f"endpoint_id={one['endpoint_id']}&state=pending&hours=1"):
        page = (await browser.get(f"/dashboard/deliveries?{query}")).text
        assert (one["id"] in page, other["id"] in page) == (True, False), query
    for query in (
        "batch_id=batch_1",
        "batch_id=batch_1&delivered=no&hours=1&type=batch.completed",
        f"endpoint_id={one['endpoint_id']}",
    ):
        page = (await browser.get(f"/dashboard/events?{query}")).text
        assert (one["event_id"] in page, other["event_id"] in page) == (True, False), query
    chart = (await browser.get(f"/dashboard/endpoints/{one['endpoint_id']}")).text
    assert "Deliveries in 24 hours: 1 pending." in chart


async def test_the_buttons_of_a_batch_do_what_they_say(served: Served, browser: Browser) -> None:
    await served.watch("batch_1")
    await served.see(a_snapshot("batch_1"))
    await served.try_all(Outcome(status=200))
    event = (await served.http.get("/v1/events")).json()["data"][0]["id"]
    page = "/dashboard/batches/batch_1"
    answer = await browser.send(page, action="resend", event_id=event)
    assert (answer.status_code, answer.headers["location"]) == (303, page)
    assert "Due now: 1 delivery." in (await browser.get(page)).text
    assert "Due now" not in (await browser.get(page)).text, "a note is shown once"
    [delivery] = (await served.http.get("/v1/deliveries")).json()["data"]
    assert delivery["state"] == "pending"
    busy = await browser.send(page, action="expunge")
    assert (busy.status_code, "wait to be sent" in busy.text) == (409, True)
    await served.try_all(Outcome(status=200))
    await browser.send(page, action="fetch")
    batch = (await served.http.get("/v1/batches/batch_1")).json()["batchbell"]
    assert batch["results"]["state"] == "waiting"
    await browser.send(page, action="expunge")
    batch = (await served.http.get("/v1/batches/batch_1")).json()["batchbell"]
    assert batch["expunged_at"] is not None
    assert (await browser.send(page, action="dance")).status_code == 400


async def test_a_page_follows_what_happens(served: Served, browser: Browser) -> None:
    await served.watch("batch_1")
    url = "/dashboard/batches/batch_1"
    how = {"headers": {"accept": "text/event-stream", "sec-fetch-site": "same-origin"}}
    async with served.http.stream("GET", url, **how) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        frames = answer.aiter_lines()
        first = await page_in(frames)
        assert "validating" in first
        assert "<html" not in first
        await served.see(a_snapshot("batch_1"))
        assert "completed" in await page_in(frames)


async def page_in(lines: AsyncIterator[str]) -> str:
    """The next page that a stream sends."""
    async for line in lines:
        if line == "event: page":
            sent = await anext(lines)
            return str(json.loads(sent.removeprefix("data: ")))
    raise AssertionError("the stream ended")


@contextlib.asynccontextmanager
async def opened(served: Served, page: str, cookie: str) -> AsyncIterator[AsyncIterator[str]]:
    how = {"headers": {"accept": "text/event-stream", "cookie": f"{SESSION_COOKIE}={cookie}"}}
    async with served.http.stream("GET", page, **how) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield answer.aiter_lines()


async def test_two_sessions_share_a_page_and_each_has_the_token_of_its_own(
    served: Served, browser: Browser, clock: Clock
) -> None:
    page = "/dashboard/batches/batch_1"
    await served.watch("batch_1")
    made = await made_key(served)
    cookies, tokens = [], []
    for _ in range(2):
        await browser.sign_in(made["key"])
        cookies.append(browser.cookies[SESSION_COOKIE])
        tokens.append(token_of((await browser.get(page)).text))
        clock.advance(60)
    assert tokens[0] != tokens[1]
    async with opened(served, page, cookies[0]) as one, opened(served, page, cookies[1]) as other:
        assert [token_of(await page_in(lines)) for lines in (one, other)] == tokens
        await served.see(a_snapshot("batch_1"))
        seen = [await page_in(lines) for lines in (one, other)]
        assert "completed" in seen[0]
        assert seen[0].replace(tokens[0], tokens[1]) == seen[1]


async def test_a_stream_ends_with_its_key(served: Served, browser: Browser) -> None:
    made = await made_key(served)
    other = await made_key(served, headers=bearer(made["key"]))
    await browser.sign_in(made["key"])
    cookie = f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}"
    how = {"headers": {"accept": "text/event-stream", "cookie": cookie}}
    async with served.http.stream("GET", "/dashboard", **how) as answer:
        frames = answer.aiter_lines()
        await page_in(frames)
        await served.http.delete(f"/v1/keys/{made['id']}", headers=bearer(other["key"]))
        rest = [line async for line in frames]
        assert "event: over" in rest


async def test_an_endpoint_is_made_tested_rotated_paused_and_deleted(
    served: Served, browser: Browser
) -> None:
    page = "/dashboard/endpoints"
    made = await browser.send(page, name="billing", url=HOOK, **{"type:batch.failed": "on"})
    assert (made.status_code, "whsec_" in made.text) == (200, True)
    [endpoint] = (await served.http.get("/v1/webhook_endpoints")).json()["data"]
    assert (endpoint["name"], endpoint["event_types"]) == ("billing", ["batch.failed"])
    page = f"/dashboard/endpoints/{endpoint['id']}"
    assert "whsec_" not in (await browser.get(page)).text.replace("whsec_***", "")
    tested = await browser.send(page, action="test", type="batch.completed")
    assert "connection failed" in tested.text
    rotated = await browser.send(page, action="rotate", keep="on")
    assert re.search(r"whsec_[A-Za-z0-9+/=]{20}", rotated.text)

    async def now() -> dict[str, Any]:
        answer = await served.http.get(f"/v1/webhook_endpoints/{endpoint['id']}")
        found: dict[str, Any] = answer.json()
        return found

    assert (await now())["active_secrets"] == 2
    await browser.send(page, action="disable")
    assert ((await now())["state"], (await now())["reason"]) == ("disabled", "disabled on request")
    await browser.send(page, action="enable")
    assert (await now())["state"] == "active"
    wrong = await browser.send("/dashboard/endpoints", name="x", url="ftp://nowhere")
    assert wrong.status_code == 400
    gone = await browser.send(page, action="delete")
    assert gone.headers["location"] == "/dashboard/endpoints"
    assert (await now()).get("error")


async def test_what_an_endpoint_missed_is_counted_and_then_sent(
    served: Served, browser: Browser
) -> None:
    await browser.send("/dashboard/endpoints", name="billing", url=HOOK)
    [endpoint] = (await served.http.get("/v1/webhook_endpoints")).json()["data"]
    page = f"/dashboard/endpoints/{endpoint['id']}"
    await browser.send(page, action="disable")
    await served.watch("batch_1", url="http://127.0.0.1:9/other")
    await served.see(a_snapshot("batch_1"))
    [held] = (await served.http.get("/v1/deliveries?state=pending")).json()["data"][:1]
    assert held["endpoint_id"] != endpoint["id"]
    counted = await browser.send(page, action="count", status="missing", enable="on")
    assert counted.status_code == 200
    assert (await served.http.get("/v1/replays")).json()["data"] == [], "it only counted"
    fields = {"action": "replay", "status": "held", "enable": "1"}
    begun = await browser.send(page, **fields)
    [replay] = (await served.http.get("/v1/replays")).json()["data"]
    assert begun.headers["location"] == f"/dashboard/replays/{replay['id']}"
    assert (replay["status"], replay["endpoint_id"]) == ("held", endpoint["id"])
    shown = await browser.get(begun.headers["location"])
    assert replay["id"] in shown.text
    await browser.send(begun.headers["location"], action="cancel")
    again = (await served.http.get(f"/v1/replays/{replay['id']}")).json()
    assert again["state"] in ("cancelled", "done")


async def test_a_replay_is_counted_first(served: Served, browser: Browser) -> None:
    await served.watch("batch_1")
    await served.see(a_snapshot("batch_1"))
    await served.try_all(Outcome(status=200))
    asked = {"status": "all", "hours": ""}
    counted = await browser.send("/dashboard/replays", action="count", **asked)
    assert "Send 1 again" in counted.text
    await browser.send("/dashboard/replays", action="create", **asked)
    [replay] = (await served.http.get("/v1/replays")).json()["data"]
    assert (replay["status"], replay["total"]) == ("all", 1)
    odd = await browser.send("/dashboard/replays", action="create", hours="99")
    assert odd.status_code == 400


async def test_a_delivery_shows_what_was_sent_and_is_sent_again(
    served: Served, browser: Browser
) -> None:
    await served.watch("batch_1", metadata={"note": POISON})
    await served.see(a_snapshot("batch_1"))
    sent = {"content-type": "application/json", "webhook-id": "evt_1", "x-own": "***"}
    [id] = await served.try_all(
        Outcome(
            status=500,
            started_at=served.context.clock(),
            duration_ms=12.0,
            request_headers=sent,
            response_headers={"server": POISON},
            response_body=POISON,
        )
    )
    page = f"/dashboard/deliveries/{id}"
    text = (await browser.get(page)).text
    assert "<script>alert" not in text
    assert "<img" not in text
    for word in ("HTTP 500", "12 ms", "webhook-id", "curl http"):
        assert word in text, word
    await browser.send(page, action="resend")
    delivery = (await served.http.get(f"/v1/deliveries/{id}")).json()
    assert (delivery["state"], delivery["next_attempt_at"]) == (
        "pending",
        int(served.context.clock()),
    )
    event = f"/dashboard/events/{delivery['event_id']}"
    assert id in (await browser.get(event)).text
    answer = await browser.send(event, action="resend")
    assert answer.status_code == 303
    assert id in (await browser.get("/dashboard/deliveries?state=pending")).text
    assert id not in (await browser.get("/dashboard/deliveries?state=held")).text


async def test_keys_are_made_shown_once_and_revoked(served: Served, browser: Browser) -> None:
    made = await browser.send("/dashboard/keys", action="create", name="ci")
    [key] = re.findall(r"<code>(bb_[0-9a-f]+)</code>", made.text)
    await browser.sign_in(key)
    assert key not in (await browser.get("/dashboard/keys")).text
    [row] = (await served.http.get("/v1/keys", headers=bearer(key))).json()["data"]
    await browser.send("/dashboard/keys", action="revoke", key_id=row["id"])
    assert (await browser.get("/dashboard")).status_code == 303


async def test_accounts_are_added_paused_and_removed(served: Served, browser: Browser) -> None:
    page = "/dashboard/accounts"
    fields = {name: AN_ACCOUNT[name] for name in ("provider", "base_url", "api_key")}
    await browser.send(page, action="add", name="second", **fields)
    found = (await served.http.get("/v1/accounts/second")).json()
    text = (await browser.get(page)).text
    assert ("second" in text, fields["api_key"] in text) == (True, False)
    await browser.send(page, action="pause", account=found["id"])
    assert (await served.http.get("/v1/accounts/second")).json()["state"] == "paused"
    await browser.send(page, action="resume", account=found["id"])
    assert (await served.http.get("/v1/accounts/second")).json()["state"] == "active"
    tested = await browser.send(page, action="test", account=found["id"])
    assert ("unavailable" in tested.text, "Test of second" in tested.text) == (True, True)
    await browser.send(page, action="replace", account=found["id"], api_key="sk-another-9876543210")
    hint = (await served.http.get("/v1/accounts/second")).json()["api_key_hint"]
    assert hint != found["api_key_hint"]
    await browser.send(page, action="remove", account=found["id"], force="1")
    assert (await served.http.get("/v1/accounts/second")).status_code == 404


async def test_a_project_is_made_and_looked_at(served: Served, browser: Browser) -> None:
    await browser.send("/dashboard/projects", name="search")
    projects = (await served.http.get("/v1/projects")).json()["data"]
    assert [one["name"] for one in projects] == ["default", "search"]
    await browser.send("/dashboard", "/dashboard/project", project=projects[1]["id"])
    assert "you look at this one" in (await browser.get("/dashboard/projects")).text


async def test_settings_and_the_system_show_no_secret(served: Served, browser: Browser) -> None:
    settings = (await browser.get("/dashboard/settings")).text
    assert "BATCHBELL_POLL_INTERVAL_SECONDS" in settings
    system = (await browser.get("/dashboard/system")).text
    assert "up to date" in system
    secret = (await served.http.get("/v1/secret")).json()["secret"]
    assert secret not in settings + system


async def test_the_system_says_what_is_wrong_and_what_to_do(
    served: Served, browser: Browser, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = (await browser.get("/dashboard/system")).text
    assert "All is well" in well
    served.workers["watcher"] = False
    monkeypatch.setenv("OPENAI_API_KYE", "sk-x")
    await browser.sign_in((await made_key(served))["key"])
    served.context.declared._known = {}
    clock.advance(3600.0)
    page = (await browser.get("/dashboard/system")).text
    assert "3 checks have failed." in page
    findings = re.findall(r"<li>.*?</li>", page[page.index('class="findings"') :])
    for number, words in enumerate(
        (
            ("failed", "The watcher has shown no life lately.", "Look into the log"),
            ("failed", "is a worker running?", "start a worker"),
            ("failed", "Account openai is not swept", "batchbell worker"),
            ("note", "One API key of the project", "keys create"),
        )
    ):
        assert all(word in findings[number] for word in words), (words, findings[number])
    for word in ("was declared once", "Did you mean OPENAI_API_KEY?", "Webhooks may go to"):
        assert any(word in one for one in findings), word


async def test_providers_are_asked_when_somebody_asks_for_it(
    served: Served, browser: Browser, sandbox: Sandbox
) -> None:
    served.declare(base_url=sandbox.base_url)
    url = "/dashboard/system"
    assert "accepts the key" not in (await browser.get(url)).text
    assert not sandbox.provider.log, "nobody is called for a look"
    assert "accepts the key" in (await browser.send(url, action="check")).text
    assert sandbox.provider.log
    served.declare(key="sk-wrong")
    refused = (await browser.send(url, action="check")).text
    assert ("Check OPENAI_API_KEY" in refused, "sk-wrong" in refused) == (True, False)
    assert (await browser.send(url, action="dance")).status_code == 400
