"""Turns: how many at once, how far apart, and who rests."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from itertools import pairwise

import pytest

from data_tools import crawl_hosts
from data_tools.crawl_client import read_retry_after
from data_tools.crawl_hosts import Hosts
from data_tools.crawl_settings import FetchError, Outside, Pace
from facerec.checks import JobError


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 0.0

    async def sleep(self, seconds):
        self.now += seconds
        await asyncio.sleep(0)

    def outside(self):
        return Outside(sleep=self.sleep, clock=lambda: self.now)


@pytest.mark.parametrize(("concurrency", "each", "together"), [(30, 2, 6), (6, 2, 6), (1, 1, 1)])
def test_no_more_at_once_than_allowed(concurrency, each, together):
    async def check():
        hosts = Hosts(
            Pace(concurrency=concurrency, per_host=2, host_delay_s=0), FakeTime().outside()
        )
        busy = {"a": 0, "b": 0, "c": 0}
        most = dict.fromkeys([*busy, "all"], 0)

        async def request(name):
            async with hosts.slot(name):
                busy[name] += 1
                most[name] = max(most[name], busy[name])
                most["all"] = max(most["all"], sum(busy.values()))
                for _ in range(3):
                    await asyncio.sleep(0)
                busy[name] -= 1

        await asyncio.gather(*(request(name) for name in "abc" * 20))
        return most

    assert asyncio.run(check()) == {**dict.fromkeys("abc", each), "all": together}


def starts(pace, act=lambda hosts, number: None, rows=4):
    """Return when each of some requests to one host begins; `act` is called at each."""
    time = FakeTime()
    found = []

    async def check():
        hosts = Hosts(pace, time.outside())
        for number in range(rows):
            async with hosts.slot("a"):
                found.append(time.now)
                act(hosts, number)

    asyncio.run(check())
    return found


def test_requests_are_spaced():
    assert starts(Pace(host_delay_s=0.5)) == [0, 0.5, 1, 1.5]
    slowed = starts(Pace(host_delay_s=0.5), lambda hosts, number: hosts.slow("a", 2.0))
    assert slowed == [0, 0.5, 2.5, 4.5]
    # A robots.txt may slow us down, never up.
    assert starts(Pace(host_delay_s=3), lambda hosts, number: hosts.slow("a", 1.0))[1:3] == [3, 6]


def test_a_pause_holds_a_host_back():
    def act(hosts, number):
        if number == 1:
            hosts.pause("a", 10)
            hosts.pause("a", 4)  # a shorter one changes nothing

    assert starts(Pace(host_delay_s=1), act) == [0, 1, 11, 12]


def test_two_that_wait_for_one_host_do_not_go_together():
    time = FakeTime()
    found = []

    async def check():
        hosts = Hosts(Pace(per_host=3, host_delay_s=1), time.outside())

        async def request(number):
            async with hosts.slot("a"):
                found.append(time.now)
                if number == 0:
                    hosts.pause("a", 10)

        await asyncio.gather(*(request(number) for number in range(4)))

    asyncio.run(check())
    assert all(later - earlier >= 1 for earlier, later in pairwise(found[1:]))
    assert found[0] == 0 and found[1] >= 10


def test_a_host_that_fails_rests_and_is_tried_again():
    time = FakeTime()
    hosts = Hosts(Pace(host_failures=3, host_pause_s=60, host_delay_s=0), time.outside())

    async def request():
        async with hosts.slot("a"):
            return "in"

    for _ in range(2):
        hosts.count_failure("a")
    hosts.count_answer("a")
    for _ in range(2):
        hosts.count_failure("a")
    assert asyncio.run(request()) == "in"
    hosts.count_failure("a")
    with pytest.raises(FetchError) as caught:
        asyncio.run(request())
    assert caught.value.reason == "host_down"
    time.now = 61.0
    assert asyncio.run(request()) == "in"
    hosts.count_failure("a")  # one more failure is enough now
    with pytest.raises(FetchError):
        asyncio.run(request())


def test_rows_in_the_queue_of_a_host_that_closes_fail():
    async def check():
        hosts = Hosts(Pace(per_host=1, host_delay_s=0), FakeTime().outside())

        async def request():
            async with hosts.slot("a"):
                await asyncio.sleep(0)
                hosts.close("a", 60, "host_busy", "later")

        results = await asyncio.gather(*(request() for _ in range(4)), return_exceptions=True)
        return [getattr(result, "reason", None) for result in results]

    assert asyncio.run(check()) == [None, "host_busy", "host_busy", "host_busy"]


def test_nobody_at_all_answers():
    hosts = Hosts(Pace(), FakeTime().outside())
    for number in range(crawl_hosts.OFFLINE_HOSTS - 1):
        hosts.count_failure(f"{number}.test")
        hosts.count_failure(f"{number}.test")
    hosts.count_answer("b.test")
    for number in range(crawl_hosts.OFFLINE_HOSTS - 1):
        hosts.count_failure(f"{number}.test")
    with pytest.raises(JobError, match="run the same command to go on"):
        hosts.count_failure("last.test")


def test_idle_hosts_are_forgotten_and_closed_ones_are_not(monkeypatch):
    monkeypatch.setattr(crawl_hosts, "_MANY_HOSTS", 10)
    time = FakeTime()

    async def check():
        hosts = Hosts(Pace(host_delay_s=1), time.outside())
        hosts.close("closed", 1000, "host_busy", "later")
        async with hosts.slot("held"):
            for number in range(200):
                async with hosts.slot(f"h{number}"):
                    time.now += 1.5
            assert len(hosts._hosts) <= 12
            assert {"closed", "held"} <= set(hosts._hosts)

    asyncio.run(check())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 59),
        ("Fri, 31 Dec 1999 23:00:00 GMT", 0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
    ],
)
def test_retry_after(text, seconds):
    now = datetime(1999, 12, 31, 23, 59, 0, tzinfo=timezone.utc)
    assert read_retry_after(text, Outside(now=lambda: now)) == seconds
