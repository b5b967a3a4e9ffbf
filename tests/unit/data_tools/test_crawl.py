"""The crawl against a server that misbehaves in every way we could think of."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import hashlib
import json
import tarfile
import threading
from datetime import datetime, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools import crawl_rules
from data_tools.crawl import crawl
from data_tools.crawl_settings import Outside, Pace
from facerec.checks import JobError
from facerec.data.tars import read_tars

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
WEBP = b"RIFF\x64\0\0\0WEBPVP8 " + bytes(100)
NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
QUICK = Pace(timeout_s=20.0, host_delay_s=0.0, retries=2, backoff_s=1.0)


class Server:
    """Answers by path, in bytes that no honest server would send; remembers who asked what."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True)

    async def serve(self):
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await self.stop.wait()
        server.close()

    async def answer(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split()[1]
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            host = fields["Host"].partition(":")[0]
            self.asked.append((host, path, fields))
            answers = self.answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            if isinstance(answers, list):
                answers = answers.pop(0) if len(answers) > 1 else answers[0]
            if callable(answers):
                await answers(writer)
            else:
                writer.write(answers)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def put(self, path, body=JPEG, status="200 OK", *fields, length=None):
        lines = [f"HTTP/1.1 {status}", "Connection: close", *fields]
        lines.append(f"Content-Length: {len(body) if length is None else length}")
        self.answers[path] = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        return self.answers[path]

    def paths(self, host="a.test"):
        return [path for asked, path, _ in self.asked if asked == host]


@pytest.fixture
def server():
    one = Server()
    one.thread.start()
    assert one.ready.wait(10)
    yield one
    one.loop.call_soon_threadsafe(one.stop.set)
    one.thread.join(10)


class FakeTime:
    """A clock that only sleeping moves, and that remembers how long one slept."""

    def __init__(self):
        self.seconds = 100.0
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)


async def look_up(host, port):
    if host == "unknown.test":
        import socket

        raise socket.gaierror(socket.EAI_NONAME, "unknown")
    return ["127.0.0.9"] if host == "inner.test" else ["127.0.0.1"]


def run(tmp_path, server, paths, host="a.test", pace=QUICK, **others):
    """Crawl paths of one host, or whole addresses; return rows, figures and the time's record."""
    urls = [p if "://" in p or p[:1] != "/" else f"http://{host}:{server.port}{p}" for p in paths]
    table = pa.table({"identity": [f"p{i}" for i in range(len(urls))], "url": urls})
    pq.write_table(table, tmp_path / "list.parquet")
    time = FakeTime()
    outside = Outside(time.sleep, lambda: time.seconds, lambda: NOW, look_up)
    settings = {"allow_private": True, "max_bytes": 20_000, **others}
    out = tmp_path / "crawl"
    figures = crawl(tmp_path / "list.parquet", out, pace=pace, outside=outside, **settings)
    shards = sorted(out.glob("*.parquet"))
    return pa.concat_tables([pq.read_table(s) for s in shards]).to_pylist(), figures, time.slept


def only(rows):
    assert len(rows) == 1
    return rows[0]["reason"], rows[0]["http_status"]


def test_pictures_rows_and_members(server, tmp_path):
    for path, body in (("/a.php", JPEG), ("/b.jpg", PNG), ("/c", WEBP)):
        server.put(path, body)
    rows, figures, _ = run(tmp_path, server, ["/a.php", "/b.jpg", "/gone", "/c"], shard_rows=3)
    assert [row["status"] for row in rows] == ["success"] * 2 + ["failed_to_download", "success"]
    assert [row["key"] for row in rows] == ["000000", "000001", "000002", "000010"]
    assert rows[2]["reason"] == "http_404" and rows[2]["sha256"] is None
    assert rows[0]["error_message"] is None and rows[0]["reason"] is None
    assert rows[0]["sha256"] == hashlib.sha256(JPEG).hexdigest()
    assert rows[0]["bytes"] == len(JPEG) and rows[0]["fetched_at"] == NOW
    assert rows[3]["identity"] == "p3" and rows[3]["url"].endswith("/c")
    with tarfile.open(tmp_path / "crawl" / "00000.tar") as archive:
        names = archive.getnames()
        assert names == ["000000.jpg", "000000.json", "000001.png", "000001.json"]
        assert archive.extractfile("000000.jpg").read() == JPEG
        label = json.load(archive.extractfile("000001.json"))
    assert label["identity"] == "p1" and label["sha256"] == hashlib.sha256(PNG).hexdigest()
    assert figures["success"] == 3 and figures["reasons"] == {"http_404": 1}
    assert figures["bytes"] == len(JPEG) + len(PNG) + len(WEBP)
    # Our own reader of WebDataset takes it.
    assert read_tars(tmp_path / "crawl").identities == ("p0", "p1", "p3")


def test_who_asks_is_said_and_no_cookie_comes_back(server, tmp_path):
    server.put("/a", JPEG, "200 OK", "Set-Cookie: who=me")
    run(tmp_path, server, ["/a", "/a"], agent="bot/2", contact="me@example.org")
    for _, _, fields in server.asked:
        assert fields["User-Agent"] == "bot/2 (+me@example.org)" and "Cookie" not in fields


