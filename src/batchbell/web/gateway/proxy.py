"""Calls that are passed on to a provider under an account's credentials, and what comes back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from batchbell.core.errors import InvalidRequest, ProviderUnavailable, SettingsError
from batchbell.core.model import Account, Batch
from batchbell.net.headers import Header, harmless, onward
from batchbell.net.relay import Onward, Reply, unpacked
from batchbell.providers.protocol import Gateway
from batchbell.providers.registry import ANSWER_PREFIXES, dialect_of, profile_of, takes_submissions
from batchbell.providers.verdicts import SECRET_LEAST_CHARACTERS
from batchbell.storage import uploads
from batchbell.threads import heavy
from batchbell.web.accounts import api_key_of
from batchbell.web.call import Call
from batchbell.web.errors import Code
from batchbell.web.parameters import taken_by
from batchbell.web.watches import named_account

T = TypeVar("T")

log = structlog.get_logger("batchbell.gateway")


class Inbound:
    """A caller's body, and the moment when the caller leaves."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._taken = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ClientDisconnect."""
        async for chunk in self._request.stream():
            if chunk:
                yield chunk
        self._taken.set()

    def nothing(self) -> None:
        """The body is not wanted."""
        self._taken.set()

    async def unless_left(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, or cancel it and raise ClientDisconnect when the caller leaves."""
        doing = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise ClientDisconnect
            return doing.result()
        finally:
            doing.cancel()
            leaving.cancel()
            await asyncio.gather(doing, leaving, return_exceptions=True)

    async def _left(self) -> None:
        await self._taken.wait()
        while (await self._request.receive())["type"] != "http.disconnect":
            pass


class Passed(StreamingResponse):
    """A provider's answer as it comes. The call to the provider ends with the caller's."""

    def __init__(self, reply: Reply, more: list[Header]) -> None:
        super().__init__(reply.chunks(), reply.status)
        self.raw_headers = [*reply.headers, *more]
        self._reply = reply

    async def stream_response(self, send: Send) -> None:
        """An answer that is cut off there is cut off here: nobody must take it for whole."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        try:
            async for chunk in self.body_iterator:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ProviderUnavailable as error:
            log.warning("an answer was cut off", error=error.message)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._reply.close()


ACCOUNT_HEADER = "bb-account"
"""Names the account in a request. In an answer it says that the provider of that account spoke."""
MASK = b"[key]"
"""Some providers quote the key that they were sent; the caller is not to learn it."""
WINDOW_BYTES = 256 * 2**10
READ_HERE_BYTES = 64 * 2**10
"""What is longer is read in a thread: the event loop is everybody's."""
GZIP = re.compile(rb"(?i)\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
QUERY_SAFE = "!#$%&'()*+,/:;=?@[]~-._"


@dataclass(frozen=True, slots=True)
class Whole:
    """A provider's answer that is small enough to be read here."""

    status: int
    headers: list[Header]
    body: bytes

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    def response(
        self, body: bytes | None = None, *, more: Mapping[str, str] | None = None
    ) -> Response:
        """The answer, with its own body or another, and with more headers."""
        sent = self.body if body is None else body
        made = Response(sent, self.status)
        kept = [(name, value) for name, value in self.headers if name != b"content-length"]
        added = [(name.encode(), value.encode()) for name, value in (more or {}).items()]
        kept = [(name, value) for name, value in kept if name not in dict(added)]
        made.raw_headers = [*kept, *added, (b"content-length", str(len(sent)).encode())]
        return made


async def account_for(call: Call, request: Request) -> Account:
    """The account that the request names, or the default. Raises InvalidRequest."""
    wanted = request.headers.get(ACCOUNT_HEADER)
    return named_account(await call.accounts(), wanted, param=ACCOUNT_HEADER, fits=can_pass)


async def account_of(call: Call, batch: Batch) -> Account | None:
    """The account that a batch is in, if it can be called."""
    accounts = await call.accounts()
    return next((one for one in accounts.values() if one.id == batch.account_id), None)


async def account_of_file(call: Call, request: Request, file_id: object) -> Account:
    """The account that the request names, else the one that has the file, else the default.

    Raises InvalidRequest.
    """
    accounts = await call.accounts()
    if ACCOUNT_HEADER not in request.headers and len(accounts) > 1 and isinstance(file_id, str):
        id = await call.context.store.read(uploads.account_of, call.project_id, file_id)
        for account in accounts.values():
            if account.id == id:
                return account
    return await account_for(call, request)


Route = Callable[[Gateway], str] | str
"""Which path of a provider's API a call goes on to: the path, or what finds it."""


def gateway_of(account: Account) -> Gateway:
    """How calls are passed on to an account's provider. Raises InvalidRequest if they are not."""
    try:
        gateway = dialect_of(account).gateway
    except SettingsError as error:
        raise InvalidRequest(str(error), code=Code.NO_ACCOUNT) from error
    if gateway is None:
        other = (
            " Submit the requests with POST /v1/submissions, or name another"
            if takes_submissions(account)
            else " Name another"
        )
        raise InvalidRequest(
            f"Account {account.name!r} is at {profile_of(account).title}, which does not take calls"
            f" of OpenAI's SDKs.{other} account with the header {ACCOUNT_HEADER}.",
            param=ACCOUNT_HEADER,
            code=Code.NO_GATEWAY,
        )
    return gateway


def can_pass(account: Account) -> bool:
    """Whether calls are passed on to an account's provider."""
    try:
        return dialect_of(account).gateway is not None
    except SettingsError:
        return False


async def pass_on(
    call: Call,
    request: Request,
    route: Route,
    *,
    account: Account | None = None,
    packed: bool = False,
) -> Response:
    """Pass the request on to the account's provider, and the answer back.

    By default the account is the one that the request names. The call to the provider ends when
    the caller leaves. Only a file, which may be `packed`, is passed on as it comes; all else is
    read here first, unpacked, and without the key.
    """
    account = account or await account_for(call, request)
    key = await api_key_of(call.context, account)
    inbound = Inbound(request)
    inbound.nothing()
    outward = _outward(call, request, route, account=account, key=key, body=None, packed=packed)
    reply = await inbound.unless_left(call.context.relay.send(outward))
    if not packed or reply.status >= 400:
        return (await _whole(call, reply, account, key)).response()
    reply.headers = harmless(_masked(reply.headers, _forms(key)), is_file=True)
    return Passed(reply, [_spoken_by(account)])


async def upload(call: Call, request: Request) -> Response:
    """Pass a form with a file on to the account that the request names, or the default.

    Where it is named, Batchbell knows from then on which account has the file. Raises
    InvalidRequest, and StoreUnavailable before anything is sent where that cannot be noted.
    """
    account = await account_for(call, request)
    if ACCOUNT_HEADER not in request.headers:
        return (await send_up(call, request, _files, account=account)).response()
    file_id_in = gateway_of(account).file_id_in
    store, token = call.context.store, call.context.mint("upl")
    about: dict[str, Any] = {"account_id": account.id, "now": call.context.clock()}
    await store.write(uploads.expect, call.project_id, token, **about)
    id: str | None = None
    try:
        reply = await send_up(call, request, _files, account=account)
        id = await read(call, file_id_in, reply.body) if reply.is_good else None
    finally:
        await store.write(uploads.remember, call.project_id, token, file_id=id, **about)
    return reply.response()


async def send_up(call: Call, request: Request, route: Route, *, account: Account) -> Whole:
    """As `ask`, with the caller's body as it comes. It ends when the caller leaves."""
    inbound = Inbound(request)
    key = await api_key_of(call.context, account)
    outward = _outward(call, request, route, account=account, key=key, body=inbound.chunks())
    reply = await inbound.unless_left(call.context.relay.send(outward))
    return await _whole(call, reply, account, key)


def _files(gateway: Gateway) -> str:
    return gateway.files()


async def ask(
    call: Call,
    request: Request,
    route: Route,
    *,
    account: Account,
    body: bytes | AsyncIterator[bytes] | None = None,
    length: int | None = None,
    method: str | None = None,
) -> Whole:
    """As `pass_on`, to the end of a short answer, whether or not the caller still waits for it.

    `length` is that of a body which is not the caller's own.
    """
    key = await api_key_of(call.context, account)
    outward = _outward(call, request, route, account=account, key=key, body=body, length=length)
    if method is not None:
        outward = replace(outward, method=method)
    return await _whole(call, await call.context.relay.send(outward), account, key)


async def read(call: Call, work: Callable[[bytes], T], body: bytes) -> T:
    """What `work` makes of a provider's answer: a long one in a thread, when it is our turn."""
    if len(body) <= READ_HERE_BYTES:
        return work(body)
    return await heavy(call.project_id, work, body)


async def _whole(call: Call, reply: Reply, account: Account, key: str) -> Whole:
    forms = _forms(key)

    def plain(body: bytes) -> bytes:
        return masked(unpacked(body, packing) if (packing := reply.packing) else body, forms)

    try:
        body = await read(call, plain, await reply.read())
    finally:
        reply.close()
    headers = [header for header in reply.headers if header[0] != b"content-encoding"]
    safe = harmless(_masked(headers, forms), is_file=False)
    return Whole(reply.status, [*safe, _spoken_by(account)], body)


def _forms(key: str) -> list[bytes]:
    """The key as an answer may quote it: as it is, in JSON, and in a URL."""
    secret = key.strip()
    if len(secret) < SECRET_LEAST_CHARACTERS:
        return []
    in_json = msgspec.json.encode(secret)[1:-1].decode()
    found = {secret, in_json, in_json.replace("/", r"\/"), quote(secret), quote(secret, safe="")}
    return sorted((form.encode() for form in found), key=len, reverse=True)


def masked(body: bytes, forms: Sequence[bytes]) -> bytes:
    """The body without the key, in any of its forms."""
    for form in forms:
        if _holds(body, form):
            body = body.replace(form, MASK)
    return body


def _holds(body: bytes, form: bytes) -> bool:
    """Looked through in steps: other threads stand still during each."""
    starts = range(0, len(body), WINDOW_BYTES)
    return any(body.find(form, at, at + WINDOW_BYTES + len(form) - 1) >= 0 for at in starts)


def _masked(headers: Iterable[Header], forms: Sequence[bytes]) -> list[Header]:
    return [(name, masked(value, forms)) for name, value in headers]


def _outward(
    call: Call,
    request: Request,
    route: Route,
    *,
    account: Account,
    key: str,
    body: bytes | AsyncIterator[bytes] | None,
    length: int | None = None,
    packed: bool = False,
) -> Onward:
    path = route if isinstance(route, str) else route(gateway_of(account))
    profile = profile_of(account)
    query = quote(_for_provider(request), safe=QUERY_SAFE)
    own = _as_sent({**profile.headers, **profile.credentials(key)})
    if length is not None:
        own.append((b"content-length", str(length).encode()))
    dropped = _dropped(body) | {name for name, _ in own}
    kept = [(name, value) for name, value in onward(request.headers.raw) if name not in dropped]
    return Onward(
        method=request.method,
        url=f"{account.base_url.rstrip('/')}{path}{'?' if query else ''}{query}",
        headers=[*kept, _packing(request, packed=packed), *own],
        body=body,
        rules=None if account.from_environment else call.context.rules(),
        follows=packed and request.method == "GET",
        prefixes=ANSWER_PREFIXES,
    )


def _for_provider(request: Request) -> bytes:
    """The query as it was sent, without what our own route takes."""
    query: bytes = request.scope["query_string"]
    ours = {name.encode() for name in taken_by(request.scope["route"]).names}
    kept = [one for one in query.split(b"&") if one.partition(b"=")[0] not in ours]
    return b"&".join(kept)


def _packing(request: Request, *, packed: bool) -> Header:
    """An error must be read here, so no other packing than gzip is asked for."""
    wanted = request.headers.get("accept-encoding", "").encode("latin-1")
    gzip = packed and GZIP.search(wanted) is not None
    return b"accept-encoding", b"gzip" if gzip else b"identity"


def _dropped(body: object) -> set[bytes]:
    """Headers of the caller that are not true of what goes on."""
    dropped = {b"accept-encoding"}
    if body is None:
        dropped |= {b"content-length", b"content-type", b"content-encoding"}
    elif isinstance(body, bytes):
        dropped |= {b"content-length"}
    return dropped


def _as_sent(headers: Mapping[str, str]) -> list[Header]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _spoken_by(account: Account) -> Header:
    return ACCOUNT_HEADER.encode(), account.name.encode()
