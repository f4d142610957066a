"""`/v1/webhook_endpoints`, with OpenAI's own SDK as the judge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from batchbell.core import signing
from batchbell.core.model import EventType
from batchbell.core.outcome import Outcome
from batchbell.sandbox import Receiver
from batchbell.storage import endpoints, projects
from batchbell.storage.endpoints import endpoints_by_id
from batchbell.storage.queue import Claim

from .making import Served, a_snapshot

NIGHTLY = {"name": "nightly", "event_types": ["batch.completed", "batch.failed"]}
DAY = 86_400.0


@pytest.fixture
async def sdk(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key="unused", base_url=f"{served.url}/v1", max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def made(served: Served, receiver_url: str = "http://127.0.0.1:9/a", **more: Any) -> Any:
    answer = await served.http.post(
        "/v1/webhook_endpoints", json={"url": receiver_url, **NIGHTLY, **more}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_sdk_makes_reads_changes_lists_and_deletes(
    sdk: openai.AsyncOpenAI, served: Served
) -> None:
    created = await sdk.webhooks.create(
        name="nightly", url="http://127.0.0.1:9/a", event_types=["batch.completed"]
    )
    signing.check_secret(created.signing_secret)
    assert created.object == "webhook_endpoint"
    found = await sdk.webhooks.retrieve(created.id)
    assert not hasattr(found, "signing_secret")
    assert (found.signing_secret_hint or "").endswith(created.signing_secret[-4:])
    assert created.signing_secret not in found.model_dump_json()

    changed = await sdk.webhooks.update(created.id, event_types=["batch.failed"], name="daily")
    assert (changed.name, changed.event_types) == ("daily", ["batch.failed"])
    assert changed.url == created.url
    assert [one.id async for one in sdk.webhooks.list()] == [created.id]

    gone = await sdk.webhooks.delete(created.id)
    assert (gone.id, gone.deleted, gone.object) == (created.id, True, "webhook_endpoint.deleted")
    with pytest.raises(openai.NotFoundError):
        await sdk.webhooks.retrieve(created.id)
    assert [one async for one in sdk.webhooks.list()] == []


async def test_the_sdk_reads_every_page(sdk: openai.AsyncOpenAI, served: Served) -> None:
    ids = [(await made(served, name=f"n{i}"))["id"] for i in range(5)]
    assert [one.id async for one in sdk.webhooks.list(limit=2)] == ids[::-1]


async def test_the_sdk_lists_the_event_types(sdk: openai.AsyncOpenAI) -> None:
    assert (await sdk.webhooks.event_types.list()).data == list(EventType)


async def test_a_test_event_is_sent_and_verifies(
    sdk: openai.AsyncOpenAI, served: Served, receiver: Receiver, clock: Any
) -> None:
    created = await sdk.webhooks.create(
        name="n",
        url=receiver.url("/hook"),
        event_types=["batch.completed"],
        extra_body={"headers": {"X-Team": "night"}},
    )
    result = await sdk.webhooks.test(created.id, event_type="batch.failed")
    assert (result.status_code, result.success) == (200, True)
    assert (result.event_type, result.webhook_endpoint_id) == ("batch.failed", created.id)
    [request] = receiver.received
    body = request.body
    assert signing.verify([created.signing_secret], headers=request.headers, body=body, now=clock())
    assert request.headers["x-team"] == "night"
    shown = await served.http.post(f"/v1/webhook_endpoints/{created.id}/test")
    attempt = shown.json()["attempt"]
    assert (attempt["status"], attempt["result"]) == (200, "delivered")
    assert attempt["request_headers"]["X-Team"] == "***"
    assert attempt["request_headers"]["webhook-id"] == shown.json()["event_id"]
    assert attempt["timings"]["first_byte_ms"] <= attempt["duration_ms"]


async def test_a_test_of_what_does_not_answer_says_why(served: Served) -> None:
    endpoint = await made(served)
    answer = await served.http.post(f"/v1/webhook_endpoints/{endpoint['id']}/test")
    told = answer.json()
    assert (answer.status_code, told["success"], told["status_code"]) == (200, False, 0)
    assert told["attempt"]["fault"] == "connection_failed"


@pytest.mark.parametrize("keep", [True, False])
async def test_the_old_secret_signs_for_a_day_if_it_is_to(
    sdk: openai.AsyncOpenAI, served: Served, clock: Any, keep: bool
) -> None:
    created = await sdk.webhooks.create(
        name="n", url="http://127.0.0.1:9/a", event_types=["batch.completed"]
    )
    rotated = await sdk.webhooks.rotate_secret(created.id, keep_old_secret_active_for_24_hours=keep)
    old, new = created.signing_secret, rotated.signing_secret
    both = (new, old) if keep else (new,)
    assert await secrets_of(served, created.id, clock()) == both
    assert await secrets_of(served, created.id, clock() + DAY) == (new,)


async def secrets_of(served: Served, id: str, now: float) -> tuple[str, ...]:
    found = await served.context.store.read(endpoints_by_id, [id], now=now)
    return found[id].secrets


async def test_the_sdk_unwraps_with_the_old_and_the_new_secret(
    served: Served, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    import time

    clock.now = time.time()
    created = await made(served, receiver.url("/hook"))
    where = f"/v1/webhook_endpoints/{created['id']}"
    answer = await served.http.post(
        f"{where}/rotate_secret", json={"keep_old_secret_active_seconds": 60}
    )
    rotated = answer.json()
    assert rotated["active_secrets"] == 2
    await served.http.post(f"{where}/test")
    [request] = receiver.received
    for secret in (created["signing_secret"], rotated["signing_secret"]):
        client = openai.OpenAI(api_key="unused", webhook_secret=secret)
        event = client.webhooks.unwrap(request.body, request.headers)
        assert event.type == "batch.completed"
    clock.advance(61)
    await served.http.post(f"{where}/test")
    late = receiver.received[-1]
    assert " " not in late.headers["webhook-signature"]


async def test_at_most_five_secrets_sign(served: Served) -> None:
    where = f"/v1/webhook_endpoints/{(await made(served))['id']}/rotate_secret"
    keep = {"keep_old_secret_active_seconds": 600}
    for _ in range(4):
        assert (await served.http.post(where, json=keep)).status_code == 200
    assert (await served.http.post(where, json=keep)).status_code == 400
    assert (await served.http.post(where)).json()["active_secrets"] == 1


async def test_a_secret_can_be_brought_along(served: Served) -> None:
    secret = signing.make_secret(bytes(range(24)))
    endpoint = await made(served, signing_secret=secret)
    assert endpoint["signing_secret"] == secret


async def test_a_project_wide_endpoint_hears_of_what_passes_its_filters(served: Served) -> None:
    everything = await made(served)
    nights = await made(served, metadata={"night": "yes"}, accounts=["openai"])
    await made(served, metadata={"night": "no"})
    await made(served, event_types=["batch.expired"])
    await served.watch("batch_1", "http://127.0.0.1:9/watched")
    await served.see(a_snapshot("batch_1"))
    told = (await served.http.get("/v1/deliveries")).json()["data"]
    endpoints = {one["endpoint_id"] for one in told}
    assert {everything["id"], nights["id"]} <= endpoints
    assert len(told) == 3


async def test_a_watch_may_name_an_endpoint_which_then_hears_once(served: Served) -> None:
    endpoint = await made(served)
    body = {"batch_id": "batch_1", "endpoint_id": endpoint["id"], "metadata": {"k": "v"}}
    watch = (await served.http.post("/v1/watches", json=body)).json()
    assert (watch["endpoint_id"], watch["url"]) == (endpoint["id"], endpoint["url"])
    await served.see(a_snapshot("batch_1"))
    [delivery] = (await served.http.get("/v1/deliveries")).json()["data"]
    assert delivery["watch_id"] == watch["id"]


async def test_a_watch_of_an_unknown_endpoint_is_refused(served: Served) -> None:
    body = {"batch_id": "batch_1", "endpoint_id": "whe_0"}
    for wanted in (body, [body]):
        answer = await served.http.post("/v1/watches", json=wanted)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "endpoint_id")


async def test_what_an_endpoint_was_still_to_be_told_goes_with_it(served: Served) -> None:
    endpoint = await made(served)
    await served.watch("batch_0", "http://127.0.0.1:9/watched")
    await served.see(a_snapshot("batch_0"))
    await served.try_all(Outcome(status=200, started_at=1.0, duration_ms=1.0))
    await served.watch("batch_1", "http://127.0.0.1:9/watched")
    await served.see(a_snapshot("batch_1"))
    where = f"/v1/webhook_endpoints/{endpoint['id']}"
    assert (await served.http.delete(where)).status_code == 200
    told = (await served.http.get("/v1/deliveries")).json()["data"]
    ours = [one for one in told if one["endpoint_id"] == endpoint["id"]]
    assert [(one["state"], one["url"]) for one in ours] == [("delivered", endpoint["url"])]
    again = await served.http.post(
        f"/v1/events/{ours[0]['event_id']}/resend", json={"endpoint_id": endpoint["id"]}
    )
    assert again.json()["error"]["code"] == "nothing_to_resend"


async def test_endpoints_of_watched_urls_are_listed_when_asked_for(served: Served) -> None:
    own = await made(served)
    watch = await served.watch("batch_1", own["url"])
    assert watch["endpoint_id"] != own["id"]
    plain = (await served.http.get("/v1/webhook_endpoints")).json()["data"]
    assert [one["id"] for one in plain] == [own["id"]]
    both = (await served.http.get("/v1/webhook_endpoints?implied=true")).json()["data"]
    assert {one["id"]: one["implied"] for one in both} == {
        own["id"]: False,
        watch["endpoint_id"]: True,
    }
    where = f"/v1/webhook_endpoints/{watch['endpoint_id']}"
    assert (await served.http.post(where, json={"name": "n"})).status_code == 400
    assert (await served.http.post(f"{where}/rotate_secret")).status_code == 400


async def test_a_disabled_endpoint_says_why_and_since_when_until_it_is_enabled(
    served: Served, clock: Any
) -> None:
    endpoint = await made(served)
    await served.watch("batch_1")
    await served.see(a_snapshot("batch_1"))
    clock.advance(5)
    await served.try_all(Outcome(status=410, started_at=1.0, duration_ms=1.0))
    where = f"/v1/webhook_endpoints/{endpoint['id']}"
    found = (await served.http.get(where)).json()
    assert (found["state"], found["reason"]) == ("disabled", "answered 410 Gone")
    clock.advance(5)
    enabled = (await served.http.post(f"{where}/enable")).json()
    assert (enabled["state"], enabled["reason"]) == ("active", None)
    assert enabled["state_since"] == int(clock())


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": None}, "name"),
    "no URL": ({"url": None}, "url"),
    "a type of another API": ({"event_types": ["response.completed"]}, "event_types[0]"),
    "no type": ({"event_types": []}, "event_types"),
    "a header of ours": ({"headers": {"Webhook-Id": "x"}}, "headers"),
    "the host": ({"headers": {"Host": "x"}}, "headers"),
    "a line in a value": ({"headers": {"X-A": "b\r\nX-C: d"}}, "headers"),
    "a line in a name": ({"headers": {"X-A\nB": "c"}}, "headers"),
    "the same name twice": ({"headers": {"X-A": "b", "x-a": "c"}}, "headers"),
    "a header that is a number": ({"headers": {"X-A": 1}}, "headers"),
    "a short timeout": ({"timeout_seconds": 4}, "timeout_seconds"),
    "a long timeout": ({"timeout_seconds": 31}, "timeout_seconds"),
    "a timeout that is true": ({"timeout_seconds": True}, "timeout_seconds"),
    "a wait of nothing": ({"schedule": [5, 0]}, "schedule[1]"),
    "a schedule of text": ({"schedule": "5"}, "schedule"),
    "a rate of nothing": ({"rate_limit": 0}, "rate_limit"),
    "a rate of a flood": ({"rate_limit": 1001}, "rate_limit"),
    "an order in words": ({"ordered": "yes"}, "ordered"),
    "an unknown account": ({"accounts": ["mars"]}, "accounts[0]"),
    "no account": ({"accounts": []}, "accounts"),
    "a secret that is none": ({"signing_secret": "hunter2"}, "signing_secret"),
}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_field_is_named(served: Served, case: str) -> None:
    fields, param = WRONG[case]
    body = {"url": "http://127.0.0.1:9/a", **NIGHTLY, **fields}
    answer = await served.http.post("/v1/webhook_endpoints", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert (await served.http.get("/v1/webhook_endpoints")).json()["data"] == []


async def test_one_endpoint_shows_its_breaker_and_how_much_waits(served: Served) -> None:
    endpoint = await made(served)
    assert "waiting" not in endpoint
    found = (await served.http.get(f"/v1/webhook_endpoints/{endpoint['id']}")).json()
    assert (found["waiting"], found["held"]) == (0, 0)
    assert found["breaker"] == {"open": False, "opened_at": None, "next_probe_at": None}


async def test_rate_and_order_are_wishes_like_others(served: Served) -> None:
    endpoint = await made(served, rate_limit=2, ordered=True)
    assert (endpoint["rate_limit"], endpoint["ordered"]) == (2.0, True)
    where = f"/v1/webhook_endpoints/{endpoint['id']}"
    body = {"rate_limit": None, "ordered": None}
    changed = (await served.http.post(where, json=body)).json()
    assert (changed["rate_limit"], changed["ordered"]) == (None, False)


async def test_another_projects_endpoint_is_not_there(served: Served, clock: Any) -> None:
    store = served.context.store
    secret = signing.make_secret(bytes(24))
    await store.write(projects.ensure_project, id="other", secret=secret, now=clock())
    wishes = endpoints.EndpointFields(
        url="http://127.0.0.1:9/a", name="theirs", event_types=(EventType.COMPLETED,)
    )
    theirs = await store.write(
        endpoints.create, "other", wishes, secret=secret, mint=served.context.mint, now=clock()
    )
    where = f"/v1/webhook_endpoints/{theirs.id}"
    http = served.http
    answers = [
        await http.get(where),
        await http.post(where, json={"name": "mine"}),
        await http.delete(where),
        await http.post(f"{where}/rotate_secret"),
        await http.post(f"{where}/test"),
        await http.post(f"{where}/enable"),
        await http.get("/v1/webhook_endpoints", params={"after": theirs.id}),
    ]
    assert [one.status_code for one in answers] == [404] * len(answers)
    assert (await http.get("/v1/webhook_endpoints?implied=true")).json()["data"] == []
    body = {"batch_id": "batch_1", "endpoint_id": theirs.id}
    assert (await http.post("/v1/watches", json=body)).status_code == 400
    await served.watch("batch_1")
    await served.see(a_snapshot("batch_1"))
    claim: Claim = await served.claim()
    assert theirs.id not in claim.endpoints
    kept = await store.read(endpoints.get, "other", theirs.id, now=clock())
    assert kept == theirs
