"""What is Azure OpenAI's own, beside what OpenAI's dialect promises."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from batchbell.core import refusals
from batchbell.core.errors import ProviderAuthError, ProviderError, ProviderRejected
from batchbell.core.model import Counts, Status
from batchbell.core.submission import Expiry
from batchbell.providers import Order, Provider
from batchbell.providers.profiles import AZURE
from batchbell.sandbox import Sandbox
from batchbell.sandbox.azure import DAY_SECONDS
from tests.providers.benches import KEY, NOW, connected
from tests.providers.canned import BATCH, Canned

URL = "/chat/completions"
ROW = {"custom_id": "a", "method": "POST", "url": URL, "body": {"model": "my-deployment"}}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(api_key=KEY, clock=lambda: NOW) as sandbox:
        yield sandbox


@pytest.fixture
async def azure(sandbox: Sandbox) -> AsyncIterator[Provider]:
    async for provider in connected("azure", AZURE.address(sandbox.azure_url)):
        yield provider


@pytest.fixture
async def canned_azure(canned: Canned) -> AsyncIterator[Provider]:
    async for provider in connected("azure", canned.base_url):
        yield provider


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    file = tmp_path / "part.jsonl"
    file.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    return file


def order(requests: Path, file: str | None, *, seconds: int | None = None) -> Order:
    return Order(requests=requests, file=file, endpoint=URL, output_expires_seconds=seconds)


async def test_the_key_goes_in_a_header_of_its_own(canned_azure: Provider, canned: Canned) -> None:
    canned.body = json.dumps(BATCH).encode()
    await canned_azure.retrieve("batch_1")
    headers = canned.asked[-1].headers
    assert headers["api-key"] == KEY
    assert "authorization" not in headers


async def test_a_batch_goes_from_its_file_to_its_results(
    azure: Provider, sandbox: Sandbox, requests: Path, tmp_path: Path
) -> None:
    wanted = Expiry(input_seconds=3_600, output_seconds=3_600)
    near = azure.profile.expiry_near(wanted)
    assert near == Expiry(input_seconds=14 * DAY_SECONDS, output_seconds=14 * DAY_SECONDS)
    file = await azure.upload(requests, name="a.jsonl", expires_seconds=near.input_seconds)
    made = await azure.submit(order(requests, file, seconds=near.output_seconds))
    assert (made.model, made.runs_on) == ("my-deployment", True)
    sandbox.azure.finish(made.id, "completed")
    (seen,) = (await azure.list_page()).batches
    assert (seen.status, seen.counts) == (Status.COMPLETED, Counts(total=1, completed=1, failed=0))
    assert seen.output_file_id is not None
    await azure.results(seen.output_file_id, tmp_path / "out", most_bytes=10**6)
    assert json.loads((tmp_path / "out").read_text())["custom_id"] == "a"


async def test_a_batch_of_a_file_that_is_not_processed_yet_is_asked_for_again(
    azure: Provider, sandbox: Sandbox, requests: Path
) -> None:
    """https://github.com/openai/openai-dotnet/issues/312"""
    sandbox.azure.processing_seconds = 30.0
    file = await azure.upload(requests, name="a.jsonl")
    with pytest.raises(ProviderError) as refused:
        await azure.submit(order(requests, file))
    assert refused.value.status == 400
    assert refusals.is_about_file(refused.value.code, refused.value.message)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("Completed", Status.COMPLETED),
        ("InProgress", None),
        ("In_Progress", Status.IN_PROGRESS),
        ("Cancelled", Status.CANCELLED),
        ("Validating", Status.VALIDATING),
    ],
)
async def test_words_are_read_in_any_case(
    azure: Provider, sandbox: Sandbox, word: str, status: Status | None
) -> None:
    id = sandbox.azure.add_batch()
    sandbox.azure.set_status(id, word)
    seen = await azure.retrieve(id)
    assert (seen.provider_status, seen.status) == (word, status)


async def test_one_that_failed_has_no_counts_and_an_error_file_of_no_bytes(
    azure: Provider, sandbox: Sandbox, tmp_path: Path
) -> None:
    id = sandbox.azure.add_batch()
    sandbox.azure.finish(id, "failed")
    seen = await azure.retrieve(id)
    assert (seen.status, seen.counts) == (Status.FAILED, None)
    assert [one.code for one in seen.problems] == ["token_limit_exceeded"]
    assert ("completed_at" in seen.timestamps, "failed_at" in seen.timestamps) == (True, False)
    assert seen.error_file_id is not None
    await azure.results(seen.error_file_id, tmp_path / "errors", most_bytes=10**6)
    assert (tmp_path / "errors").read_bytes() == b""


async def test_blobs_stand_for_files_and_are_read_without_the_key(
    azure: Provider, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.azure.blobs = "localhost"
    id = sandbox.azure.add_batch(total=3)
    sandbox.azure.finish(id, "completed", failed=1)
    (seen,) = (await azure.list_page()).batches
    lines = []
    for reference in (seen.output_file_id, seen.error_file_id):
        assert reference is not None
        assert reference.startswith(f"http://localhost:{sandbox.port}/azure/blobs/")
        await azure.results(reference, tmp_path / "out", most_bytes=10**6)
        lines += (tmp_path / "out").read_text().splitlines()
    assert len(lines) == 3


async def test_a_blob_that_wants_a_key_says_where_it_is(
    azure: Provider, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.azure.blobs, sandbox.azure.signed = "localhost", False
    id = sandbox.azure.add_batch()
    sandbox.azure.finish(id, "completed")
    reference = (await azure.retrieve(id)).output_file_id
    assert reference is not None
    with pytest.raises(ProviderRejected, match="is at localhost, which answered 409"):
        await azure.results(reference, tmp_path / "out", most_bytes=10**6)


async def test_what_is_in_the_customers_storage_is_not_deleted(
    azure: Provider, sandbox: Sandbox
) -> None:
    await azure.delete("https://storage.example/batch-output/1/results.jsonl")
    assert not sandbox.azure.calls


async def test_a_wrong_key_is_an_error_of_the_account(sandbox: Sandbox) -> None:
    async for provider in connected("azure", AZURE.address(sandbox.azure_url), key="other-key"):
        with pytest.raises(ProviderAuthError, match="Access denied"):
            await provider.list_page()
