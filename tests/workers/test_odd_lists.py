"""Whatever a host answers to a list, or to a read of one batch, each end is heard of, once.

Every fault is one that the sandbox plays, and is there for good.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.workers.conftest import House

from batchbell.core.model import DEFAULT_PROJECT, AccountState
from batchbell.storage import accounts, events

ODD: dict[str, dict[str, Any]] = {
    "the list never changes": {"kind": "stale"},
    "the list begins anew for ever": {"kind": "loop"},
    "the list is a page of a proxy": {"kind": "html", "route": "list", "status": 200},
    "no page of the proxy's is there": {"kind": "html", "route": "list", "status": 404},
    "the proxy cannot reach the list": {"kind": "html", "route": "list", "status": 502},
    "the list is refused": {"kind": "status", "route": "list", "status": 405},
    "there is no list": {"kind": "status", "route": "list", "status": 404, "message": "No route."},
    "the list is a bomb": {"kind": "bomb", "rows": 200_000},
    "the list is cut": {"kind": "truncated", "route": "list"},
    "rows are without an id": {
        "kind": "rewrite",
        "route": "list",
        "every_row": True,
        "drop": ["id"],
    },
    "rows are without files": {
        "kind": "rewrite",
        "route": "list",
        "every_row": True,
        "drop": ["output_file_id", "error_file_id"],
    },
    "the list has a word of its own": {
        "kind": "rewrite",
        "route": "list",
        "every_row": True,
        "fields": {"status": "on_hold"},
    },
    "counts are strings": {
        "kind": "rewrite",
        "every_row": True,
        "fields": {"request_counts": {"total": "4", "completed": "4", "failed": None}},
    },
    "counts are null": {"kind": "rewrite", "every_row": True, "fields": {"request_counts": None}},
    "counts are nonsense": {
        "kind": "rewrite",
        "every_row": True,
        "fields": {"request_counts": {"total": -1, "completed": [], "failed": "many"}},
    },
    "reads of one are refused": {"kind": "status", "route": "retrieve", "status": 405},
    "reads of one end at a proxy": {"kind": "html", "route": "retrieve", "status": 404},
}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("number", [1, 3])
async def test_each_end_is_heard_of_once(house: House, odd: str, number: int) -> None:
    ids = house.provider.add_batches(number, total=4)
    await house.register(*ids)
    await house.sweep()
    house.provider.faults.add(times=None, **ODD[odd])
    for id in ids:
        house.provider.finish(id, "completed")
    for _ in range(12):
        await house.sweep()
    page = await house.read(events.list_events, DEFAULT_PROJECT, limit=100)
    told = [json.loads(event.body)["data"] for event in page.items]
    assert sorted(data["id"] for data in told) == sorted(ids)
    assert all(data["output_file_id"] for data in told)
    [account] = await house.read(accounts.list_accounts, DEFAULT_PROJECT)
    assert account.state is AccountState.ACTIVE


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "value", ["soon", "-5", "0m1s", "Thu, 01 Jan 1970 00:00:00 GMT", "9" * 400, "1e400", "NaN"]
)
async def test_no_form_of_retry_after_stops_an_account(house: House, value: str) -> None:
    ids = house.provider.add_batches(3)
    await house.register(*ids)
    for id in ids:
        house.provider.finish(id, "completed")
    house.provider.faults.add("rate_limited", headers={"Retry-After": value})
    begun = house.clock()
    await house.sweep()
    await house.sweep()
    page = await house.read(events.list_events, DEFAULT_PROJECT, limit=100)
    assert len(page.items) == 3
    assert house.clock() - begun <= 24 * 3600
