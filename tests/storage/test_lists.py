"""Lists hold what they are asked for and nothing else, in pages that miss nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from batchbell.core.errors import AmbiguousBatch, InvalidRequest, NotFound
from batchbell.core.model import (
    DEFAULT_PROJECT,
    BatchOutcome,
    Counts,
    DeliveryState,
    EventType,
    Status,
)
from batchbell.storage import batch_lists, deliveries, events
from batchbell.storage.accounts import ensure_account, list_accounts
from batchbell.storage.batch_lists import BatchFilter, list_batches
from batchbell.storage.batches import MARKS_MAX, marks
from batchbell.storage.projects import ensure_project

from .scene import BROKEN, GONE, Scene, snapshot

A, B = "https://a.example/hook", "https://b.example/hook"
Asked = dict[str, Any]


@pytest.fixture
async def listed(scene: Scene) -> Scene:
    """Batches `b1` to `b5`, registered and ended an hour apart, with deliveries of all fates."""
    other = await scene.store.write(
        ensure_account,
        project_id=DEFAULT_PROJECT,
        name="second",
        provider="groq",
        base_url="https://api.groq.com/openai/v1",
        mint=scene.mint,
        now=scene.clock(),
    )
    second = replace(scene, account=other)
    facts: list[tuple[Scene, str, Status, Asked]] = [
        (scene, "b1", Status.COMPLETED, {"model": "m1", "metadata": {"job": "a", "n": "1"}}),
        (scene, "b2", Status.FAILED, {"metadata": {"job": "a"}}),
        (scene, "c3", Status.COMPLETED, {"counts": Counts(total=1, completed=1, failed=0)}),
        (second, "b4", Status.EXPIRED, {"model": "m1", "metadata": {"n": "1"}}),
        (second, "b5", Status.IN_PROGRESS, {"model": "m2"}),
    ]
    for at, id, status, changes in facts:
        await at.register(id, url=B if id == "b2" else A)
        await at.see(snapshot(id, status, **changes))
        scene.clock.advance(3600)
    for outcome in (GONE, BROKEN):
        claim = await scene.claim(limit=1)
        await scene.settle(claim.deliveries, outcome)
    return scene


START = 1_790_000_000.0
HOUR = 3600.0

BATCHES: list[tuple[Asked, list[str]]] = [
    ({}, ["b5", "b4", "c3", "b2", "b1"]),
    ({"begins": "b"}, ["b5", "b4", "b2", "b1"]),
    ({"begins": "c3"}, ["c3"]),
    ({"begins": "B"}, []),
    ({"begins": "%"}, []),
    ({"status": Status.COMPLETED}, ["c3", "b1"]),
    ({"outcome": BatchOutcome.PARTIAL}, ["b4", "b2", "b1"]),
    ({"outcome": BatchOutcome.SUCCEEDED}, ["c3"]),
    ({"outcome": BatchOutcome.PARTIAL, "status": Status.FAILED}, ["b2"]),
    ({"outcome": BatchOutcome.SUCCEEDED, "status": Status.FAILED}, []),
    ({"provider": "groq"}, ["b5", "b4"]),
    ({"provider": "groq", "account": "openai"}, []),
    ({"account": "second", "model": "m1"}, ["b4"]),
    ({"model": "m1"}, ["b4", "b1"]),
    ({"metadata": {"job": "a"}}, ["b2", "b1"]),
    ({"metadata": {"job": "a", "n": "1"}}, ["b1"]),
    ({"metadata": {"job": "1"}}, []),
    ({"since": START + HOUR, "until": START + 3 * HOUR}, ["c3", "b2"]),
    ({"ended_since": START + HOUR}, ["b4", "c3", "b2"]),
    ({"ended_until": START + HOUR}, ["b1"]),
    ({"begins": "b", "model": "m1", "outcome": BatchOutcome.PARTIAL, "until": START + 1}, ["b1"]),
]


async def test_batches_are_found_by_whatever_is_asked(listed: Scene) -> None:
    for asked, ids in BATCHES:
        page = await listed.store.read(
            list_batches, DEFAULT_PROJECT, limit=9, filter=BatchFilter(**asked)
        )
        assert [one.id for one in page.items] == ids, asked


async def test_a_filter_keeps_to_its_project_and_to_accounts_that_are_there(listed: Scene) -> None:
    read = listed.store.read
    await listed.store.write(ensure_project, id="other", secret="whsec_x", now=1.0)
    for asked, _ in BATCHES:
        if "account" not in asked:
            page = await read(list_batches, "other", limit=9, filter=BatchFilter(**asked))
            assert not page.items, asked
    filter = BatchFilter(account="secnod")
    with pytest.raises(InvalidRequest, match="Did you mean 'second'") as caught:
        await read(list_batches, DEFAULT_PROJECT, limit=9, filter=filter)
    assert caught.value.code == "unknown_account"
    lists: list[Any] = [deliveries.list_deliveries, events.list_events]
    for list_ in lists:
        endpoint = (await listed.deliveries())[0].endpoint_id
        for asked in ({"endpoint_id": endpoint}, {"batch_id": "b1"}, {"type": EventType.FAILED}):
            assert not (await read(list_, "other", limit=9, **asked)).items, asked
            assert (await read(list_, DEFAULT_PROJECT, limit=9, **asked)).items, asked


DELIVERIES: list[tuple[Asked, list[str]]] = [
    ({}, ["b4", "c3", "b2", "b1"]),
    ({"state": DeliveryState.HELD}, ["b4", "c3", "b1"]),
    ({"state": DeliveryState.PENDING, "type": EventType.FAILED}, ["b2"]),
    ({"state": DeliveryState.PENDING, "type": EventType.COMPLETED}, []),
    ({"type": EventType.COMPLETED}, ["c3", "b1"]),
    ({"batch_id": "b2"}, ["b2"]),
    ({"batch_id": "b2", "type": EventType.COMPLETED}, []),
    ({"batch_id": "b2", "since": START + 2 * HOUR}, []),
    ({"endpoint_id": B}, ["b2"]),
    ({"endpoint_id": B, "batch_id": "b1"}, []),
    ({"endpoint_id": A, "type": EventType.COMPLETED, "state": DeliveryState.HELD}, ["c3", "b1"]),
    ({"endpoint_id": A, "until": START + HOUR}, ["b1"]),
    ({"endpoint_id": "whe_unknown"}, []),
    ({"since": START + HOUR, "until": START + 3 * HOUR}, ["c3", "b2"]),
]


async def named(scene: Scene, asked: Asked) -> Asked:
    """With the id of an endpoint in place of its URL."""
    ids = {one.url: one.endpoint_id for one in await scene.deliveries()}
    url = asked.get("endpoint_id")
    return asked if url not in ids else {**asked, "endpoint_id": ids[url]}


async def test_deliveries_are_found_by_whatever_is_asked(listed: Scene) -> None:
    for asked, ids in DELIVERIES:
        found = await listed.deliveries(**await named(listed, asked))
        assert [one.batch_id for one in reversed(found)] == ids, asked


EVENTS: list[tuple[Asked, list[str]]] = [
    *((asked, ids) for asked, ids in DELIVERIES if "state" not in asked),
    ({"delivery_success": False, "type": EventType.EXPIRED}, ["b4"]),
    ({"delivery_success": False, "since": START + HOUR}, ["b4", "c3", "b2"]),
    ({"delivery_success": True}, []),
    ({"delivery_success": False, "batch_id": "b2"}, ["b2"]),
    ({"delivery_success": True, "endpoint_id": A}, []),
    ({"delivery_success": False, "endpoint_id": A, "type": EventType.EXPIRED}, ["b4"]),
]


async def test_events_are_found_by_whatever_is_asked(listed: Scene) -> None:
    for asked, ids in EVENTS:
        found = await listed.events(**await named(listed, asked))
        assert [one.batch_id for one in reversed(found)] == ids, asked


async def test_the_pages_of_a_list_miss_nothing(listed: Scene) -> None:
    endpoint = await named(listed, {"endpoint_id": A})
    lists: list[tuple[Callable[..., Any], Asked, int]] = [
        (list_batches, {}, 5),
        (list_batches, {"filter": BatchFilter(model="m1")}, 2),
        (deliveries.list_deliveries, {"type": EventType.COMPLETED}, 2),
        (deliveries.list_deliveries, endpoint, 3),
        (events.list_events, endpoint, 3),
        (events.list_events, {"delivery_success": False}, 4),
    ]
    for list_, asked, total in lists:
        seen: list[str] = []
        more = True
        while more:
            after = seen[-1] if seen else None
            page = await listed.store.read(list_, DEFAULT_PROJECT, limit=1, after=after, **asked)
            seen += [one.id for one in page.items]
            more = page.has_more
        assert len(seen) == len(set(seen)) == total, asked


async def test_a_page_looks_at_so_many_entries_and_says_where_it_stopped(
    listed: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_lists, "LOOKED_AT_MOST", 1)
    monkeypatch.setattr(events, "LOOKED_AT_MOST", 1)

    async def pages(list_: Callable[..., Any], asked: Asked) -> list[tuple[list[str], str | None]]:
        """What each page holds, and where it leads on."""
        found: list[tuple[list[str], str | None]] = []
        after, more = None, True
        while more:
            page = await listed.store.read(list_, DEFAULT_PROJECT, limit=9, after=after, **asked)
            found.append(([one.id for one in page.items], page.last_id))
            after, more = page.last_id, page.has_more
        return found

    for few in (5, 0):
        monkeypatch.setattr(batch_lists, "FEW", few)
        for asked, ids in BATCHES:
            found = await pages(list_batches, {"filter": BatchFilter(**asked)})
            assert [id for page, _ in found for id in page] == ids, asked
            at_once = few and "begins" in asked
            in_order = not set(asked) - {"status", "since", "until"}
            assert len(found) == 1 or not (in_order or at_once), asked
    found = await pages(list_batches, {"filter": BatchFilter(model="nowhere")})
    assert [page for page, _ in found] == [[]] * 6
    assert [last for _, last in found] == ["b5", "b4", "c3", "b2", "b1", None]
    found = await pages(events.list_events, {"delivery_success": True})
    assert [page for page, _ in found] == [[]] * 5, "none of four, and none behind them"
    found = await pages(events.list_events, {"type": EventType.FAILED, "delivery_success": True})
    assert [page for page, _ in found] == [[]] * 2
    monkeypatch.setattr(deliveries, "LOOKED_AT_MOST", 1)
    for asked, ids in DELIVERIES:
        found = await pages(deliveries.list_deliveries, await named(listed, asked))
        by_id = {one.id: one.batch_id for one in await listed.deliveries()}
        assert [by_id[id] for page, _ in found for id in page] == ids, asked
    one_of = await named(listed, {"endpoint_id": A})
    for list_ in (deliveries.list_deliveries, events.list_events):
        state = {"state": DeliveryState.DELIVERED}
        asked = state if list_ is deliveries.list_deliveries else {"delivery_success": True}
        found = await pages(list_, {**one_of, **asked})
        assert [page for page, _ in found] == [[]] * 4, "they stop at each of three"


async def test_pages_go_on_behind_an_id_that_two_accounts_have(
    listed: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One API key that was added as two accounts: they find the same batches."""
    [other] = [
        one
        for one in await listed.store.read(list_accounts, DEFAULT_PROJECT)
        if one.name == "second"
    ]
    await replace(listed, account=other).register("b1", "c3")

    async def pages(**asked: Any) -> list[tuple[str, str]]:
        seen: list[tuple[str, str]] = []
        after, more = None, True
        while more:
            page = await listed.store.read(
                list_batches, DEFAULT_PROJECT, limit=1, after=after, filter=BatchFilter(**asked)
            )
            seen += [(one.id, one.account) for one in page.items]
            after, more = page.last_id, page.has_more
        return seen

    first = [("c3", "second"), ("b1", "second"), ("b5", "second"), ("b4", "second")]
    rest = [("c3", "openai"), ("b2", "openai"), ("b1", "openai")]
    assert await pages() == [*first, *rest]
    with pytest.raises(AmbiguousBatch):
        await listed.store.read(list_batches, DEFAULT_PROJECT, limit=9, after="c3")
    page = await listed.store.read(
        list_batches, DEFAULT_PROJECT, limit=9, after="c3", filter=BatchFilter(account="openai")
    )
    assert [one.id for one in page.items] == ["b2", "b1"]
    assert await pages(begins="b1") == [("b1", "second"), ("b1", "openai")]
    monkeypatch.setattr(batch_lists, "LOOKED_AT_MOST", 1)
    monkeypatch.setattr(batch_lists, "FEW", 0)
    assert await pages(begins="b1") == [("b1", "second"), ("b1", "openai")]


