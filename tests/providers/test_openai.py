"""What is OpenAI's own, beside what every dialect promises."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from batchbell.core.errors import ProviderRateLimited, ProviderRejected
from batchbell.providers import Order
from tests.providers import benches
from tests.providers.benches import Bench

ROW = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": {"model": "m"}}


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with benches.openai() as bench:
        yield bench


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    file = tmp_path / "part.jsonl"
    file.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    return file


def order(requests: Path, file: str | None, output_expires_seconds: int | None = None) -> Order:
    return Order(
        requests=requests,
        file=file,
        endpoint="/v1/responses",
        output_expires_seconds=output_expires_seconds,
    )


@pytest.mark.parametrize(("days", "kept"), [(None, 30), (2, 2)])
async def test_files_are_kept_for_as_long_as_was_asked(
    bench: Bench, requests: Path, days: int | None, kept: int
) -> None:
    seconds = days and days * 86_400
    file_id = await bench.provider.upload(requests, name="a.jsonl", expires_seconds=seconds)
    made = await bench.provider.submit(order(requests, file_id, seconds))
    bench.sandbox.provider.finish(made.id, "completed")
    output = (await bench.provider.retrieve(made.id)).output_file_id
    for left in (file_id, output):
        assert left is not None
        found = bench.sandbox.provider.file(left)
        assert found.expires_at == found.created_at + kept * 86_400


async def test_a_batch_of_a_file_that_is_not_there_is_refused(bench: Bench, requests: Path) -> None:
    """Pitfall 15: right after an upload this may be transient."""
    with pytest.raises(ProviderRejected, match="Cannot find file"):
        await bench.provider.submit(order(requests, "file-none"))


async def test_an_upload_that_is_refused_says_why(bench: Bench, requests: Path) -> None:
    bench.sandbox.provider.faults.add("rate_limited", route="upload", retry_after_seconds=3)
    with pytest.raises(ProviderRateLimited):
        await bench.provider.upload(requests, name="part.jsonl")


async def test_rewritten_file_ids_that_are_empty_mean_none(bench: Bench) -> None:
    """Pitfall 16: `error_file_id` may be ""."""
    identity = bench.sandbox.provider.add_batch()
    bench.sandbox.provider.faults.add(
        "rewrite", route="retrieve", batch_id=identity, fields={"error_file_id": ""}
    )
    batch = await bench.provider.retrieve(identity)
    assert batch.error_file_id is None
