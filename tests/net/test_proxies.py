"""Calls through a real proxy on loopback: tunnels, absolute URLs, credentials, exemptions."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import pytest
import trustme
import uvloop

from batchbell.core.errors import ProviderUnavailable, SettingsError
from batchbell.core.outcome import Fault, Outcome
from batchbell.net.api import ApiClient
from batchbell.net.client import WebhookSender
from batchbell.net.guard import AddressRules, parse_cidrs
from batchbell.net.proxy import Proxy, check_proxies, parse_exempt, parse_proxy
from batchbell.net.relay import Onward, Relay
from batchbell.settings import load_settings
from tests.net.raw_receivers import Receive, answering, read_request

LOCAL = AddressRules(allow_http=True, allow_loopback=True)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NAME = "hooks.example.com"
ALICE = "Basic YWxpY2U6cEBzcw=="


@dataclass
class LiveProxy:
    """A proxy that takes every name for loopback, and notes what it is asked for."""

    wants: str | None = None
    """The Proxy-Authorization without which it answers 407."""
    refuses: bytes = b""
    asked: list[str] = field(default_factory=list)
    port: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *headers = head.strip().split("\r\n")
        self.asked.append(line)
        given = [one.split(": ", 1)[1] for one in headers if one.startswith("Proxy-Auth")]
        if self.wants and given != [self.wants]:
            writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
            return
        if self.refuses:
            writer.write(self.refuses)
            return
        method, where, _ = line.split(" ")
        if method == "CONNECT":
            port = int(where.rpartition(":")[2])
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            rest = b""
        else:
            host, _, path = where.removeprefix("http://").partition("/")
            port = int(host.rpartition(":")[2])
            rest = "\r\n".join([f"{method} /{path} HTTP/1.1", *headers, "", ""]).encode()
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        there_writer.write(rest)
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def proxying(live: LiveProxy, tls: ssl.SSLContext | None = None) -> AsyncIterator[LiveProxy]:
    server = await asyncio.start_server(live.handle, "127.0.0.1", 0, ssl=tls)
    live.port = server.sockets[0].getsockname()[1]
    async with server:
        yield live


@pytest.fixture
async def live() -> AsyncIterator[LiveProxy]:
    async with proxying(LiveProxy()) as live:
        yield live


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
def trusted(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME, "localhost").configure_cert(context)
    return context


def through(live: LiveProxy, *, user: str = "", scheme: str = "http", exempt: str = "") -> Proxy:
    url = f"{scheme}://{user}{'localhost' if scheme == 'https' else '127.0.0.1'}:{live.port}"
    proxy = parse_proxy(url, variable="BATCHBELL_WEBHOOK_PROXY", exempt=exempt)
    assert proxy is not None
    return proxy


async def only_the_proxy(host: str) -> Sequence[str]:
    """Names of receivers are not looked up here: the proxy does that."""
    assert host == "localhost"
    return ["127.0.0.1"]


async def send(sender: WebhookSender, url: str) -> Outcome:
    return await sender.send(url, headers={"webhook-id": "evt_1"}, body=b"{}", timeout_seconds=10)


async def keep_answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await read_request(reader):
        writer.write(OK)


async def test_https_goes_through_a_tunnel_that_is_kept(
    receive: Receive, live: LiveProxy, trusted: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    live.wants = ALICE
    receiver = await receive(keep_answering, tls=server_tls)
    proxy = through(live, user="alice:p%40ss@")
    async with WebhookSender(
        lambda: LOCAL, lookup=only_the_proxy, tls=trusted, proxy=proxy
    ) as sender:
        outcomes = [await send(sender, receiver.url(NAME, "https")) for _ in range(3)]
    assert [one.status for one in outcomes] == [200, 200, 200]
    assert live.asked == [f"CONNECT {NAME}:{receiver.port} HTTP/1.1"]
    assert b"proxy" not in receiver.requests[0].lower()
    assert outcomes[0].remote_address is None
    assert outcomes[0].response_body is None  # it cannot be known whose words these are
    assert outcomes[0].timings.tls_ms is not None


async def test_plain_http_is_asked_of_the_proxy_itself(receive: Receive, live: LiveProxy) -> None:
    live.wants = ALICE
    receiver = await receive(answering(OK))
    async with WebhookSender(
        lambda: LOCAL, lookup=only_the_proxy, proxy=through(live, user="alice:p%40ss@")
    ) as sender:
        outcome = await send(sender, receiver.url(NAME))
    assert outcome.status == 200
    assert live.asked == [f"POST http://{NAME}:{receiver.port}/hook HTTP/1.1"]
    assert f"Host: {NAME}:{receiver.port}".encode() in receiver.requests[0]


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_proxy_may_be_spoken_to_over_tls(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    trusted: ssl.SSLContext,
    server_tls: ssl.SSLContext,
) -> None:
    async def scenario() -> tuple[Outcome, list[str]]:
        async with proxying(LiveProxy(wants=ALICE), server_tls) as live:
            server = await asyncio.start_server(keep_answering, "127.0.0.1", 0, ssl=server_tls)
            url = f"https://{NAME}:{server.sockets[0].getsockname()[1]}/"
            proxy = through(live, user="alice:p%40ss@", scheme="https")
            async with (
                server,
                WebhookSender(
                    lambda: LOCAL, lookup=only_the_proxy, tls=trusted, proxy=proxy
                ) as sender,
            ):
                await send(sender, url)
                outcome = await send(sender, url)
            return outcome, live.asked

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        outcome, asked = runner.run(scenario())
    assert (outcome.status, outcome.detail) == (200, None)
    assert len(asked) == 1


async def test_what_the_proxy_does_not_let_through_is_a_fault(
    live: LiveProxy, trusted: ssl.SSLContext
) -> None:
    said = {
        b"": "closed the connection",
        b"HTTP/1.1 403 No\r\n\r\n": "refuses the tunnel (403)",
        b"nonsense\r\n": "closed the connection",
        b"HTTP/1.1 200 Fine\r\n\r\n": "did not speak TLS",
    }
    async with WebhookSender(
        lambda: LOCAL, lookup=only_the_proxy, tls=trusted, proxy=through(live, user="bob:hunter2@")
    ) as sender:
        for answer, reason in said.items():
            live.refuses = answer or b" "
            outcome = await send(sender, f"https://{NAME}/secret-path")
            assert outcome.status is None
            assert reason in str(outcome.detail)
            assert "hunter2" not in str(outcome.detail)
            assert "secret-path" not in str(outcome.detail)
        live.wants = ALICE
        outcome = await send(sender, f"https://{NAME}/")
    assert outcome.fault is Fault.CONNECT
    assert "credentials (407)" in str(outcome.detail)


async def test_a_proxy_that_is_not_there_is_named() -> None:
    proxy = parse_proxy("http://u:hunter2@127.0.0.1:9", variable="X")
    async with WebhookSender(lambda: LOCAL, proxy=proxy) as sender:
        outcome = await send(sender, f"https://{NAME}/")
    assert outcome.fault is Fault.CONNECT
    assert "the proxy 127.0.0.1:9" in str(outcome.detail)
    assert "hunter2" not in str(outcome.detail)


async def test_the_rules_judge_the_url_and_not_the_proxy(live: LiveProxy) -> None:
    """A proxy may stand at a private address; what it is asked for may not."""
    async with WebhookSender(
        lambda: AddressRules(allow_http=True), lookup=only_the_proxy, proxy=through(live)
    ) as sender:
        for url in ("http://127.0.0.1/", "http://169.254.169.254/", "http://localhost/"):
            assert (await send(sender, url)).fault is Fault.REFUSED
    assert live.asked == []


async def test_an_exempt_host_is_called_directly_and_under_the_rules(
    receive: Receive, live: LiveProxy
) -> None:
    async def loopback(host: str) -> Sequence[str]:
        return ["127.0.0.1"]

    rules = [LOCAL]
    receiver = await receive(answering(OK))
    proxy = through(live, exempt=".example.com")
    async with WebhookSender(lambda: rules[0], lookup=loopback, proxy=proxy) as sender:
        assert (await send(sender, receiver.url(NAME))).remote_address == "127.0.0.1"
        rules[0] = AddressRules(allow_http=True, allow_cidrs=parse_cidrs("10.0.0.0/8"))
        assert (await send(sender, receiver.url(NAME))).fault is Fault.REFUSED
    assert live.asked == []


async def test_providers_are_called_through_theirs(receive: Receive, live: LiveProxy) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    live.wants = ALICE
    receiver = await receive(answer)
    proxy = through(live, user="alice:p%40ss@")
    url = f"http://{NAME}:{receiver.port}"
    for rules in (None, AddressRules(allow_http=True)):
        client = ApiClient(url, {}, rules=rules, proxy=proxy)
        assert (await client.get_json_bytes("/batches"))[0] == 200
        await client.aclose()
    async with Relay(proxy=proxy) as relay:
        reply = await relay.send(Onward(method="GET", url=f"{url}/files", headers=[]))
        assert await reply.read() == b"ok"
    assert [line.split(" ")[1].rpartition("/")[2] for line in live.asked] == [
        "batches",
        "batches",
        "files",
    ]


async def test_a_providers_tunnel_that_is_refused_says_so(live: LiveProxy) -> None:
    live.wants = ALICE
    proxy = through(live, user="bob:hunter2@")
    client = ApiClient("https://api.example.com/v1", {}, proxy=proxy)
    with pytest.raises(ProviderUnavailable) as caught:
        await client.get_json_bytes("/batches")
    await client.aclose()
    assert "407" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("exempt", "host", "served"),
    [
        ("", "api.openai.com", True),
        ("*", "api.openai.com", False),
        ("openai.com", "api.openai.com", False),
        (".openai.com", "api.openai.com", False),
        ("*.openai.com", "API.OpenAI.com.", False),
        ("openai.com", "notopenai.com", True),
        ("example.com, openai.com", "openai.com", False),
        ("example.com  openai.com", "openai.com", False),
        ("10.0.0.0/8", "10.1.2.3", False),
        ("10.0.0.0/8", "11.1.2.3", True),
        ("10.0.0.0/8", "ten.example.com", True),
        ("192.168.1.7", "192.168.1.7", False),
        ("fd00::/8", "fd00::1", False),
        ("[fd00::1]", "fd00::1", False),
    ],
)
def test_which_hosts_are_called_without_a_proxy(exempt: str, host: str, served: bool) -> None:
    assert Proxy("proxy", 3128, exempt=parse_exempt(exempt)).serves(host) is served


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://proxy:3128", "proxy:3128"),
        ("http://proxy", "proxy:80"),
        ("https://user:pass@proxy/", "proxy:443"),
        ("http://[fd00::1]:3128", "[fd00::1]:3128"),
    ],
)
def test_a_proxy_is_shown_without_credentials(url: str, shown: str) -> None:
    proxy = parse_proxy(url, variable="X")
    assert str(proxy) == shown
    assert "pass" not in repr(proxy)


@pytest.mark.parametrize(
    "text",
    [
        "proxy:3128",
        "socks5://u:hunter2@proxy:1080",
        "http://",
        "http://u:hunter2@proxy:x",
        "http://u:hunter2@p/path",
    ],
)
def test_what_is_no_proxy_is_a_wrong_setting(text: str) -> None:
    for variable in ("provider_proxy", "webhook_proxy"):
        settings = load_settings(**{variable: text})
        with pytest.raises(SettingsError, match=f"BATCHBELL_{variable.upper()}") as caught:
            check_proxies(settings)
        assert "hunter2" not in str(caught.value)
        assert "hunter2" not in repr(settings)


def test_no_setting_is_no_proxy() -> None:
    check_proxies(load_settings())
    assert parse_proxy(None, variable="X") is None
    assert parse_proxy("", variable="X") is None
