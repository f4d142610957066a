"""Where a webhook may go.

`AddressRules.check_url` judges what the URL alone shows, when it is registered and
before each call; `AddressRules.check_address` judges the very address that a socket is about to
be connected to. The second is what protects; the first is what explains.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NoReturn

from yarl import URL

from batchbell.core.errors import AddressRefused, InvalidRequest, SettingsError
from batchbell.net.networks import (
    LOOPBACK,
    Address,
    Network,
    embedded,
    parse_address,
    parse_network,
    refused_kind,
    strict_kind,
    within,
)

URL_MAX_CHARACTERS = 2048
HOST_MAX_CHARACTERS = 253
PORTS = range(1, 65536)

LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
NUMERIC_LABEL = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
"""A name that ends in such a label is an IPv4 address in disguise, or nothing at all."""
BAD_CHARACTER = re.compile(
    r"[\x00-\x20\x7f-\xa0\\\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ud800-\udfff]"
)
LOCAL_NAMES = frozenset(
    {"localhost", "localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback"}
)


@dataclass(frozen=True, slots=True)
class AddressRules:
    """What the operator allows beyond https to public addresses."""

    allow_http: bool = False
    allow_loopback: bool = False
    """127.0.0.0/8 and ::1, nothing else: the first minute on the developer's own machine."""
    allow_cidrs: tuple[Network, ...] = ()

    def check_url(self, url: str, *, param: str = "webhookUrl") -> None:
        """Raise InvalidRequest for what is no URL to call, AddressRefused for a forbidden one.

        Names are not resolved here: where they lead is judged when the socket is opened.
        """
        self.target(url, param=param)

    def target(self, url: str, *, param: str = "webhookUrl") -> URL:
        """The URL as it is called, without its fragment; raises as `check_url` does."""
        parsed = parse_url(url, param=param)
        if parsed.scheme == "http" and not self.allow_http:
            raise AddressRefused(
                "Webhook URLs must use https; to allow plain http, set BATCHBELL_ALLOW_HTTP=true."
            )
        host = parsed.raw_host or ""
        literal = literal_address(host, param=param)
        if literal is not None:
            self.check_address(literal)
            _check_spelling(host, literal, param=param)
        elif is_local_name(host):
            self._judge(IPv4Address("127.0.0.1"), shown=host)
        return parsed

    def check_address(self, address: str) -> None:
        """Raise AddressRefused unless a socket may be connected to this IP address."""
        try:
            parsed = parse_address(address)
        except ValueError:
            raise AddressRefused(f"{address[:80]!r} is no IP address.") from None
        self._judge(parsed, shown=address)

    def shows_answers_of(self, address: str) -> bool:
        """Whether a receiver's words may be shown: not what an allowlist alone let us reach."""
        parsed = parse_address(address)
        public = all(refused_kind(one) is None for one in (parsed, *embedded(parsed)))
        return public or self._is_own_machine(parsed)

    def _judge(self, address: Address, *, shown: str) -> None:
        self._judge_one(address, shown=shown)
        if not self._is_named(address):
            for inner in embedded(address):
                self._judge_one(inner, shown=shown)

    def _is_named(self, address: Address) -> bool:
        """Whether an entry is of exactly this address: whoever wrote it means what it leads to."""
        return any(
            network.network_address == address and network.prefixlen == network.max_prefixlen
            for network in self.allow_cidrs
        )

    def _judge_one(self, address: Address, *, shown: str) -> None:
        kind = refused_kind(address)
        if kind is None or self._is_own_machine(address) or self._is_listed(address):
            return
        _refuse(address, kind, shown=shown)

    def _is_own_machine(self, address: Address) -> bool:
        return self.allow_loopback and any(address in network for network in LOOPBACK)

    def _is_listed(self, address: Address) -> bool:
        strict = strict_kind(address)
        return any(
            address in network and (strict is None or within(network, strict[0]))
            for network in self.allow_cidrs
        )