async def test_batches_of_one_moment_are_paged_in_the_order_of_their_rows(scene: Scene) -> None:
    await scene.register(*(f"b{n}" for n in range(5)))
    seen: list[str] = []
    for _ in range(5):
        after = seen[-1] if seen else None
        page = await scene.store.read(list_batches, DEFAULT_PROJECT, limit=1, after=after)
        seen += [one.id for one in page.items]
    assert seen == ["b4", "b3", "b2", "b1", "b0"]


async def test_an_event_that_an_endpoint_never_heard_of_is_no_place_in_its_list(
    listed: Scene,
) -> None:
    of_b = (await listed.events(batch_id="b2"))[0]
    asked = await named(listed, {"endpoint_id": A})
    with pytest.raises(NotFound):
        await listed.store.read(
            events.list_events, DEFAULT_PROJECT, limit=1, after=of_b.id, **asked
        )


def test_a_mark_is_of_a_pair_and_there_are_not_too_many() -> None:
    assert marks({}) == []
    assert marks({"a": "b"}) != marks({"b": "a"})
    assert marks({"a": "b,c"}) != marks({"a": "b", "c": ""})
    assert set(marks({"a": "b"})) < set(marks({"a": "b", "c": "d"}))
    assert len(marks({str(n): "x" for n in range(100)})) == MARKS_MAX
