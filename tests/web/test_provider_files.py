"""A batch says what becomes of the provider's files that its results were made of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from batchbell.core.deletion import Deletes, DeletionState
from batchbell.core.results import Tally
from batchbell.storage import deletions, merges

from .making import Served
from .test_results import client_of, wanted

pytestmark = pytest.mark.databases("sqlite")


async def kept(served: Served, deletes: Deletes, *, lines: int = 3) -> None:
    """Results of a batch of three requests, as a collector keeps them under the setting."""
    await wanted(served)
    context, now = served.context, served.context.clock()
    held = await context.store.write(merges.claim_due, now=now, lease_seconds=60.0, token="t")
    assert held is not None
    tally = Tally(lines=lines, succeeded=lines, failed=0, not_run=0, size=9, in_input_order=True)
    await context.store.write(
        merges.keep, held, tally, inline=None, deletes=deletes, mint=context.mint, now=now
    )


async def shown(served: Served) -> Any:
    answer = await served.http.get("/v1/batches/batch_1")
    return answer.json()["batchbell"]["results"]["provider_files"]


async def test_they_are_kept_where_nobody_asked(served: Served) -> None:
    await kept(served, Deletes.NONE)
    nothing = {"due_at": None, "deleted_at": None, "reason": None}
    assert await shown(served) == {"state": "kept", **nothing}


async def test_a_deletion_is_due_and_then_done(served: Served) -> None:
    await kept(served, Deletes.ALL)
    store, now = served.context.store, int(served.context.clock())
    assert await shown(served) == {
        "state": "due",
        "due_at": now,
        "deleted_at": None,
        "reason": None,
    }
    held = await store.write(deletions.claim_due, now=now, lease_seconds=60.0, token="d")
    assert held is not None
    assert [file.id for file in held.files] == ["file-out", "file-in"]
    await store.write(deletions.end, held, DeletionState.DELETED, reason=None, now=now + 5)
    assert await shown(served) == {
        "state": "deleted",
        "due_at": None,
        "deleted_at": now + 5,
        "reason": None,
    }


async def test_what_does_not_add_up_says_why_it_stays(served: Served) -> None:
    await kept(served, Deletes.ALL, lines=2)
    said = await shown(served)
    assert (said["state"], said["due_at"], said["deleted_at"]) == ("kept", None, None)
    assert "The provider counts 3 requests" in said["reason"]
    with client_of(served) as client:
        batch = await asyncio.to_thread(client.batch, "batch_1")
    assert batch.batchbell.results is not None
    assert batch.batchbell.results.provider_files is not None
    assert batch.batchbell.results.provider_files.reason == said["reason"]


@pytest.mark.parametrize("state", [DeletionState.FAILED, DeletionState.KEPT])
async def test_what_was_given_up_says_why(served: Served, state: DeletionState) -> None:
    await kept(served, Deletes.OUTPUTS)
    store, now = served.context.store, served.context.clock()
    held = await store.write(deletions.claim_due, now=now, lease_seconds=60.0, token="d")
    assert held is not None
    await store.write(deletions.end, held, state, held.files, reason="Not allowed.", now=now)
    said = await shown(served)
    assert (said["state"], said["deleted_at"], said["reason"]) == (state, None, "Not allowed.")
