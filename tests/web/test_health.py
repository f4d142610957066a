"""What probes, scrapes and people ask."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from batchbell import __version__
from batchbell.core.errors import ResultsUnavailable
from batchbell.core.model import Status
from batchbell.files.results_store import Folder
from batchbell.places import Placing

from ..conftest import Clock
from .making import Served, a_snapshot

pytestmark = pytest.mark.databases("sqlite")


async def test_all_is_well(served: Served) -> None:
    assert (await served.http.get("/healthz")).json() == {"status": "ok"}
    assert (await served.http.get("/readyz")).json() == {
        "status": "ready",
        "reasons": [],
        "warnings": [],
    }


async def test_a_worker_without_life_makes_the_server_not_ready(served: Served) -> None:
    served.workers |= {"watcher": True, "dispatcher": False}
    answer = await served.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["The dispatcher has shown no life lately."]


async def test_a_server_without_workers_tells_that_nobody_works(
    served: Served, clock: Clock
) -> None:
    await served.watch("batch_1")
    await served.see(a_snapshot("batch_1"))
    assert served.workers == {}
    clock.advance(200)
    answer = await served.http.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    swept, webhook, results = answer.json()["warnings"]
    assert "not swept" in swept
    assert webhook == "A webhook has been due for 200 s."
    assert results == "Results have been due to be merged for 200 s."
    shown = (await served.http.get("/v1/accounts")).json()["data"]
    assert all("no worker" in account["unswept"] for account in shown)
    lines = await scrape(served)
    assert 'batchbell_sweep_age_seconds{account="openai"} 200.0' in lines
    assert "batchbell_results_past_due_seconds 200.0" in lines
    assert "batchbell_submissions_past_due_seconds 0.0" in lines


def placing(served: Served, folder: Path) -> Placing:
    """As another process has it."""
    context, results_store = served.context, Folder(folder)
    marker, clock = context.mint("plc"), context.clock
    return Placing(context.store, results_store, "", marker=marker, keep_seconds=1e6, clock=clock)


async def test_results_places_that_are_not_shared_are_told_but_not_named(
    served: Served, clock: Clock, tmp_path: Path
) -> None:
    here, link = tmp_path / "here", tmp_path / "link"
    here.mkdir()
    link.symlink_to(here)
    for folder in (link, here):  # two paths, one folder
        await placing(served, folder).note()
    assert (await served.http.get("/readyz")).json()["warnings"] == []
    assert "batchbell_results_places 1.0" in await scrape(served)

    with capture_logs() as logs:
        elsewhere = placing(served, tmp_path / "elsewhere")
        await elsewhere.note()
        await elsewhere.note()
    [line] = logs
    assert {str(here), str(tmp_path / "elsewhere")} == {one.split()[0] for one in line["places"]}
    clock.advance(6)
    (warning,) = (await served.http.get("/readyz")).json()["warnings"]
    assert "2 different places" in warning
    assert str(tmp_path) not in warning, "anybody may ask"
    assert "batchbell_results_places 2.0" in await scrape(served)

    clock.advance(301)
    with capture_logs() as logs:
        await placing(served, here).note()
    [line] = logs
    assert line["event"] == "older results may be in a place that no process uses now"
    assert "places" not in str((await served.http.get("/readyz")).json()["warnings"])


async def test_a_place_that_cannot_be_marked_is_an_error_of_results(
    served: Served, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsUnavailable):
        await placing(served, tmp_path / "file" / "below").note()


async def test_a_paused_account_is_not_missed(served: Served, clock: Clock) -> None:
    for name in served.accounts:
        await served.http.post(f"/v1/accounts/{name}/pause")
    clock.advance(1000)
    assert (await served.http.get("/readyz")).json()["warnings"] == []
    assert not [line for line in await scrape(served) if "sweep_age_seconds{" in line]


async def scrape(served: Served) -> list[str]:
    answer = await served.http.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    return answer.text.splitlines()


async def test_gauges_are_read_when_scraped_and_kept_for_a_moment(
    served: Served, clock: Clock
) -> None:
    await served.watch("batch_1")
    assert 'batchbell_open_batches{status="validating"} 1.0' in await scrape(served)
    await served.watch("batch_2")
    await served.see(a_snapshot("batch_1"))
    assert 'batchbell_open_batches{status="validating"} 1.0' in await scrape(served)
    clock.advance(30)
    lines = await scrape(served)
    assert 'batchbell_open_batches{status="validating"} 1.0' in lines
    assert 'batchbell_deliveries{state="pending"} 1.0' in lines
    assert "batchbell_oldest_past_due_seconds 30.0" in lines


async def test_a_gauge_that_has_emptied_says_zero(served: Served, clock: Clock) -> None:
    await served.watch("batch_1")
    await served.see(a_snapshot("batch_1", Status.IN_PROGRESS))
    assert 'batchbell_open_batches{status="in_progress"} 1.0' in await scrape(served)
    await served.see(a_snapshot("batch_1"))
    clock.advance(6)
    assert 'batchbell_open_batches{status="in_progress"} 0.0' in await scrape(served)


async def test_the_front_page_says_where_to_read_on(served: Served) -> None:
    index = (await served.http.get("/")).json()
    assert (index["name"], index["version"]) == ("batchbell", __version__)
    for link in (index["docs"], index["openapi"]):
        assert (await served.http.get(link)).status_code == 200


async def test_the_docs_need_no_other_server(served: Served) -> None:
    page = (await served.http.get("/docs")).text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {"docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "docs/docs.js"} <= set(links)
    for link in links:
        assert not link.startswith(("http", "//"))
        if not link.startswith("data:"):
            answer = await served.http.get(f"/{link}")
            assert answer.status_code == 200
            assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await served.http.get("/docs/README.md")).status_code == 404


async def test_each_group_of_the_reference_is_explained(served: Served) -> None:
    document = (await served.http.get("/openapi.json")).json()
    used = {
        tag
        for operations in document["paths"].values()
        for operation in operations.values()
        for tag in operation["tags"]
    }
    assert {tag["name"] for tag in document["tags"]} == used


async def test_accounts_are_shown_without_credentials(served: Served, provider_url: str) -> None:
    [account] = (await served.http.get("/v1/accounts")).json()["data"]
    assert (account["name"], account["provider"], account["state"]) == (
        "openai",
        "openai",
        "active",
    )
    assert account["base_url"] == provider_url


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
async def test_what_is_not_offered_is_said(served: Served, method: str) -> None:
    assert (await served.http.request(method, "/healthz")).status_code == 405
