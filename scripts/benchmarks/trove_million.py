"""trove-million: a node with very many small objects: how soon it is ready, its memory, what listing costs.

`python -m benchmarks.trove_million DIR COUNT` makes the state, straight through the engine.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

from benchmarks.figures import Figure
from benchmarks.measure import say
from benchmarks.rig import Rig, cpu_s, resident_mib
from qss.formats.volume import EtagKind, Footer, Header, Kind, hash_blocks
from qss.host import SystemClock
from qss.s3.message import RequestHead
from qss.s3.sigv4 import Credentials, presign
from qss.trove.commit import SyncMode
from qss.trove.facts import Fact, apply
from qss.trove.node import Node, NodeOptions
from qss.trove.testing import TroveServer

_BATCH = 5000
_NEXT = re.compile(rb"<NextContinuationToken>([^<]+)<")


def fill(directory: Path, count: int) -> None:
    """Objects of 64 bytes under keys of 30 or so."""
    node = Node(NodeOptions((directory,), sync=SyncMode.OS))
    engine, body = node.engine, bytes(64)
    table, etag = hash_blocks(body), hashlib.md5(body).digest()

    async def work() -> None:
        await node.store.create_bucket("bkt", "us-east-1")
        for first in range(0, count, _BATCH):
            written = []
            for number in range(first, min(first + _BATCH, count)):
                key = f"bkt/{number // 1000:05d}/object-{number:08d}".encode()
                header = Header(Kind.OBJECT, key, engine.tick(), body_len=len(body))
                footer = Footer(header.version, etag=etag, etag_kind=EtagKind.MD5)
                volume, place = engine.volumes.append(header, body, table, footer)
                fact = Fact(
                    Kind.OBJECT, key, header.version, place, body_at=header.body_at, size=len(body), etag=etag,
                    etag_kind=EtagKind.MD5,
                )  # fmt: skip
                written.append((volume, fact))
            with engine.index.write() as tables:
                for volume, fact in written:
                    apply(tables, fact)
                    tables.set_low(volume.number, volume.end)
            for volume, fact in written:
                engine.volumes.settle(volume, fact.place.position)
        await node.aclose()

    asyncio.run(work())


def trove_million(rig: Rig, count: int) -> list[Figure]:
    """Ready after a clean stop and after kill -9; memory; one listing of everything."""
    directory = rig.root / "node"
    directory.mkdir()
    say(f"trove-million: {count:,} objects")
    subprocess.run([sys.executable, "-m", "benchmarks.trove_million", str(directory), str(count)], check=True)
    entries = float(sum(1 for _ in directory.rglob("*")))
    figures = [
        Figure("trove-million file-system entries of a node", entries, "", note="directories and locks included")
    ]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as with people: modules are compiled once, not at each start
    os.environ["PYTHONPYCACHEPREFIX"] = str(rig.root / "compiled")
    server = TroveServer(data=directory)
    try:
        server.start()
        server.stop()
        figures.append(_start(server, "after a clean stop", "≤ 0.5"))
        figures += _listed(server, count)
        own = resident_mib([server.pid], "RssAnon")
        figures.append(Figure("trove-million memory after listing, without mappings", own, "MiB", target="≤ 100"))
        server.kill()
        figures.append(_start(server, "after kill -9", "≤ 10"))
    finally:
        server.close()
    return figures


def _start(server: TroveServer, when: str, target: str) -> Figure:
    before = time.monotonic()
    server.start()
    wall_s = time.monotonic() - before
    return Figure(f"trove-million ready {when}", wall_s, "s", target=target, note=f"CPU {cpu_s([server.pid]):.2f} s")


def _listed(server: TroveServer, count: int) -> list[Figure]:
    address = urlsplit(server.endpoint)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    credentials = Credentials(server.access_key, server.secret_key)
    seen, token, pages = 0, "", []
    used = cpu_s([server.pid])
    while True:
        query = "list-type=2" + (f"&continuation-token={quote(token, safe='')}" if token else "")
        head = RequestHead("GET", "/bkt", query, {"host": address.netloc})
        signed = presign(head, credentials, "us-east-1", SystemClock().now_ns(), 600)
        before = time.monotonic()
        connection.request("GET", f"/bkt?{signed}")
        answer = connection.getresponse().read()
        pages.append((time.monotonic() - before) * 1000)
        seen += answer.count(b"<Key>")
        found = _NEXT.search(answer)
        if found is None:
            break
        token = found[1].decode()
    connection.close()
    used = cpu_s([server.pid]) - used
    if seen != count:
        raise RuntimeError(f"{seen} of {count} keys were listed")
    pages.sort()
    return [
        Figure("trove-million list everything, CPU", used, "s", target="≤ 3"),
        Figure("trove-million one page, p99", pages[int(len(pages) * 0.99)], "ms", target="≤ 10"),
    ]


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]))