def _refuse(address: Address, kind: str, *, shown: str) -> NoReturn:
    what = shown if shown == str(address) else f"{shown[:80]} ({address})"
    only = "only an entry of exactly this address" if strict_kind(address) else "an entry for it"
    raise AddressRefused(
        f"{what} is {kind}, and those are not called; {only} in BATCHBELL_ALLOW_CIDRS"
        f" (such as {address}/{address.max_prefixlen}) allows it."
    )


def parse_url(url: str, *, param: str) -> URL:
    """An absolute http or https URL without its fragment; raises InvalidRequest.

    ASCII URLs are called as they were given, to the byte; others are percent-encoded.
    """
    if len(url) > URL_MAX_CHARACTERS:
        _invalid(f"The URL is longer than {URL_MAX_CHARACTERS} characters.", param)
    if BAD_CHARACTER.search(url):
        _invalid("The URL holds a space, a backslash or a control character.", param)
    try:
        parsed = URL(url, encoded=url.isascii())
        port = parsed.explicit_port
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"This is no URL that can be called: {error}.", param=param) from None
    _check_parts(parsed, param)
    if port is not None and port not in PORTS:
        _invalid("The URL's port must lie between 1 and 65535.", param)
    return parsed.with_fragment(None)


def _check_parts(url: URL, param: str) -> None:
    if not url.scheme or (url.scheme in ("http", "https") and not url.raw_authority):
        _invalid("The URL must be absolute, such as https://example.com/webhook.", param)
    if url.scheme not in ("http", "https"):
        _invalid("The URL must begin with https:// (or http://, where that is allowed).", param)
    if "@" in url.raw_authority:
        _invalid("The URL must not hold a user name or password.", param)
    host = url.raw_host or ""
    if not host:
        _invalid("The URL names no host.", param)
    if ":" not in host and not _is_plain_name(host):
        _invalid("The URL's host is not a valid name.", param)


def _is_plain_name(host: str) -> bool:
    name = host.removesuffix(".")
    return len(name) <= HOST_MAX_CHARACTERS and all(
        LABEL.fullmatch(label) for label in name.split(".")
    )


def literal_address(host: str, *, param: str) -> str | None:
    """The IP address that a host is, in whatever form it is written; None for a name.

    Raises InvalidRequest for what looks like an address and is none.
    """
    if ":" in host:
        return _ipv6(host, param)
    name = host.removesuffix(".")
    if not NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        return None
    try:
        return str(IPv4Address(socket.inet_aton(name)))
    except OSError:
        _invalid("The URL's host looks like an IP address, but is none.", param)


def _ipv6(host: str, param: str) -> str:
    try:
        parse_address(host)
    except ValueError:
        _invalid("The URL's host looks like an IPv6 address, but is none.", param)
    if "%" in host:
        _invalid("The URL's host must not hold a zone id.", param)
    return host


def _check_spelling(host: str, literal: str, *, param: str) -> None:
    """Only the usual form is called: HTTP clients differ in what they make of `0x8080808`."""
    if host != literal:
        _invalid(f"Write the address in the URL as {literal}.", param)


def is_local_name(host: str) -> bool:
    """Whether a name means this machine by convention."""
    name = host.removesuffix(".").lower()
    return name in LOCAL_NAMES or name.endswith(".localhost")


def _invalid(message: str, param: str) -> NoReturn:
    raise InvalidRequest(message, param=param)


def parse_cidrs(text: str) -> tuple[Network, ...]:
    """Read `BATCHBELL_ALLOW_CIDRS`: networks separated by commas or spaces.

    Raises SettingsError that names the entry.
    """
    return tuple(_parse_entry(entry) for entry in re.split(r"[,\s]+", text) if entry)


def _parse_entry(entry: str) -> Network:
    try:
        return parse_network(entry)
    except ValueError as error:
        raise SettingsError(
            f"BATCHBELL_ALLOW_CIDRS: {entry!r} is no network such as 10.1.0.0/16 ({error})."
        ) from None
