"""The webhook sender against receivers that do not behave: the status decides, nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import trustme
import uvloop
from aiohappyeyeballs import AddrInfoType
from hypothesis import given, settings
from hypothesis import strategies as st

from batchbell.core.errors import AddressRefused
from batchbell.core.outcome import Fault, Outcome
from batchbell.net.answer import BODY_MAX_BYTES, Answer
from batchbell.net.client import WebhookSender
from batchbell.net.dialer import vetted_sockets
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


async def test_one_that_drips_its_headers_has_said_its_status(
    sender: WebhookSender, receive: Receive
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK_HEAD + b"X-Drip: ")
        await drip(writer, b"x")

    receiver = await receive(handle)
    outcome = await send(sender, receiver.url(), timeout_seconds=SOON)
    assert (outcome.status, outcome.fault) == (200, None)


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


NO_ANSWERS = {
    "nothing": (b"", Fault.RESET),
    "a status line that is cut off": (b"HTTP/1.1 200 O", Fault.RESET),
    "empty lines": (b"\r\n\r\n", Fault.RESET),
    "an interim answer alone": (b"HTTP/1.1 100 Continue\r\n\r\n", Fault.RESET),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", Fault.PROTOCOL),
    "another protocol without a line end": (b"\x15\x03\x03\x00\x02\x02", Fault.PROTOCOL),
    "HTTP/0.9": (b"<html>hello</html>", Fault.PROTOCOL),
    "no number": (b"HTTP/1.1 two OK\r\n\r\n", Fault.PROTOCOL),
    "a number too small": (b"HTTP/1.1 20 OK\r\n\r\n", Fault.PROTOCOL),
    "a number too large": (b"HTTP/1.1 2000 OK\r\n\r\n", Fault.PROTOCOL),
    "zero": (b"HTTP/1.1 000 OK\r\n\r\n", Fault.PROTOCOL),
    "zeros": (bytes(200), Fault.PROTOCOL),
    "a status line without end": (b"HTTP/1.1 200 " + b"x" * 1_000_000, Fault.PROTOCOL),
}

OK_BODY = b"Content-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
ODD_ANSWERS = {
    "plain": b"HTTP/1.1 200 OK\r\n" + OK_BODY,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nok",
    "a later version": b"HTTP/2 200\r\n" + OK_BODY,
    "lower case": b"http/1.1 200 ok\r\n" + OK_BODY,
    "no reason": b"HTTP/1.1 200\r\n" + OK_BODY,
    "a reason of other bytes": b"HTTP/1.1 200 \xff\x00\xfe\r\n" + OK_BODY,
    "no headers": b"HTTP/1.1 200 OK\r\n\r\n",
    "tabs and spaces": b"HTTP/1.1 \t 200\tOK\r\n" + OK_BODY,
    "bare line ends": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "mixed line ends": b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
    "empty lines first": b"\r\n\r\nHTTP/1.1 200 OK\r\n" + OK_BODY,
    "interim answers first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n"
    b"HTTP/1.1 200 OK\r\n" + OK_BODY,
    "a line that was folded": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\td\r\n" + OK_BODY,
    "a folded line first": b"HTTP/1.1 200 OK\r\n c\r\n" + OK_BODY,
    "a line without a colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n" + OK_BODY,
    "a name with spaces": b"HTTP/1.1 200 OK\r\nA B : c\r\n: d\r\n" + OK_BODY,
    "zeros in a header": b"HTTP/1.1 200 OK\r\nA: b\x00c\r\nB\x00: c\r\n" + OK_BODY,
    "a header of 64 KB": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 65_536 + b"\r\n" + OK_BODY,
    "five headers of 64 KB": b"HTTP/1.1 200 OK\r\n"
    + b"".join(b"A%d: %s\r\n" % (n, b"x" * 65_536) for n in range(5))
    + OK_BODY,
    "a header without end": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 2_000_000,
    "300 headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + OK_BODY,
    "30,000 headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 30_000 + OK_BODY,
    "a head that is cut off": b"HTTP/1.1 200 OK\r\nX-Cut",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nok",
    "a length in words": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
    "a huge length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\nok",
    "a length too large": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
    "a length too small": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and more",
    "a length and chunks": CHUNKED + b"Content-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks": CHUNKED + b"\r\n1;a=b\r\no\r\n1\r\nk\r\n0\r\nA: b\r\n\r\n",
    "chunks that break": CHUNKED + b"\r\n2\r\nok\r\nZZ\r\n",
    "a chunk that is too long": CHUNKED + b"\r\nffffffffffff\r\nok",
    "chunks without end": CHUNKED + b"\r\n2\r\nok",
    "a coding that is unknown": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\nok",
    "what is not packed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + OK_BODY,
    "a type that is none": b"HTTP/1.1 200 OK\r\nContent-Type: \xff;charset=\x00\r\n" + OK_BODY,
    "a Retry-After that is none": b"HTTP/1.1 200 OK\r\nRetry-After: soon\r\n" + OK_BODY,
}
BODILESS = {"no headers", "30,000 headers", "a header without end", "a head that is cut off"}
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


async def outcomes_of(answers: Mapping[str, bytes]) -> dict[str, Outcome]:
    """What each answer brings, said at once and then closed."""
    outcomes = {}
    async with WebhookSender(lambda: LOCAL, tls=TLS) as sender:
        for name, answer in answers.items():
            server = await asyncio.start_server(_once(answering(answer)), "127.0.0.1", 0)
            async with server:
                port = server.sockets[0].getsockname()[1]
                outcomes[name] = await send(sender, f"http://127.0.0.1:{port}/")
    return outcomes


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_status_decides_however_odd_the_rest_is(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        outcomes = runner.run(outcomes_of(ODD_ANSWERS))
    assert {name: (one.status, one.fault) for name, one in outcomes.items()} == dict.fromkeys(
        ODD_ANSWERS, (200, None)
    )
    bodies = {name: one.response_body for name, one in outcomes.items() if name not in BODILESS}
    assert bodies.pop("what is not packed") == "[2 bytes of gzip, not unpacked]"
    assert bodies == dict.fromkeys(bodies, "ok")


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_what_is_no_answer_is_a_fault(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        outcomes = runner.run(outcomes_of({name: one[0] for name, one in NO_ANSWERS.items()}))
    assert {name: (one.status, one.fault) for name, one in outcomes.items()} == {
        name: (None, fault) for name, (_, fault) in NO_ANSWERS.items()
    }
    for outcome in outcomes.values():
        assert outcome.detail
        assert outcome.detail.isprintable()
        assert len(outcome.detail) <= 300


@pytest.mark.parametrize("name", ODD_ANSWERS)
def test_how_an_answer_is_cut_into_pieces_changes_nothing(name: str) -> None:
    data = ODD_ANSWERS[name]
    whole, pieces = Answer(), Answer()
    whole.feed(data)
    step = 1 if len(data) < 1000 else 997
    for begin in range(0, len(data), step):
        if not pieces.ended:
            pieces.feed(data[begin : begin + step])
    assert pieces.status == whole.status == 200
    assert pieces.headers == whole.headers
    assert (pieces.body, pieces.ended) == (whole.body, whole.ended)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\n" + OK_BODY, True),
        (b"HTTP/1.1 204 No\r\n\r\n", True),
        (b"HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n", True),
        (b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n" + OK_BODY, True),
        (b"HTTP/1.0 200 OK\r\n" + OK_BODY, False),
        (b"HTTP/1.1 200 OK\r\nConnection: foo, Close\r\n" + OK_BODY, False),
        (b"HTTP/1.1 200 OK\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\n" + OK_BODY + b"more", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nmore", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", False),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", False),
    ],
)
def test_a_connection_is_kept_only_after_an_answer_that_ended_as_it_should(
    answer: bytes, kept: bool
) -> None:
    read = Answer()
    read.feed(answer)
    assert (read.ended and read.keeps) is kept


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
