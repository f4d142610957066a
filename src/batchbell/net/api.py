"""The client that calls providers: where the operator pointed it, or whoever added an account.

A base URL that is a setting is no stranger's wish, and is not judged; one that came by API is, by
the rules for webhooks. As for receivers, no redirect is followed, no proxy is taken from the
environment, TLS is verified, and every call has an end on the wall clock and a cap on what is
read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from batchbell.core.errors import (
    AddressRefused,
    InvalidRequest,
    ProviderUnavailable,
    SettingsError,
)
from batchbell.net.client import vetted_connector
from batchbell.net.faults import CONNECT_TIMEOUT_SECONDS, fault_of
from batchbell.net.guard import AddressRules
from batchbell.net.names import SystemNames

TIMEOUT_SECONDS = 30.0
STALL_SECONDS = 60.0
"""A stream may take as long as it likes, but not fall silent for longer than this."""
BODY_MAX_BYTES = 64 * 2**20
REFUSAL_MAX_BYTES = 64 * 2**10

UPLOAD_SILENCE = aiohttp.ClientTimeout(
    total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=1800.0
)
"""aiohttp counts the silence of the answer from the first byte that is sent."""

Reply = tuple[int, Mapping[str, str], bytes]
"""Status, headers (whatever their case) and body."""


class ApiClient:
    """Calls one provider's API under `base_url`, with `headers` on every call.

    A `session` that is handed in stays its owner's to close; without one, `aclose()` closes the
    client's own. Every verb raises ProviderUnavailable where there is no whole HTTP answer, and
    leaves it to the caller what a status means. Paths are taken as they are: whoever puts an id
    into one quotes it first.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        session: aiohttp.ClientSession | None = None,
        rules: AddressRules | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        stall_seconds: float = STALL_SECONDS,
        body_max_bytes: int = BODY_MAX_BYTES,
    ) -> None:
        """Raises SettingsError for a base URL that is none. `rules` are asked before each call."""
        self._base = checked_base(base_url)
        self._rules = rules
        self._headers = dict(headers)
        self._session = session
        self._owns_session = session is None
        self._timeout_seconds = timeout_seconds
        self._stall_seconds = stall_seconds
        self._body_max_bytes = body_max_bytes
        self._silence = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=stall_seconds
        )

    async def aclose(self) -> None:
        """Close the session, unless it was handed in."""
        if self._owns_session and self._session is not None:
            await self._session.close()
            self._session = None

    async def get_json_bytes(self, path: str, params: Mapping[str, str] | None = None) -> Reply:
        """GET; the body is not looked at."""
        return await self._whole("GET", path, params=params)

    async def post(self, path: str, body: bytes | None = None) -> Reply:
        """POST JSON, or nothing. Never repeated, whatever happens."""
        return await self._whole("POST", path, body=body)

    async def delete(self, path: str) -> Reply:
        """DELETE."""
        return await self._whole("DELETE", path)

    async def upload(self, path: str, file: Path, *, name: str, fields: Mapping[str, str]) -> Reply:
        """POST a file as multipart form data, read from the disk as it is sent.

        Never repeated, whatever happens.
        """
        form = aiohttp.FormData(fields)
        with await asyncio.to_thread(file.open, "rb") as content:
            form.add_field("file", content, filename=name, content_type="application/jsonl")
            async with self._call("POST", path, body=form, timeout=UPLOAD_SILENCE) as response:
                return response.status, response.headers, await self._read(response)

    async def stream(
        self, path: str, *, refuse: Callable[[int, Mapping[str, str], bytes], Exception]
    ) -> AsyncIterator[bytes]:
        """The body of a GET as it arrives. Raises what `refuse` makes of any status but 2xx.

        Raises ProviderUnavailable when it stalls or ends before its announced end.
        """
        async with self._call("GET", path, timeout=self._silence) as response:
            if not 200 <= response.status < 300:
                body = await response.content.read(REFUSAL_MAX_BYTES)
                raise refuse(response.status, response.headers, body)
            async for chunk in response.content.iter_any():
                yield chunk

    async def _whole(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        timeout = aiohttp.ClientTimeout(
            total=self._timeout_seconds, sock_connect=CONNECT_TIMEOUT_SECONDS
        )
        async with self._call(method, path, params=params, body=body, timeout=timeout) as response:
            return response.status, response.headers, await self._read(response)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        chunks = bytearray()
        async for chunk in response.content.iter_any():
            chunks += chunk
            if len(chunks) > self._body_max_bytes:
                raise ProviderUnavailable(
                    f"The provider's answer is larger than {self._body_max_bytes} bytes."
                )
        return bytes(chunks)

    @asynccontextmanager
    async def _call(
        self,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout,
        params: Mapping[str, str] | None = None,
        body: bytes | aiohttp.FormData | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        query = f"?{urlencode(params)}" if params else ""
        extra = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
        try:
            if self._rules is not None:
                self._rules.check_url(self._base, param="base_url")
            async with self._opened().request(
                method,
                URL(f"{self._base}{path}{query}", encoded=True),
                headers={**self._headers, **extra},
                data=body,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                yield response
        except (aiohttp.ClientError, OSError, AddressRefused, InvalidRequest) as error:
            raise ProviderUnavailable(self._sentence(error)) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = api_session(self._rules)
        return self._session

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, aiohttp.SocketTimeoutError):
            return f"The provider fell silent for {self._stall_seconds:g} s."
        if isinstance(error, aiohttp.ClientPayloadError):
            return "The provider's answer was cut off."
        return fault_of(error, timeout_seconds=self._timeout_seconds)[1]


def api_session(rules: AddressRules | None = None) -> aiohttp.ClientSession:
    """A session that several ApiClients may share. Needs a running loop.

    With `rules` it connects to addresses only that they allow.
    """
    connector = None if rules is None else vetted_connector(rules, SystemNames())
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    )


def checked_base(base_url: str) -> str:
    """The base URL without a slash at its end. Raises SettingsError for what is none."""
    try:
        url = URL(base_url)
        good = url.scheme in ("http", "https") and url.host and "@" not in url.raw_authority
    except ValueError:
        good = False
    if not good or "?" in base_url or "#" in base_url:
        raise SettingsError(
            f"{base_url!r} is no base URL of a provider's API such as https://api.openai.com/v1."
        )
    return str(url).rstrip("/")
