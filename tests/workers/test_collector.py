"""Merging the results of ended batches, from a provider's files to the shelf."""

from __future__ import annotations

import errno
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.failing_work import die
from tests.workers.conftest import House

from batchbell import threads
from batchbell.core.errors import LeaseLost, NotFound
from batchbell.core.model import DEFAULT_PROJECT, BatchOutcome
from batchbell.core.results import (
    BEHIND_SECONDS,
    DOUBT_TRIES,
    GONE_TRIES,
    TRIES_MAX,
    Results,
    ResultsMode,
    ResultsState,
)
from batchbell.files.results_store import Folder
from batchbell.files.tables import files_of
from batchbell.storage import merges, results
from batchbell.storage.batches import get_batch
from batchbell.workers.collector import Collector


@dataclass
class Desk:
    """A collector that is stepped by hand."""

    house: House
    collector: Collector
    results_store: Folder
    rushed: bool = False
    """Whether webhooks go first."""

    async def ended(
        self,
        end: str = "completed",
        *,
        total: int = 10,
        mode: ResultsMode = ResultsMode.LINK,
        **how: Any,
    ) -> str:
        """A batch that has ended so, and whose results are wanted."""
        id = self.house.provider.add_batch(total=total)
        await self.house.register(id, results=mode)
        self.house.provider.finish(id, end, **how)
        await self.house.sweep()
        return id

    async def collect(self) -> None:
        while await self.collector.step() or self.collector.under_way:
            await self.collector.ended()

    async def settled(self, batch_id: str) -> Results:
        """Collect until the results are there, or given up."""
        for _ in range(30):
            await self.collect()
            found = await self.of(batch_id)
            if found.state is not ResultsState.WAITING:
                return found
            [one] = await self.house.read(merges.waiting)
            self.house.clock.now = max(self.house.clock.now, one.due_at)
        raise AssertionError("the tries have no end")

    async def of(self, batch_id: str) -> Results:
        return await self.house.read(results.of_batch, DEFAULT_PROJECT, batch_id)

    async def lines(self, found: Results) -> list[dict[str, Any]]:
        whole = b"".join([chunk async for chunk in self.results_store.read(found.name)])
        return [json.loads(line) for line in whole.splitlines()]


@pytest.fixture
async def desk(house: House, tmp_path: Path) -> AsyncIterator[Desk]:
    results_store = Folder(tmp_path / "results")
    collector = Collector(
        house.store,
        results_store,
        lambda _: house.watcher.provider,
        clock=house.clock,
        mint=house.mint,
        rand=lambda: 0.5,
        metrics=house.metrics,
        scratch=tmp_path / "results" / ".scratch",
        inline_max_bytes=10_000,
        retention_days=30.0,
        rushed=lambda: made.rushed,
    )
    made = Desk(house, collector, results_store)
    yield made
    await collector.close()


async def test_while_webhooks_are_rushed_only_results_that_somebody_waits_for_are_merged(
    desk: Desk,
) -> None:
    desk.rushed = True
    link = await desk.ended()
    lines = await desk.ended(mode=ResultsMode.INLINE)
    asked = await desk.ended()
    now = desk.house.clock()
    await desk.house.store.write(results.ask_again, [(await desk.of(asked)).id], now=now)
    await desk.collect()
    states = [(await desk.of(id)).state for id in (link, lines, asked)]
    assert states == [ResultsState.WAITING, ResultsState.READY, ResultsState.READY]
    assert 0 < await desk.collector.idle_seconds() < 1
    desk.house.clock.advance(BEHIND_SECONDS)
    await desk.collect()
    assert (await desk.of(link)).state is ResultsState.READY


async def test_once_webhooks_are_out_results_are_merged_at_once(desk: Desk) -> None:
    desk.rushed = True
    id = await desk.ended()
    await desk.collect()
    desk.rushed = False
    await desk.collect()
    assert (await desk.of(id)).state is ResultsState.READY


