"""Standard Webhooks: sign and verify. https://www.standardwebhooks.com

Receivers verify with any Standard Webhooks library, or with `client.webhooks.unwrap` of the
OpenAI SDKs, unchanged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from batchbell.core.errors import InvalidRequest

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix, not a secret
SECRET_BYTES = 24
"""24 bytes need no `=` in base64: there is no padding to lose in a copy and paste."""
TOLERANCE_SECONDS = 300
TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


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


@lru_cache(maxsize=4096)
def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """One `v1,…` signature over `{id}.{timestamp}.{body}`."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode()


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
