"""The client that calls providers: where the operator pointed it, or whoever added an account.

A base URL that is a setting is no stranger's word, and is not judged; one that came by API is, by
the rules for webhooks. As for receivers, no redirect is followed, no proxy is taken from the
environment, TLS is verified, and every call has an end on the wall clock or a least pace, and a cap
on what is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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
from batchbell.core.results import Arrived
from batchbell.core.twins import NOT_ANSWERED, NOT_REACHED
from batchbell.net.download import Body, Download
from batchbell.net.faults import CONNECT_TIMEOUT_SECONDS, fault_of
from batchbell.net.form import FileBody, FileForm
from batchbell.net.guard import AddressRules
from batchbell.net.hops import HOPS_MAX, REDIRECTS, Hop, next_hop
from batchbell.net.pace import Pace
from batchbell.net.proxy import Proxy
from batchbell.net.sessions import CONNECT_ONLY, provider_session
from batchbell.threads import disk

TIMEOUT_SECONDS = 30.0
CREATE_SECONDS = 600.0
"""For calls that create something: as long as OpenAI's SDKs wait."""
STALL_SECONDS = 60.0
"""A body may take long, but not stand still for longer than this."""
BODY_MAX_BYTES = 64 * 2**20

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
        proxy: Proxy | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        stall_seconds: float = STALL_SECONDS,
        body_max_bytes: int = BODY_MAX_BYTES,
    ) -> None:
        """Raises SettingsError for a base URL that is none.

        `rules` are asked before each call. Calls go through `proxy` where it serves the host.
        """
        self._base = checked_base(base_url)
        self._rules = rules
        self._proxy = proxy if proxy and proxy.serves(URL(self._base).host or "") else None
        self._headers = dict(headers)
        self._sign: Callable[[], Awaitable[Mapping[str, str]]] | None = None
        self._session = session
        self._owns_session = session is None
        self._closed = False
        self._timeout_seconds = timeout_seconds
        self._stall_seconds = stall_seconds
        self._body_max_bytes = body_max_bytes

    def sign(self, headers: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        """Send these headers too, asked for anew at each call."""
        self._sign = headers

    async def aclose(self) -> None:
        """End this client for good; its session is closed, unless it was handed in.

        Calls that are made afterwards raise ProviderUnavailable.
        """
        self._closed = True
        if self._owns_session and self._session is not None:
            await self._session.close()

    async def get_json_bytes(self, path: str, params: Mapping[str, str] | None = None) -> Reply:
        """GET; the body is not looked at."""
        return await self._whole("GET", path, params=params)

    async def post(
        self,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Reply:
        """POST JSON, or nothing. Never repeated, whatever happens.

        `timeout_seconds` replaces the client's own limit for this call: CREATE_SECONDS for calls
        that create something.
        """
        return await self._whole(
            "POST", path, body=body, headers=headers, timeout_seconds=timeout_seconds
        )

    async def delete(self, path: str) -> Reply:
        """DELETE."""
        return await self._whole("DELETE", path)

    async def upload(
        self,
        path: str,
        file: Path,
        *,
        name: str,
        fields: Mapping[str, str],
        timeout_seconds: float = CREATE_SECONDS,
    ) -> Reply:
        """POST a file as multipart form data, read from the disk as it is sent.

        The upload must keep moving (`Pace`). Once all of it is sent, the provider has
        `timeout_seconds` to answer. Never repeated, whatever happens.
        """
        with await disk(file.open, "rb") as content:
            form = FileForm(content, name=name, fields=fields)
            return await self._send(path, form, answer_seconds=timeout_seconds)

    async def post_file(
        self,
        path: str,
        file: Path,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = CREATE_SECONDS,
    ) -> Reply:
        """POST a file of JSON, or of what `headers` say, as `upload` does.

        `path` may be a whole URL, as `download` takes it.
        """
        with await disk(file.open, "rb") as content:
            body = FileBody(content, content_type="application/json")
            body.headers |= headers or {}
            return await self._send(path, body, answer_seconds=timeout_seconds)

    async def _send(self, path: str, content: FileBody, *, answer_seconds: float) -> Reply:
        upload = _Upload(content, self._stall_seconds, answer_seconds=answer_seconds)
        _, hop = self._named(path)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS + self._stall_seconds) as limit:
                body = upload.body(limit)
                async with self._call(
                    "POST", path, body=body, headers=content.headers, hop=hop, timeout=CONNECT_ONLY
                ) as response:
                    return response.status, response.headers, await self._read(response)
        except TimeoutError:
            raise ProviderUnavailable(upload.reason()) from None

    async def download(
        self,
        path: str,
        target: Path,
        *,
        refuse: Callable[[int, Mapping[str, str], bytes], Exception],
        most_bytes: int,
        plain: bool = False,
    ) -> Arrived:
        """Fetch the body of a GET to a file, over several calls where one is cut off.

        `path` may be a whole URL, as providers give for results: it counts as a redirect. Redirects
        to storage are followed, without our credentials on another host. Raises what
        `refuse` makes of a bad status, and ProviderUnavailable for all else.
        """

        def open(headers: Mapping[str, str], pace: Pace) -> AbstractAsyncContextManager[Body]:
            return self._body(path, headers, pace)

        return await Download(
            open,
            target,
            refuse=refuse,
            most_bytes=most_bytes,
            plain=plain,
            stall_seconds=self._stall_seconds,
        ).run()

    @asynccontextmanager
    async def _body(self, path: str, headers: Mapping[str, str], pace: Pace) -> AsyncIterator[Body]:
        """A GET that follows redirects. What begins like a URL is one from the start."""
        first, hop = self._named(path)
        for _ in range(HOPS_MAX + 1):
            async with self._call(
                "GET",
                path,
                headers=headers,
                hop=hop,
                packed=True,
                timeout=CONNECT_ONLY,
                head_seconds=self._stall_seconds,
            ) as response:
                location = response.headers.get("location")
                if response.status not in REDIRECTS or location is None:
                    chunks = _paced(response, pace)
                    foreign = hop is not None and not hop.ours
                    if foreign and response.status >= 400:
                        chunks = _nothing()  # a signed URL may stand in it
                    yield Body(response.status, response.headers, chunks)
                    return
                hop = next_hop(hop, first, location)
        raise ProviderUnavailable(f"The provider redirects more than {HOPS_MAX} times.")

    def _named(self, path: str) -> tuple[str, Hop | None]:
        """The URL of the API that counts as called first, and where a whole URL leads from it."""
        if path.lower().startswith(("http://", "https://")):
            first = f"{self._base}/"
            return first, next_hop(None, first, path)
        return f"{self._base}{path}", None

    async def _whole(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Reply:
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT_SECONDS)
        async with self._call(
            method, path, params=params, body=body, headers=headers, timeout=timeout
        ) as response:
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
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] | None = None,
        head_seconds: float | None = None,
        hop: Hop | None = None,
        packed: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """`hop` is where a redirect leads, in place of the path; `packed` leaves bodies so."""
        query = f"?{urlencode(params)}" if params else ""
        extra = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
        extra |= headers or {}
        own = dict(self._headers) if hop is None or hop.ours else {}
        if own and self._sign is not None:
            own |= await self._sign()
        where = f"{self._base}{path}{query}" if hop is None else hop.url
        try:
            if self._rules is not None:
                at = self._base if hop is None else hop.shown
                self._rules.check_url(at, param="base_url")
            async with asyncio.timeout(head_seconds):
                response = await self._opened().request(
                    method,
                    URL(where, encoded=True),
                    headers={**own, **extra},
                    data=body,
                    timeout=timeout,
                    allow_redirects=False,
                    auto_decompress=not packed,
                )
            async with response:
                yield response
        except (aiohttp.ClientError, OSError, AddressRefused, InvalidRequest) as error:
            never = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
            refused = isinstance(error, (*never, AddressRefused, InvalidRequest))
            raise ProviderUnavailable(
                self._sentence(error, timeout), code=NOT_REACHED if refused else NOT_ANSWERED
            ) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ProviderUnavailable("This client is closed: its account was removed.")
        if self._session is None:
            self._session = provider_session(self._rules, proxy=self._proxy)
        return self._session

    def _sentence(self, error: Exception, timeout: aiohttp.ClientTimeout) -> str:
        if isinstance(error, aiohttp.SocketTimeoutError):
            return f"The provider fell silent for {self._stall_seconds:g} s."
        if isinstance(error, aiohttp.ClientPayloadError):
            return "The provider's answer was cut off."
        return fault_of(error, timeout_seconds=timeout.total or self._stall_seconds)[1]


