import errno
import hashlib
import http.server
import io
import json
import os
import ssl
import subprocess
import sys
import threading
import zipfile

import onnx
import pytest

from facerec.checks import InputError
from facerec.models import fetch
from facerec.models.catalogue import CatalogueEntry, find_entry, load_catalogue
from facerec.models.fetch import FetchError, check_address, fetch_model
from facerec.models.store import ModelStore


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `self.server.answers`: path -> (status, headers, body)."""

    def do_GET(self):
        self.server.seen.append(self.path)
        status, headers, body = self.server.answers[self.path]
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    running = []

    def start(answers, context=None):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.answers, server.seen = answers, []
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        running.append(server)
        server.address = f"{'https' if context else 'http'}://localhost:{server.server_port}"
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def data(recogniser):
    return recogniser().SerializeToString()


def ok(body, length=None):
    return (200, {"Content-Length": str(len(body) if length is None else length)}, body)


def entry(address, data=None, **fields):
    pinned = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} if data else {}
    return CatalogueEntry(
        **{
            "name": "net",
            "address": address,
            "licence": "MIT",
            "about": "a net",
            **pinned,
            **fields,
        }
    )


def assert_nothing_left():
    store = ModelStore()
    assert store.names() == []
    assert not store.folder.exists() or names_in(store.folder) == []


def test_good_download(serve, data):
    server = serve({"/net": ok(data)})
    artefact = fetch_model(entry(f"{server.address}/net", data), ModelStore())
    assert artefact.graph.read_bytes() == data
    assert artefact.info.licence == "MIT" and artefact.info.embedding_dim == 8
    assert hashlib.sha256(data).hexdigest() in artefact.info.source
    assert ModelStore().names() == ["net"]


def test_https_with_own_certificate(serve, data, tmp_path, monkeypatch):
    key, certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = serve({"/net": ok(data)}, context)
    with pytest.raises(FetchError, match="certificate"):
        fetch_model(entry(f"{server.address}/net", data), ModelStore())
    assert_nothing_left()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    fetch_model(entry(f"{server.address}/net", data), ModelStore())
    assert ModelStore().names() == ["net"]


def make_certificate(folder):
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "key.pem", folder / "cert.pem"


@pytest.mark.parametrize("pinned", [True, False])
def test_cut_off_in_the_middle(serve, data, pinned):
    server = serve({"/net": ok(data[: len(data) // 2], len(data))})
    with pytest.raises(FetchError, match="broke off"):
        fetch_model(entry(f"{server.address}/net", data if pinned else None), ModelStore())
    assert_nothing_left()


def test_cut_off_without_a_length(serve, data):
    server = serve({"/net": (200, {}, data[:-10])})
    with pytest.raises(FetchError, match="broke off after"):
        fetch_model(entry(f"{server.address}/net", data), ModelStore())
    assert_nothing_left()


def test_other_file_of_the_same_size(serve, data):
    server = serve({"/net": ok(data[:-1] + bytes([data[-1] ^ 1]))})
    with pytest.raises(FetchError, match="not the file that was vetted"):
        fetch_model(entry(f"{server.address}/net", data), ModelStore())
    assert_nothing_left()


def test_server_that_sends_too_much(serve, data):
    server = serve({"/net": (200, {}, data + bytes(1000))})
    with pytest.raises(FetchError, match="sends more than"):
        fetch_model(entry(f"{server.address}/net", data), ModelStore())
    assert_nothing_left()


def test_size_cap_without_pin(serve, tmp_path):
    server = serve({"/net": (200, {}, bytes(2000))})
    with pytest.raises(FetchError, match="more than the 1000 bytes"):
        fetch.download(f"{server.address}/net", tmp_path / "net", max_bytes=1000)


def test_not_there(serve):
    server = serve({"/net": (404, {"Content-Length": "0"}, b"")})
    with pytest.raises(FetchError, match="answers 404"):
        fetch_model(entry(f"{server.address}/net"), ModelStore())
    assert_nothing_left()


def test_nobody_listens(serve):
    server = serve({})
    server.shutdown()
    server.server_close()
    with pytest.raises(FetchError, match="cannot be reached"):
        fetch_model(entry(f"{server.address}/net"), ModelStore())
    assert_nothing_left()


def test_silent_server(serve, monkeypatch):
    silence = threading.Event()

    class Silent(dict):
        def __getitem__(self, path):
            silence.wait(10)
            return ok(b"")

    server = serve(Silent())
    try:
        with pytest.raises(FetchError, match=r"timed out|Timeout"):
            fetch_model(entry(f"{server.address}/net"), ModelStore(), timeout_s=0.05)
    finally:
        silence.set()
    assert_nothing_left()


def test_redirects(serve, data):
    server = serve(
        {
            "/out": (302, {"Location": "http://example.org/net", "Content-Length": "0"}, b""),
            "/file": (302, {"Location": "file:///etc/hosts", "Content-Length": "0"}, b""),
            "/in": (302, {"Location": "/net", "Content-Length": "0"}, b""),
            "/net": ok(data),
        }
    )
    with pytest.raises(FetchError, match=r"redirects to http://example\.org/net, which is refused"):
        fetch_model(entry(f"{server.address}/out", data), ModelStore())
    with pytest.raises(FetchError, match="not allowed"):
        fetch_model(entry(f"{server.address}/file", data), ModelStore())
    assert_nothing_left()
    fetch_model(entry(f"{server.address}/in", data), ModelStore())
    assert server.seen[-2:] == ["/in", "/net"]


@pytest.mark.parametrize(
    "address", ["http://example.org/net", "file:///etc/hosts", "ftp://localhost/net", "net.onnx"]
)
def test_only_https(address):
    with pytest.raises(InputError, match="over https only"):
        fetch_model(entry(address), ModelStore())
    assert_nothing_left()


def test_full_disk(serve, data, monkeypatch):
    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    server = serve({"/net": ok(data)})
    with pytest.raises(FetchError, match="the disk is full"):
        fetch_model(entry(f"{server.address}/net", data), ModelStore())
    assert_nothing_left()


def test_disk_limit_of_a_real_process(serve, tmp_path, private_home):
    """A real write error in the middle of the file, by RLIMIT_FSIZE."""
    body = bytes(1 << 20)
    server = serve({"/net": ok(body)})
    catalogue = tmp_path / "catalogue.json"
    listed = entry(f"{server.address}/net", body).model_dump()
    catalogue.write_text(json.dumps([listed]))
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "from facerec.cli.main import main\n"
        "sys.exit(main(['models', 'fetch', 'net', '--yes', '--catalogue', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(catalogue)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "disk is full" in done.stderr and "Traceback" not in done.stderr
    assert_nothing_left()


def test_interrupt_leaves_nothing(serve, data, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch.Progress, "advance", interrupt)
    server = serve({"/net": ok(data)})
    with pytest.raises(KeyboardInterrupt):
        fetch_model(entry(f"{server.address}/net", data), ModelStore())
    assert_nothing_left()


def test_not_a_model_leaves_nothing(serve):
    body = b"<html>sign in first</html>"
    server = serve({"/net": ok(body)})
    with pytest.raises(InputError, match="must be an ONNX file"):
        fetch_model(entry(f"{server.address}/net"), ModelStore())
    assert_nothing_left()


def make_zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in files.items():
            pack.writestr(name, content)
    return buffer.getvalue()


def test_pack(serve, data):
    body = make_zip({"p/": b"", "p/rec.onnx": data, "p/det.onnx": b"det", "p/run.sh": b"rm"})
    server = serve({"/p.zip": ok(body)})
    artefact = fetch_model(entry(f"{server.address}/p.zip", recogniser="rec.onnx"), ModelStore())
    folder = artefact.graph.parent
    assert sorted(f.name for f in (folder / "pack").iterdir()) == ["det.onnx", "rec.onnx"]
    assert not (folder / "pack.zip").exists() and artefact.graph.read_bytes() == data
    ModelStore().verify("net")


@pytest.mark.parametrize("name", ["../../evil.onnx", "/tmp/evil.onnx", "..\\..\\evil.onnx"])
def test_pack_with_paths_that_climb(serve, data, name, private_home):
    body = make_zip({name: b"evil", "rec.onnx": data})
    server = serve({"/p.zip": ok(body)})
    fetch_model(entry(f"{server.address}/p.zip", recogniser="rec.onnx"), ModelStore())
    found = [path.relative_to(private_home).as_posix() for path in private_home.rglob("*evil*")]
    assert found == ["models/net/pack/evil.onnx"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"no zip", "not a usable zip"),
        (make_zip({"other.onnx": b"x"}), r"has no rec\.onnx, but other\.onnx"),
        (make_zip({"a/rec.onnx": b"x", "b/rec.onnx": b"y"}), "not a usable zip"),
    ],
)
def test_bad_packs(serve, body, message):
    server = serve({"/p.zip": ok(body)})
    with pytest.raises(FetchError, match=message):
        fetch_model(entry(f"{server.address}/p.zip", recogniser="rec.onnx"), ModelStore())
    assert_nothing_left()


def test_pack_that_unpacks_to_too_much(serve, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_BYTES", 5000)
    server = serve({"/p.zip": ok(make_zip({"rec.onnx": bytes(100_000)}))})
    with pytest.raises(FetchError, match="unpacks to over"):
        fetch_model(entry(f"{server.address}/p.zip", recogniser="rec.onnx"), ModelStore())
    assert_nothing_left()


def test_catalogue_has_what_the_issue_names():
    catalogue = load_catalogue()
    assert {"yunet", "sface", "buffalo_l", "buffalo_s", "antelopev2"} == set(catalogue)
    assert catalogue["yunet"].size == 232_589 and catalogue["yunet"].licence == "MIT"
    assert catalogue["sface"].sha256.startswith("0ba9fbfa01b5270c")
    for known in catalogue.values():
        fetch.check_address(known.address)
        assert known.address.startswith("https://")
        assert known.sha256 or "non-commercial" in known.licence
    with pytest.raises(InputError, match="did you mean 'buffalo_l'"):
        find_entry("bufalo_l", catalogue)


def test_catalogue_file_that_is_none(tmp_path):
    path = tmp_path / "c.json"
    path.write_text("{}")
    with pytest.raises(InputError, match="JSON list"):
        load_catalogue(path)
    path.write_text('[{"name": "a", "adress": "x"}]')
    with pytest.raises(InputError, match="address"):
        load_catalogue(path)


def run(*arguments):
    from facerec.cli.main import main

    return main(["models", "fetch", *map(str, arguments)])


def test_command_asks(serve, data, tmp_path, capsys, monkeypatch):
    server = serve({"/net": ok(data)})
    catalogue = tmp_path / "catalogue.json"
    catalogue.write_text(json.dumps([entry(f"{server.address}/net", data).model_dump()]))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert run("net", "--catalogue", catalogue) == 2, "no terminal, no --yes"
    captured = capsys.readouterr()
    assert "give --yes" in captured.err and server.seen == []
    for shown in ("MIT", f"{server.address}/net", f"{len(data):,} bytes", "sha256"):
        assert shown in captured.out
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert run("net", "--catalogue", catalogue) == 1 and server.seen == []
    monkeypatch.setattr("builtins.input", lambda _: "Y")
    assert run("net", "--catalogue", catalogue) == 0 and server.seen == ["/net"]
    assert run("net", "--catalogue", catalogue, "--yes") == 2, "the name is taken"
    assert run("net", "--catalogue", catalogue, "--yes", "--force") == 0
    assert server.seen == ["/net", "/net"]
    assert run() == 0 and "buffalo_l" in capsys.readouterr().out


def test_other_address_is_held_to_the_same_hash(serve, data):
    server = serve({"/good": ok(data), "/bad": ok(data[::-1])})
    known = entry("https://example.org/net", data)
    with pytest.raises(FetchError, match="vetted"):
        fetch_model(known, ModelStore(), address=f"{server.address}/bad")
    fetch_model(known, ModelStore(), address=f"{server.address}/good")
    assert onnx.load(str(ModelStore().path("net") / "model.onnx")).graph.name == "small"


@pytest.mark.parametrize(
    "address", ["http://[::1/x", "https://host:abc/x", "https://host/a b", "https://h\n/x"]
)
def test_broken_addresses_are_refused(address):
    with pytest.raises(InputError, match="must be a whole URL"):
        check_address(address)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_timeouts_must_be_positive_and_finite(timeout_s):
    entry = load_catalogue(None)["yunet"]
    with pytest.raises(InputError, match="the timeout must lie above 0"):
        fetch_model(entry, ModelStore(), timeout_s=timeout_s)