async def test_the_results_of_a_completed_batch_are_merged(desk: Desk) -> None:
    id = await desk.ended(total=30, failed=4)
    await desk.collect()
    found = await desk.of(id)
    assert found.state is ResultsState.READY
    assert found.tally is not None
    assert (found.tally.lines, found.tally.succeeded, found.tally.failed) == (30, 26, 4)
    assert found.tally.notes == ()
    assert found.tally.usage["gpt-5-mini"].requests == 26
    lines = await desk.lines(found)
    assert len({line["custom_id"] for line in lines}) == 30
    assert found.tally.size == await desk.results_store.size(found.name)


@pytest.mark.parametrize(
    ("end", "code"), [("expired", "batch_expired"), ("cancelled", "batch_cancelled")]
)
async def test_what_was_finished_before_the_end_is_kept(desk: Desk, end: str, code: str) -> None:
    """Pitfall 13: partial results are paid for."""
    id = await desk.ended(end, total=10, completed=6)
    await desk.collect()
    found = await desk.of(id)
    assert found.tally is not None
    assert (found.tally.succeeded, found.tally.not_run) == (6, 4)
    errors = [line["error"]["code"] for line in await desk.lines(found) if line["error"]]
    assert errors == [code] * 4


async def test_lines_stand_in_the_order_of_the_input(desk: Desk) -> None:
    provider = desk.house.provider
    rows = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/responses", "body": {"model": "m"}}
        for n in range(20)
    ]
    content = "\n".join(map(json.dumps, rows)).encode()
    file = provider.upload(content, filename="in.jsonl", purpose="batch")
    created = provider.create(
        {"input_file_id": file["id"], "endpoint": "/v1/responses", "completion_window": "24h"}
    )
    await desk.house.register(created["id"])
    await desk.house.sweep()
    provider.finish(created["id"], "completed")
    await desk.house.sweep()
    await desk.collect()
    found = await desk.of(created["id"])
    assert found.tally is not None
    assert found.tally.in_input_order
    assert [line["custom_id"] for line in await desk.lines(found)] == [f"r{n}" for n in range(20)]


async def test_a_provider_in_trouble_is_asked_again(desk: Desk) -> None:
    id = await desk.ended()
    desk.house.provider.faults.add("status", route="content", status=503)
    await desk.collect()
    found = await desk.of(id)
    assert (found.state, found.tries) == (ResultsState.WAITING, 1)
    assert "server had an error" in str(found.reason)
    [one] = await desk.house.read(merges.waiting)
    assert one.due_at > desk.house.clock()
    assert (await desk.settled(id)).state is ResultsState.READY


async def test_files_that_stay_gone_end_the_tries(desk: Desk) -> None:
    id = await desk.ended()
    desk.house.provider.delete_file(desk.house.provider.retrieve(id)["output_file_id"])
    found = await desk.settled(id)
    assert (found.state, found.tries) == (ResultsState.FAILED, GONE_TRIES)
    assert "No such File object" in str(found.reason)


async def test_results_that_were_given_up_are_merged_when_somebody_asks(desk: Desk) -> None:
    id = await desk.ended()
    desk.house.provider.faults.add("status", status=404, route="content", times=None)
    found = await desk.settled(id)
    assert (found.state, found.tries) == (ResultsState.FAILED, TRIES_MAX)
    desk.house.provider.faults.clear()
    now = desk.house.clock()
    assert await desk.house.store.write(results.ask_again, [found.id], now=now)
    await desk.collect()
    assert (await desk.of(id)).state is ResultsState.READY


EARLY = [
    {"kind": "status", "status": 404},
    {"kind": "status", "status": 410},
    {"kind": "status", "status": 400},
    {"kind": "status", "status": 416},
    {"kind": "status", "status": 204},
    {"kind": "status", "status": 202},
    {"kind": "html", "status": 200},
    {"kind": "html", "status": 404},
    {"kind": "empty"},
    {"kind": "truncated"},
    {"kind": "reset"},
    {"kind": "error_in_place"},
    {"kind": "half_packed"},
]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("fault", EARLY, ids=str)
async def test_an_early_or_odd_answer_is_asked_for_again(desk: Desk, fault: dict[str, Any]) -> None:
    id = await desk.ended(failed=2)
    desk.house.provider.faults.add(**fault, route="content", times=4, skip_calls=1)
    found = await desk.settled(id)
    assert found.state is ResultsState.READY
    assert found.tally is not None
    assert (found.tally.succeeded, found.tally.failed, found.tally.notes) == (8, 2, ())
    assert found.tries > 1


