"""Passing a call on to a provider, and its answer back, as they come: nothing is held in memory.

Whoever sends too fast waits until the other side has taken what it was given. As for our own
calls, no redirect is followed, no proxy is taken from the environment, and TLS is verified; what
is packed stays packed. A call lasts as long as it moves: silence ends it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Self, TypeGuard

import aiohttp
from yarl import URL

from batchbell.core.errors import AddressRefused, InvalidRequest, ProviderUnavailable
from batchbell.core.twins import NOT_ANSWERED, NOT_REACHED
from batchbell.net.faults import fault_of
from batchbell.net.guard import AddressRules
from batchbell.net.headers import Header, backward, without_credentials
from batchbell.net.hops import HOPS_MAX, REDIRECTS, Hop, next_hop
from batchbell.net.pace import Pace
from batchbell.net.proxy import Proxy
from batchbell.net.sessions import provider_session

ANSWER_SECONDS = 600.0
"""How long a provider may take a call in, or think about it, without a sign: as OpenAI's SDKs."""
STALL_SECONDS = 60.0
"""How long a body may stand still, on its way in or back."""
WHOLE_MAX_BYTES = 16 * 2**20

UNASKED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What aiohttp would send of its own."""


class Reply:
    """A provider's answer, of which the head has come. Close it, or its connection stays open."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        *,
        stall_seconds: float,
        prefixes: tuple[bytes, ...] = (),
    ) -> None:
        self.status = response.status
        self.headers = backward(response.raw_headers, prefixes)
        self._response = response
        self._stall_seconds = stall_seconds

    def close(self) -> None:
        """Let go. Of an answer that was not read to its end, the rest is not waited for."""
        self._response.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ProviderUnavailable where it ends before its end."""
        body = self._response.content.iter_any()
        pace = Pace(stall_seconds=self._stall_seconds)
        now = asyncio.get_running_loop().time
        while True:
            begun = now()
            try:
                async with asyncio.timeout(pace.seconds()):
                    chunk = await anext(body)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                message = f"The provider {pace.reason()}."
                raise ProviderUnavailable(message, code=NOT_ANSWERED) from error
            except (aiohttp.ClientError, OSError) as error:
                message = "The provider's answer was cut off."
                raise ProviderUnavailable(message, code=NOT_ANSWERED) from error
            pace.moved(len(chunk), waited_seconds=now() - begun)
            yield chunk

    async def read(self, *, most: int = WHOLE_MAX_BYTES) -> bytes:
        """All of the body. Raises ProviderUnavailable for one that is longer or cut off."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > most:
                message = f"The provider's answer is larger than {most} bytes."
                raise ProviderUnavailable(message, code=NOT_ANSWERED)
        return bytes(body)

    @property
    def packing(self) -> str:
        """How the body is packed; empty where it is not."""
        said = (value for name, value in self.headers if name == b"content-encoding")
        words = b",".join(said).decode("latin-1").lower().split(",")
        return ",".join(word for word in map(str.strip, words) if word not in ("", "identity"))


def unpacked(body: bytes, packing: str, *, most: int = WHOLE_MAX_BYTES) -> bytes:
    """A body as it was before it was packed. Raises ProviderUnavailable."""
    if not body:
        return body
    deflate = zlib.MAX_WBITS if body[:1] == b"\x78" else -zlib.MAX_WBITS
    wbits = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": deflate}
    if packing not in wbits:
        message = f"The provider packed its answer as {packing[:40]!r}, which nobody asked for."
        raise ProviderUnavailable(message, code=NOT_ANSWERED)
    unpacker = zlib.decompressobj(wbits[packing])
    try:
        plain = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise ProviderUnavailable(
            f"The provider's packed answer is damaged: {error}.", code=NOT_ANSWERED
        ) from None
    if len(plain) > most:
        message = f"The provider's answer is larger than {most} bytes."
        raise ProviderUnavailable(message, code=NOT_ANSWERED)
    if not unpacker.eof:
        raise ProviderUnavailable("The provider's answer was cut off.", code=NOT_ANSWERED)
    return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Onward:
    """A call that is to be passed on. `rules` judge where to; None is a setting's freedom."""

    method: str
    url: str
    headers: Sequence[Header]
    body: bytes | AsyncIterator[bytes] | None = None
    rules: AddressRules | None = None
    follows: bool = False
    """Whether redirects are followed, to storage and without the key: of a file's content only."""
    prefixes: tuple[bytes, ...] = ()
    """How headers of the answer begin that are the provider's own, and for the caller."""


