"""What each stage of a call took: measured on real connections, and honest when one fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

import pytest
import trustme

from batchbell.core.outcome import Fault, Outcome, Timings
from batchbell.net.client import WebhookSender
from batchbell.net.guard import AddressRules
from tests.net.raw_receivers import Receive, answering, read_request

LOCAL = AddressRules(allow_http=True, allow_loopback=True)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NAME = "hooks.example.com"
AGES = 0.05
"""Seconds that a stage is made to take: what is measured must be at least as long."""


async def names(host: str) -> Sequence[str]:
    await asyncio.sleep(AGES)
    return ["127.0.0.1"]


async def keep_answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await read_request(reader):
        await asyncio.sleep(AGES)
        writer.write(OK)


async def send(sender: WebhookSender, url: str, *, timeout_seconds: float = 10.0) -> Outcome:
    return await sender.send(url, headers={}, body=b"{}", timeout_seconds=timeout_seconds)


def sender_to(authority: trustme.CA | None = None) -> WebhookSender:
    tls = ssl.create_default_context()
    if authority is not None:
        authority.configure_trust(tls)
    return WebhookSender(lambda: LOCAL, lookup=names, tls=tls)


def reached(timings: Timings) -> list[str]:
    stages = ("dns_ms", "connect_ms", "tls_ms", "first_byte_ms")
    return [stage for stage in stages if getattr(timings, stage) is not None]


async def test_all_stages_of_a_new_tls_connection_are_timed(receive: Receive) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(NAME).configure_cert(context)
    receiver = await receive(keep_answering, tls=context)
    async with sender_to(authority) as sender:
        outcome = await send(sender, receiver.url(NAME, "https"))
    assert outcome.status == 200
    seen = outcome.timings
    assert seen.dns_ms is not None
    assert seen.connect_ms is not None
    assert seen.tls_ms is not None
    assert seen.first_byte_ms is not None
    assert seen.dns_ms >= AGES * 1000
    assert seen.connect_ms > 0
    assert seen.tls_ms > 0
    made = seen.dns_ms + seen.connect_ms + seen.tls_ms
    assert made + AGES * 1000 <= seen.first_byte_ms <= outcome.duration_ms


async def test_the_tls_handshake_is_not_counted_as_connecting(receive: Receive) -> None:
    """One that takes the connection and does not answer the greeting is slow in TLS alone."""
    authority = trustme.CA()

    async def never_greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await asyncio.Event().wait()

    receiver = await receive(never_greet)
    async with sender_to(authority) as sender:
        outcome = await send(sender, receiver.url(NAME, "https"), timeout_seconds=4 * AGES)
    assert outcome.fault is Fault.TIMEOUT
    seen = outcome.timings
    assert reached(seen) == ["dns_ms", "connect_ms", "tls_ms"]
    assert seen.tls_ms is not None
    assert seen.connect_ms is not None
    assert seen.tls_ms > seen.connect_ms


async def test_a_kept_connection_has_no_stages_but_the_answer(receive: Receive) -> None:
    receiver = await receive(keep_answering)
    async with sender_to() as sender:
        first, second = [await send(sender, receiver.url(NAME)) for _ in range(2)]
    assert reached(first.timings) == ["dns_ms", "connect_ms", "first_byte_ms"]
    assert reached(second.timings) == ["first_byte_ms"]
    assert receiver.connections == 1


async def test_calls_at_once_have_their_own_timings(receive: Receive) -> None:
    receiver = await receive(keep_answering)
    async with sender_to() as sender:
        outcomes = await asyncio.gather(*(send(sender, receiver.url(NAME)) for _ in range(3)))
    assert [reached(one.timings) for one in outcomes] == [
        ["dns_ms", "connect_ms", "first_byte_ms"]
    ] * 3


async def test_a_connection_that_had_died_is_not_timed_in_place_of_the_new_one(
    receive: Receive,
) -> None:
    receiver = await receive(answering(OK))  # closes after each answer without saying so
    async with sender_to() as sender:
        outcomes = [await send(sender, receiver.url(NAME)) for _ in range(2)]
    assert reached(outcomes[1].timings) == ["dns_ms", "connect_ms", "first_byte_ms"]


async def test_a_lookup_that_fails_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchbell.net.names.DNS_TIMEOUT_SECONDS", AGES)

    async def hang(host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async with WebhookSender(lambda: LOCAL, lookup=hang) as sender:
        outcome = await send(sender, "http://slow.example.com/")
    assert outcome.fault is Fault.DNS
    assert reached(outcome.timings) == ["dns_ms"]
    assert outcome.timings.dns_ms is not None
    assert AGES * 1000 <= outcome.timings.dns_ms <= outcome.duration_ms


async def test_a_receiver_that_never_answers_was_connected_to(receive: Receive) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    receiver = await receive(hang)
    async with sender_to() as sender:
        outcome = await send(sender, receiver.url(NAME), timeout_seconds=4 * AGES)
    assert outcome.fault is Fault.TIMEOUT
    assert reached(outcome.timings) == ["dns_ms", "connect_ms"]


async def test_a_url_that_is_refused_reached_nothing() -> None:
    async with WebhookSender(AddressRules) as sender:
        outcome = await send(sender, "http://hooks.example.com/")
    assert outcome.fault is Fault.REFUSED
    assert outcome.timings == Timings()
