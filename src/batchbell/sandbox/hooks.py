"""The webhooks that the providers send which are played here, each signed as its provider does."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

from batchbell.core import signing

SECRET = signing.make_secret(b"batchbell-sandbox-secret")
"""What it signs with where nobody has chosen a secret."""
TRIES_MAX = 5
TOKEN_SECONDS = 300
KEY_ID = "sandbox-1"
Headers = Callable[[bytes, int], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Hook:
    """An address to call when any batch ends, and its secret."""

    url: str
    secret: str = SECRET


@dataclass(frozen=True, slots=True)
class Announcement:
    """One webhook."""

    batch_id: str
    url: str
    body: bytes
    headers: Mapping[str, str]


def by_secret(id: str, secret: str) -> Headers:
    """Signed by HMAC, with the secret that both sides know."""

    def headers(body: bytes, timestamp: int) -> Mapping[str, str]:
        return signing.headers([secret], message_id=id, timestamp=timestamp, body=body)

    return headers


def by_token(id: str, audience: str) -> Headers:
    """Signed by RS256: a token that holds the event, and says whom it is for."""

    def headers(body: bytes, timestamp: int) -> Mapping[str, str]:
        times = {"iat": timestamp, "exp": timestamp + TOKEN_SECONDS}
        claims = {**json.loads(body), **times, "aud": audience}
        return {
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": token(claims),
        }

    return headers


def announcements(
    batch_id: str, event: Mapping[str, Any], targets: Mapping[str, Headers], now: float
) -> Iterator[Announcement]:
    """The same event for each of the addresses."""
    body = json.dumps(event).encode()
    for url, sign in targets.items():
        headers = {**sign(body, int(now)), "content-type": "application/json"}
        yield Announcement(batch_id, url, body, headers)


@cache
def _key() -> RSAPrivateKey:
    """One for the process: to make it takes a while."""
    return generate_private_key(public_exponent=65_537, key_size=2_048)


def token(claims: Mapping[str, Any], *, kid: str = KEY_ID, alg: str = "RS256") -> str:
    """A JSON Web Token of these claims. `alg` is what its head says."""
    head = {"alg": alg, "kid": kid, "typ": "JWT"}
    signed = b".".join(_packed(json.dumps(part).encode()) for part in (head, claims))
    signature = _key().sign(signed, PKCS1v15(), SHA256())
    return b".".join([signed, _packed(signature)]).decode()


def key_set() -> dict[str, Any]:
    """The JWKS document that tokens are verified with."""
    numbers = _key().public_key().public_numbers()
    n, e = (_packed(one.to_bytes((one.bit_length() + 7) // 8)) for one in (numbers.n, numbers.e))
    key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": KEY_ID}
    return {"keys": [{**key, "n": n.decode(), "e": e.decode()}]}


def _packed(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")
