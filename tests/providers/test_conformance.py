"""The port's contract: what every dialect promises, over real HTTP, whatever its provider does.

The suite runs over every dialect in `registry.DIALECTS`. A new adapter brings, in `benches.py`:

1. a sandbox that speaks its dialect, with the words that are listed there, so that a test can
   make, end, lose and spoil batches. The provider's own SDK should not tell it from the real one;
2. a `Bench`: the adapter beside the sandbox, and the few facts in which dialects differ.

What a provider cannot do, its profile says (`list_style`, `page_size`), and the suite asks the
profile. What is the provider's own, such as names of fields, is tested beside the suite, in
`test_<dialect>.py`. A promise that one adapter needs and all must keep is added here.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from batchbell.core.errors import (
    MalformedBatch,
    ProviderAuthError,
    ProviderNotFound,
    ProviderRateLimited,
    ProviderUnavailable,
)
from batchbell.core.model import Counts, Snapshot, Status
from batchbell.core.twins import Marks
from batchbell.files.lines import Fate, answer
from batchbell.files.provider_files import unpack
from batchbell.providers import Order, Provider
from batchbell.providers.profile import ListStyle
from batchbell.providers.registry import DIALECTS
from batchbell.sandbox import problem
from tests.providers.benches import BENCHES, NOW, Bench


async def all_pages(provider: Provider) -> list[list[str]]:
    pages, cursor = [], None
    while True:
        page = await provider.list_page(cursor)
        pages.append([batch.id for batch in page.batches])
        cursor = page.next_cursor
        if cursor is None:
            return pages


async def read(provider: Provider, reference: str, *, is_input: bool = False) -> list[Any]:
    """The lines that a reference names, in OpenAI's shape."""
    lines = provider.lines
    reshape = lines and (lines.request if is_input else lines.answer)
    with tempfile.TemporaryDirectory() as folder:
        sent, target = Path(folder) / "sent", Path(folder) / "lines"
        arrived = await provider.results(reference, sent, most_bytes=10**8)
        unpack(sent, target, arrived, most_bytes=10**8, reshape=reshape)
        body = target.read_bytes()
    return [json.loads(line) for line in body.splitlines()]


async def answers_of(provider: Provider, batch: Snapshot) -> list[Any]:
    assert batch.names_answers
    return [line for reference in batch.answers for line in await read(provider, reference)]


def test_every_dialect_has_a_sandbox() -> None:
    assert set(BENCHES) == set(DIALECTS)


async def test_an_account_without_batches_has_one_empty_page(bench: Bench) -> None:
    page = await bench.provider.list_page()
    assert (page.batches, page.malformed, page.next_cursor) == ((), (), None)


async def test_pages_are_full_and_show_every_batch_once(bench: Bench) -> None:
    size = bench.provider.profile.page_size
    ids = bench.sandbox.provider.add_batches(2 * size + 50)
    pages = await all_pages(bench.provider)
    whole = bench.provider.profile.list_style is ListStyle.WHOLE
    assert [len(page) for page in pages] == ([len(ids)] if whole else [size, size, 50])
    assert sorted(id for page in pages for id in page) == sorted(ids)
    assert bench.sandbox.provider.calls["list"] == len(pages)


async def test_a_listed_batch_is_the_same_as_a_retrieved_one(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=10, metadata={"job": "nightly"})
    (listed,) = (await bench.provider.list_page()).batches
    retrieved = await bench.provider.retrieve(identity)
    assert listed == retrieved
    assert listed.fingerprint == retrieved.fingerprint


async def test_rows_that_the_caller_knows_are_not_read_again(bench: Bench) -> None:
    first, second = bench.sandbox.provider.add_batches(2)
    new = await bench.provider.list_page()
    known = {h: batch.id for h, batch in zip(new.hashes, new.batches, strict=True)}
    again = await bench.provider.list_page(known=known)
    assert (again.batches, again.hashes, set(again.unchanged)) == ((), (), {first, second})
    assert again.next_cursor == new.next_cursor
    bench.sandbox.provider.finish(first, "completed")
    moved = await bench.provider.list_page(known=known)
    assert [(batch.id, batch.status) for batch in moved.batches] == [(first, Status.COMPLETED)]
    assert moved.unchanged == (second,)


async def test_the_next_page_is_found_behind_rows_that_are_known(bench: Bench) -> None:
    size = bench.provider.profile.page_size
    bench.sandbox.provider.add_batches(size + 1)
    new = await bench.provider.list_page()
    known = {h: batch.id for h, batch in zip(new.hashes, new.batches, strict=True)}
    again = await bench.provider.list_page(known=known)
    assert len(again.unchanged) == len(known) > 0
    assert again.next_cursor == new.next_cursor


