"""Signatures, as the receivers' own libraries judge them."""

from __future__ import annotations

import base64
import hmac
import json
import time
from datetime import UTC, datetime

import openai
import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.errors import InvalidRequest
from batchbell.core.signing import (
    SECRET_BYTES,
    TOLERANCE_SECONDS,
    check_secret,
    headers,
    make_secret,
    signature,
    verify,
)

from .making import NOW

OLD = make_secret(b"o" * SECRET_BYTES)
CURRENT = make_secret(b"c" * SECRET_BYTES)
STRANGE = make_secret(b"s" * SECRET_BYTES)
BODY = b'{"id":"evt_1","object":"event","type":"batch.completed","created_at":1,"data":{"id":"b"}}'
CLIENT = openai.OpenAI(api_key="none")


def signed(*secrets: str, body: bytes = BODY, timestamp: int | None = None) -> dict[str, str]:
    when = int(time.time()) if timestamp is None else timestamp
    return headers(secrets, message_id="evt_1", timestamp=when, body=body)


def secret_of(length: int) -> str:
    return "whsec_" + base64.b64encode(b"k" * length).decode()


@given(rand=st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
def test_a_made_secret_has_a_prefix_and_no_padding_to_lose(rand: bytes) -> None:
    secret = make_secret(rand)
    assert check_secret(secret) == secret
    assert secret.startswith("whsec_")
    assert "=" not in secret
    assert base64.b64decode(secret.removeprefix("whsec_")) == rand


@pytest.mark.parametrize("length", [24, 32, 48, 64])
def test_the_openai_sdk_unwraps_what_we_sign(length: int) -> None:
    """Pitfall 8: there was no signature, no event id and no timestamp."""
    secret = secret_of(length)
    event = CLIENT.webhooks.unwrap(BODY, signed(check_secret(secret)), secret=secret)
    assert event.type == "batch.completed"


@pytest.mark.parametrize("length", [24, 32, 48, 64])
def test_the_standard_webhooks_library_verifies_what_we_sign(length: int) -> None:
    secret = secret_of(length)
    told = standardwebhooks.Webhook(secret).verify(BODY, signed(secret))
    assert told == json.loads(BODY)


@given(body=st.binary(max_size=300))
def test_we_sign_as_the_standard_webhooks_library_signs(body: bytes) -> None:
    text = json.dumps(body.hex())
    ours = signature(CURRENT, "evt_1", int(NOW), text.encode())
    theirs = standardwebhooks.Webhook(CURRENT).sign
    assert ours == theirs("evt_1", datetime.fromtimestamp(int(NOW), UTC), text)


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=300))
def test_a_signature_is_hmac_whatever_the_length_of_the_key(key: bytes, body: bytes) -> None:
    """A provider's secret may be longer than one of ours."""
    secret = "whsec_" + base64.b64encode(key).decode()
    for _ in range(2):
        digest = hmac.digest(key, b"evt_1.7." + body, "sha256")
        assert signature(secret, "evt_1", 7, body) == "v1," + base64.b64encode(digest).decode()


@pytest.mark.parametrize("held", [CURRENT, OLD])
def test_while_a_secret_is_rotated_receivers_of_both_are_content(held: str) -> None:
    sent = signed(CURRENT, OLD)
    assert CLIENT.webhooks.unwrap(BODY, sent, secret=held).id == "evt_1"
    assert standardwebhooks.Webhook(held).verify(BODY, sent)
    assert verify([held], headers=sent, body=BODY, now=time.time())


def test_the_current_secret_signs_first_and_all_of_it_is_plain_ascii() -> None:
    """One library for Python fails at an element without a comma before the match."""
    sent = signed(CURRENT, OLD, STRANGE)["webhook-signature"]
    parts = sent.split(" ")
    assert len(parts) == 3
    assert all(part.startswith("v1,") for part in parts)
    assert parts[0] == signed(CURRENT)["webhook-signature"]
    assert sent.isascii()


