"""Who sweeps an account: one at a time, and another one when that one dies."""

from __future__ import annotations

import asyncio

import pytest

from batchbell.core.errors import LeaseLost
from batchbell.core.model import DEFAULT_PROJECT, Account, AccountState
from batchbell.storage import accounts
from tests.storage.scene import Scene


async def claim(scene: Scene, token: str = "lease_1") -> Account | None:
    return await scene.store.write(
        accounts.claim_due,
        ids=[scene.account.id],
        now=scene.clock(),
        lease_seconds=60.0,
        token=token,
    )


async def finish(scene: Scene, token: str = "lease_1", **how: object) -> None:
    values = {"next_at": scene.clock() + 15, "now": scene.clock(), **how}
    await scene.store.write(
        accounts.finish,
        account_id=scene.account.id,
        token=token,
        **values,  # type: ignore[arg-type]
    )


async def next_due(scene: Scene) -> float | None:
    return await scene.store.read(accounts.next_due, [scene.account.id])


async def test_one_worker_at_a_time_sweeps_an_account(scene: Scene) -> None:
    claims = await asyncio.gather(*(claim(scene, f"lease_{n}") for n in range(8)))
    assert len([one for one in claims if one is not None]) == 1


@pytest.mark.parametrize(
    ("failures", "base_url", "waits"),
    [(0, None, 60.0), (0, "https://other.example/v1", 0.0), (1, None, 0.0)],
)
async def test_a_restart_looks_no_sooner_than_the_rest_is_over(
    scene: Scene, failures: int, base_url: str | None, waits: float
) -> None:
    """Unless it was failing, or is somewhere else now: whoever restarts has mended something."""
    now = scene.clock()
    await claim(scene)
    await finish(scene, next_at=now + 60, not_before=now + 60)
    await scene.store.write(
        lambda connection: accounts._update(connection, scene.account.id, {"failures": failures})
    )
    await scene.store.write(
        accounts.ensure_account,
        project_id=DEFAULT_PROJECT,
        name=scene.account.name,
        provider=scene.account.provider,
        base_url=base_url or scene.account.base_url,
        mint=scene.mint,
        now=now,
    )
    assert await next_due(scene) == now + waits


async def test_one_claim_brings_one_account(scene: Scene) -> None:
    second = await scene.store.write(
        accounts.ensure_account,
        project_id=DEFAULT_PROJECT,
        name="other",
        provider="openai",
        base_url="https://other.example/v1",
        mint=scene.mint,
        now=scene.clock(),
    )
    ids = [scene.account.id, second.id]
    taken = [
        await scene.store.write(
            accounts.claim_due, ids=ids, now=scene.clock(), lease_seconds=60.0, token=f"lease_{n}"
        )
        for n in range(3)
    ]
    assert {one.id for one in taken if one is not None} == set(ids)
    assert taken[2] is None
    listed = await scene.store.read(accounts.list_accounts, DEFAULT_PROJECT)
    assert [account.name for account in listed] == ["openai", "other"]


async def test_the_next_sweep_comes_when_it_was_said(scene: Scene) -> None:
    await claim(scene)
    await finish(scene, pages=7)
    scene.clock.advance(14)
    assert await claim(scene) is None
    scene.clock.advance(1)
    again = await claim(scene)
    assert again is not None
    assert again.pages == 7


async def test_a_dead_sweeper_is_followed_by_another(scene: Scene) -> None:
    await claim(scene, "lease_dead")
    scene.clock.advance(59)
    assert await claim(scene, "lease_early") is None
    assert await next_due(scene) == scene.clock() + 1
    scene.clock.advance(1)
    assert await claim(scene, "lease_next") is not None
    with pytest.raises(LeaseLost):
        await finish(scene, "lease_dead")
    await finish(scene, "lease_next")


async def test_who_holds_a_lease_can_lengthen_it(scene: Scene) -> None:
    await claim(scene)
    scene.clock.advance(50)
    await scene.store.write(
        accounts.hold,
        account_id=scene.account.id,
        token="lease_1",
        now=scene.clock(),
        lease_seconds=60.0,
    )
    scene.clock.advance(59)
    assert await claim(scene, "lease_2") is None
    with pytest.raises(LeaseLost):
        await scene.store.write(
            accounts.hold,
            account_id=scene.account.id,
            token="lease_2",
            now=scene.clock(),
            lease_seconds=60.0,
        )


async def test_a_watch_made_during_a_sweep_has_the_account_swept_again_at_once(
    scene: Scene,
) -> None:
    await claim(scene)
    await scene.register("batch_1")
    assert await claim(scene, "lease_2") is None
    await finish(scene)
    assert await next_due(scene) == scene.clock()
    assert await claim(scene) is not None


async def test_pitfall_24_nothing_sweeps_a_paused_account_before_its_time(scene: Scene) -> None:
    await claim(scene)
    await scene.register("batch_1")
    await finish(
        scene,
        next_at=scene.clock() + 40,
        not_before=scene.clock() + 40,
        state=AccountState.FAILING,
        reason="429 \0 \ud800",
        failures=1,
    )
    await scene.register("batch_2")
    assert await claim(scene) is None
    assert await next_due(scene) == scene.clock() + 40
    scene.clock.advance(40)
    again = await claim(scene)
    assert again is not None
    assert (again.state, again.reason, again.failures) == ("failing", "429 \ufffd \ufffd", 1)
    await finish(scene)
    (account,) = await scene.store.read(accounts.list_accounts, DEFAULT_PROJECT)
    assert (account.state, account.reason, account.failures) == ("active", None, 0)
    assert account.swept_at == scene.clock()


async def test_an_account_named_again_is_the_same_and_due(scene: Scene) -> None:
    await claim(scene)
    await finish(scene)
    again = await scene.store.write(
        accounts.ensure_account,
        project_id=DEFAULT_PROJECT,
        name="openai",
        provider="openai",
        base_url="https://elsewhere.example/v1",
        mint=scene.mint,
        now=scene.clock(),
    )
    assert (again.id, again.base_url) == (scene.account.id, "https://elsewhere.example/v1")
    assert await claim(scene) is not None
