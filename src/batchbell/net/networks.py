"""Which networks are refused, and why.

The list is explicit because `ipaddress.is_global` is not to be trusted: on Python 3.11 and 3.12 it
holds for `2002:7f00:1::1`, `::7f00:1`, `fec0::1`, multicast and NAT64 forms of loopback.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

STRICT: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(text), kind)
    for text, kind in (
        ("169.254.169.254/32", "a cloud metadata address"),
        ("169.254.0.0/16", "a link-local address"),
        ("100.100.100.200/32", "a cloud metadata address"),
        ("168.63.129.16/32", "a cloud metadata address"),
        ("192.0.0.192/32", "a cloud metadata address"),
        ("fd00:ec2::254/128", "a cloud metadata address"),
        ("fd20:ce::254/128", "a cloud metadata address"),
        ("fd00:42::42/128", "a cloud metadata address"),
        ("fd00:a9fe:a9fe::/64", "a cloud metadata address"),
        ("fe80::/10", "a link-local address"),
        ("0.0.0.0/8", "an address of this very host"),
        ("::/128", "an address of this very host"),
    )
)
"""What no wider entry of an allowlist opens: an entry must lie within one of these itself."""

REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(text), kind)
    for text, kind in (
        ("127.0.0.0/8", "a loopback address"),
        ("10.0.0.0/8", "a private address"),
        ("172.16.0.0/12", "a private address"),
        ("192.168.0.0/16", "a private address"),
        ("100.64.0.0/10", "a carrier-grade NAT address"),
        ("192.0.0.0/24", "a protocol assignment"),
        ("192.0.2.0/24", "a documentation address"),
        ("192.88.99.0/24", "a 6to4 relay address"),
        ("198.18.0.0/15", "a benchmark address"),
        ("198.51.100.0/24", "a documentation address"),
        ("203.0.113.0/24", "a documentation address"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
        ("::1/128", "a loopback address"),
        ("::/8", "a reserved address"),
        ("100::/64", "a discard address"),
        ("2001::/23", "a protocol assignment"),
        ("2001:db8::/32", "a documentation address"),
        ("2002::/16", "a 6to4 address"),
        ("3fff::/20", "a documentation address"),
        ("5f00::/16", "a segment routing address"),
        ("fc00::/7", "a private address"),
        ("fec0::/10", "a site-local address"),
        ("ff00::/8", "a multicast address"),
    )
)

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All of IPv6 that has been given out; the rest is reserved."""
NAT64 = IPv6Network("64:ff9b::/96")
MAPPED_PREFIX = 96


def parse_address(text: str) -> Address:
    """The address that a socket would reach: what embeds an IPv4 address is judged as that one.

    Raises ValueError. A zone id is dropped: link-local stays link-local.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


COMPATIBLE = IPv6Network("::/96")
TRANSLATED = IPv6Network("::ffff:0:0:0/96")
LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
SIX_TO_FOUR = IPv6Network("2002::/16")
TEREDO = IPv6Network("2001::/32")
ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""The upper half of an interface identifier whose lower half is an IPv4 address (RFC 5214)."""


def embedded(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address may lead to, by a tunnel or a translator.

    Those forms that `parse_address` reads as IPv4 are not among them.
    """
    if isinstance(address, IPv4Address):
        return ()
    number = int(address)
    found = []
    if (address in COMPATIBLE and number > 1) or address in TRANSLATED:
        found.append(number)
    if address in LOCAL_NAT64:
        found += _translated(number)
    if address in SIX_TO_FOUR:
        found.append(number >> 80)
    if address in TEREDO:  # its server, and the client with all bits turned over
        found += [number >> 64, ~number]
    if number >> 32 & 0xFFFFFFFF in ISATAP:
        found.append(number)
    return tuple(IPv4Address(one & 0xFFFFFFFF) for one in found)


def _translated(number: int) -> list[int]:
    """What a prefix of 96, 64, 56 or 48 bits may hold (RFC 6052, 2.2); its length is not known."""
    if number & 0xFFFFFF:
        return [number]
    return [
        number >> 24,
        (number >> 64 & 0xFF) << 24 | (number >> 32 & 0xFFFFFF),
        (number >> 64 & 0xFFFF) << 16 | (number >> 40 & 0xFFFF),
    ]


def parse_network(text: str) -> Network:
    """A CIDR or one address; an IPv4-mapped IPv6 network is taken as IPv4. Raises ValueError."""
    network = ip_network(text)
    mapped = network.network_address
    if (
        isinstance(mapped, IPv6Address)
        and mapped.ipv4_mapped
        and network.prefixlen >= MAPPED_PREFIX
    ):
        return IPv4Network((mapped.ipv4_mapped, network.prefixlen - MAPPED_PREFIX))
    return network


def within(inner: Network, outer: Network) -> bool:
    """Whether `outer` holds all of `inner`; never across IP versions."""
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def strict_kind(address: Address) -> tuple[Network, str] | None:
    """The strict network that holds the address, the narrowest first, and what it is."""
    return next((entry for entry in STRICT if address in entry[0]), None)


def refused_kind(address: Address) -> str | None:
    """What the address is, if it is refused by default; None for a public one."""
    strict = strict_kind(address)
    if strict is not None:
        return strict[1]
    kind = next((kind for network, kind in REFUSED if address in network), None)
    if kind is None and isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return "a reserved address"
    return kind
