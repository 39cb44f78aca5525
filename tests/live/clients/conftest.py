"""Two nodes for all tests of clients: one that speaks plain HTTP, one that speaks TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.trove.testing import TroveServer
from tests.harness.certificates import Authority
from tests.harness.clients.programs import INSTALLED, Server


@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Whatever clients ask for, a node never has to say that it failed, or that it cannot do that."""
    assert INSTALLED.is_dir(), "the clients are not installed; run scripts/setup --test"
    folder = tmp_path_factory.mktemp("nodes")
    authority = Authority(folder / "ca")
    tls = authority.issue("node")
    logs = [folder / "plain.log", folder / "tls.log"]
    extra = [("--access-log", str(log)) for log in logs]
    with (
        TroveServer(extra=extra[0]) as plain,
        TroveServer(extra=extra[1], tls=(tls.certificate, tls.key)) as secure,
    ):
        yield {
            "plain": Server(plain.endpoint, plain.access_key, plain.secret_key),
            "tls": Server(secure.endpoint, secure.access_key, secure.secret_key, authority.certificate),
        }
    assert [line for log in logs for line in _failures(log)] == []


def _failures(log: Path) -> Iterator[dict[str, object]]:
    for line in log.read_text().splitlines():
        request = json.loads(line)
        if request["status"] >= 500:
            yield request


@pytest.fixture(params=["plain", "tls"])
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    return servers[request.param]