async def test_a_line_that_is_still_written_is_no_answer(desk: Desk) -> None:
    """The only line is cut in half, under a right Content-Length."""
    id = await desk.ended(total=1)
    desk.house.provider.faults.add("truncated", route="content", times=2)
    found = await desk.settled(id)
    assert found.tally is not None
    assert (found.tally.succeeded, found.tally.lines, found.tries) == (1, 1, 3)


async def test_a_file_that_is_named_late_is_waited_for(desk: Desk) -> None:
    id = desk.house.provider.add_batch(total=3)
    await desk.house.register(id)
    desk.house.provider.finish(id)
    late = desk.house.provider.faults.add("late_file", times=3)
    await desk.house.sweep()
    found = await desk.settled(id)
    assert found.tally is not None
    assert (found.tally.succeeded, late.spent) == (3, 3)
    batch = await desk.house.read(get_batch, DEFAULT_PROJECT, id)
    assert batch.snapshot is not None
    assert batch.snapshot.output_file_id is not None


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("failed", "fields"),
    [
        (3, {}),
        (1, {"output_file_id": "file-kept"}),
        (0, {"request_counts": {"total": 0, "completed": 0, "failed": 0}}),
        (0, {"request_counts": None}),
    ],
    ids=["only errors", "some errors", "counts that are late", "no counts"],
)
async def test_files_that_are_not_named_at_first_are_asked_for_by_the_batch_id(
    desk: Desk, failed: int, fields: dict[str, Any]
) -> None:
    id = desk.house.provider.add_batch(total=3)
    await desk.house.register(id)
    desk.house.provider.finish(id, failed=failed)
    if "output_file_id" in fields:
        fields = {"output_file_id": desk.house.provider.retrieve(id)["output_file_id"]}
    without = {"output_file_id": None, "error_file_id": None} | fields
    desk.house.provider.faults.add("rewrite", batch_id=id, fields=without, times=2)
    await desk.house.sweep()
    found = await desk.settled(id)
    assert found.tally is not None
    assert (found.tally.succeeded, found.tally.failed) == (3 - failed, failed)
    assert (found.tally.notes, found.tries < DOUBT_TRIES) == ((), True)


async def test_a_file_that_is_never_named_or_short_is_not_waited_for_for_ever(desk: Desk) -> None:
    id = desk.house.provider.add_batch(total=3)
    await desk.house.register(id)
    desk.house.provider.finish(id)
    desk.house.provider.faults.add("late_file", times=None)
    await desk.house.sweep()
    found = await desk.settled(id)
    assert found.tally is not None
    assert (found.tries, found.tally.lines) == (DOUBT_TRIES, 0)
    assert "counts 3 requests, 3 completed" in found.tally.notes[-1]
    batch = await desk.house.read(get_batch, DEFAULT_PROJECT, id)
    assert batch.outcome is BatchOutcome.NONE, "by what the files hold"


@pytest.mark.parametrize("route", ["input", "error"])
async def test_what_the_answers_do_not_need_is_done_without(desk: Desk, route: str) -> None:
    id = await desk.ended(failed=2)
    batch = desk.house.provider.retrieve(id)
    name = batch[f"{route}_file_id"]
    desk.house.provider.faults.add("status", status=500, route="content", batch_id=name, times=None)
    found = await desk.settled(id)
    assert found.tally is not None
    assert (found.state, found.tally.succeeded) == (ResultsState.READY, 8)
    if route == "error":
        assert "The error file could not be had" in found.tally.notes[0]


async def test_a_webhook_that_waits_for_its_lines_goes_out_when_they_are_given_up(
    desk: Desk,
) -> None:
    house = desk.house
    id = house.provider.add_batch(total=1)
    await house.register(id, results=ResultsMode.INLINE)
    house.provider.finish(id)
    house.provider.faults.add("status", status=404, route="content", times=None)
    await house.sweep()
    await house.deliver()
    assert house.receiver.received == []
    assert (await desk.settled(id)).state is ResultsState.FAILED
    await house.deliver()
    [hook] = house.receiver.received
    assert json.loads(hook.body)["data"]["results"]["inline_omitted"] == "failed"


