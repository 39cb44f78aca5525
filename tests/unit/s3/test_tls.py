"""TLS at a front: certificates are renewed while it serves; who must show one and has none does not get in."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from qss.errors import Refused
from qss.s3.serve import Tls, run, serve
from tests.harness.certificates import Authority


class Site:
    """A server that answers "/" with "ok", and "/wait" when it is told to go on."""

    def __init__(self, port: int, renew: asyncio.Event) -> None:
        self.port = port
        self.renew = renew
        self.inside, self.go_on = asyncio.Event(), asyncio.Event()

    async def app(self, scope, protocol) -> None:
        if scope.path == "/wait":
            self.inside.set()
            await self.go_on.wait()
        assert scope.scheme == "https"
        protocol.response_bytes(200, [], b"ok")

    async def ask(self, context: ssl.SSLContext, path: str = "/") -> tuple[str, bytes]:
        """The name in the server's certificate and what it answered."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="localhost")
        try:
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.close()
        subject = x509.load_der_x509_certificate(shown).subject
        return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value), answer.rpartition(b"\r\n")[2]


def at_site(tls: Tls, work: Callable[[Site], Awaitable[None]]) -> None:
    async def main() -> None:
        stop = asyncio.Event()
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        site = Site(0, asyncio.Event())
        serving = asyncio.create_task(
            serve(
                site.app,
                ("127.0.0.1", 0),
                stop=stop,
                tls=tls,
                renew=site.renew,
                on_ready=lambda _, port: ready.set_result(port),
            )
        )
        try:
            site.port = await ready
            await work(site)
        finally:
            site.go_on.set()
            stop.set()
            await serving

    run(asyncio.wait_for(main(), 60))


async def gets_in(site: Site, context: ssl.SSLContext) -> bool:
    try:
        return (await site.ask(context))[1] == b"ok"
    except OSError:  # also ssl.SSLError
        return False


async def shows(site: Site, context: ssl.SSLContext, name: str) -> None:
    """New connections get this certificate, sooner or later."""
    while True:
        try:
            if (await site.ask(context))[0] == name:
                return
        except OSError:  # taken by the server that leaves
            pass
        await asyncio.sleep(0.01)


def test_renewed_certificates_are_shown_and_what_is_under_way_goes_on(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    tls = authority.issue("first")
    context = authority.trusted()

    async def work(site: Site) -> None:
        assert await site.ask(context) == ("first", b"ok")
        waiting = asyncio.create_task(site.ask(context, "/wait"))
        await site.inside.wait()
        authority.issue("second", into=tls)
        site.renew.set()
        await shows(site, context, "second")
        site.go_on.set()
        assert await waiting == ("first", b"ok")
        tls.key.write_text("nonsense")
        site.renew.set()
        while site.renew.is_set():  # noqa: ASYNC110 - an event has nothing that waits for its being cleared
            await asyncio.sleep(0)
        assert await site.ask(context) == ("second", b"ok")
        authority.issue("third", into=tls)
        site.renew.set()
        await shows(site, context, "third")

    at_site(tls, work)


def test_who_has_no_certificate_does_not_get_in(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    tls = replace(authority.issue("server"), client_ca=authority.certificate)

    async def work(site: Site) -> None:
        assert await site.ask(authority.trusted(authority.issue("friend"))) == ("server", b"ok")
        for stranger in (authority.trusted(), authority.trusted(other.issue("stranger"))):
            assert not await gets_in(site, stranger)

    at_site(tls, work)


def test_files_that_do_not_fit_are_refused_before_anything_listens(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    one, two = authority.issue("one"), authority.issue("two")
    for wrong in (
        Tls(one.certificate, two.key),
        Tls(one.certificate, tmp_path / "none"),
        Tls(one.key, one.key),
        replace(one, client_ca=one.key),
    ):
        with pytest.raises(Refused, match="TLS"):
            wrong.check()
    one.check()
