"""Who may call: everybody on this machine until the first key is made, then whoever holds one.

Revoking keys never leads back: a server that has no key in force refuses everybody, until its
operator makes a key on its machine.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from operator import itemgetter
from typing import TypeVar
from urllib.parse import urlsplit

import structlog
from starlette.requests import cookie_parser
from starlette.types import Scope

from batchbell.core import session
from batchbell.core.errors import AccessDenied
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.storage import keys
from batchbell.storage.engine import Store
from batchbell.storage.keys import Key
from batchbell.web import docs_page
from batchbell.web.cache import Remembered
from batchbell.web.errors import Code
from batchbell.web.gateway import natives

T = TypeVar("T")

log = structlog.get_logger("batchbell.auth")

KEYS_KEPT_SECONDS = 0.5
"""A key that another process has revoked works no longer than this."""
KEYS_KEPT_MAX = 1000
WRONG_KEYS_MAX = 20
"""Wrong keys that one address may send within WRONG_KEYS_SECONDS, to be answered 401."""
WRONG_KEYS_SECONDS = 60.0
ADDRESSES_MAX = 10_000

SIGNED_PATHS = ("/results/", "/hooks/")
"""Links, and webhooks of providers, that carry their own proof."""

DASHBOARD = "/dashboard"
"""Where the pages for people begin. They bring a cookie in place of a key."""
SIGN_IN = f"{DASHBOARD}/sign-in"
DASHBOARD_FILES = f"{DASHBOARD}/assets/"
"""Scripts and styles, the same for everybody."""
SESSION_COOKIE = "batchbell_session"

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json", SIGN_IN}) | docs_page.PATHS
"""They hold nothing of anybody, and probes and browsers must reach them."""

OPEN_BELOW = (*SIGNED_PATHS, DASHBOARD_FILES)

OWN_SITES = frozenset({"same-origin", "same-site", "none"})
"""What a browser says in `Sec-Fetch-Site` of our own pages, of another port of this machine, and of
an address that was typed. https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header
"""
FORWARDED_FOR = (b"x-forwarded-for", b"x-real-ip")

KEY_HEADERS = (b"x-api-key", b"x-goog-api-key", b"api-key")
"""Where SDKs put a key that do not send it as a bearer token: Anthropic's, Google's, Azure's."""

OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

HEADERS_KEPT_MAX = 1000
"""Values of headers whose meaning is kept: most callers send the same again."""
KEPT_CHARACTERS_MAX = 300
"""What is longer is no name or address of this machine."""


class WrongKeys:
    """How often each address has sent a wrong key lately.

    It never looks at a right one: whoever shares an address with an attacker, such as that of a
    proxy, is let in as ever. Memory is bounded: the address that was longest quiet is forgotten.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, address: str) -> float | None:
        """Count one more; returns the seconds to wait where there were too many."""
        now = self._clock()
        begun, count = self._seen.pop(address, (now, 0))
        if not 0 <= now - begun < WRONG_KEYS_SECONDS:
            begun, count = now, 0
        self._seen[address] = begun, count + 1
        if len(self._seen) > ADDRESSES_MAX:
            self._seen.popitem(last=False)
        if count < WRONG_KEYS_MAX:
            return None
        if count == WRONG_KEYS_MAX:
            log.warning("auth.wrong_keys", address=address, count=count + 1)
        return begun + WRONG_KEYS_SECONDS - now


class Keyring:
    """The keys in force, asked of the database at most twice a second for each."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._ever = self._remember(lambda: store.read(keys.ever_made))
        self._any = self._remember(lambda: store.read(keys.any_in_force))
        self._known: dict[str, Remembered[Key | None]] = {}
        self.wrong = WrongKeys(clock)

    def _remember(self, load: Callable[[], Awaitable[T]]) -> Remembered[T]:
        return Remembered(load, seconds=KEYS_KEPT_SECONDS, clock=self._clock)

    def forget(self) -> None:
        """Call when a key was made or revoked here: it counts from the next request on."""
        self._ever.forget()
        self._any.forget()
        self._known.clear()

    async def is_local_mode(self) -> bool:
        """Whether no key was ever made."""
        return not await self._ever.get()

    def is_local_mode_at_hand(self) -> bool | None:
        """As `is_local_mode`, where the database need not be asked; else None."""
        ever = self._ever.at_hand()
        return None if ever is None else not ever

    def at_hand(self, key: str) -> Key | None:
        """The record of a key in force, where the database need not be asked; else None."""
        known = self._known.get(keys.hashed(key))
        return None if known is None else known.at_hand()

    async def is_any_in_force(self) -> bool:
        """Whether somebody can be let in."""
        return await self._any.get()

    async def key_of_address(self, scope: Scope) -> Key | None:
        """The key under which we gave out the address that is called, if both are still good."""
        found = natives.proof_in(scope)
        if found is None:
            return None
        proof, address = found
        signer = await self._store.read(keys.find_signer, proof.key_id)
        if signer is None:
            return None
        key, secret = signer
        good = session.is_proof(proof, address, secret=secret, now=self._clock())
        return key if good else None

    async def find(self, key: str) -> Key | None:
        """The record of a key in force. Wrong keys are not kept: they would push out right ones."""
        name = keys.hashed(key)
        if name not in self._known and len(self._known) >= KEYS_KEPT_MAX:
            del self._known[next(iter(self._known))]
        known = self._known.setdefault(
            name, self._remember(lambda: self._store.read(keys.find_key, key))
        )
        found = await known.get()
        if found is None:
            self._known.pop(name, None)
        return found

    async def key_of_session(self, text: str) -> Key | None:
        """The key that this session belongs to, if it is in force and the session has not ended."""
        found = session.read(text)
        if found is None:
            return None
        signer = await self._store.read(keys.find_signer, found.key_id)
        if signer is None:
            return None
        key, secret = signer
        return key if session.is_genuine(found, secret=secret, now=self._clock()) else None

    async def form_secret(self, key: Key | None) -> str:
        """What signs the forms of whoever has this key, or of local mode. Raises AccessDenied."""
        if key is None:
            return await self._store.read(keys.server_secret)
        signer = await self._store.read(keys.find_signer, key.id)
        if signer is None:
            raise AccessDenied("This API key was revoked.", code=Code.INVALID_API_KEY)
        return signer[1]


