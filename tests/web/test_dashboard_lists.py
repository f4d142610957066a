"""Lists of the dashboard: what they refuse, where they lead, and what the overview leads to."""

from __future__ import annotations

import re

import httpx2
import pytest
from msgspec.structs import replace

from batchbell.core.model import Outcome, Status
from batchbell.web.dashboard import deliveries, lists, overview

from ..conftest import Clock
from .making import Served, a_snapshot
from .test_dashboard import Browser, browser

__all__ = ["browser"]

pytestmark = pytest.mark.databases("sqlite")


@pytest.mark.parametrize(
    "asked",
    [
        "batches?status=faild",
        "batches?state=failed",
        "batches?status=failed&status=completed",
        "batches?hours=NaN",
        "batches?ended=-1",
        "submissions?outcome=good",
        "events?type=batch.done",
        "events?delivered=maybe",
        "deliveries?state=failed",
        "endpoints?page=2",
        "replays?status=failed",
        "batches/batch_1?lines=bad",
        "batches/batch_1/results?format=xlsx",
        "?period=NaN",
    ],
)
async def test_no_list_takes_a_word_that_it_does_not_know(
    served: Served, browser: Browser, asked: str
) -> None:
    """Else it would show everything, and look as if it had been asked for that."""
    await served.watch("batch_1")
    answer = await browser.get(f"/dashboard/{asked}".replace("/?", "?"))
    assert answer.status_code == 400
    section = re.split(r"[/?]", asked)[0]
    assert f'href="/dashboard{section and "/" + section}">To ' in answer.text


async def test_the_newest_page_keeps_what_was_asked_for(
    served: Served, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchbell.web.dashboard.batches.PAGE", 1)
    for id in ("batch_1", "batch_2", "batch_3"):
        await served.watch(id)
    await served.see(a_snapshot("batch_3"))
    first = (await browser.get("/dashboard/batches?status=validating")).text
    [older] = re.findall(r'href="([^"]+)">Older', first)
    page = (await browser.get(f"/dashboard/batches{older.replace('&amp;', '&')}")).text
    assert 'href="/dashboard/batches?status=validating">Newest' in page
    assert lists.PAGE > 1


async def test_a_figure_leads_to_what_it_counts(
    served: Served, browser: Browser, clock: Clock
) -> None:
    for number, status in enumerate((Status.EXPIRED, Status.EXPIRED, Status.FAILED)):
        await served.watch(f"batch_{number}")
        await served.see(a_snapshot(f"batch_{number}", status))
    for id in ("batch_3", "batch_4"):
        await served.watch(id)
    await served.watch("batch_runs")
    await served.see(a_snapshot("batch_runs", Status.FINALIZING))
    page = (await browser.get("/dashboard")).text
    for link, value, sub in (
        ("/dashboard/batches?status=expired&amp;ended=24", "3", "2 expired"),
        ("/dashboard/batches?status=validating", "3", "1 finalizing"),
    ):
        [tile] = re.findall(rf'<a href="{re.escape(link)}">.*?</a>', page)
        assert (f'"value">{value}<' in tile, sub in tile) == (True, True), tile
    found = (await browser.get("/dashboard/batches?status=expired&ended=24")).text
    assert [f"batches/batch_{number}" in found for number in range(3)] == [True, True, False]
    clock.advance(86_401)
    assert (
        "No batch is like this"
        in (await browser.get("/dashboard/batches?status=expired&ended=24")).text
    )


async def test_whoever_has_much_to_look_at_may_see_more_of_it(
    served: Served, browser: Browser, clock: Clock
) -> None:
    for number in range(overview.SHOWN + 1):
        await served.watch(f"batch_{number}")
        snapshot = a_snapshot(f"batch_{number}", Status.IN_PROGRESS)
        expires = {**snapshot.timestamps, "expires_at": int(clock()) + 600 + number}
        await served.see(replace(snapshot, timestamps=expires))
    last = f"batches/batch_{overview.SHOWN}"
    page = (await browser.get("/dashboard")).text
    assert last not in page
    [more] = re.findall(r'href="([^"]+)">Show more', page)
    page = (await browser.get(f"/dashboard{more.replace('&amp;', '&')}")).text
    assert (last in page, "Show more" in page) == (True, False)


async def test_a_delivery_with_many_attempts_has_its_body_once_and_the_last_attempts(
    served: Served, browser: Browser, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "ATTEMPTS_MOST", 2)
    await served.watch("batch_1", metadata={"note": "in-the-body"})
    await served.see(a_snapshot("batch_1"))
    [id] = await served.try_all(Outcome(status=500))
    one = (await browser.get(f"/dashboard/deliveries/{id}")).text
    for _ in range(2):
        clock.advance(86_400)
        await served.try_all(Outcome(status=500))
    three = (await browser.get(f"/dashboard/deliveries/{id}")).text
    assert ("Attempt 3<" in three, "Attempt 1<" in three) == (True, False)
    assert "1 more that came before" in three
    assert one.count("in-the-body") == three.count("in-the-body")


async def test_a_command_is_made_of_nothing_but_an_id(served: Served, browser: Browser) -> None:
    """Else a link to a search could bring along who is to be called."""
    page = (await browser.get("/dashboard/batches?q=batch_1")).text
    assert "https://example.com/hook" in page
    for odd in ('batch_1", "url": "https://evil.example', "batch\n1", "'; reboot; '", "a b"):
        query = str(httpx2.QueryParams({"q": f"x{odd}"}))
        answer = await browser.get(f"/dashboard/batches?{query}")
        assert ("curl" in answer.text, "Show all" in answer.text) == (False, True), odd


async def test_an_endpoint_behind_an_open_breaker_is_tried_when_somebody_says_so(
    served: Served, browser: Browser, clock: Clock
) -> None:
    made = await served.watch("batch_0")
    page = f"/dashboard/endpoints/{made['endpoint_id']}"
    for number in range(6):
        await served.watch(f"batch_{number}")
        await served.see(a_snapshot(f"batch_{number}"))
        await served.try_all(Outcome(status=500))
        assert ("Try it now" in (await browser.get(page)).text) == (number >= 3)
        clock.advance(20)
    story = (await browser.get("/dashboard/batches/batch_5")).text
    assert "The breaker is open since" in story, "so it is pending"
    await browser.send(page, action="probe")
    shown = (await served.http.get(f"/v1/webhook_endpoints/{made['endpoint_id']}")).json()
    assert shown["breaker"]["next_probe_at"] == int(clock())


async def test_a_batch_whose_id_ends_like_another_page_has_its_own(
    served: Served, browser: Browser
) -> None:
    for id in ("batches/a", "batches/a/results", "a/cancel"):
        await served.watch(id)
        await served.see(a_snapshot(id))
        await served.try_all(Outcome(status=200))
        page = f"/dashboard/batches/{id.replace('/', '%2F')}"
        text = (await browser.get(page)).text
        assert set(re.findall(r'action="(/dashboard/batches[^"]*)"', text)) == {page}
        await browser.send(page, action="expunge")
        path = f"/v1/batches/{id.replace('/', '%2F')}"
        assert (await served.http.get(path)).json()["batchbell"]["expunged_at"], id


async def test_an_id_of_several_accounts_says_what_an_expunge_means(
    served: Served, browser: Browser
) -> None:
    await served.watch("batch_1")
    await served.see(a_snapshot("batch_1"))
    words = "of this id of all accounts"
    page = "/dashboard/batches/batch_1"
    assert words not in (await browser.get(page)).text
    assert words in (await browser.get(f"{page}?account=openai")).text
