"""Standard Webhooks: sign and verify. https://www.standardwebhooks.com

Receivers verify with any Standard Webhooks library, or with `client.webhooks.unwrap` of the
OpenAI SDKs, unchanged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache

from msgspec import Struct

from batchbell.core.errors import InvalidRequest

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix, not a secret
SECRET_BYTES = 24
"""24 bytes need no `=` in base64: there is no padding to lose in a copy and paste."""
TOLERANCE_SECONDS = 300
TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
DIGEST_BYTES = 32
BLOCK_BYTES = 64
"""Of SHA-256, with which HMAC begins."""
INNER = bytes(byte ^ 0x36 for byte in range(256))
OUTER = bytes(byte ^ 0x5C for byte in range(256))


def make_secret(rand: bytes) -> str:
    """A secret from `SECRET_BYTES` random bytes, as `whsec_` and standard base64."""
    return SECRET_PREFIX + base64.b64encode(rand[:SECRET_BYTES]).decode()


def check_secret(secret: str) -> str:
    """Return the secret unchanged, or raise InvalidRequest that says what is wrong with it."""
    try:
        length = len(_key(secret))
    except (binascii.Error, ValueError):
        length = 0
    if not secret.startswith(SECRET_PREFIX) or not 24 <= length <= 64:
        raise InvalidRequest(
            "A webhook secret is `whsec_` followed by the standard base64 of 24 to 64 bytes.",
            param="secret",
        )
    return secret


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)


@lru_cache(maxsize=4096)
def _begun(secret: str) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The two hashes of HMAC (RFC 2104), with the key in them: copied, and never fed.

    They cost as much as what follows, and are the same for every message.
    """
    key = _key(secret)
    key = (hashlib.sha256(key).digest() if len(key) > BLOCK_BYTES else key).ljust(
        BLOCK_BYTES, b"\0"
    )
    inner, outer = hashlib.sha256(key.translate(INNER)), hashlib.sha256(key.translate(OUTER))
    return inner, outer


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """One `v1,…` signature over `{id}.{timestamp}.{body}`."""
    begun, end = _begun(secret)
    inner, outer = begun.copy(), end.copy()
    inner.update(b"%s.%d.%s" % (message_id.encode(), timestamp, body))
    outer.update(inner.digest())
    return "v1," + base64.b64encode(outer.digest()).decode()


