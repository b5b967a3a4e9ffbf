"""robots.txt: RFC 9309's own examples and what real files hold."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.crawl_hosts import Hosts
from data_tools.crawl_robots import Robots, RobotsCache, _matches, parse_robots
from data_tools.crawl_rules import parse_url
from data_tools.crawl_settings import FetchError, Outside, Pace


def allows(text, path, agent="mybot"):
    return parse_robots(text, agent).allows(path)


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("Disallow:", "/x", True),
        ("Disallow: /", "/x", False),
        ("Disallow: /fish", "/fish.html", False),
        ("Disallow: /fish", "/Fish.asp", True),
        ("Disallow: /fish/", "/fish", True),
        ("Disallow: /*.php", "/a/b.php?x", False),
        ("Disallow: /*.php$", "/b.php?x", True),
        ("Disallow: /*.php$", "/a/b.php", False),
        ("Disallow: /a*b*c", "/axxbyyc", False),
        ("Disallow: /a*b*c", "/axxcyyb", True),
        ("Disallow: /x$", "/x", False),
        ("Disallow: /x$", "/xy", True),
        ("Disallow: /a*a$", "/a", True),
        # The longest match decides, whatever stands first; of two as long, Allow.
        ("Disallow: /p\nAllow: /page", "/page", True),
        ("Allow: /p\nDisallow: /page", "/page", False),
        ("Disallow: /folder\nAllow: /folder", "/folder/page", True),
        ("Disallow: /a?b=*&c", "/a?b=1&c=2", False),
        ("Disallow: /%7euser/%c3%bc", "/~user/ü", False),
        ("Disallow: /ü", "/%C3%BC", False),
        ("Disallow: /a%2Fb", "/a/b", True),
        ("disallow : /x # a comment", "/x", False),
        ("Sitemap: http://a.test/s.xml\nnonsense\nDisallow /x", "/x", True),
    ],
)
def test_rules(rules, path, allowed):
    assert allows(f"User-agent: *\n{rules}", path) is allowed


def test_groups():
    text = (
        "\ufeffUser-agent: otherbot\nUser-agent: MyBot/1.0\nDisallow: /a\n\n"
        "User-agent: *\nDisallow: /\nAllow: /star\n"
        "User-agent: mybot\nDisallow: /b\n"
    )
    assert [allows(text, path) for path in ("/a", "/b", "/c")] == [False, False, True]
    assert [allows(text, path, "third") for path in ("/c", "/star")] == [False, True]
    assert allows(text, "/b", "otherbot") and not allows(text, "/a", "otherbot")
    assert allows("", "/x") and allows("Disallow: /", "/x")  # rules of nobody
    assert allows("User-agent: robots-my\nDisallow: /", "/x")
    # A named group without a rule frees its agent of the rules for all others.
    assert allows("User-agent: mybot\nDisallow:\nUser-agent: *\nDisallow: /", "/x")


def test_crawl_delay():
    assert parse_robots("User-agent: *\nCrawl-delay: 2.5", "mybot").delay_s == 2.5
    assert parse_robots("User-agent: *\nCrawl-delay: soon", "mybot").delay_s == 0
    assert parse_robots("User-agent: x\nCrawl-delay: 9", "mybot").delay_s == 0


@given(st.text("ab*$", max_size=8), st.text("ab", max_size=8))
def test_a_pattern_matches_as_its_regular_expression_does(pattern, path):
    ends = pattern.endswith("$")
    body = pattern[:-1] if ends else pattern
    expression = ".*".join(re.escape(part) for part in body.split("*")) + (r"\Z" if ends else "")
    assert _matches(pattern, path) == (re.match(expression, path) is not None)


def test_a_hostile_pattern_costs_nothing():
    rules = Robots(((("/" + "a*" * 5000 + "b"), False),))
    assert rules.allows("/" + "a" * 8000)


def ask(answers, urls, pace=None, clock=None):
    """Check addresses in turn; return reasons, the robots.txt asked for and the hosts."""
    asked = []

    async def fetch(url):
        asked.append(str(url))
        answer = answers[url.host]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def check_all():
        used = pace or Pace()
        outside = Outside(clock=clock or (lambda: 0.0))
        cache = RobotsCache(fetch, "mybot", Hosts(used, outside), used, outside)
        results = await asyncio.gather(
            *(cache.check(parse_url(url)) for url in urls), return_exceptions=True
        )
        return [getattr(result, "reason", result) for result in results]

    return asyncio.run(check_all()), asked


def test_one_robots_file_an_origin():
    urls = ["http://a.test/x", "http://a.test/y", "https://a.test/x", "http://a.test:8080/no"]
    reasons, asked = ask({"a.test": "User-agent: *\nDisallow: /no"}, urls)
    assert reasons == [None, None, None, "robots"]
    assert sorted(asked) == [
        "http://a.test/robots.txt",
        "http://a.test:8080/robots.txt",
        "https://a.test/robots.txt",
    ]


def test_what_is_not_known_is_forbidden():
    answers = {
        "none.test": None,
        "down.test": FetchError("http_503", "the server answers 503"),
        "gone.test": FetchError("dns", "gone.test is not found"),
        "slow.test": "User-agent: *\nCrawl-delay: 900",
    }
    reasons, _ = ask(answers, [f"http://{host}/x" for host in answers])
    assert reasons == [None, "robots_unreachable", "dns", "robots"]


def test_an_answer_lasts_a_day_and_a_fault_minutes():
    time = {"now": 0.0}
    answers = {"a.test": FetchError("timeout", "late"), "b.test": ""}
    asked = []

    async def fetch(url):
        asked.append(url.host)
        if isinstance(answers[url.host], Exception):
            raise answers[url.host]
        return answers[url.host]

    async def check_all():
        pace, outside = Pace(), Outside(clock=lambda: time["now"])
        cache = RobotsCache(fetch, "mybot", Hosts(pace, outside), pace, outside)
        for now in (0, 200, 400, 90_000):
            time["now"] = float(now)
            for host in ("a.test", "b.test"):
                await asyncio.gather(
                    cache.check(parse_url(f"http://{host}/")), return_exceptions=True
                )
            await asyncio.sleep(0)

    asyncio.run(check_all())
    assert asked == ["a.test", "b.test", "a.test", "a.test", "b.test"]