def is_open(path: str) -> bool:
    """Whether everybody may call this, whoever they are."""
    return path in OPEN_PATHS or path.startswith(OPEN_BELOW)


def is_page(path: str) -> bool:
    """Whether this is a page of the dashboard."""
    return path == DASHBOARD or path.startswith(f"{DASHBOARD}/")


class Gate:
    """Judges each request before a handler sees it."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def project_of(self, scope: Scope) -> str:
        """The project that the caller may work in. Raises AccessDenied."""
        path = scope["path"]
        if is_open(path):
            return DEFAULT_PROJECT
        if await self._keyring.is_local_mode():
            check_local(scope)
            return DEFAULT_PROJECT
        if is_page(path):
            key = await self._signed_in(scope)
            scope.setdefault("state", {})["key"] = key
            return key.project_id
        token = api_key_in(scope)
        sender = None if token else await self._keyring.key_of_address(scope)
        return (sender or await self.admit(token, scope)).project_id

    def project_at_hand(self, scope: Scope) -> str | None:
        """As `project_of` says, for a call of a path that needs a key or local mode, like most.

        None where it would refuse the call, or would have to ask the database.
        """
        match self._keyring.is_local_mode_at_hand():
            case None:
                return None
            case True:
                try:
                    check_local(scope)
                except AccessDenied:
                    return None
                return DEFAULT_PROJECT
            case False:
                token = api_key_in(scope)
                key = self._keyring.at_hand(token) if token else None
                return None if key is None else key.project_id

    async def _signed_in(self, scope: Scope) -> Key:
        """The key of the session. It is asked for anew each time: one that was revoked is over."""
        found = await self._keyring.key_of_session(session_in(scope))
        if found is None:
            raise AccessDenied("Sign in with an API key.", code=Code.MISSING_API_KEY)
        return found

    async def admit(self, token: str, scope: Scope) -> Key:
        """The key that somebody signs in with. Raises AccessDenied."""
        key = await self._keyring.find(token) if token else None
        if key is None:
            raise await self._refusal(token, _network(scope))
        return key

    async def _refusal(self, token: str, network: str) -> AccessDenied:
        wait_seconds = self._keyring.wrong.note(network) if token else None
        if wait_seconds is not None:
            return AccessDenied(
                "Too many wrong API keys came from this address. Check the key, and try again"
                " later.",
                code=Code.TOO_MANY_WRONG_KEYS,
                status=429,
                retry_after_seconds=wait_seconds,
            )
        code = Code.INVALID_API_KEY if token else Code.MISSING_API_KEY
        if not await self._keyring.is_any_in_force():
            return AccessDenied(
                "All API keys of this server were revoked. Make one on its machine: `batchbell keys"
                " create --name NAME`. With SQLite, stop the server first.",
                code=code,
            )
        if token:
            return AccessDenied("This API key is wrong or was revoked.", code=code)
        return AccessDenied(
            "This server needs an API key: send `Authorization: Bearer bb_…`.", code=code
        )


def api_key_in(scope: Scope) -> str:
    """The key of a call, wherever the SDKs of providers put theirs; empty where there is none."""
    scheme, _, token = next(iter(_values(scope, b"authorization")), "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    others = (value.strip() for name in KEY_HEADERS for value in _values(scope, name))
    return next(filter(None, others), "") or natives.key_in_query(scope)


def session_in(scope: Scope) -> str:
    """The session text that a browser sent along; empty where there is none."""
    sent = "; ".join(_values(scope, b"cookie"))
    return cookie_parser(sent).get(SESSION_COOKIE, "")


def check_local(scope: Scope) -> None:
    """Local mode: only this machine, and no page from elsewhere. Raises AccessDenied.

    A name that was rebound to 127.0.0.1 shows in `Host`, a page of another site in `Origin` or
    `Sec-Fetch-Site`, and a proxy on this machine that serves others in what it says of them.
    """
    client = scope.get("client")
    if client and not _is_loopback(client[0]):
        _deny_remote()
    origin = tuple([one for one in scope["headers"] if one[0] in LOCAL_HEADERS])
    if sum(map(len, map(itemgetter(1), origin))) <= KEPT_CHARACTERS_MAX:
        _check_origin_again(origin)
    else:
        _check_origin(origin)


def _deny_remote() -> None:
    _deny(
        "Without an API key only this machine is served; `batchbell keys create` makes one.",
        Code.REMOTE_NOT_ALLOWED,
    )


Origin = tuple[tuple[bytes, bytes], ...]
"""Those of LOCAL_HEADERS that came, and their values."""


@lru_cache(HEADERS_KEPT_MAX)
def _check_origin_again(origin: Origin) -> None:
    """The same, kept: most callers send the same again. What is refused is not kept."""
    _check_origin(origin)


def _check_origin(origin: Origin) -> None:
    """What the headers of a call say of where it comes from. Raises AccessDenied."""
    given = _given(origin)
    if not _is_direct(given):
        _deny_remote()
    hosts = given.get(b"host", ())
    if not hosts or any(_host_name(f"//{host}") not in OWN_NAMES for host in hosts):
        _deny(
            "Without an API key the Host header must be localhost, 127.0.0.1 or [::1], not"
            f" {', '.join(map(repr, hosts))[:100] or 'missing'}; `batchbell keys create` makes a"
            " key, and lifts this.",
            Code.HOST_NOT_ALLOWED,
        )
    pages = [_host_name(page) for page in given.get(b"origin", ())]
    sites = {site.strip().lower() for site in given.get(b"sec-fetch-site", ())}
    if any(page not in OWN_NAMES for page in pages) or not sites <= OWN_SITES:
        _deny(
            "Without an API key a web page of another site may not call this server, nor lead"
            " to it.",
            Code.ORIGIN_NOT_ALLOWED,
        )


LOCAL_HEADERS = frozenset({b"host", b"origin", b"sec-fetch-site", b"forwarded", *FORWARDED_FOR})
Given = Mapping[bytes, Sequence[str]]
"""Some headers, by name."""


def _given(origin: Origin) -> Given:
    given: dict[bytes, list[str]] = {}
    for name, value in origin:
        given.setdefault(name, []).append(value.decode("latin-1"))
    return given


def _deny(message: str, code: Code) -> None:
    raise AccessDenied(message, code=code, status=403)


def _values(scope: Scope, name: bytes) -> Iterable[str]:
    return (value.decode("latin-1") for key, value in scope["headers"] if key == name)


def _is_direct(given: Given) -> bool:
    """Whether no proxy says that it asks for somebody on another machine."""
    named = [
        word.strip()
        for name in FORWARDED_FOR
        for value in given.get(name, ())
        for word in value.split(",")
    ]
    return all(map(_is_loopback, named)) and b"forwarded" not in given


def _host_name(url: str) -> str | None:
    return _read_host_name(url) if len(url) <= KEPT_CHARACTERS_MAX else None


@lru_cache(HEADERS_KEPT_MAX)
def _read_host_name(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return None if "@" in parts.netloc else parts.hostname


def _network(scope: Scope) -> str:
    """Where a caller is: an address, or the /64 that one IPv6 host has to itself."""
    client = scope.get("client")
    if not client:
        return ""
    try:
        address = ip_address(client[0])
    except ValueError:
        return str(client[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ip_network((address, 64), strict=False))
    return str(address)


def _is_loopback(address: str) -> bool:
    return len(address) <= KEPT_CHARACTERS_MAX and _read_is_loopback(address)


@lru_cache(HEADERS_KEPT_MAX)
def _read_is_loopback(address: str) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return (mapped or parsed).is_loopback
