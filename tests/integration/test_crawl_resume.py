"""A crawl that is killed, stopped or out of disk goes on and ends as if nothing had been."""

from __future__ import annotations

import errno
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_tools import crawl_shards
from data_tools.crawl import crawl
from data_tools.crawl_settings import Pace
from facerec.checks import InputError, MissingPackageError
from facerec.cli.clean_crawl import add_crawl
from facerec.command import build_parser, run_command

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK = Pace(host_delay_s=0.0, retries=0, per_host=4)
ROWS = 17


class Handler(http.server.BaseHTTPRequestHandler):
    """Every path but a few is a picture of its own."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        found = not self.path.endswith(("3", "robots.txt"))
        body = b"\xff\xd8\xff" + self.path.encode() * 40 if found else b""
        self.server.asked.append(self.path)
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        one.daemon_threads, one.block_on_close = True, False
        one.asked = []
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


@pytest.fixture
def listing(server, tmp_path):
    lines = [f"p{i},http://127.0.0.1:{server.server_port}/{i}" for i in range(ROWS)]
    path = tmp_path / "list.csv"
    path.write_text("\n".join(["identity,url", *lines]) + "\n")
    server.asked.clear()
    return path


def fetch(listing, out, **others):
    settings = {"allow_private": True, "shard_rows": 5, "pace": QUICK, **others}
    return crawl(listing, out, **settings)


def read_all(out):
    """Return rows without times, the bytes of the tar files, and what lies there."""
    rows = [
        {name: value for name, value in row.items() if name != "fetched_at"}
        for table in sorted(out.glob("*.parquet"))
        for row in pq.read_table(table).to_pylist()
    ]
    tars = {path.name: path.read_bytes() for path in sorted(out.glob("*.tar"))}
    return rows, tars, sorted(path.name for path in out.iterdir())


KILLED = """
import importlib, os, signal, sys
from pathlib import Path
from data_tools.crawl import crawl
from data_tools.crawl_settings import Pace
module, owner, name = sys.argv[3].split(":")
place = importlib.import_module(module)
place = getattr(place, owner) if owner else place
real, calls = getattr(place, name), [0]
def dying(*arguments, **named):
    calls[0] += 1
    if calls[0] == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)
setattr(place, name, dying)
crawl(Path(sys.argv[1]), Path(sys.argv[2]), allow_private=True, shard_rows=5,
      pace=Pace(host_delay_s=0.0, retries=0, per_host=4))
