"""Results over HTTP: whole, in part, by status, by key and by link."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchbell.client import AsyncBatchbell, Batchbell, downloads
from batchbell.core import links
from batchbell.core.model import DEFAULT_PROJECT, Status
from batchbell.core.results import Results, Tally
from batchbell.storage import batches, merges, results
from batchbell.web.dashboard import preview
from batchbell.web.downloads import NotSatisfiable, Span, asked_span

from .making import Served, a_snapshot
from .test_dashboard import page_in

pytestmark = pytest.mark.databases("sqlite")

LINES = b"".join(
    json.dumps(
        {
            "custom_id": f"r{n}",
            "response": {"status_code": 200 if n % 2 else 400, "body": {"text": "x" * 200}},
            "error": None,
        }
    ).encode()
    + b"\n"
    for n in range(2000)
)


async def wanted(served: Served, id: str = "batch_1") -> Results:
    """Results of a batch that has ended, not merged yet."""
    await served.watch(id)
    await served.see(a_snapshot(id))
    context = served.context
    batch = await context.store.read(batches.get_batch, DEFAULT_PROJECT, id)
    await context.store.write(results.request, [batch], mint=context.mint, now=context.clock())
    return await context.store.read(results.of_batch, DEFAULT_PROJECT, id)


async def merged(served: Served, tmp_path: Path, id: str = "batch_1") -> Results:
    """As a collector would leave them."""
    found = await wanted(served, id)
    file = tmp_path / "merged"
    file.write_bytes(LINES)
    await served.context.results_store.put(found.name, file)
    context, now = served.context, served.context.clock()
    held = await context.store.write(merges.claim_due, now=now, lease_seconds=60.0, token="t")
    assert held is not None
    tally = Tally(
        lines=2000, succeeded=1000, failed=1000, not_run=0, size=len(LINES), in_input_order=True
    )
    await context.store.write(merges.keep, held, tally, inline=None, mint=context.mint, now=now)
    return await context.store.read(results.of_batch, DEFAULT_PROJECT, id)


async def raw(served: Served, path: str, **headers: str) -> Any:
    return await served.http.get(path, headers={"accept-encoding": "identity", **headers})


async def test_results_are_one_file_of_json_lines(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    answer = await raw(served, "/v1/batches/batch_1/results")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/jsonl")
    assert answer.headers["content-length"] == str(len(LINES))
    assert answer.content == LINES


async def test_a_broken_download_goes_on_where_it_was(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    path = "/v1/batches/batch_1/results"
    first = await raw(served, path, range="bytes=0-99999")
    assert (first.status_code, len(first.content)) == (206, 100_000)
    etag = first.headers["etag"]
    rest = await raw(served, path, range="bytes=100000-", **{"if-range": etag})
    assert rest.headers["content-range"] == f"bytes 100000-{len(LINES) - 1}/{len(LINES)}"
    assert first.content + rest.content == LINES
    other = await raw(served, path, range="bytes=5-", **{"if-range": '"other"'})
    assert other.content == LINES
    past = await raw(served, path, range=f"bytes={len(LINES)}-")
    assert (past.status_code, past.headers["content-range"]) == (416, f"bytes */{len(LINES)}")


async def test_what_is_known_already_is_not_sent_again(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    path = "/v1/batches/batch_1/results"
    etag = (await raw(served, path)).headers["etag"]
    again = await raw(served, path, **{"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")


async def test_results_are_compressed_for_those_who_take_it(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    async with served.http.stream(
        "GET", "/v1/batches/batch_1/results", headers={"accept-encoding": "gzip"}
    ) as answer:
        zipped = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert len(zipped) < len(LINES) / 5
    assert gzip.decompress(zipped) == LINES


async def test_lines_of_one_fate_can_be_asked_for(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    answer = await raw(served, "/v1/batches/batch_1/results?status=failed")
    lines = [json.loads(line) for line in answer.content.splitlines()]
    assert len(lines) == 1000
    assert {line["response"]["status_code"] for line in lines} == {400}
    wrong = await raw(served, "/v1/batches/batch_1/results?status=maybe")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "status")


async def test_a_head_says_how_much_there_is(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    answer = await served.http.head("/v1/batches/batch_1/results")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(LINES)), "and not of what gzip makes of it"
    some = await served.http.head("/v1/batches/batch_1/results?status=failed")
    assert (some.status_code, "content-length" in some.headers) == (200, False)


async def test_a_link_needs_no_key_and_ends(served: Served, tmp_path: Path) -> None:
    found = await merged(served, tmp_path)
    now = served.context.clock()
    url = links.link(served.url, found.id, secret=found.secret, now=now)
    assert (await raw(served, url)).content == LINES
    old = links.link(served.url, found.id, secret=found.secret, now=now - links.LINK_SECONDS - 2)
    gone = await raw(served, old)
    assert (gone.status_code, gone.json()["error"]["code"]) == (410, "link_expired")


@pytest.mark.parametrize(
    "change",
    [("signature=", "signature=0"), ("expires=1", "expires=2"), ("results/res", "results/x")],
)
async def test_a_link_that_was_changed_leads_nowhere(
    served: Served, tmp_path: Path, change: tuple[str, str]
) -> None:
    found = await merged(served, tmp_path)
    url = links.link(served.url, found.id, secret=found.secret, now=served.context.clock())
    answer = await raw(served, url.replace(*change))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "write", ["0{}", "000000{}9", "{}9", "+{}", " {}", "{}.0", "\u0661{}", "9" * 5000, "-1", ""]
)
async def test_an_expired_link_stays_expired_however_its_time_is_written(
    served: Served, tmp_path: Path, write: str
) -> None:
    found = await merged(served, tmp_path)
    now = served.context.clock() - links.LINK_SECONDS - 2
    old = links.link(served.url, found.id, secret=found.secret, now=now)
    expires = str(int(now) + links.LINK_SECONDS)
    signature = old.rpartition("=")[2]
    answer = await served.http.get(
        f"/results/{found.id}", params={"expires": write.format(expires), "signature": signature}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_batch_that_runs_has_no_results(served: Served) -> None:
    await served.watch("batch_2")
    await served.see(a_snapshot("batch_2", Status.IN_PROGRESS))
    answer = await raw(served, "/v1/batches/batch_2/results")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_ended")
    assert (await raw(served, "/v1/batches/batch_none/results")).status_code == 404


async def given_up(served: Served, found: Results, now: float) -> None:
    """As a collector gives them up."""
    store = served.context.store
    held = await store.write(merges.claim_due, now=now, lease_seconds=60.0, token="t")
    assert held is not None
    assert held.results.id == found.id
    await store.write(merges.give_up, held, reason="No such file.", now=now)


async def test_results_that_cannot_be_had_say_why(served: Served) -> None:
    found, now = await wanted(served), served.context.clock()
    await given_up(served, found, now)
    assert await served.context.store.write(results.ask_again, [found.id], now=now)
    await given_up(served, found, now)
    answer = await raw(served, "/v1/batches/batch_1/results")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "results_failed")
    assert "No such file." in answer.json()["error"]["message"]
    assert answer.headers["retry-after"] == "60"


@pytest.mark.parametrize("way", ["get", "link", "post", "watch"])
async def test_results_that_were_given_up_are_tried_again_for_whoever_asks(
    served: Served, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchbell.web.results.WAIT_SECONDS", 0.0)
    found, now = await wanted(served), served.context.clock()
    await given_up(served, found, now)
    match way:
        case "get":
            answer = await raw(served, "/v1/batches/batch_1/results")
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                503,
                "results_not_ready",
            )
        case "link":
            url = links.link(served.url, found.id, secret=found.secret, now=now)
            assert (await raw(served, url)).status_code == 503
        case "post":
            answer = await served.http.post("/v1/batches/batch_1/results")
            results_ = answer.json()["batchbell"]["results"]
            assert (answer.status_code, results_["state"]) == (202, "waiting")
        case _:
            await served.watch("batch_1", url="https://example.com/other")
    again = await served.context.store.read(results.by_id, found.id)
    assert again is not None
    assert (again.state, again.tries) == ("waiting", 0)


@pytest.mark.parametrize("change", ["gone", "cut"])
async def test_results_that_are_not_on_the_disk_any_more_are_fetched_anew(
    served: Served, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchbell.web.results.WAIT_SECONDS", 0.0)
    found = await merged(served, tmp_path)
    await served.context.results_store.delete(found.name)
    if change == "cut":
        (tmp_path / "half").write_bytes(LINES[:1000])
        await served.context.results_store.put(found.name, tmp_path / "half")
    answer = await raw(served, "/v1/batches/batch_1/results")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "results_not_ready")
    again = await served.context.store.read(results.by_id, found.id)
    assert again is not None
    assert again.state == "waiting"
    file = tmp_path / "merged"
    file.write_bytes(LINES)
    await served.context.results_store.put(found.name, file)
    context, now = served.context, served.context.clock()
    held = await context.store.write(merges.claim_due, now=now, lease_seconds=60.0, token="t")
    assert held is not None
    tally = replace(found.tally, notes=())  # type: ignore[type-var]
    await context.store.write(merges.keep, held, tally, inline=None, mint=context.mint, now=now)
    assert (await raw(served, "/v1/batches/batch_1/results")).content == LINES
    await served.context.results_store.delete(found.name)
    gone = await raw(served, "/v1/batches/batch_1/results")
    assert (gone.status_code, gone.json()["error"]["code"]) == (410, "results_gone"), "not so soon"


async def test_what_was_expunged_is_not_fetched_by_looking_at_it(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchbell.web.results.WAIT_SECONDS", 0.0)
    found = await merged(served, tmp_path)
    store, now = served.context.store, served.context.clock()
    for row in (await served.http.get("/v1/watches?batch_id=batch_1")).json()["data"]:
        await served.http.delete(f"/v1/watches/{row['id']}")
    assert (await served.http.post("/v1/batches/batch_1/expunge")).status_code == 200
    url = links.link(served.url, found.id, secret=found.secret, now=now)
    path = "/v1/batches/batch_1/results"
    for where in (path, url, path):
        answer = await raw(served, where)
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "results_expunged")
    await store.write(results.forget, [found.id], before=now)
    answer = await raw(served, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "results_expunged")
    assert (
        "results"
        not in (await served.http.get("/v1/batches/batch_1?fresh=false")).json()["batchbell"]
    )
    with client_of(served) as client:
        asked = await asyncio.to_thread(client.fetch_results, "batch_1")
    assert asked.batchbell.results is not None
    assert asked.batchbell.results.state == "waiting"
    assert (await raw(served, path)).status_code == 503
    async with AsyncBatchbell(served.url) as bell:
        assert (await bell.fetch_results("batch_1")).batchbell.results == asked.batchbell.results


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=5-", Span(5, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-30", Span(0, 10)),
        ("bytes=2-99", Span(2, 10)),
        ("bytes=0-1,3-4", None),
        ("bytes=-", None),
        ("lines=0-1", None),
    ],
)
def test_ranges(header: str | None, span: Span | None) -> None:
    assert asked_span(header, 10) == span


@given(st.text(max_size=20), st.integers(0, 20))
def test_no_range_leaves_the_file(header: str, size: int) -> None:
    try:
        span = asked_span(f"bytes={header}", size)
    except NotSatisfiable:
        return
    assert span is None or 0 <= span.start < span.end <= size


def client_of(served: Served) -> Batchbell:
    return Batchbell(served.url)


async def test_the_client_reads_line_by_line(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    with client_of(served) as client:
        lines = await asyncio.to_thread(lambda: list(client.results("batch_1")))
        failed = await asyncio.to_thread(lambda: list(client.results("batch_1", status="failed")))
    assert [line.custom_id for line in lines] == [f"r{n}" for n in range(2000)]
    assert [line.succeeded for line in lines[:2]] == [False, True]
    assert len(failed) == 1000
    async with AsyncBatchbell(served.url) as bell:
        assert [line async for line in bell.results("batch_1")] == lines


async def test_a_download_goes_on_where_it_was_broken_off(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    target = tmp_path / "out.jsonl"
    etag = (await raw(served, "/v1/batches/batch_1/results")).headers["etag"]
    (tmp_path / "out.jsonl.part").write_bytes(LINES[:1000])
    (tmp_path / "out.jsonl.part.etag").write_text(etag)
    seen: list[tuple[int, int | None]] = []
    with client_of(served) as client:
        await asyncio.to_thread(
            lambda: client.download_results(
                "batch_1", target, on_bytes=lambda *bytes: seen.append(bytes)
            )
        )
    assert target.read_bytes() == LINES
    assert seen[0][0] > 1000
    assert seen[-1] == (len(LINES), len(LINES))
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.jsonl"]  # noqa: ASYNC240


async def test_a_part_of_another_file_is_begun_anew(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    (tmp_path / "out.jsonl.part").write_bytes(b"other")
    (tmp_path / "out.jsonl.part.etag").write_text('"other"')
    with client_of(served) as client:
        await asyncio.to_thread(lambda: client.download_results("batch_1", tmp_path / "out.jsonl"))
    assert (tmp_path / "out.jsonl").read_bytes() == LINES


@pytest.mark.parametrize(
    ("line", "succeeded", "body"),
    [
        (b'{"custom_id":"a","response":{"status_code":"200","body":{"x":1}},"error":{}}', True, 1),
        (
            b'{"custom_id":"a","response":{"status_code":200,"body":"{\\"x\\":1}"},"error":""}',
            True,
            1,
        ),
        (b'{"custom_id":"a","response":{"body":{"x":1}},"error":null}', True, 1),
        (b'{"custom_id":7,"response":null,"error":"no"}', False, None),
        (b'{"custom_id":null,"response":null,"error":{"code":"unreadable_line"}}', False, None),
    ],
)
def test_the_client_reads_lines_however_a_provider_wrote_them(
    line: bytes, succeeded: bool, body: object
) -> None:
    found = downloads.result_line(line)
    assert found.succeeded is succeeded
    if succeeded:
        assert found.body == {"x": body}
    else:
        assert found.error is not None


async def test_a_page_that_is_open_shows_results_once_they_are_merged(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, headers = "/dashboard/batches/batch_1", {"accept": "text/event-stream"}
    await served.watch("batch_1")
    reads, read = [], preview.read

    async def counted(*of: Any) -> Any:
        reads.append(of)
        return await read(*of)

    monkeypatch.setattr(preview, "read", counted)
    async with served.http.stream("GET", url, headers=headers) as answer:
        lines = answer.aiter_lines()
        assert "when the batch has ended" in await page_in(lines)
        await merged(served, tmp_path)
        page = ""
        while "results?format=csv" not in page:
            page = await page_in(lines)
        first, *_ = re.findall(r'<details class="result">.*?</summary>', page)
        assert "failed" in first
    await served.http.get(url, headers={"accept": "text/html"})
    assert len(reads) == 1, "what was merged does not change"
