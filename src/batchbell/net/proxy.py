"""The proxy that calls to others go through, where a network has no other way out.

Only what a setting names is used: never what the environment says to other programs.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import NoReturn

from pydantic import SecretStr
from yarl import URL

from batchbell.core.errors import SettingsError
from batchbell.settings import Settings

SCHEMES = ("http", "https")


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where it is, what it gets to know of us, and what is called without it."""

    host: str
    port: int
    secure: bool = False
    """Whether it is spoken to over TLS."""
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    exempt: tuple[str, ...] = ()
    """Hosts, domains and networks that are called directly."""

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def url(self) -> URL:
        """Its URL, credentials included: never to be shown."""
        return URL.build(
            scheme=SCHEMES[self.secure],
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
        )

    def serves(self, host: str) -> bool:
        """Whether calls to this host go through it."""
        name = host.removesuffix(".").lower()
        return not any(_matches(entry, name) for entry in self.exempt)

    def connect_request(self, host: str, port: int) -> bytes:
        """The request that asks for a tunnel."""
        where = f"{_bracketed(host)}:{port}"
        return f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{self.credentials()}\r\n".encode()

    def credentials(self) -> str:
        """The header line with its credentials, or nothing."""
        if self.user is None and self.password is None:
            return ""
        pair = b64encode(f"{self.user or ''}:{self.password or ''}".encode()).decode()
        return f"Proxy-Authorization: Basic {pair}\r\n"


def provider_proxy(settings: Settings) -> Proxy | None:
    """The proxy for calls to providers. Raises SettingsError."""
    return _of(settings.provider_proxy, "BATCHBELL_PROVIDER_PROXY", settings.no_proxy)


def webhook_proxy(settings: Settings) -> Proxy | None:
    """The proxy for webhooks. Raises SettingsError."""
    return _of(settings.webhook_proxy, "BATCHBELL_WEBHOOK_PROXY", settings.no_proxy)


def check_proxies(settings: Settings) -> None:
    """Raise SettingsError for a proxy that is none."""
    provider_proxy(settings)
    webhook_proxy(settings)


def _of(secret: SecretStr | None, variable: str, exempt: str) -> Proxy | None:
    text = secret.get_secret_value() if secret else None
    return parse_proxy(text, variable=variable, exempt=exempt)


def parse_proxy(text: str | None, *, variable: str, exempt: str = "") -> Proxy | None:
    """Read `http://user:password@host:port`; None for none.

    Raises SettingsError, which never shows the credentials.
    """
    if not text:
        return None
    try:
        url = URL(text.strip())
        host, port = url.host, url.port
    except ValueError:
        _wrong(variable)
    if url.scheme not in SCHEMES or not host or not port or url.path not in ("", "/"):
        _wrong(variable)
    return Proxy(
        host=host,
        port=port,
        secure=url.scheme == "https",
        user=url.user,
        password=url.password,
        exempt=parse_exempt(exempt),
    )


def parse_exempt(text: str) -> tuple[str, ...]:
    """Hosts, domains (`.example.com`), addresses and networks, separated by commas or spaces."""
    entries = (entry.strip("[]").lower() for entry in re.split(r"[,\s]+", text) if entry)
    return tuple(
        entry.removeprefix("*.").strip(".") if entry != "*" else entry for entry in entries
    )


def _matches(entry: str, host: str) -> bool:
    if entry in ("*", host) or host.endswith(f".{entry}"):
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _wrong(variable: str) -> NoReturn:
    raise SettingsError(
        f"{variable} is not the URL of a proxy. Write it as http://host:port or https://host:port,"
        " with user:password@ before the host if the proxy asks for them."
    )