def test_another_secret_a_changed_body_and_a_changed_id_are_refused() -> None:
    sent = signed(CURRENT)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        CLIENT.webhooks.unwrap(BODY, sent, secret=STRANGE)
    now = time.time()
    assert verify([CURRENT], headers=sent, body=BODY, now=now)
    assert not verify([STRANGE], headers=sent, body=BODY, now=now)
    assert not verify([], headers=sent, body=BODY, now=now)
    assert not verify([CURRENT], headers=sent, body=BODY + b" ", now=now)
    assert not verify([CURRENT], headers=sent | {"webhook-id": "evt_2"}, body=BODY, now=now)


def test_a_retry_has_a_fresh_timestamp_and_the_same_id() -> None:
    """Pitfall 29: a receiver that failed once took every retry for a replay."""
    first, second = signed(CURRENT, timestamp=int(NOW)), signed(CURRENT, timestamp=int(NOW) + 400)
    assert first["webhook-id"] == second["webhook-id"]
    assert not verify([CURRENT], headers=first, body=BODY, now=NOW + 400)
    assert verify([CURRENT], headers=second, body=BODY, now=NOW + 400)


@pytest.mark.parametrize(
    ("skew", "fine"),
    [(0, True), (TOLERANCE_SECONDS, True), (-TOLERANCE_SECONDS, True), (301, False), (-301, False)],
)
def test_a_signature_is_good_for_five_minutes(skew: int, fine: bool) -> None:
    sent = signed(CURRENT, timestamp=int(NOW))
    assert verify([CURRENT], headers=sent, body=BODY, now=NOW + skew) is fine


GOOD = signed(CURRENT, timestamp=int(NOW))


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-timestamp": "9" * 5000},
        {"webhook-timestamp": f"+{int(NOW)}"},
        {"webhook-timestamp": f" {int(NOW)}"},
        {"webhook-timestamp": f"0{int(NOW)}"},
        {"webhook-timestamp": "1_719_168_000"},
        {"webhook-timestamp": "nan"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,é"},
        {"webhook-signature": "v2," + GOOD["webhook-signature"][3:]},
        {"webhook-signature": GOOD["webhook-signature"][:-4]},
        {"webhook-id": "evt_é"},
        {"webhook-id": "\udcff"},
        {"webhook-id": ""},
    ],
)
def test_a_header_that_makes_no_sense_is_refused_and_raises_nothing(
    changed: dict[str, str],
) -> None:
    assert verify([CURRENT], headers=GOOD, body=BODY, now=NOW)
    assert not verify([CURRENT], headers=GOOD | changed, body=BODY, now=NOW)


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_header_is_refused(name: str) -> None:
    rest = {k: v for k, v in GOOD.items() if k != name}
    assert not verify([CURRENT], headers=rest, body=BODY, now=NOW)


def test_an_unknown_scheme_beside_a_good_signature_does_no_harm() -> None:
    mixed = GOOD | {"webhook-signature": "v1a,xyz " + GOOD["webhook-signature"]}
    assert verify([CURRENT], headers=mixed, body=BODY, now=NOW)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "whsec_",
        "hunter2",
        CURRENT.removeprefix("whsec_"),
        secret_of(23),
        secret_of(65),
        secret_of(25).rstrip("="),
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 24).decode(),
        CURRENT + "\n",
        CURRENT + " ",
        " " + CURRENT,
        "whsec_é" + "A" * 31,
    ],
)
def test_a_bad_secret_is_refused_in_plain_words(bad: str) -> None:
    with pytest.raises(InvalidRequest, match="standard base64") as refused:
        check_secret(bad)
    assert refused.value.param == "secret"
    assert not bad or len(bad) < 12 or bad not in str(refused.value), "a secret must not be shown"


@given(bad=st.text(max_size=40))
def test_no_secret_raises_anything_else(bad: str) -> None:
    """Whatever passes can be signed with."""
    try:
        secret = check_secret("whsec_" + bad)
    except InvalidRequest:
        return
    assert signature(secret, "evt_1", 1, b"{}").startswith("v1,")
