"""What every adapter promises, over real HTTP, whatever its provider does."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from batchbell.core.errors import (
    MalformedBatch,
    ProviderAuthError,
    ProviderNotFound,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from batchbell.core.model import Counts, Snapshot, Status
from batchbell.files.provider_files import unpack
from batchbell.providers import Order, Provider
from batchbell.sandbox import problem
from tests.providers.conftest import NOW, Bench


async def all_pages(provider: Provider) -> list[list[str]]:
    pages, cursor = [], None
    while True:
        page = await provider.list_page(cursor)
        pages.append([batch.id for batch in page.batches])
        cursor = page.next_cursor
        if cursor is None:
            return pages


async def read(provider: Provider, file_id: str | None) -> list[Any]:
    assert file_id is not None
    with tempfile.TemporaryDirectory() as folder:
        sent, target = Path(folder) / "sent", Path(folder) / "lines"
        arrived = await provider.results(file_id, sent, most_bytes=10**8)
        unpack(sent, target, arrived, most_bytes=10**8)
        body = target.read_bytes()
    return [json.loads(line) for line in body.splitlines()]


async def test_an_account_without_batches_has_one_empty_page(bench: Bench) -> None:
    page = await bench.provider.list_page()
    assert (page.batches, page.malformed, page.next_cursor) == ((), (), None)


async def test_pages_hold_a_hundred_each_and_every_batch_once(bench: Bench) -> None:
    ids = bench.sandbox.provider.add_batches(250)
    pages = await all_pages(bench.provider)
    assert [len(page) for page in pages] == [100, 100, 50]
    assert sorted(id for page in pages for id in page) == sorted(ids)
    assert bench.sandbox.provider.calls["list"] == 3


async def test_a_listed_batch_is_the_same_as_a_retrieved_one(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=10, metadata={"job": "nightly"})
    (listed,) = (await bench.provider.list_page()).batches
    retrieved = await bench.provider.retrieve(identity)
    assert listed == retrieved
    assert listed.fingerprint() == retrieved.fingerprint()


async def test_an_open_batch_shows_what_it_is(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=10, metadata={"job": "nightly"})
    batch = await bench.provider.retrieve(identity)
    assert batch.id == identity
    assert batch.status is Status.IN_PROGRESS
    assert batch.counts == Counts(total=10, completed=0, failed=0)
    assert batch.metadata is not None
    assert batch.metadata["job"] == "nightly"
    assert batch.created_at is not None
    assert abs(batch.created_at - NOW) < 60


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
async def test_every_end_is_understood(bench: Bench, status: str) -> None:
    identity = bench.sandbox.provider.add_batch(total=10)
    bench.sandbox.provider.finish(identity, status)
    batch = await bench.provider.retrieve(identity)
    assert batch.status is Status(status)
    assert batch.status.ended


async def test_the_reasons_of_a_failure_come_with_their_lines(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=10)
    reason = problem("invalid_json_line", "This line is not parseable as valid JSON.", line=3)
    bench.sandbox.provider.finish(identity, "failed", problems=[reason])
    (found,) = (await bench.provider.retrieve(identity)).problems
    assert (found.code, found.line) == ("invalid_json_line", 3)
    assert found.message == "This line is not parseable as valid JSON."


async def test_results_stream_whole(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=300)
    bench.sandbox.provider.finish(identity, "completed", failed=20)
    batch = await bench.provider.retrieve(identity)
    assert batch.counts == Counts(total=300, completed=280, failed=20)
    good = await read(bench.provider, batch.output_file_id)
    bad = await read(bench.provider, batch.error_file_id)
    assert (len(good), len(bad)) == (280, 20)
    assert len({line["custom_id"] for line in good + bad}) == 300


async def test_results_that_are_gone_are_not_found(bench: Bench) -> None:
    with pytest.raises(ProviderNotFound):
        await read(bench.provider, "file-gone")


async def test_results_that_are_cut_off_do_not_pass_for_whole(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=300)
    bench.sandbox.provider.finish(identity, "completed")
    batch = await bench.provider.retrieve(identity)
    bench.sandbox.provider.faults.add("cut_off", route="content")
    with pytest.raises(ProviderUnavailable):
        await read(bench.provider, batch.output_file_id)


ROW = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": {"model": "m"}}


def order(requests: Path, file: str | None, **more: Any) -> Order:
    return Order(requests=requests, file=file, endpoint="/v1/responses", **more)


async def test_requests_are_handed_in_run_and_cleared_away(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "part.jsonl"
    file.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    file_id = await bench.provider.upload(file, name="part.jsonl")
    tag = ("batchbell_part", "prt_1.1")
    made = await bench.provider.submit(order(file, file_id, metadata={"job": "a"}, tag=tag))
    assert made.input_file_id == file_id
    assert made.metadata == {"job": "a", "batchbell_part": "prt_1.1"}
    assert (await bench.provider.list_page()).batches[0].id == made.id
    assert await read(bench.provider, file_id) == [ROW]
    await bench.provider.delete(file_id)
    await bench.provider.delete(file_id)
    with pytest.raises(ProviderNotFound):
        await read(bench.provider, file_id)


@pytest.mark.parametrize(("days", "told"), [(None, 30), (2, 2)])
async def test_the_provider_forgets_files_when_it_is_asked_to(
    bench: Bench, tmp_path: Path, days: int | None, told: int
) -> None:
    file = tmp_path / "part.jsonl"
    file.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    seconds = days and days * 86_400
    file_id = await bench.provider.upload(file, name="part.jsonl", expires_seconds=seconds)
    made = await bench.provider.submit(order(file, file_id, output_expires_seconds=seconds))
    bench.sandbox.provider.finish(made.id, "completed")
    output = (await bench.provider.retrieve(made.id)).output_file_id
    for left in (file_id, output):
        assert left is not None
        found = bench.sandbox.provider.file(left)
        assert found.expires_at == found.created_at + told * 86_400


async def test_files_that_a_batch_left_are_deleted(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=3)
    bench.sandbox.provider.finish(identity, "completed")
    file_id = (await bench.provider.retrieve(identity)).output_file_id
    assert file_id is not None
    await bench.provider.delete(file_id)
    with pytest.raises(ProviderNotFound):
        await read(bench.provider, file_id)


async def test_a_refusal_to_delete_is_told(bench: Bench) -> None:
    bench.sandbox.provider.faults.add("unauthorized", route="delete_file")
    with pytest.raises(ProviderAuthError):
        await bench.provider.delete("file-1")


async def test_a_batch_of_a_file_that_is_not_there_is_refused(bench: Bench, tmp_path: Path) -> None:
    """Pitfall 15: right after an upload this may be transient."""
    with pytest.raises(ProviderRejected, match="Cannot find file"):
        await bench.provider.submit(order(tmp_path / "none", "file-none"))


async def test_an_upload_that_is_refused_says_why(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "part.jsonl"
    file.write_bytes(b"{}")
    bench.sandbox.provider.faults.add("rate_limited", route="upload", retry_after_seconds=3)
    with pytest.raises(ProviderRateLimited):
        await bench.provider.upload(file, name="part.jsonl")


async def test_cancelling_asks_for_an_end(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=10)
    batch = await bench.provider.cancel(identity)
    assert batch.id == identity
    assert batch.status in (Status.CANCELLING, Status.CANCELLED)


@pytest.mark.parametrize(
    "identity", ["batch_unknown", "../files", "a/b", "a?b#c", ".", "..", "%2e"]
)
async def test_an_unknown_id_is_not_found_and_reaches_no_other_path(
    bench: Bench, identity: str
) -> None:
    with pytest.raises((ProviderNotFound, ProviderUnavailable)):
        await bench.provider.retrieve(identity)
    others = set(bench.sandbox.provider.calls) - {"retrieve"}
    assert not any(bench.sandbox.provider.calls[route] for route in others)


async def test_a_batch_that_the_provider_forgot_is_not_found(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch()
    bench.sandbox.provider.forget(identity)
    with pytest.raises(ProviderNotFound):
        await bench.provider.retrieve(identity)


async def test_a_refused_key_is_said_so_without_the_key(bench: Bench) -> None:
    bench.sandbox.provider.faults.add("unauthorized", times=None)
    for call in (bench.provider.list_page(), bench.provider.retrieve("batch_1")):
        with pytest.raises(ProviderAuthError) as error:
            await call
        assert error.value.status == 401
        assert "sk-" not in error.value.message


async def test_a_rate_limit_carries_the_wish_to_wait(bench: Bench) -> None:
    bench.sandbox.provider.faults.add("rate_limited", retry_after_seconds=17)
    with pytest.raises(ProviderRateLimited) as error:
        await bench.provider.list_page()
    assert error.value.retry_after_seconds == 17
    assert (await bench.provider.list_page()).batches == ()


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503},
        {"kind": "html", "status": 200},
        {"kind": "html", "status": 502},
        {"kind": "html", "status": 404},
        {"kind": "truncated"},
        {"kind": "cut_off"},
    ],
)
async def test_what_is_not_the_apis_answer_is_no_answer(
    bench: Bench, fault: dict[str, Any]
) -> None:
    identity = bench.sandbox.provider.add_batch()
    for verb in (bench.provider.list_page, lambda: bench.provider.retrieve(identity)):
        bench.sandbox.provider.faults.add(**fault)
        with pytest.raises(ProviderUnavailable):
            await verb()
    assert (await bench.provider.retrieve(identity)).id == identity


async def test_a_reset_is_no_answer(bench: Bench) -> None:
    bench.sandbox.provider.faults.add("reset", times=None)
    with pytest.raises(ProviderUnavailable):
        await bench.provider.list_page()


async def test_a_provider_that_is_gone_is_unavailable_until_it_is_back(bench: Bench) -> None:
    await bench.sandbox.stop()
    with pytest.raises(ProviderUnavailable):
        await bench.provider.list_page()
    await bench.sandbox.start()
    assert (await bench.provider.list_page()).batches == ()


async def test_an_unknown_status_is_kept_and_not_taken_for_another(bench: Bench) -> None:
    """Pitfall 17: unknown statuses appear."""
    identity = bench.sandbox.provider.add_batch()
    bench.sandbox.provider.set_status(identity, "Reticulating")
    batch = await bench.provider.retrieve(identity)
    assert (batch.status, batch.provider_status) == (None, "Reticulating")


async def test_one_row_that_makes_no_sense_spoils_only_itself(bench: Bench) -> None:
    ids = bench.sandbox.provider.add_batches(3)
    bench.sandbox.provider.faults.add("rewrite", route="list", batch_id=ids[1], drop=["status"])
    page = await bench.provider.list_page()
    assert {batch.id for batch in page.batches} == {ids[0], ids[2]}
    assert [row.id for row in page.malformed] == [ids[1]]
    assert page.malformed[0].reason


async def test_a_retrieved_row_that_makes_no_sense_is_malformed(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch()
    bench.sandbox.provider.faults.add(
        "rewrite", route="retrieve", batch_id=identity, drop=["status"]
    )
    with pytest.raises(MalformedBatch):
        await bench.provider.retrieve(identity)


async def test_an_answer_about_another_batch_is_malformed(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch()
    bench.sandbox.provider.faults.add(
        "rewrite", route="retrieve", batch_id=identity, fields={"id": "batch_other"}
    )
    with pytest.raises(MalformedBatch, match="batch_other"):
        await bench.provider.retrieve(identity)


async def test_rewritten_file_ids_that_are_empty_mean_none(bench: Bench) -> None:
    """Pitfall 16: `error_file_id` may be ""."""
    identity = bench.sandbox.provider.add_batch()
    bench.sandbox.provider.faults.add(
        "rewrite", route="retrieve", batch_id=identity, fields={"error_file_id": ""}
    )
    batch: Snapshot = await bench.provider.retrieve(identity)
    assert batch.error_file_id is None
