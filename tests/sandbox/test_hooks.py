"""The webhooks of the sandbox: OpenAI's SDK, and a library of the standard, take them for real."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

import pytest
from openai import OpenAI
from openai.types.webhooks import (
    BatchCancelledWebhookEvent,
    BatchCompletedWebhookEvent,
    BatchExpiredWebhookEvent,
    BatchFailedWebhookEvent,
)
from standardwebhooks import Webhook

from batchbell.core import signing
from batchbell.sandbox import Hook, Receiver, Respond, Sandbox

from .making import KEY

SECRET = signing.make_secret(b"o" * 24)
KINDS = {
    "completed": BatchCompletedWebhookEvent,
    "failed": BatchFailedWebhookEvent,
    "expired": BatchExpiredWebhookEvent,
    "cancelled": BatchCancelledWebhookEvent,
}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """By the clock of the machine, which the SDK looks at."""
    async with Sandbox(api_key=KEY) as sandbox:
        yield sandbox


@pytest.mark.parametrize("end", KINDS)
async def test_the_sdk_unwraps_what_is_sent(sandbox: Sandbox, receiver: Receiver, end: str) -> None:
    sandbox.provider.hook = Hook(receiver.url("/hook"), SECRET)
    id = sandbox.provider.add_batch()
    assert await sandbox.ring() == []
    sandbox.provider.finish(id, end)
    assert await sandbox.ring() == [200]
    (received,) = receiver.received
    with OpenAI(api_key=KEY, webhook_secret=SECRET) as client:
        event = client.webhooks.unwrap(received.body, received.headers)
    assert isinstance(event, KINDS[end])
    assert (event.data.id, event.object) == (id, "event")
    assert abs(event.created_at - time.time()) < 60
    Webhook(SECRET).verify(received.body, dict(received.headers))


async def test_what_was_not_taken_is_sent_again_and_then_given_up(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    sandbox.azure.hook = Hook(receiver.url("/hook"), SECRET)
    first = sandbox.azure.add_batch()
    sandbox.azure.finish(first)
    receiver.behave("/hook", Respond(503), Respond())
    assert [await sandbox.ring() for _ in range(3)] == [[503], [200], []]
    ids = {one.headers["webhook-id"] for one in receiver.received}
    assert ids == {f"evt_{first}"}
    sandbox.azure.hook = Hook("http://127.0.0.1:9/hook", SECRET)
    sandbox.azure.finish(sandbox.azure.add_batch())
    assert [await sandbox.ring() for _ in range(6)] == [[0]] * 5 + [[]]


async def test_a_batch_of_gemini_asks_for_its_own_and_else_for_that_of_all(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    sandbox.gemini.hook = Hook(receiver.url("/all"), SECRET)
    requests = {"requests": {"requests": [{"request": {"contents": []}}]}}
    for more in ({}, {"webhookConfig": {"uris": [receiver.url("/one"), receiver.url("/two")]}}):
        body = {"batch": {"inputConfig": requests, **more}}
        id = sandbox.gemini.begin("m", body, embeds=False)["name"]
        sandbox.gemini.finish(id)
    assert await sandbox.ring() == [200, 200, 200]
    by_path = {one.path: one for one in receiver.received}
    assert set(by_path) == {"/all", "/one", "/two"}
    event = json.loads(by_path["/all"].body)
    assert (event["type"], event["version"]) == ("batch.succeeded", "v1")
    Webhook(SECRET).verify(by_path["/all"].body, dict(by_path["/all"].headers))
    assert by_path["/one"].headers["webhook-signature"].count(".") == 2
