"""Addresses, tags, opt-outs and first bytes: what may be fetched and what may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.crawl_rules import (
    OptOut,
    check_host,
    check_tags,
    guess_suffix,
    host_of,
    is_public,
    join_url,
    origin_of,
    parse_url,
    read_opt_out,
)
from data_tools.crawl_settings import (
    FetchError,
    Outside,
    Pace,
    build_agent,
    product_token,
)
from facerec.checks import InputError

PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::", "64:ff9b::808:808"]
PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.1.1"),
    *("0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "::1", "::"),
    *("fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::7f00:1"),
    *("2002:7f00:1::", "2002:a00:1::", "64:ff9b::7f00:1", "2001:db8::1", "no address", ""),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address):
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_however_it_is_wrapped(address):
    assert is_public(f"::ffff:{address}") == is_public(str(address))
    nat64 = f"64:ff9b::{int(address) >> 16:x}:{int(address) & 0xFFFF:x}"
    assert is_public(nat64) == is_public(str(address))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "bad_url"),
        ("//a.test/x", "bad_url"),
        ("http:///x", "bad_url"),
        ("http://a b/x", "bad_url"),
        ("http://a.test:99999/", "bad_url"),
        ("http://a.test:0/", "bad_url"),
        ("file:///etc/passwd", "bad_url"),
        ("gopher://a.test/", "bad_url"),
        ("http://me@a.test/", "credentials"),
        ("http://:pw@a.test/", "credentials"),
    ],
)
def test_addresses_that_are_refused(text, reason):
    with pytest.raises(FetchError) as caught:
        parse_url(text)
    assert caught.value.reason == reason


def test_addresses_are_asked_for_as_they_stand():
    url = parse_url(" HTTP://A.Test:80/x%2Fy%28?sig=a%2Bb%3D#part ")
    assert url.raw_path_qs == "/x%2Fy%28?sig=a%2Bb%3D" and not url.fragment
    assert host_of(url) == "a.test" and origin_of(url) == "http://a.test:80"
    assert origin_of(parse_url("https://a.test./x")) == "https://a.test:443"
    assert parse_url("http://bücher.test/ü b").raw_path == "/%C3%BC%20b"
    assert host_of(parse_url("http://bücher.test/")) == "xn--bcher-kva.test"
    assert origin_of(parse_url("http://[::1]:8080/x")) == "http://[::1]:8080"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/c?d", "http://a.test/c?d"),
        ("c", "http://a.test/x/c"),
        ("//b.test/c", "http://b.test/c"),
        ("https://b.test/ä", "https://b.test/%C3%A4"),
    ],
)
def test_redirects_are_joined(location, target):
    assert str(join_url(parse_url("http://a.test/x/y?z"), location)) == target


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0x7f000001", "1.2.3.4.5"])
def test_numbers_that_resolvers_take_for_addresses(host):
    with pytest.raises(FetchError, match="no plain IP address"):
        check_host(parse_url(f"http://{host}/"), allow_private=True)


def test_hosts_that_are_addresses():
    check_host(parse_url("http://8.8.8.8/"), allow_private=False)
    check_host(parse_url("http://a1.0x.test/"), allow_private=False)
    for host in ("127.0.0.1", "127.0.0.1.", "[::1]", "[::ffff:10.0.0.1]"):
        check_host(parse_url(f"http://{host}/"), allow_private=True)
        with pytest.raises(FetchError, match="no public address"):
            check_host(parse_url(f"http://{host}/"), allow_private=False)


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ([], False),
        (["all"], False),
        (["NoAI"], True),
        (["nofollow , noimageai"], True),
        (["none"], True),
        (["nofollow", "noindex"], True),
        (["otherbot: noindex, nofollow"], False),
        (["otherbot: noindex", "noai"], True),
        (["mybot: noindex"], True),
        (["otherbot: all, MyBot: nofollow, noai"], True),
        (["*: noai"], True),
        (["max-image-preview: large, noai"], True),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST"], False),
    ],
)
def test_tags(values, refused):
    if not refused:
        check_tags(values, "mybot")
        return
    with pytest.raises(FetchError) as caught:
        check_tags(values, "mybot")
    assert caught.value.reason == "x_robots_tag"


def refuses(opt_out, url):
    try:
        opt_out.check_url(parse_url(url))
    except FetchError as error:
        return error.reason == "opt_out"
    return False


def test_opt_out_hosts_and_beginnings():
    opt_out = OptOut(
        ["# a comment", "", "Example.test", "bücher.test", "https://a.test/Private/%7Eme"]
    )
    assert refuses(opt_out, "http://example.test:81/x")
    assert refuses(opt_out, "http://www.example.test./x")
    assert not refuses(opt_out, "http://notexample.test/x")
    assert refuses(opt_out, "http://xn--bcher-kva.test/")
    assert refuses(opt_out, "http://a.test/Private/~me/x.jpg")
    assert not refuses(opt_out, "http://a.test/private/~me/x.jpg")
    assert not refuses(opt_out, "http://b.a.test/Private/~me")


def test_opt_out_identities():
    opt_out = OptOut(["Jane   Doe\n", "ÉVA"])
    for name in ("jane doe", "JANE DOE ", "éva"):
        with pytest.raises(FetchError, match="opt-out list"):
            opt_out.check_identity(name)
    opt_out.check_identity("Jane Does")
    opt_out.check_identity("")


def test_opt_out_files(tmp_path):
    path = tmp_path / "no.txt"
    path.write_text("\ufeffa.test\r\n", encoding="utf-8")
    assert refuses(read_opt_out(path), "http://a.test/")
    path.write_text("fine.test\nftp://x/\n")
    with pytest.raises(InputError, match="line 2 must be a host, an address or an identity"):
        read_opt_out(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_opt_out(path)
    with pytest.raises(InputError, match="does not exist"):
        read_opt_out(tmp_path / "gone.txt")
    assert not refuses(read_opt_out(None), "http://a.test/")


@pytest.mark.parametrize(
    ("start", "suffix"),
    [
        (b"\xff\xd8\xff\xe1", "jpg"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"RIFF\0\0\0\0WEBPVP8L", "webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"GIF89a", "gif"),
        (b"BM" + bytes(12) + b"\x28\0\0\0", "bmp"),
        (b"BMW, the cars that everybody knows", None),
        (b"<!doctype html>", None),
        (b"", None),
    ],
)
def test_first_bytes(start, suffix):
    assert guess_suffix(start) == suffix


def test_agents():
    assert build_agent("bot/1.0", None) == "bot/1.0"
    assert build_agent("bot", "a@b.test") == "bot (+a@b.test)"
    assert product_token("My-Bot/2 (+x)") == "my-bot"
    for agent, contact in (("", None), ("1bot", None), ("bot/1\r\nX: y", None), ("bot", "ä@b")):
        with pytest.raises(InputError, match="agent must be a name"):
            build_agent(agent, contact)


@pytest.mark.parametrize(
    ("name", "value"),
    [("concurrency", 0), ("per_host", 1.5), ("timeout_s", 0), ("host_delay_s", -1)],
)
def test_bad_pace(name, value):
    with pytest.raises(InputError, match=name):
        Pace(**{name: value})


def test_the_real_outside_looks_up_and_tells_the_time():
    import asyncio

    outside = Outside()
    assert asyncio.run(outside.look_up("127.0.0.1", 80)) == ["127.0.0.1"]
    assert outside.now().utcoffset().total_seconds() == 0
