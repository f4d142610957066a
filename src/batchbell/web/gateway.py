"""The gateway: what the provider is to answer, passed on under an account's credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import msgspec
from fastapi import Request
from starlette.responses import Response

from batchbell.core.model import Account, Batch
from batchbell.net.headers import HARMLESS, Header, onward
from batchbell.net.relay import Onward, Reply
from batchbell.providers.registry import auth_headers
from batchbell.storage import uploads
from batchbell.web.calling import Call
from batchbell.web.enrolling import api_key_of
from batchbell.web.passing import Inbound, Passed
from batchbell.web.registering import named_account


class _File(msgspec.Struct, gc=False):
    id: str


ACCOUNT_HEADER = "bb-account"
"""Names the account in a request. In an answer it says that the provider of that account spoke."""
MASK = b"[key]"
"""Some providers quote the key that they were sent; the caller is not to learn it."""
MASKED_MAX_BYTES = 4 * 2**20
FILE = msgspec.json.Decoder(_File)
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
    return named_account(await call.accounts(), wanted, param=ACCOUNT_HEADER)


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


async def pass_on(
    call: Call,
    request: Request,
    path: str,
    *,
    account: Account | None = None,
    packed: bool = False,
) -> Response:
    """Pass the request on to this path of the account's provider, and the answer back.

    By default the account is the one that the request names. The call to the provider ends when
    the caller leaves. Only where it may be `packed` does the answer come as the caller would like
    it.
    """
    account = account or await account_for(call, request)
    key = await api_key_of(call.context, account)
    inbound = Inbound(request)
    inbound.nothing()
    outward = _outward(call, request, path, account=account, key=key, body=None, packed=packed)
    reply = await inbound.unless_left(call.context.relay.send(outward))
    reply.headers = _masked(reply.headers, key)
    if not packed and _is_text(reply):
        return (await _whole(reply, account, key)).response()
    more = [_spoken_by(account), *HARMLESS]
    if packed:
        reply.headers = _attached(reply.headers)
    return Passed(reply, more)


async def upload(call: Call, request: Request, path: str) -> Response:
    """Pass a form with a file on to the account that the request names, or the default.

    Where it is named, Batchbell knows from then on which account has the file. Raises
    InvalidRequest.
    """
    account = await account_for(call, request)
    inbound = Inbound(request)
    key = await api_key_of(call.context, account)
    outward = _outward(call, request, path, account=account, key=key, body=inbound.chunks())
    reply = await inbound.unless_left(call.context.relay.send(outward))
    told = await _whole(reply, account, key)
    if ACCOUNT_HEADER in request.headers and told.is_good:
        await _remember(call, told, account)
    return told.response()


async def _remember(call: Call, told: Whole, account: Account) -> None:
    try:
        id = FILE.decode(told.body).id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    store, now = call.context.store, call.context.clock()
    await store.write(uploads.remember, call.project_id, id, account_id=account.id, now=now)


async def ask(
    call: Call, request: Request, path: str, *, account: Account, body: bytes | None = None
) -> Whole:
    """As `pass_on`, to the end of a short answer, whether or not the caller still waits for it."""
    key = await api_key_of(call.context, account)
    outward = _outward(call, request, path, account=account, key=key, body=body)
    return await _whole(await call.context.relay.send(outward), account, key)


async def _whole(reply: Reply, account: Account, key: str) -> Whole:
    try:
        told = await reply.read()
    finally:
        reply.close()
    told = told.replace(key.strip().encode(), MASK)
    headers = _masked(reply.headers, key)
    return Whole(reply.status, [*headers, _spoken_by(account), *HARMLESS], told)


def _masked(headers: Iterable[Header], key: str) -> list[Header]:
    secret = key.strip().encode()
    return [(name, value.replace(secret, MASK)) for name, value in headers]


def _is_text(reply: Reply) -> bool:
    """Whether the answer is short text, in which a key could stand."""
    said = dict(reply.headers)
    size = said.get(b"content-length", b"0")
    kind = said.get(b"content-type", b"application/json").lower()
    short = size.isdigit() and int(size[:18]) <= MASKED_MAX_BYTES
    return short and (b"json" in kind or kind.startswith(b"text/"))


def _attached(headers: Iterable[Header]) -> list[Header]:
    """As a file to be saved: a browser must not show it as a page of ours."""
    name = b"content-disposition"
    kept = [(n, v) for n, v in headers if n != name]
    own = next((v for n, v in headers if n == name), b"")
    is_safe = own.lower().startswith(b"attachment")
    return [*kept, (name, own if is_safe else b"attachment")]


def _outward(
    call: Call,
    request: Request,
    path: str,
    *,
    account: Account,
    key: str,
    body: bytes | AsyncIterator[bytes] | None,
    packed: bool = False,
) -> Onward:
    query = quote(request.scope["query_string"], safe=QUERY_SAFE)
    dropped = _dropped(body, packed=packed)
    kept = [(name, value) for name, value in onward(request.headers.raw) if name not in dropped]
    plain = [] if packed else [(b"accept-encoding", b"identity")]
    return Onward(
        method=request.method,
        url=f"{account.base_url.rstrip('/')}{path}{'?' if query else ''}{query}",
        headers=[*kept, *plain, *_as_sent(auth_headers(key))],
        body=body,
        rules=None if account.from_environment else call.context.rules(),
        follows=packed and request.method == "GET",
    )


def _dropped(body: object, *, packed: bool) -> set[bytes]:
    """Headers of the caller that are not true of what goes on."""
    dropped = set() if packed else {b"accept-encoding"}
    if body is None:
        dropped |= {b"content-length", b"content-type", b"content-encoding"}
    elif isinstance(body, bytes):
        dropped |= {b"content-length"}
    return dropped


def _as_sent(headers: Mapping[str, str]) -> list[Header]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _spoken_by(account: Account) -> Header:
    return ACCOUNT_HEADER.encode(), account.name.encode()