async def drip(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + JPEG[:40])
    for _ in range(400):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\xff\xd8\xff")
    for _ in range(10_000):
        writer.write(bytes(1 << 16))
        await writer.drain()


async def cut(writer):
    writer.transport.abort()


async def cut_late(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + JPEG)
    await writer.drain()
    await asyncio.sleep(0.01)
    writer.transport.abort()


def test_a_drip_is_cut_by_time_and_tried_again(server, tmp_path):
    server.answers["/drip"] = drip
    pace = dataclasses.replace(QUICK, timeout_s=0.15, retries=1)
    rows, _, slept = run(tmp_path, server, ["/drip"], pace=pace)
    assert only(rows) == ("timeout", 200) and server.paths().count("/drip") == 2
    assert len(slept) == 1 and 0.5 <= slept[0] <= 1.0


@pytest.mark.parametrize(
    ("body", "status", "fields", "length", "reason"),
    [
        (JPEG, "200 OK", (), 5000, "connection"),  # less than it promised
        (JPEG, "200 OK", (), 10**12, "too_large"),
        (b"", "200 OK", (), None, "empty"),
        (b"<html>" * 9, "200 OK", ("Content-Type: image/jpeg",), None, "not_a_picture"),
        (JPEG, "206 Partial Content", (), None, "http_206"),
        (JPEG, "200 OK", ("X-Robots-Tag: noai",), None, "x_robots_tag"),
        (JPEG, "200 OK", ("X-Robots-Tag: otherbot: noindex",), None, None),
        (JPEG, "200 OK", ("X-Robots-Tag: facerec-clean: all, noindex",), None, "x_robots_tag"),
        (gzip.compress(JPEG, mtime=0), "200 OK", ("Content-Encoding: gzip",), None, None),
        (
            gzip.compress(JPEG, mtime=0)[:60],
            "200 OK",
            ("Content-Encoding: gzip",),
            None,
            "connection",
        ),
        (
            gzip.compress(bytes(10**7), mtime=0),
            "200 OK",
            ("Content-Encoding: gzip",),
            None,
            "too_large",
        ),
        (JPEG, "200 OK", ("Content-Encoding: br",), None, "bad_encoding"),
        (b"", "302 Found", ("Location: ftp://a.test/x",), None, "bad_url"),
        (b"", "302 Found", ("Location: http://u:p@a.test/x",), None, "credentials"),
        (b"", "302 Found", ("Location: http://[x/",), None, "bad_redirect"),
        (b"", "302 Found", (), None, "http_302"),
        (b"", "302 Found", ("Location: /x",), None, "too_many_redirects"),
        (b"", "301 Moved", ("Location: /x", "X-Robots-Tag: none"), None, "x_robots_tag"),
    ],
)
def test_one_bad_answer(server, tmp_path, body, status, fields, length, reason):
    server.put("/x", body, status, *fields, length=length)
    rows, figures, _ = run(tmp_path, server, ["/x"])
    assert rows[0]["reason"] == reason
    assert rows[0]["bytes"] == (len(JPEG) if reason is None else None)
    assert figures["reasons"] == ({} if reason is None else {reason: 1})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (flood, ("too_large", 200)),
        (cut, ("connection", None)),
        (b"SSH-2.0-OpenSSH_9\r\n", ("bad_response", None)),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, ("bad_response", None)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", ("bad_response", None)),
    ],
)
def test_one_bad_connection(server, tmp_path, answer, expected):
    server.answers["/x"] = answer
    assert only(run(tmp_path, server, ["/x"])[0]) == expected


def test_a_failure_that_passes_gives_the_picture(server, tmp_path):
    fault, good = server.put("/x", b"", "500 Oops"), server.put("/x")
    server.answers["/x"] = [fault, cut_late, good]
    rows, _, slept = run(tmp_path, server, ["/x"])
    assert only(rows) == (None, 200)
    assert 0.5 <= slept[0] <= 1.0 and 1.0 <= slept[1] <= 2.0


def test_retry_after_is_waited_for_by_the_whole_host(server, tmp_path):
    busy = server.put("/x", b"", "429 Too Many", "Retry-After: 40")
    server.answers["/x"] = [busy, server.put("/x")]
    rows, _, slept = run(tmp_path, server, ["/x"], pace=dataclasses.replace(QUICK, max_wait_s=60))
    assert only(rows) == (None, 200) and sum(slept) == pytest.approx(40)


def test_a_host_that_asks_for_hours_is_left_alone(server, tmp_path):
    server.put("/x", b"", "503 Busy", "Retry-After: 7200")
    pace = dataclasses.replace(QUICK, per_host=1)
    rows, figures, _ = run(tmp_path, server, ["/x"] * 5, pace=pace)
    assert server.paths().count("/x") == 1
    assert figures["reasons"] == {"host_busy": 4, "http_503": 1}
    assert "7200 s" in rows[0]["error_message"]


