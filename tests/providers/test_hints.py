"""Which webhooks of providers are genuine, and what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchbell.core import signing
from batchbell.providers.hints import Hint, HintRefused, Reason, read_hint
from batchbell.providers.profile import Hooks
from batchbell.providers.profiles import PROFILES

NOW = 1_790_000_000.0
SECRET = signing.make_secret(b"o" * 24)
OTHER = signing.make_secret(b"n" * 24)
VECTOR = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
"""Of the specification."""


def hooks_of(provider: str) -> Hooks:
    found = PROFILES[provider].hooks
    assert found is not None
    return found


def signed(
    body: bytes, *, at: float = NOW, id: str = "evt_1", secrets: tuple[str, ...] = (SECRET,)
) -> dict[str, str]:
    return signing.headers(secrets, message_id=id, timestamp=int(at), body=body)


def body(type_: Any = "batch.completed", **data: Any) -> bytes:
    return json.dumps({"type": type_, "data": data or {"id": "batch_1"}}).encode()


def read(
    body: bytes,
    headers: dict[str, str] | None = None,
    *,
    provider: str = "openai",
    secrets: tuple[str, ...] = (SECRET,),
    now: float = NOW,
) -> Hint:
    return read_hint(
        hooks_of(provider),
        secrets=secrets,
        headers=signed(body) if headers is None else headers,
        body=body,
        now=now,
    )


@pytest.mark.parametrize("word", ["completed", "failed", "expired", "cancelled"])
@pytest.mark.parametrize("provider", ["openai", "azure"])
def test_an_end_names_its_batch(provider: str, word: str) -> None:
    assert read(body(f"batch.{word}"), provider=provider) == Hint("evt_1", ("batch_1",))


@pytest.mark.parametrize(
    ("provider", "type_", "data", "ids"),
    [
        ("gemini", "batch.succeeded", {"id": "batches/a1"}, ("batches/a1",)),
        ("gemini", "batch.expired", {"id": "a1"}, ("a1", "batches/a1")),
        ("gemini", "video.generated", {"id": "a1"}, ()),
        ("doubleword", "batch.completed", {"batch_id": "b", "status": "completed"}, ("b",)),
        ("doubleword", "batch.failed", {"batch_id": "b", "id": "another"}, ("b",)),
        ("openai", "response.completed", {"id": "resp_1"}, ()),
        ("openai", "batch.created", {"id": "batch_1"}, ()),
        ("openai", None, {}, ()),
        ("openai", ["batch.completed"], {}, ()),
    ],
)
def test_each_provider_says_it_in_its_own_way(
    provider: str, type_: Any, data: dict[str, Any], ids: tuple[str, ...]
) -> None:
    assert read(body(type_, **data), provider=provider).batch_ids == ids


def test_the_specifications_own_example_is_genuine() -> None:
    text = b'{"test": 2432232314}'
    secrets = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",)
    hint = read(text, VECTOR, secrets=secrets, now=1614265330 + 300)
    assert hint == Hint("msg_p5jXN8AQM9LWM0D4loKWxJek")


@pytest.mark.parametrize("ours", [(SECRET,), (OTHER, SECRET), (SECRET, OTHER)])
@pytest.mark.parametrize("theirs", [(SECRET,), (OTHER, SECRET), (SECRET, OTHER)])
def test_old_and_new_secret_hold_while_one_replaces_the_other(
    ours: tuple[str, ...], theirs: tuple[str, ...]
) -> None:
    text = body()
    assert read(text, signed(text, secrets=theirs), secrets=ours).batch_ids == ("batch_1",)


GENUINE = signed(body())


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, Reason.MALFORMED),
        ({**GENUINE, "webhook-id": ""}, Reason.MALFORMED),
        ({**GENUINE, "webhook-id": "x" * 1_001}, Reason.MALFORMED),
        ({**GENUINE, "webhook-id": "é"}, Reason.MALFORMED),
        ({**GENUINE, "webhook-id": "a\tb"}, Reason.MALFORMED),
        ({**GENUINE, "webhook-id": "evt_2"}, Reason.FORGED),
        ({**GENUINE, "webhook-timestamp": "soon"}, Reason.MALFORMED),
        ({**GENUINE, "webhook-timestamp": "-1"}, Reason.MALFORMED),
        ({**GENUINE, "webhook-timestamp": "9" * 400}, Reason.MALFORMED),
        ({**GENUINE, "webhook-timestamp": "١٢٣"}, Reason.MALFORMED),
        ({**GENUINE, "webhook-timestamp": str(int(NOW) - 1)}, Reason.FORGED),
        (signed(body(), at=NOW - 301), Reason.STALE),
        (signed(body(), at=NOW + 301), Reason.STALE),
        (signed(body(), secrets=(OTHER,)), Reason.FORGED),
        (signed(body() + b" "), Reason.FORGED),
        ({**GENUINE, "webhook-signature": "v1,"}, Reason.FORGED),
        ({**GENUINE, "webhook-signature": " "}, Reason.FORGED),
        ({**GENUINE, "webhook-signature": "é"}, Reason.FORGED),
        ({**GENUINE, "webhook-signature": GENUINE["webhook-signature"][3:]}, Reason.FORGED),
        (
            {**GENUINE, "webhook-signature": GENUINE["webhook-signature"].replace("v1", "v2")},
            Reason.FORGED,
        ),
        ({**GENUINE, "webhook-signature": "x " * 1_025}, Reason.MALFORMED),
        ({**GENUINE, "webhook-signature": "eyJhbGciOiJub25lIn0.e30."}, Reason.FORGED),
    ],
)
def test_what_is_not_theirs_or_not_of_now_is_refused(
    headers: dict[str, str], reason: Reason
) -> None:
    with pytest.raises(HintRefused) as refused:
        read(body(), headers)
    assert refused.value.reason is reason
    assert SECRET not in refused.value.message


@pytest.mark.parametrize("at", [NOW - 300, NOW + 300])
def test_clocks_may_be_five_minutes_apart(at: float) -> None:
    assert read(body(), signed(body(), at=at)).batch_ids == ("batch_1",)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 60_000,
        body("batch.completed", id=""),
        body("batch.completed", id=7),
        body("batch.completed", id="x" * 1_001),
        body("batch.completed", id="a\0b"),
        body("batch.completed", no="id"),
        b'{"type": "batch.completed", "data": "batch_1"}',
    ],
)
def test_what_is_signed_and_makes_no_sense_is_refused(text: bytes) -> None:
    with pytest.raises(HintRefused) as refused:
        read(text, signed(text))
    assert refused.value.reason is Reason.MALFORMED


def test_a_body_that_nobody_signed_is_not_even_read() -> None:
    with pytest.raises(HintRefused) as refused:
        read(b"[" * 60_000, GENUINE)
    assert refused.value.reason is Reason.FORGED