class _Upload:
    """A file on its way: it must move, and be answered within a time of its own."""

    def __init__(self, content: FileBody, stall_seconds: float, *, answer_seconds: float) -> None:
        self._content = content
        self._pace = Pace(stall_seconds=stall_seconds)
        self._answer_seconds = answer_seconds
        self._sent = False

    async def body(self, limit: asyncio.Timeout) -> AsyncIterator[bytes]:
        """The file; each piece that is taken moves the limit ahead."""
        now = asyncio.get_running_loop().time
        async for piece in self._content.pieces():
            begun = now()
            limit.reschedule(begun + self._pace.seconds())
            yield piece
            self._pace.moved(len(piece), waited_seconds=now() - begun)
        self._sent = True
        limit.reschedule(now() + self._answer_seconds)

    def reason(self) -> str:
        """Why it was given up."""
        if self._sent:
            return f"No answer within {self._answer_seconds:g} s."
        return f"The upload {self._pace.reason()}."


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _paced(response: aiohttp.ClientResponse, pace: Pace) -> AsyncIterator[bytes]:
    now = asyncio.get_running_loop().time
    pieces = response.content.iter_any()
    while True:
        begun = now()
        try:
            async with asyncio.timeout(pace.seconds()):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            reason = pace.reason()
            pace.moved(0, waited_seconds=now() - begun)  # it counts for the calls that follow
            raise ProviderUnavailable(f"The provider {reason}.") from None
        except (aiohttp.ClientError, OSError):
            if last := _buffered(response.content):
                pace.moved(len(last), waited_seconds=now() - begun)
                yield last
            raise
        pace.moved(len(piece), waited_seconds=now() - begun)
        yield piece


def _buffered(content: aiohttp.StreamReader) -> bytes:
    """What had arrived before the body was cut off.

    aiohttp raises the error before it hands out what it holds, up to 128 KiB. Where a body is cut
    off after less than that each time, a download would never get on.
    """
    content.set_exception(None)  # type: ignore[arg-type]  # nothing else makes it readable again
    return content.read_nowait()


def checked_base(base_url: str) -> str:
    """The base URL without a slash at its end. Raises SettingsError for what is none."""
    try:
        url = URL(base_url)
        good = url.scheme in ("http", "https") and url.host
        if "@" in url.raw_authority:
            raise SettingsError(
                "A base URL holds no user name and no password, so this is no base URL. Give the"
                " API key by itself."
            )
    except ValueError:
        good = False
    if not good or "?" in base_url or "#" in base_url:
        raise SettingsError(
            f"{base_url!r} is no base URL of a provider's API such as https://api.example.com/v1."
        )
    return str(url).rstrip("/")
