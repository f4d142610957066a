"""JSON Web Tokens that sign webhooks, and the JWKS documents that verify them: RS256, no other.

https://www.rfc-editor.org/rfc/rfc7515 and rfc7517. What a token says of its own algorithm or key
decides nothing but which of the known keys is tried.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

SHAPE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}", re.ASCII)
TOKEN_MAX = 16 * 2**10
KEYS_MAX = 50
KEY_BITS = range(2_048, 8_192 + 1)
"""Shorter ones are weak, and longer ones cost time."""
ALGORITHM = "RS256"

Keys = Mapping[str, RSAPublicKey]
"""By their ids."""


class BadToken(Exception):
    """It is no token, or not one that is signed by any of the keys."""


class _Head(msgspec.Struct):
    alg: Any = None
    kid: Any = None
    crit: Any = None


class _Key(msgspec.Struct):
    kty: Any = None
    kid: Any = None
    use: Any = None
    n: Any = None
    e: Any = None


class _KeySet(msgspec.Struct):
    keys: list[_Key]


def is_token(text: str) -> bool:
    """Whether a text is written as a token is."""
    return len(text) <= TOKEN_MAX and SHAPE.fullmatch(text) is not None


def key_id(token: str) -> str:
    """Which key is said to have signed it. Raises BadToken."""
    head = _read(token.split(".", maxsplit=1)[0], _Head)
    if head.alg != ALGORITHM or head.crit is not None:
        raise BadToken(f"The token is not signed by {ALGORITHM}.")
    if not isinstance(head.kid, str) or not head.kid:
        raise BadToken("The token names no key.")
    return head.kid


def claims_in(token: str, keys: Keys) -> dict[str, Any]:
    """What a token says, once one of the keys is known to have signed it. Raises BadToken."""
    key = keys.get(key_id(token))
    if key is None:
        raise BadToken("The token is signed by a key that its provider does not publish.")
    signed, _, signature = token.rpartition(".")
    try:
        key.verify(_unpacked(signature), signed.encode(), PKCS1v15(), SHA256())
    except InvalidSignature:
        raise BadToken("The token's signature is not that of its key.") from None
    claims: dict[str, Any] = _read(signed.partition(".")[2], dict[str, Any])
    return claims


def keys_in(body: bytes) -> Keys:
    """The keys of a JWKS document; those that cannot sign so are left out. Raises BadToken."""
    try:
        found = msgspec.json.decode(body, type=_KeySet).keys[:KEYS_MAX]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadToken("The provider's list of keys is no JWKS document.") from None
    return {one.kid: key for one in found if (key := _key(one)) is not None}


def _key(one: _Key) -> RSAPublicKey | None:
    words = (one.kid, one.n, one.e)
    if one.kty != "RSA" or one.use not in (None, "sig"):
        return None
    if not all(isinstance(word, str) and word for word in words):
        return None
    try:
        n, e = (int.from_bytes(_unpacked(word)) for word in words[1:])
        return RSAPublicNumbers(e, n).public_key() if n.bit_length() in KEY_BITS else None
    except (BadToken, ValueError):
        return None


def _unpacked(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise BadToken("The token is not written as one.") from None


def _read(part: str, type_: Any) -> Any:
    try:
        return msgspec.json.decode(_unpacked(part), type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadToken("The token is not written as one.") from None
