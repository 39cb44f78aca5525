"""Our S3 server over a memory backend, in a thread of this process, on a port the system chose."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from qss.host import SystemClock, SystemEntropy
from qss.s3.rsgi import RsgiApp, s3_app
from qss.s3.serve import Tls, run, serve
from qss.s3.server import S3Service
from qss.s3.sigv4 import Verifier
from tests.harness.memory_backend import MemoryBackend

ACCESS_KEY = "AKIDTEST"
SECRET_KEY = "secret/of+tests"
START_S_MAX = 120.0


@dataclass(frozen=True)
class Running:
    endpoint: str
    backend: MemoryBackend

    def boto3(self, region="us-east-1", **options):
        """A boto3 client with default settings."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=region,
            **options,
        )


@contextmanager
def served(app: RsgiApp, tls: Tls | None = None) -> Iterator[int]:
    """Run an RSGI application; yields its port."""
    ready: Queue[int] = Queue()
    handles: dict[str, object] = {}

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        handles["stop"] = lambda: loop.call_soon_threadsafe(stop.set)
        await serve(app, ("127.0.0.1", 0), stop=stop, tls=tls, on_ready=lambda _, port: ready.put(port))

    thread = threading.Thread(target=lambda: run(main()), daemon=True)
    thread.start()
    try:
        yield ready.get(timeout=START_S_MAX)
    finally:
        handles["stop"]()  # type: ignore[operator]
        thread.join(START_S_MAX)
        assert not thread.is_alive(), "the server does not stop"


@contextmanager
def memory_s3(tls: Tls | None = None) -> Iterator[Running]:
    clock = SystemClock()
    backend = MemoryBackend(clock.now_ns)
    verifier = Verifier({ACCESS_KEY: SECRET_KEY}.get)
    service = S3Service(backend, verifier, clock, SystemEntropy().token)
    with served(s3_app(service), tls) as port:
        scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
        yield Running(f"{scheme}://{host}:{port}", backend)


def self_signed(directory: Path) -> Tls:
    """A certificate for localhost that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    tls = Tls(directory / "cert.pem", directory / "key.pem")
    tls.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    tls.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return tls
