import datetime
import ipaddress
import socket
import ssl
import sys

import numpy as np
import pytest

from facerec.checks import InputError, MissingPackageError

pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")

import grpc_backend
import wire_backend as wire

from facerec.gallery.remote import connect_remote
from facerec.gallery.remote_settings import KEY_VARIABLE, MEMORY, RemoteSettings

DIM = 4
KEY = "very-secret-key"
VECTOR = np.eye(1, DIM, dtype=np.float32)


@pytest.fixture
def server():
    server = wire.WireServer()
    yield server
    server.close()


def connect(url, waits=None, dim=DIM, **options):
    settings = RemoteSettings(url=url, **{"attempts": 3, "backoff_s": 0.5, **options})
    sleep = (waits if waits is not None else []).append
    return connect_remote(settings, model_hash="m" * 64, dim=dim, tenant="t", sleep=sleep)


def find_closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_nobody_listens():
    waits = []
    with pytest.raises(InputError, match=r"no Qdrant server answers at .*start it, or correct"):
        connect(f"http://127.0.0.1:{find_closed_port()}", waits)
    assert waits == [0.5, 1.0]  # three tries, the pause doubled


def test_a_server_that_never_answers_is_given_up_after_the_timeout():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=r"did not answer in time.*timeout_s"):
            connect(url, attempts=1, timeout_s=1)


@pytest.mark.parametrize(
    ("fault", "words", "tries"),
    [
        (wire.say_status(401, "no"), "refuses the API key, or asks for one", 1),
        (wire.say_status(403, "Invalid api-key"), "refuses the API key", 1),
        (
            wire.say_status(403, "Global manage access is required"),
            "not a read-only one",
            1,
        ),
        (
            wire.say_status(404, "Collection `x` doesn't exist!"),
            "nothing there.*doesn't exist",
            1,
        ),
        (wire.say_status(413), "smaller batches", 1),
        (wire.say_status(400, "Wrong input"), "refuses the request.*Wrong input", 1),
        (wire.say_status(500, "disk is full"), "cannot answer now.*disk is full", 3),
        (wire.say_status(503), "cannot answer now", 3),
        (
            wire.say_status(429, "slow down", Retry_After="2"),
            "asked too much.*slow down",
            3,
        ),
        (wire.close_connection, "connection to .* broke", 3),
        (wire.say_text("<html>welcome</html>"), "does not answer like a Qdrant server", 1),
        (wire.say_text('{"result": 5}'), "does not answer like a Qdrant server", 1),
    ],
)
def test_each_fault_is_one_sentence_after_bounded_tries(server, fault, words, tries):
    waits = []
    index = connect(server.url, waits)
    index.upsert(np.array([1]), VECTOR, np.array([1]))
    before = len(server.seen)
    server.faults = [fault] * tries
    with pytest.raises(InputError, match=words) as caught:
        index.search(VECTOR, 1)
    assert "\n" not in str(caught.value)
    assert len(server.seen) - before == tries and len(waits) == tries - 1
    assert index.search(VECTOR, 1).ids.tolist() == [[1]]  # it goes on afterwards
    index.close()


def test_a_success_without_a_result_is_no_success(server):
    index = connect(server.url)
    server.faults = [wire.say_text('{"result": null, "status": "ok", "time": 0}')]
    with pytest.raises(InputError, match="does not answer like a Qdrant server"):
        index.upsert(np.array([1]), VECTOR, np.array([1]))
    index.close()


def test_what_passes_is_tried_again_and_done_once(server):
    waits = []
    index = connect(server.url, waits)
    server.faults = [wire.say_status(503), wire.close_connection]
    index.upsert(np.array([1]), VECTOR, np.array([1]))
    server.faults = [wire.say_status(429, "wait", Retry_After="4")]
    assert len(index) == 1
    assert waits == [0.5, 1.0, 4.0]
    server.faults = [wire.say_status(429, "wait", Retry_After="86400")]
    assert len(index) == 1
    assert waits[-1] == 10.0  # no server keeps us for a day
    index.close()