"""


@pytest.mark.parametrize(
    ("place", "call"),
    [
        ("data_tools.crawl_shards:Shard:add", 8),  # among the pictures
        ("data_tools.crawl_shards:Shard:publish", 2),
        ("pyarrow.parquet::write_table", 2),  # the tar file is there, the table is not
    ],
)
def test_kill_and_resume(listing, tmp_path, place, call):
    fetch(listing, tmp_path / "whole")
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(listing), str(out), place, str(call)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    before = len(list(out.glob("[0-9]*.parquet")))
    assert before < 4
    figures = fetch(listing, out)
    assert figures["fetched_rows"] < ROWS or not before
    assert (figures["rows"], figures["success"], figures["failed"]) == (ROWS, 15, 2)
    assert read_all(out) == read_all(tmp_path / "whole")
    names = [f"0000{n}{end}" for n in range(4) for end in (".parquet", ".tar")]
    assert read_all(out)[2] == [".lock", *names, "crawl.json"]


def test_a_stop_drops_the_open_shards_only(listing, tmp_path, monkeypatch):
    real, calls = crawl_shards.Shard.add, []

    def add(self, *arguments):
        calls.append(1)
        if len(calls) == 9:
            os.kill(os.getpid(), signal.SIGINT)  # what Ctrl-C sends
        real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(crawl_shards.Shard, "add", add)
        with pytest.raises(KeyboardInterrupt):
            fetch(listing, tmp_path / "stopped")
    left = read_all(tmp_path / "stopped")[2]
    assert not [name for name in left if name.startswith(".") and name != ".lock"]
    assert len(left) < 10
    fetch(listing, tmp_path / "stopped")
    fetch(listing, tmp_path / "whole")
    assert read_all(tmp_path / "stopped") == read_all(tmp_path / "whole")


def test_a_full_disk_stops_the_crawl_whole(listing, tmp_path, monkeypatch):
    def write_table(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(crawl_shards.pq, "write_table", write_table)
        with pytest.raises(OSError, match="No space left"):
            fetch(listing, tmp_path / "crawl")
    assert not list((tmp_path / "crawl").glob("*.parquet"))
    assert fetch(listing, tmp_path / "crawl")["success"] == 15


def test_nothing_is_fetched_twice(listing, server, tmp_path):
    first = fetch(listing, tmp_path / "crawl", opt_out=None)
    assert first["fetched_rows"] == ROWS and not first["already"]
    asked = len(server.asked)
    # How hard one tries, and who has opted out since, may change; what is there stays.
    (tmp_path / "no.txt").write_text("127.0.0.1\n")
    again = fetch(listing, tmp_path / "crawl", opt_out=tmp_path / "no.txt", pace=Pace())
    assert again["already"] and again["fetched_rows"] == 0 and len(server.asked) == asked
    assert again["reasons"] == first["reasons"] == {"http_404": 2}
    (tmp_path / "crawl" / "00002.tar").unlink()
    mended = fetch(listing, tmp_path / "crawl", opt_out=tmp_path / "no.txt")
    assert mended["fetched_rows"] == 5 and mended["reasons"] == {"opt_out": 5, "http_404": 1}
    table = pq.read_schema(tmp_path / "crawl" / "00002.parquet")
    assert json.loads(table.metadata[b"facerec.crawl"])["opt_out_sha256"]


def test_another_list_or_setting_is_refused(listing, tmp_path):
    out = tmp_path / "crawl"
    fetch(listing, out)
    with pytest.raises(InputError, match=r"shard_rows 5, now it is 6"):
        fetch(listing, out, shard_rows=6)
    with pytest.raises(InputError, match=r"agent 'facerec-clean/0.1', now it is 'bot'"):
        fetch(listing, out, agent="bot")
    listing.write_text(listing.read_text().replace("/7\n", "/77\n"))
    with pytest.raises(InputError, match="another list"):
        fetch(listing, out)
    (out / "crawl.json").unlink()
    with pytest.raises(InputError, match="holds other files"):
        fetch(listing, out)


def test_a_damaged_table_is_named(listing, tmp_path):
    fetch(listing, tmp_path / "crawl")
    (tmp_path / "crawl" / "00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"00001.parquet is damaged; delete it"):
        fetch(listing, tmp_path / "crawl")


def test_without_aiohttp_the_pip_command_is_named(listing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MissingPackageError, match="pip install aiohttp"):
        fetch(listing, tmp_path / "crawl")
    assert not (tmp_path / "crawl").exists()


def run(*arguments):
    parser = build_parser("facerec-clean", "Clean a crawl.", "facerec-clean crawl")
    add_crawl(parser.add_subparsers(dest="command", required=True))
    return run_command(parser, ["crawl", *map(str, arguments)])


def test_the_command(listing, tmp_path, capsys):
    arguments = [listing, tmp_path / "crawl", "--allow-private", "--host-delay", 0]
    assert run(*arguments, "--retries", 0, "--json", tmp_path / "result.json") == 0
    shown = capsys.readouterr().out
    assert "17 rows in 1 shards: 15 pictures" in shown and "2  http_404" in shown
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["success"] == 15 and result["provenance"]["hashes"]["list"]
    assert run(*arguments) == 0
    assert "already" in capsys.readouterr().out
    assert run(*arguments, "--shard-rows", 3) == 2
    assert "use the same list and settings" in capsys.readouterr().err
    assert run(listing, tmp_path / "b", "--concurrency", 0) == 2
