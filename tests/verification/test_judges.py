"""The libraries that receivers use accept what we send, and refuse what nobody should trust."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from batchbell.core import signing
from batchbell.sandbox import Respond
from tests.conftest import SECRET
from tests.verification.conftest import Accepting, Sending
from tests.verification.judges import EVERY, Hook
from tests.workers.conftest import House

NOBODY: frozenset[str] = frozenset()
NEXT = signing.make_secret(b"n" * signing.SECRET_BYTES)
STRANGE = signing.make_secret(b"s" * signing.SECRET_BYTES)


async def test_all_accept_a_webhook_as_it_is_sent(sent: Sending, accepting: Accepting) -> None:
    assert accepting(await sent()) == EVERY


async def test_all_accept_a_retry(house: House, sent: Sending, accepting: Accepting) -> None:
    house.receiver.behave("/hook", Respond(500), Respond())
    retry = await sent(calls=2)
    assert retry.headers["webhook-attempt"] == "2"
    assert accepting(retry) == EVERY


@pytest.mark.parametrize("held", [SECRET, NEXT], ids=["old", "new"])
async def test_during_a_rotation_all_accept_with_either_secret(
    house: House, sent: Sending, accepting: Accepting, held: str
) -> None:
    first = await sent()
    signed = signing.headers(
        [NEXT, SECRET],
        message_id=first.headers["webhook-id"],
        timestamp=int(time.time()),
        body=first.body,
    )
    headers = {"content-type": "application/json", **signed}
    await house.sender.send(
        house.receiver.url(), headers=headers, body=first.body, timeout_seconds=5
    )
    both = house.receiver.received[-1]
    assert both.headers["webhook-signature"].count("v1,") == 2
    assert accepting(Hook(both.headers, both.body, held)) == EVERY


async def test_nobody_accepts_a_body_that_was_tampered_with(
    sent: Sending, accepting: Accepting
) -> None:
    hook = await sent()
    better = hook.body.replace(b'"failed":1', b'"failed":0')
    assert better != hook.body
    assert accepting(replace(hook, body=better)) == NOBODY


@pytest.mark.parametrize("skew_seconds", [-400.0, 400.0], ids=["late", "early"])
async def test_nobody_accepts_a_timestamp_that_is_far_from_now(
    sent: Sending, accepting: Accepting, skew_seconds: float
) -> None:
    assert accepting(await sent(skew_seconds=skew_seconds)) == NOBODY


async def test_nobody_accepts_another_secret_id_or_timestamp(
    sent: Sending, accepting: Accepting
) -> None:
    hook = await sent()
    later = str(int(hook.headers["webhook-timestamp"]) + 1)
    assert accepting(replace(hook, secret=STRANGE)) == NOBODY
    assert accepting(replace(hook, headers=hook.headers | {"webhook-id": "evt_2"})) == NOBODY
    assert accepting(replace(hook, headers=hook.headers | {"webhook-timestamp": later})) == NOBODY
