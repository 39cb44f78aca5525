"""kill -9 of a Trove under load, at many seeded points: what was acknowledged is whole, nothing is half there.

10 kills in every run; QSS_KILLS=1000 makes it a thousand (some twenty minutes).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import re
import threading
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from qss.host import SystemClock
from qss.s3.message import RequestHead
from qss.s3.sigv4 import Credentials, presign
from qss.trove.testing import TroveServer
from tests.harness.trove_nursery import NursedTrove, Nursery

pytestmark = pytest.mark.live

KILLS = int(os.environ.get("QSS_KILLS", "10"))
SEED = int(os.environ.get("QSS_KILLS_SEED", "1"))
WRITERS = 4
KEYS = 12  # of each writer
SIZES = (0, 10, 4096, 65_537, 300_000, 1_300_000)
ANSWERS_MAX = 60  # before a kill
VERIFY_EVERY = 10
WAIT_S = 180

Known = dict[str, set[str | None]]
"""key → hashes of what may be there; None: nothing. One of them, unless an operation was not answered."""


class Client:
    """One connection, signed requests."""

    def __init__(self, server: TroveServer) -> None:
        address = urlsplit(server.endpoint)
        self._host = address.netloc
        self._credentials = Credentials(server.access_key, server.secret_key)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=WAIT_S)

    def ask(self, method: str, path: str, query: str = "", body: bytes | None = None) -> tuple[int, bytes]:
        head = RequestHead(method, path, query, {"host": self._host})
        signed = presign(head, self._credentials, "us-east-1", SystemClock().now_ns(), 600)
        self._connection.request(method, f"{path}?{signed}", body=body)
        response = self._connection.getresponse()
        return response.status, response.read()

    def close(self) -> None:
        self._connection.close()


class Writer(threading.Thread):
    """Puts, deletes and uploads in parts until the server dies."""

    def __init__(self, server: TroveServer, number: int, seed: int, known: Known, answered: Answered) -> None:
        super().__init__()
        self._client = Client(server)
        self._rng = random.Random(seed * WRITERS + number)
        self._known = known
        self._answered = answered
        self._number = number
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            while True:
                self._once()
                self._answered.add()
        except (OSError, http.client.HTTPException):
            pass  # it is dead
        except BaseException as error:
            self.problem = error
            self._answered.all()
        finally:
            self._client.close()

    def _once(self) -> None:
        rng, key = self._rng, f"w{self._number}-{self._rng.randrange(KEYS)}"
        path = f"/bkt/{key}"
        before = self._known.get(key, {None})
        body = rng.randbytes(rng.choice(SIZES))
        after = hashlib.sha256(body).hexdigest()
        kind = rng.randrange(10)
        if kind < 2:
            self._known[key] = before | {None}
            self._expect((204,), "DELETE", path)
            self._known[key] = {None}
            return
        if kind == 2:
            _, answer = self._expect((200,), "POST", path, "uploads=")
            upload = re.search(rb"<UploadId>(\w+)</UploadId>", answer)
            assert upload is not None
            ref = f"uploadId={upload[1].decode()}"
            self._expect((200,), "PUT", path, f"partNumber=1&{ref}", body)
            etag = hashlib.md5(body).hexdigest()
            part = f'<Part><PartNumber>1</PartNumber><ETag>"{etag}"</ETag></Part>'
            self._known[key] = before | {after}
            content = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode()
            self._expect((200,), "POST", path, ref, content)
        else:
            self._known[key] = before | {after}
            self._expect((200,), "PUT", path, "", body)
        self._known[key] = {after}

    def _expect(self, statuses: tuple[int, ...], *request: Any) -> tuple[int, bytes]:
        status, answer = self._client.ask(*request)
        assert status in statuses, (request[:3], status, answer)
        return status, answer


class Answered:
    """Counts answers; `enough` is set after so many."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self.enough = threading.Event()

    def add(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                self.enough.set()

    def all(self) -> None:
        self.enough.set()


def _admin(server: TroveServer, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.admin + path, data, {"Authorization": f"Bearer {server.admin_token}"})
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def _compact(server: TroveServer) -> None:
    """Again and again, so that kills meet it half done."""
    try:
        while True:
            _admin(server, "/compact", {})
    except (OSError, http.client.HTTPException):
        pass


def _kill_once(server: TroveServer, seed: int, known: list[Known]) -> None:
    answered = Answered(random.Random(seed).randint(1, ANSWERS_MAX))
    writers = [Writer(server, number, seed, mine, answered) for number, mine in enumerate(known)]
    threads: list[threading.Thread] = [*writers]
    if seed % 2:
        threads.append(threading.Thread(target=_compact, args=(server,)))
    for thread in threads:
        thread.start()
    try:
        assert answered.enough.wait(WAIT_S), "the writers do not get on"
    finally:
        server.kill()
        for thread in threads:
            thread.join(WAIT_S)
    assert [writer.problem for writer in writers] == [None] * WRITERS


def _compare(server: TroveServer, known: list[Known]) -> None:
    client = Client(server)
    status, listing = client.ask("GET", "/bkt", "list-type=2")
    assert status == 200
    listed = {key.decode() for key in re.findall(rb"<Key>([^<]+)</Key>", listing)}
    there: set[str] = set()
    for mine in known:
        for key, possible in mine.items():
            status, body = client.ask("GET", f"/bkt/{key}")
            assert status in (200, 404), (key, status, body[:300])
            found = hashlib.sha256(body).hexdigest() if status == 200 else None
            assert found in possible, (key, found, possible)
            mine[key] = {found}
            if found is not None:
                there.add(key)
    assert listed == there
    client.close()


def test_nothing_acknowledged_is_lost_and_nothing_is_half_there(tmp_path: Path) -> None:
    known: list[Known] = [{} for _ in range(WRITERS)]
    with closing(Nursery(tmp_path)) as nursery, NursedTrove(tmp_path / "n", nursery) as server:
        client = Client(server)
        assert client.ask("PUT", "/bkt")[0] == 200
        client.close()
        for number in range(1, KILLS + 1):
            seed = SEED * 1_000_000 + number
            try:
                _kill_once(server, seed, known)
                server.start()
                _compare(server, known)
                if number % VERIFY_EVERY == 0 or number == KILLS:
                    assert _admin(server, "/verify", {})["damaged"] == []
                    assert _admin(server, "/status", None)["damaged_records"] == 0
            except BaseException as error:
                raise AssertionError(f"kill {number} with seed {SEED}") from error
        assert sum(map(len, known)) == WRITERS * KEYS or KILLS < 20


def test_turned_bits_over_http(tmp_path: Path) -> None:
    """As the 10,000 of tests/unit/trove/test_bit_flips.py, through a real process."""
    rng = random.Random(5)
    bodies = {f"k{number}": rng.randbytes(rng.choice((100, 4096, 70_000))) for number in range(30)}
    refused = 0
    with TroveServer(tmp_path / "n") as server:
        client = Client(server)
        assert client.ask("PUT", "/bkt")[0] == 200
        for key, body in bodies.items():
            assert client.ask("PUT", f"/bkt/{key}", "", body)[0] == 200
        (volume,) = (tmp_path / "n" / "volumes").iterdir()
        content = volume.read_bytes()
        with volume.open("r+b", buffering=0) as file:
            for _ in range(150):
                key = rng.choice(sorted(bodies))
                at = content.find(bodies[key]) - 70 + rng.randrange(len(bodies[key]) + 250)
                os.pwrite(file.fileno(), bytes([content[at] ^ 1 << rng.randrange(8)]), at)
                status, body = client.ask("GET", f"/bkt/{key}")
                os.pwrite(file.fileno(), content[at : at + 1], at)
                assert status in (200, 500), (status, body[:300])
                assert status == 500 or body == bodies[key]
                refused += status == 500
        assert refused > 100
        for key, body in bodies.items():
            assert client.ask("GET", f"/bkt/{key}") == (200, body)
        client.close()
