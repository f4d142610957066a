"""The webhook sender against receivers that do not behave: the status decides, nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
import trustme
from aiohttp import AddrInfoType
from hypothesis import given, settings
from hypothesis import strategies as st

from batchbell.core.errors import AddressRefused
from batchbell.core.outcome import Fault, Outcome
from batchbell.net.answers import BODY_MAX_BYTES
from batchbell.net.client import WebhookSender, vetted_sockets
from batchbell.net.guard import AddressRules
from tests.net.raw_receivers import Handler, Receive, answering, read_request

LOCAL = AddressRules(allow_http=True, allow_loopback=True)
OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
SOON = 0.3
"""Seconds until the wall clock ends a call that would never end."""


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    async with WebhookSender(lambda: LOCAL) as sender:
        yield sender


async def send(sender: WebhookSender, url: str, *, timeout_seconds: float = 10.0) -> Outcome:
    return await sender.send(url, headers={}, body=b"{}", timeout_seconds=timeout_seconds)


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: linger for no time at all."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def drip(writer: asyncio.StreamWriter, byte: bytes) -> None:
    while not writer.is_closing():
        writer.write(byte)
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_one_that_hangs_is_a_timeout(sender: WebhookSender, receive: Receive) -> None:
    receiver = await receive(hang)
    outcome = await send(sender, receiver.url(), timeout_seconds=SOON)
    assert (outcome.status, outcome.fault) == (None, Fault.TIMEOUT)
    assert outcome.detail == "No answer within 0.3 s."


async def test_one_that_drips_its_headers_is_a_timeout(
    sender: WebhookSender, receive: Receive
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK_HEAD + b"X-Drip: ")
        await drip(writer, b"x")

    receiver = await receive(handle)
    outcome = await send(sender, receiver.url(), timeout_seconds=SOON)
    assert (outcome.status, outcome.fault) == (None, Fault.TIMEOUT)


async def test_one_that_only_ever_says_continue_is_a_timeout(
    sender: WebhookSender, receive: Receive
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await drip(writer, b"HTTP/1.1 100 Continue\r\n\r\n")

    receiver = await receive(handle)
    outcome = await send(sender, receiver.url(), timeout_seconds=SOON)
    assert (outcome.status, outcome.fault) == (None, Fault.TIMEOUT)


async def test_one_that_does_not_read_a_large_body_is_a_timeout(
    sender: WebhookSender, receive: Receive
) -> None:
    release = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()

    receiver = await receive(handle)
    outcome = await sender.send(
        receiver.url(), headers={}, body=b"x" * 20_000_000, timeout_seconds=SOON
    )
    assert outcome.fault is Fault.TIMEOUT


async def test_a_2xx_whose_body_stalls_is_a_success(
    sender: WebhookSender, receive: Receive
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK_HEAD + b"Content-Length: 100\r\n\r\nthe beginning")
        await reader.read()

    receiver = await receive(handle)
    outcome = await send(sender, receiver.url(), timeout_seconds=SOON)
    assert (outcome.status, outcome.fault) == (200, None)
    assert outcome.response_body == "the beginning"
    assert outcome.remote_address == "127.0.0.1"


async def test_a_2xx_whose_body_drips_is_a_success(sender: WebhookSender, receive: Receive) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK_HEAD + b"\r\n")
        await drip(writer, b"x")

    receiver = await receive(handle)
    outcome = await send(sender, receiver.url(), timeout_seconds=SOON)
    assert (outcome.status, outcome.fault) == (200, None)
    assert set(str(outcome.response_body)) == {"x"}


async def test_an_endless_body_is_cut_at_the_cap_and_the_connection_closed(
    sender: WebhookSender, receive: Receive
) -> None:
    closed = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK_HEAD + b"\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"y" * 65536)
                await writer.drain()
        closed.set()

    receiver = await receive(handle)
    outcome = await send(sender, receiver.url())
    assert outcome.status == 200
    assert outcome.response_body == "y" * BODY_MAX_BYTES
    await closed.wait()


async def test_a_gzip_bomb_is_not_unpacked(sender: WebhookSender, receive: Receive) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    receiver = await receive(
        answering(
            OK_HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
        )
    )
    outcome = await send(sender, receiver.url())
    assert outcome.status == 200
    assert len(str(outcome.response_body)) < 100
    assert "gzip, not unpacked" in str(outcome.response_body)


async def test_a_reset_before_the_headers_is_a_fault(
    sender: WebhookSender, receive: Receive
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        reset(writer)

    receiver = await receive(handle)
    outcome = await send(sender, receiver.url())
    assert (outcome.status, outcome.fault) == (None, Fault.RESET)


async def test_a_reset_after_the_headers_leaves_the_status(
    sender: WebhookSender, receive: Receive
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await headers_read.wait()
        reset(writer)

    receiver = await receive(handle)
    headers_read = asyncio.Event()
    call = asyncio.create_task(send(sender, receiver.url()))
    # No hook tells when the client has read the headers; a second call on the same loop does.
    await send(sender, (await receive(answering(b"HTTP/1.1 204 No\r\n\r\n"))).url())
    headers_read.set()
    outcome = await call
    assert (outcome.status, outcome.fault) == (500, None)
    assert outcome.response_body == "hello"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"", Fault.RESET),
        (b"HTTP/1.1 200 OK\r\nX-Cut", Fault.RESET),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Fault.PROTOCOL),
        (b"HTTP/1.1 two OK\r\n\r\n", Fault.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 400_000 + b"\r\n\r\n", Fault.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10_000 + b"\r\n", Fault.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", Fault.PROTOCOL),
        (b"\x00" * 200, Fault.PROTOCOL),
    ],
)
async def test_what_is_no_answer_is_a_fault(
    sender: WebhookSender, receive: Receive, answer: bytes, fault: Fault
) -> None:
    receiver = await receive(answering(answer))
    outcome = await send(sender, receiver.url())
    assert (outcome.status, outcome.fault) == (None, fault)
    assert outcome.detail
    assert outcome.detail.isprintable()
    assert len(outcome.detail) <= 300


async def test_a_chunked_body_that_breaks_leaves_the_status(
    sender: WebhookSender, receive: Receive
) -> None:
    receiver = await receive(
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZZ\r\n")
    )
    outcome = await send(sender, receiver.url())
    assert outcome.status == 200 or outcome.fault is Fault.PROTOCOL


async def test_nobody_listening_is_a_fault(sender: WebhookSender) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outcome = await send(sender, f"http://127.0.0.1:{port}/hook?key=secret")
    assert outcome.fault is Fault.CONNECT
    assert "refused" in str(outcome.detail).lower()
    assert "secret" not in str(outcome.detail)


async def test_a_redirect_to_loopback_is_not_followed(
    sender: WebhookSender, receive: Receive
) -> None:
    """Pitfall 7: a 307 that is followed sends the body to another host."""
    inside = await receive(answering(OK_HEAD + b"\r\n"))
    outside = await receive(
        answering(
            b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:%d/admin\r\nContent-Length: 0\r\n\r\n"
            % inside.port
        )
    )
    outcome = await send(sender, outside.url())
    assert outcome.status == 307
    assert outcome.location == f"http://127.0.0.1:{inside.port}/admin"
    assert inside.connections == 0


async def test_a_location_is_cleaned_and_cut(sender: WebhookSender, receive: Receive) -> None:
    location = b"https://e\xc2\x85vil/" + b"x" * 5000
    receiver = await receive(
        answering(b"HTTP/1.1 302 Go\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")
    )
    outcome = await send(sender, receiver.url())
    assert outcome.location is not None
    assert len(outcome.location) == 200
    assert outcome.location.isprintable()


async def test_nothing_that_a_database_refuses_is_kept(
    sender: WebhookSender, receive: Receive
) -> None:
    receiver = await receive(
        answering(
            b"HTTP/1.1 400 Bad\r\nX-Odd: a\xff\xfeb\r\nContent-Length: 6\r\n\r\n"
            b"a\x00\xff\xed\xa0\x80"
        )
    )
    outcome = await send(sender, receiver.url())
    kept = str(outcome.response_body) + outcome.response_headers["x-odd"]
    assert "\x00" not in kept
    kept.encode("utf-8")


async def test_headers_are_few_short_and_without_secrets(
    sender: WebhookSender, receive: Receive
) -> None:
    many = b"".join(b"X-%d: %s\r\n" % (i, b"v" * 2000) for i in range(60))
    receiver = await receive(
        answering(
            b"HTTP/1.1 200 OK\r\nX-Auth-Token: hunter2\r\nX-Api-Key: hunter2\r\n"
            b"WWW-Authenticate: hunter2\r\nX-Echo: Bearer hunter2\r\n"
            + many
            + b"Content-Length: 0\r\n\r\n"
        )
    )
    outcome = await send(sender, receiver.url())
    assert len(outcome.response_headers) == 32
    assert max(len(value) for value in outcome.response_headers.values()) == 500
    assert "hunter2" not in str(outcome.response_headers)


def test_a_socket_is_not_opened_for_an_address_that_is_refused() -> None:
    open_socket = vetted_sockets(AddressRules())
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "10.0.0.1", "fe80::1%lo"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        info: AddrInfoType = (family, socket.SOCK_STREAM, 0, "", (address, 443))
        with pytest.raises(AddressRefused):
            open_socket(info)


@settings(max_examples=60)
@given(st.sampled_from([b"", OK_HEAD, OK_HEAD + b"\r\n", b"HTTP/1.1 "]), st.binary(max_size=400))
def test_no_bytes_make_it_raise(head: bytes, noise: bytes) -> None:
    async def scenario() -> None:
        server = await asyncio.start_server(_once(answering(head + noise)), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, WebhookSender(lambda: LOCAL, tls=TLS) as sender:
            outcome = await send(sender, f"http://127.0.0.1:{port}/", timeout_seconds=5)
        assert (outcome.status is None) == (outcome.fault is not None)

    asyncio.run(scenario())


TLS = ssl.create_default_context()


def _once(handler: Handler) -> Handler:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handler(reader, writer)
        writer.close()

    return serve


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
def trusted(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def server_tls(authority: trustme.CA) -> Iterator[ssl.SSLContext]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hooks.example.com").configure_cert(context)
    return context


async def to_loopback(host: str) -> list[str]:
    return ["127.0.0.1"]


async def test_the_certificate_is_checked_against_the_name_not_the_address(
    receive: Receive, trusted: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    shown: list[str | None] = []
    server_tls.sni_callback = lambda _socket, name, _context: shown.append(name)
    receiver = await receive(answering(OK_HEAD + b"Content-Length: 2\r\n\r\nok"), tls=server_tls)
    async with WebhookSender(lambda: LOCAL, lookup=to_loopback, tls=trusted) as sender:
        good = await send(sender, receiver.url("hooks.example.com", "https"))
        wrong = await send(sender, receiver.url("other.example.com", "https"))
    assert good.status == 200
    assert shown == ["hooks.example.com", "other.example.com"]
    assert wrong.fault is Fault.TLS
    assert "other.example.com" in str(wrong.detail)


async def test_a_certificate_of_an_unknown_authority_is_a_fault(
    receive: Receive, server_tls: ssl.SSLContext
) -> None:
    receiver = await receive(answering(OK_HEAD + b"\r\n"), tls=server_tls)
    async with WebhookSender(lambda: LOCAL, lookup=to_loopback) as sender:
        outcome = await send(sender, receiver.url("hooks.example.com", "https"))
    assert outcome.fault is Fault.TLS
    assert "certificate" in str(outcome.detail)
    assert receiver.requests == []


async def test_plain_http_on_a_tls_port_is_a_tls_fault(
    sender: WebhookSender, receive: Receive
) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    receiver = await receive(plain)
    outcome = await send(sender, receiver.url(scheme="https"))
    assert outcome.fault is Fault.TLS


async def test_a_tls_handshake_that_hangs_is_a_timeout(
    sender: WebhookSender, receive: Receive
) -> None:
    receiver = await receive(hang)
    outcome = await send(sender, receiver.url(scheme="https"), timeout_seconds=SOON)
    assert outcome.fault is Fault.TIMEOUT