def headers(
    secrets: Sequence[str], *, message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The three headers, signed with every secret, the current one first.

    `timestamp` is of this attempt: a receiver refuses one that is five minutes old, so a retry
    needs a fresh one, while the id stays the same.
    """
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            signature(secret, message_id, timestamp, body) for secret in secrets
        ),
    }


def verify(secrets: Sequence[str], *, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether any of the secrets signed this body within the tolerance.

    Header names are in lower case.
    """
    timestamp = headers.get("webhook-timestamp", "")
    if not TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    message_id = headers.get("webhook-id", "")
    offered = headers.get("webhook-signature", "")
    if not (message_id.isascii() and offered.isascii()):
        return False
    expected = [signature(secret, message_id, int(timestamp), body) for secret in secrets]
    return any(hmac.compare_digest(a, b) for a in expected for b in offered.split(" "))


class Fault(StrEnum):
    """Why a webhook does not verify."""

    SECRET_MALFORMED = "secret_malformed"  # noqa: S105 - a word, not a secret
    HEADER_MISSING = "header_missing"
    HEADER_MALFORMED = "header_malformed"
    TIMESTAMP_TOO_OLD = "timestamp_too_old"
    TIMESTAMP_TOO_NEW = "timestamp_too_new"
    BODY_CHANGED = "body_changed"
    NO_MATCH = "no_match"


class Finding(Struct, frozen=True):
    """One thing that is wrong, in words that never show the secret."""

    fault: Fault
    message: str


def explain(
    secret: str, *, headers: Mapping[str, str], body: bytes, now: float
) -> tuple[Finding, ...]:
    """All that is wrong with a webhook as it came; nothing exactly where `verify` says yes.

    A body that was read as JSON and written anew, or got other white space, differs from a wrong
    secret where the signed bytes can be guessed. Header names are in lower case.
    """
    unsound = (*_secret_findings(secret), *_header_findings(headers))
    if unsound:
        return unsound
    timestamp = int(headers["webhook-timestamp"])
    late = _time_findings(now - timestamp)

    def holds(text: bytes) -> bool:
        return verify([secret], headers=headers, body=text, now=timestamp)

    return late if holds(body) else (*late, _mismatch(body, holds))


def _secret_findings(secret: str) -> Iterator[Finding]:
    try:
        check_secret(secret)
    except InvalidRequest as error:
        yield Finding(Fault.SECRET_MALFORMED, f"{error.message} {_secret_hint(secret)}".rstrip())


def _secret_hint(secret: str) -> str:
    """What a copy and paste has done to it."""
    text = secret.removeprefix(SECRET_PREFIX)
    if secret != secret.strip(" \t\r\n\"'"):
        return "This one has white space or quotes around it."
    if text == secret:
        return "This one has another beginning."
    if not re.fullmatch(r"[A-Za-z0-9+/=_-]*", text):
        return "This one holds a character that base64 has not."
    if "-" in text or "_" in text:
        return "This one is URL-safe base64: `-` and `_` stand for `+` and `/`."
    if len(text) % 4:
        return "This one has lost its end: base64 comes in fours, with `=` to fill up."
    return ""


def _header_findings(headers: Mapping[str, str]) -> Iterator[Finding]:
    for name in HEADERS:
        value = headers.get(name, "")
        if not value:
            yield Finding(Fault.HEADER_MISSING, f"The header {name} is missing.")
        elif problem := _header_problem(name, value):
            yield Finding(Fault.HEADER_MALFORMED, f"The header {name} {problem}")


def _header_problem(name: str, value: str) -> str | None:
    if not value.isascii():
        return "is not ASCII."
    if value != value.strip():
        return "has white space around it."
    if name == "webhook-timestamp" and not TIMESTAMP.fullmatch(value):
        return "is not a whole number of seconds since 1970."
    if name == "webhook-signature":
        return _signature_problem(value.split(" "))
    return None


def _signature_problem(elements: Sequence[str]) -> str | None:
    ours = [element.removeprefix("v1,") for element in elements if element.startswith("v1,")]
    if not ours:
        return "has no element that begins `v1,`; elements are parted by spaces."
    if not any(_is_digest(text) for text in ours):
        return "holds no `v1,` followed by the base64 of 32 bytes: it was cut or written anew."
    return None


def _is_digest(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == DIGEST_BYTES
    except (binascii.Error, ValueError):
        return False


def _time_findings(age_seconds: float) -> tuple[Finding, ...]:
    allowed = f"{TOLERANCE_SECONDS} s are allowed."
    if age_seconds > TOLERANCE_SECONDS:
        says = f"The timestamp is {age_seconds:.0f} s old; {allowed}"
        why = "Was this webhook kept for a while, or does a clock go wrong?"
        return (Finding(Fault.TIMESTAMP_TOO_OLD, f"{says} {why}"),)
    if age_seconds < -TOLERANCE_SECONDS:
        says = f"The timestamp is {-age_seconds:.0f} s ahead; {allowed}"
        why = "The receiver's clock or the sender's goes wrong."
        return (Finding(Fault.TIMESTAMP_TOO_NEW, f"{says} {why}"),)
    return ()


def _mismatch(body: bytes, holds: Callable[[bytes], bool]) -> Finding:
    """The signature is over other bytes, or made with another secret."""
    for change, original in _originals(body):
        if original != body and holds(original):
            said = f"The body was changed on its way: {change}. Verify the bytes as they came."
            return Finding(Fault.BODY_CHANGED, said)
    return Finding(
        Fault.NO_MATCH,
        "The signature is of another secret, of another body, or of another id or timestamp.",
    )


def _originals(body: bytes) -> Iterator[tuple[str, bytes]]:
    """What may have been signed before something changed it into this body, and what that did."""
    yield "it has white space around it, such as a newline at its end", body.strip()
    yield "its newlines were turned into CR LF", body.replace(b"\r\n", b"\n")
    yield "it begins with a byte order mark", body.removeprefix(b"\xef\xbb\xbf")
    anew = "it was read as JSON and written anew"
    try:
        value = json.loads(body)
        yield anew, json.dumps(value, separators=(",", ":")).encode()
        yield anew, json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        yield anew, json.dumps(value).encode()
    except (ValueError, RecursionError):
        return  # not JSON, or none that anybody would sign