class Relay:
    """Passes calls on. Use it as an async context manager, or `aclose()` it."""

    def __init__(
        self,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        stall_seconds: float = STALL_SECONDS,
        proxy: Proxy | None = None,
    ) -> None:
        self._proxy = proxy
        self._answer_seconds = answer_seconds
        self.stall_seconds = stall_seconds
        self._sessions: dict[tuple[AddressRules | None, bool], aiohttp.ClientSession] = {}
        """By rules (a connection that others once allowed is not used again), and by whether they
        go through the proxy."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; calls that are under way fail."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def send(self, call: Onward) -> Reply:
        """Pass a call on; returns when the head of the answer has come.

        Raises ProviderUnavailable, InvalidRequest for a caller whose body stands still, and
        whatever the body itself raises.
        """
        upload = _Upload(call.body, self.stall_seconds) if _is_stream(call.body) else None
        try:
            async with asyncio.timeout(self._answer_seconds) as limit:
                with upload.prolonging(limit, self._answer_seconds) if upload else nullcontext():
                    response = await self._followed(call, upload or call.body)
        except (aiohttp.ClientError, OSError, AddressRefused, InvalidRequest) as error:
            if upload is not None and upload.failure is not None:
                raise upload.failure from None
            raise self._unavailable(error) from error
        return self._checked(response, call.prefixes)

    async def _followed(self, call: Onward, body: object) -> aiohttp.ClientResponse:
        first, hop = call.url, None  # type: str, Hop | None
        for _ in range(HOPS_MAX):
            response = await self._request(call, body)
            location = response.headers.get("location")
            if not call.follows or response.status not in REDIRECTS or location is None:
                return _shown(response, hop)
            response.close()
            hop = next_hop(hop, first, location)
            headers = call.headers if hop.ours else without_credentials(call.headers)
            call = replace(call, url=hop.url, headers=headers)
        return await self._request(call, body)

    async def _request(self, call: Onward, body: object) -> aiohttp.ClientResponse:
        if call.rules is not None:
            call.rules.check_url(call.url.partition("?")[0], param="base_url")
        url = URL(call.url, encoded=True)
        return await self._session(call.rules, url).request(
            call.method,
            url,
            headers=[(n.decode("latin-1"), v.decode("latin-1")) for n, v in call.headers],
            data=body,
            allow_redirects=False,
        )

    def _session(self, rules: AddressRules | None, url: URL) -> aiohttp.ClientSession:
        """Keeps, follows, unpacks and adds nothing; as many calls at once as there are callers."""
        proxy = self._proxy if self._proxy and self._proxy.serves(url.host or "") else None
        known = self._sessions.get((rules, proxy is not None))
        if known is None:
            known = self._sessions[rules, proxy is not None] = provider_session(
                rules, proxy=proxy, limit=0, skip_auto_headers=UNASKED, auto_decompress=False
            )
        return known

    def _checked(self, response: aiohttp.ClientResponse, prefixes: tuple[bytes, ...]) -> Reply:
        """A redirect would have the caller send the body, or its key, somewhere else."""
        if response.status in REDIRECTS:
            response.close()
            raise ProviderUnavailable(
                f"The provider redirects ({response.status}): is the base URL right?",
                code=NOT_REACHED,
            )
        return Reply(response, stall_seconds=self.stall_seconds, prefixes=prefixes)

    def _unavailable(self, error: Exception) -> ProviderUnavailable:
        never = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
        refused = isinstance(error, (*never, AddressRefused, InvalidRequest))
        return ProviderUnavailable(
            fault_of(error, timeout_seconds=self._answer_seconds)[1],
            code=NOT_REACHED if refused else NOT_ANSWERED,
        )


def _shown(response: aiohttp.ClientResponse, hop: Hop | None) -> aiohttp.ClientResponse:
    """Storage that refuses a signed URL may quote it: its answer is not passed on."""
    if hop is None or hop.ours or response.status < 400:
        return response
    response.close()
    raise ProviderUnavailable(
        f"The provider keeps this file in another place, which answered {response.status}.",
        code=NOT_ANSWERED,
    )


async def moving(source: AsyncIterator[bytes], *, stall_seconds: float) -> AsyncIterator[bytes]:
    """A caller's body. Raises InvalidRequest (408) where it stands still."""
    while True:
        try:
            async with asyncio.timeout(stall_seconds):
                chunk = await anext(source)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise InvalidRequest(
                f"The body stood still for {stall_seconds:g} s.", code="body_stalled", status=408
            ) from None
        yield chunk


class _Upload:
    """A caller's body on its way. `failure` keeps what went wrong on the caller's side."""

    def __init__(self, source: AsyncIterator[bytes], stall_seconds: float) -> None:
        self.failure: Exception | None = None
        self._source = moving(source, stall_seconds=stall_seconds)
        self._moved: Callable[[], None] | None = None

    @contextmanager
    def prolonging(self, limit: asyncio.Timeout, seconds: float) -> Iterator[None]:
        """While in the context, let each chunk that is taken move the limit ahead."""
        now = asyncio.get_running_loop().time
        self._moved = lambda: limit.reschedule(now() + seconds)
        try:
            yield
        finally:
            self._moved = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._source:
                if self._moved is not None:
                    self._moved()
                yield chunk
        except Exception as error:
            self.failure = error
            raise


def _is_stream(body: bytes | AsyncIterator[bytes] | None) -> TypeGuard[AsyncIterator[bytes]]:
    return isinstance(body, AsyncIterator)
