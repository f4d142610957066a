"""Tokens that sign webhooks: only those that a published key has signed, for us, and now."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from batchbell.providers.hints import HintRefused, Reason, read_token_hint, token_in
from batchbell.providers.profiles import GEMINI, OPENAI
from batchbell.providers.tokens import BadToken, claims_in, key_id, keys_in
from batchbell.sandbox.hooks import KEY_ID, key_set, token

NOW = 1_790_000_000
OURS = "https://hooks.example/hooks/acc_1"
EVENT = {"type": "batch.succeeded", "version": "v1", "data": {"id": "batches/a"}}
CLAIMS: dict[str, Any] = {**EVENT, "aud": OURS, "iat": NOW, "exp": NOW + 300}
KEYS = keys_in(json.dumps(key_set()).encode())
assert GEMINI.hooks is not None
HOOKS = GEMINI.hooks


def packed(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def read(made: str, body: bytes = b"{}", *, now: float = NOW, timestamp: int = NOW) -> Any:
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": made,
    }
    return read_token_hint(
        HOOKS,
        made,
        KEYS,
        is_audience=lambda word: word == OURS,
        headers=headers,
        body=body,
        now=now,
    )


def without(name: str) -> dict[str, Any]:
    return {word: value for word, value in CLAIMS.items() if word != name}


def test_a_token_says_which_batch_has_ended() -> None:
    hint = read(token(CLAIMS))
    assert hint.batch_ids == ("batches/a",)
    assert hint.id == read(token(CLAIMS)).id != read(token(CLAIMS | {"iat": NOW - 1})).id


def test_what_a_token_holds_counts_and_not_the_body_beside_it() -> None:
    other = json.dumps(EVENT | {"data": {"id": "batches/b"}}).encode()
    assert read(token(CLAIMS), other).batch_ids == ("batches/a",)
    bare = {name: CLAIMS[name] for name in ("aud", "iat", "exp")}
    assert read(token(bare), other).batch_ids == ("batches/b",)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        (without("aud"), Reason.FORGED),
        (CLAIMS | {"aud": "https://elsewhere.example/hook"}, Reason.FORGED),
        (CLAIMS | {"aud": ["https://elsewhere.example", 7]}, Reason.FORGED),
        (CLAIMS | {"aud": {"x": OURS}}, Reason.FORGED),
        (without("exp"), Reason.MALFORMED),
        (CLAIMS | {"exp": "soon"}, Reason.MALFORMED),
        (CLAIMS | {"exp": NOW - 61}, Reason.STALE),
        (CLAIMS | {"iat": NOW + 301}, Reason.STALE),
        (CLAIMS | {"data": {"id": 7}}, Reason.MALFORMED),
        (CLAIMS | {"data": "x"}, Reason.MALFORMED),
    ],
)
def test_a_token_that_is_not_for_us_or_not_of_now_is_refused(
    claims: dict[str, Any], reason: Reason
) -> None:
    with pytest.raises(HintRefused) as refused:
        read(token(claims))
    assert refused.value.reason is reason


def test_the_header_beside_a_token_must_be_of_now_too() -> None:
    with pytest.raises(HintRefused) as refused:
        read(token(CLAIMS), timestamp=NOW - 301)
    assert refused.value.reason is Reason.STALE


@pytest.mark.parametrize("aud", [OURS, ["x", OURS]])
def test_several_may_be_meant(aud: Any) -> None:
    assert read(token(CLAIMS | {"aud": aud, "exp": NOW - 59})).batch_ids == ("batches/a",)


HEAD, BODY, SIGNATURE = token(CLAIMS).split(".")
PUBLIC = json.dumps(key_set()).encode()


def by_hmac(alg: str) -> str:
    """Signed with what everybody knows, in the hope that it is taken for a secret."""
    signed = f"{packed({'alg': alg, 'kid': KEY_ID})}.{BODY}"
    return f"{signed}.{packed(hmac.digest(PUBLIC, signed.encode(), hashlib.sha256))}"


@pytest.mark.parametrize(
    "made",
    [
        token(CLAIMS, alg="none"),
        token(CLAIMS, alg="RS512"),
        token(CLAIMS, kid="another"),
        token(CLAIMS, kid=""),
        by_hmac("HS256"),
        by_hmac("RS256"),
        f"{packed({'alg': 'RS256'})}.{BODY}.{SIGNATURE}",
        f"{packed({'alg': 'RS256', 'kid': KEY_ID, 'crit': ['b64']})}.{BODY}.{SIGNATURE}",
        f"{packed([])}.{BODY}.{SIGNATURE}",
        f"{packed(b'[' * 9_000)}.{BODY}.{SIGNATURE}",
        f"{HEAD}.{packed(CLAIMS | {'data': {'id': 'batches/b'}})}.{SIGNATURE}",
        f"{HEAD}.{BODY}.{packed(b'x' * 256)}",
        f"{HEAD}.{BODY}.AA",
        f"A.{BODY}.{SIGNATURE}",
    ],
)
def test_what_no_published_key_has_signed_is_refused(made: str) -> None:
    with pytest.raises(BadToken):
        claims_in(made, KEYS)


@pytest.mark.parametrize("signed", ["x", b"[1]", b"[" * 9_000, b"\xff"])
def test_claims_are_an_object(signed: Any) -> None:
    made = token({})
    assert claims_in(made, KEYS) == {}
    with pytest.raises(BadToken):
        claims_in(f"{made.split('.')[0]}.{packed(signed)}.{made.split('.')[2]}", KEYS)


@pytest.mark.parametrize("text", ["", "v1,abc=", "a.b", "a.b.c.d", "a..c", "a.b." + "c" * 16_384])
def test_only_what_looks_like_a_token_is_read_as_one(text: str) -> None:
    assert token_in(HOOKS, {"webhook-signature": text}) is None


def test_only_where_the_provider_signs_by_tokens() -> None:
    assert OPENAI.hooks is not None
    made = token(CLAIMS)
    assert token_in(OPENAI.hooks, {"webhook-signature": made}) is None
    assert token_in(HOOKS, {"webhook-signature": made}) == made
    assert key_id(made) == KEY_ID


KEY = key_set()["keys"][0]


@pytest.mark.parametrize(
    ("keys", "number"),
    [
        ([KEY], 1),
        ([KEY, KEY | {"kid": "b", "use": None}], 2),
        ([KEY | {"kty": "EC"}], 0),
        ([KEY | {"use": "enc"}], 0),
        ([KEY | {"kid": None}], 0),
        ([KEY | {"n": 7}], 0),
        ([KEY | {"n": "AQAB"}], 0),
        ([KEY | {"n": "_" * 3_000}], 0),
        ([KEY | {"e": ""}], 0),
        ([KEY | {"e": "AA"}], 0),
        ([KEY | {"kid": str(n)} for n in range(60)], 50),
    ],
)
def test_keys_that_cannot_sign_so_are_left_out(keys: list[Any], number: int) -> None:
    assert len(keys_in(json.dumps({"keys": keys}).encode())) == number


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"keys": 7}', b'{"keys": [7]}', b"\xff"])
def test_what_is_no_list_of_keys_is_refused(text: bytes) -> None:
    with pytest.raises(BadToken):
        keys_in(text)
