"""The seeker's leases; what it finds is tried through the gateway, in `tests/web`."""

from __future__ import annotations

import asyncio

import pytest
from tests.workers.conftest import House

from batchbell.core.model import DEFAULT_PROJECT, Snapshot
from batchbell.core.twins import Marks
from batchbell.storage import creations
from batchbell.storage.creations import Creation
from batchbell.workers import seeker
from batchbell.workers.seeker import Seeker


class Slow:
    """A provider whose list has no end, until it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.go_on = asyncio.Event()

    async def find(self, marks: Marks) -> tuple[list[Snapshot], bool]:
        self.asked += 1
        await self.go_on.wait()
        return [], True


async def test_a_look_that_outlasts_its_lease_is_not_begun_twice(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Creation(
        id="crt_1",
        project_id=DEFAULT_PROJECT,
        account_id=house.account.id,
        fingerprint="f",
        marks=Marks(asked_at=house.clock()),
        registrations=(),
    )
    await house.store.write(creations.intend, made)
    house.clock.advance(creations.FIRST_LOOK_SECONDS)
    slow = Slow()
    held = asyncio.Event()

    async def hold(self: Seeker, creation: Creation) -> None:
        await lengthen(self, creation)
        held.set()

    lengthen = Seeker._hold
    monkeypatch.setattr(Seeker, "_hold", hold)
    one, other = (
        Seeker(
            house.store,
            lambda _: slow,
            clock=house.clock,
            mint=house.mint,
            metrics=house.metrics,
        )
        for _ in range(2)
    )
    monkeypatch.setattr("batchbell.workers.jobs.HOLDS", 1e9)
    assert await one.step()
    house.clock.advance(seeker.LEASE_SECONDS - 1)
    for _ in range(2):  # the first may have been under way before
        held.clear()
        await held.wait()
    house.clock.advance(seeker.LEASE_SECONDS - 1)
    assert not await other.step()
    slow.go_on.set()
    await one.ended()
    assert slow.asked == 1
    found = await house.read(creations.get, made.id)
    assert found is not None
    assert found.looks == 1
    await one.close()
    await other.close()
