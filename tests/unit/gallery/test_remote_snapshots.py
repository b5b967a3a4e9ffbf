import stat

import numpy as np
import pytest

from facerec.checks import InputError

pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")

import wire_backend as wire

from facerec.gallery.remote import connect_remote
from facerec.gallery.remote_collection import RemotePlace
from facerec.gallery.remote_settings import KEY_VARIABLE, MEMORY, RemoteSettings
from facerec.gallery.remote_snapshots import Snapshots

DIM = 4
KEY = "very-secret-key"
PLACE = RemotePlace("m" * 64, DIM, "t")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    server = wire.WireServer(key=KEY)
    yield server
    server.close()


@pytest.fixture
def index(server):
    config = RemoteSettings(url=server.url, attempts=1)
    index = connect_remote(config, model_hash="m" * 64, dim=DIM, tenant="t")
    index.upsert(np.arange(3), np.eye(3, DIM, dtype=np.float32), np.arange(3))
    index.write_mark(5)
    yield index
    index.close()


def test_a_snapshot_goes_to_a_file_and_back(index, tmp_path):
    path = tmp_path / "kept" / "one.snapshot"
    with Snapshots(index.settings, PLACE) as snapshots:
        first = snapshots.create()
        index.remove(np.array([0]))
        index.write_mark(6)
        second = snapshots.create()
        assert snapshots.list() == [first, second]
        assert first.bytes > 0 and len(first.sha256) == 64
        snapshots.download(first.name, path)
        snapshots.delete(second.name)
        assert snapshots.list() == [first]
        snapshots.restore(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert index.list_ids().tolist() == [0, 1, 2]
    assert "behind" in index.explain_lag(6)  # the mark came back with the rows


def test_a_damaged_download_leaves_nothing(index, server, tmp_path):
    path = tmp_path / "one.snapshot"
    with Snapshots(index.settings, PLACE) as snapshots:
        name = snapshots.create().name
        server.damage = True
        with pytest.raises(InputError, match="arrived damaged"):
            snapshots.download(name, path)
        server.damage = False
        with pytest.raises(InputError, match=f"has no snapshot 'two'; there: {name}"):
            snapshots.download("two", path)
    assert list(tmp_path.iterdir()) == []


def test_faults_of_up_and_download_are_sentences_without_the_key(index, server, tmp_path):
    path = tmp_path / "one.snapshot"
    with Snapshots(index.settings, PLACE) as snapshots:
        name = snapshots.create().name
        snapshots.download(name, path)
        with pytest.raises(InputError, match="no such file"):
            snapshots.restore(tmp_path / "none")
        server.faults = [wire.say_status(403, f"not with {KEY}")]
        with pytest.raises(InputError, match=r"not with \*\*\*"):
            snapshots.restore(path)
        server.faults = [wire.say_status(404, "gone")]
        with pytest.raises(InputError, match="nothing there"):
            snapshots.list()
        before = len(server.seen)
        server.faults = [wire.close_connection]
        with pytest.raises(InputError, match=r"connection to .* broke"):
            snapshots.restore(path)
        assert len(server.seen) == before + 1  # a file of gigabytes is not sent again unasked


def test_the_engine_of_the_client_has_none():
    with pytest.raises(InputError, match="snapshots are a server's"):
        Snapshots(RemoteSettings(url=MEMORY), PLACE)