def test_a_dead_host_gets_a_rest(server, tmp_path):
    server.answers["/x"] = cut
    pace = dataclasses.replace(QUICK, per_host=1, host_failures=4, retries=0)
    _, figures, _ = run(tmp_path, server, ["/x"] * 20, pace=pace)
    assert figures["reasons"] == {"host_down": 16, "connection": 4}
    # aiohttp asks a second time, at once, where a connection it keeps ends without an answer.
    assert 4 <= server.paths().count("/x") <= 8


def test_requests_to_one_host_are_spaced(server, tmp_path):
    server.put("/x")
    pace = dataclasses.replace(QUICK, per_host=1, host_delay_s=0.5)
    _, _, slept = run(tmp_path, server, ["/x"] * 4, pace=pace)
    assert sum(slept) == pytest.approx(4 * 0.5)  # robots.txt is a request too
    server.put("/robots.txt", b"User-agent: *\nCrawl-delay: 3")
    (tmp_path / "slow").mkdir()
    _, _, slept = run(tmp_path / "slow", server, ["/x"] * 4, pace=pace)
    assert sum(slept) == pytest.approx(0.5 + 3 * 3.0)


def test_robots_are_honoured(server, tmp_path):
    server.put("/robots.txt", b"User-agent: *\nDisallow: /private/\nDisallow: /*.gif$\n")
    for path in ("/private/x", "/x.gif", "/x", "/to"):
        server.put(path)
    server.put("/to", b"", "302 Found", "Location: /private/x")
    rows, _, _ = run(tmp_path, server, ["/private/x", "/x.gif", "/x", "/to"])
    assert [row["reason"] for row in rows] == ["robots", "robots", None, "robots"]
    assert sorted(server.paths()) == ["/robots.txt", "/to", "/x"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [("404 No", None), ("403 No", None), ("500 Oops", "robots_unreachable")],
)
def test_a_robots_file_that_is_not_there_or_not_known(server, tmp_path, status, reason):
    server.put("/robots.txt", b"", status)
    server.put("/x")
    rows, _, _ = run(tmp_path, server, ["/x", "/x"])
    assert [row["reason"] for row in rows] == [reason] * 2
    assert server.paths().count("/robots.txt") == (3 if reason else 1)


def test_private_addresses_are_refused_however_one_gets_there(server, tmp_path, monkeypatch):
    # Here 127.0.0.1 plays the internet, and all else is private.
    monkeypatch.setattr(crawl_rules, "is_public", lambda address: address == "127.0.0.1")
    inner = f"http://inner.test:{server.port}/x"
    server.put("/to", b"", "302 Found", f"Location: {inner}")
    server.put("/ip", b"", "302 Found", f"Location: http://127.0.0.9:{server.port}/x")
    server.put("/x")
    urls = ["/x", "/to", "/ip", inner, "http://[::1]/x", "http://127.1/x", "http://2130706433/x"]
    rows, _, _ = run(tmp_path, server, urls, allow_private=False)
    assert [row["reason"] for row in rows] == [None, *["private_address"] * 4, *["bad_url"] * 2]
    assert {host for host, *_ in server.asked} == {"a.test"}


def test_opt_outs_are_never_asked_for(server, tmp_path):
    for path in ("/x", "/no/x"):
        server.put(path)
    (tmp_path / "no.txt").write_text(f"# said so\nb.test\nP3\nhttps://a.test:{server.port}/no/\n")
    other = f"http://www.b.test:{server.port}/x"
    server.put("/to", b"", "302 Found", f"Location: {other}")
    urls = ["/x", "/no/x", other, "/x", "/to"]
    rows, _, _ = run(tmp_path, server, urls, opt_out=tmp_path / "no.txt")
    assert [row["reason"] for row in rows] == [None, *["opt_out"] * 4]
    assert sorted(server.paths()) == ["/robots.txt", "/to", "/x"]
    assert not server.paths("www.b.test")


def test_addresses_that_are_none_get_a_row(server, tmp_path):
    urls = ["", "no address", "ftp://a.test/", "http://u:p@a.test/", "http://unknown.test/x"]
    rows, figures, _ = run(tmp_path, server, urls)
    found = [row["reason"] for row in rows]
    assert found == ["bad_url", "bad_url", "bad_url", "credentials", "dns"]
    assert figures["failed"] == 5 and not server.asked
    with tarfile.open(tmp_path / "crawl" / "00000.tar") as archive:
        assert archive.getnames() == []


def test_when_nobody_answers_the_crawl_stops_and_keeps_the_list(server, tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.crawl_hosts.OFFLINE_HOSTS", 8)
    server.answers["/robots.txt"] = cut
    urls = [f"http://h{i}.test:{server.port}/x" for i in range(30)]
    with pytest.raises(JobError, match="check the network"):
        run(tmp_path, server, urls)
    assert sorted(p.name for p in (tmp_path / "crawl").iterdir()) == [".lock", "crawl.json"]
