import stat

import pytest

from facerec.checks import InputError
from facerec.gallery.remote_settings import (
    KEY_VARIABLE,
    MEMORY,
    RemoteSettings,
    build_tls,
    read_api_key,
)

URL = "https://qdrant.example:6333"


def write_key(path, text="secret-key\n", mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "needs the address"),
        ({"url": URL, "path": "x"}, "not both"),
        ({"url": "qdrant.example:6333"}, "must look like https://HOST:6333"),
        ({"url": "ftp://qdrant.example"}, "must look like"),
        ({"url": "https://qdrant.example:99999"}, "must look like"),
        ({"url": "http://qdrant.example:6333"}, "unencrypted"),
        ({"url": URL, "timeout_s": 0.5}, "timeout_s"),
        ({"url": URL, "timeout_s": float("nan")}, "timeout_s"),
        ({"url": URL, "attempts": 0}, "attempts"),
        ({"url": URL, "attempts": 1000}, "attempts"),
        ({"url": URL, "shard_number": 0}, "shard_number"),
        ({"url": URL, "write_consistency_factor": 2}, "write_consistency_factor"),
        ({"url": URL, "read_consistency": "majorty"}, "did you mean 'majority'"),
        ({"url": URL, "quantization": "int4"}, "quantization must be one of int8, none"),
        ({"url": URL, "hnsw_m": 0}, "hnsw_m"),
        ({"url": URL, "batch_rows": 0}, "batch_rows"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        RemoteSettings(**given)


@pytest.mark.parametrize(
    "url", ["https://me:hunter2@host:6333", "https://host:6333/?api-key=hunter2"]
)
def test_an_address_with_a_secret_is_refused_without_echo(url):
    with pytest.raises(InputError) as caught:
        RemoteSettings(url=url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"url": URL},
        {"url": "http://127.0.0.1:6333"},
        {"url": "http://[::1]:6333"},
        {"url": "http://inside:6333", "allow_plain": True},
        {"url": MEMORY},
        {"url": URL, "replication_factor": 3, "write_consistency_factor": 2},
    ],
)
def test_settings_that_can_be(given):
    settings = RemoteSettings(**given)
    assert settings.local == (settings.url == MEMORY)
    assert settings.place == settings.url


def test_the_key_comes_from_a_file_else_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert read_api_key(None) is None
    monkeypatch.setenv(KEY_VARIABLE, "from-environment")
    assert read_api_key(None) == "from-environment"
    assert read_api_key(write_key(tmp_path / "key")) == "secret-key"


def test_the_settings_never_hold_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "from-environment")
    settings = RemoteSettings(url=URL, api_key_file=write_key(tmp_path / "key"))
    assert "secret-key" not in repr(settings) and "from-environment" not in repr(vars(settings))


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("key\n", 0o644, "chmod 600"),
        ("key\n", 0o620, "chmod 600"),
        ("", 0o600, "API key alone"),
        ("two words\n", 0o600, "API key alone"),
        ("two\nlines\n", 0o600, "API key alone"),
        ("schlüssel\n", 0o600, "API key alone"),
    ],
)
def test_key_files_that_cannot_be_are_refused_without_echo(tmp_path, text, mode, words):
    path = write_key(tmp_path / "key", text, mode)
    with pytest.raises(InputError, match=words) as caught:
        read_api_key(path)
    assert "two" not in str(caught.value) and "schl" not in str(caught.value)


def test_a_key_file_must_be_a_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_api_key(tmp_path / "none")
    tmp_path.chmod(stat.S_IRWXU)
    with pytest.raises(InputError, match="is not a file"):
        read_api_key(tmp_path)


def test_a_ca_file_must_hold_a_certificate(tmp_path):
    assert build_tls(RemoteSettings(url=URL)) is None
    with pytest.raises(InputError, match="no such file"):
        build_tls(RemoteSettings(url=URL, ca_file=tmp_path / "none"))
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(InputError, match="no usable certificate"):
        build_tls(RemoteSettings(url=URL, ca_file=tmp_path / "ca.pem"))
