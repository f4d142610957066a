"""Who may call: everybody on this machine until a key is made, then whoever holds one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv6Address, ip_address
from typing import TypeVar
from urllib.parse import urlsplit

from starlette.types import Scope

from batchbell.core.errors import AccessDenied
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.storage import keys
from batchbell.storage.engine import Store
from batchbell.storage.keys import Key
from batchbell.web.faults import Code
from batchbell.web.remembering import Remembered

T = TypeVar("T")

KEYS_KEPT_SECONDS = 0.5
"""A key that another process has revoked works no longer than this."""
KEYS_KEPT_MAX = 1000

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/docs", "/openapi.json"})
"""They hold nothing of anybody, and probes and browsers must reach them."""

SIGNED_PATHS = "/results/"
"""Links that carry their own proof."""

OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Keyring:
    """The keys in force, asked of the database at most twice a second for each."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._any = self._remember(lambda: store.read(keys.any_key))
        self._known: dict[str, Remembered[Key | None]] = {}

    def _remember(self, load: Callable[[], Awaitable[T]]) -> Remembered[T]:
        return Remembered(load, seconds=KEYS_KEPT_SECONDS, clock=self._clock)

    def forget(self) -> None:
        """Call when a key was made or revoked here: it counts from the next request on."""
        self._any.forget()
        self._known.clear()

    async def is_local_mode(self) -> bool:
        """Whether no key is in force."""
        return not await self._any.get()

    async def find(self, key: str) -> Key | None:
        """The record of a key in force."""
        name = keys.hashed(key)
        if name not in self._known and len(self._known) >= KEYS_KEPT_MAX:
            self._known.clear()
        known = self._known.setdefault(
            name, self._remember(lambda: self._store.read(keys.find_key, key))
        )
        return await known.get()


class Gate:
    """Judges each request before a handler sees it."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def project_of(self, scope: Scope) -> str:
        """The project that the caller may work in. Raises AccessDenied."""
        if scope["path"] in OPEN_PATHS or scope["path"].startswith(SIGNED_PATHS):
            return DEFAULT_PROJECT
        if await self._keyring.is_local_mode():
            check_local(scope)
            return DEFAULT_PROJECT
        token = bearer_token(scope)
        key = await self._keyring.find(token)
        if key is None:
            raise AccessDenied("This API key is wrong or was revoked.", code=Code.INVALID_API_KEY)
        return key.project_id


def bearer_token(scope: Scope) -> str:
    """What `Authorization: Bearer …` holds. Raises AccessDenied."""
    scheme, _, token = next(iter(_values(scope, b"authorization")), "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise AccessDenied(
            "This server needs an API key: send `Authorization: Bearer bb_…`.",
            code=Code.MISSING_API_KEY,
        )
    return token.strip()


def check_local(scope: Scope) -> None:
    """Local mode: only this machine, and no page from elsewhere. Raises AccessDenied.

    A name that was rebound to 127.0.0.1 shows in `Host`, a page of another site in `Origin`. The
    peer's address counts too, for the moment when the last key of a public server is revoked.
    """
    client = scope.get("client")
    if client and not _is_loopback(client[0]):
        _deny(
            "Without an API key only this machine is served; `batchbell keys create` makes one.",
            Code.REMOTE_NOT_ALLOWED,
        )
    hosts = list(_values(scope, b"host"))
    if not hosts or any(_host_name(f"//{host}") not in OWN_NAMES for host in hosts):
        _deny(
            "Without an API key the Host header must be localhost, 127.0.0.1 or [::1];"
            " `batchbell keys create` makes a key, and lifts this.",
            Code.HOST_NOT_ALLOWED,
        )
    if any(_host_name(origin) not in OWN_NAMES for origin in _values(scope, b"origin")):
        _deny(
            "Without an API key a web page of another site may not call this server.",
            Code.ORIGIN_NOT_ALLOWED,
        )


def _deny(message: str, code: Code) -> None:
    raise AccessDenied(message, code=code, status=403)


def _values(scope: Scope, name: bytes) -> Iterable[str]:
    return (value.decode("latin-1") for key, value in scope["headers"] if key == name)


def _host_name(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return None if "@" in parts.netloc else parts.hostname


def _is_loopback(address: str) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return (mapped or parsed).is_loopback
