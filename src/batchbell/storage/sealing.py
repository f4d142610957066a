"""Secrets as the database holds them: AES-GCM of 256 bits, under a master key that it never sees.

A sealed text says which key opens it, `sealed1.<key id>.<nonce and ciphertext>`, and belongs to
one column: moved into another it does not open. A text without that head is plain, as it was kept
before there was a key, and is read as it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import ColumnElement, Dialect, Text, TypeDecorator, type_coerce

from batchbell.core.errors import SecretDamaged, SecretUnreadable

KEY_BYTES = 32
NONCE_BYTES = 12
HEAD = "sealed1."
ID_LENGTH = 8
OPENED_MAX = 16_384
"""Texts that are kept open: endpoints are read anew with each claim of their deliveries."""


def key_id(key: bytes) -> str:
    """The name of a master key, which tells nothing of it."""
    return hashlib.sha256(key).hexdigest()[:ID_LENGTH]


def head_of(id: str) -> str:
    """What every text begins with that was sealed under the key of this id."""
    return f"{HEAD}{id}."


class Seal:
    """Seals under the first of its keys, and opens what any of them has sealed.

    Without a key it leaves texts as they are.
    """

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self.ids = tuple(dict.fromkeys(key_id(key) for key in keys))
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self._opened = lru_cache(OPENED_MAX)(self._decrypt)

    def close(self, text: str, *, column: str) -> str:
        """The text as it is to be kept in `column`."""
        if not self.ids:
            if text.startswith(HEAD):
                raise ValueError(f"A plain text that begins with {HEAD} would not be read again.")
            return text
        id, nonce = self.ids[0], os.urandom(NONCE_BYTES)
        kept = self._ciphers[id].encrypt(nonce, text.encode(), column.encode())
        return head_of(id) + base64.b64encode(nonce + kept).decode()

    def open(self, kept: str, *, column: str) -> str:
        """The text that was kept in `column`. Raises SecretUnreadable, SecretDamaged."""
        return self._opened(kept, column) if kept.startswith(HEAD) else kept

    def _decrypt(self, kept: str, column: str) -> str:
        id, _, packed = kept.removeprefix(HEAD).partition(".")
        if id not in self._ciphers:
            raise SecretUnreadable(
                f"A secret in {column} is sealed under the master key {id!r}, which this process"
                " was not given: set BATCHBELL_MASTER_KEY as the other processes have it, and"
                " start again."
            )
        try:
            sealed = base64.b64decode(packed, validate=True)
            nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
            return self._ciphers[id].decrypt(nonce, ciphertext, column.encode()).decode()
        except (InvalidTag, ValueError, binascii.Error):
            raise SecretDamaged(
                f"A secret in {column} does not open under its master key {id}: the database is"
                " damaged there, or somebody has changed it. Set that secret anew, or restore a"
                " backup."
            ) from None


PLAIN = Seal()
_ATTRIBUTE = "batchbell_seal"


def attach(dialect: Dialect, seal: Seal) -> None:
    """Let what is read and written through this engine's dialect pass by `seal` from now on."""
    setattr(dialect, _ATTRIBUTE, seal)


class Sealed(TypeDecorator[str]):
    """A text that is kept sealed, by the seal that hangs on the dialect. Its place is bound in."""

    impl = Text
    cache_ok = True

    def __init__(self, place: str = "") -> None:
        super().__init__()
        self.place = place

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else seal_of(dialect).close(value, column=self.place)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else seal_of(dialect).open(value, column=self.place)


class Damaged(str):
    """Stands for a secret that does not open, and says so; it is never to be used as one."""

    __slots__ = ()


class Salvaged(Sealed):
    """Reads a text that is damaged as Damaged, so that the rows beside it can be used."""

    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        try:
            return super().process_result_value(value, dialect)
        except SecretDamaged as error:
            return Damaged(error)


def salvaged(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A column, read as Salvaged if it is sealed."""
    if not isinstance(column.type, Sealed):
        return column
    return type_coerce(column, Salvaged(column.type.place)).label(column.key)


def seal_of(dialect: Dialect) -> Seal:
    """The seal that hangs there; one without a key where nothing does."""
    seal: Seal = getattr(dialect, _ATTRIBUTE, PLAIN)
    return seal