async def test_a_webhook_says_of_the_batch_what_its_files_hold(desk: Desk) -> None:
    house = desk.house
    id = house.provider.add_batch(total=10)
    await house.register(id, results=ResultsMode.INLINE)
    house.provider.finish(id)
    house.provider.faults.add(
        "rewrite", batch_id=id, fields={"request_counts": {"total": 0}}, times=None
    )
    await house.sweep()
    assert (await house.read(get_batch, DEFAULT_PROJECT, id)).outcome is None
    await desk.settled(id)
    await house.deliver()
    [hook] = house.receiver.received
    data = json.loads(hook.body)["data"]
    assert data["outcome"] == "succeeded"
    assert data["request_counts"] == {"total": 10, "completed": 10, "failed": 0}
    assert (await house.read(get_batch, DEFAULT_PROJECT, id)).outcome is BatchOutcome.SUCCEEDED


async def test_a_merge_that_fails_in_an_unforeseen_way_is_given_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("batchbell.workers.collector.merge_files", fail)
    monkeypatch.setattr("batchbell.core.results.TRIES_MAX", 3)
    id = await desk.ended()
    found = await desk.settled(id)
    assert (found.state, found.tries) == (ResultsState.FAILED, 3)
    assert "ZeroDivisionError" in str(found.reason)


@pytest.mark.databases("sqlite")
async def test_a_merge_that_kills_its_process_each_time_is_given_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchbell.threads.APART_BYTES", 0)
    monkeypatch.setattr("batchbell.core.results.TRIES_MAX", 3)
    id = await desk.ended()
    with monkeypatch.context() as patch:
        patch.setattr("batchbell.workers.collector.merge_files", die)
        found = await desk.settled(id)
    assert (found.state, found.tries) == (ResultsState.FAILED, 3)
    assert "died of signal 9, perhaps for want of memory" in str(found.reason)
    other = await desk.ended()
    assert (await desk.settled(other)).state is ResultsState.READY, "done in a new one"
    threads.children.end()