def test_a_collection_that_is_gone_says_so(server):
    index = connect(server.url)
    server.backend.delete_collection(index.place.collection)
    with pytest.raises(InputError, match=r"nothing there.*from the gallery again"):
        index.search(VECTOR, 1)
    index.recreate()
    assert len(index) == 0
    index.close()


@pytest.mark.parametrize("distance", ["Cosine", "Dot"])
def test_a_collection_of_another_kind_is_refused(server, distance):
    from qdrant_client import models

    index = connect(server.url)
    name = index.place.collection
    index.close()
    server.backend.delete_collection(name)
    size = 8 if distance == "Dot" else DIM
    server.backend.create_collection(name, models.VectorParams(size=size, distance=distance))
    with pytest.raises(InputError, match=f"another kind .*{size} dimensions, {distance.lower()}"):
        connect(server.url)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("1.2.3", r"runs Qdrant 1\.2\.3.*pip install"),
        ("0.11.0", r"runs Qdrant 0\.11\.0"),
        ("elasticsearch", "is it a Qdrant server"),
    ],
)
def test_a_server_too_old_for_the_client_is_refused(server, version, words):
    server.version = version
    with pytest.raises(InputError, match=words):
        connect(server.url)
    connect(server.url, check_version=False).close()


def test_a_newer_server_is_fine(server):
    server.version = "1.999.0"
    connect(server.url).close()


def test_the_key_opens_the_server_and_is_in_no_message(monkeypatch, recwarn):
    server = wire.WireServer(key=KEY)
    with pytest.raises(InputError, match=KEY_VARIABLE):
        connect(server.url)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    index = connect(server.url)
    assert len(index) == 0
    server.faults = [wire.say_status(400, f"you sent {KEY} to me")]
    with pytest.raises(InputError, match=r"you sent \*\*\* to me") as caught:
        len(index)
    assert KEY not in str(caught.value) and caught.value.__suppress_context__
    assert KEY not in repr(index) + repr(index.settings) and not recwarn.list
    index.close()
    monkeypatch.setenv(KEY_VARIABLE, "wrong")
    with pytest.raises(InputError, match="refuses the API key") as caught:
        connect(server.url)
    server.close()


def test_tls_needs_the_certificate_of_the_authority(tmp_path):
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = wire.WireServer(tls=context)
    waits = []
    with pytest.raises(InputError, match=r"no trusted TLS connection.*ca_file"):
        connect(server.url, waits)
    assert waits == []  # not a fault that passes
    index = connect(server.url, ca_file=certificate)
    assert len(index) == 0
    index.close()
    with pytest.raises(InputError, match=r"no trusted TLS connection.*name in the"):
        connect(server.url.replace("localhost", "127.0.0.1"), ca_file=certificate)
    with pytest.raises(InputError, match="https:// rather than http://"):
        connect(server.url.replace("https", "http"))
    server.close()


def test_https_to_a_plain_server_says_so(server):
    with pytest.raises(InputError, match="port speaks TLS at all"):
        connect(server.url.replace("http", "https"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("UNAUTHENTICATED", "refuses the API key"),
        ("PERMISSION_DENIED", "not a read-only one"),
        ("NOT_FOUND", "nothing there"),
        ("UNAVAILABLE", "cannot be reached by gRPC"),
        ("INVALID_ARGUMENT", "refuses the request"),
    ],
)
def test_faults_of_grpc_are_sentences_too(code, words):
    server = grpc_backend.GrpcServer(code)
    with pytest.raises(InputError, match=words) as caught:
        connect("http://127.0.0.1:1", prefer_grpc=True, grpc_port=server.port)
    assert "\n" not in str(caught.value)
    assert len(server.called) == (3 if code == "UNAVAILABLE" else 1)
    server.close()


def test_a_folder_in_use_by_another_process_is_refused(tmp_path):
    settings = RemoteSettings(path=tmp_path)
    index = connect_remote(settings, model_hash="m" * 64, dim=DIM, tenant="t")
    with pytest.raises(InputError, match="open in another process"):
        connect_remote(settings, model_hash="m" * 64, dim=DIM, tenant="t")
    index.close()


def test_a_missing_client_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(MissingPackageError, match="pip install qdrant"):
        connect(MEMORY)


def make_certificate(folder):
    """A certificate for localhost that signs itself, and its key, as PEM files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"
