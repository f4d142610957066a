"""What is said of a webhook that does not verify."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.signing import (
    SECRET_BYTES,
    SECRET_PREFIX,
    TOLERANCE_SECONDS,
    Fault,
    explain,
    headers,
    make_secret,
    verify,
)

from .making import NOW

SECRET = make_secret(b"c" * SECRET_BYTES)
OTHER = make_secret(b"o" * SECRET_BYTES)
BODY = b'{"id":"evt_1","type":"batch.completed","data":{"text":"caf\\u00e9","rate":0.5}}'
SENT = headers([OTHER, SECRET], message_id="evt_1", timestamp=int(NOW), body=BODY)
FULL_LENGTH = "whsec_" + base64.b64encode(b"\xff" * 25).decode()


def faults(
    secret: str = SECRET,
    *,
    sent: dict[str, str] = SENT,
    body: bytes = BODY,
    now: float = int(NOW),
) -> list[Fault]:
    return [finding.fault for finding in explain(secret, headers=sent, body=body, now=now)]


def said(secret: str = SECRET, **came: object) -> str:
    given_ = {"headers": SENT, "body": BODY, "now": int(NOW)} | came
    return " ".join(one.message for one in explain(secret, **given_))  # type: ignore[arg-type]


@pytest.mark.parametrize("secret", [SECRET, OTHER])
def test_of_a_good_webhook_there_is_nothing_to_say(secret: str) -> None:
    assert faults(secret) == []


@pytest.mark.parametrize(
    ("secret", "hint"),
    [
        (f" {SECRET}", "white space or quotes"),
        (f"{SECRET}\n", "white space or quotes"),
        (f'"{SECRET}"', "white space or quotes"),
        (SECRET.removeprefix(SECRET_PREFIX), "another beginning"),
        ("sk-something", "another beginning"),
        (SECRET + "…", "base64 has not"),
        (FULL_LENGTH.replace("/", "_"), "URL-safe"),
        (FULL_LENGTH.rstrip("="), "lost its end"),
        (SECRET[:-1], "lost its end"),
        (SECRET[:-4], "24 to 64 bytes"),
        ("", "24 to 64 bytes"),
    ],
)
def test_a_secret_that_is_none_is_told_apart_and_not_shown(secret: str, hint: str) -> None:
    assert faults(secret) == [Fault.SECRET_MALFORMED]
    assert hint in said(secret)
    text = secret.strip(" \n\"'").removeprefix(SECRET_PREFIX)
    assert not text or text not in said(secret)


@pytest.mark.parametrize("name", list(SENT))
def test_a_header_that_is_missing_or_empty_is_named(name: str) -> None:
    for sent in ({key: SENT[key] for key in SENT if key != name}, SENT | {name: ""}):
        assert faults(sent=sent) == [Fault.HEADER_MISSING]
        assert name in said(headers=sent)


def test_all_that_is_missing_is_named_at_once() -> None:
    assert faults(sent={}) == [Fault.HEADER_MISSING] * 3
    assert faults("x", sent={}) == [Fault.SECRET_MALFORMED, *[Fault.HEADER_MISSING] * 3]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("webhook-id", "evt_é", "not ASCII"),
        ("webhook-id", " evt_1", "white space"),
        ("webhook-timestamp", "soon", "whole number of seconds"),
        ("webhook-timestamp", "9" * 400, "whole number of seconds"),
        ("webhook-timestamp", f"{int(NOW)}.5", "whole number of seconds"),
        ("webhook-signature", "v1", "no element that begins `v1,`"),
        ("webhook-signature", "v1a,AAAA", "no element that begins `v1,`"),
        ("webhook-signature", "v1,AAAA", "base64 of 32 bytes"),
        ("webhook-signature", "v1," + "0" * 64, "base64 of 32 bytes"),
        ("webhook-signature", "v1,a v1,!", "base64 of 32 bytes"),
        ("webhook-signature", SENT["webhook-signature"][:40], "base64 of 32 bytes"),
    ],
)
def test_a_header_that_makes_no_sense_is_named(name: str, value: str, words: str) -> None:
    sent = SENT | {name: value}
    assert faults(sent=sent) == [Fault.HEADER_MALFORMED]
    assert words in said(headers=sent)
    assert name in said(headers=sent)


@pytest.mark.parametrize(
    ("age", "expected", "words"),
    [
        (TOLERANCE_SECONDS, [], ""),
        (-TOLERANCE_SECONDS, [], ""),
        (412, [Fault.TIMESTAMP_TOO_OLD], "412 s old; 300 s are allowed"),
        (-3600, [Fault.TIMESTAMP_TOO_NEW], "3600 s ahead; 300 s are allowed"),
    ],
)
def test_an_old_or_early_timestamp_is_told_in_seconds(
    age: int, expected: list[Fault], words: str
) -> None:
    assert faults(now=int(NOW) + age) == expected
    assert words in said(now=int(NOW) + age)


def test_a_wrong_secret_and_an_old_timestamp_are_both_told() -> None:
    strange = make_secret(b"s" * SECRET_BYTES)
    assert faults(strange, now=NOW + 900) == [Fault.TIMESTAMP_TOO_OLD, Fault.NO_MATCH]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (BODY + b"\n", "white space around it"),
        (b" " + BODY + b"\r\n", "white space around it"),
        (b"\xef\xbb\xbf" + BODY, "byte order mark"),
        (json.dumps(json.loads(BODY)).encode(), "written anew"),
        (json.dumps(json.loads(BODY), indent=2).encode(), "written anew"),
        (json.dumps(json.loads(BODY), ensure_ascii=False).encode(), "written anew"),
        (json.dumps(json.loads(BODY), indent=2).encode() + b"\n", "written anew"),
    ],
)
def test_a_body_that_was_changed_on_its_way_is_told_from_a_wrong_secret(
    body: bytes, words: str
) -> None:
    assert faults(body=body) == [Fault.BODY_CHANGED]
    assert words in said(body=body)


@pytest.mark.parametrize(
    ("signed", "came"),
    [
        ('{"name":"café"}'.encode(), b'{"name": "caf\\u00e9"}'),
        (b'{"a": 1, "b": 2}', b'{"a":1,"b":2}'),
        (b'{\n"a": 1\n}', b'{\r\n"a": 1\r\n}'),
    ],
)
def test_bodies_of_other_senders_are_guessed_too(signed: bytes, came: bytes) -> None:
    sent = headers([SECRET], message_id="msg_1", timestamp=int(NOW), body=signed)
    assert faults(sent=sent, body=signed) == []
    assert faults(sent=sent, body=came) == [Fault.BODY_CHANGED]


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace(b"0.5", b"0.6"),
        b"",
        b"\xff\xfe",
        b"not json",
        b"[" * 100_000,
        b"9" * 5000,
        json.dumps(json.loads(BODY), sort_keys=True).encode(),
    ],
    ids=["another value", "empty", "no text", "no JSON", "deep", "a huge number", "sorted"],
)
def test_a_body_that_cannot_be_guessed_may_be_of_another_secret(body: bytes) -> None:
    assert faults(body=body) == [Fault.NO_MATCH]


def test_another_id_or_timestamp_than_the_signed_one_does_not_match() -> None:
    assert faults(sent=SENT | {"webhook-id": "evt_2"}) == [Fault.NO_MATCH]
    assert faults(sent=SENT | {"webhook-timestamp": str(int(NOW) + 1)}) == [Fault.NO_MATCH]


SHORT = st.text("evt_019é ", max_size=5)
CHANGED = st.fixed_dictionaries(
    {},
    optional={
        "webhook-id": st.sampled_from(["", "evt_1", "evt_2"]) | SHORT,
        "webhook-timestamp": st.sampled_from([str(int(NOW)), "0"]) | SHORT,
        "webhook-signature": st.text("v1,aZ/+= ", max_size=60),
    },
)


@given(
    changed=CHANGED,
    body=st.sampled_from([BODY, BODY + b" "]) | st.binary(max_size=20),
    age=st.integers(-400, 400),
    secret=st.sampled_from([SECRET, OTHER, make_secret(b"s" * SECRET_BYTES)]),
)
def test_nothing_is_said_exactly_where_it_verifies(
    changed: dict[str, str], body: bytes, age: int, secret: str
) -> None:
    sent, now = SENT | changed, int(NOW) + age
    good = verify([secret], headers=sent, body=body, now=now)
    assert (faults(secret, sent=sent, body=body, now=now) == []) is good