async def test_an_open_batch_shows_what_it_is(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=10, metadata={"job": "nightly"})
    batch = await bench.provider.retrieve(identity)
    assert batch.id == identity
    assert batch.status is Status.IN_PROGRESS
    assert batch.counts == Counts(total=10, completed=0, failed=0)
    if bench.tags:
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
    if not bench.says_why:
        pytest.skip("its batches say nothing of the kind")
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
    lines = await answers_of(bench.provider, batch)
    fates = Counter(answer(json.dumps(line).encode()).fate for line in lines)  # type: ignore[union-attr]
    assert fates == {Fate.SUCCEEDED: 280, Fate.FAILED: 20}
    assert len({line["custom_id"] for line in lines}) == 300


async def test_results_that_are_gone_are_not_found(bench: Bench) -> None:
    with pytest.raises(ProviderNotFound):
        await read(bench.provider, bench.gone)


async def test_results_that_are_cut_off_do_not_pass_for_whole(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=300)
    bench.sandbox.provider.finish(identity, "completed")
    batch = await bench.provider.retrieve(identity)
    bench.sandbox.provider.faults.add("cut_off", route="content")
    try:
        lines = await answers_of(bench.provider, batch)
    except ProviderUnavailable:
        return
    assert len({line["custom_id"] for line in lines}) == 300, "the rest was asked for"


ROW = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": {"model": "m"}}


TAG = ("batchbell_part", "prt_1.1")


async def submitted(provider: Provider, folder: Path, **more: Any) -> Snapshot:
    """As the submitter does it: upload, then have it run."""
    if not provider.profile.submissions:
        pytest.skip("no submissions are handed in there")
    requests = folder / "part.jsonl"
    requests.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    file = await provider.upload(requests, name="part.jsonl")
    lines = provider.lines
    endpoint = (lines.form.endpoint if lines else None) or "/v1/responses"
    order = Order(requests=requests, file=file, endpoint=endpoint, model="m", tag=TAG, **more)
    made = await provider.submit(order)
    assert made.input_file_id == file
    return made


async def test_requests_are_submitted_listed_and_found_again(bench: Bench, tmp_path: Path) -> None:
    made = await submitted(bench.provider, tmp_path, metadata={"job": "a"})
    assert (await bench.provider.list_page()).batches[0].id == made.id
    marks = Marks(asked_at=NOW, input_file_id=made.input_file_id, lines=1, tag=TAG)
    found, whole = await bench.provider.find(marks)
    assert ([one.id for one in found], whole) == ([made.id], True)
    if bench.tags:
        assert dict([TAG]).items() <= (made.metadata or {}).items()
        other = replace(marks, input_file_id="file-other", tag=(TAG[0], "prt_2.1"))
        assert await bench.provider.find(other) == ([], True)


async def test_an_input_is_read_back_and_deleted(bench: Bench, tmp_path: Path) -> None:
    made = await submitted(bench.provider, tmp_path)
    if made.input_file_id is None or not bench.provider.profile.returns_inputs:
        pytest.skip("there is no file, or it is not given back")
    lines = await read(bench.provider, made.input_file_id, is_input=True)
    assert [line["custom_id"] for line in lines] == ["a"]
    await bench.provider.delete(made.input_file_id)
    await bench.provider.delete(made.input_file_id)
    with pytest.raises(ProviderNotFound):
        await read(bench.provider, made.input_file_id)


async def test_what_a_batch_left_is_deleted(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=3)
    bench.sandbox.provider.finish(identity, "completed", failed=1)
    batch = await bench.provider.retrieve(identity)
    for reference in batch.answers:
        await bench.provider.delete(reference)
        with pytest.raises(ProviderNotFound):
            await read(bench.provider, reference)


async def test_a_refusal_to_delete_is_said(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=3)
    bench.sandbox.provider.finish(identity, "completed")
    batch = await bench.provider.retrieve(identity)
    bench.sandbox.provider.faults.add("unauthorized", times=None)
    with pytest.raises(ProviderAuthError):
        await bench.provider.delete(batch.answers[0])


async def test_a_refused_call_that_creates_says_why(bench: Bench, tmp_path: Path) -> None:
    bench.sandbox.provider.faults.add("rate_limited", retry_after_seconds=3)
    with pytest.raises(ProviderRateLimited) as error:
        await submitted(bench.provider, tmp_path)
    assert error.value.retry_after_seconds == 3


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
    bench.sandbox.provider.faults.add(
        "rewrite", route="list", batch_id=ids[1], drop=[bench.status_field]
    )
    page = await bench.provider.list_page()
    assert {batch.id for batch in page.batches} == {ids[0], ids[2]}
    assert [row.id for row in page.malformed] == [ids[1]]
    assert page.malformed[0].reason


async def test_a_retrieved_row_that_makes_no_sense_is_malformed(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch()
    bench.sandbox.provider.faults.add(
        "rewrite", route="retrieve", batch_id=identity, drop=[bench.status_field]
    )
    with pytest.raises(MalformedBatch):
        await bench.provider.retrieve(identity)


async def test_an_answer_about_another_batch_is_malformed(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch()
    bench.sandbox.provider.faults.add(
        "rewrite", route="retrieve", batch_id=identity, fields={bench.id_field: "batch_other"}
    )
    with pytest.raises(MalformedBatch, match="batch_other"):
        await bench.provider.retrieve(identity)
