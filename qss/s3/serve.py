"""Run RSGI applications under Granian inside this process. The only importer of granian and uvloop.

Granian's embedded server keeps everything in one process (so SIGKILL ends a node whole): HTTP on a Rust thread, the
application on the running asyncio loop. Several may run side by side in one loop, each on its own port.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import Server
from uvloop import run as run_on_uvloop

from qss.errors import Refused
from qss.s3.asgi import asgi_app
from qss.s3.exchange import Observer
from qss.s3.patience import USUAL, Patience
from qss.s3.rsgi import RsgiApp

log = logging.getLogger(__name__)

BACKLOG: Final = 1024
GRACE_S_MAX: Final = 5.0
"""How long requests under way may take after `stop`."""

_LOGGING: Final[dict[str, Any]] = {
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"level": "ERROR", "propagate": True}},
}
"""Granian would write to stdout; this leaves its errors to the root logger."""


def run(program: Coroutine[Any, Any, None]) -> None:
    """Run a program that serves, on the event loop that costs least under Granian (docs/adr/0153)."""
    run_on_uvloop(program)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """Clients must show a certificate that one of these has signed."""

    def check(self) -> None:
        """Raises Refused unless the files are there and belong together."""
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            what = f"certificate {self.certificate} and key {self.key}"
            ca = "" if self.client_ca is None else f" and client CA {self.client_ca}"
            raise Refused(f"TLS cannot be served with {what}{ca}: {error}") from error


def _no_password() -> bytes:
    """A key with a passphrase is refused; without this, OpenSSL would ask at the terminal."""
    raise ValueError("the key has a passphrase")


@dataclass(frozen=True, slots=True)
class _Front:
    """What a server serves, and how."""

    app: RsgiApp
    tls: Tls | None
    observe: Observer | None
    patience: Patience


class _Server(Server):
    """Listens on a socket that is bound already: the port may be 0, and an address in use is found out here."""

    def __init__(self, front: _Front, listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
        tls = front.tls
        super().__init__(
            asgi_app(front.app, front.observe, front.patience),
            address=host,
            port=port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=front.patience.connections_max,  # of connections, not of requests
            http1_settings=HTTP1Settings(header_read_timeout=int(front.patience.head_s * 1000)),
            log_level=LogLevels.error,
            log_dictconfig=_LOGGING,
            ssl_cert=None if tls is None else tls.certificate,
            ssl_key=None if tls is None else tls.key,
            ssl_ca=None if tls is None else tls.client_ca,
            ssl_client_verify=tls is not None and tls.client_ca is not None,
        )
        self._listener = listener.dup()  # the next server, with renewed certificates, has the same one

    def _init_shared_socket(self) -> None:
        # The Rust side owns and closes it.
        self._shd = SocketHolder(self._listener.detach(), False, BACKLOG)  # type: ignore[call-arg, assignment]


def listen(host: str, port: int, stall_s: float = USUAL.wait_s) -> socket.socket:
    """A bound, listening TCP socket. Raises Refused when the address cannot be had. `stall_s`: a connection whose
    client takes nothing of what was sent for so long is dropped by the system."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall_s * 1000))  # connections inherit it
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise Refused(f"cannot listen on {host}:{port}: {error.strerror}; choose another address") from error
    return listener


async def serve(
    app: RsgiApp,
    address: tuple[str, int],
    *,
    stop: asyncio.Event,
    tls: Tls | None = None,
    on_ready: Callable[[str, int], None] | None = None,
    renew: asyncio.Event | None = None,
    observe: Observer | None = None,
    patience: Patience = USUAL,
) -> None:
    """Serve until `stop` is set, then let requests under way finish for GRACE_S_MAX. `address`: host and port; port 0:
    the system chooses, and `on_ready(host, port)` tells which; it is called when connections are accepted. `renew`:
    read the certificates again, and clear it; new connections get the new ones, those that are open are ended like at
    a stop. Raises Refused."""
    if tls is not None:
        tls.check()
    renew = renew or asyncio.Event()
    front = _Front(app, tls, observe, patience)
    listener = listen(*address, patience.wait_s)
    leaving: set[asyncio.Task[None]] = set()
    try:
        name = listener.getsockname()
        server, running = _begin(front, listener)
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.sleep(0)  # the server task spawns its worker; the socket queues from here on
            if on_ready is not None and not running.done():
                on_ready(*name[:2])
            while not stop.is_set() and not running.done():
                renewing = asyncio.create_task(renew.wait())
                await asyncio.wait({running, renewing, stopping}, return_when=asyncio.FIRST_COMPLETED)
                renewing.cancel()
                if renew.is_set() and not stop.is_set():
                    renew.clear()
                    if tls is not None and _is_good(tls):
                        old = server, running
                        server, running = _begin(front, listener)
                        task = asyncio.create_task(_end(*old))
                        leaving.add(task)
                        task.add_done_callback(leaving.discard)
        finally:
            stopping.cancel()
            await asyncio.gather(_end(server, running), *leaving)
    finally:
        listener.close()


def _begin(front: _Front, listener: socket.socket) -> tuple[_Server, asyncio.Task[None]]:
    server = _Server(front, listener)
    return server, asyncio.create_task(server.serve(), name="serve")


def _is_good(tls: Tls) -> bool:
    """May these files replace what is in use?"""
    try:
        tls.check()
    except Refused as error:
        log.error("the certificates in use stay: %s", error)
        return False
    return True


async def _end(server: Server, running: asyncio.Task[None]) -> None:
    server.stop()  # type: ignore[no-untyped-call]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_S_MAX):
            await asyncio.shield(running)
    if not running.done():
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
