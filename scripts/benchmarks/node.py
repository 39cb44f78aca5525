"""trove: requests a second and CPU per request of one node, beside other S3 servers in the same run, and what an
answer takes while everything that is stored is read through."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.load import Outcome, Request, Target, drive, signed
from benchmarks.processes import NotMeasured
from benchmarks.rig import Rig, cpu_s, timed
from benchmarks.stores import STORES, Store, Trove
from qss.s3.sigv4 import Credentials, SigningKeys
from qss.trove.testing import TroveServer

_BUCKET = "bench"
_WARM_UP = 50
_SECONDS_MAX = 8.0  # of one row of one system


@dataclass(frozen=True, slots=True)
class Work:
    """One row: objects of one size, written or read over so many connections."""

    verb: str
    label: str
    size: int
    objects: int
    requests: int
    connections: int
    target: str


_WORKS = (
    Work("PUT", "4 KiB", 4096, 2000, 2000, 16, "180 µs, synced"),
    Work("GET", "4 KiB", 4096, 2000, 6000, 16, "90 µs, verified"),
    Work("PUT", "4 MiB", 4 << 20, 40, 40, 2, "9,000 µs"),
    Work("GET", "4 MiB", 4 << 20, 40, 120, 2, "2,500 µs, verified"),
)


def requests(rig: Rig) -> list[Figure]:
    """PUT and GET of 4 KiB and 4 MiB, signed in the header, payload not signed, connections kept alive."""
    native = {work: _native(rig.native, work) for work in _WORKS}
    rows: dict[Work, list[Figure]] = {work: [] for work in _WORKS}
    more: list[Figure] = []
    for number, make in enumerate(STORES):
        store = make(rig.root / f"store-{number}")
        try:
            _one_store(store, native, rows)
            if type(store) is Trove:
                more += _under_scrub(store)
        except (NotMeasured, RuntimeError, OSError) as error:
            for work, figures in rows.items():
                if not any(each.system == store.name for each in figures):
                    figures.append(Figure(_name(work), None, "", note=str(error)[:200], system=store.name))
        finally:
            store.stop()
    return [figure for figures in rows.values() for figure in figures] + more


def _name(work: Work) -> str:
    return f"trove {work.verb} {work.label}"


def _one_store(store: Store, native: dict[Work, float], rows: dict[Work, list[Figure]]) -> None:
    target = store.prepare()
    keys = SigningKeys()
    drive(target, [signed(target, keys, "PUT", f"/{_BUCKET}", Request(b""))], 1)
    there: dict[int, int] = {}  # objects of a size that have been put
    for work in _WORKS:
        asked = _asked(target, keys, work)[: there.get(work.size)]
        if work.verb == "GET":
            drive(target, asked[:_WARM_UP], work.connections)
        before = cpu_s(store.pids())
        done = drive(target, _for_a_while(islice(cycle(asked), work.requests)), work.connections)
        count = len(done.latencies_s)
        there.setdefault(work.size, min(count, work.objects))
        used_us = (cpu_s(store.pids()) - before) / count * 1e6
        rows[work].append(
            Figure(
                _name(work), count / done.wall_s, "requests/s", native[work], work.target,
                f"p50 {done.quantile_ms(0.5):.2f} ms, {work.connections} connections; "
                + (f"survives {store.sync}" if work.verb == "PUT" else store.checks),
                store.name, used_us,
            )
        )  # fmt: skip


def _asked(target: Target, keys: SigningKeys, work: Work) -> list[Request]:
    """Signed before the clock runs: what signing costs is the client's."""
    bare = Request(b"", os.urandom(work.size)) if work.verb == "PUT" else Request(b"", b"", work.size)
    paths = (f"/{_BUCKET}/{work.size}/object-{number}" for number in range(work.objects))
    return [signed(target, keys, work.verb, path, bare) for path in paths]


def _for_a_while(coming: Iterator[Request]) -> Iterator[Request]:
    until = time.monotonic() + _SECONDS_MAX
    for request in coming:
        yield request
        if time.monotonic() > until:
            return


def _under_scrub(store: Trove) -> list[Figure]:
    """GET of 4 KiB while the admin API reads and verifies every object again and again."""
    server = store.server
    host, _, port = server.endpoint.partition("//")[2].rpartition(":")
    work = Work("GET", "4 KiB under scrub", 4096, 2000, 6000, 4, "10 times p50")
    target = Target(host, int(port), Credentials(server.access_key, server.secret_key))
    asked = _asked(target, SigningKeys(), work)
    over = threading.Event()
    scrub = threading.Thread(target=_scrub, args=(server, over))
    scrub.start()
    try:
        done: Outcome = drive(target, _for_a_while(islice(cycle(asked), work.requests)), work.connections)
    finally:
        over.set()
        scrub.join()
    ratio = done.quantile_ms(0.999) / done.quantile_ms(0.5)
    note = f"p50 {done.quantile_ms(0.5):.2f} ms, p99 {done.quantile_ms(0.99):.2f}, p99.9 {done.quantile_ms(0.999):.2f}"
    return [Figure("trove GET under scrub, p99.9 to p50", ratio, "times", None, work.target, note, store.name)]


def _scrub(server: TroveServer, over: threading.Event) -> None:
    while not over.is_set():
        body = json.dumps({}).encode()
        headers = {"authorization": f"Bearer {server.admin_token}", "content-type": "application/json"}
        request = urllib.request.Request(f"{server.admin}/verify", body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()


def _native(directory: Path, work: Work) -> float:
    """Files a second of the same size on the same disk; written ones with fdatasync."""
    count = min(work.objects, 500)
    return count / timed(partial(_files, directory, work.verb, os.urandom(work.size), range(count)))


def _files(directory: Path, verb: str, body: bytes, numbers: Sequence[int]) -> None:
    for number in numbers:
        path = directory / f"object-{len(body)}-{number}"
        if verb == "PUT":
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(handle, body)
            os.fdatasync(handle)
        else:
            handle = os.open(path, os.O_RDONLY)
            os.read(handle, len(body))
        os.close(handle)