async def test_a_full_disk_is_said_and_the_scratch_folder_is_empty(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    id = await desk.ended()
    with monkeypatch.context() as patch:
        patch.setattr("batchbell.workers.collector.merge_files", full)
        await desk.collect()
    found = await desk.of(id)
    assert (found.state, found.reason) == (
        ResultsState.WAITING,
        "The disk is full: make room in the folder of the results.",
    )
    assert list((desk.results_store.root / ".scratch").iterdir()) == []
    assert (await desk.settled(id)).state is ResultsState.READY


@pytest.mark.databases("sqlite")
async def test_results_that_were_given_up_are_tried_again_once_in_a_while(desk: Desk) -> None:
    id = await desk.ended()
    desk.house.provider.faults.add("status", status=404, route="content", times=None)
    found, store, clock = await desk.settled(id), desk.house.store, desk.house.clock
    assert await store.write(results.ask_again, [found.id], now=clock())
    for _ in range(8):
        assert not await store.write(results.ask_again, [found.id], now=clock() + 0.5)
        await desk.collect()
        [one] = await desk.house.read(merges.waiting)
        clock.now, last = one.due_at, clock.now
    clock.now = last + 61.0
    assert await store.write(results.ask_again, [found.id], now=clock()), "sooner than due"
    assert not await store.write(results.ask_again, [found.id], now=clock())
    await desk.collect()
    assert (await desk.of(id)).tries == 9


async def test_a_merge_whose_lease_was_lost_is_not_kept(desk: Desk) -> None:
    id = await desk.ended()
    store, clock = desk.house.store, desk.house.clock
    held = await store.write(merges.claim_due, now=clock(), lease_seconds=1.0, token="first")
    assert held is not None
    clock.advance(2.0)
    await desk.collect()
    assert (await desk.of(id)).state is ResultsState.READY
    with pytest.raises(LeaseLost):
        await store.write(merges.put_off, held, reason="late", next_at=None, now=clock())


async def test_everything_of_results_goes_when_their_time_is_over(desk: Desk) -> None:
    id = await desk.ended()
    await desk.collect()
    found = await desk.of(id)
    for name in files_of(found):
        (desk.results_store.root / name).write_bytes(b"PAR1")
    desk.house.clock.advance(30.0 * 86_400 - 1.0)
    assert not found.is_over(now=desk.house.clock(), keep_seconds=30.0 * 86_400)
    await desk.collect()
    assert len([path for path in desk.results_store.root.rglob("res_*") if path.is_file()]) == 9
    desk.house.clock.advance(2.0)
    assert found.is_over(now=desk.house.clock(), keep_seconds=30.0 * 86_400)
    await desk.collect()
    assert [path for path in desk.results_store.root.rglob("*") if path.is_file()] == []


async def test_results_that_nobody_wanted_are_not_found(desk: Desk) -> None:
    id = desk.house.provider.add_batch()
    await desk.house.register(id)
    with pytest.raises(NotFound):
        await desk.of(id)


HALF = (
    b'{"custom_id":"a","response":{"status_code":200,"body":{"text":"cut \\ud83d"}},"error":null}'
)
NAN = b'{"custom_id":"a","response":{"status_code":200,"body":{"\xc3\xa9":NaN}},"error":null}'
LONG_NUMBER = NAN.replace(b"NaN", b"1" * 5000)


@pytest.mark.parametrize(
    ("line", "said"),
    [(HALF, {"text": "cut \ufffd"}), (NAN, {"é": None}), (LONG_NUMBER, "too_large")],
)
async def test_odd_answers_travel_in_webhooks_as_every_parser_takes_them(
    desk: Desk, line: bytes, said: object
) -> None:
    house = desk.house
    id = house.provider.add_batch(total=1)
    await house.register(id, results=ResultsMode.INLINE)
    house.provider.finish(id)
    put(desk, id, "output", line)
    await house.sweep()
    await desk.collect()
    assert (await desk.of(id)).state is ResultsState.READY
    whole = b"".join([chunk async for chunk in desk.results_store.read((await desk.of(id)).name)])
    assert whole == line + b"\n", "what is kept is what the provider wrote"
    await house.deliver()
    [hook] = house.receiver.received
    told = json.loads(hook.body, parse_constant=pytest.fail)["data"]["results"]
    inline = told.get("inline")
    assert (inline[0]["response"]["body"] if inline else told["inline_omitted"]) == said


GARBAGE = [
    b"",
    b"\0" * 100,
    b"\xff\xfe{}",
    b"[" * 5000,
    b'{"custom_id":"a"',
    b'{"custom_id":7}\r\nnull\n"text"',
    b"<html>Bad gateway</html>\r\n",
    b'{"custom_id":"stranger","response":null,"error":"\\ud83d"}\n' * 2,
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_whatever_is_in_the_files_the_results_are_there_and_say_so(
    desk: Desk, garbage: bytes
) -> None:
    id = desk.house.provider.add_batch(total=10)
    await desk.house.register(id)
    desk.house.provider.finish(id, failed=2)
    put(desk, id, "output", garbage)
    put(desk, id, "error", garbage)
    await desk.house.sweep()
    found = await desk.settled(id)
    if found.state is ResultsState.FAILED:
        assert (found.tries, "in place of the file" in str(found.reason)) == (TRIES_MAX, True)
        return
    assert (found.state, found.tries) == (ResultsState.READY, DOUBT_TRIES)
    assert found.tally is not None
    assert "The provider counts 10 requests, 8 completed and 2 failed" in found.tally.notes[-1]
    assert found.tally.lines == len(await desk.lines(found)) <= 6


def put(desk: Desk, batch_id: str, kind: str, content: bytes) -> None:
    """Have the provider hand this out as a file of a batch that has ended."""
    provider = desk.house.provider
    provider.file(provider.retrieve(batch_id)[f"{kind}_file_id"]).make = lambda: content
