"""Which URLs and addresses a webhook may go to, by tables and at random."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.errors import AddressRefused, InvalidRequest, SettingsError
from batchbell.net.guard import AddressRules, parse_cidrs
from batchbell.net.networks import REFUSED, STRICT, parse_address, refused_kind

PUBLIC = AddressRules()
LOCAL = AddressRules(allow_http=True, allow_loopback=True)


def allowing(cidrs: str) -> AddressRules:
    return AddressRules(allow_cidrs=parse_cidrs(cidrs))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "169.254.1.1",
        "169.254.169.254",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "64:ff9b:1::808:808",
        "100::1",
        "2001::1",
        "2001:1ff:ffff::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "3fff::1",
        "3fff:fff::1",
        "5f00::1",
        "4000::1",
        "fc00::1",
        "fd12:3456::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "not an address",
        "",
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused):
        PUBLIC.check_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2001:4860:4860::8888",
        "2001:200::1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ],
)
def test_a_public_address_is_allowed(address: str) -> None:
    PUBLIC.check_address(address)


def test_a_refusal_names_the_address_its_kind_and_the_setting() -> None:
    """Pitfall 27."""
    with pytest.raises(AddressRefused) as refusal:
        PUBLIC.check_address("10.1.2.3")
    message = str(refusal.value)
    assert "10.1.2.3 is a private address" in message
    assert "BATCHBELL_ALLOW_CIDRS" in message
    assert "10.1.2.3/32" in message


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "127.000.000.001",
        "0x7f.1",
        "0x7f000001",
        "0X7F.0x0.0x0.0x1",
        "0177.0.0.1",
        "017700000001",
        "2130706433",
        "0",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7F00:1]",
        "[::7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[fd00:ec2::254]",
        "169.254.169.254",
        "0xA9FEA9FE",
        "2852039166",
        "[::ffff:a9fe:a9fe]",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "\u2460\u2461\u2466.0.0.1",
        "localhost",
        "LocalHost",
        "localhost.",
        "api.localhost",
        "localhost.localdomain",
        "ip6-loopback",
    ],
)
def test_no_disguise_of_a_local_address_passes_registration(host: str) -> None:
    with pytest.raises(AddressRefused):
        PUBLIC.check_url(f"https://{host}/hook")


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "absolute"),
        ("not-a-url", "absolute"),
        ("not a url", "space"),
        ("/hook", "absolute"),
        ("//example.com/hook", "absolute"),
        ("https:example.com", "absolute"),
        ("https:///hook", "absolute"),
        ("https://", "absolute"),
        ("https://:443/hook", "host"),
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("javascript:alert(1)", "https://"),
        ("https://user@example.com/", "user name"),
        ("https://user:secret@example.com/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https://example.com/\r\nX: y", "control"),
        ("https://exam\tple.com/", "control"),
        ("https://example.com/\x00", "control"),
        ("https://example.com/\u2028", "control"),
        ("https://example.com/\ud800", "control"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "ort"),
        ("https://example.com:-1/", "ort"),
        ("https://example.com:http/", "port"),
        ("https://a..b/", "valid name"),
        ("https://-a.example/", "valid name"),
        ("https://example.com%00.evil/", "valid name"),
        ("https://%31%32%37.0.0.1/", "valid name"),
        ("https://" + "a" * 64 + ".com/", "valid name"),
        ("https://" + "a." * 130 + "com/", "valid name"),
        ("https://1.2.3.4.5/", "looks like an IP address"),
        ("https://256.1.1.1/", "looks like an IP address"),
        ("https://0x/", "looks like an IP address"),
        ("https://0x08080808/", "8.8.8.8"),
        ("https://8.8.8.8./", "8.8.8.8"),
        ("https://[::1", "URL"),
        ("https://[fe80::1%25eth0]/", "zone"),
        ("https://[2606:4700::1%eth0]/", "zone"),
        ("https://example.com/" + "x" * 2048, "2048"),
    ],
)
def test_what_is_no_url_to_call_is_said_to_be_so(url: str, word: str) -> None:
    """Pitfall 10: "not a url" was accepted."""
    with pytest.raises(InvalidRequest) as error:
        PUBLIC.check_url(url, param="url")
    assert error.value.param == "url"
    assert word in error.value.message


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook",
        "https://example.com",
        "HTTPS://EXAMPLE.com:8443/a%20b?c=%2F",
        "https://example.com./hook",
        "https://under_score.example.com/",
        "https://b\u00fccher.example/\u00fc",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]/hook",
        "https://example.com?x=1",
        "https://1.2.3.4.example.com/",
    ],
)
def test_a_public_https_url_is_accepted(url: str) -> None:
    PUBLIC.check_url(url)


def test_a_url_is_called_as_it_was_given_without_its_fragment() -> None:
    target = PUBLIC.target("https://example.com/a%2Fb?c=%7E#part")
    assert str(target) == "https://example.com/a%2Fb?c=%7E"


def test_plain_http_needs_its_setting() -> None:
    with pytest.raises(AddressRefused, match="BATCHBELL_ALLOW_HTTP=true"):
        PUBLIC.check_url("http://example.com/")
    AddressRules(allow_http=True).check_url("http://example.com/")


def test_local_mode_opens_loopback_and_nothing_else() -> None:
    for url in ("http://localhost:3000/", "http://127.0.0.1:1/", "http://[::1]/"):
        LOCAL.check_url(url)
    for address in ("127.0.0.1", "127.9.9.9", "::1"):
        LOCAL.check_address(address)
    for address in ("10.0.0.1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "fd00::1"):
        with pytest.raises(AddressRefused):
            LOCAL.check_address(address)


def test_an_allowed_network_opens_its_addresses_in_every_form() -> None:
    rules = allowing("10.1.0.0/16, fd12::/48")
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd12::7"):
        rules.check_address(address)
    rules.check_url("https://10.1.2.3/")
    for address in ("10.2.0.1", "127.0.0.1", "fd13::1"):
        with pytest.raises(AddressRefused):
            rules.check_address(address)


@pytest.mark.parametrize(
    ("wildcard", "address"),
    [
        ("0.0.0.0/0", "169.254.169.254"),
        ("169.0.0.0/8", "169.254.0.1"),
        ("169.254.0.0/16", "169.254.169.254"),
        ("100.64.0.0/10", "100.100.100.200"),
        ("168.63.129.0/24", "168.63.129.16"),
        ("::ffff:0:0/96", "169.254.169.254"),
        ("0.0.0.0/0", "::ffff:169.254.169.254"),
        ("0.0.0.0/0", "0.0.0.0"),
        ("::/0", "fe80::1"),
        ("::/0", "::"),
        ("fc00::/7", "fd00:ec2::254"),
        ("fd00:ec2::/32", "fd00:ec2::254"),
    ],
)
def test_no_wildcard_opens_link_local_or_metadata(wildcard: str, address: str) -> None:
    with pytest.raises(AddressRefused, match="exactly this address"):
        allowing(wildcard).check_address(address)


METADATA = "169.254.169.254"
LEADS_TO_METADATA = {
    "mapped": "::ffff:169.254.169.254",
    "mapped, in hexadecimal": "::ffff:a9fe:a9fe",
    "mapped, with a zone": "::ffff:a9fe:a9fe%eth0",
    "compatible": "::169.254.169.254",
    "translated": "::ffff:0:169.254.169.254",
    "NAT64": "64:ff9b::a9fe:a9fe",
    "NAT64 of the site, 96 bits": "64:ff9b:1::a9fe:a9fe",
    "NAT64 of the site, 96 bits of its own": "64:ff9b:1:aa:bb:cc:a9fe:a9fe",
    "NAT64 of the site, 48 bits": "64:ff9b:1:a9fe:a9:fe00::",
    "6to4": "2002:a9fe:a9fe::1",
    "6to4, any host": "2002:a9fe:a9fe:1:2:3:4:5",
    "Teredo, the server": "2001:0:a9fe:a9fe:8000:1:f7f7:f7f7",
    "Teredo, the client": "2001:0:808:808:8000:1:5601:5601",
    "ISATAP": "2606:4700::5efe:a9fe:a9fe",
    "ISATAP, universal": "2606:4700::200:5efe:169.254.169.254",
    "ISATAP, link-local": "fe80::5efe:a9fe:a9fe",
}


@pytest.mark.parametrize("address", LEADS_TO_METADATA.values(), ids=LEADS_TO_METADATA.keys())
def test_no_ipv6_form_leads_to_metadata(address: str) -> None:
    narrow = f"{ip_network(address.partition('%')[0] + '/128').supernet(new_prefix=64)}"
    wide = ("", "::/0", "0.0.0.0/0, ::/0", narrow, f"{narrow}, 10.0.0.0/8")
    for cidrs in wide:
        rules = allowing(cidrs)
        with pytest.raises(AddressRefused):
            rules.check_address(address)
        with pytest.raises((AddressRefused, InvalidRequest)):
            rules.check_url(f"https://[{address}]/")
    assert not allowing("::/0").shows_answers_of(address)


@pytest.mark.parametrize(
    ("cidrs", "address", "good"),
    [
        ("::/0", "2002:808:808::1", True),
        ("::/0", "64:ff9b:1::808:808", True),
        ("::/0", "2001:0:808:808:8000:1:f7f7:f7f7", True),
        ("::/0", "2002:a01:203::1", False),
        ("::/0, 10.0.0.0/8", "2002:a01:203::1", True),
        ("10.0.0.0/8", "2002:a01:203::1", False),
        ("::/0", "::7f00:1", False),
        ("::/0", "64:ff9b:1::7f00:1", False),
        ("64:ff9b:1::a9fe:a9fe/128", "64:ff9b:1::a9fe:a9fe", True),
        (f"::/0, {METADATA}", "2002:a9fe:a9fe::1", True),
        ("", "2606:4700::5efe:8.8.8.8", True),
        ("", "2606:4700::5efe:10.0.0.1", False),
        ("::/0", "::1", True),
        ("::1", "::1", True),
    ],
)
def test_what_an_ipv6_address_leads_to_must_be_allowed_too(
    cidrs: str, address: str, good: bool
) -> None:
    rules = allowing(cidrs)
    if good:
        rules.check_address(address)
    else:
        with pytest.raises(AddressRefused):
            rules.check_address(address)


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("169.254.169.254/32", "169.254.169.254"),
        ("169.254.7.0/24", "169.254.7.9"),
        ("100.100.100.200", "100.100.100.200"),
        ("fd00:ec2::254", "fd00:ec2::254"),
        ("fe80::/64", "fe80::1"),
        ("0.0.0.0/0", "10.9.9.9"),
        ("::/0", "fd00::1"),
    ],
)
def test_an_entry_that_means_it_opens_what_it_names(entry: str, address: str) -> None:
    allowing(entry).check_address(address)


def test_what_only_an_allowlist_reached_is_not_shown() -> None:
    private = AddressRules(allow_loopback=True, allow_cidrs=parse_cidrs("10.0.0.0/8"))
    assert not private.shows_answers_of("10.0.0.1")
    assert private.shows_answers_of("127.0.0.1")
    assert private.shows_answers_of("8.8.8.8")
    assert not allowing("127.0.0.0/8").shows_answers_of("127.0.0.1")


def test_cidrs_are_read_with_commas_or_spaces() -> None:
    assert parse_cidrs(" 10.0.0.0/8,fd00::/8  192.168.1.7 ") == (
        ip_network("10.0.0.0/8"),
        ip_network("fd00::/8"),
        ip_network("192.168.1.7/32"),
    )
    assert parse_cidrs("") == ()
    assert parse_cidrs("::ffff:10.0.0.0/104") == (ip_network("10.0.0.0/8"),)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "example.com", "10.0.0.0/8;x"])
def test_a_wrong_cidr_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match="BATCHBELL_ALLOW_CIDRS"):
        parse_cidrs(text)


@given(st.sampled_from([*STRICT, *REFUSED]), st.data())
def test_every_address_of_every_refused_network_is_refused(
    entry: tuple[object, str], data: st.DataObject
) -> None:
    network = ip_network(str(entry[0]))
    offset = data.draw(st.integers(0, network.num_addresses - 1))
    address = network[offset]
    judged = parse_address(str(address))
    if judged != address:  # one that embeds an IPv4 address is judged as that
        return
    with pytest.raises(AddressRefused):
        PUBLIC.check_address(str(address))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_in_every_spelling(address: IPv4Address) -> None:
    number = int(address)
    embedded = (IPv6Address((0xFFFF << 32) | number), IPv6Address((0x64FF9B << 96) | number))
    for form in embedded:
        assert refused_kind(parse_address(str(form))) == refused_kind(address)
    forms = (str(number), hex(number), f"0{number:o}", f"{address}.")
    for form in forms:
        expected = AddressRefused if refused_kind(address) else InvalidRequest
        with pytest.raises(expected):
            PUBLIC.check_url(f"https://{form}/")


@given(st.ip_addresses(v=6))
def test_only_given_out_ipv6_is_public(address: IPv6Address) -> None:
    public = refused_kind(parse_address(str(address))) is None
    outside = address not in ip_network("2000::/3")
    embeds = parse_address(str(address)) != ip_address(str(address))
    assert not (public and outside) or embeds


@given(st.text(max_size=60))
def test_no_text_breaks_the_check(text: str) -> None:
    for url in (text, f"https://{text}/", f"https://example.com/{text}", f"http://{text}"):
        try:
            target = PUBLIC.target(url)
        except (InvalidRequest, AddressRefused):
            continue
        assert target.scheme == "https"
        assert str(target).isascii()
