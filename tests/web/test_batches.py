"""`/v1/batches`, judged by the official OpenAI SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest
from openai.types import Batch

from batchbell.client import AsyncBatchbell
from batchbell.core.backoff import MINUTE
from batchbell.core.model import BatchProblem, Missing, Outcome, Snapshot, Status
from batchbell.storage import batch_lists as stored

from ..conftest import Clock
from .making import HOOK, Served, a_snapshot


@pytest.fixture
def sdk(served: Served) -> Iterator[openai.OpenAI]:
    """The SDK as a user has it, with our address as its `base_url`."""
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="sk-any", max_retries=0) as client:
        yield client


async def retrieve(sdk: openai.OpenAI, batch_id: str) -> Batch:
    return await asyncio.to_thread(sdk.batches.retrieve, batch_id)


async def test_the_sdk_reads_a_completed_batch(served: Served, sdk: openai.OpenAI) -> None:
    await served.watch("batch_1")
    await served.see(a_snapshot("batch_1"))
    batch = await retrieve(sdk, "batch_1")
    Batch.model_validate(batch.model_dump(), strict=True)
    assert (batch.id, batch.object, batch.status) == ("batch_1", "batch", "completed")
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 3
    assert (batch.input_file_id, batch.output_file_id) == ("file-in", "file-out")
    assert (batch.created_at, batch.completed_at) == (1_789_990_000, 1_789_999_000)
    assert batch.metadata == {"night": "yes"}
    assert batch.usage is not None
    assert batch.usage.total_tokens == 15
    extras = (batch.model_extra or {})["batchbell"]
    assert (extras["account"], extras["provider"]) == ("openai", "openai")
    assert (extras["status"], extras["outcome"]) == ("completed", "succeeded")


async def test_the_sdk_reads_a_batch_that_was_never_seen(
    served: Served, sdk: openai.OpenAI, clock: Clock
) -> None:
    await served.watch("batch_1")
    batch = await retrieve(sdk, "batch_1")
    Batch.model_validate(batch.model_dump(), strict=True)
    assert (batch.status, batch.created_at) == ("validating", int(clock()))


async def test_a_batch_whose_requests_all_failed_does_not_look_completed_only(
    served: Served, sdk: openai.OpenAI
) -> None:
    """Pitfall 9: no counts, errors or file ids. Pitfall 12: it is not a success."""
    await served.watch("batch_1")
    await served.see(a_snapshot("batch_1", counts=(3, 0, 3)))
    batch = await retrieve(sdk, "batch_1")
    assert (batch.output_file_id, batch.error_file_id) == (None, "file-err")
    assert (batch.model_extra or {})["batchbell"]["outcome"] == "none"


async def test_the_providers_errors_keep_their_lines(served: Served, sdk: openai.OpenAI) -> None:
    await served.watch("batch_1")
    problem = BatchProblem(code="invalid_json_line", message="Not JSON.", line=7)
    failed = Snapshot(
        id="batch_1", provider_status="failed", status=Status.FAILED, problems=(problem,)
    )
    await served.see(failed)
    batch = await retrieve(sdk, "batch_1")
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(e.code, e.line) for e in batch.errors.data] == [("invalid_json_line", 7)]


async def test_a_lost_batch_has_failed_in_openais_words_and_says_why(
    served: Served, sdk: openai.OpenAI, clock: Clock
) -> None:
    await served.watch("batch_1")
    await served.see(Missing("batch_1"))
    clock.advance(2 * MINUTE)
    await served.see(Missing("batch_1"))
    batch = await retrieve(sdk, "batch_1")
    Batch.model_validate(batch.model_dump(), strict=True)
    assert (batch.status, batch.failed_at) == ("failed", int(clock()))
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [e.code for e in batch.errors.data] == ["batch_not_found"]
    assert (batch.model_extra or {})["batchbell"]["status"] == "lost"


async def test_the_sdk_walks_all_pages(served: Served, sdk: openai.OpenAI) -> None:
    ids = [f"batch_{i:02}" for i in range(25)]
    await served.http.post("/v1/watches", json=[{"batch_id": i, "url": HOOK} for i in ids])
    found = await asyncio.to_thread(lambda: [b.id for b in sdk.batches.list(limit=7)])
    assert len(found) == len(ids)
    assert set(found) == set(ids)


async def test_the_sdk_understands_our_404(served: Served, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await asyncio.to_thread(
            sdk.batches.retrieve, "batch_unknown", extra_query={"fresh": "false"}
        )
    assert (caught.value.code, caught.value.type) == ("not_found", "invalid_request_error")
    assert "batch_unknown" in caught.value.message


async def test_batches_are_listed_by_status(served: Served) -> None:
    for batch_id in ("batch_1", "batch_2"):
        await served.watch(batch_id)
    await served.see(a_snapshot("batch_2"))
    found = (await served.http.get("/v1/batches", params={"status": "completed"})).json()
    assert [one["id"] for one in found["data"]] == ["batch_2"]


async def test_an_unknown_status_is_refused(served: Served) -> None:
    answer = await served.http.get("/v1/batches", params={"status": "done"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "status")


async def test_a_batch_is_expunged_once_it_has_ended(served: Served) -> None:
    await served.watch("batch_1")
    early = await served.http.post("/v1/batches/batch_1/expunge")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "conflict")
    await served.see(a_snapshot("batch_1"))
    await served.try_all(Outcome(status=200, started_at=1.0, duration_ms=1.0))
    expunged = (await served.http.post("/v1/batches/batch_1/expunge")).json()
    assert (expunged["metadata"], expunged["usage"]) == (None, None)
    assert expunged["batchbell"]["expunged_at"] is not None
    assert (await served.http.get("/v1/batches/batch_1")).json() == expunged
    assert (await served.http.post("/v1/batches/batch_0/expunge")).status_code == 404


async def test_lists_of_batches_and_submissions_take_every_filter(served: Served) -> None:
    await served.watch("batch_1")
    await served.watch("other_2")
    await served.see(a_snapshot("batch_1"))
    found: list[tuple[str, int]] = [
        ("id=batch_&status=completed&outcome=succeeded&account=openai&provider=openai", 1),
        ("metadata[night]=yes&since=1&until=9999999999.5", 1),
        ("metadata%5Bnight%5D=no", 0),
        ("metadata[night]=yes&metadata[day]=yes", 0),
        ("ended_until=1", 0),
        ("model=gpt-5", 0),
        ("provider=groq", 0),
    ]
    for query, count in found:
        answer = await served.http.get(f"/v1/batches?{query}")
        assert len(answer.json()["data"]) == count, (query, answer.text)
        assert (await served.http.get(f"/v1/submissions?{query}")).json()["data"] == []


WRONG_FILTERS = [
    ("metadata=night", "metadata", "metadata[key]=value"),
    ("metadata[]=x", "metadata", "metadata[key]=value"),
    ("metadata[a]=x&metadata[a]=y", "metadata[a]", "more than once"),
    (f"metadata[a]={'x' * 513}", "metadata[a]", "512 characters"),
    ("&".join(f"metadata[{n}]=x" for n in range(17)), "metadata", "At most 16"),
    ("meta[a]=x", "meta[a]", "Unknown query parameter"),
    ("provider=groc", "provider", "Did you mean 'groq'?"),
    ("account=opnai", "account", "Did you mean 'openai'?"),
    ("outcome=good", "outcome", "partial"),
    ("since=yesterday", "since", "number"),
    ("since=-1", "since", "greater"),
    ("id=%25", "id", "letters, digits"),
    ("model=", "model", "1 character"),
]


async def test_a_wrong_filter_is_named_with_what_to_write(served: Served) -> None:
    for query, param, says in WRONG_FILTERS:
        answer = await served.http.get(f"/v1/batches?{query}")
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, param), (query, error)
        assert says in error["message"], (query, error)


async def test_a_page_that_finds_little_says_where_to_go_on(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "LOOKED_AT_MOST", 2)
    for number in range(5):
        await served.watch(f"batch_{number}")
    await served.see(a_snapshot("batch_0", Status.VALIDATING))
    page = (await served.http.get("/v1/batches?model=gpt-5-mini")).json()
    assert (page["data"], page["last_id"], page["has_more"]) == ([], "batch_3", True)
    async with AsyncBatchbell(served.url) as client:
        found = [one.id async for one in client.batches(model="gpt-5-mini")]
    assert found == ["batch_0"]
