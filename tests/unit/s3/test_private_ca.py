"""https with an authority of one's own, and servers that want to know who calls: over real TLS on loopback."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from qss.config import parse
from qss.errors import ConfigInvalid, Unreachable
from qss.host import SystemClock
from qss.s3.client import ClientOptions, S3Client
from qss.s3.transport import TlsFiles

CONTENT = b"who goes there"


@dataclass
class Authority:
    """A small certificate authority."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "our own authority")])
        self.file = self.folder / "ca.pem"
        self.file.write_bytes(self._signed(self.name, self.key.public_key(), ca=True))

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, password: bytes | None = None) -> tuple[Path, Path]:
        """Certificate and key, PEM files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert_file, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert_file.write_bytes(self._signed(subject, key.public_key(), ca=False))
        how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))
        key_file.chmod(0o600)
        return cert_file, key_file


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_arguments: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_arguments: object) -> None:
        """A handshake that fails is what some tests are about."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(params=[False, True], ids=["anyone", "known"])
def server(authority: Authority, request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """Its endpoint, and whether it wants to know who calls."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("localhost"))
    if request.param:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)
    httpd = Server(("127.0.0.1", 0), Answer)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"https://localhost:{httpd.server_port}", request.param
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


async def got(endpoint: str, tls: TlsFiles) -> bytes:
    client = S3Client(
        endpoint, "bucket", access_key="a", secret_key="b", clock=SystemClock(), options=ClientOptions(tls=tls)
    )
    try:
        return await client.get("key")
    finally:
        await client.aclose()


async def test_our_authority_is_trusted_when_it_is_named(server: tuple[str, bool], authority: Authority) -> None:
    endpoint, wants_known = server
    if not wants_known:
        assert await got(endpoint, TlsFiles(authority.file)) == CONTENT
    with pytest.raises(Unreachable):
        await got(endpoint, TlsFiles())  # the system does not know it


async def test_another_authority_is_not_trusted(server: tuple[str, bool], tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        await got(server[0], TlsFiles(Authority(tmp_path / "others").file))


async def test_we_say_who_we_are(server: tuple[str, bool], authority: Authority, tmp_path: Path) -> None:
    endpoint, wants_known = server
    cert, key = authority.issue("machine")
    assert await got(endpoint, TlsFiles(authority.file, cert, key)) == CONTENT
    both = tmp_path / "both.pem"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    assert await got(endpoint, TlsFiles(authority.file, both)) == CONTENT
    if wants_known:
        with pytest.raises(Unreachable):
            await got(endpoint, TlsFiles(authority.file))
        with pytest.raises(Unreachable):
            await got(endpoint, TlsFiles(authority.file, *Authority(tmp_path / "others").issue("machine")))


def test_files_that_do_not_hold_are_one_sentence(authority: Authority, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("-----BEGIN CERTIFICATE-----\nhush hush\n")
    cert, key = authority.issue("locked", password=b"secret")
    for files in (TlsFiles(tmp_path / "none"), TlsFiles(junk), TlsFiles(None, junk), TlsFiles(None, cert, key),
                  TlsFiles(None, cert)):  # fmt: skip
        with pytest.raises(ConfigInvalid) as caught:
            files.context()
        assert "\n" not in str(caught.value)
        assert "hush" not in str(caught.value)


def test_as_written_in_the_configuration() -> None:
    def of(scheme: str, more: str) -> str:
        return f'[code]\nk = 1\nm = 0\n[[location]]\nurl = "{scheme}://h:1/bucket"\n{more}'

    text = of("https", 'ca_file = "ca.pem"\nclient_cert = "me.pem"\nclient_key = "/keys/me"')
    [location] = parse(text, Path("/etc/qss/qss.toml"), {}).locations
    assert location.ca_file == Path("/etc/qss/ca.pem")
    assert (location.client_cert, location.client_key) == (Path("/etc/qss/me.pem"), Path("/keys/me"))
    with pytest.raises(ConfigInvalid, match="https"):
        parse(of("http", 'ca_file = "ca.pem"'), Path("/x"), {})
    with pytest.raises(ConfigInvalid, match="client_cert"):
        parse(of("https", 'client_key = "k"'), Path("/x"), {})
